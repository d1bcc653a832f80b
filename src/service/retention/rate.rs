//! Rates: what a sender may still send, and what a user agent was sent within a second.

use std::collections::VecDeque;

use crate::time::{Duration, Instant};

const MINUTE_MS: u64 = 60_000;
const SECOND: Duration = Duration::from_secs(1);

/// A number of messages a minute, all at once or spread over it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// When all that was taken is given back.
    full_at: Instant,
}

impl Bucket {
    /// Takes one of `per_minute`.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn take(&mut self, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let each = Duration::from_millis(MINUTE_MS.div_ceil(u64::from(per_minute.max(1))));
        let full_at = self.full_at.max(now) + each;
        // One that takes a minute each is the whole of it.
        let room = Duration::from_millis(MINUTE_MS).max(each);
        match full_at.since(now + room) {
            Duration::ZERO => {
                self.full_at = full_at;
                Ok(())
            }
            missing => Err(missing),
        }
    }
}

/// Points in time within the last second, as many as may be.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Instant>);

impl Window {
    /// When the next one may come: now or earlier, or once the first of `per_second` is a second ago.
    pub(super) fn next_at(&self, per_second: u32) -> Option<Instant> {
        let count = per_second.max(1) as usize;
        let first = self.0.len().checked_sub(count)?;
        self.0.get(first).map(|at| *at + SECOND)
    }

    /// Counts one.
    pub(super) fn add(&mut self, now: Instant) {
        while self.0.front().is_some_and(|at| *at + SECOND <= now) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_a_minute_s_worth_at_once_and_then_one_at_a_time() {
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            assert_eq!(bucket.take(10, at(1_000_000)), Ok(()));
        }
        assert_eq!(bucket.take(10, at(1_000_000)), Err(Duration::from_secs(6)));
        assert_eq!(bucket.take(10, at(1_005_999)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(10, at(1_006_000)), Ok(()));
        assert_eq!(bucket.take(10, at(1_006_000)), Err(Duration::from_secs(6)));
        assert_eq!(bucket.take(1, at(2_000_000)), Ok(()));
        assert_eq!(bucket.take(0, at(2_000_000)), Err(Duration::from_secs(60)), "no rate is read as one a minute");
    }

    #[test]
    fn a_window_lets_so_many_through_in_any_second() {
        let mut window = Window::default();
        for ms in [0, 100, 200] {
            assert!(window.next_at(3).is_none_or(|next| next <= at(ms)));
            window.add(at(ms));
        }
        assert_eq!(window.next_at(3), Some(at(1_000)));
        window.add(at(1_000));
        assert_eq!((window.next_at(3), window.0.len()), (Some(at(1_100)), 3));
    }
}
