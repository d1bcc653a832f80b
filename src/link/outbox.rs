//! One stream on its way to the peer: messages with their lengths, from the oldest octet in flight on.
//!
//! It knows octets and their offsets; which frames carry them is the business of `flight`.
//!
//! ```text
//! buffer   | free | in flight, some arrived ...... | new ............ | free |
//!                 ^ head (offset base)             ^ head + sent      ^ tail
//! ```

use crate::limits::LINK_WINDOW_BYTES_MAX;

use super::Full;
use super::memory::Storage;
use super::varint;

pub(super) struct Outbox<S> {
    storage: S,
    head: usize,
    tail: usize,
    sent: usize,
    /// The offset of the octet at `head`.
    base: u16,
    /// The offset from which on the peer has no room.
    limit: u16,
}

impl<S: Storage> Outbox<S> {
    pub fn new() -> Self {
        const { assert!(S::BYTES_MAX < 1 << 15) };
        Self { storage: S::default(), head: 0, tail: 0, sent: 0, base: 0, limit: 0 }
    }

    /// Drops everything and begins a stream to a peer with a window of so many octets, a larger one than there can be
    /// counting as that.
    pub fn reset(&mut self, window: u16) {
        self.storage.release();
        let limit = window.min(LINK_WINDOW_BYTES_MAX as u16);
        (self.head, self.tail, self.sent, self.base, self.limit) = (0, 0, 0, 0, limit);
    }

    /// Octets of the largest message that fits now.
    pub fn room(&self) -> usize {
        let free = S::BYTES_MAX - (self.tail - self.head);
        free.saturating_sub(if free > varint::ONE_OCTET_MAX + 1 { 2 } else { 1 })
    }

    /// Whether every octet has arrived.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Takes a whole message.
    pub fn push(&mut self, message: &[u8]) -> Result<(), Full> {
        let length = u16::try_from(message.len()).map_err(|_| Full)?;
        let mut prefix = [0; 2];
        let prefix = varint::emit(length, &mut prefix).ok_or(Full)?;
        let bytes = prefix.len() + message.len();
        if bytes > S::BYTES_MAX - (self.tail - self.head) {
            return Err(Full);
        }
        if bytes > S::BYTES_MAX - self.tail {
            self.compact();
        }
        self.storage.reserve(self.tail + bytes);
        let (head, body) = self.storage.octets_mut()[self.tail..][..bytes].split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        body.copy_from_slice(message);
        self.tail += bytes;
        Ok(())
    }

    /// How many octets, at most `bytes_max`, are new and may be sent, and their offset.
    pub fn new_octets(&self, bytes_max: usize) -> Option<(u16, u16)> {
        let waiting = self.tail - self.head - self.sent;
        let bytes = waiting.min(bytes_max).min(self.credit().into());
        // No more than the credit, which has 16 bits.
        if bytes == 0 { None } else { Some((self.next(), bytes as u16)) }
    }

    /// So many of them are on their way.
    pub fn sent(&mut self, bytes: u16) {
        self.sent += usize::from(bytes);
    }

    /// The octets of a frame in flight.
    pub fn octets(&self, offset: u16, bytes: u16) -> &[u8] {
        let from = self.head + usize::from(offset.wrapping_sub(self.base));
        &self.storage.octets()[from..][..bytes.into()]
    }

    /// Only credit is missing: where a frame without payload asks for it.
    pub fn starved_at(&self) -> Option<u16> {
        let is_starved = self.tail - self.head > self.sent && self.credit() == 0;
        if is_starved { Some(self.next()) } else { None }
    }

    /// The peer has no room from `limit` on; an older limit than the one known is none. Whether it rose.
    pub fn set_limit(&mut self, limit: u16) -> bool {
        let rise = limit.wrapping_sub(self.limit);
        let is_newer = rise != 0 && rise < 1 << 15;
        if is_newer {
            self.limit = limit;
        }
        is_newer
    }

