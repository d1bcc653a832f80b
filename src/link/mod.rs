//! One end of a device link: messages in, frames out, and back. The same type runs in firmware.
//!
//! It owns the handshake, the streams and the timers of the protocol that the module doc of [`wire`](crate::wire)
//! specifies. It reads no clock and no port: octets and time are arguments. It needs no heap.
//!
//! ```text
//!   send(message) ----------> [ outbox ] --pieces--> poll_transmit --> octets to the peer
//!   message(), release() <--- [ inbox ] <--pieces--- feed <----------- octets from the peer
//! ```
//!
//! The order of calls: `feed` one frame at a time and look at its event, then `poll_transmit` until there is nothing,
//! then wait for octets or for `poll_timeout`, whichever comes first, and call `handle_timeout`.
//!
//! A message that is not released stays, and its octets are no credit of the peer: who is slow is not overrun.

pub mod device;
#[cfg(feature = "std")]
pub mod elastic;
mod flight;
mod handshake;
mod inbox;
pub mod memory;
mod outbox;
mod receipts;
mod rto;
mod varint;

use core::fmt;

use crate::limits::{
    LINK_CREDIT_MS, LINK_MESSAGE_BYTES_MAX, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN, LINK_WINDOW_BYTES_MIN,
};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Arrived, Frame, Hello, SessionSeed, extra_bytes, payload_bytes_max};

use flight::{Flight, Piece};
use handshake::{Change, Handshake, Session};
use inbox::{Broken, Inbox, Taken};
use memory::{FrameStorage, Memory, Storage};
use outbox::Outbox;
use receipts::Receipts;

pub use crate::wire::Role;
pub use crate::wire::frame::Stream;

/// Octets of payload for which an ack does not ride on a frame, but goes before it: a small frame has better use of its
/// room.
const RIDE_BYTES_MIN: usize = 16;

/// What a link needs to know from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// A number this side did not use before, best a random one.
    pub boot_id: u32,
    /// Octets of the largest frame that the line carries, in either direction; brought within the limits of the protocol.
    pub mtu: usize,
}

/// What happened on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session began. One that was open before is over, and what was sent in it and not answered may be lost.
    Opened {
        /// The boot id of the peer.
        boot_id: u32,
        /// Octets of the largest frame that is sent to it.
        mtu: usize,
        /// Octets of the largest message that fits the peer's window.
        message_bytes_max: usize,
    },
    /// Messages arrived: [`Link::message`].
    Message,
    /// The peer started anew; the session is over and the next one is being opened.
    Restarted,
    /// The peer did not answer; the session is over and HELLO is sent until it does.
    Silent,
    /// The peer sent what can never be a message; the session is over and the next one is being opened.
    Broken,
    /// The peer speaks this version only; there is no session with it.
    VersionRefused(u8),
    /// The answer to a [`probe`](Link::probe), with its token.
    ProbeAnswered(u8),
}

/// Why a message was not taken; the link is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No session is open.
    NotOpen,
    /// There is no room until earlier messages are acknowledged by the link of the peer.
    Full,
    /// The peer, or this link, never takes a message of this size.
    TooLarge {
        /// Octets of the largest message.
        message_bytes_max: usize,
    },
}

/// There is no room now; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Full;

/// The peer does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silent;

/// Frames since the link was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Sent, first sendings and repetitions alike.
    pub sent: u32,
    /// DATA frames among them whose octets were sent before.
    pub resent: u32,
    /// Received whole.
    pub received: u32,
    /// Received damaged, of another session, of an unknown kind, or as an echo.
    pub dropped: u32,
}

/// What there is to send besides the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owed {
    /// The answer to a probe whose frame was received last.
    answer: bool,
    /// The token of a question.
    probe: Option<u8>,
    /// The limit of the ordered stream: the peer asked for it, or it has risen far.
    limit: bool,
    /// The limit of the urgent stream.
    urgent_limit: bool,
}

/// Whether a peer is asked how much room it has, because nothing but that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// It is not.
    None,
    /// It will be.
    At(Instant),
    /// As soon as the line is free.
    Due,
}

impl Question {
    fn deadline(self) -> Option<Instant> {
        if let Self::At(at) = self { Some(at) } else { None }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            *self = Self::Due;
        }
    }
}

