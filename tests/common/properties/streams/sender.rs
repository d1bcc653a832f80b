//! What a side has said: each stream from its first octet on, and what became of each frame.

use std::collections::BTreeSet;

use fieldgate::limits::{LINK_CREDIT_MS, LINK_FLIGHT_FRAMES, LINK_RTO_MS_MAX, LINK_RTO_MS_MIN, LINK_SILENCE_MS};
use fieldgate::time::{Duration, Instant};

use super::super::line::Arrived;

/// One stream that is said.
#[derive(Default)]
pub struct Said {
    pub octets: Vec<u8>,
    /// The place of the first octet that was never sent.
    pub next: usize,
    /// The place from which on the peer has no room, as it last said.
    pub limit: usize,
    /// Places that are to be sent again.
    lost: BTreeSet<usize>,
    /// Octets that the link has room for.
    room: usize,
}

impl Said {
    pub fn new(limit: usize, room: usize) -> Self {
        Self { limit, room, ..Self::default() }
    }

    pub fn hear_limit(&mut self, limit: u16) {
        let rise = limit.wrapping_sub(self.limit as u16);
        if rise < 1 << 15 {
            self.limit += usize::from(rise);
        }
    }

    /// Octets that the peer has room for. A limit that is too far ahead is behind, modulo 65536: there is no room.
    fn credit(&self) -> usize {
        Some((self.limit - self.next) % (1 << 16)).filter(|credit| *credit < 1 << 15).unwrap_or(0)
    }

    fn may_send(&self) -> bool {
        !self.lost.is_empty() || (self.next < self.octets.len() && self.credit() > 0)
    }

    fn is_starved(&self) -> bool {
        self.next < self.octets.len() && self.credit() == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    InFlight,
    Lost,
    /// It arrived, or all its octets were sent again.
    Done,
}

struct Sent {
    urgent: bool,
    start: usize,
    end: usize,
    fate: Fate,
}

pub struct Sender {
    /// The ordered stream and the urgent one.
    pub streams: [Said; 2],
    mtu: usize,
    frames: Vec<Sent>,
    /// How many of the first frames are done.
    oldest: usize,
    /// The timer ran out and nothing arrived since: so many frames may be sent.
    allowance: Option<u8>,
    /// When the timer began, and when something was heard or waiting began.
    waits_since: Instant,
    silent_since: Instant,
    is_measured: bool,
    /// How often the timer ran out since something arrived.
    doublings: u32,
    /// Nothing was heard since the last frame in flight was given up.
    is_unanswered: bool,
    credit_asked_at: Option<Instant>,
}

impl Sender {
    pub fn new(mtu: usize, streams: [Said; 2]) -> Self {
        Self {
            streams,
            mtu,
            frames: vec![],
            oldest: 0,
            allowance: None,
            waits_since: Instant::ZERO,
            silent_since: Instant::ZERO,
            is_measured: false,
            doublings: 0,
            is_unanswered: false,
            credit_asked_at: None,
        }
    }

    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Whether something is in flight or lost.
    pub fn is_waiting(&self) -> bool {
        self.oldest < self.frames.len()
    }

    pub fn is_done(&self) -> bool {
        let is_all_sent = self.streams.iter().all(|stream| stream.next == stream.octets.len());
        is_all_sent && self.unsettled().iter().all(|sent| sent.fate == Fate::Done || sent.start == sent.end)
    }

    /// Takes a message if there is room for it.
    pub fn say(&mut self, urgent: bool, message: &[u8]) -> bool {
        let prefix = match message.len() {
            length @ 0..128 => vec![length as u8],
            length => vec![length as u8 | 0x80, (length >> 7) as u8],
        };
        let kept = self.kept(urgent);
        let stream = &mut self.streams[usize::from(urgent)];
        let fits = prefix.len() + message.len() <= stream.room - kept;
        if fits {
            stream.octets.extend([&prefix, message].concat());
        }
        fits
    }

    /// Octets of a stream from the first that is not known to have arrived.
    pub fn kept(&self, urgent: bool) -> usize {
        let stream = &self.streams[usize::from(urgent)];
        let unsettled = self.unsettled().iter().filter(|sent| sent.urgent == urgent && sent.fate != Fate::Done);
        stream.octets.len() - unsettled.map(|sent| sent.start).chain([stream.next]).min().unwrap_or(0)
    }

