//! C-66: a device that keeps no rule but that of the checksum harms only itself. Whatever it says, memory and answers have
//! a bound, nothing panics, and an honest device that comes after it is served.

use std::cell::Cell;

use fieldgate::limits::{
    GATEWAY_LINK_RX_BYTES, GATEWAY_LINK_TX_BYTES, GATEWAY_LINK_URGENT_BYTES, HELLO_MS, LINK_CREDIT_MS,
    LINK_FLIGHT_FRAMES, LINK_MTU_BYTES_MAX,
};
use fieldgate::link::memory::{DeviceMemory, Fixed, Memory, Storage};
use fieldgate::link::{Config, Event, Link, Role, Stream};
use fieldgate::random::SeededRandom;
use fieldgate::time::{Duration, Instant};
use fieldgate::wire::cobs::Deframer;

use crate::fuzz_corpus::properties::line::{self, DEVICE, Frame, Hello, Ids};

const MTU: usize = 128;
const WINDOW: u16 = 512;
const URGENT_WINDOW: u16 = 200;
/// Frames that one frame of a peer may bring about: a window of DATA, a HELLO, an answer, and an ACK of each stream.
const ANSWER_COUNT_MAX: usize = LINK_FLIGHT_FRAMES + 4;
const RECOVERY_MS: u64 = 60_000;

#[test]
fn a_device_that_lies_about_its_room_gets_no_octet_behind_what_it_said() {
    let mut line = HostileLine::open();
    let mut random = SeededRandom::new(1);
    let mut limits = [usize::from(WINDOW), usize::from(URGENT_WINDOW)];
    let mut sent_to = [0_usize; 2];
    for round in 0..5_000_u64 {
        let urgent = round % 3 == 0;
        let limit = &mut limits[usize::from(urgent)];
        let [low, high, kind, ..] = random.next_u64().to_le_bytes();
        let told = match kind % 8 {
            // It jumps as far as it can, falls, and says anything.
            0 => (*limit as u16).wrapping_add(i16::MAX as u16),
            1 => (*limit as u16).wrapping_sub(low.into()),
            2 => (*limit as u16).wrapping_add(1 << 15),
            3 => u16::from_le_bytes([low, high]),
            _ => (*limit as u16).wrapping_add(low.into()),
        };
        let rise = told.wrapping_sub(*limit as u16);
        *limit += if rise < 1 << 15 { usize::from(rise) } else { 0 };
        line.say_something();
        let (events, answers) = line.hear(&Frame::Ack { arrived: line.all_arrived(), urgent, limit: told });
        assert_eq!(events, []);
        for answer in answers {
            let Frame::Data { urgent, offset, payload, .. } = answer else { continue };
            let to = &mut sent_to[usize::from(urgent)];
            assert_eq!(offset, *to as u16, "it is all acknowledged, and nothing is sent twice");
            *to += payload.len();
            assert!(*to <= limits[usize::from(urgent)], "{to} is behind the limit");
        }
    }
    assert!(sent_to[0] > 5_000 && sent_to[1] > 5_000, "{sent_to:?}");
    line.recover();
}

/// A device that says it has no room is asked now and then, and for no more than so many frames.
#[test]
fn a_device_that_never_has_room_is_asked_now_and_then() {
    let mut line = HostileLine::open();
    for _ in 0..2 {
        line.gateway.send(&[7; 500]).expect("room");
        line.transmit();
        line.hear(&Frame::Ack { arrived: line.all_arrived(), urgent: false, limit: WINDOW });
    }
    let mut asked_count = 0;
    let end = line.now + Duration::from_secs(3_600);
    while line.now < end {
        line.pass(500);
        asked_count += line.transmit().len();
        let (_, answers) = line.hear(&Frame::Ack { arrived: line.all_arrived(), urgent: false, limit: WINDOW });
        assert_eq!(answers, []);
    }
    assert!((1_000..=3_600_000 / LINK_CREDIT_MS as usize).contains(&asked_count), "{asked_count} frames in an hour");
    line.recover();
}

