//! The frames on their way: which have arrived, which are lost, and when to think so.
//!
//! It knows numbers and the pieces of streams that they carry, and neither octets nor messages.
//!
//! ```text
//!   sent --> [ in flight ] --named by an ack--> done
//!                 |  ^
//!                 |  +-- sent again: a new number
//!                 v
//!   a newer one arrived, or the timer ran out --> [ lost ]
//! ```
//!
//! Source: RFC 3366 (advice to link designers on ARQ); numbers that are never used again follow RFC 9002 §2.

use heapless::Deque;

use crate::limits::{LINK_FLIGHT_FRAMES, LINK_SILENCE_MS};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Arrived, Stream};

use super::Silent;
use super::rto::RetransmissionTimer;

/// Octets of the smallest DATA frame and of its ACK on the line.
const OVERHEAD_BYTES: u32 = 10 + 12;

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub stream: Stream,
    pub offset: u16,
    pub bytes: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    InFlight,
    Lost,
    Done,
}

/// A frame on its way.
struct Sent {
    piece: Piece,
    fate: Fate,
    /// Whether the peer learns from it how much room there is here.
    tells_limit: bool,
}

pub(super) struct Flight {
    /// The number of the first frame in `frames`.
    oldest: u8,
    frames: Deque<Sent, LINK_FLIGHT_FRAMES>,
    /// The frame whose round trip is being measured, when it was sent, and its octets with those of its ack.
    measured: Option<(u8, Instant, u32)>,
    timer: RetransmissionTimer,
    /// When the timer runs out; none while nothing is in flight.
    resend_at: Option<Instant>,
    /// When a peer of which nothing was heard counts as silent; says nothing while nothing is in flight.
    silent_at: Instant,
    /// The timer ran out, and nothing arrived since: how many frames may be sent.
    allowance: Option<u8>,
    /// All that was in flight was given up, and nothing was heard since: the silence goes on.
    is_unanswered: bool,
    /// A frame that told the limit is lost, and it was not told again.
    is_limit_lost: bool,
}

impl Flight {
    /// Nothing is on its way to a peer that takes frames of so many octets.
    pub fn new(mtu: usize) -> Self {
        Self {
            oldest: 0,
            frames: Deque::new(),
            measured: None,
            timer: RetransmissionTimer::new(mtu),
            resend_at: None,
            silent_at: Instant::ZERO,
            allowance: None,
            is_unanswered: false,
            is_limit_lost: false,
        }
    }

    /// Whether nothing is on its way.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame with something new may be sent.
    pub fn has_room(&self) -> bool {
        !self.frames.is_full() && self.allowance != Some(0)
    }

    /// The piece of a stream that is to be sent again next, the lowest, if a frame may be sent.
    ///
    /// When all numbers are in flight, only the oldest may be, of whatever stream, and only whole: within `bytes_max`.
    pub fn lost(&self, stream: Stream, bytes_max: usize) -> Option<Piece> {
        if self.allowance == Some(0) {
            return None;
        }
        let is_full = self.frames.is_full();
        let among = if is_full { 1 } else { self.frames.len() };
        let may_leave = |Sent { piece, fate, .. }: &&Sent| {
            *fate == Fate::Lost && piece.stream == stream && (!is_full || usize::from(piece.bytes) <= bytes_max)
        };
        let lost = self.frames.iter().take(among).filter(may_leave).map(|sent| sent.piece);
        // What is in flight spans less than half of all offsets.
        let is_before = |a: Piece, b: Piece| a.offset.wrapping_sub(b.offset) >= 1 << 15;
        lost.reduce(|lowest, piece| if is_before(piece, lowest) { piece } else { lowest })
    }

    /// The first `bytes` of a lost piece leave in a frame of their own.
    pub fn retake(&mut self, lost: Piece, bytes: u16) {
        for sent in self.frames.iter_mut().filter(|sent| sent.fate == Fate::Lost && sent.piece == lost) {
            sent.piece.offset = sent.piece.offset.wrapping_add(bytes);
            sent.piece.bytes -= bytes;
            if sent.piece.bytes == 0 {
                sent.fate = Fate::Done;
            }
        }
        self.forget_done();
    }

