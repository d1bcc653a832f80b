//! Golden bytes of version 1 of the link protocol.
//!
//! They are frozen: this file is not edited again; another version gets a file of its own.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::device::{Device, Event as DeviceEvent, Received};
use fieldgate::link::elastic::GatewayMemory;
use fieldgate::link::memory::DeviceMemory;
use fieldgate::link::{Config, Event, Link};
use fieldgate::time::{Duration, Instant};
use fieldgate::wire::frame::{Arrived, Frame, Hello, SessionSeed, Stream};
use fieldgate::wire::message::{Age, Profile, Uplink};
use fieldgate::wire::{ChannelId, MessageId, Refusal, Role, ToDevice, ToGateway, VERSION};

const SPECIFICATION: &str = include_str!("../boards/firmware/PROTOCOL.md");

const GATEWAY: u32 = 0x1122_3344;
const DEVICE: u32 = 0x5566_7788;
const NOW: Instant = Instant::ZERO;
const MESSAGE: MessageId = MessageId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
const CHANNEL: ChannelId = ChannelId(1);

type GatewayLink = Link<GatewayMemory>;
type TestDevice = Device<DeviceMemory<20, 512, 0, 256>, 16>;

#[test]
fn the_version_is_1() {
    assert_eq!(VERSION, 1);
}

