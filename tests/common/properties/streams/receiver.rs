//! What a side has heard: the octets of each stream by their offset, and which numbers it has to acknowledge.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate::limits::LINK_PIECES_AHEAD;
use fieldgate::random::SeededRandom;

use super::super::line::Arrived;

/// What becomes of the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Dropped,
    Copy,
    New,
}

/// What the octets at the front of a stream are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    Partial,
    Broken,
    Whole(Vec<u8>),
}

/// One stream that is heard.
pub struct Heard {
    pub content: Content,
    window: i64,
    /// The place of the oldest message that was not released.
    pub base: i64,
    /// There is no gap before this place.
    pub ready: i64,
    octets: BTreeMap<i64, u8>,
    /// The limit that the peer was told last.
    told: i64,
    /// Whether the peer asked for the limit, or it rose by half of the window.
    pub is_limit_owed: bool,
}

impl Heard {
    pub fn new(window: usize, seed: u64, broken_at: usize) -> Self {
        let content = Content { octets: vec![], random: SeededRandom::new(seed), broken_at, window };
        let window = window as i64;
        Self { content, window, base: 0, ready: 0, octets: BTreeMap::new(), told: window, is_limit_owed: false }
    }

    pub fn limit(&self) -> i64 {
        self.base + self.window
    }

    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub fn take(&mut self, start: i64, payload: &[u8]) -> Taken {
        let end = start + payload.len() as i64;
        if end > self.limit() {
            return Taken::Dropped;
        }
        self.is_limit_owed |= payload.is_empty();
        let new: BTreeMap<i64, u8> = (start..end)
            .zip(payload.iter().copied())
            .filter(|(place, _)| *place >= self.ready && !self.octets.contains_key(place))
            .collect();
        if new.is_empty() {
            return Taken::Copy;
        }
        let places: Vec<i64> = new.keys().copied().collect();
        self.octets.extend(new);
        if !self.octets.contains_key(&self.ready) && self.piece_count_ahead() > LINK_PIECES_AHEAD {
            self.octets.retain(|place, _| !places.contains(place));
            return Taken::Dropped;
        }
        while self.octets.contains_key(&self.ready) {
            self.ready += 1;
        }
        Taken::New
    }

    /// Pieces with a gap before them.
    fn piece_count_ahead(&self) -> usize {
        let ahead = self.octets.range(self.ready..);
        ahead.filter(|(place, _)| !self.octets.contains_key(&(**place - 1))).count()
    }

    pub fn front(&self) -> Front {
        let mut octets = (self.base..self.ready).map(|place| self.octets[&place]);
        let mut length = 0;
        for shift in [0, 7] {
            let Some(octet) = octets.next() else { return Front::Partial };
            length |= usize::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return match octets.take(length).collect::<Vec<u8>>() {
                    _ if length > 4096 || length as i64 + 2 > self.window => Front::Broken,
                    message if message.len() == length => Front::Whole(message),
                    _ => Front::Partial,
                };
            }
        }
        Front::Broken
    }

    pub fn release(&mut self) {
        let Front::Whole(message) = self.front() else { panic!("a message is there") };
        let is_long = self.octets[&self.base] >= 0x80;
        self.base += message.len() as i64 + if is_long { 2 } else { 1 };
        self.octets = self.octets.split_off(&self.base);
        self.is_limit_owed |= self.limit() - self.told >= self.window / 2;
    }

    /// Whether less than half of the window is left to the peer. One that takes more than it was told is told nothing.
    pub fn is_limit_near(&self) -> bool {
        let used = self.octets.last_key_value().map_or(self.ready, |(place, _)| (place + 1).max(self.ready));
        (0..self.window / 2).contains(&(self.told - used))
    }

    pub fn told(&mut self, limit: u16) {
        assert_eq!(limit, self.limit() as u16);
        self.told = self.limit();
        self.is_limit_owed = false;
    }
}

/// All that the peer ever says: messages, and from some place on what can be none.
pub struct Content {
    octets: Vec<u8>,
    random: SeededRandom,
    broken_at: usize,
    window: usize,
}

impl Content {
    /// What is before its begin was said in no session.
    pub fn octets(&mut self, start: i64, bytes: usize) -> Vec<u8> {
        (start..).take(bytes).map(|place| usize::try_from(place).map_or(0, |place| self.octet(place))).collect()
    }

    fn octet(&mut self, place: usize) -> u8 {
        while self.octets.len() <= place {
            self.say();
        }
        self.octets[place]
    }

    fn say(&mut self) {
        let [kind, large, small, form, fill, ..] = self.random.next_u64().to_le_bytes();
        let is_large = kind % 4 == 0;
        let mut length = if is_large { usize::from(large) % (self.window - 1) } else { usize::from(small) % 20 };
        if self.octets.len() >= self.broken_at {
            let too_large = (self.window - 1) as u8;
            self.octets.extend([&[too_large][..], &[0xff, 0xff], &[0xff, 0x7f], &[0x81, 0x20]][usize::from(form) % 4]);
            length = 0;
        } else if length > 127 || form % 8 == 0 {
            self.octets.extend([length as u8 | 0x80, (length >> 7) as u8]);
        } else {
            self.octets.push(length as u8);
        }
        self.octets.extend((0..length).map(|at| at as u8 ^ fill));
    }
}

/// Which numbers arrived and were not dropped.
#[derive(Default)]
pub struct Receipts {
    newest: Option<i64>,
    numbers: BTreeSet<i64>,
    pub is_owed: bool,
}

impl Receipts {
    pub fn note(&mut self, number: u8) {
        let number = match self.newest {
            None => number.into(),
            Some(newest) => newest + i64::from(number.wrapping_sub(newest as u8) as i8),
        };
        self.newest = self.newest.max(Some(number));
        self.numbers.insert(number);
        self.is_owed = true;
    }

    pub fn arrived(&self) -> Option<Arrived> {
        let newest = self.newest?;
        let before = (0..16).filter(|bit| self.numbers.contains(&(newest - 1 - bit)));
        Some((newest as u8, before.fold(0, |before, bit| before | 1 << bit)))
    }
}
