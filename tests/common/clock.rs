//! A paused clock beside things that happen in real time: it moves when a test says so, and never by itself.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How long, in real time, a clock stands at most: then it runs on, and a test that waits in vain fails by its timeouts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands as long as this lives. The clock of the runtime must be paused.
///
/// A paused clock alone runs on whenever nothing is ready, also while the kernel carries octets from one end of a terminal to
/// the other; so timers would run out that never do on a real line.
pub struct StoppedClock {
    _release: SyncSender<()>,
    start: tokio::time::Instant,
    moved: Duration,
}

impl StoppedClock {
    pub fn new() -> Self {
        let (release, held) = sync_channel::<()>(0);
        // A blocking task that runs keeps a paused clock from running on.
        tokio::task::spawn_blocking(move || held.recv_timeout(PATIENCE).is_ok());
        Self { _release: release, start: tokio::time::Instant::now(), moved: Duration::ZERO }
    }

    /// Lets tasks do what they can, then time pass, then tasks do what they can.
    pub async fn advance(&mut self, by: Duration) {
        settle().await;
        tokio::time::advance(by).await;
        self.moved += by;
        settle().await;
    }

    /// Lets so much real time pass, and none on this clock.
    pub async fn stand(&self, real: Duration) {
        let (_release, held) = sync_channel::<()>(0);
        let wait = tokio::task::spawn_blocking(move || held.recv_timeout(real).is_err());
        assert!(wait.await.expect("it waits"), "the time is over");
    }

    /// Whether it moved by nothing else.
    pub fn stood_still(&self) -> bool {
        self.start.elapsed() == self.moved
    }
}

/// Lets every task run that can, a few times.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}
