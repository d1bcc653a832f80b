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
/// do not try again together, however often they fail.
#[derive(Clone, Debug)]
pub struct Decorrelated {
    min_ms: u64,
    max_ms: u64,
    last_ms: u64,
}

impl Decorrelated {
    /// Pauses between `min_ms` and `max_ms` milliseconds.
    pub const fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, last_ms: min_ms }
    }

    /// Counts a failure and says how long to wait.
    pub fn fail(&mut self, random: &mut dyn Random) -> Duration {
        let ceiling = self.last_ms.saturating_mul(3).min(self.max_ms);
        self.last_ms = between_ms(random, self.min_ms, ceiling);
        Duration::from_millis(self.last_ms)
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.last_ms = self.min_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn pauses_grow_within_their_bounds_and_start_again() {
        let mut random = SeededRandom::new(1);
        let mut backoff = Decorrelated::new(500, 60_000);
        let mut last = 500;
        let mut longest = 0;
        for _ in 0..400 {
            let pause = backoff.fail(&mut random).as_millis() as u64;
            assert!((500..=60_000).contains(&pause) && pause <= 3 * last, "{pause} after {last}");
            (last, longest) = (pause, longest.max(pause));
        }
        assert!(longest > 50_000);
        backoff.reset();
        assert!(backoff.fail(&mut random) <= Duration::from_millis(1_500));
    }

    /// Gateways that lost one service together spread over minutes: no second sees more than a few of them.
    #[test]
    fn a_thousand_gateways_do_not_come_back_together() {
        let mut arrivals = std::collections::BTreeMap::<u64, u32>::new();
        for gateway in 0..1_000 {
            let mut random = SeededRandom::new(gateway);
            let mut backoff = Decorrelated::new(500, 60_000);
            let mut at = 0;
            while at < 600_000 {
                at += backoff.fail(&mut random).as_millis() as u64;
                *arrivals.entry(at / 1_000).or_default() += 1;
            }
        }
        let busiest = |from: u64| arrivals.range(from..600).map(|(_, count)| *count).max();
        assert!(arrivals.get(&0).is_none_or(|count| *count < 600), "{arrivals:?}");
        assert!(busiest(60) < Some(120), "{arrivals:?}");
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