#[test]
fn a_flood_of_hellos_is_answered_once_whenever_the_line_is_free() {
    let mut line = HostileLine::open();
    let mut random = SeededRandom::new(2);
    for round in 0..3_000_u32 {
        let [id, echo, ..] = random.next_u64().to_le_bytes();
        let boot_id = if round % 2 == 0 { u32::from(id % 4) + 1 } else { round + 1 };
        let echo = if echo % 2 == 0 { line.boot_id } else { echo.into() };
        let hello = Hello { ask: true, boot_id, echo, mtu: 20 + u16::from(id), window: 34 + u16::from(id) };
        let octets = line::frame(None, &Frame::Hello(hello).body(DEVICE));
        if round % 5 == 0 {
            line.feed(&octets);
            assert!(line.transmit().len() <= 1);
        } else {
            // The line is not free.
            line.feed(&octets);
        }
    }
    assert!(line.transmit().len() <= 1);
    assert!(line.transmit().is_empty());
    line.pass(HELLO_MS - 1);
    assert!(line.transmit().is_empty());
    line.recover();
}

#[test]
fn acks_of_what_was_never_sent_or_never_arrived_change_nothing_for_others() {
    let mut line = HostileLine::open();
    let mut random = SeededRandom::new(3);
    // Nothing was sent.
    for newest in 0..=u8::MAX {
        let ack = Frame::Ack { arrived: (newest, u16::MAX), urgent: false, limit: WINDOW };
        assert_eq!(line.hear(&ack), (vec![], vec![]));
    }
    // Frames are in flight, and it names whatever it likes.
    let sent = line.gateway.counts().sent;
    for _ in 0..5_000 {
        line.say_something();
        let [newest, low, high, near, ..] = random.next_u64().to_le_bytes();
        let newest = if near % 2 == 0 { newest } else { line.all_arrived().0.wrapping_sub(newest % 20) };
        let limit = line.sent_to.wrapping_add(300);
        let ack = Frame::Ack { arrived: (newest, u16::from_le_bytes([low, high])), urgent: false, limit };
        let (events, _) = line.hear(&ack);
        assert_eq!(events, []);
        line.pass(u64::from(near) / 64);
    }
    assert!(line.gateway.counts().sent - sent > 5_000, "it went on");
    line.recover();
}

#[test]
fn frames_of_an_old_session_are_as_if_they_had_been_lost() {
    let mut line = HostileLine::open();
    let (old_ids, mut old) = (line.ids, vec![]);
    for number in 0..=u8::MAX {
        let payload = vec![2, number, number];
        let offset = u16::from(number) * 3;
        old.push(Frame::Data { urgent: false, number, offset, arrived: Some((number, 0)), limit: Some(!0), payload });
        old.push(Frame::Ack { arrived: (number, u16::MAX), urgent: number % 2 == 0, limit: offset });
    }
    line.begin_session(line.device_id + 1);
    line.say_something();
    line.transmit();
    let counts = line.gateway.counts();
    for frame in &old {
        let octets = frame.emitted(old_ids, DEVICE);
        assert_eq!(line.feed(&octets), []);
        assert_eq!(line.gateway.message(), None);
        assert_eq!(line.transmit(), []);
    }
    let dropped = line.gateway.counts().dropped - counts.dropped;
    assert_eq!((dropped as usize, line.gateway.counts().received), (old.len(), counts.received));
    // A session with the same device id again has other ids all the same.
    line.begin_session(line.device_id - 1);
    assert_ne!(line.ids, old_ids);
    assert_eq!(line.feed(&old[0].emitted(old_ids, DEVICE)), []);
    line.recover();
}