    /// Everything before the oldest frame in flight has arrived; all that was sent, if there is none.
    pub fn arrived(&mut self, oldest: Option<u16>) {
        let bytes = oldest.map_or(self.sent, |offset| usize::from(offset.wrapping_sub(self.base)));
        self.head += bytes;
        self.sent -= bytes;
        // At most the size of the buffer, which is below 32768.
        self.base = self.base.wrapping_add(bytes as u16);
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
            self.storage.release();
        }
    }

    /// The offset of the oldest octet that is here.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// The offset of the first new octet.
    fn next(&self) -> u16 {
        self.base.wrapping_add(self.sent as u16)
    }

    /// How many more octets the peer has room for. A peer that takes its word back has none.
    fn credit(&self) -> u16 {
        let credit = self.limit.wrapping_sub(self.next());
        if credit < 1 << 15 { credit } else { 0 }
    }

    fn compact(&mut self) {
        self.storage.octets_mut().copy_within(self.head..self.tail, 0);
        self.tail -= self.head;
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::memory::Fixed;
    use std::vec::Vec;

    type Small = Outbox<Fixed<16>>;

    #[test]
    fn messages_are_a_length_and_their_octets() {
        let mut outbox = started(100);
        outbox.push(b"ab").expect("room");
        outbox.push(b"").expect("room");
        assert_eq!(take(&mut outbox, 100), [2, b'a', b'b', 0]);
        assert_eq!(take(&mut outbox, 100), [0_u8; 0]);
    }

    #[test]
    fn a_full_outbox_refuses_and_keeps_its_state() {
        let mut outbox = started(100);
        assert_eq!(outbox.room(), 15);
        assert_eq!(outbox.push(&[1; 16]), Err(Full));
        outbox.push(&[1; 9]).expect("room");
        assert_eq!((outbox.room(), outbox.push(&[1; 6])), (5, Err(Full)));
        outbox.push(&[2; 5]).expect("room for exactly that");
        assert_eq!(outbox.room(), 0);
        assert_eq!(outbox.push(b""), Err(Full));
    }

    /// Issue of a device with little memory: no octet goes where it has no room.
    #[test]
    fn nothing_is_sent_at_or_behind_the_limit() {
        let mut outbox = started(5);
        outbox.push(&[7; 9]).expect("room");
        assert_eq!((take(&mut outbox, 3).len(), outbox.starved_at()), (3, None));
        assert_eq!((take(&mut outbox, 9).len(), outbox.starved_at()), (2, Some(5)));
        assert!(!outbox.set_limit(4), "a limit does not fall");
        assert!(outbox.set_limit(6));
        assert_eq!((take(&mut outbox, 9).len(), outbox.starved_at()), (1, Some(6)));
    }

    #[test]
    fn what_has_arrived_makes_room_and_what_is_in_flight_stays() {
        let mut outbox = started(1_000);
        for round in 0..50_u16 {
            let base = round * 10;
            outbox.push(&[round as u8; 9]).expect("room");
            assert_eq!(take(&mut outbox, 4).len() + take(&mut outbox, 6).len(), 10);
            outbox.arrived(Some(base + 4));
            assert_eq!(outbox.octets(base + 4, 6), [round as u8; 6]);
            assert!(!outbox.is_empty());
            outbox.arrived(None);
            assert!(outbox.is_empty());
            outbox.set_limit(base + 1_000);
        }
    }

    #[test]
    fn offsets_wrap() {
        let mut outbox = started(30_000);
        for _ in 0..20_000 {
            outbox.push(&[1; 9]).expect("room");
            let (offset, bytes) = outbox.new_octets(100).expect("within the limit");
            outbox.sent(bytes);
            assert_eq!(outbox.octets(offset, bytes).len(), 10);
            outbox.arrived(None);
            outbox.set_limit(offset.wrapping_add(30_000));
        }
    }

    fn started(window: u16) -> Small {
        let mut outbox = Small::new();
        outbox.reset(window);
        outbox
    }

    fn take(outbox: &mut Small, bytes_max: usize) -> Vec<u8> {
        let Some((offset, bytes)) = outbox.new_octets(bytes_max) else { return Vec::new() };
        outbox.sent(bytes);
        outbox.octets(offset, bytes).to_vec()
    }
}
