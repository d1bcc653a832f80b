//! Growing pauses with jitter.

use crate::random::{Random, between_ms};
use crate::time::Duration;

/// A pause that doubles with each failure between two bounds, each time drawn from its upper half.
#[derive(Clone, Debug)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Pauses between `min_ms` and `max_ms` milliseconds.
    pub const fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, failures: 0 }
    }

    /// Counts a failure and says how long to wait; at least `asked`, if the peer asked for a pause.
    pub fn fail(&mut self, asked: Option<Duration>, random: &mut dyn Random) -> Duration {
        let ceiling = self.min_ms.saturating_mul(1 << self.failures.min(32)).min(self.max_ms);
        self.failures = self.failures.saturating_add(1);
        let pause = Duration::from_millis(between_ms(random, ceiling / 2, ceiling));
        asked.map_or(pause, |asked| asked.max(pause))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A pause between two bounds, each time drawn from the shortest to three times the one before: those that failed together
/// do not try again together, however often they fail. The first one has a bound of its own, since all of them may have
/// failed in the same moment.
#[derive(Clone, Debug)]
pub struct Decorrelated {
    min_ms: u64,
    first_max_ms: u64,
    max_ms: u64,
    /// What the next one may be at most.
    ceiling_ms: u64,
}

impl Decorrelated {
    /// Pauses between `min_ms` and `max_ms` milliseconds, of which the first has `first_max_ms` at most.
    pub const fn new(min_ms: u64, first_max_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, first_max_ms, max_ms, ceiling_ms: first_max_ms }
    }

    /// Counts a failure and says how long to wait.
    pub fn fail(&mut self, random: &mut dyn Random) -> Duration {
        let pause = between_ms(random, self.min_ms, self.ceiling_ms);
        self.ceiling_ms = pause.saturating_mul(3).min(self.max_ms);
        Duration::from_millis(pause)
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.ceiling_ms = self.first_max_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BACKOFF_MS_FIRST_MAX, BACKOFF_MS_MAX, BACKOFF_MS_MIN};
    use crate::random::SeededRandom;

    #[test]
    fn pauses_grow_within_their_bounds_and_start_again() {
        let mut random = SeededRandom::new(1);
        let mut backoff = Decorrelated::new(BACKOFF_MS_MIN, BACKOFF_MS_FIRST_MAX, BACKOFF_MS_MAX);
        let mut ceiling = BACKOFF_MS_FIRST_MAX;
        let mut longest = 0;
        for _ in 0..400 {
            let pause = backoff.fail(&mut random).as_millis() as u64;
            assert!((BACKOFF_MS_MIN..=ceiling).contains(&pause), "{pause} of {ceiling}");
            (ceiling, longest) = ((3 * pause).min(BACKOFF_MS_MAX), longest.max(pause));
        }
        assert!(longest > BACKOFF_MS_MAX * 5 / 6);
        for _ in 0..400 {
            backoff.reset();
            let pause = backoff.fail(&mut random).as_millis() as u64;
            assert!((BACKOFF_MS_MIN..=BACKOFF_MS_FIRST_MAX).contains(&pause), "{pause}");
        }
    }

    /// Gateways that lost one service in the same moment spread from the first attempt on: no second sees a third of them
    /// come back, and one that stays away sees less and less of them.
    #[test]
    fn a_thousand_gateways_do_not_come_back_together() {
        let (mut first, mut all) = (Vec::new(), Vec::new());
        for gateway in 0..1_000 {
            let mut random = SeededRandom::new(gateway);
            let mut backoff = Decorrelated::new(BACKOFF_MS_MIN, BACKOFF_MS_FIRST_MAX, BACKOFF_MS_MAX);
            let mut at = 0;
            while at < 600_000 {
                at += backoff.fail(&mut random).as_millis() as u64;
                first.extend((first.len() as u64 == gateway).then_some(at));
                all.push(at);
            }
        }
        let busiest = |mut attempts: Vec<u64>, from_ms: u64| {
            attempts.retain(|at| (from_ms..600_000).contains(at));
            attempts.sort_unstable();
            let within = |start: usize| attempts.partition_point(|at| *at < attempts[start] + 1_000) - start;
            (0..attempts.len()).map(within).max()
        };
        let (at_first, at_all, later) = (busiest(first, 0), busiest(all.clone(), 0), busiest(all, 60_000));
        assert!(at_first < Some(333) && at_all < Some(600) && later < Some(150), "{at_first:?} {at_all:?} {later:?}");
    }

    #[test]
    fn pauses_double_up_to_the_bound_and_start_again() {
        let mut random = SeededRandom::new(1);
        let mut backoff = Backoff::new(500, 60_000);
        let mut ceiling = 500;
        for _ in 0..40 {
            let pause = backoff.fail(None, &mut random).as_millis() as u64;
            assert!((ceiling / 2..=ceiling).contains(&pause), "{pause} of {ceiling}");
            ceiling = (ceiling * 2).min(60_000);
        }
        backoff.reset();
        assert!(backoff.fail(None, &mut random) <= Duration::from_millis(500));
    }

    /// D-9110-01: the pause that the peer asks for is a floor.
    #[test]
    fn the_asked_pause_is_a_floor() {
        let mut backoff = Backoff::new(500, 60_000);
        let asked = Duration::from_secs(90);
        assert_eq!(backoff.fail(Some(asked), &mut SeededRandom::new(1)), asked);
    }
}
