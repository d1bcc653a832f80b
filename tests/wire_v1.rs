//! Golden bytes of the link protocol.
//!
//! These are the bytes of the draft: HELLO says version 0. When the version becomes 1 they are frozen, and this file is
//! not edited again; another version gets a file of its own.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::device::{Device, Event as DeviceEvent};
use fieldgate::link::{Config, Event, Link};
use fieldgate::time::Instant;
use fieldgate::wire::frame::{Frame, Hello, SessionSeed};
use fieldgate::wire::{ChannelId, MessageId, Refusal, Role, ToDevice, ToGateway, VERSION};

const SPECIFICATION: &str = include_str!("../src/wire/mod.rs");

const GATEWAY: u32 = 0x1122_3344;
const DEVICE: u32 = 0x5566_7788;
const NOW: Instant = Instant::ZERO;
const MESSAGE: MessageId = MessageId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
const CHANNEL: ChannelId = ChannelId(1);

#[test]
fn the_version_is_the_draft() {
    assert_eq!(VERSION, 0);
}

#[test]
fn every_kind_of_frame_has_its_bytes() {
    let hello = |ask, boot_id, echo| Frame::Hello(Hello { ask, boot_id, echo, mtu: 256, message_bytes_max: 256 });
    let data = |first, last, payload| Frame::Data { first, last, seq: 0x7f, ack: 0xff, payload };
    let golden = [
        (Role::Gateway, hello(true, GATEWAY, 0), "02 11 05 44 33 22 11 01 01 01 01 02 01 06 01 ff 0d 33 d0 00"),
        (Role::Gateway, hello(false, GATEWAY, DEVICE), "02 10 09 44 33 22 11 88 77 66 55 02 01 06 01 5c 04 f2 b6 00"),
        (Role::Device, hello(true, DEVICE, GATEWAY), "02 19 09 88 77 66 55 44 33 22 11 02 01 06 01 7d 1a 10 62 00"),
        (Role::Gateway, Frame::Ack { gap: false, ack: 1 }, "07 30 01 81 dd 34 e1 00"),
        (Role::Gateway, Frame::Ack { gap: true, ack: 7 }, "07 31 07 1e a2 37 d4 00"),
        (Role::Device, Frame::Ack { gap: false, ack: 1 }, "07 38 01 39 1e 20 7c 00"),
        (Role::Device, Frame::Ack { gap: true, ack: 7 }, "07 39 07 a6 61 23 49 00"),
        (Role::Gateway, data(true, true, b""), "08 23 7f ff 52 77 72 5e 00"),
        (Role::Gateway, data(true, false, b"a\0b"), "05 21 7f ff 61 06 62 a7 9f 4a 15 00"),
        (Role::Gateway, data(false, false, b"ab"), "0a 20 7f ff 61 62 3d f0 54 e8 00"),
        (Role::Gateway, data(false, true, b"ab"), "0a 22 7f ff 61 62 65 2f 76 98 00"),
        (Role::Device, data(true, true, b"ab"), "08 2b 7f ff 61 62 58 4b 02 65 00"),
    ];
    let session = Some(SessionSeed::new(GATEWAY, DEVICE));
    for (from, frame, octets) in golden {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let bytes = frame.emit(from, session, &mut out).expect("it fits");
        assert_eq!(hex(&out[..bytes]), octets, "{frame:?}");
    }
}

#[test]
fn every_message_to_a_device_has_its_bytes() {
    let (p256dh, auth) = ([0x04; 65], [0xaa; 16]);
    let channel = ChannelId(300);
    let subscribed = format!("01 ac 02 03 2f 70 31 41{}10{}", " 04".repeat(65) + " ", " aa".repeat(16));
    let golden = [
        (
            ToDevice::Push { message: MESSAGE, channel: CHANNEL, body: b"hello" },
            "00 01 23 45 67 89 ab cd ef 01 05 68 65 6c 6c 6f",
        ),
        (ToDevice::Subscribed { channel, push: "/p1", p256dh: &p256dh, auth: &auth }, &subscribed),
        (ToDevice::Refused { channel: ChannelId(0), reason: Refusal::Full }, "02 00 00"),
        (ToDevice::Refused { channel: ChannelId(0), reason: Refusal::UnknownDevice }, "02 00 01"),
        (ToDevice::Refused { channel: CHANNEL, reason: Refusal::UnknownChannel }, "02 01 02"),
        (ToDevice::Refused { channel: ChannelId(65535), reason: Refusal::NotPossible }, "02 ff ff 03 03"),
        (ToDevice::Unsubscribed { channel }, "03 ac 02"),
    ];
    for (message, octets) in golden {
        let mut out = [0; 200];
        let bytes = message.emit(&mut out).expect("it fits");
        assert_eq!(hex(&out[..bytes]), octets, "{message:?}");
        assert_eq!(ToDevice::parse(&out[..bytes]), Ok(message));
    }
}

