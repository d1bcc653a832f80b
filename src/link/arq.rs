//! Reliable, ordered messages over frames that may be lost: fragments, window, retransmission, duplicate removal.
//!
//! One [`Sender`] and one [`Receiver`] a side; both begin anew with each session. The rules are in the module doc of
//! `wire`.

use crate::time::Instant;

use super::queue::{Fragment, Queue};
use super::window::Window;
use super::{Full, MTU_MIN, Silent};

/// Messages on their way to the peer.
pub(super) struct Sender<const TX: usize> {
    queue: Queue<TX>,
    window: Window,
}

impl<const TX: usize> Sender<TX> {
    pub fn new() -> Self {
        Self { queue: Queue::new(), window: Window::new(MTU_MIN) }
    }

    /// Drops everything and begins a session of this MTU.
    pub fn reset(&mut self, mtu: u16) {
        self.queue.reset(mtu);
        self.window = Window::new(mtu);
    }

    pub fn room(&self) -> usize {
        self.queue.room()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push(&mut self, message: &[u8]) -> Result<(), Full> {
        self.queue.push(message)
    }

    /// The fragment that is due and its number, if one is.
    pub fn poll(&mut self, now: Instant) -> Option<(u8, Fragment<'_>)> {
        if self.queue.is_drained() || self.window.is_full() {
            return None;
        }
        let seq = self.window.sent(now);
        self.queue.take().map(|fragment| (seq, fragment))
    }

    pub fn acknowledge(&mut self, ack: u8, gap: bool, now: Instant) {
        let acknowledged = self.window.acknowledge(ack, gap, now);
        self.queue.acknowledge(acknowledged.count);
        if acknowledged.go_back {
            self.queue.go_back();
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.window.deadline()
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Silent> {
        if self.window.handle_timeout(now)? {
            self.queue.go_back();
        }
        Ok(())
    }
}

/// Messages being put together from the peer's fragments: one of at most `RX` octets at a time.
pub(super) struct Receiver<const RX: usize> {
    message: [u8; RX],
    bytes: usize,
    /// Whether a message has begun. Fragments outside one are dropped until the next first one.
    is_partial: bool,
    expected_seq: u8,
    reply: Option<Reply>,
}

/// The frame ack that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Whether a frame is missing.
    pub gap: bool,
}

impl<const RX: usize> Receiver<RX> {
    pub fn new() -> Self {
        Self { message: [0; RX], bytes: 0, is_partial: false, expected_seq: 0, reply: None }
    }

    /// Drops everything and begins a session.
    pub fn reset(&mut self) {
        (self.bytes, self.is_partial, self.expected_seq, self.reply) = (0, false, 0, None);
    }

    /// The number of the frame expected next.
    pub fn expected_seq(&self) -> u8 {
        self.expected_seq
    }

    /// Takes a fragment; true when it completes a message.
    pub fn take(&mut self, seq: u8, fragment: Fragment<'_>) -> bool {
        let ahead = seq.wrapping_sub(self.expected_seq);
        self.reply = Some(Reply { gap: (1..128).contains(&ahead) });
        if ahead != 0 {
            return false;
        }
        self.expected_seq = self.expected_seq.wrapping_add(1);
        self.append(fragment)
    }

    /// The message completed last; valid until the next [`take`](Self::take).
    pub fn message(&self) -> &[u8] {
        &self.message[..self.bytes]
    }

    pub fn reply(&self) -> Option<Reply> {
        self.reply
    }

    /// A frame ack went out.
    pub fn replied(&mut self) {
        self.reply = None;
    }

    fn append(&mut self, fragment: Fragment<'_>) -> bool {
        if fragment.first {
            (self.bytes, self.is_partial) = (0, true);
        }
        if !self.is_partial {
            return false;
        }
        let bytes = self.bytes + fragment.payload.len();
        let Some(free) = self.message.get_mut(self.bytes..bytes) else {
            // Larger than this side announced: the rest is dropped as well.
            self.is_partial = false;
            return false;
        };
        free.copy_from_slice(fragment.payload);
        self.bytes = bytes;
        self.is_partial = !fragment.last;
        fragment.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const NOW: Instant = Instant::ZERO;

    /// C-31: one message for each length.
    #[test]
    fn c_31_a_message_of_any_length_is_cut_and_put_together() {
        for length in [0, 1, 10, 11, 12, 20, 21, 4096] {
            let message: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let (mut sender, mut receiver) = (Sender::<4098>::new(), Receiver::<4096>::new());
            sender.reset(20);
            sender.push(&message).expect("room");
            let mut complete = 0;
            while let Some((seq, fragment)) = sender.poll(NOW) {
                complete += usize::from(receiver.take(seq, fragment));
                sender.acknowledge(receiver.expected_seq(), false, NOW);
            }
            assert_eq!((complete, receiver.message()), (1, &message[..]), "{length}");
        }
    }

    /// C-32: neither merged nor split, whatever a peer makes of its fragments.
    #[test]
    fn c_32_a_broken_order_of_fragments_never_surfaces() {
        let mut receiver = Receiver::<4>::new();
        let mut seq = 0;
        let mut take = |first, last, payload: &[u8]| {
            let complete = receiver.take(seq, Fragment { first, last, payload });
            seq = seq.wrapping_add(1);
            complete.then(|| receiver.message().to_vec())
        };
        assert_eq!(take(false, true, b"x"), None, "an end without a start");
        assert_eq!(take(true, false, b"ab"), None);
        assert_eq!(take(true, false, b"cd"), None, "a start inside a message drops what was there");
        assert_eq!(take(false, true, b"ef"), Some(b"cdef".to_vec()));
        assert_eq!(take(false, true, b"g"), None);
        assert_eq!(take(true, false, b"1234"), None);
        assert_eq!(take(false, false, b"5"), None, "larger than announced");
        assert_eq!(take(false, true, b"6"), None);
        assert_eq!(take(true, true, b"ok"), Some(b"ok".to_vec()));
    }

    #[test]
    fn copies_are_acknowledged_and_frames_ahead_are_a_gap() {
        let mut receiver = Receiver::<4>::new();
        let fragment = Fragment { first: true, last: true, payload: b"m" };
        assert!(receiver.take(0, fragment));
        assert_eq!(receiver.reply(), Some(Reply { gap: false }));
        receiver.replied();
        assert!(!receiver.take(0, fragment));
        assert_eq!(receiver.reply(), Some(Reply { gap: false }));
        assert!(!receiver.take(2, fragment));
        assert_eq!((receiver.reply(), receiver.expected_seq()), (Some(Reply { gap: true }), 1));
    }
}
