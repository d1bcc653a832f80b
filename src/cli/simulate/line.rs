//! A bad line: what it does to the octets of one direction.
//!
//! Octets go in as they are read or sent, whole frames come out, each at the time at which its last octet arrives. A line
//! loses whole frames, flips a bit of others, has a speed, and a delay that all frames share, so none overtakes another.
//!
//! ```text
//!   put(octets) --> [ cut at delimiters ] -- lost? --> [ a bit flips? ] --> [ speed, then delay ] --> take()
//! ```
//!
//! Time is an argument, and randomness comes from a seed: the same frames suffer each time.

use std::collections::VecDeque;

use crate::limits::{LINK_MTU_BYTES_MAX, SIMULATE_LINE_BYTES_MAX};
use crate::random::SeededRandom;
use crate::time::{Duration, Instant};
use crate::wire::cobs::DELIMITER;

/// Bits that an octet takes on a serial line: start, eight of data, stop.
const BITS_PER_OCTET: u64 = 10;
const US_PER_S: u64 = 1_000_000;

/// What a line is like, in both directions; the default is a perfect one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// How many of a hundred frames are lost.
    pub loss_percent: u8,
    /// In how many of a hundred frames a bit flips.
    pub corrupt_percent: u8,
    /// How much later each frame arrives.
    pub delay: Duration,
    /// Speed in baud, if it has one.
    pub baud: Option<u32>,
}

/// One direction of a line.
pub(super) struct Line {
    quality: Quality,
    random: SeededRandom,
    /// The frame whose octets are being put in.
    cutting: Vec<u8>,
    /// Whether that frame is lost; none between frames.
    is_lost: Option<bool>,
    /// When the last octet that was put in has left, in microseconds.
    free_at_us: u64,
    arriving: VecDeque<Arriving>,
    arriving_bytes: usize,
}

struct Arriving {
    at: Instant,
    octets: Vec<u8>,
}