#[test]
fn probes_without_end_are_answered_one_by_one_and_keep_nobody_else_waiting() {
    let mut line = HostileLine::open();
    for round in 0..3_000_u32 {
        let token = round as u8;
        let frame = Frame::Probe { answer: false, token, padding: vec![token; round as usize % 100] };
        let (events, answers) = line.hear(&frame);
        assert_eq!(events, []);
        let Frame::Probe { padding, .. } = frame else { unreachable!("it is one") };
        assert_eq!(answers, [Frame::Probe { answer: true, token, padding }]);
        // Answers that nobody asked for are told, and that is all.
        let (events, answers) = line.hear(&Frame::Probe { answer: true, token, padding: vec![] });
        assert_eq!((events, answers), (vec![Event::ProbeAnswered(token)], vec![]));
    }
    for token in 0..=u8::MAX {
        let octets = Frame::Probe { answer: false, token, padding: vec![1; 50] }.emitted(line.ids, DEVICE);
        assert_eq!(line.feed(&octets), []);
    }
    line.say_something();
    let answers = line.transmit();
    assert_eq!(answers.iter().filter(|frame| matches!(frame, Frame::Probe { answer: true, .. })).count(), 1);
    assert!(answers.iter().any(|frame| matches!(frame, Frame::Data { .. })));
    line.recover();
}

#[test]
fn a_length_that_can_never_be_ends_the_session_and_no_more() {
    let window = GATEWAY_LINK_RX_BYTES as u16;
    let largest = window - 2;
    let too_large = [largest + 1, 4_096, 4_097, 0x3fff].map(|length| vec![length as u8 | 0x80, (length >> 7) as u8]);
    let too_long = [vec![0x80, 0x80], vec![0xff, 0xff, 0x7f], vec![0x81, 0x80, 0]];
    for impossible in too_large.into_iter().chain(too_long) {
        for bytes_max in [1, 3] {
            let mut line = HostileLine::open();
            // Behind a message that is none of its business.
            let stream = [&[2, 7, 7][..], &impossible, &[1; 20]].concat();
            let mut events = vec![];
            for (at, octets) in stream.chunks(bytes_max).enumerate() {
                let offset = (at * bytes_max) as u16;
                let payload = octets.to_vec();
                let data = Frame::Data { urgent: false, number: at as u8, offset, arrived: None, limit: None, payload };
                events.extend(line.hear(&data).0);
                while let Some((stream, message)) = line.gateway.message() {
                    assert_eq!(message, [7, 7]);
                    line.gateway.release(stream);
                }
            }
            assert_eq!(events, [Event::Message, Event::Broken]);
            assert_eq!(line.gateway.message_bytes_max(), None);
            line.recover();
        }
    }
    let mut line = HostileLine::open();
    let stream = [&[largest as u8 | 0x80, (largest >> 7) as u8][..], &vec![9; largest.into()]].concat();
    for (at, octets) in stream.chunks(100).enumerate() {
        let (offset, payload) = (at as u16 * 100, octets.to_vec());
        line.hear(&Frame::Data { urgent: false, number: at as u8, offset, arrived: None, limit: None, payload });
    }
    assert_eq!(line.gateway.message().map(|(_, message)| message.len()), Some(largest.into()), "the largest there is");
}

