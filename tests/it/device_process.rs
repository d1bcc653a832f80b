//! `fieldgate` as a process beside the gateway's end of a device link in this one.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use fieldgate::downstream::{Downstream, Entry, Event};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, ToDevice, ToGateway};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

pub const PATIENCE: Duration = Duration::from_secs(15);

/// The program, its standard output line by line.
pub struct Process {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// A device at a pseudo-terminal that is there.
    pub async fn device(link: &Path, arguments: &str) -> Self {
        let mut process = Self::start(&format!("simulate pty:{} {arguments}", link.display())).await;
        let first = process.next_line().await;
        assert!(first.contains("/dev/pts/"), "{first:?}");
        process
    }

    pub async fn start(arguments: &str) -> Self {
        let mut child = command(arguments).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    pub async fn next_line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.expect("readable").expect("it has not ended")
    }

    /// The next line with this beginning.
    pub async fn line(&mut self, start: &str) -> String {
        loop {
            let line = self.next_line().await;
            if line.starts_with(start) {
                return line;
            }
            assert!(!line.starts_with("received"), "{line:?} instead of {start:?}");
        }
    }

    /// The next event of this name.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let line: Value = serde_json::from_str(&self.next_line().await).expect("JSON");
            if line["event"] == name {
                return line;
            }
            assert_ne!(line["event"], "received", "instead of {name}");
        }
    }

    /// The next line with this word.
    pub async fn line_with(&mut self, word: &str) -> String {
        loop {
            let line = self.next_line().await;
            if line.split_whitespace().any(|other| other == word) {
                return line;
            }
        }
    }

    pub async fn signal(&mut self, signal: &str) {
        let number = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-s", signal, &number]).status().await.expect("kill runs").success());
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it is waited for").code()
    }
}

pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

pub async fn run(arguments: &str) -> Output {
    command(arguments).output().await.expect("it runs")
}

pub fn device_id() -> DeviceId {
    "device-1".parse().expect("an id")
}

pub fn id(number: u8) -> MessageId {
    MessageId([number; 8])
}

pub fn links(link: &Path) -> Downstream {
    links_at(&format!("serial:{}", link.display()))
}

pub fn links_at(place: &str) -> Downstream {
    let mut links = Downstream::new(Instant::now());
    let endpoint = place.parse().expect("an endpoint");
    links.attach(Entry { device: device_id(), endpoint, mtu: 256 }).expect("room");
    links
}

pub async fn next(links: &mut Downstream) -> Event {
    timeout(PATIENCE, links.next()).await.expect("an event in time")
}

pub async fn up(links: &mut Downstream) -> u32 {
    loop {
        if let Event::Up { session, .. } = next(links).await {
            return session;
        }
    }
}

/// The next thing that the device says.
pub async fn said(links: &mut Downstream) -> ToGateway {
    match next(links).await {
        Event::Message { message, .. } => message,
        other => panic!("{other:?} instead of a message"),
    }
}

pub fn send(links: &Downstream, session: u32, message: &ToDevice<'_>) {
    links.send(&device_id(), session, message).expect("room");
}

pub fn push(links: &Downstream, session: u32, number: u8, body: &[u8]) {
    send(links, session, &ToDevice::Push { message: id(number), channel: ChannelId(1), age: Age::UNKNOWN, body });
}

/// The next thing the device says is this device ack.
pub async fn acked(links: &mut Downstream, number: u8) {
    assert_eq!(said(links).await, ToGateway::Ack { message: id(number) });
}
