//! The tools for firmware writers as processes: bad lines and habits of `fieldgate simulate`, `fieldgate link probe`, and
//! `fieldgate link monitor`. Real time, short waits.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fieldgate::transport::stack::serial::Pty;
use fieldgate::wire::message::Uplink;
use fieldgate::wire::{ChannelId, Refusal, ToDevice, ToGateway};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use crate::device_process::{PATIENCE, Process, command, id, links, links_at, push, run, said, send, up};

#[tokio::test(flavor = "local")]
async fn messages_pass_a_line_that_loses_damages_delays_and_is_slow() {
    let folder = Folder::new();
    let arguments = "--loss 5 --corrupt 5 --delay 8 --pace 115200 --seed 3 --count 8 --mtu 128";
    let mut device = Process::device(&folder.link(), arguments).await;
    let mut links = links(&folder.link());
    let session = up(&mut links).await;
    for number in 1..=8 {
        push(&links, session, number, &[b'x'; 300]);
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(number) });
        device.line(&format!("received channel 1 message {} 300 octets", id(number))).await;
    }
    assert_eq!(device.exit_code().await, Some(0));
}

/// What was pushed behind a message waits for the application, and what does not fit waits for credit.
#[tokio::test(flavor = "local")]
async fn a_slow_application_takes_one_message_after_the_other() {
    let folder = Folder::new();
    let mut device = Process::device(&folder.link(), "--slow 200").await;
    let mut links = links(&folder.link());
    let session = up(&mut links).await;
    let start = Instant::now();
    (1..=4).for_each(|number| push(&links, session, number, &[b'x'; 3_993]));
    for number in 1..=4 {
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(number) });
        assert!(start.elapsed() >= Duration::from_millis(200) * number.into(), "{number}: {:?}", start.elapsed());
        device.line("received").await;
    }
}

#[tokio::test(flavor = "local")]
async fn the_first_messages_are_refused_and_received_when_they_come_again() {
    let folder = Folder::new();
    let mut device = Process::device(&folder.link(), "--refuse full --refuse-count 2").await;
    let mut links = links(&folder.link());
    let session = up(&mut links).await;
    for _ in 0..2 {
        push(&links, session, 1, b"one");
        assert_eq!(said(&mut links).await, ToGateway::Refuse { message: id(1), reason: Refusal::Full });
        device.line("message 0101010101010101 of channel 1 refused: full").await;
    }
    push(&links, session, 1, b"one");
    assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(1) });
    device.line("received channel 1 message 0101010101010101").await;
}

#[tokio::test(flavor = "local")]
async fn a_sleeper_says_so_hears_nothing_and_wakes_again_and_again() {
    let folder = Folder::new();
    let mut device = Process::device(&folder.link(), "--sleep 1").await;
    let mut links = links(&folder.link());
    let session = up(&mut links).await;
    for number in 1..=2 {
        push(&links, session, number, b"before it sleeps");
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(number) });
        device.line("received").await;
        send(&links, session, &ToDevice::Status { uplink: Uplink::Connected, waiting: 0, time: 0 });
        assert_eq!(said(&mut links).await, ToGateway::Sleep { seconds: 1 });
        let start = Instant::now();
        assert_eq!(said(&mut links).await, ToGateway::Awake);
        assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
        device.line("asleep").await;
        device.line("awake").await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_device_that_starts_anew_knows_what_is_in_its_journal() {
    let folder = Folder::new();
    let state = folder.path("journal");
    for (arguments, knows) in
        [(format!("--reset 1 --state {}", state.display()), true), ("--reset 1".to_owned(), false)]
    {
        let mut device = Process::device(&folder.link(), &arguments).await;
        let mut links = links(&folder.link());
        let session = up(&mut links).await;
        push(&links, session, 1, b"one");
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(1) });
        device.line("received").await;
        device.line("reset").await;
        let session = up(&mut links).await;
        push(&links, session, 1, b"one");
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(1) });
        device.line(if knows { "duplicate" } else { "received" }).await;
    }
}

