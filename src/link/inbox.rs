//! One stream from the peer: a window of octets, put in their places as frames bring them, read message by message.
//!
//! ```text
//! buffer   | message | message | part of one |   gap   | came early |   free   |
//!          ^ offset base                     ^ ready   |--- ahead ---|          ^ limit
//! ```

use heapless::Vec;

use crate::limits::{LINK_MESSAGE_BYTES_MAX, LINK_PIECES_AHEAD};

use super::memory::Storage;
use super::varint::{self, Parsed};

/// The peer says what can never become a message here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What became of the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is no place for it: the frame is dropped.
    Dropped,
    /// Every octet of it was here already.
    Copy,
    /// Some of it is new.
    New,
}

pub(super) struct Inbox<S> {
    storage: S,
    /// The offset of the first octet in the buffer.
    base: u16,
    /// Octets without a gap before them.
    ready: usize,
    /// From where to where octets came early, lowest first, with gaps between them.
    ahead: Vec<(u16, u16), LINK_PIECES_AHEAD>,
    /// The limit that the peer was told last.
    told: u16,
}

impl<S: Storage> Inbox<S> {
    pub fn new() -> Self {
        const { assert!(S::BYTES_MAX < 1 << 15) };
        Self { storage: S::default(), base: 0, ready: 0, ahead: Vec::new(), told: Self::WINDOW }
    }

    /// Octets from the base to the limit.
    pub const WINDOW: u16 = S::BYTES_MAX as u16;

    /// Drops everything and begins a stream.
    pub fn reset(&mut self) {
        (self.base, self.ready, self.told) = (0, 0, Self::WINDOW);
        self.ahead.clear();
    }

    /// Takes the payload of a frame.
    pub fn take(&mut self, offset: u16, payload: &[u8]) -> Taken {
        // Seen from the base, an offset is at most 32768 before it or 32767 behind it.
        let start = isize::from(offset.wrapping_sub(self.base) as i16);
        let end = start + isize::try_from(payload.len()).unwrap_or(isize::MAX);
        if end > isize::try_from(S::BYTES_MAX).unwrap_or(isize::MAX) {
            return Taken::Dropped;
        }
        let known = isize::try_from(self.ready).unwrap_or(isize::MAX);
        if end <= known || payload.is_empty() {
            return Taken::Copy;
        }
        let skipped = usize::try_from(known - start).unwrap_or(0);
        // What is left lies behind `ready`, so neither is negative.
        let (from, to) = (start.max(known) as usize, end as usize);
        if self.ahead.iter().any(|&(start, end)| usize::from(start) <= from && to <= usize::from(end)) {
            return Taken::Copy;
        }
        if from == self.ready {
            self.ready = to;
        } else if !self.note_ahead(from as u16, to as u16) {
            return Taken::Dropped;
        }
        self.storage.reserve(S::BYTES_MAX);
        self.storage.octets_mut()[from..to].copy_from_slice(&payload[skipped..]);
        self.close_gap();
        Taken::New
    }

    /// The oldest message that is whole.
    ///
    /// # Errors
    /// [`Broken`] when the octets there can never become one.
    pub fn message(&self) -> Result<Option<&[u8]>, Broken> {
        Ok(self.front()?.map(|(prefix, length)| &self.storage.octets()[prefix..prefix + length]))
    }

    /// That message was taken: its room is free.
    pub fn release(&mut self) {
        let Ok(Some((prefix, length))) = self.front() else { return };
        let bytes = prefix + length;
        let end = self.ahead.last().map_or(self.ready, |(_, to)| usize::from(*to));
        self.storage.octets_mut().copy_within(bytes..end, 0);
        self.ready -= bytes;
        // No message is longer than the buffer, which is below 32768.
        let moved = bytes as u16;
        self.ahead.iter_mut().for_each(|(from, to)| (*from, *to) = (*from - moved, *to - moved));
        self.base = self.base.wrapping_add(moved);
    }

    /// Whether no octet is here.
    pub fn is_empty(&self) -> bool {
        self.ready == 0 && self.ahead.is_empty()
    }

    /// The offset from which on there is no room.
    pub fn limit(&self) -> u16 {
        self.base.wrapping_add(Self::WINDOW)
    }

    /// The peer is being told the limit.
    pub fn tell_limit(&mut self) -> u16 {
        self.told = self.limit();
        self.told
    }

    /// Whether the limit rose by so much that the peer should know at once.
    pub fn is_limit_due(&self) -> bool {
        let rise = self.limit().wrapping_sub(self.told);
        rise > 0 && rise >= Self::WINDOW / 2
    }

    /// Whether the peer has used more than half of what it was told, so that it may soon wait.
    pub fn is_limit_near(&self) -> bool {
        let used = self.ahead.last().map_or(self.ready, |(_, to)| usize::from(*to));
        let left = self.told.wrapping_sub(self.base.wrapping_add(used as u16));
        left < Self::WINDOW / 2
    }

    /// Octets that the length of the oldest message takes, and its length.
    fn front(&self) -> Result<Option<(usize, usize)>, Broken> {
        match varint::parse(&self.storage.octets()[..self.ready.min(self.storage.octets().len())]) {
            Parsed::Partial => Ok(None),
            Parsed::Invalid => Err(Broken),
            Parsed::Whole { length, bytes } if length > LINK_MESSAGE_BYTES_MAX || length + 2 > S::BYTES_MAX => {
                debug_assert!(bytes <= 2);
                Err(Broken)
            }
            Parsed::Whole { length, bytes } => Ok((bytes + length <= self.ready).then_some((bytes, length))),
        }
    }

