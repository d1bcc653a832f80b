//! The one place where the service reads clocks. What passes while the machine is suspended counts; a wait over it ends
//! when the machine has been awake for as long, or something else happens.

use std::cell::Cell;
use tokio::sync::Notify;

use crate::kernel;
use crate::time::{BootId, Duration, Instant, UnixTime};

use super::retention::Moment;

/// Monotonic and wall time since the service started, with a way to let time pass at once.
///
/// [`skip`](Self::skip) is how tests and demonstrations see what happens after hours without waiting for hours.
#[derive(Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    /// How long the machine had been suspended by then.
    suspended_at_start: Duration,
    boot: Option<u32>,
    skipped: Cell<Duration>,
    skip: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            suspended_at_start: kernel::suspended(),
            boot: kernel::boot_id().map(BootId::tag),
            skipped: Cell::new(Duration::ZERO),
            skip: Notify::new(),
        }
    }
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Moment {
        let (clock, skipped) = (kernel::clock(), self.skipped.get());
        let suspended = kernel::suspended().saturating_sub(self.suspended_at_start);
        Moment {
            instant: Instant::ZERO + (self.start.elapsed() + suspended + skipped),
            wall: UnixTime(clock.wall().0 + skipped.as_secs()),
            is_synchronised: clock.is_synchronised,
            boot: self.boot,
            uptime_s: (kernel::uptime() + skipped).as_secs(),
        }
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
