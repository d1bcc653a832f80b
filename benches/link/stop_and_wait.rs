//! What people write first: the same frames, one in flight, and a timer of three round trips.
//!
//! A message begins a frame of its own, and takes several if it must. The ack goes alone, at once; a copy is
//! acknowledged again and dropped. Both ends are open from the start.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::time::{Duration, Instant};
use fieldgate::wire::cobs::Deframer;
use fieldgate::wire::frame::{Arrived, Frame, Role, SessionSeed, Stream, payload_bytes_max};

use super::application::Application;
use super::line::{Line, TURNAROUND_NS};
use super::world::End;

/// Octets of an ack on the line.
const ACK_BYTES: usize = 12;

pub struct StopAndWait {
    role: Role,
    seed: SessionSeed,
    application: Application,
    mtu: usize,
    timer: Duration,
    /// The message that is on its way, with its length, and how much of it has arrived.
    message: Vec<u8>,
    arrived: usize,
    number: u8,
    /// When the frame that was sent counts as lost.
    lost_at: Option<Instant>,
    /// The number that is expected next, and that of the ack that is owed.
    expected: u8,
    owed: Option<u8>,
    heard: Vec<u8>,
    deframer: Deframer<LINK_MTU_BYTES_MAX>,
    sent: u32,
}

impl StopAndWait {
    pub fn new(role: Role, mtu: usize, line: Line, application: Application) -> Self {
        let turnaround = if line.has_turnaround { TURNAROUND_NS } else { 0 };
        let round_trip = line.octets_ns(mtu + ACK_BYTES) + turnaround;
        Self {
            role,
            seed: SessionSeed::new(1, 2),
            application,
            mtu,
            timer: Duration::from_millis((3 * round_trip).div_ceil(1_000_000)),
            message: Vec::new(),
            arrived: 0,
            number: 0,
            lost_at: None,
            expected: 0,
            owed: None,
            heard: Vec::new(),
            deframer: Deframer::new(mtu),
            sent: 0,
        }
    }

    fn piece_bytes(&self) -> usize {
        payload_bytes_max(self.mtu).min(self.message.len() - self.arrived)
    }

    fn begin_message(&mut self) {
        if let Some(message) = self.application.next() {
            self.message = with_length(message);
            self.application.sent();
        }
    }

    fn take(&mut self, frame: &[u8]) {
        match Frame::parse(frame, self.role.peer(), Some(self.seed)) {
            Ok(Frame::Ack { arrived, .. }) if arrived.newest == self.number && self.lost_at.is_some() => {
                self.arrived += self.piece_bytes();
                self.number = self.number.wrapping_add(1);
                self.lost_at = None;
                if self.arrived == self.message.len() {
                    (self.message, self.arrived) = (Vec::new(), 0);
                }
            }
            Ok(Frame::Data { number, payload, .. }) => {
                self.owed = Some(number);
                if number == self.expected {
                    self.expected = number.wrapping_add(1);
                    self.heard.extend(payload);
                    self.hear();
                }
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn hear(&mut self) {
        let whole = match *self.heard {
            [low, ..] if low < 0x80 => 1..1 + usize::from(low),
            [low, high, ..] => 2..2 + (usize::from(low & 0x7f) | usize::from(high) << 7),
            _ => return,
        };
        if whole.end == self.heard.len() {
            self.application.take(&self.heard[whole]);
            self.heard.clear();
        }
    }
}

impl End for StopAndWait {
    fn application(&mut self) -> &mut Application {
        &mut self.application
    }

    fn is_open(&self) -> bool {
        true
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let seed = Some(self.seed);
        if let Some(newest) = self.owed.take() {
            let arrived = Arrived { newest, before: 0 };
            return Frame::Ack { arrived, stream: Stream::Ordered, limit: 0x0101 }.emit(self.role, seed, out);
        }
        if self.message.is_empty() {
            self.begin_message();
        }
        if self.message.is_empty() || self.lost_at.is_some_and(|lost_at| lost_at > now) {
            return None;
        }
        self.lost_at = Some(now + self.timer);
        self.sent += 1;
        let payload = &self.message[self.arrived..][..self.piece_bytes()];
        let (number, offset) = (self.number, 0x0101);
        Frame::Data { stream: Stream::Ordered, number, offset, arrived: None, limit: None, payload }
            .emit(self.role, seed, out)
    }

    fn receive(&mut self, mut octets: &[u8], _: Instant) {
        while !octets.is_empty() {
            let (taken, complete) = self.deframer.feed(octets);
            octets = &octets[taken..];
            if complete {
                let frame = self.deframer.frame().to_vec();
                self.take(&frame);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.lost_at
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn counts(&self) -> String {
        format!("{} sent", self.sent)
    }
}

/// A message behind its length, as in a stream of the link.
fn with_length(message: &[u8]) -> Vec<u8> {
    let length = message.len();
    let (low, high) = ((length & 0x7f) as u8, (length >> 7) as u8);
    let prefix: &[u8] = if high == 0 { &[low] } else { &[low | 0x80, high] };
    [prefix, message].concat()
}
