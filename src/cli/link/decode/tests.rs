use super::super::show::{line, total};
use super::*;
use crate::time::Duration;
use crate::wire::message::Age;
use crate::wire::{ChannelId, MessageId, Refusal};

const SPECIFICATION: &str = include_str!("../../../../boards/firmware/PROTOCOL.md");
const GATEWAY: u32 = 0x1122_3344;
const DEVICE: u32 = 0x5566_7788;

#[test]
fn the_worked_exchange_of_the_specification_is_shown_line_by_line() {
    let mut decoder = Decoder::new();
    let shown = feed(&mut decoder, None, &worked_exchange(), false);
    let expected = "\
        D>G HELLO ask boot 55667788 echo 00000000 mtu 20 window 512\n\
        G>D HELLO ask boot 11223344 echo 00000000 mtu 64 window 256\n\
        D>G HELLO ask boot 55667788 echo 11223344 mtu 20 window 512\n\
        G>D HELLO boot 11223344 echo 55667788 mtu 64 window 256\n\
        D>G DATA 0 offset 0 10 octets\n\
        D>G   Attach d1, largest 510, urgent 0, keeps 16 ids\n\
        G>D DATA 0 offset 0 5 octets acks 0\n\
        G>D   Status connected, 1 waiting, no time\n\
        D>G ACK 0 limit 517\n\
        G>D DATA 1 offset 5 10 octets\n\
        G>D DATA 2 offset 15 8 octets\n\
        G>D   Push 0123456789abcdef channel 1, age 3 s, 5 octets\n\
        D>G ACK 2-0 limit 517\n\
        D>G DATA 1 offset 10 10 octets\n\
        D>G   Ack 0123456789abcdef\n\
        G>D ACK 1-0 limit 276";
    assert_eq!(shown, expected);
    assert_eq!(total(decoder.counts()), "12 frames, 4 messages, 0 wrong checksums, 0 foreign octets");
}

