//! The messages of one stream, put together again from the frames that passed.
//!
//! It sees what the receiver sees, and more or less of it: a frame may have passed before this side listened, or reached
//! the receiver alone. Then it waits for a frame that begins with a whole message and goes on from there.
//!
//! ```text
//!   FOLLOWING --- octets missing for good, or no message ---> LOST
//!       ^                                                       |
//!       +---- a frame begins with a whole message --------------+
//! ```

use crate::limits::{LINK_MESSAGE_BYTES_MAX, LINK_MONITOR_AHEAD_BYTES_MAX, LINK_MONITOR_AHEAD_COUNT_MAX};

/// What comes next in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A message.
    Message(Vec<u8>),
    /// Octets are missing for good: messages are shown again once one begins a frame.
    Lost,
}

/// One stream of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Reassembly {
    /// Whether the place of the next message is known.
    is_following: bool,
    /// Whether it was said that it is not.
    is_lost_said: bool,
    /// The offset behind what is in `ready`.
    next: u16,
    ready: Vec<u8>,
    ahead: Vec<(u16, Vec<u8>)>,
    ahead_bytes: usize,
}

impl Reassembly {
    /// A stream from its beginning.
    pub fn from_start() -> Self {
        Self { is_following: true, ..Self::default() }
    }

    /// A stream that was joined somewhere.
    pub fn joined() -> Self {
        Self { is_lost_said: true, ..Self::default() }
    }

    /// Takes the payload of a frame. `is_message` says whether octets are a message of this direction.
    pub fn take(&mut self, offset: u16, payload: &[u8], is_message: impl Fn(&[u8]) -> bool) {
        if !self.is_following {
            if !begins_with_message(payload, is_message) {
                return;
            }
            *self = Self { next: offset, ..Self::from_start() };
        }
        if !self.append(offset, payload) {
            self.keep_ahead(offset, payload);
        }
        while let Some(at) = self.ahead.iter().position(|(offset, _)| is_at_or_before(*offset, self.next)) {
            let (offset, octets) = self.ahead.swap_remove(at);
            self.ahead_bytes -= octets.len();
            self.append(offset, &octets);
        }
    }

    /// What comes next, until there is nothing.
    pub fn poll(&mut self) -> Option<Next> {
        if !self.is_following {
            return (!std::mem::replace(&mut self.is_lost_said, true)).then_some(Next::Lost);
        }
        let Some((length, length_bytes)) = length(&self.ready) else {
            if self.ready.len() >= 2 {
                self.lose();
                return self.poll();
            }
            return None;
        };
        if length > LINK_MESSAGE_BYTES_MAX {
            self.lose();
            return self.poll();
        }
        let end = length_bytes + length;
        (self.ready.len() >= end).then(|| Next::Message(self.ready.drain(..end).skip(length_bytes).collect()))
    }

    /// Takes what is not there yet; whether there is no gap before it.
    fn append(&mut self, offset: u16, payload: &[u8]) -> bool {
        if !is_at_or_before(offset, self.next) {
            return false;
        }
        let known = usize::from(self.next.wrapping_sub(offset));
        if let Some(new) = payload.get(known..) {
            self.ready.extend_from_slice(new);
            // A payload has less than 1024 octets.
            self.next = self.next.wrapping_add(new.len() as u16);
        }
        true
    }

    fn keep_ahead(&mut self, offset: u16, payload: &[u8]) {
        if payload.is_empty() || self.ahead.iter().any(|(at, octets)| *at == offset && octets.len() >= payload.len()) {
            return;
        }
        self.ahead_bytes += payload.len();
        self.ahead.push((offset, payload.to_vec()));
        if self.ahead.len() > LINK_MONITOR_AHEAD_COUNT_MAX || self.ahead_bytes > LINK_MONITOR_AHEAD_BYTES_MAX {
            self.lose();
        }
    }

    fn lose(&mut self) {
        *self = Self::default();
    }
}

