//! Two links on a line that loses, doubles, damages, delays and echoes frames, while both sides start anew now and then,
//! applications are slow, and the device sleeps.

use std::collections::VecDeque;

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::{Config, Event, Link, Role, Stream};
use fieldgate::time::{Duration, Instant};

use super::input::Input;
use super::memory::{RX, Small, URGENT_RX};

/// How long two sides may take until all is well, once the line is: the longest retransmission timer, the longest
/// silence, and a handshake.
const RECOVERY_MS: u64 = 60_000;
/// Frames that a line holds back.
const HELD_COUNT_MAX: usize = 8;

/// The first message of a device in a session: there is an urgent stream from now on.
const ATTACH: u8 = 0;
const SLEEP: u8 = 1;
const SAY: u8 = 2;

/// Messages of a session arrive whole, in order and once, whatever the line does; and all of them do when it is well,
/// after which nothing is said.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mtus = [20 + input.below(300), 20 + input.below(300)];
    let mut line = Line {
        ends: [End::new(Role::Gateway, mtus[0]), End::new(Role::Device, mtus[1])],
        held: Default::default(),
        now: Instant::ZERO,
    };
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        let from = usize::from(what & 1);
        match what >> 1 & 15 {
            0 | 1 => line.ends[from].say(Stream::Ordered, SAY, input.byte()),
            2 => line.ends[0].say(Stream::Urgent, SAY, input.byte()),
            3 => line.pass(u64::from(input.u16()) / 8),
            4 if what > 0xe0 => line.ends[from].restart(line.now),
            5 => line.ends[from].is_slow ^= true,
            6 if what > 0xa0 => line.ends[1].say(Stream::Ordered, SLEEP, 0),
            7 => line.release(from),
            _ => {
                line.carry(from, input.byte());
            }
        }
    }
    line.recover();
}

struct Line {
    ends: [End; 2],
    /// Frames on their way to each end, overtaken by others.
    held: [VecDeque<Vec<u8>>; 2],
    now: Instant,
}

impl Line {
    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        for end in &mut self.ends {
            let event = end.link.handle_timeout(self.now);
            end.take(event);
        }
    }

    /// Takes one frame from an end and does with it what a line does.
    fn carry(&mut self, from: usize, fate: u8) -> bool {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let Some(bytes) = self.ends[from].link.poll_transmit(self.now, &mut out) else { return false };
        let octets = &mut out[..bytes];
        let to = 1 - from;
        match fate {
            0..150 => self.ends[to].feed(octets, self.now),
            150..190 => {}
            190..210 => {
                self.ends[to].feed(octets, self.now);
                self.ends[to].feed(octets, self.now);
            }
            210..225 => self.ends[from].feed(octets, self.now),
            225..240 if self.held[to].len() < HELD_COUNT_MAX => self.held[to].push_back(octets.to_vec()),
            _ => {
                let bit = usize::from(fate) * 31 % (octets.len() * 8);
                octets[bit / 8] ^= 1 << (bit % 8);
                self.ends[to].feed(octets, self.now);
                self.ends[to].feed(&[0], self.now);
            }
        }
        true
    }

    /// What was held back arrives late.
    fn release(&mut self, to: usize) {
        for octets in std::mem::take(&mut self.held[to]) {
            self.ends[to].feed(&octets, self.now);
        }
    }

    fn recover(&mut self) {
        for to in [0, 1] {
            self.ends[to].is_slow = false;
            self.ends[to].hear();
            self.release(to);
        }
        self.run(RECOVERY_MS);
        let [gateway, device] = &self.ends;
        for (end, other) in [(gateway, device), (device, gateway)] {
            assert!(end.link.message_bytes_max().is_some(), "no session");
            assert!(end.link.is_idle(), "messages are left");
            assert_eq!(other.heard_counts, end.said_counts, "messages are lost");
            assert!(other.heard_counts == [0; 2] || other.heard_session == Some(end.session));
        }
        let sent = self.sent_counts();
        self.run(RECOVERY_MS);
        assert_eq!(self.sent_counts(), sent, "nothing is left to say");
    }

    fn run(&mut self, ms: u64) {
        let deadline = self.now + Duration::from_millis(ms);
        while self.now < deadline {
            for end in &mut self.ends {
                end.feed(&[0], self.now);
            }
            if self.ends[0].link.is_asleep() {
                self.ends[1].say(Stream::Ordered, SAY, 0);
            }
            let mut frame_count = 0;
            while self.carry(0, 0) | self.carry(1, 0) {
                frame_count += 1;
                assert!(frame_count < 1_000, "the two never stop talking");
            }
            self.pass(100);
        }
    }

    fn sent_counts(&self) -> [u32; 2] {
        [0, 1].map(|end: usize| self.ends[end].link.counts().sent)
    }
}