#[test]
fn contents_uris_and_keys_are_shown_only_to_who_asks() {
    let (p256dh, auth) = ([4; 65], [7; 16]);
    let push = ToDevice::Push { message: MessageId([1; 8]), channel: ChannelId(2), age: Age::UNKNOWN, body: b"secret" };
    let subscribed =
        ToDevice::Subscribed { channel: ChannelId(2), push: "https://p.example/cap", p256dh: &p256dh, auth: &auth };
    let stream = [session(), data(0, 0, &[encoded(&push), encoded(&subscribed)].concat())].concat();
    let hidden = feed(&mut Decoder::new(), None, &[&stream[..], b"boot text\0"].concat(), false);
    assert!(hidden.contains("Push 0101010101010101 channel 2, age unknown, 6 octets\n"), "{hidden}");
    assert!(hidden.contains("Subscribed channel 2, push URI of 21 octets"), "{hidden}");
    let shown = feed(&mut Decoder::new(), None, &[&stream[..], b"boot text\0"].concat(), true);
    for secret in ["secret", "p.example", "BwcHBwcHBwcHBwcHBwcHBw", "boot text"] {
        assert!(!hidden.contains(secret) && shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn damage_and_foreign_octets_are_shown_and_counted() {
    let mut decoder = Decoder::new();
    let mut damaged = data(0, 0, b"\x01\x08");
    damaged[5] ^= 0x40;
    let stream =
        [&session()[..], b"U-Boot 2024\n\0", &damaged, &[9; 3_000], b"\0", &data(1, 0, b"\x04\x00\x01\x00\x00")]
            .concat();
    let shown = feed(&mut decoder, None, &stream, false);
    let lines: Vec<&str> = shown.lines().skip(2).collect();
    assert_eq!(lines[0], "  ? no frame: 12 octets, not encoded as a frame");
    assert_eq!(lines[1], format!("  ? no frame: {} octets, wrong checksum", damaged.len() - 1));
    assert_eq!(lines[2], "  ? no frame: 2048 octets, longer than any frame");
    assert_eq!(lines[3], "  ? no frame: 952 octets, longer than any frame");
    assert_eq!(lines[5], "G>D   Status connected, 0 waiting, no time");
    let counts = decoder.counts();
    assert_eq!((counts.checksums, counts.foreign_bytes), (1, 12 + damaged.len() as u64 - 1 + 3_000));
}

/// Who joins late sees frames at once, and messages once one begins a frame.
#[test]
fn a_session_that_was_joined_is_shown_unchecked() {
    let ack = [&[9, 1][..], &[5; 8]].concat();
    let frame =
        Frame::Data { stream: Stream::Ordered, number: 7, offset: 900, arrived: None, limit: None, payload: &ack };
    let shown =
        feed(&mut Decoder::new(), None, &[emitted(frame, Role::Device), data(8, 40, b"rest of one")].concat(), false);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "D>G DATA 7 offset 900 10 octets (unchecked: no HELLO of both sides yet)");
    assert_eq!(lines[1], "D>G   Ack 0505050505050505");
    assert_eq!(lines.len(), 3, "{shown}");
}

/// On a tap of one wire the boot id of the other side is the echo.
#[test]
fn one_direction_alone_is_enough_for_its_checksums() {
    let hello = Hello { ask: false, boot_id: DEVICE, echo: GATEWAY, mtu: 64, window: 256 };
    let refuse = ToGateway::Refuse { message: MessageId([2; 8]), reason: Refusal::Full };
    let mut out = [0; 64];
    let bytes = refuse.emit(&mut out).expect("it fits");
    let payload = [&[bytes as u8], &out[..bytes]].concat();
    let frame =
        Frame::Data { stream: Stream::Ordered, number: 0, offset: 0, arrived: None, limit: None, payload: &payload };
    let stream = [emitted(Frame::Hello(hello), Role::Device), emitted(frame, Role::Device)].concat();
    let shown = feed(&mut Decoder::new(), Some(Role::Device), &stream, false);
    assert!(shown.ends_with("D>G DATA 0 offset 0 11 octets\nD>G   Refuse 0202020202020202: full"), "{shown}");
}

#[test]
fn a_new_session_begins_its_streams_anew_and_an_echo_is_told_apart() {
    let status = encoded(&ToDevice::Unsubscribed { channel: ChannelId(3) });
    let mut decoder = Decoder::new();
    feed(&mut decoder, None, &[session(), data(0, 0, &status)].concat(), false);
    let restarted = Hello { ask: true, boot_id: GATEWAY + 1, echo: 0, mtu: 64, window: 256 };
    feed(&mut decoder, Some(Role::Gateway), &emitted(Frame::Hello(restarted), Role::Gateway), false);
    let old = feed(&mut decoder, Some(Role::Gateway), &data(1, 3, &status), false);
    let unsubscribed = "G>D   Unsubscribed channel 3";
    assert_eq!(old, format!("G>D DATA 1 offset 3 3 octets\n{unsubscribed}"), "its peer has not heard of the new one");
    let frame =
        Frame::Data { stream: Stream::Ordered, number: 0, offset: 0, arrived: None, limit: None, payload: &status };
    let octets = emitted_in(frame, Role::Gateway, GATEWAY + 1);
    let shown = feed(&mut decoder, Some(Role::Gateway), &octets, false);
    assert_eq!(shown, format!("G>D DATA 0 offset 0 3 octets\n{unsubscribed}"));
    let late = feed(&mut decoder, Some(Role::Gateway), &data(2, 6, &status), false);
    assert_eq!(late, "G>D DATA 2 offset 6 3 octets", "its messages are not shown any more");
    let echo = feed(&mut decoder, Some(Role::Device), &octets, false);
    assert_eq!(echo, "G>D DATA 0 offset 0 3 octets (an echo)");
}

/// The frames of section 7, as they are on the line.
fn worked_exchange() -> Vec<u8> {
    let section = SPECIFICATION.split("# 7. A worked exchange").nth(1).and_then(|rest| rest.split("# 8.").next());
    let lines = section.expect("it is there").lines();
    let frames = lines.filter(|line| line.starts_with("D ") || line.starts_with("G "));
    frames.flat_map(|line| octets_of(&line[22..])).collect()
}

/// Two digits each, up to the delimiter: behind it are words.
fn octets_of(text: &str) -> Vec<u8> {
    let digits = text.split_whitespace().map_while(|pair| u8::from_str_radix(pair, 16).ok());
    let octets: Vec<u8> = digits.collect();
    assert_eq!(octets.last(), Some(&DELIMITER), "{text}");
    octets
}

fn session() -> Vec<u8> {
    let hello = |boot_id, echo| Frame::Hello(Hello { ask: false, boot_id, echo, mtu: 256, window: 256 });
    [emitted(hello(GATEWAY, DEVICE), Role::Gateway), emitted(hello(DEVICE, GATEWAY), Role::Device)].concat()
}

/// A message with its length.
fn encoded(message: &ToDevice<'_>) -> Vec<u8> {
    let mut out = [0; 256];
    let bytes = message.emit(&mut out).expect("it fits");
    assert!(bytes < 128);
    [&[bytes as u8], &out[..bytes]].concat()
}

fn data(number: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    emitted(Frame::Data { stream: Stream::Ordered, number, offset, arrived: None, limit: None, payload }, Role::Gateway)
}

fn emitted(frame: Frame<'_>, from: Role) -> Vec<u8> {
    emitted_in(frame, from, GATEWAY)
}

fn emitted_in(frame: Frame<'_>, from: Role, gateway: u32) -> Vec<u8> {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let bytes = frame.emit(from, Some(SessionSeed::new(gateway, DEVICE)), &mut out).expect("it fits");
    out[..bytes].to_vec()
}

/// The lines, without the time.
fn feed(decoder: &mut Decoder, side: Option<Role>, octets: &[u8], payloads: bool) -> String {
    let mut lines = Vec::new();
    let fed = decoder.feed(side, octets, |passed| {
        lines.push(line(Duration::ZERO, passed, payloads)[9..].to_owned());
        Ok::<(), ()>(())
    });
    assert_eq!(fed, Ok(()));
    lines.join("\n")
}