#[tokio::test(flavor = "local")]
async fn another_subscription_is_asked_for_once_there_is_one() {
    let folder = Folder::new();
    let mut device = Process::device(&folder.link(), "--subscribe 5 --rotate 5").await;
    let mut links = links(&folder.link());
    let session = up(&mut links).await;
    assert_eq!(said(&mut links).await, ToGateway::Subscribe { channel: ChannelId(5) });
    for push in ["https://push.example/p/1", "https://push.example/p/2"] {
        send(&links, session, &subscribed(5, push));
        device.line(&format!("subscribed channel 5: {push}")).await;
        if push.ends_with('1') {
            assert_eq!(said(&mut links).await, ToGateway::Rotate { channel: ChannelId(5) });
        }
    }
}

#[tokio::test(flavor = "local")]
async fn values_that_make_no_sense_are_refused_with_what_does() {
    for (arguments, words) in [
        ("simulate pty --corrupt 101", "0..=100"),
        ("simulate pty --delay 60001", "60000"),
        ("simulate pty --pace 12", "300..=4000000"),
        ("simulate pty --slow 3600001", "3600000"),
        ("simulate pty --refuse never", "full, unknown-channel or not-possible"),
        ("simulate pty --refuse-count 3", "--refuse"),
        ("simulate pty --sleep 0", "1..=604800"),
        ("simulate pty --reset 0", "1..=604800"),
        ("simulate pty --rotate 0", "1 to 65535"),
        ("link probe usb:1", "serial:/dev/PORT"),
        ("link probe unix:/x --count 0", "1..=10000"),
        ("link probe unix:/x --mtu 19", "20..=1024"),
        ("link monitor", "<SOURCE>"),
        ("link monitor unix:/x", "--between"),
        ("link monitor --between pty x", "--between x"),
    ] {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{arguments}: {said}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_probe_finds_the_largest_frame_and_measures_three_sizes() {
    let folder = Folder::new();
    let _device = Process::device(&folder.link(), "--mtu 96 --delay 5").await;
    let place = format!("serial:{}", folder.link().display());
    let output = run(&format!("link probe {place} --count 10 --json")).await;
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // A pseudo-terminal has no speed: the first one that is tried is answered at.
    assert_eq!((found["baud"].as_u64(), found["mtu"].as_u64()), (Some(1_000_000), Some(96)));
    assert_eq!(found["link"], format!("{place}?baud=1000000"));
    let sizes = found["sizes"].as_array().expect("sizes");
    assert_eq!(sizes.iter().map(|size| size["octets"].as_u64()).collect::<Vec<_>>(), [Some(8), Some(52), Some(96)]);
    for size in sizes {
        assert_eq!((size["sent"].as_u64(), size["lost"].as_u64()), (Some(10), Some(0)));
        assert!(size["min_us"].as_u64() >= Some(10_000), "5 ms each way: {size}");
    }

    let output = run(&format!("link probe {place}?baud=9600 --count 3 --mtu 64")).await;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in ["answers at 9600 baud, frames of up to 64 octets", "median", "?baud=9600\"", "mtu = 64"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_probe_takes_the_place_of_a_gateway_at_a_socket() {
    let folder = Folder::new();
    let socket = folder.path("meter.sock");
    let _device = Process::start(&format!("simulate unix:{}", socket.display())).await;
    let output = run(&format!("link probe unix:{} --count 5", socket.display())).await;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("answers, frames of up to 256 octets"), "{output:?}");
}

#[tokio::test(flavor = "local")]
async fn a_place_without_a_device_is_given_up_with_what_to_check() {
    let folder = Folder::new();
    let silent = Pty::new(None).expect("a pseudo-terminal");
    let socket = folder.path("meter.sock");
    for (place, words) in [
        (format!("serial:{}?baud=115200", silent.path().display()), "Not one octet came."),
        (format!("serial:{}", folder.path("none").display()), "Is it plugged in?"),
        (format!("unix:{} --wait 1", socket.display()), "nobody connected"),
    ] {
        let output = timeout(PATIENCE, run(&format!("link probe {place}"))).await.expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{place}: {said}");
    }
    let _gateway = links_at(&format!("unix:{}", socket.display()));
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let output = run(&format!("link probe unix:{}", socket.display())).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Does a gateway still hold it?"), "{said}");
}

/// Between a gateway and a device at sockets; and at a pseudo-terminal on each side.
#[tokio::test(flavor = "local")]
async fn a_monitor_between_both_shows_what_each_says_and_keeps_secrets() {
    for (is_socket, payloads) in [(true, ""), (false, " --payloads")] {
        let folder = Folder::new();
        let (gateway, device) = (folder.path("gateway"), folder.path("device"));
        let (to_gateway, to_device, at_gateway, at_device) = if is_socket {
            let (gateway, device) = (format!("unix:{}", gateway.display()), format!("unix:{}", device.display()));
            (gateway.clone(), device.clone(), gateway, device)
        } else {
            let pty = |path: &PathBuf| format!("pty:{}", path.display());
            let serial = |path: &PathBuf| format!("serial:{}", path.display());
            (pty(&gateway), serial(&device), serial(&gateway), pty(&device))
        };
        let mut links = links_at(&at_gateway);
        let mut simulated = Process::start(&format!("simulate {at_device} --mtu 64")).await;
        simulated.line("link").await;
        let mut monitor = Process::start(&format!("link monitor --between {to_gateway} {to_device}{payloads}")).await;
        let session = up(&mut links).await;
        push(&links, session, 1, b"the secret");
        assert_eq!(said(&mut links).await, ToGateway::Ack { message: id(1) });
        simulated.line("received").await;
        send(&links, session, &subscribed(3, "https://push.example/capability"));
        simulated.line("subscribed").await;

        let attach = monitor.line_with("Attach").await;
        assert!(attach.ends_with("D>G   Attach device-1, largest 4096, urgent 8196, keeps 256 ids"), "{attach}");
        let pushed = monitor.line_with("Push").await;
        assert!(pushed.contains("G>D   Push 0101010101010101 channel 1, age unknown, 10 octets"), "{pushed}");
        let acked = monitor.line_with("Ack").await;
        assert!(acked.ends_with("D>G   Ack 0101010101010101"), "{acked}");
        let granted = monitor.line_with("Subscribed").await;
        for (line, secret) in [(&pushed, "the secret"), (&granted, "capability"), (&granted, "BwcHBwcHBwcHBwcHBwcHBw")]
        {
            assert_eq!(line.contains(secret), !payloads.is_empty(), "{line}");
        }
        monitor.signal("INT").await;
        let total = monitor.line_with("frames,").await;
        assert!(total.ends_with("0 wrong checksums, 0 foreign octets"), "{total}");
        assert_eq!(monitor.exit_code().await, Some(0));
    }
}

#[tokio::test(flavor = "local")]
async fn a_monitor_reads_captured_octets_and_what_it_cannot_read() {
    let mut child = command("link monitor -").stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    let hello = [7, 0x11, 1, 0x44, 0x33, 0x22, 0x11, 1, 1, 1, 2, 0x40, 1, 6, 1, 3, 0xf8, 6, 0xee, 0];
    input.write_all(&[&hello[..], b"boot\0", &hello[..9]].concat()).await.expect("written");
    drop(input);
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("it is waited for");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("G>D HELLO ask boot 11223344 echo 00000000 mtu 64 window 256"), "{text}");
    assert!(lines[1].ends_with("  ? no frame: 4 octets, not encoded as a frame"), "{text}");
    assert_eq!(lines[2], "1 frames, 0 messages, 0 wrong checksums, 4 foreign octets");
}

/// A folder of this test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the pseudo-terminal of a device is.
    fn link(&self) -> PathBuf {
        self.path("meter")
    }
}

fn subscribed(channel: u16, push: &str) -> ToDevice<'_> {
    ToDevice::Subscribed { channel: ChannelId(channel), push, p256dh: &[4; 65], auth: &[7; 16] }
}
