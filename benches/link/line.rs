//! One direction of a serial line, on a clock of nanoseconds.
//!
//! An octet takes ten bits. A frame is handed over when the one before has left, and arrives whole when its last octet
//! does. A frame that is lost takes its time on the line and never arrives.
//!
//! With a turnaround the octets go through a USB adapter that gives them to its host in packets: when 62 are there, or
//! when its latency timer runs out, which starts anew with each packet and each time it runs out, and lasts 16 ms. That
//! is what the most common adapters do as they come. The packet itself takes no time.

use std::collections::VecDeque;

use fieldgate::random::SeededRandom;

/// Octets of a full packet of the adapter.
const PACKET_BYTES: usize = 62;
/// The latency timer of the adapter, in nanoseconds.
pub const TURNAROUND_NS: u64 = 16_000_000;

/// What a line is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits a second.
    pub baud: u64,
    /// Frames of a hundred that are lost, in either direction.
    pub loss_percent: u64,
    /// Whether the gateway hears through a USB adapter.
    pub has_turnaround: bool,
}

impl Line {
    /// How long so many octets take, in nanoseconds.
    pub fn octets_ns(self, octets: usize) -> u64 {
        octets as u64 * 10_000_000_000 / self.baud
    }
}

/// One direction.
pub struct Direction {
    line: Line,
    random: SeededRandom,
    free_at: u64,
    /// When each octet arrives at the far end of the wire.
    octets: VecDeque<(u64, u8)>,
    /// When the timer of the adapter was started last, if there is one.
    timer_since: Option<u64>,
    /// Where the last octet of each frame arrives, without an adapter.
    ends: VecDeque<u64>,
}

impl Direction {
    pub fn new(line: Line, has_adapter: bool, seed: u64) -> Self {
        Self {
            line,
            random: SeededRandom::new(seed),
            free_at: 0,
            octets: VecDeque::new(),
            timer_since: has_adapter.then_some(0),
            ends: VecDeque::new(),
        }
    }

    /// Whether a frame may be handed over.
    pub fn is_free(&self, now: u64) -> bool {
        self.free_at <= now
    }

    /// When it will be so, if it is not now.
    pub fn free_at(&self, now: u64) -> Option<u64> {
        Some(self.free_at).filter(|free_at| *free_at > now)
    }

    /// Takes a frame.
    pub fn carry(&mut self, frame: &[u8], now: u64) {
        self.free_at = now + self.line.octets_ns(frame.len());
        if self.random.next_u64() % 100 < self.line.loss_percent {
            return;
        }
        let arrivals = (1..).map(|count| now + self.line.octets_ns(count));
        self.octets.extend(arrivals.zip(frame.iter().copied()));
        self.ends.push_back(self.free_at);
    }

    /// When the next octets are given to the receiver.
    pub fn delivers_at(&self) -> Option<u64> {
        let Some(since) = self.timer_since else { return self.ends.front().copied() };
        let (first, _) = self.octets.front()?;
        let runs_out = since + (first - since).div_ceil(TURNAROUND_NS).max(1) * TURNAROUND_NS;
        let is_full = self.octets.get(PACKET_BYTES - 1).map(|(at, _)| *at);
        Some(is_full.map_or(runs_out, |is_full| is_full.min(runs_out)))
    }

    /// The octets that are given to the receiver now.
    pub fn deliver(&mut self, now: u64) -> Vec<u8> {
        if self.delivers_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.timer_since = self.timer_since.map(|_| now);
        self.ends.pop_front();
        let there = self.octets.iter().take_while(|(at, _)| *at <= now).count();
        self.octets.drain(..there).map(|(_, octet)| octet).collect()
    }
}