/// One side, which writes into each message of which of its sessions it is, and which of them in its stream.
struct End {
    link: Box<Link<Small>>,
    role: Role,
    mtu: usize,
    boot_id: u32,
    /// How often a session began here.
    session: u8,
    has_urgent_stream: bool,
    /// Whether the application takes nothing.
    is_slow: bool,
    /// Of the ordered stream and of the urgent one.
    said_counts: [u8; 2],
    heard_counts: [u8; 2],
    heard_session: Option<u8>,
}

impl End {
    fn new(role: Role, mtu: usize) -> Self {
        let boot_id = if role == Role::Gateway { 1_000 } else { 1 };
        Self {
            link: Box::new(Link::new(Config { role, boot_id, mtu }, Instant::ZERO)),
            role,
            mtu,
            boot_id,
            session: 0,
            has_urgent_stream: false,
            is_slow: false,
            said_counts: [0; 2],
            heard_counts: [0; 2],
            heard_session: None,
        }
    }

    fn restart(&mut self, now: Instant) {
        // A side leaves at most one session for each frame it takes, and takes fewer frames than this.
        self.boot_id += 1_000_000;
        *self.link = Link::new(Config { role: self.role, boot_id: self.boot_id, mtu: self.mtu }, now);
        self.begin();
    }

    fn begin(&mut self) {
        self.session = self.session.wrapping_add(1);
        (self.said_counts, self.heard_counts, self.heard_session) = ([0; 2], [0; 2], None);
        self.has_urgent_stream = false;
    }

    fn say(&mut self, stream: Stream, kind: u8, bytes: u8) {
        let (index, window) = if stream == Stream::Urgent { (1, URGENT_RX) } else { (0, RX) };
        let mut message = vec![bytes; (usize::from(bytes) % (window - 1)).max(3)];
        message[..3].copy_from_slice(&[kind, self.session, self.said_counts[index]]);
        if self.said_counts[index] == u8::MAX || (stream == Stream::Urgent && !self.has_urgent_stream) {
            return;
        }
        let sent = match stream {
            Stream::Ordered => self.link.send(&message),
            Stream::Urgent => self.link.send_urgent(&message, URGENT_RX as u16),
        };
        self.said_counts[index] += u8::from(sent.is_ok());
    }

    fn feed(&mut self, mut octets: &[u8], now: Instant) {
        while !octets.is_empty() {
            let (taken, event) = self.link.feed(octets, now);
            octets = &octets[taken..];
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<Event>) {
        match event {
            None => {}
            Some(Event::Opened { .. }) => {
                self.begin();
                if self.role == Role::Device {
                    self.say(Stream::Ordered, ATTACH, 0);
                }
            }
            Some(Event::Restarted | Event::Silent) => self.begin(),
            Some(Event::Message) if self.is_slow => {}
            Some(Event::Message) => self.hear(),
            Some(event) => panic!("nobody gave a reason for {event:?}"),
        }
    }

    fn hear(&mut self) {
        while let Some((stream, message)) = self.link.message() {
            let &[kind, session, number, ref rest @ ..] = message else { panic!("octets are missing") };
            let heard_count = &mut self.heard_counts[usize::from(stream == Stream::Urgent)];
            assert_eq!(*self.heard_session.get_or_insert(session), session, "of another session");
            assert_eq!(number, *heard_count, "lost, doubled or out of order");
            assert!(rest.windows(2).all(|pair| pair[0] == pair[1]), "parts of several messages");
            *heard_count += 1;
            self.link.release(stream);
            match kind {
                ATTACH => {
                    self.link.set_urgent_window(URGENT_RX as u16);
                    self.has_urgent_stream = true;
                }
                SLEEP => self.link.sleep(),
                _ => {}
            }
        }
    }
}
