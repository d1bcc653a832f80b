//! Device links over real pseudo-terminals and sockets, with a simulated device at the far end. Real time, short waits.

use std::cell::RefCell;
use std::fs;
use std::future::pending;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use fieldgate::cli::simulate::{Options, Report, device};
use fieldgate::downstream::{DownReason, Downstream, Entry, Event};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, ToDevice, ToGateway};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// C-31: each size arrives as one message, over a terminal that holds less than one of them.
#[tokio::test(flavor = "local")]
async fn c_31_every_size_crosses_a_pseudo_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter");
    let device = Simulated::start(&format!("pty:{}", path.display()));
    device.wait_for("link").await;
    let mut links = links(&format!("serial:{}", path.display()));
    let session = up(&mut links).await;
    for (number, size) in [0usize, 1, 20, 21, 3993].into_iter().enumerate() {
        push_and_ack(&mut links, session, number as u8, &vec![b'x'; size]).await;
        let text = "x".repeat(size);
        device.wait_for(&format!("received channel 1 message {} {size} octets: {text}", id_of(number as u8))).await;
    }
}

/// A gateway that restarts finds the terminal as it left it; the device sees no hang-up.
#[tokio::test(flavor = "local")]
async fn a_gateway_that_restarts_opens_the_terminal_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter");
    let device = Simulated::start(&format!("pty:{}", path.display()));
    device.wait_for("link").await;
    for number in 0..3 {
        let mut links = links(&format!("serial:{}", path.display()));
        let session = up(&mut links).await;
        push_and_ack(&mut links, session, number, b"again").await;
        let mut second = Downstream::new(Instant::now());
        second.attach(entry(&format!("serial:{}", path.display()))).expect("room");
        let Event::Retrying { reason, .. } = next(&mut second).await else { panic!("one gateway a port") };
        assert!(reason.contains("lock"), "{reason}");
    }
    assert!(!device.lines().iter().any(|line| line.starts_with("retrying")), "{:?}", device.lines());
}

/// C-20: a port that is not there is said to be missing once, and opened when it comes; when it goes, it is awaited.
#[tokio::test(flavor = "local")]
async fn c_20_a_port_that_comes_and_goes_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter");
    let mut links = links(&format!("serial:{}", path.display()));
    let Event::Retrying { reason, .. } = next(&mut links).await else { panic!("it is missing") };
    assert!(reason.contains("meter") && reason.to_lowercase().contains("no such file"), "{reason}");
    assert!(timeout(Duration::from_secs(1), links.next()).await.is_err(), "said once");

    for round in 0..2 {
        let device = Simulated::start(&format!("pty:{}", path.display()));
        let session = up(&mut links).await;
        push_and_ack(&mut links, session, round, b"hello").await;
        device.unplug().await;
        let Event::Down { reason, .. } = next(&mut links).await else { panic!("unplugged") };
        assert!(matches!(reason, DownReason::Closed | DownReason::Failed(_)), "{reason}");
        let Event::Retrying { .. } = next(&mut links).await else { panic!("missing again") };
        assert!(fs::symlink_metadata(&path).is_err(), "the device took its symbolic link with it");
    }
}

#[tokio::test(flavor = "local")]
async fn a_stale_symbolic_link_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter");
    symlink("/dev/pts/no-such", &path).expect("a stale link");
    let device = Simulated::start(&format!("pty:{}", path.display()));
    device.wait_for("link /dev/pts/").await;
    assert!(fs::read_link(&path).expect("a link").exists());
    device.unplug().await;

    fs::write(&path, "precious").expect("a file");
    let options = options(&format!("pty:{}", path.display()));
    let failed = device_outcome(options).await.expect_err("a file is in the way");
    assert!(failed.contains("meter") && failed.contains("no symbolic link"), "{failed}");
    assert_eq!(fs::read(&path).expect("there"), b"precious");
}

