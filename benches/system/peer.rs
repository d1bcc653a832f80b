//! What people build today, to compare with: mosquitto, and a relay that acknowledges what a device has answered.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as sync;
use std::thread;
use std::time::{Duration, Instant};

use fieldgate::transport::stack::serial::Pty;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::mqtt::Publisher;
use crate::ours::RECEIVED_COUNT;
use crate::process::{PATIENCE, await_true, now};
use crate::proxy::Proxy;

/// The system's interpreter, which has the system's packages.
const PYTHON: &str = "/usr/bin/python3";
const RELAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/careful.py");
/// What the counted subscriber listens to.
const TOPIC: &str = "devices/d0000";
/// What a device answers.
const ANSWER: u8 = 6;

/// How the peer is put together.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub devices: usize,
    /// Whether a second broker stands at the gateway, and the relay behind it.
    pub bridged: bool,
}

/// A broker with a relay and its devices.
pub struct Peer {
    pub publisher: Publisher,
    pub topics: Vec<String>,
    pub relay: Child,
    pub bridge: Option<Broker>,
    received: mpsc::Receiver<Instant>,
    _broker: Broker,
    _folder: tempfile::TempDir,
}

/// A broker with a subscriber that does nothing but count octets.
pub struct Subscriber {
    pub publisher: Publisher,
    pub proxy: Proxy,
    pub process: Child,
    _broker: Broker,
    _folder: tempfile::TempDir,
}

/// A mosquitto.
pub struct Broker {
    pub process: Child,
    address: SocketAddr,
}

/// What is missing for the peers to run, as one line.
pub fn missing() -> Option<String> {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok()
    };
    let imports = |module: &str| {
        let output = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let needs = [
        (runs("mosquitto", &["-h"]), "mosquitto"),
        (runs("mosquitto_sub", &["--help"]), "mosquitto-clients"),
        (imports("paho.mqtt.client"), "python3-paho-mqtt"),
        (imports("serial"), "python3-serial"),
    ];
    let missing: Vec<_> = needs.iter().filter(|(is_there, _)| !is_there).map(|(_, package)| *package).collect();
    (!missing.is_empty()).then(|| format!("no peers: apt-get install {}", missing.join(" ")))
}

impl Peer {
    pub async fn start(shape: Shape) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = certify(folder.path());
        let broker = Broker::start(folder.path(), "broker", true, "");
        let bridge = shape.bridged.then(|| {
            let more = format!(
                "connection up\naddress {}\ntopic # in 1\ncleansession false\nbridge_cafile {}\n",
                broker.address,
                ca.display()
            );
            Broker::start(folder.path(), "bridge", false, &more)
        });
        let (sender, received) = mpsc::channel(RECEIVED_COUNT);
        let topics: Vec<String> = (0..shape.devices).map(|index| format!("devices/d{index:04}")).collect();
        let ports = topics.iter().enumerate().map(|(index, topic)| {
            let tty = folder.path().join(format!("{index}.tty"));
            start_device(tty.clone(), sender.clone());
            format!("{topic}={}", tty.display())
        });
        let ports: Vec<String> = ports.collect();
        let (to, trust) = match &bridge {
            Some(bridge) => (bridge.address, "-".to_owned()),
            None => (broker.address, ca.display().to_string()),
        };
        let relay = start_relay(to, &trust, &ports);
        let publisher = Publisher::connect(broker.address, &ca).await;
        let mut peer = Self { publisher, topics, relay, bridge, received, _broker: broker, _folder: folder };
        peer.warm_up().await;
        peer
    }

    /// What stands at the gateway: the relay, and the bridge if there is one.
    pub fn gateway_ids(&self) -> Vec<u32> {
        let bridge = self.bridge.as_ref().map(|bridge| bridge.process.id());
        bridge.into_iter().chain([self.relay.id()]).collect()
    }

    pub async fn publish_all(&mut self, content: &[u8], count: usize) {
        self.publisher.publish_all(&self.topics, content, count).await;
    }

    /// When the next message is received by a device.
    pub async fn next_received(&mut self) -> Instant {
        timeout(PATIENCE, self.received.recv()).await.expect("it comes in time").expect("the devices run")
    }

    /// When the last one of so many messages is received.
    pub async fn last_received(&mut self, count: usize) -> Instant {
        for _ in 1..count {
            self.next_received().await;
        }
        self.next_received().await
    }

    /// A bridge connects when it likes: messages are sent until each device has one, and then no more come.
    async fn warm_up(&mut self) {
        let all = self.topics.len();
        loop {
            self.publish_all(b"x", all).await;
            if timeout(Duration::from_millis(500), self.last_received(all)).await.is_ok() {
                break;
            }
        }
        while timeout(Duration::from_millis(200), self.received.recv()).await.is_ok() {}
    }
}

