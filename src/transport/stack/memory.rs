//! Connections inside the process: what a plug and a socket are to hardware.

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Connections plugged in and not yet yielded by the listener.
const PLUGGED_COUNT_MAX: usize = 4;

/// Where connections are plugged in.
#[derive(Clone, Debug)]
pub struct Plug(mpsc::Sender<DuplexStream>);

/// Where they come out; the source of a [`Listener`](crate::transport::listener::Listener).
#[derive(Debug)]
pub struct Socket(mpsc::Receiver<DuplexStream>);

/// A plug and its socket.
pub fn pair() -> (Plug, Socket) {
    let (sender, receiver) = mpsc::channel(PLUGGED_COUNT_MAX);
    (Plug(sender), Socket(receiver))
}

impl Plug {
    /// Connects; returns the far end, which holds at most `bytes` octets not yet read in each direction.
    ///
    /// `None` when nobody listens, or when too many connections wait for the listener.
    pub fn connect(&self, bytes: usize) -> Option<DuplexStream> {
        let (near, far) = tokio::io::duplex(bytes);
        self.0.try_send(near).ok().map(|()| far)
    }
}

impl Socket {
    /// The next connection; none when every plug is gone. Cancel safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}
