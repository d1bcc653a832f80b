//! Other places where an origin can be reached, as its service announces them, and what became of trying them.
//!
//! New connections go to the first alternative that is fresh and has not failed lately, and to the origin when there is
//! none. A connection stays where it is, however stale what led there has become, until the service names other places.
//! After a restart those are used that outlive power ([`lasting`](super::lasting)); otherwise the origin is asked, and says
//! it again.
//!
//! ```text
//! announced --fresh--> tried --ready--> used
//!     ^                  | failed, misdirected, or ended soon
//!     +--pause is over-- Failed(until) ------> the next one, or the origin
//! ```
//!
//! Source: RFC 7838 §2.2 (freshness, network changes), §2.4 (use), §6 (421), §9.4 (clearing).

use super::Gateway;
use super::backoff::Backoff;
use super::connection::{ConnectionId, Trouble};
use super::upstream::Upstream;
use crate::limits::{ALTERNATIVE_FAILED_COUNT_MAX, ALTERNATIVE_RETRY_MS_MAX, ALTERNATIVE_RETRY_MS_MIN};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::webpush::alt_svc::{Alternative, Announcement};

/// What is known of the alternatives of one origin.
#[derive(Debug, Default)]
pub struct Alternatives {
    /// As last announced, in the service's order.
    known: Vec<Known>,
    /// At most [`ALTERNATIVE_FAILED_COUNT_MAX`], announced or not: naming a place again does not mend it.
    failed: Vec<Failed>,
}

#[derive(Debug)]
struct Known {
    alternative: Alternative,
    fresh_until: Instant,
    persists: bool,
}

#[derive(Debug)]
struct Failed {
    alternative: Alternative,
    trouble: Trouble,
    until: Instant,
    backoff: Backoff,
}

impl Alternatives {
    /// Takes what the service says of its alternatives: it replaces all that was known. What failed stays failed.
    pub fn announced(&mut self, announcement: Announcement, now: Instant) {
        let known = announcement.offers.into_iter().map(|offer| Known {
            alternative: offer.alternative,
            fresh_until: now + offer.fresh_for,
            persists: offer.persists,
        });
        self.known = known.collect();
    }

    /// Takes up what an earlier run knew of those that persist, each with for how long it is fresh: it replaces all.
    pub fn restored(&mut self, fresh: impl Iterator<Item = (Alternative, Duration)>, now: Instant) {
        let known =
            fresh.map(|(alternative, fresh_for)| Known { alternative, fresh_until: now + fresh_for, persists: true });
        self.known = known.collect();
    }

    /// Those that persist, each with for how long it is fresh.
    pub fn lasting(&self, now: Instant) -> impl Iterator<Item = (&Alternative, Duration)> {
        let persisting = self.known.iter().filter(|known| known.persists);
        persisting.map(move |known| (&known.alternative, known.fresh_until.since(now)))
    }

    /// Where the next connection goes; none: to the origin.
    pub fn best(&self, now: Instant) -> Option<&Alternative> {
        let is_usable = |known: &&Known| self.usable_at(known, now).is_some_and(|at| at <= now);
        self.known.iter().find(is_usable).map(|known| &known.alternative)
    }

    /// When a connection at `place` is to be replaced by one at an alternative: never while the service still names its
    /// place, or none that is of use.
    pub fn move_at(&self, place: Option<&Alternative>, now: Instant) -> Option<Instant> {
        if self.known.iter().any(|known| Some(&known.alternative) == place) {
            return None;
        }
        self.known.iter().filter_map(|known| self.usable_at(known, now)).min()
    }

    /// From when on new connections may go to an alternative; never once it is no longer fresh.
    fn usable_at(&self, known: &Known, now: Instant) -> Option<Instant> {
        let at = self.failure(&known.alternative).map_or(now, |failed| failed.until.max(now));
        (at < known.fresh_until).then_some(at)
    }

    fn failure(&self, alternative: &Alternative) -> Option<&Failed> {
        self.failed.iter().find(|failed| failed.alternative == *alternative)
    }