#[test]
fn every_message_to_a_gateway_has_its_bytes() {
    let golden = [
        (ToGateway::Attach { device: "d1".parse().expect("an id") }, "00 02 64 31"),
        (ToGateway::Ack { message: MESSAGE }, "01 01 23 45 67 89 ab cd ef"),
        (ToGateway::Refuse { message: MESSAGE, reason: Refusal::NotPossible }, "02 01 23 45 67 89 ab cd ef 03"),
        (ToGateway::Subscribe { channel: ChannelId(127) }, "03 7f"),
        (ToGateway::Unsubscribe { channel: ChannelId(128) }, "04 80 01"),
    ];
    for (message, octets) in golden {
        let mut out = [0; 64];
        let bytes = message.emit(&mut out).expect("it fits");
        assert_eq!(hex(&out[..bytes]), octets, "{message:?}");
        assert_eq!(ToGateway::parse(&out[..bytes]), Ok(message));
    }
}

/// C-13: the exchange that the specification shows is what two links really say, octet for octet.
#[test]
fn c_13_the_worked_exchange_is_what_the_links_say() {
    let shown: Vec<&str> =
        SPECIFICATION.lines().filter_map(|line| line.strip_prefix("//! ")).filter_map(frame_of).collect();
    assert_eq!(shown.len(), 10, "{shown:#?}");

    let mut gateway = Link::<4098, 256>::new(Config { role: Role::Gateway, boot_id: GATEWAY, mtu: 256 }, NOW);
    let id = "d1".parse().expect("an id");
    let mut device = Device::<256, 512, 16>::new(id, Config { role: Role::Device, boot_id: DEVICE, mtu: 20 }, NOW);
    let mut said = Vec::new();

    let mut lost = [0; LINK_MTU_BYTES_MAX];
    let bytes = device.poll_transmit(NOW, &mut lost).expect("a HELLO");
    said.push(hex(&lost[..bytes]));
    to_device(&mut gateway, &mut device, &mut said);
    to_gateway(&mut device, &mut gateway, &mut said);
    assert_eq!(to_device(&mut gateway, &mut device, &mut said), [DeviceEvent::Up { mtu: 20 }]);
    assert_eq!(to_gateway(&mut device, &mut gateway, &mut said), [Event::Message]);
    assert_eq!(ToGateway::parse(gateway.message()), Ok(ToGateway::Attach { device: "d1".parse().expect("an id") }));
    to_device(&mut gateway, &mut device, &mut said);

    let mut out = [0; 64];
    let push = ToDevice::Push { message: MESSAGE, channel: CHANNEL, body: b"hello" };
    let bytes = push.emit(&mut out).expect("it fits");
    gateway.send(&out[..bytes]).expect("room");
    assert_eq!(to_device(&mut gateway, &mut device, &mut said), [DeviceEvent::Message]);
    assert_eq!(device.message(), Some(push));
    device.accept(MESSAGE);
    assert_eq!(to_gateway(&mut device, &mut gateway, &mut said), [Event::Message]);
    assert_eq!(ToGateway::parse(gateway.message()), Ok(ToGateway::Ack { message: MESSAGE }));
    to_device(&mut gateway, &mut device, &mut said);

    assert_eq!(said, shown);
}

#[test]
fn the_examples_of_the_encoding_are_right() {
    let mut out = [0; 300];
    let bytes = fieldgate::wire::cobs::encode(&[&[0x11, 0x22, 0x00, 0x33]], &mut out).expect("it fits");
    assert_eq!(hex(&out[..bytes]), "03 11 22 02 33 00");
    let bytes = fieldgate::wire::cobs::encode(&[&[0]], &mut out).expect("it fits");
    assert_eq!(hex(&out[..bytes]), "01 01 00");
    let block: Vec<u8> = (1..=254).collect();
    let bytes = fieldgate::wire::cobs::encode(&[&block], &mut out).expect("it fits");
    assert_eq!((out[0], bytes), (0xff, 256));
}

fn to_device(
    gateway: &mut Link<4098, 256>,
    device: &mut Device<256, 512, 16>,
    said: &mut Vec<String>,
) -> Vec<DeviceEvent> {
    let (mut out, mut events) = ([0; LINK_MTU_BYTES_MAX], Vec::new());
    while let Some(bytes) = gateway.poll_transmit(NOW, &mut out) {
        said.push(hex(&out[..bytes]));
        events.extend(device.feed(&out[..bytes], NOW).1);
    }
    events
}

fn to_gateway(device: &mut Device<256, 512, 16>, gateway: &mut Link<4098, 256>, said: &mut Vec<String>) -> Vec<Event> {
    let (mut out, mut events) = ([0; LINK_MTU_BYTES_MAX], Vec::new());
    while let Some(bytes) = device.poll_transmit(NOW, &mut out) {
        said.push(hex(&out[..bytes]));
        events.extend(gateway.feed(&out[..bytes], NOW).1.filter(|event| *event == Event::Message));
    }
    events
}

/// The octets of a line of the worked exchange: from column 22 to the delimiter.
fn frame_of(line: &str) -> Option<&str> {
    let octets = line.strip_prefix("G ").or(line.strip_prefix("D "))?.get(20..)?;
    octets.find(" 00").map(|_| octets.split("     ").next().unwrap_or(octets))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ")
}
