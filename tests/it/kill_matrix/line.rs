//! A line between two processes that a test can hold at any octet, and cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::{PATIENCE, pause};

/// How often a line looks for a new connection.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 512;

/// Relays connections between who connects, the near end, and who is connected to, the far end.
pub struct Line {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    /// From the near end to the far end.
    up: Gate,
    /// From the far end to the near end.
    down: Gate,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    cuts: Vec<Box<dyn Fn() + Send>>,
    relays: Vec<JoinHandle<()>>,
    has_ended: bool,
}

/// One direction of a line.
#[derive(Default)]
pub struct Gate {
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Default)]
struct Flow {
    passed: u64,
    /// How many may pass; no limit while the gate is open.
    until: Option<u64>,
    /// Octets that arrived and may not pass yet.
    held: u64,
    /// Goes up with each cut: what was held before is lost.
    cuts: u64,
}

impl Line {
    /// A line from a TCP port of this machine that is chosen here.
    pub fn tcp(far: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket can be that");
        let address = listener.local_addr().expect("it is bound");
        let accept = move || listener.accept().map(|(stream, _)| stream);
        (Self::new(accept, move || TcpStream::connect(far)), address)
    }

    /// A line from one Unix socket, made here, to another.
    pub fn unix(near: PathBuf, far: PathBuf) -> Self {
        let listener = UnixListener::bind(near).expect("a free path");
        listener.set_nonblocking(true).expect("a socket can be that");
        let accept = move || listener.accept().map(|(stream, _)| stream);
        Self::new(accept, move || UnixStream::connect(&far))
    }

    fn new<S: Stream>(
        accept: impl Fn() -> std::io::Result<S> + Send + 'static,
        connect: impl Fn() -> std::io::Result<S> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { up: Gate::default(), down: Gate::default(), connections: Mutex::default() });
        let accepting = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            while !lock(&accepting.connections).has_ended {
                match accept() {
                    // When nobody is at the far end, the near end sees its connection closed.
                    Ok(near) => drop(connect().map(|far| Shared::relay(&accepting, near, far))),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => pause(ACCEPT_INTERVAL),
                    Err(error) => panic!("the line cannot accept: {error}"),
                }
            }
        });
        Self { shared, accepting: Some(accepting) }
    }

    /// Towards the far end.
    pub fn up(&self) -> &Gate {
        &self.shared.up
    }

    /// Towards the near end.
    pub fn down(&self) -> &Gate {
        &self.shared.down
    }

    /// Ends all connections; octets that are held are lost.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.shared.up.open();
        self.shared.down.open();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.shared.connections).has_ended = true;
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
        self.shared.cut();
        let relays = std::mem::take(&mut lock(&self.shared.connections).relays);
        relays.into_iter().for_each(|relay| drop(relay.join()));
    }
}

impl Shared {
    fn relay<S: Stream>(shared: &Arc<Self>, near: S, far: S) {
        let cut = {
            let (near, far) = (near.twin(), far.twin());
            move || [&near, &far].into_iter().for_each(Stream::close)
        };
        let mut connections = lock(&shared.connections);
        connections.cuts.push(Box::new(cut));
        for (mut from, mut to, is_up) in [(near.twin(), far.twin(), true), (far, near, false)] {
            let shared = Arc::clone(shared);
            connections.relays.push(std::thread::spawn(move || {
                let gate = if is_up { &shared.up } else { &shared.down };
                gate.carry(&mut from, &mut to);
                from.close();
                to.close();
            }));
        }
    }

    fn cut(&self) {
        [&self.up, &self.down].into_iter().for_each(Gate::lose);
        lock(&self.connections).cuts.drain(..).for_each(|cut| cut());
    }
}

impl Gate {
    /// Lets so many more octets pass, and holds what comes after them.
    pub fn hold_after(&self, octets: u64) {
        let mut flow = lock(&self.flow);
        flow.until = Some(flow.passed + octets);
    }

    /// Lets everything pass.
    pub fn open(&self) {
        lock(&self.flow).until = None;
        self.changed.notify_all();
    }

    /// Waits until there is something that may not pass.
    pub fn await_held(&self) {
        let (flow, timeout) = self
            .changed
            .wait_timeout_while(lock(&self.flow), PATIENCE, |flow| flow.held == 0)
            .expect("no relay panicked");
        assert!(!timeout.timed_out(), "nothing had to be held after {} octets", flow.passed);
    }

    fn lose(&self) {
        let mut flow = lock(&self.flow);
        flow.cuts += 1;
        flow.held = 0;
        self.changed.notify_all();
    }

    fn carry(&self, from: &mut impl Stream, to: &mut impl Stream) {
        let (mut octets, cuts) = ([0; READ_BYTES], lock(&self.flow).cuts);
        while let Ok(count @ 1..) = from.read(&mut octets) {
            let mut rest = &octets[..count];
            while !rest.is_empty() {
                let Some(allowed) = self.take(rest.len(), cuts) else { return };
                if to.write_all(&rest[..allowed]).is_err() {
                    return;
                }
                rest = &rest[allowed..];
            }
        }
    }

    /// Waits until at least one of so many octets may pass; none when they are lost.
    fn take(&self, count: usize, cuts: u64) -> Option<usize> {
        let mut flow = lock(&self.flow);
        loop {
            if flow.cuts != cuts {
                return None;
            }
            let room = flow.until.map_or(u64::MAX, |until| until.saturating_sub(flow.passed));
            let allowed = room.min(count as u64);
            if allowed > 0 {
                flow.passed += allowed;
                flow.held = 0;
                return Some(allowed as usize);
            }
            flow.held = count as u64;
            self.changed.notify_all();
            flow = self.changed.wait(flow).expect("no relay panicked");
        }
    }
}

/// What a line is made of.
trait Stream: Read + Write + Send + 'static {
    fn twin(&self) -> Self;
    /// Ends both directions, for all twins. One that the peer ended already is no error.
    fn close(&self);
}

impl Stream for TcpStream {
    fn twin(&self) -> Self {
        self.set_nonblocking(false).and_then(|()| self.set_nodelay(true)).expect("an open socket");
        self.try_clone().expect("a descriptor")
    }

    fn close(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

impl Stream for UnixStream {
    fn twin(&self) -> Self {
        self.set_nonblocking(false).expect("an open socket");
        self.try_clone().expect("a descriptor")
    }

    fn close(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no relay panicked")
}

#[test]
fn a_gate_holds_at_its_octet_and_a_cut_loses_what_is_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let listener = UnixListener::bind(&far).expect("a free path");
    let line = Line::unix(near.clone(), far);
    let connect = || (UnixStream::connect(&near).expect("it listens"), listener.accept().expect("relayed").0);
    let (mut device, mut gateway) = connect();
    line.up().hold_after(3);
    device.write_all(b"abcdef").expect("open");
    let mut octets = [0; 3];
    gateway.read_exact(&mut octets).expect("three pass");
    assert_eq!(&octets, b"abc");
    line.up().await_held();
    line.up().open();
    gateway.read_exact(&mut octets).expect("the rest passes");
    assert_eq!(&octets, b"def");

    line.down().hold_after(0);
    gateway.write_all(b"lost").expect("open");
    line.down().await_held();
    line.cut();
    line.open();
    let mut rest = Vec::new();
    assert_eq!(device.read_to_end(&mut rest).expect("closed in order"), 0);
    assert_eq!(connect().0.write(b"x").expect("another connection passes"), 1);
}
