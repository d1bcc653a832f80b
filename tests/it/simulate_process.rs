//! `fieldgate simulate` as a process: what it prints, when it acknowledges, and what a kill leaves.

use std::process::Stdio;
use std::time::Duration;

use fieldgate::downstream::{Downstream, Entry, Event};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, ToDevice, ToGateway};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// A-UA-25, A-UA-26: each message is printed once and each copy acknowledged again, also across a kill.
#[tokio::test(flavor = "local")]
async fn a_ua_26_a_killed_device_knows_what_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let (link, state) = (folder.path().join("meter"), folder.path().join("journal"));
    let arguments = ["--json", "--state", state.to_str().expect("UTF-8")].map(str::to_owned);
    let mut links = links(&link);

    let mut first = Process::start(&link, &arguments).await;
    let session = up(&mut links).await;
    // Of what the device sends: the gateway takes frames of 128 octets.
    assert_eq!(first.event("up").await["mtu"], 128);
    push(&links, session, 1, b"one");
    let received = first.event("received").await;
    assert_eq!((received["text"].as_str(), received["channel"].as_u64()), (Some("one"), Some(1)));
    assert_eq!(received["message"], "0101010101010101");
    acked(&mut links, 1).await;
    push(&links, session, 1, b"one");
    assert_eq!(first.event("duplicate").await["message"], "0101010101010101");
    acked(&mut links, 1).await;
    first.child.kill().await.expect("killed");

    let mut second = Process::start(&link, &arguments).await;
    let session = up(&mut links).await;
    push(&links, session, 1, b"one");
    push(&links, session, 2, b"\x00\xff");
    assert_eq!(second.event("duplicate").await["message"], "0101010101010101");
    assert_eq!(second.event("received").await["hex"], "00ff");
    acked(&mut links, 1).await;
    acked(&mut links, 2).await;
    let journal = std::fs::read_to_string(&state).expect("readable");
    let ids: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        ids.iter().map(|line| line["message"].clone()).collect::<Vec<_>>(),
        ["0101010101010101", "0202020202020202"]
    );
}

#[tokio::test(flavor = "local")]
async fn a_device_that_is_told_to_end_ends_well() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("meter");
        let mut process = Process::start(&link, &[]).await;
        process.line("link /dev/pts/").await;
        let number = process.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", signal, &number]).status().await.expect("kill runs");
        assert!(sent.success());
        assert_eq!(process.exit_code().await, Some(0), "{signal}");
        assert!(std::fs::symlink_metadata(&link).is_err());
    }
}

/// Loss on the line delays messages and changes nothing else; the last device ack leaves before the process ends.
#[tokio::test(flavor = "local")]
async fn a_device_on_a_bad_line_receives_each_message_once_and_ends_after_its_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("meter");
    let arguments = ["--loss", "5", "--seed", "7", "--count", "12", "--mtu", "64"].map(str::to_owned);
    let mut links = links(&link);
    let mut process = Process::start(&link, &arguments).await;
    let session = up(&mut links).await;
    for number in 1..=12 {
        push(&links, session, number, &[b'a' + number; 150]);
        process.line(&format!("received channel 1 message {} 150 octets: ", MessageId([number; 8]))).await;
        acked(&mut links, number).await;
    }
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test(flavor = "local")]
async fn a_subscription_is_asked_for_and_printed_as_application_servers_want_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("meter");
    let mut links = links(&link);
    let mut process = Process::start(&link, &["--json", "--subscribe", "5"].map(str::to_owned)).await;
    let session = up(&mut links).await;
    let Event::Message { message: ToGateway::Subscribe { channel }, .. } = next(&mut links).await else {
        panic!("it asks")
    };
    let (p256dh, auth) = ([4; 65], [7; 16]);
    let answer = ToDevice::Subscribed { channel, push: "https://push.example/p/1", p256dh: &p256dh, auth: &auth };
    links.send(&device_id(), session, &answer).expect("room");
    let line = process.event("subscribed").await;
    assert_eq!((line["channel"].as_u64(), channel), (Some(5), ChannelId(5)));
    assert_eq!(line["subscription"]["endpoint"], "https://push.example/p/1");
    assert_eq!(line["subscription"]["keys"]["auth"], "BwcHBwcHBwcHBwcHBwcHBw");
}

#[tokio::test(flavor = "local")]
async fn what_cannot_be_is_said_with_its_exit_code() {
    let outcome = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        async move { simulate(&arguments).output().await.expect("it runs") }
    };
    let wrong = outcome(&["usb:1"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("pty:/PATH"));
    assert_eq!(outcome(&["pty", "--mtu", "19"]).await.status.code(), Some(2));
    let failed = outcome(&["pty:/no/such/folder/meter"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot be at pty:/no/such/folder/meter"));
}

/// The program, its standard output line by line.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a device on a pseudo-terminal and waits until it is ready.
    async fn start(link: &std::path::Path, arguments: &[String]) -> Self {
        let mut all = vec![format!("pty:{}", link.display())];
        all.extend_from_slice(arguments);
        let mut child = simulate(&all).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    async fn next_line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.expect("readable").expect("it has not ended")
    }

    /// The next line with this beginning.
    async fn line(&mut self, start: &str) -> String {
        loop {
            let line = self.next_line().await;
            if line.starts_with(start) {
                return line;
            }
            assert!(!line.starts_with("received"), "{line:?} instead of {start:?}");
        }
    }

    /// The next event of this name.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let line: Value = serde_json::from_str(&self.next_line().await).expect("JSON");
            if line["event"] == name {
                return line;
            }
            assert_ne!(line["event"], "received", "instead of {name}");
        }
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it is waited for").code()
    }
}

fn simulate(arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
    command.arg("simulate").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

fn device_id() -> DeviceId {
    "device-1".parse().expect("an id")
}

fn links(link: &std::path::Path) -> Downstream {
    let mut links = Downstream::new(Instant::now());
    let endpoint = format!("serial:{}", link.display()).parse().expect("an endpoint");
    links.attach(Entry { device: device_id(), endpoint, mtu: 256 }).expect("room");
    links
}

async fn next(links: &mut Downstream) -> Event {
    timeout(PATIENCE, links.next()).await.expect("an event in time")
}

async fn up(links: &mut Downstream) -> u32 {
    loop {
        if let Event::Up { session, .. } = next(links).await {
            return session;
        }
    }
}

fn push(links: &Downstream, session: u32, number: u8, body: &[u8]) {
    let push = ToDevice::Push { message: MessageId([number; 8]), channel: ChannelId(1), age: Age::UNKNOWN, body };
    links.send(&device_id(), session, &push).expect("room");
}

/// The next thing the device says is this device ack.
async fn acked(links: &mut Downstream, number: u8) {
    let Event::Message { message, .. } = next(links).await else { panic!("a device ack") };
    assert_eq!(message, ToGateway::Ack { message: MessageId([number; 8]) });
}
