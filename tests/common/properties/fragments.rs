//! One end of a link in an open session with a peer that says anything at any time.

use fieldgate::limits::{LINK_MTU_BYTES_MAX, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES};
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::{Duration, Instant};
use fieldgate::wire::frame::{Frame, SessionSeed, payload_bytes_max};

use super::input::Input;
use super::line::{self, Ids};

const TX: usize = 300;
const RX: usize = 100;
const PEER_ID: u32 = 0x0102_0304;

/// Messages are put together and cut, numbered, repeated and acknowledged as the specification says; no message is
/// larger than `RX`; and what was sent arrives once the peer behaves.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rig = Rig::open(&mut input);
    for _ in 0..400 {
        if input.is_empty() || rig.is_over {
            break;
        }
        match input.byte() % 10 {
            0..4 => rig.hear_data(&mut input),
            4 => rig.hear_ack(&mut input),
            5 => rig.wait(&mut input),
            6 => rig.say(&mut input),
            7 => rig.hear_noise(&mut input),
            _ => rig.transmit(),
        }
        rig.check();
    }
    rig.finish();
}

struct Rig {
    link: Box<Link<TX, RX>>,
    role: Role,
    ids: Ids,
    /// Octets of the largest frame that this side accepts, and of this session.
    mtu: usize,
    session_mtu: usize,
    now: Instant,
    received: Received,
    sent: Sent,
    is_over: bool,
}

impl Rig {
    fn open(input: &mut Input<'_>) -> Self {
        let role = if input.flag() { Role::Gateway } else { Role::Device };
        let mtu = 20 + input.below(1100);
        let (peer_mtu, peer_message_max) = (20 + input.u16() % 1100, 34 + input.u16() % 400);
        let config = Config { role, boot_id: 7, mtu };
        let mut link = Box::new(Link::new(config, Instant::ZERO));
        let flag = if role == Role::Gateway { line::DEVICE } else { 0 };
        let hello = line::frame(None, &line::hello(flag, PEER_ID, 7, peer_mtu, peer_message_max));
        let (_, event) = link.feed(&hello, Instant::ZERO);
        let Some(Event::Opened { boot_id: PEER_ID, mtu: session_mtu, .. }) = event else { panic!("{event:?}") };
        Self {
            link,
            role,
            ids: if role == Role::Gateway { (7, PEER_ID) } else { (PEER_ID, 7) },
            mtu: mtu.min(LINK_MTU_BYTES_MAX),
            session_mtu,
            now: Instant::ZERO,
            received: Received::default(),
            sent: Sent::default(),
            is_over: false,
        }
    }

    fn flag(&self) -> u8 {
        if self.role == Role::Gateway { line::DEVICE } else { 0 }
    }

    /// A DATA frame: mostly the expected one.
    fn hear_data(&mut self, input: &mut Input<'_>) {
        let [flags, ahead, bytes] = input.array();
        let ahead = if ahead < 128 { 0 } else { ahead << 1 };
        let seq = self.received.expected.wrapping_add(ahead);
        let ack = self.ack(input);
        let payload = input.octets(usize::from(bytes) % 130);
        let (first, last) = (flags & 1 == 1, flags & 2 == 2);
        let body = [&[0x20 | self.flag() | flags & 3, seq, ack], payload].concat();
        let octets = line::frame(Some(self.ids), &body);
        let expected = if octets.len() <= self.mtu {
            self.sent.acknowledged(ack, false);
            self.received.take(seq, first, last, payload)
        } else {
            None
        };
        let event = self.feed(&octets);
        assert_eq!(event, expected.as_ref().map(|_| Event::Message));
        if let Some(message) = expected {
            assert!(message.len() <= RX);
            assert_eq!(self.link.message(), message);
        }
    }

    fn hear_ack(&mut self, input: &mut Input<'_>) {
        let gap = input.flag();
        let ack = self.ack(input);
        let octets = line::frame(Some(self.ids), &[0x30 | self.flag() | u8::from(gap), ack]);
        self.sent.acknowledged(ack, gap);
        assert_eq!(self.feed(&octets), None);
    }

