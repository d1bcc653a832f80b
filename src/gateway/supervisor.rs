//! Who runs a gateway, as the gateway sees it: a service manager, the demonstration or a test.

use std::future::Future;
use std::time::Duration;

use crate::config::Config;

/// What the gateway is told to do.
#[derive(Debug)]
pub enum Order {
    /// Go on with this configuration; or it was to be read again and cannot be used, and why.
    Reload(Result<Box<Config>, String>),
    /// Remove everything at the push services and on flash, then end.
    Reset,
    /// End in order.
    Stop,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'n> {
    /// The state is read and links are served; also after each [`Order::Reload`].
    Ready,
    /// What the gateway does, in a line for a person.
    Status(&'n str),
    /// The event loop has come round.
    Alive,
    /// The gateway is ending.
    Stopping,
}

/// Gives orders and hears how it goes.
pub trait Supervisor {
    /// Waits for the next order. Cancel safe.
    fn order(&mut self) -> impl Future<Output = Order>;

    /// Takes note.
    fn tell(&mut self, news: News<'_>);

    /// How often to tell [`News::Alive`]: never without one.
    fn alive_interval(&self) -> Option<Duration>;
}

/// A future whose end is the order to stop; what it is told, it does not hear.
impl<F: Future<Output = ()> + Unpin> Supervisor for F {
    async fn order(&mut self) -> Order {
        self.await;
        Order::Stop
    }

    fn tell(&mut self, _: News<'_>) {}

    fn alive_interval(&self) -> Option<Duration> {
        None
    }
}
