//! What time it is, as far as that is known: a synchronised clock counts, and without one what is known to have passed.
//!
//! The latter is a lower bound, and stays one as time passes. A machine that was without power for long may so take for
//! fresh what no longer is, until its clock is synchronised or a verified service has said what time it is.

use crate::time::{ClockReading, Instant, UnixTime};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WallTime {
    /// What was known last, and since when.
    known: Option<(UnixTime, Instant)>,
}

impl WallTime {
    /// The clock was looked at; one that is not synchronised says nothing, and counts less than what has passed.
    pub(super) fn read(&mut self, clock: ClockReading, passed: Option<UnixTime>, now: Instant) {
        if clock.is_synchronised {
            self.known = Some((clock.wall(), now));
        } else if let Some(passed) = passed.filter(|passed| self.at(now).is_none_or(|known| known < *passed)) {
            self.known = Some((passed, now));
        }
    }

    /// What time it is.
    pub(super) fn at(&self, now: Instant) -> Option<UnixTime> {
        self.known.map(|(time, since)| UnixTime(time.0.saturating_add(now.since(since).as_secs())))
    }

    /// Nothing is known from now on.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn clock(seconds: u64, is_synchronised: bool) -> ClockReading {
        ClockReading { wall_ms: seconds * 1_000, is_synchronised }
    }

    #[test]
    fn what_has_passed_counts_until_a_clock_does() {
        let mut time = WallTime::default();
        time.read(clock(T + 500, false), None, at(0));
        assert_eq!(time.at(at(9)), None, "what such a clock shows is nothing");
        time.read(clock(T + 500, false), Some(UnixTime(T)), at(10));
        assert_eq!(time.at(at(15)), Some(UnixTime(T + 5)));
        time.read(clock(T + 500, false), Some(UnixTime(T + 4)), at(15));
        assert_eq!(time.at(at(15)), Some(UnixTime(T + 5)), "time goes on by itself");
        time.read(clock(T + 500, false), Some(UnixTime(T + 100)), at(15));
        assert_eq!(time.at(at(16)), Some(UnixTime(T + 101)));
        time.read(clock(T + 50, true), Some(UnixTime(T + 100)), at(16));
        assert_eq!(time.at(at(17)), Some(UnixTime(T + 51)), "a clock that is right lowers it");
        time.forget();
        assert_eq!(time.at(at(17)), None);
    }

    #[test]
    fn the_latest_time_does_not_wrap() {
        let mut time = WallTime::default();
        time.read(ClockReading::default(), Some(UnixTime(u64::MAX)), at(0));
        assert_eq!(time.at(at(1)), Some(UnixTime(u64::MAX)));
    }
}
