//! Walks A7 to A9, B1 and D over links inside the process, on a paused clock.

use std::time::Duration;

use fieldgate::downstream::{DownReason, Downstream, Event, SendError};
use fieldgate::limits::{DEVICE_COUNT_MAX, LINK_QUEUE_COUNT};
use fieldgate::transport::listener::Listener;
use fieldgate::transport::stack::memory::{self, Plug};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, Refusal, ToDevice, ToGateway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::device::ScriptedDevice;

const CHANNEL: ChannelId = ChannelId(1);

/// Octets that a connection holds: about what a pseudo-terminal does.
const PIPE_BYTES: usize = 4096;

/// A-UA-25, C-40, C-42: queueing and writing a message says nothing about its arrival; the device's own word does.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_ua_25_only_the_word_of_the_device_is_an_ack() {
    let (mut links, plug) = links("a");
    let mut device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session, boot_id: 7, message_bytes_max: 4096, .. } = links.next().await else { panic!("up") };
    links.send(&id("a"), session, &push(1, b"hello")).expect("room");
    let heard = device.hear().await;
    assert_eq!(heard.message(), push(1, b"hello"));
    assert!(device.idle(Duration::from_secs(30)).await.is_empty());
    assert!(timeout(Duration::ZERO, links.next()).await.is_err(), "nothing was said yet");

    let ack = ToGateway::Ack { message: MessageId([1; 8]) };
    device.say(&ack).await;
    assert_eq!(links.next().await, Event::Message { device: id("a"), session, message: ack });
    device.say(&ToGateway::Subscribe { channel: CHANNEL }).await;
    let Event::Message { message: ToGateway::Subscribe { channel: CHANNEL }, .. } = links.next().await else {
        panic!("walk B1")
    };
}

/// C-40: a device that is not the one of this link is refused with a reason, once, and not listened to.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_40_a_stranger_is_refused_with_a_reason() {
    let (mut links, plug) = links("a");
    let mut device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "b").await;
    let refused = ToDevice::Refused { channel: ChannelId(0), reason: Refusal::UnknownDevice };
    assert_eq!(device.hear().await.message(), refused);
    assert_eq!(links.next().await, Event::AttachRefused { device: id("a"), claimed: Some(id("b")) });
    device.say(&ToGateway::Ack { message: MessageId([1; 8]) }).await;
    device.attach("a").await;
    device.idle(Duration::from_secs(5)).await;
    assert!(timeout(Duration::ZERO, links.next()).await.is_err(), "nothing of this session is passed on");

    // A new session may attach.
    let mut device = ScriptedDevice::attached(device.into_stream(), 8, "a").await;
    device.idle(Duration::from_secs(1)).await;
    assert!(matches!(links.next().await, Event::Up { boot_id: 8, .. }));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_message_for_an_earlier_session_is_dropped() {
    let (mut links, plug) = links("a");
    let device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session: first, .. } = links.next().await else { panic!("up") };
    links.send(&id("a"), first, &push(1, b"old")).expect("room");
    let mut device = ScriptedDevice::attached(device.into_stream(), 8, "a").await;
    assert_eq!(links.next().await, Event::Down { device: id("a"), session: first, reason: DownReason::Restarted });
    let Event::Up { session: second, .. } = links.next().await else { panic!("up again") };
    assert!(second > first);
    links.send(&id("a"), first, &push(2, b"old")).expect("dropped without a word");
    links.send(&id("a"), second, &push(3, b"new")).expect("room");
    assert_eq!(device.hear().await.message(), push(3, b"new"));
}

/// C-67: what a device can never take is an error when it is sent.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_67_a_message_larger_than_the_device_takes_is_refused() {
    let (mut links, plug) = links("a");
    let _device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session, message_bytes_max, .. } = links.next().await else { panic!("up") };
    let body = vec![0; usize::from(message_bytes_max)];
    let sent = links.send(&id("a"), session, &push(1, &body));
    assert_eq!(sent, Err(SendError::TooLarge { message_bytes_max: 4096 }));
    assert_eq!(links.send(&id("b"), session, &push(1, b"")), Err(SendError::UnknownDevice));
}

