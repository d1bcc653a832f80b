//! The last wall time that is known to have passed: what certificates are judged at while no clock is synchronised.
//!
//! It rises with what a verified service says (`Date`), at most to the end of that one's certificate, so that a service
//! whose clock is wrong makes nothing fail that is not over by then. A synchronised clock takes the place of what a service
//! says, and lowers a time that lies in its future.
//!
//! On flash is what was known at the last write. That costs flash, so it happens when the two are
//! [`TIME_RECORD_INTERVAL_S`] apart, once in [`TIME_RECORD_PAUSE_MS`] at most, and at an end in order.

use super::Change;
use super::record::{Key, Record};
use crate::limits::{TIME_RECORD_INTERVAL_S, TIME_RECORD_PAUSE_MS, TIME_RECORD_STOP_S};
use crate::time::{BootId, ClockReading, Duration, Instant, UnixTime};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LastTime {
    known: Option<Known>,
    /// What is on flash, or on its way there.
    written: Option<UnixTime>,
    /// An earlier version has left its record, which is read when there is no other.
    has_earlier: bool,
    is_behind: bool,
    not_before: Instant,
    boot: Option<BootId>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    time: UnixTime,
    /// The boot in which it became known.
    boot: Option<BootId>,
}

impl LastTime {
    /// In which boot the times to come become known.
    pub(super) fn booted(&mut self, boot: Option<BootId>) {
        self.boot = boot;
    }

    /// What an earlier run has written.
    pub(super) fn restored(&mut self, time: UnixTime, boot: Option<BootId>) {
        self.known = Some(Known { time, boot });
        self.written = Some(time);
    }

    /// What an earlier version has written; it is kept for that one, and is worth less than a record of this one.
    pub(super) fn restored_earlier(&mut self, time: UnixTime) {
        self.has_earlier = true;
        self.known.get_or_insert(Known { time, boot: None });
    }

    /// A verified service, whose certificate ends at `not_after`, has answered.
    pub(super) fn confirmed(&mut self, date: Option<UnixTime>, not_after: UnixTime, clock: ClockReading, now: Instant) {
        let said = if clock.is_synchronised { Some(clock.wall()) } else { date };
        let Some(time) = said.map(|time| time.min(not_after)) else { return };
        if self.time().is_none_or(|known| known < time) {
            self.set(time, now);
        }
        self.clock_read(clock, now);
    }

    /// The clock was looked at: what lies in the future of a synchronised one was wrong.
    pub(super) fn clock_read(&mut self, clock: ClockReading, now: Instant) {
        if clock.is_synchronised && self.time().is_some_and(|known| known > clock.wall()) {
            self.set(clock.wall(), now);
        }
        self.look(now);
    }

    /// Nothing is known from now on, on flash as well.
    pub(super) fn forget(&mut self) {
        self.known = None;
        self.is_behind |= self.written.is_some() || self.has_earlier;
    }

    /// The process ends in order.
    pub(super) fn stopping(&mut self) {
        self.is_behind |= self.is_off_by(TIME_RECORD_STOP_S);
    }

    /// The last known time.
    pub(super) fn time(&self) -> Option<UnixTime> {
        self.known.map(|known| known.time)
    }

    pub(super) fn is_of_this_boot(&self) -> Option<bool> {
        Some(self.known?.boot? == self.boot?)
    }

    /// Whether it waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// What is to be written, and with it.
    pub(super) fn change(&mut self, now: Instant) -> Option<(Change, Option<Change>)> {
        if !std::mem::take(&mut self.is_behind) {
            return None;
        }
        self.not_before = now + Duration::from_millis(TIME_RECORD_PAUSE_MS);
        self.written = self.time();
        Some(match self.known {
            Some(Known { time, boot }) => (Change::Put(Record::LastTime(time, boot)), None),
            None => {
                let earlier = std::mem::take(&mut self.has_earlier).then_some(Change::Remove(Key::Time));
                (Change::Remove(Key::LastTime), earlier)
            }
        })
    }

    /// The write has failed; what of it is on flash is not known.
    pub(super) fn not_written(&mut self) {
        self.has_earlier |= self.known.is_none();
        self.is_behind = true;
    }

    fn set(&mut self, time: UnixTime, now: Instant) {
        self.known = Some(Known { time, boot: self.boot });
        self.look(now);
    }

    fn look(&mut self, now: Instant) {
        self.is_behind |= now >= self.not_before && self.is_off_by(TIME_RECORD_INTERVAL_S);
    }