    /// A number that a peer may have, or not.
    fn ack(&self, input: &mut Input<'_>) -> u8 {
        match input.byte() {
            0..100 => self.sent.acked as u8,
            100..200 => self.sent.fragments.len() as u8,
            delta => (self.sent.acked as u8).wrapping_add(delta),
        }
    }

    fn wait(&mut self, input: &mut Input<'_>) {
        self.now = self.now + Duration::from_millis(u64::from(input.u16()) / 4);
        self.time_passed();
    }

    fn time_passed(&mut self) {
        let has_run_out = self.link.poll_timeout().is_some_and(|deadline| deadline <= self.now);
        match self.link.handle_timeout(self.now) {
            None if has_run_out => self.sent.next = self.sent.acked,
            None => {}
            Some(Event::Silent) => self.is_over = true,
            Some(event) => panic!("{event:?}"),
        }
    }

    fn say(&mut self, input: &mut Input<'_>) {
        let message = input.short();
        let room = self.link.room();
        let message_bytes_max = self.link.message_bytes_max().expect("the session is open");
        let is_taken = self.link.send(message).is_ok();
        let fits = message.len() <= room && message.len() <= message_bytes_max;
        assert!(is_taken == fits || (message.is_empty() && room == 0), "{} octets, room for {room}", message.len());
        if is_taken {
            self.sent.messages.push(message.to_vec());
        }
    }

    /// Octets that are no frame of this session, unless somebody guessed a CRC.
    fn hear_noise(&mut self, input: &mut Input<'_>) {
        let mut octets = input.short();
        while !octets.is_empty() {
            let received_before = self.link.counts().received;
            let (taken, event) = self.link.feed(octets, self.now);
            octets = &octets[taken..];
            self.is_over |= event.is_some() || self.link.counts().received != received_before;
        }
    }

    /// Takes one whole frame, behind a delimiter that ends what was before it.
    fn feed(&mut self, octets: &[u8]) -> Option<Event> {
        let (taken, event) = self.link.feed(&[0], self.now);
        assert_eq!(taken, 1);
        assert_eq!(event, None, "noise that ends here is no frame");
        let (taken, event) = self.link.feed(octets, self.now);
        assert_eq!(taken, octets.len());
        event
    }

    /// Takes everything that is due.
    fn transmit(&mut self) {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let mut frame_count = 0;
        while let Some(bytes) = self.link.poll_transmit(self.now, &mut out) {
            frame_count += 1;
            assert!(frame_count <= usize::from(LINK_WINDOW_FRAMES) + 2, "one burst has an end");
            assert!(bytes <= self.session_mtu);
            let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
            let seed = SessionSeed::new(self.ids.0, self.ids.1);
            let frame = Frame::parse(&octets, self.role, Some(seed)).expect("what is sent is a frame");
            self.check_sent(frame);
        }
        assert_eq!(self.received.reply, None, "an ACK was owed");
    }

    fn check_sent(&mut self, frame: Frame<'_>) {
        if let Frame::Hello(hello) = frame {
            assert!(!hello.ask && hello.echo == PEER_ID, "the one that was owed before the session");
            return;
        }
        let reply = self.received.reply.take();
        let sent_ack = match frame {
            Frame::Data { first, last, seq, ack, payload } => {
                assert_ne!(reply, Some(true), "a gap is told first");
                assert!(payload.len() <= payload_bytes_max(self.session_mtu));
                let window = usize::from(LINK_WINDOW_FRAMES).min(LINK_WINDOW_BYTES / self.session_mtu);
                self.sent.sent(seq, Fragment { first, last, payload: payload.to_vec() }, window);
                ack
            }
            Frame::Ack { gap, ack } => {
                assert_eq!(reply, Some(gap));
                ack
            }
            frame => panic!("{frame:?}"),
        };
        assert_eq!(sent_ack, self.received.expected);
    }

