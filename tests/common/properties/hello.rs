//! The handshake against the state diagram of the link protocol.

use fieldgate::limits::{HELLO_MS, LINK_MTU_BYTES_MAX};
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::{Duration, Instant};

use super::input::Input;
use super::line::{self, Frame, Hello};
use super::memory::{RX, Small, TX};

/// Whatever HELLOs and PROBEs come, and whenever: the link says and sends what the specification says, and never opens a
/// session between the same two boot ids twice.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let role = if input.flag() { Role::Gateway } else { Role::Device };
    let boot_id = input.u32();
    let mtu = input.u16();
    let config = Config { role, boot_id, mtu: mtu.into() };
    let mut link = Box::new(Link::<Small>::new(config, Instant::ZERO));
    let mut side = Side::new(role, boot_id, mtu.clamp(20, LINK_MTU_BYTES_MAX as u16));
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 10 {
            0..4 => hear_hello(&mut link, &mut side, &mut input),
            4 => hear_other(&mut link, &mut side, &mut input),
            5 => {
                side.now = side.now + Duration::from_millis(input.u16().into());
                assert_eq!(link.handle_timeout(side.now), None);
                side.time_passed();
            }
            6 => hear_probe(&mut link, &mut side, &mut input),
            7 => {
                let token = input.byte();
                link.probe(token);
                side.question = Some(token);
            }
            _ => check_transmit(&mut link, &mut side),
        }
        assert_eq!(link.poll_timeout(), side.open.is_none().then_some(side.ask_at));
        assert_eq!(link.message_bytes_max(), side.open.map(message_bytes_max));
    }
    for _ in 0..4 {
        check_transmit(&mut link, &mut side);
    }
    assert_eq!((side.is_owed, side.answer, side.question), (false, None, None));
}

fn hear_hello(link: &mut Link<Small>, side: &mut Side, input: &mut Input<'_>) {
    let [flags, ids] = input.array();
    let boot_id = if ids & 1 == 0 { u32::from(ids >> 4) } else { input.u32() };
    let echo = match ids >> 1 & 3 {
        0 | 1 => side.boot_id,
        2 => 0,
        _ => input.u32(),
    };
    let hello = Hello { ask: flags & 1 == 1, boot_id, echo, mtu: input.u16(), window: input.u16() };
    let octets = line::frame(None, &Frame::Hello(hello).body(flags & 0x0e));
    let is_taken = (flags & line::DEVICE != 0) == (side.role == Role::Gateway)
        && boot_id != 0
        && hello.mtu >= 20
        && hello.window >= line::window_min(side.role)
        && octets.len() <= usize::from(side.mtu);
    side.octets_came();
    let expected = if is_taken { side.hear(hello) } else { None };
    assert_eq!(link.feed(&octets, side.now), (octets.len(), expected));
}

/// A HELLO of another version is told and changes nothing; frames of a session that cannot be change nothing at all.
fn hear_other(link: &mut Link<Small>, side: &mut Side, input: &mut Input<'_>) {
    let flag = side.peer_flag();
    let version = input.byte();
    side.octets_came();
    let octets = line::frame(None, &[0x10 | flag, version, input.byte()]);
    let expected = (version != 1).then_some(Event::VersionRefused(version));
    assert_eq!(link.feed(&octets, side.now), (octets.len(), expected));
    let ack = Frame::Ack { arrived: (0, u16::MAX), urgent: false, limit: 5 };
    let data =
        Frame::Data { urgent: false, number: 0, offset: 0, arrived: None, limit: None, payload: vec![1, input.byte()] };
    for frame in [ack, data] {
        let octets = frame.emitted((0, 0), flag);
        assert_eq!(link.feed(&octets, side.now), (octets.len(), None));
        assert_eq!(link.message(), None);
    }
}

/// A PROBE in any state, in either role: only one of the peer counts.
fn hear_probe(link: &mut Link<Small>, side: &mut Side, input: &mut Input<'_>) {
    let [flags, token, bytes] = input.array();
    let padding = vec![token ^ bytes; usize::from(bytes) * 4];
    let frame = Frame::Probe { answer: flags & 1 == 1, token, padding };
    let octets = line::frame(None, &frame.body(flags & 0x0e));
    let is_taken = (flags & line::DEVICE != 0) == (side.role == Role::Gateway) && octets.len() <= usize::from(side.mtu);
    side.octets_came();
    let mut expected = None;
    if is_taken {
        match frame {
            Frame::Probe { answer: true, .. } => expected = Some(Event::ProbeAnswered(token)),
            Frame::Probe { padding, .. } => side.answer = Some((token, padding)),
            _ => unreachable!("it is one"),
        }
    }
    assert_eq!(link.feed(&octets, side.now), (octets.len(), expected));
}