    /// Whether what is known is at least so far from what is on flash.
    fn is_off_by(&self, seconds: u64) -> bool {
        match (self.known, self.written) {
            (Some(known), Some(written)) => known.time.0.abs_diff(written.0) >= seconds,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;
    const T: u64 = 1_800_000_000;
    const END: UnixTime = UnixTime(T + 90 * DAY_S);
    /// A board that has just booted, and one whose clock is far ahead.
    const UNSET: ClockReading = ClockReading { wall_ms: 12_000, is_synchronised: false };
    const AHEAD: ClockReading = ClockReading { wall_ms: 4_070_908_800_000, is_synchronised: false };

    fn synchronised(seconds: u64) -> ClockReading {
        ClockReading { wall_ms: seconds * 1_000, is_synchronised: true }
    }

    fn at(hours: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(hours * 3_600)
    }

    fn said(seconds: u64) -> Option<UnixTime> {
        Some(UnixTime(seconds))
    }

    /// The time that is written, if one is.
    fn written(time: &mut LastTime, now: Instant) -> Option<u64> {
        match time.change(now) {
            Some((Change::Put(Record::LastTime(time, _)), None)) => Some(time.0),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_date_raises_it_to_the_end_of_the_certificate_at_most() {
        for clock in [UNSET, AHEAD] {
            let mut time = LastTime::default();
            time.confirmed(None, END, clock, at(0));
            assert_eq!(time.time(), None, "what such a clock shows is nothing");
            time.confirmed(said(T), END, clock, at(0));
            assert_eq!(time.time(), said(T));
            time.confirmed(said(T - 1), END, clock, at(0));
            assert_eq!(time.time(), said(T), "an earlier one lowers nothing");
            time.confirmed(said(4_070_908_800), END, clock, at(0));
            assert_eq!(time.time(), Some(END));
            time.confirmed(said(T + 1), UnixTime(T + 1), clock, at(0));
            assert_eq!(time.time(), Some(END), "another service whose certificate ends earlier");
        }
    }

    #[test]
    fn a_synchronised_clock_counts_more_and_lowers_it() {
        let mut time = LastTime::default();
        time.confirmed(said(T + 9 * DAY_S), END, synchronised(T), at(0));
        assert_eq!(time.time(), said(T), "not what the service says");
        time.confirmed(said(T + 80 * DAY_S), END, UNSET, at(0));
        time.clock_read(UNSET, at(0));
        time.clock_read(AHEAD, at(0));
        assert_eq!(time.time(), said(T + 80 * DAY_S));
        time.clock_read(synchronised(T + DAY_S), at(0));
        assert_eq!(time.time(), said(T + DAY_S));
        time.clock_read(synchronised(T + 2 * DAY_S), at(0));
        assert_eq!(time.time(), said(T + DAY_S), "without a verified answer it does not rise");
        time.confirmed(None, END, synchronised(4_070_908_800), at(0));
        assert_eq!(time.time(), Some(END), "one that is wrong all the same is bounded as well");
        time.clock_read(synchronised(T), at(0));
        assert_eq!(time.time(), said(T));
    }

    /// A year of answers each minute is a write a day; a time that jumps forth and back is a write an hour.
    #[test]
    fn it_is_written_rarely() {
        let mut time = LastTime::default();
        time.confirmed(said(T), END, UNSET, at(0));
        assert_eq!(written(&mut time, at(0)), Some(T));
        let end = UnixTime(T + 1_000 * DAY_S);
        let writes = (1..365 * 24 * 60).filter(|minute| {
            let now = Instant::ZERO + Duration::from_secs(minute * 60);
            time.confirmed(said(T + minute * 60), end, UNSET, now);
            written(&mut time, now).is_some()
        });
        assert_eq!(writes.count(), 364);

        let mut time = LastTime::default();
        let writes = (0..10 * 60).filter(|minute| {
            let now = Instant::ZERO + Duration::from_secs(minute * 60);
            time.confirmed(said(T + 80 * DAY_S), END, UNSET, now);
            let first = written(&mut time, now).is_some();
            time.clock_read(synchronised(T), now);
            first | written(&mut time, now).is_some()
        });
        assert_eq!(writes.count(), 10);
        assert!(!time.is_behind());
    }

    #[test]
    fn an_end_in_order_writes_what_has_risen_by_an_hour() {
        for (risen, is_written) in [(TIME_RECORD_STOP_S - 1, false), (TIME_RECORD_STOP_S, true)] {
            let mut time = LastTime::default();
            time.restored(UnixTime(T), None);
            time.confirmed(said(T + risen), END, UNSET, at(0));
            assert_eq!(written(&mut time, at(0)), None);
            time.stopping();
            assert_eq!(written(&mut time, at(0)), is_written.then_some(T + risen));
        }
        let mut unknown = LastTime::default();
        unknown.stopping();
        assert!(!unknown.is_behind());
    }

    #[test]
    fn a_write_that_failed_is_made_again() {
        let mut time = LastTime::default();
        time.confirmed(said(T), END, UNSET, at(0));
        assert_eq!(written(&mut time, at(0)), Some(T));
        time.not_written();
        assert!(time.is_behind());
        assert_eq!(written(&mut time, at(0)), Some(T));
    }

    #[test]
    fn forgetting_removes_what_any_version_has_written() {
        let mut time = LastTime::default();
        time.restored_earlier(UnixTime(T));
        assert_eq!((time.time(), time.is_behind()), (said(T), false));
        time.forget();
        assert_eq!(time.time(), None);
        for _ in 0..2 {
            let change = time.change(at(0));
            let Some((Change::Remove(Key::LastTime), Some(Change::Remove(Key::Time)))) = change else {
                panic!("{change:?}")
            };
            time.not_written();
        }
        let mut unknown = LastTime::default();
        unknown.forget();
        assert!(!unknown.is_behind(), "there is nothing to remove");
    }

    #[test]
    fn the_newer_record_counts_whatever_comes_first() {
        let (mut one, mut other) = (LastTime::default(), LastTime::default());
        one.restored_earlier(UnixTime(T + 5));
        one.restored(UnixTime(T), None);
        other.restored(UnixTime(T), None);
        other.restored_earlier(UnixTime(T + 5));
        assert_eq!((one.time(), other.time()), (said(T), said(T)));
    }

    #[test]
    fn it_is_known_in_which_boot_it_became_known() {
        let [this, earlier] = ["11", "22"].map(|octet| BootId::parse(&octet.repeat(16)));
        let mut time = LastTime::default();
        time.booted(this);
        assert_eq!(time.is_of_this_boot(), None);
        time.restored(UnixTime(T), earlier);
        assert_eq!(time.is_of_this_boot(), Some(false));
        time.confirmed(said(T + DAY_S), END, UNSET, at(0));
        assert_eq!(time.is_of_this_boot(), Some(true));
        let change = time.change(at(0));
        assert!(matches!(change, Some((Change::Put(Record::LastTime(_, boot)), None)) if boot == this), "{change:?}");
    }
}