/// One end of a link.
///
/// Layout: the buffers of `M`, and less than 576 octets of state.
pub struct Link<M: Memory> {
    handshake: Handshake,
    /// Octets of the largest frame that the line carries.
    mtu: usize,
    frame: M::Frame,
    flight: Flight,
    outbox: Outbox<M::Send>,
    urgent_outbox: Outbox<M::SendUrgent>,
    receipts: Receipts,
    inbox: Inbox<M::Receive>,
    urgent_inbox: Inbox<M::ReceiveUrgent>,
    owed: Owed,
    /// Whether room in the ordered stream is asked for.
    question: Question,
    /// The same of the urgent stream.
    urgent_question: Question,
    is_asleep: bool,
    counts: FrameCounts,
}

impl<M: Memory> Link<M> {
    /// A link that is not open and has a HELLO to send.
    pub fn new(config: Config, now: Instant) -> Self {
        const {
            assert!(<M::Receive as Storage>::BYTES_MAX >= LINK_WINDOW_BYTES_MIN);
            assert!(M::Frame::MTU >= LINK_MTU_BYTES_MIN && M::Frame::MTU <= LINK_MTU_BYTES_MAX);
        };
        let mtu = config.mtu.clamp(LINK_MTU_BYTES_MIN, LINK_MTU_BYTES_MAX);
        let mtu_in = mtu.min(M::Frame::MTU);
        Self {
            // At most 1024.
            handshake: Handshake::new(config.role, config.boot_id, mtu_in as u16, Inbox::<M::Receive>::WINDOW, now),
            mtu,
            frame: M::Frame::new(mtu_in),
            flight: Flight::new(mtu),
            outbox: Outbox::new(),
            urgent_outbox: Outbox::new(),
            receipts: Receipts::default(),
            inbox: Inbox::new(),
            urgent_inbox: Inbox::new(),
            owed: Owed::default(),
            question: Question::None,
            urgent_question: Question::None,
            is_asleep: false,
            counts: FrameCounts::default(),
        }
    }

    /// Takes octets up to the end of one frame; returns how many, and what that frame brought.
    ///
    /// Called again with the rest until nothing is left. Chunks may be cut anywhere.
    pub fn feed(&mut self, octets: &[u8], now: Instant) -> (usize, Option<Event>) {
        let (taken, complete) = self.frame.feed(octets);
        (taken, if complete { self.take_frame(now) } else { None })
    }

    /// The oldest message that arrived and was not [released](Self::release), an urgent one first, and its stream.
    pub fn message(&self) -> Option<(Stream, &[u8])> {
        let urgent = self.urgent_inbox.message().ok().flatten().map(|message| (Stream::Urgent, message));
        urgent.or_else(|| Some((Stream::Ordered, self.inbox.message().ok().flatten()?)))
    }

    /// The oldest message of a stream is not needed any more: its room is free for the peer.
    pub fn release(&mut self, stream: Stream) {
        match stream {
            Stream::Ordered => {
                self.inbox.release();
                self.owed.limit |= self.inbox.is_limit_due();
            }
            Stream::Urgent => {
                self.urgent_inbox.release();
                self.owed.urgent_limit |= self.urgent_inbox.is_limit_due();
            }
        }
    }

