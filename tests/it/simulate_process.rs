//! `fieldgate simulate` as a process: what it prints, when it acknowledges, and what a kill leaves.

use fieldgate::downstream::Event;
use fieldgate::wire::{ChannelId, ToDevice, ToGateway};
use serde_json::Value;

use crate::device_process::{Process, acked, id, links, next, push, run, send, up};

/// A-UA-25, A-UA-26: each message is printed once and each copy acknowledged again, also across a kill.
#[tokio::test(flavor = "local")]
async fn a_ua_26_a_killed_device_knows_what_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let (link, state) = (folder.path().join("meter"), folder.path().join("journal"));
    let arguments = format!("--json --state {}", state.display());
    let mut links = links(&link);

    let mut first = Process::device(&link, &arguments).await;
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

    let mut second = Process::device(&link, &arguments).await;
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
        let mut process = Process::device(&link, "").await;
        process.signal(signal).await;
        assert_eq!(process.exit_code().await, Some(0), "{signal}");
        assert!(std::fs::symlink_metadata(&link).is_err());
    }
}

/// Loss on the line delays messages and changes nothing else; the last device ack leaves before the process ends.
#[tokio::test(flavor = "local")]
async fn a_device_on_a_bad_line_receives_each_message_once_and_ends_after_its_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("meter");
    let mut links = links(&link);
    let mut process = Process::device(&link, "--loss 5 --seed 7 --count 12 --mtu 64").await;
    let session = up(&mut links).await;
    for number in 1..=12 {
        push(&links, session, number, &[b'a' + number; 150]);
        process.line(&format!("received channel 1 message {} 150 octets: ", id(number))).await;
        acked(&mut links, number).await;
    }
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test(flavor = "local")]
async fn a_subscription_is_asked_for_and_printed_as_application_servers_want_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("meter");
    let mut links = links(&link);
    let mut process = Process::device(&link, "--json --subscribe 5").await;
    let session = up(&mut links).await;
    let Event::Message { message: ToGateway::Subscribe { channel }, .. } = next(&mut links).await else {
        panic!("it asks")
    };
    let (p256dh, auth) = ([4; 65], [7; 16]);
    let answer = ToDevice::Subscribed { channel, push: "https://push.example/p/1", p256dh: &p256dh, auth: &auth };
    send(&links, session, &answer);
    let line = process.event("subscribed").await;
    assert_eq!((line["channel"].as_u64(), channel), (Some(5), ChannelId(5)));
    assert_eq!(line["subscription"]["endpoint"], "https://push.example/p/1");
    assert_eq!(line["subscription"]["keys"]["auth"], "BwcHBwcHBwcHBwcHBwcHBw");
}

#[tokio::test(flavor = "local")]
async fn what_cannot_be_is_said_with_its_exit_code() {
    let wrong = run("simulate usb:1").await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("pty:/PATH"));
    assert_eq!(run("simulate pty --mtu 19").await.status.code(), Some(2));
    let failed = run("simulate pty:/no/such/folder/meter").await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot be at pty:/no/such/folder/meter"));
}