/// A full queue is a value; a device that does not read is still heard, and its neighbour notices nothing.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_device_that_does_not_read_holds_up_nobody() {
    let (mut links, plug) = links("a");
    let (neighbour_plug, socket) = memory::pair();
    links.attach_listener(id("b"), 256, Listener::memory(socket)).expect("room");
    let mut device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session, .. } = links.next().await else { panic!("up") };
    let mut neighbour = ScriptedDevice::attached(neighbour_plug.connect(PIPE_BYTES).expect("plugged"), 9, "b").await;
    let Event::Up { session: neighbour_session, .. } = links.next().await else { panic!("up") };

    let mut taken = 0;
    while links.send(&id("a"), session, &push(taken as u8, &[0; 3000])).is_ok() {
        taken += 1;
        tokio::task::yield_now().await;
        assert!(taken <= LINK_QUEUE_COUNT + 3, "the queue is bounded");
    }
    assert_eq!(links.send(&id("a"), session, &push(0, b"")), Err(SendError::Full));
    for number in 0..100 {
        links.send(&id("b"), neighbour_session, &push(number, b"quick")).expect("room");
        assert_eq!(neighbour.hear().await.message(), push(number, b"quick"));
    }
    let subscribe = ToGateway::Subscribe { channel: CHANNEL };
    device.say(&subscribe).await;
    assert_eq!(links.next().await, Event::Message { device: id("a"), session, message: subscribe });
}

/// Walk D: a device that stops answering on an open port is silent after a bounded time, and comes back when it speaks.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_silent_device_is_reported_and_may_return() {
    let (mut links, plug) = links("a");
    let mut device = ScriptedDevice::attached(plug.connect(1 << 20).expect("plugged"), 7, "a").await;
    let Event::Up { session, .. } = links.next().await else { panic!("up") };
    links.send(&id("a"), session, &push(1, b"anybody?")).expect("room");
    let since = Instant::now();
    assert_eq!(links.next().await, Event::Silent { device: id("a"), session });
    assert!(since.elapsed() < Duration::from_secs(31), "{:?}", since.elapsed());

    device.idle(Duration::from_secs(3)).await;
    device.attach("a").await;
    let Event::Up { session: next, .. } = links.next().await else { panic!("up") };
    assert!(next > session);
}

/// The paused clock only moves when nothing is busy, so this ends only if the pump truly waits.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_that_takes_nothing_is_waited_for_without_spinning() {
    let (mut links, plug) = links("a");
    let stream = plug.connect(8).expect("plugged");
    assert!(timeout(Duration::from_secs(3600), links.next()).await.is_err());
    let device = ScriptedDevice::attached(stream, 7, "a").await;
    assert!(matches!(links.next().await, Event::Up { boot_id: 7, .. }));
    drop(device);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_newer_connection_takes_the_place_of_the_older_one() {
    let (mut links, plug) = links("a");
    let first = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session, .. } = links.next().await else { panic!("up") };
    let mut second = ScriptedDevice::new(plug.connect(PIPE_BYTES).expect("plugged"), 8, 256);
    second.attach("a").await;
    assert_eq!(links.next().await, Event::Down { device: id("a"), session, reason: DownReason::Replaced });
    assert!(matches!(links.next().await, Event::Up { boot_id: 8, .. }));
    let mut rest = Vec::new();
    first.into_stream().read_to_end(&mut rest).await.expect("it was closed");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_device_that_goes_and_comes_is_up_again() {
    let (mut links, plug) = links("a");
    for boot_id in 1..50 {
        let device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), boot_id, "a").await;
        let Event::Up { session, .. } = links.next().await else { panic!("up") };
        drop(device);
        assert_eq!(links.next().await, Event::Down { device: id("a"), session, reason: DownReason::Closed });
    }
}