    /// Takes a message for the peer.
    ///
    /// That it was taken says nothing about its arrival.
    ///
    /// # Errors
    /// See [`SendError`]; the link is as before.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        let message_bytes_max = self.message_bytes_max().ok_or(SendError::NotOpen)?;
        if message.len() > message_bytes_max {
            return Err(SendError::TooLarge { message_bytes_max });
        }
        self.outbox.push(message).map_err(|Full| SendError::Full)
    }

    /// Takes a message that overtakes those of [`send`](Self::send); see there.
    ///
    /// # Errors
    /// As [`send`](Self::send). Before [`set_urgent_window`](Self::set_urgent_window), every message is too large.
    pub fn send_urgent(&mut self, message: &[u8], window: u16) -> Result<(), SendError> {
        self.handshake.session().ok_or(SendError::NotOpen)?;
        let message_bytes_max = Self::fitting(window, <M::SendUrgent as Storage>::BYTES_MAX);
        if message.len() > message_bytes_max {
            return Err(SendError::TooLarge { message_bytes_max });
        }
        self.urgent_outbox.push(message).map_err(|Full| SendError::Full)
    }

    /// The peer said how much room its urgent stream has, in this session: at first it has none.
    pub fn set_urgent_window(&mut self, window: u16) {
        self.urgent_outbox.reset(window);
    }

    /// Octets of the largest message that [`send`](Self::send) takes in this session; `None` when it is not open.
    pub fn message_bytes_max(&self) -> Option<usize> {
        Some(Self::fitting(self.handshake.session()?.peer.window, <M::Send as Storage>::BYTES_MAX))
    }

    /// Octets of the largest message that there is room for now.
    pub fn room(&self) -> usize {
        self.outbox.room()
    }

    /// The same of urgent messages.
    pub fn urgent_room(&self) -> usize {
        self.urgent_outbox.room()
    }

    /// Whether the link of the peer has everything that was sent. Nothing of a session that is over is left to send.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.urgent_outbox.is_empty()
    }

    /// Frames since the link was made.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// The peer said that it does not hear: until it says something new, nothing is sent but acks, and no timer runs.
    ///
    /// The message that said so was [released](Self::release). What is here behind it is something new.
    pub fn sleep(&mut self) {
        self.is_asleep = self.handshake.session().is_some() && self.inbox.is_empty();
    }

    /// Whether it is so.
    pub fn is_asleep(&self) -> bool {
        self.is_asleep
    }

    /// Asks whether anybody is there; see [`Event::ProbeAnswered`].
    pub fn probe(&mut self, token: u8) {
        self.owed.probe = Some(token);
    }

    /// Writes the frame that is due to the start of `out`, encoded and delimited; returns its length.
    ///
    /// Layout: `out` has room for the MTU of the configuration; what does not fit is lost on the way.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let written =
            self.emit_hello(now, out).or_else(|| self.emit_probe(out)).or_else(|| self.emit_session_frame(now, out));
        self.counts.sent = self.counts.sent.wrapping_add(u32::from(written.is_some()));
        written
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) have something to do
    /// next, if nothing arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_broken() {
            return Some(Instant::ZERO);
        }
        if self.is_asleep {
            return None;
        }
        let questions = [self.question.deadline(), self.urgent_question.deadline()];
        self.handshake.ask_at().into_iter().chain(self.flight.deadline()).chain(questions.into_iter().flatten()).min()
    }

    /// Lets timers run out. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        self.handshake.handle_timeout(now);
        self.question.handle_timeout(now);
        self.urgent_question.handle_timeout(now);
        if self.is_broken() {
            self.leave(now);
            return Some(Event::Broken);
        }
        if self.is_asleep || self.flight.handle_timeout(now).is_ok() {
            return None;
        }
        self.leave(now);
        Some(Event::Silent)
    }

    /// Octets of the largest message that fits a window and a buffer, with its length.
    fn fitting(window: u16, buffer_bytes: usize) -> usize {
        usize::from(window).min(buffer_bytes).saturating_sub(2).min(LINK_MESSAGE_BYTES_MAX)
    }

    fn take_frame(&mut self, now: Instant) -> Option<Event> {
        let seed = self.handshake.session().map(|session| session.seed);
        let frame = match Frame::parse(self.frame.frame(), self.handshake.role().peer(), seed) {
            Ok(frame) => frame,
            Err(_) => {
                self.counts.dropped = self.counts.dropped.wrapping_add(1);
                return None;
            }
        };
        self.counts.received = self.counts.received.wrapping_add(1);
        // What is to be answered is gone with the next frame.
        self.owed.answer = false;
        match frame {
            Frame::Hello(hello) => self.take_hello(hello, now),
            Frame::HelloOfVersion(version) => Some(Event::VersionRefused(version)),
            Frame::Probe { answer: true, token, .. } => Some(Event::ProbeAnswered(token)),
            Frame::Probe { answer: false, .. } => {
                self.owed.answer = true;
                None
            }
            Frame::Ack { arrived, stream, limit } => {
                self.flight.heard();
                self.take_limit(stream, limit);
                self.take_ack(arrived, now);
                None
            }
            Frame::Data { stream, number, offset, arrived, limit, payload } => {
                self.flight.heard();
                let taken = match stream {
                    Stream::Ordered => self.inbox.take(offset, payload),
                    Stream::Urgent => self.urgent_inbox.take(offset, payload),
                };
                // Without payload it asks for the limit.
                self.owed.limit |= taken != Taken::Dropped && stream == Stream::Ordered && payload.is_empty();
                if let Some(limit) = limit {
                    self.take_limit(Stream::Ordered, limit);
                }
                if let Some(arrived) = arrived {
                    self.take_ack(arrived, now);
                }
                self.took(taken, stream, number, now)
            }
        }
    }

    fn take_hello(&mut self, hello: Hello, now: Instant) -> Option<Event> {
        match self.handshake.hear(hello, self.receipts.has_any(), now)? {
            Change::Left => {
                self.reset(0);
                Some(Event::Restarted)
            }
            Change::Opened(Session { peer, .. }) => {
                self.reset(peer.window);
                let message_bytes_max = self.message_bytes_max().unwrap_or(0);
                Some(Event::Opened { boot_id: peer.boot_id, mtu: self.mtu_out(), message_bytes_max })
            }
        }
    }

    /// What became of a DATA frame.
    fn took(&mut self, taken: Taken, stream: Stream, number: u8, now: Instant) -> Option<Event> {
        if taken == Taken::Dropped {
            return None;
        }
        self.receipts.note(number);
        self.owed.urgent_limit |= stream == Stream::Urgent;
        if taken == Taken::Copy {
            return None;
        }
        self.wake(now);
        let message = match stream {
            Stream::Ordered => self.inbox.message().map(|message| message.is_some()),
            Stream::Urgent => self.urgent_inbox.message().map(|message| message.is_some()),
        };
        match message {
            Ok(is_whole) => is_whole.then_some(Event::Message),
            Err(Broken) => {
                self.leave(now);
                Some(Event::Broken)
            }
        }
    }

    /// Whether what can never be a message came to light behind one that was released.
    fn is_broken(&self) -> bool {
        self.inbox.message().is_err() || self.urgent_inbox.message().is_err()
    }

    fn take_limit(&mut self, stream: Stream, limit: u16) {
        match stream {
            Stream::Ordered => self.outbox.set_limit(limit),
            Stream::Urgent => self.urgent_outbox.set_limit(limit),
        };
    }

    fn take_ack(&mut self, arrived: Arrived, now: Instant) {
        if self.flight.arrived(arrived, now) {
            self.outbox.arrived(self.flight.oldest_offset(Stream::Ordered, self.outbox.base()));
            self.urgent_outbox.arrived(self.flight.oldest_offset(Stream::Urgent, self.urgent_outbox.base()));
        }
    }

    fn wake(&mut self, now: Instant) {
        if core::mem::take(&mut self.is_asleep) {
            self.flight.resume(now);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.handshake.leave(now);
        self.reset(0);
    }

    /// Nothing of one session is carried into the next: whoever sends decides anew once it is open.
    fn reset(&mut self, window: u16) {
        self.flight = Flight::new(self.mtu_out());
        self.outbox.reset(window);
        self.urgent_outbox.reset(0);
        self.receipts = Receipts::default();
        self.inbox.reset();
        self.urgent_inbox.reset();
        (self.owed.limit, self.owed.urgent_limit) = (false, false);
        (self.question, self.urgent_question) = (Question::None, Question::None);
        self.is_asleep = false;
    }

    /// Octets of the largest frame that is sent to the peer.
    fn mtu_out(&self) -> usize {
        self.handshake.session().map_or(self.mtu, |session| self.mtu.min(session.mtu.into()))
    }

    fn emit_hello(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        Frame::Hello(self.handshake.poll(now)?).emit(self.handshake.role(), None, out)
    }

    fn emit_probe(&mut self, out: &mut [u8]) -> Option<usize> {
        let role = self.handshake.role();
        // Octets that came since may have taken the place of the question.
        if core::mem::take(&mut self.owed.answer)
            && let Ok(Frame::Probe { answer: false, token, padding }) =
                Frame::parse(self.frame.frame(), role.peer(), None)
        {
            return Frame::Probe { answer: true, token, padding }.emit(role, None, out);
        }
        Frame::Probe { answer: false, token: self.owed.probe.take()?, padding: &[] }.emit(role, None, out)
    }

    fn emit_session_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let Session { seed, .. } = self.handshake.session()?;
        if self.owed.urgent_limit {
            return self.emit_ack(seed, Stream::Urgent, out);
        }
        self.owed.limit |= self.flight.take_limit_lost();
        if self.owed.limit {
            self.receipts.owe();
        }
        if self.is_asleep {
            return self.emit_ack(seed, Stream::Ordered, out);
        }
        let Some((piece, is_new)) = self.next_piece(now) else {
            return self.emit_ack(seed, Stream::Ordered, out);
        };
        self.emit_data(seed, piece, is_new, now, out)
    }

    fn emit_ack(&mut self, seed: SessionSeed, stream: Stream, out: &mut [u8]) -> Option<usize> {
        let is_urgent = stream == Stream::Urgent;
        if is_urgent {
            self.owed.urgent_limit = false;
            self.receipts.owe();
        }
        let arrived = self.receipts.owed()?;
        self.receipts.told();
        let limit = if is_urgent { self.urgent_inbox.tell_limit() } else { self.tell_limit() };
        Frame::Ack { arrived, stream, limit }.emit(self.handshake.role(), Some(seed), out)
    }

    fn tell_limit(&mut self) -> u16 {
        self.owed.limit = false;
        self.inbox.tell_limit()
    }

    /// What is to be sent next, and whether it is new.
    fn next_piece(&mut self, now: Instant) -> Option<(Piece, bool)> {
        let bytes_max = payload_bytes_max(self.mtu_out());
        for stream in [Stream::Urgent, Stream::Ordered] {
            if let Some(lost) = self.flight.lost(stream, bytes_max) {
                // A payload has less than 1024 octets.
                return Some((Piece { bytes: lost.bytes.min(bytes_max as u16), ..lost }, false));
            }
            let new = match stream {
                Stream::Ordered => self.outbox.new_octets(bytes_max),
                Stream::Urgent => self.urgent_outbox.new_octets(bytes_max),
            };
            if let Some((offset, bytes)) = new.filter(|_| self.flight.has_room()) {
                return Some((Piece { stream, offset, bytes }, true));
            }
            if let Some(question) = self.ask_for_credit(stream, now) {
                return Some((question, true));
            }
        }
        None
    }

    /// A frame without payload, when nothing but credit has been missing for long.
    fn ask_for_credit(&mut self, stream: Stream, now: Instant) -> Option<Piece> {
        let (base, starved_at, question) = match stream {
            Stream::Ordered => (self.outbox.base(), self.outbox.starved_at(), &mut self.question),
            Stream::Urgent => (self.urgent_outbox.base(), self.urgent_outbox.starved_at(), &mut self.urgent_question),
        };
        let may_ask = self.flight.has_room() && self.flight.oldest_offset(stream, base).is_none();
        let Some(offset) = starved_at.filter(|_| may_ask) else {
            *question = Question::None;
            return None;
        };
        question.handle_timeout(now);
        match *question {
            Question::None => *question = Question::At(now + Duration::from_millis(LINK_CREDIT_MS)),
            Question::At(_) => {}
            Question::Due => {
                *question = Question::None;
                return Some(Piece { stream, offset, bytes: 0 });
            }
        }
        None
    }

    /// The ack rides on the frame if there is room for it; otherwise it goes first.
    fn emit_data(
        &mut self,
        seed: SessionSeed,
        piece: Piece,
        is_new: bool,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let bytes_max = payload_bytes_max(self.mtu_out());
        let arrived = self.receipts.owed();
        let tells_limit = arrived.is_some() && (self.owed.limit || self.inbox.is_limit_near());
        let extra = extra_bytes(arrived.is_some(), tells_limit);
        let rides = usize::from(piece.bytes) + extra <= bytes_max || is_new && bytes_max >= extra + RIDE_BYTES_MIN;
        if arrived.is_some() && !rides {
            return self.emit_ack(seed, Stream::Ordered, out);
        }
        let piece = Piece { bytes: piece.bytes.min((bytes_max - extra) as u16), ..piece };
        if !is_new {
            let lost = self.flight.lost(piece.stream, bytes_max)?;
            self.flight.retake(lost, piece.bytes);
        }
        let number = self.flight.sent(piece, tells_limit, now)?;
        if is_new {
            self.sent_new(piece);
        } else {
            self.counts.resent = self.counts.resent.wrapping_add(1);
        }
        self.receipts.told();
        let limit = tells_limit.then(|| self.tell_limit());
        let payload = match piece.stream {
            Stream::Ordered => self.outbox.octets(piece.offset, piece.bytes),
            Stream::Urgent => self.urgent_outbox.octets(piece.offset, piece.bytes),
        };
        let Piece { stream, offset, .. } = piece;
        Frame::Data { stream, number, offset, arrived, limit, payload }.emit(self.handshake.role(), Some(seed), out)
    }

    fn sent_new(&mut self, piece: Piece) {
        match piece.stream {
            Stream::Ordered => self.outbox.sent(piece.bytes),
            Stream::Urgent => self.urgent_outbox.sent(piece.bytes),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("no session is open"),
            Self::Full => f.write_str("no room until earlier messages have gone"),
            Self::TooLarge { message_bytes_max } => write!(f, "larger than {message_bytes_max} octets"),
        }
    }
}

impl core::error::Error for SendError {}

#[cfg(test)]
mod tests;