    /// A DATA frame was sent.
    pub fn sent(&mut self, urgent: bool, number: u8, offset: u16, payload: &[u8], now: Instant) {
        assert_eq!(number, self.frames.len() as u8, "no number is skipped or used again");
        let in_flight = self.unsettled().iter().position(|sent| sent.fate == Fate::InFlight);
        assert!(in_flight.is_none_or(|first| self.unsettled().len() - first < LINK_FLIGHT_FRAMES));
        assert_ne!(self.allowance, Some(0), "one frame, until something arrives or the timer runs out again");
        self.allowance = self.allowance.map(|frames| frames - 1);
        let has_room = self.unsettled().len() < LINK_FLIGHT_FRAMES;
        assert!(urgent || !has_room || !self.streams[1].may_send(), "what is urgent goes first");

        let is_starved = self.streams[usize::from(urgent)].is_starved();
        if payload.is_empty() {
            assert!(is_starved && in_flight.is_none(), "only credit is missing");
            let pause = self.credit_asked_at.map(|asked_at| now.since(asked_at));
            assert!(pause.is_none_or(|pause| pause >= Duration::from_millis(LINK_CREDIT_MS)));
            self.credit_asked_at = Some(now);
        }
        if !self.is_waiting() {
            self.waits_since = now;
            self.silent_since = if self.is_unanswered { self.silent_since } else { now };
        }
        let oldest = self.unsettled().first().map(|sent| sent.start);
        let stream = &mut self.streams[usize::from(urgent)];
        let start = match stream.lost.first() {
            // With no number left, the oldest one is to be had again.
            Some(_) if !has_room => oldest.unwrap_or(stream.next),
            Some(&lowest) if !payload.is_empty() => lowest,
            _ => stream.next,
        };
        let end = start + payload.len();
        assert_eq!(offset, start as u16, "the lowest lost octet goes first, then what is new");
        assert!(end <= stream.limit, "{end} is behind the limit {}", stream.limit);
        assert_eq!(stream.octets.get(start..end), Some(payload));
        if start < stream.next {
            assert!((start..end).all(|place| stream.lost.remove(&place)), "only what was lost is sent again");
        } else {
            stream.next = end;
        }
        let is_lost = |sent: &&mut Sent| sent.urgent == urgent && sent.fate == Fate::Lost;
        for sent in self.frames[self.oldest..].iter_mut().filter(is_lost) {
            if stream.lost.range(sent.start..sent.end).next().is_none() {
                sent.fate = Fate::Done;
            }
        }
        self.frames.push(Sent { urgent, start, end, fate: Fate::InFlight });
        self.forget_done();
    }

    /// An ack came.
    pub fn hear_ack(&mut self, (newest, before): Arrived, now: Instant) {
        let oldest = self.oldest;
        let Some(newest) = (oldest..self.frames.len()).find(|number| *number as u8 == newest) else { return };
        let mut is_news = false;
        for number in oldest..=newest {
            let behind = newest - number;
            let is_named = behind == 0 || (behind <= 16 && before >> (behind - 1) & 1 == 1);
            match (self.frames[number].fate, is_named) {
                (Fate::Done, _) | (Fate::Lost, false) => {}
                (_, true) => {
                    is_news = true;
                    self.settle(number);
                }
                (Fate::InFlight, false) => self.lose(number),
            }
        }
        self.forget_done();
        if is_news {
            self.is_unanswered = false;
            (self.waits_since, self.silent_since, self.allowance) = (now, now, None);
            (self.is_measured, self.doublings) = (true, 0);
        }
    }

    /// The timer ran out.
    pub fn time_ran_out(&mut self, now: Instant) {
        self.waits_since = now;
        self.doublings = (self.doublings + 1).min(8);
        self.allowance = Some(1);
        if let Some(first) = self.unsettled().iter().position(|sent| sent.fate == Fate::InFlight) {
            self.lose(self.oldest + first);
        }
        self.forget_done();
        self.is_unanswered |= !self.is_waiting();
    }

    /// A frame of the session came, whatever it says.
    pub fn heard(&mut self) {
        self.is_unanswered &= self.is_waiting();
    }

    /// The peer was away.
    pub fn resume(&mut self, now: Instant) {
        self.is_unanswered = false;
        (self.waits_since, self.silent_since) = (now, now);
    }

    pub fn is_silent(&self, now: Instant) -> bool {
        self.is_waiting() && now.since(self.silent_since) >= Duration::from_millis(LINK_SILENCE_MS)
    }

    /// When a link whose line is free has something to do next.
    pub fn check_timeout(&self, at: Option<Instant>, now: Instant) {
        if !self.is_waiting() {
            let is_starved = self.streams.iter().any(Said::is_starved);
            assert_eq!(at.is_some(), is_starved);
            assert!(at.is_none_or(|at| at <= now + Duration::from_millis(LINK_CREDIT_MS)));
            return;
        }
        let at = at.expect("frames are in flight");
        let silent_at = self.silent_since + Duration::from_millis(LINK_SILENCE_MS);
        assert!(at <= silent_at && at <= self.waits_since + Duration::from_millis(LINK_RTO_MS_MAX.into()));
        let shortest = if self.is_measured { LINK_RTO_MS_MIN.into() } else { (4 * self.mtu as u64).max(1_000) };
        let doubled = (shortest << self.doublings).min(LINK_RTO_MS_MAX.into());
        assert!(at == silent_at || at >= self.waits_since + Duration::from_millis(doubled));
    }

    /// Nothing that may be sent is left.
    pub fn check_drained(&self) {
        let may_send = self.allowance != Some(0) && self.unsettled().len() < LINK_FLIGHT_FRAMES;
        assert!(!may_send || !self.streams.iter().any(Said::may_send), "it waits for nothing");
    }

    /// The frames that are not done, and some that are.
    fn unsettled(&self) -> &[Sent] {
        &self.frames[self.oldest..]
    }

    fn forget_done(&mut self) {
        let done = self.unsettled().iter().take_while(|sent| sent.fate == Fate::Done);
        self.oldest += done.count();
    }

    fn settle(&mut self, number: usize) {
        let Sent { urgent, start, end, fate } = &mut self.frames[number];
        *fate = Fate::Done;
        self.streams[usize::from(*urgent)].lost.retain(|place| !(*start..*end).contains(place));
    }

    fn lose(&mut self, number: usize) {
        let Sent { urgent, start, end, fate } = &mut self.frames[number];
        *fate = if start == end { Fate::Done } else { Fate::Lost };
        self.streams[usize::from(*urgent)].lost.extend(*start..*end);
    }
}