#[test]
fn every_kind_of_frame_has_its_bytes() {
    let hello = |ask, boot_id, echo| Frame::Hello(Hello { ask, boot_id, echo, mtu: 256, window: 4098 });
    let arrived = Arrived { newest: 0xff, before: 0x0102 };
    let data =
        |stream, arrived, limit, payload| Frame::Data { stream, number: 0x7f, offset: 0x0403, arrived, limit, payload };
    let ack = |stream| Frame::Ack { arrived, stream, limit: 0x0605 };
    let probe = |answer, padding| Frame::Probe { answer, token: 9, padding };
    let (ordered, urgent) = (Stream::Ordered, Stream::Urgent);
    let golden = [
        (Role::Gateway, hello(true, GATEWAY, 0), "07 11 01 44 33 22 11 01 01 01 01 08 01 02 10 18 41 91 25 00"),
        (Role::Gateway, hello(false, GATEWAY, DEVICE), "0b 10 01 44 33 22 11 88 77 66 55 08 01 02 10 bb 48 50 43 00"),
        (Role::Device, hello(true, DEVICE, GATEWAY), "0b 19 01 88 77 66 55 44 33 22 11 08 01 02 10 9a 56 b2 97 00"),
        (Role::Gateway, ack(ordered), "0b 30 ff 02 01 05 06 04 5c e5 1e 00"),
        (Role::Gateway, ack(urgent), "0b 31 ff 02 01 05 06 1d 37 d5 f1 00"),
        (Role::Device, ack(ordered), "0b 38 ff 02 01 05 06 1b 44 e3 7e 00"),
        (Role::Gateway, data(ordered, None, None, &b""[..]), "09 20 7f 03 04 3e 19 81 d0 00"),
        (Role::Gateway, data(urgent, None, None, b"a\0b"), "06 21 7f 03 04 61 06 62 3d d9 12 b2 00"),
        (Role::Gateway, data(ordered, Some(arrived), None, b"ab"), "0e 22 7f 03 04 ff 02 01 61 62 33 c3 f6 17 00"),
        (Role::Gateway, data(ordered, None, Some(0x0605), b"ab"), "0d 24 7f 03 04 05 06 61 62 24 7c 2f d7 00"),
        (
            Role::Device,
            data(ordered, Some(arrived), Some(0x0605), b"ab"),
            "10 2e 7f 03 04 ff 02 01 05 06 61 62 88 a3 a9 03 00",
        ),
        (Role::Gateway, probe(false, b""), "07 40 09 1a 6a c4 76 00"),
        (Role::Device, probe(true, b"ab"), "09 49 09 61 62 21 2f 13 46 00"),
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
    let subscribed = format!("02 ac 02 03 2f 70 31 41{}10{}", " 04".repeat(65) + " ", " aa".repeat(16));
    let age = Age::new(Some(Duration::from_secs(300)));
    let golden = [
        (ToDevice::Status { uplink: Uplink::Down, waiting: 0, time: 0 }, "00 00 00 00"),
        (
            ToDevice::Status { uplink: Uplink::Connected, waiting: 255, time: 1_790_000_000_123 },
            "00 01 ff fb d8 c1 a2 8c 34",
        ),
        (ToDevice::Status { uplink: Uplink::NeedsPerson, waiting: 3, time: 1 }, "00 02 03 01"),
        (
            ToDevice::Push { message: MESSAGE, channel: CHANNEL, age: Age::UNKNOWN, body: b"hello" },
            "01 01 23 45 67 89 ab cd ef 01 00 05 68 65 6c 6c 6f",
        ),
        (ToDevice::Push { message: MESSAGE, channel, age, body: b"" }, "01 01 23 45 67 89 ab cd ef ac 02 ad 02 00"),
        (ToDevice::Subscribed { channel, push: "/p1", p256dh: &p256dh, auth: &auth }, &subscribed),
        (ToDevice::Refused { channel: ChannelId(0), reason: Refusal::Full }, "03 00 00"),
        (ToDevice::Refused { channel: ChannelId(0), reason: Refusal::UnknownDevice }, "03 00 01"),
        (ToDevice::Refused { channel: CHANNEL, reason: Refusal::UnknownChannel }, "03 01 02"),
        (ToDevice::Refused { channel: ChannelId(65535), reason: Refusal::NotPossible }, "03 ff ff 03 03"),
        (ToDevice::Unsubscribed { channel }, "04 ac 02"),
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
    let device = || "d1".parse().expect("an id");
    let little = Profile { message_bytes_max: 32, urgent_window: 0, memory: 4, traits: 0 };
    let much = Profile { message_bytes_max: 4096, urgent_window: 258, memory: 16, traits: Profile::KEEPS_OVER_RESET };
    let golden = [
        (ToGateway::Attach { device: device(), profile: little }, "00 02 64 31 20 00 04 00"),
        (ToGateway::Attach { device: device(), profile: much }, "00 02 64 31 80 20 82 02 10 01"),
        (ToGateway::Ack { message: MESSAGE }, "01 01 23 45 67 89 ab cd ef"),
        (ToGateway::Refuse { message: MESSAGE, reason: Refusal::Full }, "02 01 23 45 67 89 ab cd ef 00"),
        (ToGateway::Subscribe { channel: CHANNEL }, "03 01"),
        (ToGateway::Unsubscribe { channel: ChannelId(300) }, "04 ac 02"),
        (ToGateway::Rotate { channel: ChannelId(300) }, "05 ac 02"),
        (ToGateway::Sleep { seconds: 0 }, "06 00"),
        (ToGateway::Sleep { seconds: 600 }, "06 d8 04"),
        (ToGateway::Awake, "07"),
        (ToGateway::Ask, "08"),
    ];
    for (message, octets) in golden {
        let mut out = [0; 64];
        let bytes = message.emit(&mut out).expect("it fits");
        assert_eq!(hex(&out[..bytes]), octets, "{message:?}");
        assert_eq!(ToGateway::parse(&out[..bytes]), Ok(message));
    }
}

/// C-13: what the specification shows is what the links say.
#[test]
fn c_13_the_worked_exchange_is_what_the_links_say() {
    let shown: Vec<&str> = SPECIFICATION.lines().filter_map(frame_of).collect();

    let mut gateway = GatewayLink::new(Config { role: Role::Gateway, boot_id: GATEWAY, mtu: 64 }, NOW);
    let id = "d1".parse().expect("an id");
    let mut device = TestDevice::new(id, Config { role: Role::Device, boot_id: DEVICE, mtu: 20 }, NOW);
    let mut said = Vec::new();

    let mut lost = [0; LINK_MTU_BYTES_MAX];
    let bytes = device.poll_transmit(NOW, &mut lost).expect("a HELLO");
    said.push(hex(&lost[..bytes]));
    to_device(&mut gateway, &mut device, &mut said);
    to_gateway(&mut device, &mut gateway, &mut said);
    assert_eq!(to_device(&mut gateway, &mut device, &mut said), [DeviceEvent::Up { mtu: 20 }]);
    let profile = Profile { message_bytes_max: 510, urgent_window: 0, memory: 16, traits: 0 };
    assert_eq!(
        to_gateway(&mut device, &mut gateway, &mut said),
        [ToGateway::Attach { device: "d1".parse().expect("an id"), profile }]
    );

    send(&mut gateway, &ToDevice::Status { uplink: Uplink::Connected, waiting: 1, time: 0 });
    to_device(&mut gateway, &mut device, &mut said);
    assert!(matches!(device.poll_message(), Some(Received::New(ToDevice::Status { .. }))));
    assert_eq!(device.poll_message(), None);
    to_gateway(&mut device, &mut gateway, &mut said);
    let age = Age::new(Some(Duration::from_secs(3)));
    let push = ToDevice::Push { message: MESSAGE, channel: CHANNEL, age, body: b"hello" };
    send(&mut gateway, &push);
    assert_eq!(to_device(&mut gateway, &mut device, &mut said), [DeviceEvent::Message]);
    assert_eq!(device.poll_message(), Some(Received::New(push)));
    device.accept(MESSAGE);
    assert_eq!(to_gateway(&mut device, &mut gateway, &mut said), [ToGateway::Ack { message: MESSAGE }]);
    to_device(&mut gateway, &mut device, &mut said);

    assert_eq!(said, shown, "{said:#?}");
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

fn send(gateway: &mut GatewayLink, message: &ToDevice<'_>) {
    let mut out = [0; 64];
    let bytes = message.emit(&mut out).expect("it fits");
    gateway.send(&out[..bytes]).expect("room");
}

fn to_device(gateway: &mut GatewayLink, device: &mut TestDevice, said: &mut Vec<String>) -> Vec<DeviceEvent> {
    let (mut out, mut events) = ([0; LINK_MTU_BYTES_MAX], Vec::new());
    while let Some(bytes) = gateway.poll_transmit(NOW, &mut out) {
        said.push(hex(&out[..bytes]));
        events.extend(device.feed(&out[..bytes], NOW).1);
    }
    events
}

fn to_gateway(device: &mut TestDevice, gateway: &mut GatewayLink, said: &mut Vec<String>) -> Vec<ToGateway> {
    let (mut out, mut heard) = ([0; LINK_MTU_BYTES_MAX], Vec::new());
    while let Some(bytes) = device.poll_transmit(NOW, &mut out) {
        said.push(hex(&out[..bytes]));
        if gateway.feed(&out[..bytes], NOW).1 != Some(Event::Message) {
            continue;
        }
        while let Some((stream, message)) = gateway.message() {
            heard.push(ToGateway::parse(message).expect("a message"));
            gateway.release(stream);
        }
    }
    heard
}

/// The octets of a line of the worked exchange: from column 22 to the delimiter.
fn frame_of(line: &str) -> Option<&str> {
    let octets = line.strip_prefix("G ").or(line.strip_prefix("D "))?.get(20..)?;
    octets.find(" 00").map(|_| octets.split("     ").next().unwrap_or(octets))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ")
}