impl Subscriber {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = certify(folder.path());
        let broker = Broker::start(folder.path(), "broker", true, "");
        let proxy = Proxy::to(broker.address);
        let port = proxy.address.port().to_string();
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-c", "-i", "counted", "-t", TOPIC, "--cafile"]);
        let process = command.arg(&ca).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut subscriber = Self {
            publisher: Publisher::connect(broker.address, &ca).await,
            proxy,
            process,
            _broker: broker,
            _folder: folder,
        };
        subscriber.warm_up().await;
        subscriber
    }

    /// Publishes messages and waits until nothing goes through the proxy any more.
    pub async fn publish_all(&mut self, content: &[u8], count: usize) {
        self.publisher.publish_all(&[TOPIC.to_owned()], content, count).await;
    }

    /// Waits until nothing goes through the proxy any more.
    pub async fn quiet(&self) {
        let mut before = None;
        while before != Some(self.proxy.count()) {
            before = Some(self.proxy.count());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn warm_up(&mut self) {
        let before = loop {
            self.quiet().await;
            let before = self.proxy.count();
            self.publish_all(b"x", 1).await;
            self.quiet().await;
            if self.proxy.count() != before {
                break before;
            }
        };
        assert!(self.proxy.count().octets() > before.octets());
    }
}

impl Broker {
    fn start(folder: &Path, name: &str, secured: bool, more: &str) -> Self {
        let address = free_address();
        let own = |file: &str| folder.join(file).display().to_string();
        let security = match secured {
            true => format!("cafile {}\ncertfile {}\nkeyfile {}\n", own("ca.pem"), own("leaf.pem"), own("leaf.key")),
            false => String::new(),
        };
        let text = format!(
            "user root\npersistence false\nset_tcp_nodelay true\nmax_queued_messages 0\nallow_anonymous true\n\
             log_type error\nlistener {} 127.0.0.1\n{security}{more}",
            address.port()
        );
        Self::run(folder, name, &text, address, &[])
    }

    /// A broker that keeps what it has on disk as it does by default, and whoever listens to everything once was there.
    pub fn persistent(folder: &Path, environment: &[(&str, String)]) -> Self {
        let address = free_address();
        let own = |file: &str| folder.join(file).display().to_string();
        let text = format!(
            "user root\npersistence true\npersistence_location {}/\nset_tcp_nodelay true\nmax_queued_messages 0\n\
             allow_anonymous true\nlog_type error\nlistener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n",
            folder.display(),
            address.port(),
            own("ca.pem"),
            own("leaf.pem"),
            own("leaf.key")
        );
        let broker = Self::run(folder, "persistent", &text, address, environment);
        let port = address.port().to_string();
        let mut subscriber = Command::new("mosquitto_sub");
        subscriber.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-c", "-i", "kept", "-t", "#", "-E", "--cafile"]);
        assert!(subscriber.arg(own("ca.pem")).status().expect("it runs").success(), "it subscribes");
        broker
    }

    /// A publisher for it.
    pub async fn publisher(&self, folder: &Path) -> Publisher {
        Publisher::connect(self.address, &folder.join("ca.pem")).await
    }

    fn run(folder: &Path, name: &str, text: &str, address: SocketAddr, environment: &[(&str, String)]) -> Self {
        let file = folder.join(format!("{name}.conf"));
        fs::write(&file, text).expect("written");
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&file).envs(environment.iter().map(|(name, value)| (name, value)));
        let process = command.stderr(Stdio::null()).spawn().expect("it starts");
        let broker = Self { process, address };
        await_true("a broker", || TcpStream::connect(address).is_ok());
        broker
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.relay);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

pub fn end(process: &mut Child) {
    process.kill().expect("it is ours");
    process.wait().expect("it was killed");
}

/// As `kill -s` does.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "{name} was sent");
}

pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it listens")
}

/// Makes a private authority and a certificate for the loopback address.
pub fn certify(folder: &Path) -> PathBuf {
    let (ca_key, leaf_key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "benches");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = authority.self_signed(&ca_key).expect("it signs");
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, ca_key)).expect("it signs");
    let path = folder.join("ca.pem");
    fs::write(&path, ca.pem()).expect("written");
    fs::write(folder.join("leaf.pem"), leaf.pem()).expect("written");
    fs::write(folder.join("leaf.key"), leaf_key.serialize_pem()).expect("written");
    path
}

fn start_relay(to: SocketAddr, trust: &str, ports: &[String]) -> Child {
    let mut command = Command::new(PYTHON);
    command.args([RELAY, &to.ip().to_string(), &to.port().to_string(), trust]).args(ports);
    let mut relay = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut output = BufReader::new(relay.stdout.take().expect("it is a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it is readable");
    assert_eq!(line, "ready\n", "the relay is subscribed");
    relay
}

/// A device of the peer: a thread that answers each message on its pseudo-terminal.
fn start_device(tty: PathBuf, received: mpsc::Sender<Instant>) {
    let (is_ready, ready) = sync::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pty = Pty::new(Some(&tty)).expect("a pseudo-terminal");
            is_ready.send(()).expect("somebody waits");
            let port = pty.near();
            let mut content = Vec::new();
            while let Ok(length) = port.read_u16().await {
                content.resize(usize::from(length), 0);
                if port.read_exact(&mut content).await.is_err() || port.write_all(&[ANSWER]).await.is_err() {
                    return;
                }
                // After the run nobody looks any more.
                if received.send(now()).await.is_err() {
                    return;
                }
            }
        });
    });
    ready.recv_timeout(PATIENCE).expect("its port is there in time");
}