/// C-20, C-32: garbage costs nothing but itself, and the listener survives who sends it and leaves.
#[tokio::test(flavor = "local", start_paused = true)]
async fn c_20_garbage_is_survived() {
    let (mut links, plug) = links("a");
    let mut stream = plug.connect(PIPE_BYTES).expect("plugged");
    for value in 0..=255u8 {
        stream.write_all(&[value; 500]).await.expect("it is read");
    }
    let mut device = ScriptedDevice::attached(stream, 7, "a").await;
    assert!(matches!(links.next().await, Event::Up { .. }));
    device.idle(Duration::from_secs(1)).await;
    let mut stream = device.into_stream();
    stream.write_all(&[0x55; 3000]).await.expect("it is read");
    drop(stream);
    assert!(matches!(links.next().await, Event::Down { .. }));
    ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 8, "a").await;
    assert!(matches!(links.next().await, Event::Up { boot_id: 8, .. }));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_device_of_another_version_is_reported_once() {
    let (mut links, plug) = links("a");
    let mut stream = plug.connect(1 << 20).expect("plugged");
    let body = [0x19, 9, 1, 2, 3];
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&body).to_le_bytes();
    let mut frame = [0; 32];
    let bytes = fieldgate::wire::cobs::encode(&[&body, &crc], &mut frame).expect("it fits");
    for _ in 0..10 {
        stream.write_all(&frame[..bytes]).await.expect("it is read");
    }
    let Event::Retrying { reason, .. } = links.next().await else { panic!("a reason") };
    assert!(reason.contains("version 9"), "{reason}");
    assert!(timeout(Duration::from_secs(60), links.next()).await.is_err());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_detached_device_is_let_go_and_its_place_is_free() {
    let (mut links, plug) = links("a");
    let device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    let Event::Up { session, .. } = links.next().await else { panic!("up") };
    links.detach(&id("a"));
    assert_eq!(links.send(&id("a"), session, &push(1, b"")), Err(SendError::UnknownDevice));
    let mut rest = Vec::new();
    device.into_stream().read_to_end(&mut rest).await.expect("it was closed");

    let mut plugs = Vec::new();
    for number in 0..DEVICE_COUNT_MAX {
        let (plug, socket) = memory::pair();
        plugs.push(plug);
        links.attach_listener(id(&format!("d{number}")), 256, Listener::memory(socket)).expect("room");
    }
    let (_plug, socket) = memory::pair();
    assert!(links.attach_listener(id("one-more"), 256, Listener::memory(socket)).is_err());
    links.detach(&id("d0"));
    let (_plug, socket) = memory::pair();
    links.attach_listener(id("one-more"), 256, Listener::memory(socket)).expect("room");
}

/// The end of a session whose pump is stopped is never reported: so its begin must not be either.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_session_is_not_reported_once_its_pump_is_stopped() {
    let (mut links, old) = links("a");
    let mut device = ScriptedDevice::attached(old.connect(PIPE_BYTES).expect("plugged"), 7, "a").await;
    device.idle(Duration::from_secs(1)).await;
    let (plug, socket) = memory::pair();
    links.attach_listener(id("a"), 256, Listener::memory(socket)).expect("room");
    let _device = ScriptedDevice::attached(plug.connect(PIPE_BYTES).expect("plugged"), 8, "a").await;
    assert!(matches!(links.next().await, Event::Up { boot_id: 8, .. }));
}

fn links(device: &str) -> (Downstream, Plug) {
    let mut links = Downstream::new(Instant::now());
    let (plug, socket) = memory::pair();
    links.attach_listener(id(device), 256, Listener::memory(socket)).expect("room for one");
    (links, plug)
}

fn id(text: &str) -> DeviceId {
    text.parse().expect("an id")
}

fn push(number: u8, body: &[u8]) -> ToDevice<'_> {
    ToDevice::Push { message: MessageId([number; 8]), channel: CHANNEL, age: Age::UNKNOWN, body }
}