#[test]
fn gaps_for_ever_take_no_more_than_the_window_and_one_ack_each() {
    let mut line = HostileLine::open();
    let mut random = SeededRandom::new(4);
    let mut number = 0_u8;
    for _ in 0..5_000 {
        let [low, high, bytes, fill, skip, ..] = random.next_u64().to_le_bytes();
        // Everything but the first octet, with other octets each time, and numbers with gaps.
        let offset = u16::from_le_bytes([low, high % 2]).max(1);
        number = number.wrapping_add(1 + skip % 5);
        let payload = vec![fill; usize::from(bytes % 90)];
        let data = Frame::Data { urgent: skip % 7 == 0, number, offset, arrived: None, limit: None, payload };
        let (events, answers) = line.hear(&data);
        assert_eq!((events, line.gateway.message()), (vec![], None));
        assert!(answers.len() <= 1, "{answers:?}");
        for answer in answers {
            let Frame::Ack { urgent, limit, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(limit, if urgent { 0 } else { GATEWAY_LINK_RX_BYTES as u16 }, "it never rises");
        }
    }
    // The gap is filled at last: what comes out is one message after the other, or the end of the session.
    let first = Frame::Data { urgent: false, number, offset: 0, arrived: None, limit: None, payload: vec![1] };
    let (events, _) = line.hear(&first);
    assert!(events.iter().all(|event| matches!(event, Event::Message | Event::Broken)));
    line.recover();
}

#[test]
fn a_device_that_takes_nothing_for_ever_holds_no_more_than_its_messages() {
    let mut line = HostileLine::open();
    for _ in 0..2_000 {
        line.say_something();
        line.pass(10);
        line.transmit();
    }
    assert!(RESERVED.get() <= GATEWAY_LINK_TX_BYTES + GATEWAY_LINK_URGENT_BYTES);
    line.pass(RECOVERY_MS);
    line.recover();
}

thread_local! {
    /// Octets that all buffers of this test hold now.
    static RESERVED: Cell<usize> = const { Cell::new(0) };
}

/// At most `N` octets, which are counted.
#[derive(Default)]
struct Counted<const N: usize>(Vec<u8>);

impl<const N: usize> Storage for Counted<N> {
    const BYTES_MAX: usize = N;

    fn reserve(&mut self, bytes: usize) {
        assert!(bytes <= N);
        if bytes > self.0.len() {
            RESERVED.set(RESERVED.get() + bytes - self.0.len());
            self.0.resize(bytes, 0);
        }
    }

    fn release(&mut self) {
        RESERVED.set(RESERVED.get() - self.0.len());
        self.0 = Vec::new();
    }

    fn octets(&self) -> &[u8] {
        &self.0
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What a gateway has, counted.
struct GatewayMemory;

impl Memory for GatewayMemory {
    type Send = Counted<GATEWAY_LINK_TX_BYTES>;
    type SendUrgent = Counted<GATEWAY_LINK_URGENT_BYTES>;
    type Receive = Fixed<GATEWAY_LINK_RX_BYTES>;
    type ReceiveUrgent = Fixed<0>;
    type Frame = Deframer<MTU>;
}

/// The end of a gateway, and whoever is at the other end of its line.
struct HostileLine {
    gateway: Box<Link<GatewayMemory>>,
    now: Instant,
    /// The gateway's, in the HELLO that it sent last.
    boot_id: u32,
    device_id: u32,
    ids: Ids,
    /// The number of the frame that the gateway sent last, and the end of the ordered stream.
    number: u8,
    sent_to: u16,
}

impl HostileLine {
    fn open() -> Self {
        let now = Instant::from_millis(1);
        let gateway = Box::new(Link::new(Config { role: Role::Gateway, boot_id: 100, mtu: MTU }, now));
        let (boot_id, device_id, ids) = (100, 0, (0, 0));
        let mut line = Self { gateway, now, boot_id, device_id, ids, number: u8::MAX, sent_to: 0 };
        line.begin_session(1_000);
        line
    }

    fn begin_session(&mut self, device_id: u32) {
        let hello = |boot_id, echo| {
            let hello = Hello { ask: true, boot_id, echo, mtu: MTU as u16, window: WINDOW };
            line::frame(None, &Frame::Hello(hello).body(DEVICE))
        };
        self.feed(&hello(device_id, 0));
        self.transmit();
        let events = self.feed(&hello(device_id, self.boot_id));
        assert!(matches!(events[..], [Event::Opened { .. }]), "{events:?}");
        self.gateway.set_urgent_window(URGENT_WINDOW);
        (self.device_id, self.ids) = (device_id, (self.boot_id, device_id));
        self.transmit();
        (self.number, self.sent_to) = (u8::MAX, 0);
    }

    fn say_something(&mut self) {
        while self.gateway.send(&[5; 150]).is_ok() {}
        while self.gateway.send_urgent(&[6; 50], URGENT_WINDOW).is_ok() {}
    }

    fn hear(&mut self, frame: &Frame) -> (Vec<Event>, Vec<Frame>) {
        let events = self.feed(&frame.emitted(self.ids, DEVICE));
        (events, self.transmit())
    }

    fn feed(&mut self, mut octets: &[u8]) -> Vec<Event> {
        let mut events = vec![];
        while !octets.is_empty() {
            let (taken, event) = self.gateway.feed(octets, self.now);
            octets = &octets[taken..];
            events.extend(event);
        }
        events
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.gateway.handle_timeout(self.now);
    }

    /// Takes everything that is due.
    fn transmit(&mut self) -> Vec<Frame> {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let mut frames = vec![];
        while let Some(bytes) = self.gateway.poll_transmit(self.now, &mut out) {
            let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
            let frame = Frame::parsed(&octets, false, Some(self.ids)).or_else(|| Frame::parsed(&octets, false, None));
            match frame.as_ref() {
                Some(Frame::Hello(hello)) => self.boot_id = hello.boot_id,
                Some(&Frame::Data { number, urgent, offset, ref payload, .. }) => {
                    self.number = number;
                    let end = offset.wrapping_add(payload.len() as u16);
                    if !urgent && end.wrapping_sub(self.sent_to) < 1 << 15 {
                        self.sent_to = end;
                    }
                }
                _ => {}
            }
            frames.extend(frame);
            assert!(frames.len() <= ANSWER_COUNT_MAX, "output without end");
        }
        frames
    }

    /// An ack of everything that was sent.
    fn all_arrived(&self) -> line::Arrived {
        (self.number, u16::MAX)
    }

    /// An honest device takes the place of the other: both sides hear all that is said, and nothing is left.
    fn recover(mut self) {
        let config = Config { role: Role::Device, boot_id: 7_777_777, mtu: MTU };
        let mut device = Box::new(Link::<DeviceMemory<MTU, 512, 200, 256>>::new(config, self.now));
        let (mut said, mut heard) = ([0_u8; 2], [0_u8; 2]);
        let end = self.now + Duration::from_millis(RECOVERY_MS);
        let mut open = [false; 2];
        self.feed(&[0]);
        while self.now < end {
            let mut out = [0; LINK_MTU_BYTES_MAX];
            let mut is_quiet = false;
            while !is_quiet {
                let counts = (device.counts(), self.gateway.counts(), said);
                if let Some(bytes) = device.poll_transmit(self.now, &mut out) {
                    open[0] |= self.feed(&out[..bytes]).iter().any(|event| matches!(event, Event::Opened { .. }));
                }
                if let Some(bytes) = self.gateway.poll_transmit(self.now, &mut out) {
                    let (taken, event) = device.feed(&out[..bytes], self.now);
                    assert_eq!(taken, bytes);
                    open[1] |= matches!(event, Some(Event::Opened { .. }));
                }
                while let Some((stream, message)) = self.gateway.message() {
                    if open[0] {
                        assert_eq!((stream, message), (Stream::Ordered, &[heard[0]; 60][..]));
                        heard[0] += 1;
                    }
                    self.gateway.release(stream);
                }
                while let Some((stream, message)) = device.message() {
                    assert_eq!((stream, message), (Stream::Ordered, &[heard[1]; 300][..]));
                    heard[1] += 1;
                    device.release(stream);
                }
                if open == [true; 2] {
                    said[0] += u8::from(said[0] < 100 && device.send(&[said[0]; 60]).is_ok());
                    said[1] += u8::from(said[1] < 100 && self.gateway.send(&[said[1]; 300]).is_ok());
                }
                is_quiet = counts == (device.counts(), self.gateway.counts(), said);
            }
            device.handle_timeout(self.now);
            self.pass(10);
        }
        assert_eq!((open, said, heard), ([true; 2], [100; 2], [100; 2]));
        assert!(self.gateway.is_idle() && device.is_idle());
        assert_eq!((self.gateway.poll_timeout(), device.poll_timeout()), (None, None), "the line is quiet");
        assert_eq!(RESERVED.get(), 0);
    }
}