    /// An alternative could not be connected to, or was of no use: it is left alone for a while that grows each time, until
    /// it has been good for long.
    pub fn failed(&mut self, alternative: &Alternative, trouble: Trouble, now: Instant, random: &mut dyn Random) {
        let clean = Backoff::new(ALTERNATIVE_RETRY_MS_MIN, ALTERNATIVE_RETRY_MS_MAX);
        let was_good = Duration::from_millis(ALTERNATIVE_RETRY_MS_MAX);
        let before = self.failure(alternative).filter(|failed| now.since(failed.until) < was_good);
        let mut backoff = before.map_or(clean, |failed| failed.backoff.clone());
        self.failed.retain(|failed| failed.alternative != *alternative);
        if self.failed.len() == ALTERNATIVE_FAILED_COUNT_MAX
            && let Some(first) = (0..self.failed.len()).min_by_key(|&at| self.failed[at].until)
        {
            self.failed.swap_remove(first);
        }
        let until = now + backoff.fail(None, random);
        self.failed.push(Failed { alternative: alternative.clone(), trouble, until, backoff });
    }

    /// An alternative says that it does not serve the origin.
    pub fn misdirected(&mut self, alternative: &Alternative, now: Instant, random: &mut dyn Random) {
        self.known.retain(|known| known.alternative != *alternative);
        self.failed(alternative, Trouble::Misdirected, now, random);
    }

    /// The origin cannot be reached either: that was the network, and says nothing of alternatives.
    pub fn network_failed(&mut self) {
        self.failed.retain(|failed| failed.trouble != Trouble::Network);
    }

    /// On another network other alternatives may be better, and others may be reached.
    pub fn path_changed(&mut self) {
        self.known.retain(|known| known.persists);
        self.failed.clear();
    }

    /// Everything that is known of the origin is to go.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// All that new connections may go to, now or later, each with why it is left alone for now.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (&Alternative, Option<Trouble>)> {
        let fresh = self.known.iter().filter(move |known| now < known.fresh_until);
        fresh.map(move |known| {
            let failure = self.failure(&known.alternative).filter(|failed| now < failed.until);
            (&known.alternative, failure.map(|failed| failed.trouble))
        })
    }
}

impl Upstream {
    /// When the connection is to move to an alternative.
    pub fn move_at(&self, now: Instant) -> Option<Instant> {
        let (movable_at, place) = self.uplink.movable()?;
        self.alternatives.move_at(place, now).map(|at| at.max(movable_at))
    }

    /// A connection ends, or is let go: one at an alternative that was of no use for longer than a moment says that this
    /// alternative is none.
    pub(super) fn note_end(
        &mut self,
        connection: ConnectionId,
        trouble: Trouble,
        now: Instant,
        random: &mut dyn Random,
    ) {
        if let Some(place) = self.uplink.place(connection).filter(|_| self.uplink.is_young(connection, now)) {
            self.alternatives.failed(place, trouble, now, random);
        }
    }
}

impl Gateway {
    /// The service has said where else it can be reached, on a connection that has proved to be its own.
    pub(super) fn alternatives_announced(&mut self, connection: ConnectionId, announcement: Announcement) {
        // What is to be forgotten is not learned again.
        if !self.is_resetting
            && let Some(upstream) = self.upstreams.of(connection)
        {
            upstream.alternatives.announced(announcement, self.now);
            upstream.alternatives_said(self.wall_time.at(self.now), self.now);
        }
    }

