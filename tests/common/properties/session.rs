//! Two links on a line that loses, doubles, damages and echoes frames, while both sides start anew now and then.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::{Duration, Instant};

use super::input::Input;

const TX: usize = 300;
const RX: usize = 100;
/// How long two sides may take until all is well, once the line is: the longest retransmission timer, the longest
/// silence, and a handshake.
const RECOVERY_MS: u64 = 60_000;

/// Messages of a session arrive whole, in order and once, whatever the line does; and all of them do when it is well.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mtus = [20 + input.below(300), 20 + input.below(300)];
    let mut line =
        Line { ends: [End::new(Role::Gateway, mtus[0]), End::new(Role::Device, mtus[1])], now: Instant::ZERO };
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        let from = usize::from(what & 1);
        match what >> 1 & 7 {
            0 => line.ends[from].say(input.byte()),
            1 => line.pass(u64::from(input.u16()) / 8),
            2 if what > 0xe0 => line.ends[from].restart(line.now),
            _ => {
                line.carry(from, input.byte());
            }
        }
    }
    line.recover();
}

struct Line {
    ends: [End; 2],
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
            0..160 => self.ends[to].feed(octets, self.now),
            160..200 => {}
            200..220 => {
                self.ends[to].feed(octets, self.now);
                self.ends[to].feed(octets, self.now);
            }
            220..240 => self.ends[from].feed(octets, self.now),
            _ => {
                let bit = usize::from(fate) * 31 % (octets.len() * 8);
                octets[bit / 8] ^= 1 << (bit % 8);
                self.ends[to].feed(octets, self.now);
                self.ends[to].feed(&[0], self.now);
            }
        }
        true
    }

    fn recover(&mut self) {
        let deadline = self.now + Duration::from_millis(RECOVERY_MS);
        while self.now < deadline {
            for end in &mut self.ends {
                end.feed(&[0], self.now);
            }
            let mut frame_count = 0;
            while self.carry(0, 0) | self.carry(1, 0) {
                frame_count += 1;
                assert!(frame_count < 1_000, "the two never stop talking");
            }
            self.pass(100);
        }
        let [gateway, device] = &self.ends;
        for (end, other) in [(gateway, device), (device, gateway)] {
            assert!(end.link.message_bytes_max().is_some(), "no session");
            assert!(end.link.is_idle(), "messages are left");
            assert_eq!(other.heard_count, end.said_count, "messages are lost");
            assert!(other.heard_count == 0 || other.heard_session == Some(end.session));
        }
    }
}

/// One side, which writes into each message of which of its sessions it is, and which of them.
struct End {
    link: Box<Link<TX, RX>>,
    role: Role,
    mtu: usize,
    boot_id: u32,
    /// How often a session began here.
    session: u8,
    said_count: u8,
    heard_session: Option<u8>,
    heard_count: u8,
}

impl End {
    fn new(role: Role, mtu: usize) -> Self {
        let boot_id = if role == Role::Gateway { 1_000 } else { 1 };
        let link = Box::new(Link::new(Config { role, boot_id, mtu }, Instant::ZERO));
        Self { link, role, mtu, boot_id, session: 0, said_count: 0, heard_session: None, heard_count: 0 }
    }

    fn restart(&mut self, now: Instant) {
        // A side leaves at most one session for each frame it takes, and takes fewer frames than this.
        self.boot_id += 1_000_000;
        *self.link = Link::new(Config { role: self.role, boot_id: self.boot_id, mtu: self.mtu }, now);
        self.begin();
    }

    fn begin(&mut self) {
        self.session = self.session.wrapping_add(1);
        (self.said_count, self.heard_session, self.heard_count) = (0, None, 0);
    }

    fn say(&mut self, bytes: u8) {
        let length = usize::from(bytes) % (RX + 1);
        let mut message = vec![bytes; length.max(2)];
        message[..2].copy_from_slice(&[self.session, self.said_count]);
        if self.said_count < u8::MAX && self.link.send(&message).is_ok() {
            self.said_count += 1;
        }
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
            Some(Event::Opened { .. } | Event::Restarted | Event::Silent) => self.begin(),
            Some(Event::VersionRefused(version)) => panic!("there is no version {version}"),
            Some(Event::Message) => self.hear(),
        }
    }

    fn hear(&mut self) {
        let &[session, number, ref rest @ ..] = self.link.message() else { panic!("octets are missing") };
        assert_eq!(*self.heard_session.get_or_insert(session), session, "of another session");
        assert_eq!(number, self.heard_count, "lost, doubled or out of order");
        assert!(rest.windows(2).all(|pair| pair[0] == pair[1]), "parts of several messages");
        self.heard_count += 1;
    }
}
