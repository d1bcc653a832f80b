//! The handshake against the state diagram of the link protocol.

use fieldgate::limits::{HELLO_MS, LINK_MESSAGE_BYTES_MAX, LINK_MTU_BYTES_MAX};
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::{Duration, Instant};
use fieldgate::wire::frame::{Frame, Hello};

use super::input::Input;
use super::line;

const TX: usize = 300;
const RX: usize = 100;

/// Whatever HELLOs come, and whenever: the link says and sends what the specification says, and never opens a session
/// between the same two boot ids twice.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let role = if input.flag() { Role::Gateway } else { Role::Device };
    let boot_id = input.u32();
    let mtu = input.u16();
    let config = Config { role, boot_id, mtu: mtu.into() };
    let mut link = Link::<TX, RX>::new(config, Instant::ZERO);
    let mut side = Side::new(role, boot_id, mtu.clamp(20, LINK_MTU_BYTES_MAX as u16));
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 8 {
            0..4 => hear_hello(&mut link, &mut side, &mut input),
            4 => hear_other(&mut link, &side, &mut input),
            5 => {
                side.now = side.now + Duration::from_millis(input.u16().into());
                assert_eq!(link.handle_timeout(side.now), None);
                side.time_passed();
            }
            _ => check_transmit(&mut link, &mut side),
        }
        assert_eq!(link.poll_timeout(), side.open.is_none().then_some(side.ask_at));
        assert_eq!(link.message_bytes_max(), side.open.map(Hello::message_bytes_max_here));
    }
}

fn hear_hello(link: &mut Link<TX, RX>, side: &mut Side, input: &mut Input<'_>) {
    let [flags, ids] = input.array();
    let boot_id = if ids & 1 == 0 { u32::from(ids >> 4) } else { input.u32() };
    let echo = match ids >> 1 & 3 {
        0 | 1 => side.boot_id,
        2 => 0,
        _ => input.u32(),
    };
    let (mtu, message_bytes_max) = (input.u16(), input.u16());
    let octets = line::frame(None, &line::hello(flags & 0x0f, boot_id, echo, mtu, message_bytes_max));
    let is_taken = (flags & line::DEVICE != 0) == (side.role == Role::Gateway)
        && boot_id != 0
        && mtu >= 20
        && message_bytes_max >= 34
        && octets.len() <= usize::from(side.mtu);
    let hello = Hello { ask: flags & 1 == 1, boot_id, echo, mtu, message_bytes_max };
    let expected = if is_taken { side.hear(hello) } else { None };
    assert_eq!(link.feed(&octets, side.now), (octets.len(), expected));
}

/// A HELLO of another version is told and changes nothing; octets that are no HELLO change nothing at all.
fn hear_other(link: &mut Link<TX, RX>, side: &Side, input: &mut Input<'_>) {
    let version = input.byte();
    let flag = if side.role == Role::Gateway { line::DEVICE } else { 0 };
    let octets = line::frame(None, &[0x10 | flag, version, input.byte()]);
    let expected = (version > 0).then_some(Event::VersionRefused(version));
    assert_eq!(link.feed(&octets, side.now), (octets.len(), expected));
    let octets = line::frame(Some((1, 2)), &[0x30 | flag, 0]);
    assert_eq!(link.feed(&octets, side.now), (octets.len(), None));
}

fn check_transmit(link: &mut Link<TX, RX>, side: &mut Side) {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let written = link.poll_transmit(side.now, &mut out);
    let Some(expected) = side.poll() else {
        assert_eq!(written, None);
        return;
    };
    let bytes = written.expect("a HELLO is due");
    assert!(bytes <= 20 && expected.boot_id != 0);
    let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
    assert_eq!(Frame::parse(&octets, side.role, None), Ok(Frame::Hello(expected)));
}

trait Here {
    fn message_bytes_max_here(self) -> usize;
}

impl Here for Hello {
    /// What this side may send to the one that said this.
    fn message_bytes_max_here(self) -> usize {
        usize::from(self.message_bytes_max).min(LINK_MESSAGE_BYTES_MAX).min(TX - 2)
    }
}

/// One side as section 4 of the specification describes it.
struct Side {
    role: Role,
    boot_id: u32,
    mtu: u16,
    peer: Option<Hello>,
    open: Option<Hello>,
    is_owed: bool,
    ask_at: Instant,
    now: Instant,
    /// The boot ids of all sessions, this side's first.
    sessions: Vec<(u32, u32)>,
}

impl Side {
    fn new(role: Role, boot_id: u32, mtu: u16) -> Self {
        let boot_id = boot_id.max(1);
        let (ask_at, now) = (Instant::ZERO, Instant::ZERO);
        Self { role, boot_id, mtu, peer: None, open: None, is_owed: true, ask_at, now, sessions: Vec::new() }
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
            message_bytes_max: hello.message_bytes_max_here(),
        }
    }

    fn time_passed(&mut self) {
        if self.open.is_none() && self.ask_at <= self.now {
            self.is_owed = true;
            self.ask_at = self.now + Duration::from_millis(HELLO_MS);
        }
    }

    fn poll(&mut self) -> Option<Hello> {
        if !std::mem::take(&mut self.is_owed) {
            return None;
        }
        self.ask_at = self.now + Duration::from_millis(HELLO_MS);
        Some(Hello {
            ask: self.open.is_none(),
            boot_id: self.boot_id,
            echo: self.peer.map_or(0, |peer| peer.boot_id),
            mtu: self.mtu,
            message_bytes_max: RX as u16,
        })
    }
}