    /// What answers at an alternative does not serve its origin: no more requests go there.
    pub(super) fn misdirected(&mut self, connection: ConnectionId) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        if let Some(place) = upstream.uplink.place(connection) {
            upstream.alternatives.misdirected(place, self.now, &mut *self.random);
            upstream.uplink.leave(connection, self.now);
            upstream.alternatives_said(self.wall_time.at(self.now), self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::webpush::alt_svc::Offer;

    #[test]
    fn the_first_one_that_is_fresh_and_has_not_failed_is_next() {
        let mut alternatives = announced(&[(1, 60), (2, 120)]);
        assert_eq!(ports(&alternatives, 0), (Some(1), 2));
        alternatives.failed(&at(1), Trouble::Network, Instant::ZERO, &mut SeededRandom::new(1));
        assert_eq!(ports(&alternatives, 0), (Some(2), 2));
        assert_eq!(ports(&alternatives, 119_999), (Some(2), 1));
        assert_eq!(ports(&alternatives, 120_000), (None, 0));
    }

    /// D-7838-07: a place that fails again and again is tried less and less often, within bounds, whether it is announced
    /// again or not.
    #[test]
    fn d_7838_07_the_pause_of_a_failed_alternative_grows() {
        let mut random = SeededRandom::new(1);
        let (mut alternatives, mut now, mut pauses) = (Alternatives::default(), Instant::ZERO, Vec::new());
        for _ in 0..12 {
            alternatives.failed(&at(1), Trouble::Network, now, &mut random);
            alternatives.announced(announcement(&[(1, 86_400)]), now);
            assert_eq!(alternatives.best(now), None);
            let due = alternatives.move_at(None, now).expect("it is tried again");
            pauses.push(due.since(now).as_millis() as u64);
            now = due;
            assert_eq!(alternatives.best(now), Some(&at(1)));
        }
        assert!((ALTERNATIVE_RETRY_MS_MIN / 2..=ALTERNATIVE_RETRY_MS_MIN).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses.iter().all(|&pause| pause <= ALTERNATIVE_RETRY_MS_MAX));
        assert!(pauses[11] >= ALTERNATIVE_RETRY_MS_MAX / 2, "{pauses:?}");
        now = now + Duration::from_millis(ALTERNATIVE_RETRY_MS_MAX);
        alternatives.failed(&at(1), Trouble::Network, now, &mut random);
        alternatives.announced(announcement(&[(1, 86_400)]), now);
        let due = alternatives.move_at(None, now).expect("it is tried again");
        assert!(due.since(now) <= Duration::from_millis(ALTERNATIVE_RETRY_MS_MIN), "it was good for long");
    }

    #[test]
    fn a_full_table_of_failures_forgets_the_one_that_ends_first() {
        let mut random = SeededRandom::new(1);
        let mut alternatives = Alternatives::default();
        for number in 0..=ALTERNATIVE_FAILED_COUNT_MAX as u64 {
            let later = Instant::from_millis(number * ALTERNATIVE_RETRY_MS_MIN);
            alternatives.failed(&at(1 + number as u16), Trouble::Network, later, &mut random);
        }
        assert_eq!(alternatives.failed.len(), ALTERNATIVE_FAILED_COUNT_MAX);
        assert!(alternatives.failed.iter().all(|failed| failed.alternative != at(1)));
    }

    #[test]
    fn a_connection_stays_where_the_service_still_names_its_place() {
        let alternatives = announced(&[(1, 60), (2, 60)]);
        let move_at = |port: u16, ms| alternatives.move_at(Some(&at(port)), Instant::from_millis(ms));
        assert_eq!((move_at(2, 0), move_at(2, 60_000)), (None, None));
        assert_eq!((move_at(3, 0), move_at(3, 60_000)), (Some(Instant::ZERO), None));
        assert_eq!(Alternatives::default().move_at(Some(&at(1)), Instant::ZERO), None, "none is named any more");
    }

    fn ports(alternatives: &Alternatives, ms: u64) -> (Option<u16>, usize) {
        let now = Instant::from_millis(ms);
        (alternatives.best(now).map(|best| best.port), alternatives.iter(now).count())
    }

    fn announced(offers: &[(u16, u64)]) -> Alternatives {
        let mut alternatives = Alternatives::default();
        alternatives.announced(announcement(offers), Instant::ZERO);
        alternatives
    }

    fn announcement(offers: &[(u16, u64)]) -> Announcement {
        let offer = |&(port, seconds): &(u16, u64)| Offer {
            alternative: at(port),
            fresh_for: Duration::from_secs(seconds),
            persists: false,
        };
        Announcement { offers: offers.iter().map(offer).collect() }
    }

    fn at(port: u16) -> Alternative {
        Alternative { host: "push.example".to_owned(), port }
    }
}
