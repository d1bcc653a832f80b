//! Carries octets between clients and a service, unchanged, and keeps a copy of what passed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;

/// What passed on one connection.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// By the client.
    pub sent: Vec<u8>,
    /// By the service.
    pub answered: Vec<u8>,
}

/// The running relay.
pub struct Relay {
    /// Where clients connect.
    pub port: u16,
    passed: Rc<RefCell<Vec<Passed>>>,
    cuts: watch::Sender<()>,
}

impl Relay {
    pub async fn start(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let port = listener.local_addr().expect("an address").port();
        let (cuts, cut) = watch::channel(());
        let passed: Rc<RefCell<Vec<Passed>>> = Rc::default();
        spawn_local(accept(listener, service, Rc::clone(&passed), cut));
        Self { port, passed, cuts }
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// What passed on each connection so far, in the order in which they came.
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.borrow().clone()
    }
}

async fn accept(
    listener: TcpListener,
    service: SocketAddr,
    passed: Rc<RefCell<Vec<Passed>>>,
    mut cut: watch::Receiver<()>,
) {
    while let Ok((client, _)) = listener.accept().await {
        cut.mark_unchanged();
        let number = passed.borrow().len();
        passed.borrow_mut().push(Passed::default());
        let (passed, mut cut) = (Rc::clone(&passed), cut.clone());
        spawn_local(async move {
            tokio::select! {
                () = carry(client, service, &passed, number) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn carry(client: TcpStream, service: SocketAddr, passed: &RefCell<Vec<Passed>>, number: usize) {
    let Ok(service) = TcpStream::connect(service).await else { return };
    let ((from_client, to_client), (from_service, to_service)) = (client.into_split(), service.into_split());
    tokio::join!(
        copy(from_client, to_service, |octets| passed.borrow_mut()[number].sent.extend(octets)),
        copy(from_service, to_client, |octets| passed.borrow_mut()[number].answered.extend(octets)),
    );
}

/// Until one side ends; the other is told then, since what it is written to is dropped.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut keep: impl FnMut(&[u8])) {
    let mut octets = vec![0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut octets).await {
        keep(&octets[..count]);
        if to.write_all(&octets[..count]).await.is_err() {
            return;
        }
    }
}
