//! The service manager: systemd, or another one that speaks its notifications (`sd_notify(3)`), or none at all.

use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::debug;

use super::{Failure, check};
use crate::gateway::supervisor::{News, Order, Supervisor};

/// Reads the signals of the service manager and tells it how the gateway is.
#[derive(Debug)]
pub struct Manager {
    config: PathBuf,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Manager {
    /// From now on SIGTERM, SIGINT and SIGHUP no longer end the process by themselves; SIGHUP reads `config` again.
    ///
    /// # Errors
    /// The operating system refused the handlers.
    pub fn new(config: PathBuf) -> Result<Self, Failure> {
        Ok(Self {
            config,
            terminate: handle(SignalKind::terminate())?,
            interrupt: handle(SignalKind::interrupt())?,
            hangup: handle(SignalKind::hangup())?,
        })
    }

    fn reload(&self) -> Order {
        match NotifyState::monotonic_usec_now() {
            Ok(since) => notify(&[NotifyState::Reloading, since]),
            Err(error) => debug!("the service manager was not told of the reload: {error}"),
        }
        let config = check::load(&self.config);
        // A failure has a line for each error; the journal and the service manager have one line for all.
        Order::Reload(
            config.map(Box::new).map_err(|failure| failure.message.replacen('\n', ": ", 1).replace('\n', "; ")),
        )
    }
}

impl Supervisor for Manager {
    async fn order(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hangup.recv() => self.reload(),
        }
    }

    fn tell(&mut self, news: News<'_>) {
        notify(&[match news {
            News::Ready => NotifyState::Ready,
            News::Status(line) => NotifyState::Status(line),
            News::Alive => NotifyState::Watchdog,
            News::Stopping => NotifyState::Stopping,
        }]);
    }

    /// Twice as often as the service manager expects it.
    ///
    /// Source: sd_watchdog_enabled(3).
    fn alive_interval(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|expected| expected / 2)
    }
}

/// Handles a signal, which then no longer ends the process by itself.
///
/// # Errors
/// The operating system refused.
pub fn handle(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot handle signals: {error}")))
}

/// Tells the service manager something, if there is one.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("the service manager was not told: {error}");
    }
}
