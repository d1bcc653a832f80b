//! The handshake: who is at the other end, and which session is this.
//!
//! It knows HELLO frames and boot ids; messages and windows are the business of [`Link`](super::Link). The rules and the state diagram
//! are in `boards/firmware/PROTOCOL.md`.

use crate::limits::HELLO_MS;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Hello, SessionSeed};

use super::Role;

/// What a HELLO changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A session began; one that was open before is over.
    Opened(Session),
    /// The open session is over: the peer started anew.
    Left,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Precedes each frame in its CRC.
    pub seed: SessionSeed,
    /// What the peer said about itself.
    pub peer: Hello,
    /// Octets of the largest frame that is sent to the peer.
    pub mtu: u16,
}

pub(super) struct Handshake {
    role: Role,
    boot_id: u32,
    mtu: u16,
    window: u16,
    peer: Option<Hello>,
    session: Option<Session>,
    /// When the next HELLO of a side that is not open is due.
    ask_at: Instant,
    /// Whether a HELLO is to be sent as soon as the line is free.
    is_due: bool,
}

impl Handshake {
    pub fn new(role: Role, boot_id: u32, mtu: u16, window: u16, now: Instant) -> Self {
        let boot_id = boot_id.max(1);
        Self { role, boot_id, mtu, window, peer: None, session: None, ask_at: now, is_due: true }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    #[cfg(test)]
    pub fn boot_id(&self) -> u32 {
        self.boot_id
    }

    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// When the next HELLO is due by itself.
    pub fn ask_at(&self) -> Option<Instant> {
        if self.session.is_none() { Some(self.ask_at) } else { None }
    }

    /// Makes the HELLO of this second due. One that waits for the line is not made due twice.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.session.is_none() && self.ask_at <= now {
            self.ask_at = now + Duration::from_millis(HELLO_MS);
            self.is_due = true;
        }
    }

    /// Takes a HELLO of the peer; `has_data` if DATA of the session arrived.
    ///
    /// Who has sent DATA has heard a HELLO: when it asks as if it had not, it started anew and its boot id is not new.
    pub fn hear(&mut self, hello: Hello, has_data: bool, now: Instant) -> Option<Change> {
        self.is_due |= hello.ask;
        let is_anew = has_data && hello.ask && hello.echo == 0;
        let left = self.session.is_some_and(|session| is_anew || session.peer.boot_id != hello.boot_id);
        if left {
            self.leave(now);
        }
        if self.session.is_none() {
            self.peer = Some(hello);
            if hello.echo == self.boot_id {
                let session = self.agree(hello);
                self.session = Some(session);
                return Some(Change::Opened(session));
            }
        }
        left.then_some(Change::Left)
    }

    /// Ends the open session. A new boot id sees to it that the pair of ids of a session is never used twice.
    pub fn leave(&mut self, now: Instant) {
        self.session = None;
        self.peer = None;
        self.boot_id = self.boot_id.checked_add(1).unwrap_or(1);
        self.ask_at = now;
        self.is_due = true;
    }

    /// The HELLO that is due, if one is.
    pub fn poll(&mut self, now: Instant) -> Option<Hello> {
        if !core::mem::take(&mut self.is_due) {
            return None;
        }
        self.ask_at = now + Duration::from_millis(HELLO_MS);
        let ask = self.session.is_none();
        let echo = self.peer.map_or(0, |peer| peer.boot_id);
        Some(Hello { ask, boot_id: self.boot_id, echo, mtu: self.mtu, window: self.window })
    }

    fn agree(&self, peer: Hello) -> Session {
        let seed = match self.role {
            Role::Gateway => SessionSeed::new(self.boot_id, peer.boot_id),
            Role::Device => SessionSeed::new(peer.boot_id, self.boot_id),
        };
        Session { seed, peer, mtu: peer.mtu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn three_hellos_open_both_sides_alike() {
        let (mut gateway, mut device) = (side(Role::Gateway, 10), side(Role::Device, 20));
        let first = gateway.poll(NOW).expect("a side that is not open asks");
        assert_eq!(device.hear(first, false, NOW), None);
        let second = device.poll(NOW).expect("asked");
        assert_eq!((second.ask, second.echo), (true, 10));
        let Some(Change::Opened(at_gateway)) = gateway.hear(second, false, NOW) else { panic!("the gateway is open") };
        let third = gateway.poll(NOW).expect("asked");
        assert!(!third.ask);
        let Some(Change::Opened(at_device)) = device.hear(third, false, NOW) else { panic!("the device is open") };
        assert_eq!(at_gateway.seed, at_device.seed);
        assert_eq!((at_gateway.mtu, at_device.mtu), (64, 1024));
        assert_eq!((gateway.poll(NOW), device.poll(NOW)), (None, None));
    }

    #[test]
    fn a_restarted_peer_ends_the_session_and_no_pair_of_ids_returns() {
        let (mut gateway, mut device) = (side(Role::Gateway, 10), side(Role::Device, 20));
        open(&mut gateway, &mut device);
        let mut restarted = side(Role::Device, 21);
        assert_eq!(gateway.hear(restarted.poll(NOW).expect("asks"), false, NOW), Some(Change::Left));
        assert_eq!(gateway.boot_id(), 11);
        open(&mut gateway, &mut restarted);
        // A late HELLO of the first life ends the session as well, and it recovers.
        let stale = Hello { ask: true, boot_id: 20, echo: 10, mtu: 256, window: 64 };
        assert_eq!(gateway.hear(stale, false, NOW), Some(Change::Left));
        open(&mut gateway, &mut restarted);
        assert_eq!(gateway.session().map(|session| session.peer.boot_id), Some(22));
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_each_second() {
        let (mut gateway, mut device) = (side(Role::Gateway, 10), side(Role::Device, 20));
        device.hear(gateway.poll(NOW).expect("asks"), false, NOW);
        gateway.hear(device.poll(NOW).expect("asked"), false, NOW);
        gateway.poll(NOW).expect("answered, and the answer is lost");
        let later = NOW + Duration::from_millis(HELLO_MS);
        device.handle_timeout(NOW);
        assert_eq!((device.poll(NOW), device.ask_at()), (None, Some(later)));
        device.handle_timeout(later);
        assert_eq!(gateway.hear(device.poll(later).expect("asks again"), false, later), None);
        let answer = gateway.poll(later).expect("an open side answers");
        assert!(matches!(device.hear(answer, false, later), Some(Change::Opened(_))));
    }

    #[test]
    fn the_boot_id_is_never_zero() {
        let mut last = side(Role::Gateway, u32::MAX);
        last.leave(NOW);
        assert_eq!(last.boot_id(), 1);
        assert_eq!(side(Role::Device, 0).boot_id(), 1);
    }

    fn side(role: Role, boot_id: u32) -> Handshake {
        Handshake::new(role, boot_id, if boot_id < 20 { 1024 } else { 64 }, 4096, NOW)
    }

    fn open(a: &mut Handshake, b: &mut Handshake) {
        a.is_due = true;
        for _ in 0..8 {
            a.poll(NOW).map(|hello| b.hear(hello, false, NOW));
            b.poll(NOW).map(|hello| a.hear(hello, false, NOW));
        }
        assert!(a.session().is_some() && b.session().is_some());
    }
}