    fn check(&self) {
        if self.is_over {
            return;
        }
        assert!(self.link.message().len() <= RX);
        let is_all_sent = self.sent.completed().len() == self.sent.messages.len();
        assert_eq!(self.link.is_idle(), is_all_sent && self.sent.acked == self.sent.fragments.len());
        assert_eq!(self.link.poll_timeout().is_some(), self.sent.acked < self.sent.fragments.len());
    }

    /// The peer acknowledges all from now on: soon nothing is left to send.
    fn finish(&mut self) {
        for _ in 0..400 {
            if self.is_over || self.link.is_idle() {
                break;
            }
            self.transmit();
            let ack = self.sent.fragments.len() as u8;
            let octets = line::frame(Some(self.ids), &[0x30 | self.flag(), ack]);
            self.sent.acknowledged(ack, false);
            assert_eq!(self.feed(&octets), None);
        }
        assert!(self.is_over || self.link.is_idle());
        let completed = self.sent.completed();
        assert_eq!(completed[..], self.sent.messages[..completed.len()]);
        assert!(self.is_over || completed.len() == self.sent.messages.len());
    }
}

/// What arrived, as section 5 of the specification describes it.
#[derive(Default)]
struct Received {
    expected: u8,
    partial: Option<Vec<u8>>,
    /// Whether an ACK is owed, and with GAP.
    reply: Option<bool>,
}

impl Received {
    fn take(&mut self, seq: u8, first: bool, last: bool, payload: &[u8]) -> Option<Vec<u8>> {
        let ahead = seq.wrapping_sub(self.expected);
        self.reply = Some((1..=127).contains(&ahead));
        if ahead != 0 {
            return None;
        }
        self.expected = self.expected.wrapping_add(1);
        if first {
            self.partial = Some(Vec::new());
        }
        self.partial.as_mut()?.extend(payload);
        self.partial.take_if(|message| message.len() > RX);
        if last { self.partial.take() } else { None }
    }
}

#[derive(Debug, PartialEq)]
struct Fragment {
    first: bool,
    last: bool,
    payload: Vec<u8>,
}

/// What was sent: every fragment by its number, from the first of the session on.
#[derive(Default)]
struct Sent {
    messages: Vec<Vec<u8>>,
    fragments: Vec<Fragment>,
    acked: usize,
    /// The number to be sent next: again, or for the first time.
    next: usize,
    /// Whether a GAP was heeded since something arrived.
    went_back: bool,
}

impl Sent {
    fn sent(&mut self, seq: u8, fragment: Fragment, window: usize) {
        let number = self.next;
        assert_eq!(seq, number as u8, "the lowest that is due is sent first");
        assert!(number < self.acked + window, "{number} is outside the window");
        self.next += 1;
        match self.fragments.get(number) {
            Some(before) => assert_eq!(*before, fragment, "a frame sent again is the same"),
            None => {
                assert_eq!(number, self.fragments.len(), "no number is skipped");
                self.fragments.push(fragment);
            }
        }
    }

    fn acknowledged(&mut self, ack: u8, gap: bool) {
        let count = usize::from(ack.wrapping_sub(self.acked as u8));
        if count > self.fragments.len() - self.acked {
            return;
        }
        self.acked += count;
        self.next = self.next.max(self.acked);
        self.went_back &= count == 0;
        if gap && self.acked < self.fragments.len() && !self.went_back {
            self.next = self.acked;
            self.went_back = true;
        }
    }

    /// The messages that the fragments make.
    fn completed(&self) -> Vec<Vec<u8>> {
        let mut completed = Vec::new();
        let mut message = Vec::new();
        for fragment in &self.fragments {
            assert_eq!(fragment.first, message.is_empty() && (fragment.first || completed.is_empty()));
            message.extend(&fragment.payload);
            if fragment.last {
                completed.push(std::mem::take(&mut message));
            }
        }
        completed
    }
}