impl Line {
    pub fn new(quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            random: SeededRandom::new(seed),
            cutting: Vec::new(),
            is_lost: None,
            free_at_us: 0,
            arriving: VecDeque::new(),
            arriving_bytes: 0,
        }
    }

    /// Whether the last frame that was put in has left: whoever sends waits for it.
    pub fn is_free(&self, now: Instant) -> bool {
        self.free_at() <= now
    }

    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.arriving.is_empty()
    }

    /// Octets enter the line. What its buffer of [`SIMULATE_LINE_BYTES_MAX`] octets does not hold is lost.
    pub fn put(&mut self, octets: &[u8], now: Instant) {
        for piece in octets.split_inclusive(|octet| *octet == DELIMITER) {
            self.put_piece(piece, now);
        }
    }

    /// The next frame that has arrived.
    pub fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.arriving.front().filter(|next| next.at <= now)?;
        let arrived = self.arriving.pop_front()?;
        self.arriving_bytes -= arrived.octets.len();
        Some(arrived.octets)
    }

    /// When the next frame arrives, or the line is free again.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let arrives = self.arriving.front().map(|next| next.at);
        let frees = Some(self.free_at()).filter(|at| *at > now);
        arrives.into_iter().chain(frees).min()
    }

    /// The connection ended: what was on its way is gone.
    pub fn cut(&mut self) {
        *self = Self { random: self.random.clone(), ..Self::new(self.quality, 0) };
    }

    /// A part of one frame; what never ends is passed on in pieces of the largest frame.
    fn put_piece(&mut self, mut piece: &[u8], now: Instant) {
        while !piece.is_empty() {
            let room = LINK_MTU_BYTES_MAX - self.cutting.len();
            let (head, rest) = piece.split_at(room.min(piece.len()));
            self.cutting.extend_from_slice(head);
            piece = rest;
            let ends = head.last() == Some(&DELIMITER);
            if ends || self.cutting.len() == LINK_MTU_BYTES_MAX {
                let octets = std::mem::take(&mut self.cutting);
                self.send(octets, ends, now);
            }
        }
    }

    fn send(&mut self, mut octets: Vec<u8>, ends: bool, now: Instant) {
        let is_lost = match self.is_lost.take() {
            Some(is_lost) => is_lost,
            None => self.strikes(self.quality.loss_percent),
        };
        self.is_lost = (!ends).then_some(is_lost);
        let now_us = now.as_millis().saturating_mul(1_000);
        self.free_at_us = self.free_at_us.max(now_us) + self.duration_us(octets.len());
        if is_lost || self.arriving_bytes + octets.len() > SIMULATE_LINE_BYTES_MAX {
            return;
        }
        if self.strikes(self.quality.corrupt_percent) {
            let bit = self.random.next_u64() as usize % (octets.len() * 8);
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        self.arriving_bytes += octets.len();
        self.arriving.push_back(Arriving { at: self.free_at() + self.quality.delay, octets });
    }

    fn strikes(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.next_u64() % 100 < percent.into()
    }

    fn duration_us(&self, bytes: usize) -> u64 {
        self.quality.baud.map_or(0, |baud| bytes as u64 * BITS_PER_OCTET * US_PER_S / u64::from(baud.max(1)))
    }

    fn free_at(&self) -> Instant {
        Instant::from_millis(self.free_at_us.div_ceil(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1_000);

    #[test]
    fn a_perfect_line_changes_nothing_and_takes_no_time() {
        let mut line = Line::new(Quality::default(), 1);
        line.put(b"ab\0c", NOW);
        assert_eq!(line.take(NOW), Some(b"ab\0".to_vec()));
        assert_eq!(line.take(NOW), None);
        line.put(b"d\0\0", NOW);
        assert!(line.is_free(NOW));
        assert_eq!(drain(&mut line, NOW), b"cd\0\0");
        assert!(line.is_empty());
    }

    #[test]
    fn whole_frames_are_lost_whatever_the_chunks() {
        let stream: Vec<u8> = (1..=200u8).flat_map(|number| [number, number, DELIMITER]).collect();
        let kept = |chunk: usize| {
            let mut line = Line::new(Quality { loss_percent: 30, ..Quality::default() }, 5);
            stream.chunks(chunk).for_each(|octets| line.put(octets, NOW));
            drain(&mut line, NOW)
        };
        assert_eq!(kept(1), kept(1000));
        assert_eq!(kept(2), kept(7));
        assert!(kept(1).chunks(3).all(|frame| frame[0] == frame[1] && frame[2] == DELIMITER));
        assert!((350..500).contains(&kept(1).len()), "{}", kept(1).len());
    }

    #[test]
    fn nothing_is_lost_without_loss_and_everything_with_all_of_it() {
        for (loss_percent, left) in [(0, 6), (100, 0)] {
            let mut line = Line::new(Quality { loss_percent, ..Quality::default() }, 1);
            line.put(b"ab\0cd\0", NOW);
            assert_eq!(drain(&mut line, NOW).len(), left);
        }
    }

    #[test]
    fn one_bit_flips_in_the_share_of_frames_that_was_asked_for() {
        let frame = [0x55, 0x55, 0x55, DELIMITER];
        let mut line = Line::new(Quality { corrupt_percent: 20, ..Quality::default() }, 3);
        let mut flipped = 0;
        for _ in 0..1_000 {
            line.put(&frame, NOW);
            let arrived = line.take(NOW).expect("none is lost");
            let bits: u32 = arrived.iter().zip(frame).map(|(is, was)| (is ^ was).count_ones()).sum();
            assert!(bits <= 1);
            flipped += bits;
        }
        assert!((150..250).contains(&flipped), "{flipped}");
    }

    #[test]
    fn each_frame_arrives_so_much_later_and_none_overtakes() {
        let mut line = Line::new(Quality { delay: Duration::from_millis(16), ..Quality::default() }, 1);
        line.put(b"a\0", NOW);
        line.put(b"b\0", after(5));
        assert!(line.is_free(after(5)), "the delay is on the way, not at the start");
        assert_eq!(line.poll_timeout(after(5)), Some(after(16)));
        assert_eq!(line.take(after(15)), None);
        assert_eq!(line.take(after(16)), Some(b"a\0".to_vec()));
        assert_eq!(line.take(after(20)), None);
        assert_eq!(line.take(after(21)), Some(b"b\0".to_vec()));
    }

    /// 96 octets at 9600 baud take 100 ms, one frame after the other.
    #[test]
    fn octets_go_no_faster_than_the_line() {
        let mut line = Line::new(Quality { baud: Some(9_600), ..Quality::default() }, 1);
        let frame = [[7; 95].as_slice(), &[DELIMITER]].concat();
        line.put(&frame, NOW);
        assert!(!line.is_free(after(99)) && line.is_free(after(100)));
        line.put(&frame, NOW);
        assert_eq!(line.take(after(99)), None);
        assert!(line.take(after(100)).is_some());
        assert_eq!(line.poll_timeout(after(100)), Some(after(200)));
        assert_eq!(line.take(after(199)), None);
        assert!(line.take(after(200)).is_some());
        assert_eq!(line.poll_timeout(after(200)), None);
    }

    /// A lost frame takes its time as well: it is lost at the far end.
    #[test]
    fn a_fast_line_is_not_rounded_up_frame_by_frame() {
        let mut line = Line::new(Quality { baud: Some(1_000_000), loss_percent: 100, ..Quality::default() }, 1);
        for _ in 0..100 {
            line.put(b"123456789\0", NOW);
        }
        assert!(!line.is_free(after(9)) && line.is_free(after(10)));
    }

    #[test]
    fn the_buffer_of_a_line_is_bounded_and_what_is_beyond_it_is_lost() {
        let mut line = Line::new(Quality { delay: Duration::from_secs(1), ..Quality::default() }, 1);
        for _ in 0..300 {
            line.put(&[9; LINK_MTU_BYTES_MAX], NOW);
        }
        assert_eq!(drain(&mut line, after(1_000)).len(), SIMULATE_LINE_BYTES_MAX);
        line.put(b"a\0b", after(1_000));
        line.cut();
        line.put(b"c\0", after(1_000));
        assert_eq!(drain(&mut line, after(2_000)), b"c\0");
    }

    fn after(ms: u64) -> Instant {
        NOW + Duration::from_millis(ms)
    }

    fn drain(line: &mut Line, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| line.take(now)).flatten().collect()
    }
}
