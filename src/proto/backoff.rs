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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

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
