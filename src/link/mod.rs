//! One end of a device link: messages in, frames out, and back. The same type runs in firmware.
//!
//! It owns the handshake, the window and the timers of the protocol that the module doc of [`wire`](crate::wire)
//! specifies. It reads no clock and no port: octets and time are arguments. It needs no heap.
//!
//! ```text
//!   send(message) --> [ TX ] --fragments--> poll_transmit --> octets to the peer
//!   message() <------ [ RX ] <--fragments-- feed <----------- octets from the peer
//! ```
//!
//! The order of calls: `feed` one frame at a time and look at its event, then `poll_transmit` until there is nothing,
//! then wait for octets or for `poll_timeout`, whichever comes first, and call `handle_timeout`.

mod arq;
pub mod device;
mod handshake;
mod queue;
mod rto;
mod window;

use core::fmt;

use crate::limits::{LINK_MESSAGE_BYTES_MAX, LINK_MESSAGE_BYTES_MIN, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN};
use crate::time::Instant;
use crate::wire::cobs::Deframer;
use crate::wire::frame::{Frame, Hello};

use arq::{Receiver, Sender};
use handshake::{Change, Handshake, Session};
use queue::Fragment;

pub use crate::wire::Role;

/// The MTU while there is no session.
const MTU_MIN: u16 = LINK_MTU_BYTES_MIN as u16;

/// What a link needs to know from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// A number this side did not use before, best a random one.
    pub boot_id: u32,
    /// Octets of the largest frame this side accepts; brought within the limits of the protocol.
    pub mtu: usize,
}

/// What happened on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session began. One that was open before is over, and what was sent in it and not answered may be lost.
    Opened {
        /// The boot id of the peer.
        boot_id: u32,
        /// Octets of the largest frame of this session.
        mtu: usize,
        /// Octets of the largest message that the peer accepts.
        message_bytes_max: usize,
    },
    /// A message arrived: [`Link::message`].
    Message,
    /// The peer started anew; the session is over and the next one is being opened.
    Restarted,
    /// The peer did not answer; the session is over and HELLO is sent until it does.
    Silent,
    /// The peer speaks this version only; there is no session with it.
    VersionRefused(u8),
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
    /// Received whole.
    pub received: u32,
    /// Received damaged, of another session, of an unknown kind, or as an echo.
    pub dropped: u32,
}

