//! The measuring of a line: which speed, which frames, how many are lost, how long they take.
//!
//! It is the gateway's side and sends PROBE frames alone, which every device answers without a session
//! ([`wire`](crate::wire), section 3). Octets and time are arguments, so it runs in a test as on a line.
//!
//! ```text
//!   FINDING a speed at which a short probe is answered, the fastest first
//!      |                                     \ none: UNANSWERED
//!      v
//!   SIZING: the largest frame that is answered, by halving what is left
//!      |
//!      v
//!   MEASURING the smallest, a middle and the largest size --> DONE
//! ```

use super::ear::{Ear, Heard, Overheard};
use super::figures::Figures;
use crate::limits::{
    LINK_MTU_BYTES_MAX, LINK_PROBE_LOST_COUNT_MAX, LINK_PROBE_ONLY_TRY_COUNT, LINK_PROBE_ROUND_COUNT,
    LINK_PROBE_TOKEN_TRY_COUNT, LINK_PROBE_TRY_COUNT, LINK_PROBE_TRY_MS, LINK_PROBE_WAIT_MS,
};
use crate::time::Duration;
use crate::wire::Role;
use crate::wire::cobs::{DELIMITER, decoded_bytes_max};
use crate::wire::frame::{Frame, padding_bytes_max};

/// Octets of the smallest PROBE frame on the line.
pub(super) const PROBE_BYTES_MIN: usize = 8;
/// Bits that an octet takes on a serial line.
const BITS_PER_OCTET: u64 = 10;
const US_PER_S: u64 = 1_000_000;
/// Octets after which the encoding adds one.
const COBS_BLOCK_BYTES: usize = 254;

/// What is to be found out.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Speeds to try, in this order; none when the line has none, or one.
    pub bauds: Vec<u32>,
    /// Octets of the largest frame that is tried.
    pub mtu: usize,
    /// Probes of each size.
    pub count: u32,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The line gets this speed, in baud; what arrived before means nothing.
    Speed(u32),
    /// These octets are sent.
    Send(Vec<u8>),
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Result {
    /// The speed, if the line has one.
    pub baud: Option<u32>,
    /// Octets of the largest frame that is answered.
    pub mtu: usize,
    /// The measurement of each size, smallest first.
    pub sizes: Vec<Figures>,
}

/// The measuring machine.
pub(super) struct Prober {
    plan: Plan,
    phase: Phase,
    baud: Option<u32>,
    is_speed_due: bool,
    ear: Ear,
    /// What the device said its largest frame is, if it said so.
    mtu_told: Option<usize>,
    sent: Option<Sent>,
    next_token: u8,
    /// The longest round trip of a short frame: how much longer than usual answers are waited for.
    round_trip: Duration,
}

/// The probe that is on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    token: u8,
    at: Duration,
    until: Duration,
}

#[derive(Clone, Debug)]
enum Phase {
    Finding {
        round: usize,
        index: usize,
        tries: u32,
        first_token: u8,
    },
    /// Frames of `low` octets are answered, and those of more than `high` are not.
    Sizing {
        low: usize,
        high: usize,
        trying: usize,
        tries: u32,
    },
    Measuring {
        mtu: usize,
        sizes: Vec<Figures>,
        index: usize,
        lost_in_a_row: u32,
    },
    Done(Result),
    Unanswered,
}

impl Prober {
    pub fn new(plan: Plan) -> Self {
        let baud = plan.bauds.first().copied();
        Self {
            plan,
            phase: Phase::Finding { round: 0, index: 0, tries: 0, first_token: 0 },
            baud,
            is_speed_due: baud.is_some(),
            ear: Ear::new(),
            mtu_told: None,
            sent: None,
            next_token: 0,
            round_trip: Duration::ZERO,
        }
    }

    /// Takes what arrived.
    pub fn feed(&mut self, mut octets: &[u8], now: Duration) {
        while !octets.is_empty() {
            let (taken, heard) = self.ear.feed(octets);
            octets = &octets[taken..];
            match heard {
                Some(Heard::Answer(token)) => self.answered(token, now),
                Some(Heard::Mtu(mtu)) => self.told(mtu),
                None => {}
            }
        }
    }