#[tokio::test(flavor = "local")]
async fn a_unix_socket_is_for_this_user_and_goes_with_its_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter.sock");
    drop(UnixListener::bind(&path).expect("a socket of a process that is gone"));
    let mut links = links(&format!("unix:{}", path.display()));
    let device = Simulated::start(&format!("unix:{}", path.display()));
    let session = up(&mut links).await;
    let metadata = fs::symlink_metadata(&path).expect("there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    push_and_ack(&mut links, session, 1, b"hello").await;

    let mut second = Downstream::new(Instant::now());
    second.attach(entry(&format!("unix:{}", path.display()))).expect("room");
    let Event::Retrying { reason, .. } = next(&mut second).await else { panic!("it is taken") };
    assert!(reason.contains("another process listens there"), "{reason}");
    assert!(path.exists(), "a live socket is not replaced");

    links.detach(&device_id());
    device.wait_for("retrying: unix:").await;
    assert!(!path.exists());
    assert!(!Path::new(&format!("{}.new", path.display())).exists());
}

#[tokio::test(flavor = "local")]
async fn what_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meter.sock");
    fs::write(&path, "precious").expect("a file");
    let mut links = links(&format!("unix:{}", path.display()));
    let Event::Retrying { reason, .. } = next(&mut links).await else { panic!("a file is in the way") };
    assert!(reason.contains("no socket"), "{reason}");
    assert_eq!(fs::read(&path).expect("there"), b"precious");
}

/// The device connects when the gateway is there, whichever starts first.
#[tokio::test(flavor = "local")]
async fn a_device_waits_for_its_gateway_at_a_tcp_port() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let device = Simulated::start(&format!("tcp:localhost:{port}"));
    device.wait_for("retrying: tcp:localhost").await;
    for number in 0..2 {
        let mut links = links(&format!("tcp:127.0.0.1:{port}"));
        let session = up(&mut links).await;
        push_and_ack(&mut links, session, number, b"hello").await;
    }
}

/// A simulated device as a task, and the lines it would print.
struct Simulated {
    lines: Rc<RefCell<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Simulated {
    fn start(place: &str) -> Self {
        let lines: Rc<RefCell<Vec<String>>> = Rc::default();
        let (options, seen) = (options(place), Rc::clone(&lines));
        let task = tokio::task::spawn_local(async move {
            let report = |report: &Report<'_>| {
                seen.borrow_mut().push(report.to_string());
                Ok(())
            };
            device(options, report, pending()).await.expect("it runs until it is aborted");
        });
        Self { lines, task }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Ends the device and waits until it has let go of its terminal.
    async fn unplug(mut self) {
        self.task.abort();
        let ended = (&mut self.task).await.expect_err("it was aborted");
        assert!(ended.is_cancelled(), "{ended}");
    }

    async fn wait_for(&self, start: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.lines.borrow().iter().any(|line| line.starts_with(start)) {
            assert!(Instant::now() < end, "no {start:?} in {:?}", self.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn device_outcome(options: Options) -> Result<u64, String> {
    timeout(PATIENCE, device(options, |_| Ok(()), pending()))
        .await
        .expect("it ends")
        .map_err(|failed| failed.to_string())
}

fn options(place: &str) -> Options {
    Options { seed: 1, ..Options::new(place.parse().expect("a place"), device_id()) }
}

fn device_id() -> DeviceId {
    "device-1".parse().expect("an id")
}

fn entry(endpoint: &str) -> Entry {
    Entry { device: device_id(), endpoint: endpoint.parse().expect("an endpoint"), mtu: 256 }
}

fn links(endpoint: &str) -> Downstream {
    let mut links = Downstream::new(Instant::now());
    links.attach(entry(endpoint)).expect("room for one");
    links
}

async fn next(links: &mut Downstream) -> Event {
    timeout(PATIENCE, links.next()).await.expect("an event in time")
}

async fn up(links: &mut Downstream) -> u32 {
    loop {
        match next(links).await {
            Event::Up { session, .. } => return session,
            Event::Retrying { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn id_of(number: u8) -> MessageId {
    MessageId([number; 8])
}

async fn push_and_ack(links: &mut Downstream, session: u32, number: u8, body: &[u8]) {
    let push = ToDevice::Push { message: id_of(number), channel: ChannelId(1), age: Age::UNKNOWN, body };
    links.send(&device_id(), session, &push).expect("room");
    let ack = ToGateway::Ack { message: id_of(number) };
    assert_eq!(next(links).await, Event::Message { device: device_id(), session, message: ack });
}