/// One end of a link.
///
/// Layout: `TX` octets of messages on their way (two more each), `RX` octets of the largest message accepted, one frame
/// of [`LINK_MTU_BYTES_MAX`] octets, and less than 280 octets of state.
pub struct Link<const TX: usize, const RX: usize> {
    handshake: Handshake,
    deframer: Deframer,
    sender: Sender<TX>,
    receiver: Receiver<RX>,
    counts: FrameCounts,
}

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// A link that is not open and has a HELLO to send.
    pub fn new(config: Config, now: Instant) -> Self {
        const { assert!(RX >= LINK_MESSAGE_BYTES_MIN && RX <= LINK_MESSAGE_BYTES_MAX) };
        let mtu = config.mtu.clamp(LINK_MTU_BYTES_MIN, LINK_MTU_BYTES_MAX);
        // Both are below 65536, by the clamp and by the assertions here and in `limits`.
        let (frame_bytes_max, message_bytes_max) = (mtu as u16, RX as u16);
        Self {
            handshake: Handshake::new(config.role, config.boot_id, frame_bytes_max, message_bytes_max, now),
            deframer: Deframer::new(mtu),
            sender: Sender::new(),
            receiver: Receiver::new(),
            counts: FrameCounts::default(),
        }
    }

    /// Takes octets up to the end of one frame; returns how many, and what that frame brought.
    ///
    /// Called again with the rest until nothing is left. Chunks may be cut anywhere.
    pub fn feed(&mut self, octets: &[u8], now: Instant) -> (usize, Option<Event>) {
        let (taken, complete) = self.deframer.feed(octets);
        (taken, if complete { self.take_frame(now) } else { None })
    }

    /// The message of the last [`Event::Message`]; valid until the next [`feed`](Self::feed).
    pub fn message(&self) -> &[u8] {
        self.receiver.message()
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
        self.sender.push(message).map_err(|Full| SendError::Full)
    }

    /// Octets of the largest message that [`send`](Self::send) takes in this session; `None` when it is not open.
    pub fn message_bytes_max(&self) -> Option<usize> {
        let peer_max = usize::from(self.handshake.session()?.peer.message_bytes_max);
        Some(peer_max.min(LINK_MESSAGE_BYTES_MAX).min(TX.saturating_sub(2)))
    }

    /// Octets of the largest message that there is room for now; 0 also when not even an empty one fits.
    pub fn room(&self) -> usize {
        self.sender.room()
    }

    /// Whether the link of the peer has everything that was sent. Nothing of a session that is over is left to send.
    pub fn is_idle(&self) -> bool {
        self.sender.is_empty()
    }

    /// Frames since the link was made.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// Writes the frame that is due to the start of `out`, encoded and delimited; returns its length.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8; LINK_MTU_BYTES_MAX]) -> Option<usize> {
        let written = self.emit_hello(now, out).or_else(|| self.emit_session_frame(now, out));
        self.counts.sent = self.counts.sent.wrapping_add(u32::from(written.is_some()));
        written
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) have something to do
    /// next, if nothing arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.handshake.ask_at().or(self.sender.deadline())
    }

    /// Lets timers run out. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        self.handshake.handle_timeout(now);
        match self.sender.handle_timeout(now) {
            Ok(()) => None,
            Err(Silent) => {
                self.handshake.leave(now);
                self.reset(MTU_MIN);
                Some(Event::Silent)
            }
        }
    }

    fn take_frame(&mut self, now: Instant) -> Option<Event> {
        let seed = self.handshake.session().map(|session| session.seed);
        let frame = match Frame::parse(self.deframer.frame(), self.handshake.role().peer(), seed) {
            Ok(frame) => frame,
            Err(_) => {
                self.counts.dropped = self.counts.dropped.wrapping_add(1);
                return None;
            }
        };
        self.counts.received = self.counts.received.wrapping_add(1);
        match frame {
            Frame::Hello(hello) => self.take_hello(hello, now),
            Frame::HelloOfVersion(version) => Some(Event::VersionRefused(version)),
            Frame::Ack { gap, ack } => {
                self.sender.acknowledge(ack, gap, now);
                None
            }
            Frame::Data { first, last, seq, ack, payload } => {
                self.sender.acknowledge(ack, false, now);
                self.receiver.take(seq, Fragment { first, last, payload }).then_some(Event::Message)
            }
        }
    }

    fn take_hello(&mut self, hello: Hello, now: Instant) -> Option<Event> {
        match self.handshake.hear(hello, now)? {
            Change::Left => {
                self.reset(MTU_MIN);
                Some(Event::Restarted)
            }
            Change::Opened(Session { peer, mtu, .. }) => {
                self.reset(mtu);
                let message_bytes_max = self.message_bytes_max().unwrap_or(0);
                Some(Event::Opened { boot_id: peer.boot_id, mtu: mtu.into(), message_bytes_max })
            }
        }
    }

    /// Nothing of one session is carried into the next: whoever sends decides anew once it is open.
    fn reset(&mut self, mtu: u16) {
        self.sender.reset(mtu);
        self.receiver.reset();
    }

    fn emit_hello(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        Frame::Hello(self.handshake.poll(now)?).emit(self.handshake.role(), None, out)
    }

    /// A gap is told at once; otherwise the frame ack rides on DATA when there is some.
    fn emit_session_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let seed = Some(self.handshake.session()?.seed);
        let ack = self.receiver.expected_seq();
        let reply = self.receiver.reply();
        let frame = match reply {
            Some(reply) if reply.gap => Frame::Ack { gap: true, ack },
            _ => match self.sender.poll(now) {
                Some((seq, Fragment { first, last, payload })) => Frame::Data { first, last, seq, ack, payload },
                None => Frame::Ack { gap: reply?.gap, ack },
            },
        };
        self.receiver.replied();
        frame.emit(self.handshake.role(), seed, out)
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