    /// Lets the wait for an answer run out. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.sent.take_if(|sent| sent.until <= now).is_some() {
            self.unanswered();
        }
    }

    /// What is due, until there is nothing.
    pub fn poll_output(&mut self, now: Duration) -> Option<Output> {
        if std::mem::take(&mut self.is_speed_due) {
            self.ear.clear();
            return self.baud.map(Output::Speed);
        }
        if self.sent.is_some() {
            return None;
        }
        let (bytes, wait_ms) = match &self.phase {
            Phase::Finding { .. } => (PROBE_BYTES_MIN, LINK_PROBE_TRY_MS),
            Phase::Sizing { trying, .. } => (*trying, LINK_PROBE_TRY_MS),
            Phase::Measuring { sizes, index, .. } => (sizes.get(*index)?.octets, LINK_PROBE_WAIT_MS),
            Phase::Done(_) | Phase::Unanswered => return None,
        };
        let (token, octets) = self.next_probe(bytes);
        let wait = Duration::from_millis(wait_ms) + 2 * (self.on_the_line(bytes) + self.round_trip);
        self.sent = Some(Sent { token, at: now, until: now + wait });
        Some(Output::Send(octets))
    }

    /// A probe of the length that was asked for: zeros in a token or checksum make others an octet shorter.
    fn next_probe(&mut self, bytes: usize) -> (u8, Vec<u8>) {
        let mut token = self.next_token;
        let mut octets = probe(bytes, token);
        for _ in 0..LINK_PROBE_TOKEN_TRY_COUNT {
            if octets.len() == 1 + full_bytes(bytes) {
                break;
            }
            token = token.wrapping_add(1);
            octets = probe(bytes, token);
        }
        self.next_token = token.wrapping_add(1);
        (token, octets)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.sent.map(|sent| sent.until)
    }

    /// The result; `None` within when nothing answers.
    pub fn result(&self) -> Option<Option<&Result>> {
        match &self.phase {
            Phase::Done(result) => Some(Some(result)),
            Phase::Unanswered => Some(None),
            Phase::Finding { .. } | Phase::Sizing { .. } | Phase::Measuring { .. } => None,
        }
    }

    /// What was heard besides answers.
    pub fn overheard(&self) -> Overheard {
        self.ear.overheard()
    }

    /// The device says what its largest frame is: a larger one that is on its way is not waited for.
    fn told(&mut self, mtu: usize) {
        self.mtu_told = Some(mtu);
        if let Phase::Sizing { low, high, trying, .. } = self.phase
            && trying > mtu
        {
            self.sent = None;
            self.size_largest(low, high);
        }
    }

    fn answered(&mut self, token: u8, now: Duration) {
        let first = match self.phase {
            Phase::Finding { first_token, .. } => first_token,
            _ => self.sent.map_or(self.next_token, |sent| sent.token),
        };
        let is_ours = token.wrapping_sub(first) < self.next_token.wrapping_sub(first);
        if !is_ours {
            // It comes after its time: the probe was counted as lost.
            if let Phase::Measuring { sizes, index, .. } = &mut self.phase
                && let Some(figures) = sizes.get_mut(*index)
            {
                figures.late += 1;
            }
            return;
        }
        let Some(sent) = self.sent.take() else { return };
        let round_trip = now.saturating_sub(sent.at);
        match &mut self.phase {
            Phase::Finding { .. } => {
                self.round_trip = round_trip;
                self.size_largest(PROBE_BYTES_MIN, self.plan.mtu);
            }
            Phase::Sizing { low, trying, .. } => {
                (*low, self.round_trip) = (*trying, self.round_trip.max(round_trip));
                self.size_next();
            }
            Phase::Measuring { sizes, index, lost_in_a_row, .. } => {
                if let Some(figures) = sizes.get_mut(*index) {
                    figures.round_trips.push(round_trip);
                    *lost_in_a_row = 0;
                }
                self.measure_next();
            }
            Phase::Done(_) | Phase::Unanswered => {}
        }
    }

    fn unanswered(&mut self) {
        let single = self.plan.bauds.len() <= 1;
        match &mut self.phase {
            Phase::Finding { tries, .. } => {
                *tries += 1;
                let tries_max = if single { LINK_PROBE_ONLY_TRY_COUNT } else { LINK_PROBE_TRY_COUNT };
                if *tries >= tries_max {
                    self.next_speed();
                }
            }
            Phase::Sizing { high, trying, tries, .. } => {
                *tries += 1;
                if *tries >= LINK_PROBE_TRY_COUNT {
                    *high = *trying - 1;
                    self.size_next();
                }
            }
            Phase::Measuring { lost_in_a_row, .. } => {
                *lost_in_a_row += 1;
                self.measure_next();
            }
            Phase::Done(_) | Phase::Unanswered => {}
        }
    }

    fn next_speed(&mut self) {
        let Phase::Finding { round, index, .. } = self.phase else { return };
        let (mut round, mut index) = (round, index + 1);
        if index >= self.plan.bauds.len() {
            (round, index) = (round + 1, 0);
        }
        if round >= LINK_PROBE_ROUND_COUNT || self.plan.bauds.len() <= 1 {
            self.phase = Phase::Unanswered;
            return;
        }
        self.baud = self.plan.bauds.get(index).copied();
        self.is_speed_due = true;
        self.phase = Phase::Finding { round, index, tries: 0, first_token: self.next_token };
    }

    /// Tries the largest frame at once: it is likely to pass. A device that says what that is spares the search.
    fn size_largest(&mut self, low: usize, high: usize) {
        let high = self.mtu_told.map_or(high, |told| told.min(high));
        self.phase = Phase::Sizing { low, high, trying: high, tries: 0 };
        if low >= high {
            self.measure(low);
        }
    }

    /// Halves what is left.
    fn size_next(&mut self) {
        let Phase::Sizing { low, high, trying, tries } = &mut self.phase else { return };
        if low >= high {
            let mtu = *low;
            return self.measure(mtu);
        }
        (*trying, *tries) = (*low + (*high - *low).div_ceil(2), 0);
    }

    fn measure(&mut self, mtu: usize) {
        // Of what was asked for, no more than was sent is known to pass.
        let mtu = full_bytes(mtu);
        let mut sizes = vec![PROBE_BYTES_MIN, (PROBE_BYTES_MIN + mtu) / 2, mtu];
        sizes.dedup();
        let sizes = sizes.into_iter().map(Figures::new).collect();
        self.phase = Phase::Measuring { mtu, sizes, index: 0, lost_in_a_row: 0 };
    }

    /// Counts the probe that was answered or lost.
    fn measure_next(&mut self) {
        let Phase::Measuring { mtu, sizes, index, lost_in_a_row } = &mut self.phase else { return };
        let Some(figures) = sizes.get_mut(*index) else { return };
        figures.sent += 1;
        if figures.sent >= self.plan.count || *lost_in_a_row >= LINK_PROBE_LOST_COUNT_MAX {
            (*index, *lost_in_a_row) = (*index + 1, 0);
        }
        if *index >= sizes.len() {
            self.phase = Phase::Done(Result { baud: self.baud, mtu: *mtu, sizes: std::mem::take(sizes) });
        }
    }

    fn on_the_line(&self, bytes: usize) -> Duration {
        let us = self.baud.map_or(0, |baud| bytes as u64 * BITS_PER_OCTET * US_PER_S / u64::from(baud.max(1)));
        Duration::from_micros(us)
    }
}

/// Octets of the longest PROBE frame within so many: of some lengths there is no frame without zeros.
fn full_bytes(bytes: usize) -> usize {
    let frame_bytes = decoded_bytes_max(bytes);
    frame_bytes + frame_bytes.div_ceil(COBS_BLOCK_BYTES) + 1
}

/// A PROBE frame of so many octets on the line, or a few less, behind a delimiter. A large one has every octet value.
fn probe(bytes: usize, token: u8) -> Vec<u8> {
    let mut frame = [0; LINK_MTU_BYTES_MAX];
    let padding: Vec<u8> = (0..padding_bytes_max(bytes)).map(|at| (at % 255 + 1) as u8).collect();
    let written = Frame::Probe { answer: false, token, padding: &padding }.emit(Role::Gateway, None, &mut frame);
    let written = written.expect("a probe of at most the largest frame fits");
    [&[DELIMITER], &frame[..written]].concat()
}

#[cfg(test)]
mod tests;
