//! The one place where the service reads clocks.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::time::{Duration, Instant, UnixTime};

use super::retention::Moment;

/// Monotonic and wall time since the service started, with a way to let time pass at once.
///
/// [`skip`](Self::skip) is how tests and demonstrations see what happens after hours without waiting for hours.
#[derive(Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    skipped: Cell<Duration>,
    skip: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: tokio::time::Instant::now(), skipped: Cell::new(Duration::ZERO), skip: Notify::new() }
    }
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.skipped.get();
        let passed = self.start.elapsed() + self.skipped.get();
        Moment { instant: Instant::ZERO + passed, wall: UnixTime(wall.as_secs()) }
    }

    /// Lets `duration` pass at once.
    pub fn skip(&self, duration: Duration) {
        self.skipped.set(self.skipped.get() + duration);
        self.skip.notify_one();
    }

    /// Waits until `until`, or for ever if there is nothing to wait for. Wakes earlier when time was skipped.
    ///
    /// Cancel safety: dropping it loses nothing.
    pub async fn wait_until(&self, until: Option<Instant>) {
        let Some(until) = until else { return self.skip.notified().await };
        // Whole milliseconds were cut off from `now`; one more makes sure that the time has come.
        let rest = until.since(self.now().instant) + Duration::from_millis(1);
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = self.skip.notified() => {}
        }
    }
}