/// Modulo 65536, as limits are compared.
fn is_at_or_before(offset: u16, next: u16) -> bool {
    next.wrapping_sub(offset) < 1 << 15
}

fn begins_with_message(payload: &[u8], is_message: impl Fn(&[u8]) -> bool) -> bool {
    length(payload)
        .and_then(|(length, length_bytes)| payload.get(length_bytes..length_bytes + length))
        .is_some_and(is_message)
}

/// The length of a message, and the octets that it takes; `None` when it is not there or longer than two.
fn length(octets: &[u8]) -> Option<(usize, usize)> {
    match *octets {
        [low, ..] if low < 0x80 => Some((low.into(), 1)),
        [low, high, ..] if high < 0x80 => Some((usize::from(low & 0x7f) | usize::from(high) << 7, 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_of_frames_of_any_cut() {
        let stream = [&[3, 1, 2, 3, 0][..], &[0xac, 0x02], &[7; 300]].concat();
        for size in 1..stream.len() {
            let mut reassembly = Reassembly::from_start();
            let mut found = Vec::new();
            for (at, piece) in stream.chunks(size).enumerate() {
                reassembly.take((at * size) as u16, piece, any);
                found.extend(std::iter::from_fn(|| reassembly.poll()));
            }
            let expected = [vec![1, 2, 3], Vec::new(), vec![7; 300]].map(Next::Message);
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn copies_overlaps_and_pieces_out_of_order_change_nothing() {
        let mut reassembly = Reassembly::from_start();
        reassembly.take(3, &[3, 1, 9], any);
        reassembly.take(3, &[3, 1, 9], any);
        reassembly.take(0, &[3, 1], any);
        assert_eq!(reassembly.poll(), None);
        reassembly.take(1, &[1, 2, 3], any);
        assert_eq!(reassembly.poll(), Some(Next::Message(vec![1, 2, 3])));
        assert_eq!(reassembly.poll(), Some(Next::Message(vec![9])));
        reassembly.take(0, &[3, 1], any);
        assert_eq!(reassembly.poll(), None);
    }

    #[test]
    fn offsets_go_round() {
        let mut reassembly = Reassembly { next: 65_534, ..Reassembly::from_start() };
        reassembly.take(65_534, &[2, 5], any);
        reassembly.take(0, &[6], any);
        assert_eq!(reassembly.poll(), Some(Next::Message(vec![5, 6])));
    }

    #[test]
    fn what_is_missing_for_good_is_said_once_and_a_message_at_the_start_of_a_frame_goes_on() {
        let mut reassembly = Reassembly::from_start();
        for number in 0..=LINK_MONITOR_AHEAD_COUNT_MAX {
            assert_eq!(reassembly.poll(), None);
            reassembly.take(100 + number as u16, &[9], any);
        }
        assert_eq!((reassembly.poll(), reassembly.poll()), (Some(Next::Lost), None));
        reassembly.take(500, &[5, 1, 2], any);
        reassembly.take(503, &[1, 8], |message| message == [9]);
        assert_eq!(reassembly.poll(), None);
        reassembly.take(600, &[1, 9, 2], |message| message == [9]);
        reassembly.take(603, &[4, 4], |message| message == [9]);
        assert_eq!(reassembly.poll(), Some(Next::Message(vec![9])));
        assert_eq!(reassembly.poll(), Some(Next::Message(vec![4, 4])));
    }

    #[test]
    fn a_length_that_no_message_has_is_no_place_to_go_on_from() {
        for octets in [&[0xff, 0x7f, 1][..], &[0x80, 0x80, 1]] {
            let mut reassembly = Reassembly::from_start();
            reassembly.take(0, octets, any);
            assert_eq!((reassembly.poll(), reassembly.poll()), (Some(Next::Lost), None));
        }
    }

    fn any(_: &[u8]) -> bool {
        true
    }
}
