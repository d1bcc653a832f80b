//! The accept loop: TCP, TLS, and which protocol comes after.

use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::limits::{SERVICE_HANDSHAKE_MS_MAX, TCP_USER_TIMEOUT_MS};
use crate::time::Duration;

use super::hub::Hub;
use super::{http1, session};

/// Pause after the operating system refused to accept, which it does when it is out of files.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves each on a task of its own.
pub(super) struct Listener {
    /// One a place.
    listeners: Vec<TcpListener>,
    /// The one that is asked first, so that a flood at one place does not close another.
    turn: usize,
    acceptor: TlsAcceptor,
    hub: Rc<Hub>,
    stop: watch::Receiver<bool>,
    connections: JoinSet<()>,
    count_max: usize,
}

impl Listener {
    pub(super) fn new(
        listeners: Vec<TcpListener>,
        config: Arc<ServerConfig>,
        hub: Rc<Hub>,
        stop: watch::Receiver<bool>,
        count_max: usize,
    ) -> Self {
        let (acceptor, connections) = (TlsAcceptor::from(config), JoinSet::new());
        Self { listeners, turn: 0, acceptor, hub, stop, connections, count_max }
    }

    /// Serves until the service stops, and then until every connection has ended. No error of a connection or of the
    /// listener ends it.
    ///
    /// Beyond `count_max` connections the operating system queues and then refuses new ones.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            let has_room = self.connections.len() < self.count_max;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = accept(&self.listeners, self.turn), if has_room => self.accepted(accepted).await,
                Some(ended) = self.connections.join_next() => report(ended),
            }
        }
        drop(self.listeners);
        while let Some(ended) = self.connections.join_next().await {
            report(ended);
        }
    }

    async fn accepted(&mut self, stream: io::Result<TcpStream>) {
        self.turn = (self.turn + 1) % self.listeners.len();
        match stream {
            Ok(stream) => {
                let serving = serve(stream, self.acceptor.clone(), Rc::clone(&self.hub), self.stop.clone());
                self.connections.spawn_local(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// Accepts the next connection, wherever it comes. Cancel safe.
async fn accept(listeners: &[TcpListener], turn: usize) -> io::Result<TcpStream> {
    let (later, first) = listeners.split_at(turn);
    poll_fn(|context| {
        for listener in first.iter().chain(later) {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, _)| stream));
            }
        }
        Poll::Pending
    })
    .await
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, hub: Rc<Hub>, stop: watch::Receiver<bool>) {
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%error, "small writes of a connection may be held back, or its end be noticed late");
    }
    // One whose address is not known any more is gone.
    let peer = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
    let deadline = Duration::from_millis(SERVICE_HANDSHAKE_MS_MAX);
    let stream = match tokio::time::timeout(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        session::serve(stream, peer, hub, stop).await;
    } else {
        http1::serve(stream, peer, hub, stop).await;
    }
}

/// Small writes leave at once, and a peer that confirms nothing of them is noticed.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(Duration::from_millis(TCP_USER_TIMEOUT_MS)))
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_place_has_its_turn() {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let mut clients = Vec::new();
        for listener in [0, 0, 0, 1] {
            clients.push(TcpStream::connect(listeners[listener].local_addr().unwrap()).await.unwrap());
        }
        for (turn, place) in [(0, 0), (1, 1), (0, 0), (1, 0)] {
            let accepted = accept(&listeners, turn).await.unwrap();
            assert_eq!(accepted.local_addr().unwrap(), listeners[place].local_addr().unwrap(), "turn {turn}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_noticed_by_the_operating_system() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        set_options(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        let limit = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(limit, Some(Duration::from_millis(TCP_USER_TIMEOUT_MS)));
    }
}
