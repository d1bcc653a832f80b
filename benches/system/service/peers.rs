//! What stands beside the service: a server that pushes files, and a broker with its messages on disk.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::dial::Server;
use super::http2::{DATA, Http2};
use super::syncs::Syncs;
use super::{AT_ONCE, Use};
use crate::peer::{Broker, certify, end, free_address};
use crate::process::{await_true, now};

/// Pushes of one request.
const PUSHES: usize = 32;
/// Requests that wait at once.
const REQUESTS: usize = 2;

/// `nghttpd --push`: it makes nothing durable, and knows no acknowledgement.
struct Pusher {
    process: Child,
    server: Server,
    _folder: TempDir,
}

impl Pusher {
    /// None where it is not installed.
    fn start(body: &[u8]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let (ca, address) = (certify(folder.path()), free_address());
        let own = |file: &str| folder.path().join(file).display().to_string();
        let names: Vec<String> = (0..PUSHES).map(|index| format!("/{index}")).collect();
        for name in names.iter().map(|name| name.trim_start_matches('/')).chain(["index"]) {
            fs::write(own(name), body).expect("written");
        }
        let mut command = Command::new("nghttpd");
        command.args(["-a", "127.0.0.1", "-d", &own(""), &format!("--push=/index={}", names.join(","))]);
        command.args([address.port().to_string(), own("leaf.key"), own("leaf.pem")]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        await_true("nghttpd", || TcpStream::connect(address).is_ok());
        Some(Self { process, server: Server::new(address, &ca), _folder: folder })
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Messages a second that nghttpd pushes to one client.
pub async fn pushed_per_second(body: &[u8], count: usize) -> Option<f64> {
    let pusher = Pusher::start(body)?;
    let mut http = Http2::connect(&pusher.server).await.expect("it is there");
    let (mut asked, mut answered, mut pushed, start) = (0, 0, 0, now());
    while pushed < count {
        while asked - answered < REQUESTS {
            http.request("GET", "/index", &[]);
            asked += 1;
        }
        http.flush().await;
        loop {
            let frame = http.next().await;
            if frame.ends_stream() && frame.is_pushed() {
                assert_eq!((frame.kind, frame.octets), (DATA, body.len()), "the whole of the file");
                pushed += 1;
            }
            answered += usize::from(frame.ends_stream() && !frame.is_pushed());
            if !http.has_more() {
                break;
            }
        }
    }
    Some(pushed as f64 / start.elapsed().as_secs_f64())
}

/// Messages that mosquitto takes with QoS 1 for a subscriber who is not there, with persistence as it comes.
pub async fn published(body: &[u8], count: usize, syncs: &Syncs) -> Use {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path());
    let broker = Broker::persistent(folder.path(), &syncs.environment());
    let mut publisher = broker.publisher(folder.path()).await;
    let topics: Vec<String> = (0..AT_ONCE).map(|index| format!("devices/d{index:04}")).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    Use::of(broker.process.id(), syncs, count, publisher.publish_all(&topics, body, count)).await
}