    /// A frame is handed to the line; returns its number, or none when all are in flight.
    pub fn sent(&mut self, piece: Piece, tells_limit: bool, now: Instant) -> Option<u8> {
        let number = self.oldest.wrapping_add(self.frames.len() as u8);
        self.frames.push_back(Sent { piece, fate: Fate::InFlight, tells_limit }).ok()?;
        self.measured = self.measured.or(Some((number, now, u32::from(piece.bytes) + OVERHEAD_BYTES)));
        self.allowance = self.allowance.map(|frames| frames.saturating_sub(1));
        if self.resend_at.is_none() {
            let silent_at = self.silent_at;
            self.wait(now);
            if self.is_unanswered {
                self.silent_at = silent_at;
            }
        }
        Some(number)
    }

    /// Takes an ack. Whether something arrived that was not known to have.
    pub fn arrived(&mut self, arrived: Arrived, now: Instant) -> bool {
        let newest = usize::from(arrived.newest.wrapping_sub(self.oldest));
        if newest >= self.frames.len() {
            return false;
        }
        let mut news = false;
        for (at, sent) in self.frames.iter_mut().enumerate().take(newest + 1) {
            let is_named = at == newest || arrived.before >> (newest - at - 1) & 1 == 1;
            if is_named {
                news |= sent.fate != Fate::Done;
                sent.fate = Fate::Done;
            } else if sent.fate == Fate::InFlight {
                self.is_limit_lost |= sent.give_up();
            }
        }
        self.measure(arrived, now);
        self.forget_done();
        if news {
            self.is_unanswered = false;
            self.allowance = None;
            self.resend_at = None;
            if !self.frames.is_empty() {
                self.wait(now);
            }
        }
        news
    }

    /// The offset before which everything of a stream that was sent has arrived; none if all has. `base` is at or before
    /// every offset in flight.
    pub fn oldest_offset(&self, stream: Stream, base: u16) -> Option<u16> {
        let unsettled = self.frames.iter().filter(|sent| sent.piece.stream == stream && sent.fate != Fate::Done);
        unsettled.map(|sent| sent.piece.offset).min_by_key(|offset| offset.wrapping_sub(base))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.resend_at.map(|resend_at| resend_at.min(self.silent_at))
    }

    /// Lets the timer run out: the oldest frame in flight counts as lost, and for now one frame may be sent.
    ///
    /// # Errors
    /// [`Silent`] when nothing has arrived for [`LINK_SILENCE_MS`].
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Silent> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        if self.silent_at <= now {
            return Err(Silent);
        }
        self.timer.double();
        // It runs again although nothing was sent yet: a port that takes no octets is silent as well.
        self.resend_at = Some(now + self.timer.timeout());
        self.allowance = Some(1);
        self.measured = None;
        if let Some(sent) = self.frames.iter_mut().find(|sent| sent.fate == Fate::InFlight) {
            self.is_limit_lost |= sent.give_up();
        }
        self.forget_done();
        if self.frames.is_empty() {
            self.resend_at = None;
            self.is_unanswered = true;
        }
        Ok(())
    }

    /// Whether a frame that told the limit was lost since this was asked last.
    pub fn take_limit_lost(&mut self) -> bool {
        core::mem::take(&mut self.is_limit_lost)
    }

    /// The peer said something, which counts when it could not name anything.
    pub fn heard(&mut self) {
        self.is_unanswered &= !self.frames.is_empty();
    }

    /// The peer was not there for a while, and that says nothing: all timers start anew.
    pub fn resume(&mut self, now: Instant) {
        self.is_unanswered = false;
        if self.resend_at.is_some() {
            self.wait(now);
        }
        self.measured = None;
    }

    fn measure(&mut self, arrived: Arrived, now: Instant) {
        let Some((number, sent_at, bytes)) = self.measured else { return };
        let behind = arrived.newest.wrapping_sub(number);
        let is_named = behind == 0 || (1..=16).contains(&behind) && arrived.before >> (behind - 1) & 1 == 1;
        if is_named {
            self.timer.measured(now.since(sent_at), bytes);
        }
        if is_named || behind < 128 {
            self.measured = None;
        }
    }

    fn wait(&mut self, now: Instant) {
        self.resend_at = Some(now + self.timer.timeout());
        self.silent_at = now + Duration::from_millis(LINK_SILENCE_MS);
    }

    fn forget_done(&mut self) {
        while self.frames.front().is_some_and(|sent| sent.fate == Fate::Done) {
            self.frames.pop_front();
            self.oldest = self.oldest.wrapping_add(1);
        }
    }
}

impl Sent {
    /// It counts as lost; one without octets is not sent again. Whether the limit went with it.
    fn give_up(&mut self) -> bool {
        self.fate = if self.piece.bytes == 0 { Fate::Done } else { Fate::Lost };
        self.tells_limit
    }
}

#[cfg(test)]
mod tests;