    /// Notes that octets came early; false when there are too many gaps to remember.
    fn note_ahead(&mut self, from: u16, to: u16) -> bool {
        let (mut from, mut to) = (from, to);
        let joined: Vec<(u16, u16), LINK_PIECES_AHEAD> =
            self.ahead.iter().copied().filter(|(start, end)| *start <= to && from <= *end).collect();
        if joined.is_empty() && self.ahead.is_full() {
            return false;
        }
        for (start, end) in joined {
            (from, to) = (from.min(start), to.max(end));
        }
        self.ahead.retain(|(start, end)| *end < from || *start > to);
        let place = self.ahead.iter().position(|(start, _)| *start > from).unwrap_or(self.ahead.len());
        self.ahead.insert(place, (from, to)).is_ok()
    }

    /// What came early is not early any more once the gap before it is filled.
    fn close_gap(&mut self) {
        while let Some(&(from, to)) = self.ahead.first()
            && usize::from(from) <= self.ready
        {
            self.ready = self.ready.max(to.into());
            self.ahead.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::memory::Fixed;
    use proptest::prelude::*;
    use std::vec::Vec as StdVec;

    type Small = Inbox<Fixed<34>>;

    #[test]
    fn c_31_messages_come_out_whole_and_in_order_whatever_the_cuts() {
        let mut inbox = Small::new();
        let stream = [&[3][..], b"abc", &[0], &[2], b"de"].concat();
        for (at, octet) in stream.iter().enumerate() {
            assert_eq!(inbox.take(at as u16, &[*octet]), Taken::New);
        }
        for expected in [&b"abc"[..], b"", b"de"] {
            assert_eq!(inbox.message(), Ok(Some(expected)));
            inbox.release();
        }
        assert_eq!(inbox.message(), Ok(None));
        assert_eq!(inbox.limit(), stream.len() as u16 + 34);
    }

    #[test]
    fn what_comes_early_waits_for_the_gap_and_copies_change_nothing() {
        let mut inbox = Small::new();
        assert_eq!(inbox.take(4, b"e"), Taken::New);
        assert_eq!(inbox.take(2, b"cd"), Taken::New);
        assert_eq!(inbox.take(3, b"de"), Taken::Copy, "what came early came");
        assert_eq!(inbox.message(), Ok(None));
        assert_eq!(inbox.take(0, &[4, b'b']), Taken::New);
        assert_eq!(inbox.message(), Ok(Some(&b"bcde"[..])));
        assert_eq!(inbox.take(1, b"bcd"), Taken::Copy);
        inbox.release();
        assert_eq!(inbox.take(0, &[4, b'b']), Taken::Copy);
        assert_eq!(inbox.take(3, &[9, 9, 0]), Taken::New, "the first two are known, the third is a message");
        assert_eq!(inbox.message(), Ok(Some(&b""[..])));
    }

    #[test]
    fn at_most_so_many_gaps_are_kept_and_nothing_behind_the_limit() {
        let mut inbox = Small::new();
        for piece in 0..LINK_PIECES_AHEAD as u16 {
            assert_eq!(inbox.take(2 + 3 * piece, b"x"), Taken::New);
        }
        assert_eq!(inbox.take(30, b"x"), Taken::Dropped);
        assert_eq!(inbox.take(3, b"xx"), Taken::New, "it joins two of them");
        assert_eq!(inbox.take(30, b"x"), Taken::New);
        assert_eq!(inbox.take(34, b""), Taken::Copy, "a question for the limit has no octets");
        assert_eq!(inbox.take(33, b"xx"), Taken::Dropped);
    }

    #[test]
    fn c_66_a_length_that_cannot_be_is_noticed() {
        for octets in [&[33, 0][..], &[0xff, 0x80], &[0xff, 0x7f]] {
            let mut inbox = Small::new();
            assert_eq!(inbox.take(0, octets), Taken::New);
            assert_eq!(inbox.message(), Err(Broken));
            inbox.release();
        }
        let mut inbox = Small::new();
        inbox.take(0, &[32]);
        assert_eq!(inbox.message(), Ok(None));
    }

    #[test]
    fn the_peer_is_told_of_room_before_it_needs_it_and_not_each_time() {
        let mut inbox = Small::new();
        inbox.take(0, &[3, 1, 2, 3]);
        assert!(!inbox.is_limit_near());
        inbox.release();
        assert!(!inbox.is_limit_due());
        inbox.take(4, &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(inbox.is_limit_near());
        inbox.release();
        assert!(inbox.is_limit_due());
        assert_eq!(inbox.tell_limit(), 54);
        assert!(!inbox.is_limit_due() && !inbox.is_limit_near());
    }

    proptest! {
        /// C-32, C-66: whatever a peer sends, a message that comes out is one that was sent.
        #[test]
        fn c_32_any_order_of_pieces_gives_the_same_messages(
            lengths in prop::collection::vec(0usize..30, 1..40),
            seed in any::<u64>(),
        ) {
            let stream: StdVec<u8> = lengths
                .iter()
                .flat_map(|length| core::iter::once(*length as u8).chain((0..*length).map(|at| (at * 7) as u8)))
                .collect();
            let (mut inbox, mut found, mut state) = (Small::new(), StdVec::new(), seed | 1);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) as usize) % below
            };
            let mut done = 0;
            for _ in 0..20_000 {
                let from = done + random(40);
                let to = (from + random(12)).min(stream.len());
                if from < to {
                    inbox.take(from as u16, &stream[from..to]);
                }
                while let Ok(Some(message)) = inbox.message() {
                    done += 1 + message.len();
                    found.push(message.len());
                    prop_assert!(message.iter().enumerate().all(|(at, octet)| *octet == (at * 7) as u8));
                    inbox.release();
                }
            }
            prop_assert_eq!(found, lengths);
        }
    }
}