fn check_transmit(link: &mut Link<Small>, side: &mut Side) {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let written = link.poll_transmit(side.now, &mut out);
    let Some(expected) = side.poll() else {
        assert_eq!(written, None);
        return;
    };
    let bytes = written.expect("a frame is due");
    assert!(bytes <= usize::from(side.mtu));
    let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
    assert_eq!(Frame::parsed(&octets, side.role == Role::Device, None), Some(expected));
}

/// What this side may send to the one that said this.
fn message_bytes_max(peer: Hello) -> usize {
    (usize::from(peer.window) - 2).min(4096).min(TX - 2)
}

/// One side as sections 3 and 4 of the specification describe it.
struct Side {
    role: Role,
    boot_id: u32,
    mtu: u16,
    peer: Option<Hello>,
    open: Option<Hello>,
    is_owed: bool,
    /// The token and the padding that are sent back.
    answer: Option<(u8, Vec<u8>)>,
    question: Option<u8>,
    ask_at: Instant,
    now: Instant,
    /// The boot ids of all sessions, this side's first.
    sessions: Vec<(u32, u32)>,
}

impl Side {
    fn new(role: Role, boot_id: u32, mtu: u16) -> Self {
        Self {
            role,
            boot_id: boot_id.max(1),
            mtu,
            peer: None,
            open: None,
            is_owed: true,
            answer: None,
            question: None,
            ask_at: Instant::ZERO,
            now: Instant::ZERO,
            sessions: Vec::new(),
        }
    }

    fn peer_flag(&self) -> u8 {
        if self.role == Role::Gateway { line::DEVICE } else { 0 }
    }

    /// A link that keeps the last frame alone has forgotten what was to be sent back: as if the answer had been lost.
    fn octets_came(&mut self) {
        self.answer = None;
    }

    fn hear(&mut self, hello: Hello) -> Option<Event> {
        self.is_owed |= hello.ask;
        let has_left = self.open.is_some_and(|peer| peer.boot_id != hello.boot_id);
        if has_left {
            (self.open, self.peer) = (None, None);
            self.boot_id = self.boot_id.checked_add(1).unwrap_or(1);
            self.ask_at = self.now;
            self.is_owed = true;
        }
        if self.open.is_none() {
            self.peer = Some(hello);
            if hello.echo == self.boot_id {
                return Some(self.opened(hello));
            }
        }
        has_left.then_some(Event::Restarted)
    }

    fn opened(&mut self, hello: Hello) -> Event {
        self.open = Some(hello);
        let ids = (self.boot_id, hello.boot_id);
        assert!(!self.sessions.contains(&ids), "the CRC would not tell this session from an earlier one");
        self.sessions.push(ids);
        Event::Opened {
            boot_id: hello.boot_id,
            mtu: self.mtu.min(hello.mtu).into(),
            message_bytes_max: message_bytes_max(hello),
        }
    }

    fn time_passed(&mut self) {
        if self.open.is_none() && self.ask_at <= self.now {
            self.is_owed = true;
            self.ask_at = self.now + Duration::from_millis(HELLO_MS);
        }
    }

    /// The HELLO goes first, then the answer.
    fn poll(&mut self) -> Option<Frame> {
        if std::mem::take(&mut self.is_owed) {
            self.ask_at = self.now + Duration::from_millis(HELLO_MS);
            return Some(Frame::Hello(Hello {
                ask: self.open.is_none(),
                boot_id: self.boot_id,
                echo: self.peer.map_or(0, |peer| peer.boot_id),
                mtu: self.mtu,
                window: RX as u16,
            }));
        }
        if let Some((token, padding)) = self.answer.take() {
            return Some(Frame::Probe { answer: true, token, padding });
        }
        let token = self.question.take()?;
        Some(Frame::Probe { answer: false, token, padding: vec![] })
    }
}
