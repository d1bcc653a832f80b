//! Whole messages waiting for the peer, cut into fragments where they are sent.
//!
//! There is no table of fragments: the cuts follow from the messages and the MTU alone, so what is sent again is cut
//! again at the same places.
//!
//! ```text
//! buffer   | free | length | message ....... | length | message ..... | free |
//!                 ^ start        ^ acked          ^ next              ^ end
//! ```

use crate::wire::frame::payload_bytes_max;

use super::Full;

const LENGTH_BYTES: usize = 2;

/// A place in the buffer: in the message whose length is at `message`, behind `done` octets of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    message: usize,
    done: usize,
}

/// A fragment of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    pub first: bool,
    pub last: bool,
    pub payload: &'a [u8],
}

/// The messages: at most `TX` octets, two a message included. A message leaves when its last fragment is acknowledged.
pub(super) struct Queue<const TX: usize> {
    buffer: [u8; TX],
    start: usize,
    end: usize,
    payload_max: usize,
    /// The oldest fragment not acknowledged.
    acked: Position,
    /// The fragment to be sent next.
    next: Position,
}

impl<const TX: usize> Queue<TX> {
    pub fn new() -> Self {
        const { assert!(TX >= LENGTH_BYTES) };
        let origin = Position::default();
        Self { buffer: [0; TX], start: 0, end: 0, payload_max: 1, acked: origin, next: origin }
    }

    /// Drops everything and cuts for another MTU from now on.
    pub fn reset(&mut self, mtu: u16) {
        self.payload_max = payload_bytes_max(mtu.into());
        (self.start, self.end) = (0, 0);
        (self.acked, self.next) = (Position::default(), Position::default());
    }

    /// Octets of the largest message that fits now.
    pub fn room(&self) -> usize {
        (TX - (self.end - self.start)).saturating_sub(LENGTH_BYTES)
    }

    /// Whether every message was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes a whole message.
    pub fn push(&mut self, message: &[u8]) -> Result<(), Full> {
        let length = u16::try_from(message.len()).map_err(|_| Full)?;
        let bytes = LENGTH_BYTES + message.len();
        if bytes > TX - (self.end - self.start) {
            return Err(Full);
        }
        if bytes > TX - self.end {
            self.compact();
        }
        let (head, body) = self.buffer[self.end..][..bytes].split_at_mut(LENGTH_BYTES);
        head.copy_from_slice(&length.to_le_bytes());
        body.copy_from_slice(message);
        self.end += bytes;
        Ok(())
    }

    /// Whether everything has been sent at least once since the last [`go_back`](Self::go_back).
    pub fn is_drained(&self) -> bool {
        self.next.message >= self.end
    }

    /// The fragment to be sent next; it counts as sent.
    pub fn take(&mut self) -> Option<Fragment<'_>> {
        let at = self.next;
        let (bytes, last) = self.cut(at)?;
        self.next = after(at, bytes, last);
        let from = at.message + LENGTH_BYTES + at.done;
        Some(Fragment { first: at.done == 0, last, payload: &self.buffer[from..from + bytes] })
    }

    /// The oldest `count` fragments, all of them sent, have arrived.
    pub fn acknowledge(&mut self, count: u8) {
        for _ in 0..count {
            let (bytes, last) = self.cut(self.acked).expect("fragments that were sent lie in the buffer");
            self.acked = after(self.acked, bytes, last);
        }
        self.start = self.acked.message;
        self.next = self.next.max(self.acked);
    }

    /// Everything not acknowledged is to be sent again.
    pub fn go_back(&mut self) {
        self.next = self.acked;
    }

    /// Octets of the fragment at a place, and whether it is the last of its message.
    fn cut(&self, at: Position) -> Option<(usize, bool)> {
        if at.message >= self.end {
            return None;
        }
        let length = u16::from_le_bytes([self.buffer[at.message], self.buffer[at.message + 1]]);
        let rest = usize::from(length) - at.done;
        Some((rest.min(self.payload_max), rest <= self.payload_max))
    }

    fn compact(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.acked.message -= self.start;
        self.next.message -= self.start;
        self.start = 0;
    }
}

fn after(at: Position, bytes: usize, last: bool) -> Position {
    let done = at.done + bytes;
    if last { Position { message: at.message + LENGTH_BYTES + done, done: 0 } } else { Position { done, ..at } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_full_queue_refuses_and_keeps_state() {
        let mut queue = queue::<32>();
        assert_eq!((queue.room(), queue.push(&[1; 31])), (30, Err(Full)));
        assert_eq!(queue.push(&[1; 20]), Ok(()));
        assert_eq!((queue.room(), queue.push(&[2; 9])), (8, Err(Full)));
        assert_eq!(queue.push(&[2; 8]), Ok(()));
        assert_eq!((queue.room(), queue.push(&[])), (0, Err(Full)));
        assert_eq!(drain(&mut queue), [(true, false, 11), (false, true, 9), (true, true, 8)]);
    }

    #[test]
    fn acknowledged_messages_make_room_also_across_the_end_of_the_buffer() {
        let mut queue = queue::<40>();
        for round in 0..100 {
            queue.push(&[round; 17]).expect("room for one");
            queue.push(&[round; 17]).expect("room for two");
            while let Some(fragment) = queue.take() {
                assert!(fragment.payload.iter().all(|&octet| octet == round));
            }
            queue.acknowledge(1);
            assert_eq!(queue.room(), 0, "half a message keeps its place");
            queue.acknowledge(3);
            assert_eq!(queue.room(), 38);
        }
    }

    #[test]
    fn going_back_cuts_at_the_same_places() {
        let mut queue = queue::<100>();
        queue.push(&[1; 30]).expect("room");
        queue.push(&[]).expect("room");
        let cuts = drain(&mut queue);
        assert_eq!(cuts, [(true, false, 11), (false, false, 11), (false, true, 8), (true, true, 0)]);
        queue.acknowledge(1);
        queue.go_back();
        assert_eq!(drain(&mut queue), cuts[1..]);
        queue.go_back();
        queue.acknowledge(2);
        assert_eq!(drain(&mut queue), cuts[3..]);
    }

    fn queue<const TX: usize>() -> Queue<TX> {
        let mut queue = Queue::new();
        queue.reset(20);
        queue
    }

    fn drain<const TX: usize>(queue: &mut Queue<TX>) -> Vec<(bool, bool, usize)> {
        core::iter::from_fn(|| queue.take().map(|cut| (cut.first, cut.last, cut.payload.len()))).collect()
    }
}
