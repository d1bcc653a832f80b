//! What is written to flash, and what for: counted, and said once a day before it becomes more than it should.
//!
//! A day is one of this run, since a board may have no clock. Nothing is refused: what is written has to be.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::limits::{FLASH_DAY_MS, FLASH_WARNING_PERCENT};
use crate::proto::record::Cause;
use crate::store::{Wear, Written};
use crate::time::Instant;

/// What was written since the start.
#[derive(Debug, Default)]
pub(super) struct FlashUse {
    causes: BTreeMap<Cause, Wear>,
    compaction: Wear,
    /// The number of the day that `today` counts.
    day: u64,
    today: u64,
    /// The day of which a person was told.
    warned_on: Option<u64>,
}

/// A line for a person.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    today: u64,
    budget: u32,
    most: &'static str,
}

impl FlashUse {
    /// Counts what opening the store cost. That is no part of the budget: a new one takes all of its room, once.
    pub(super) fn opened(&mut self, wear: Wear) {
        self.causes.entry(Cause::Other).or_default().add(wear);
    }

    /// Counts what a submission cost; the first time in a day that most of the budget is used gives a warning.
    pub(super) fn written(&mut self, written: Written, now: Instant, budget: u32) -> Option<Warning> {
        let Written { kind, facts, compaction } = written;
        self.turn(now);
        if facts != Wear::default() {
            self.causes.entry(Cause::of(kind)).or_default().add(facts);
        }
        self.compaction.add(compaction);
        self.today += facts.bytes + compaction.bytes;
        let is_much = self.today * 100 >= u64::from(budget) * FLASH_WARNING_PERCENT;
        if !is_much || self.warned_on == Some(self.day) {
            return None;
        }
        self.warned_on = Some(self.day);
        let most = self.all().max_by_key(|(_, wear)| wear.bytes).map_or("nothing", |(name, _)| name);
        Some(Warning { today: self.today, budget, most })
    }

    /// The counts, for a person and for programs.
    pub(super) fn status(&self, now: Instant, budget: u32) -> Value {
        let today = if self.day == day(now) { self.today } else { 0 };
        let causes: serde_json::Map<String, Value> = self
            .all()
            .map(|(name, wear)| (name.to_owned(), json!({ "octets": wear.bytes, "syncs": wear.syncs })))
            .collect();
        json!({ "today": today, "per_day": budget, "causes": causes })
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, Wear)> {
        let causes = self.causes.iter().map(|(cause, wear)| (cause.as_str(), *wear));
        causes.chain([("compaction", self.compaction)]).filter(|(_, wear)| *wear != Wear::default())
    }

    fn turn(&mut self, now: Instant) {
        if self.day != day(now) {
            (self.day, self.today) = (day(now), 0);
        }
    }
}

const fn day(now: Instant) -> u64 {
    now.as_millis() / FLASH_DAY_MS
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { today, budget, most } = self;
        write!(
            f,
            "{today} octets were written to flash today, and flash_bytes_per_day is {budget}: most for {most}; see \
             fieldgate status"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u8 = 3;
    const PENDING_ACK: u8 = 8;
    const BUDGET: u32 = 10_000;

    fn wear(bytes: u64) -> Wear {
        Wear { bytes, syncs: 1 }
    }

    fn facts(kind: u8, bytes: u64) -> Written {
        Written { kind, facts: wear(bytes), compaction: Wear::default() }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn each_cause_is_counted_apart() {
        let mut flash = FlashUse::default();
        flash.opened(wear(500_000));
        for written in
            [facts(1, 1), facts(2, 10), facts(PENDING_ACK, 100), facts(9, 1_000), facts(TIME, 2), facts(12, 3_000)]
        {
            assert_eq!(flash.written(written, at(0), BUDGET), None);
        }
        let both = Written { kind: PENDING_ACK, facts: wear(100), compaction: Wear { bytes: 7, syncs: 2 } };
        assert_eq!(flash.written(both, at(0), BUDGET), None);
        // What went along with another one is no cause.
        assert_eq!(flash.written(Written { kind: 200, ..Written::default() }, at(0), BUDGET), None);
        let expected = json!({
            "today": 4_220, "per_day": BUDGET,
            "causes": {
                "subscription": { "octets": 11, "syncs": 2 },
                "acknowledgement": { "octets": 200, "syncs": 2 },
                "announcement": { "octets": 1_000, "syncs": 1 },
                "time": { "octets": 2, "syncs": 1 },
                "transport": { "octets": 3_000, "syncs": 1 },
                "other": { "octets": 500_000, "syncs": 1 },
                "compaction": { "octets": 7, "syncs": 2 },
            },
        });
        assert_eq!(flash.status(at(0), BUDGET), expected);
    }

    #[test]
    fn a_person_is_told_once_a_day_and_before_it_is_too_much() {
        let mut flash = FlashUse::default();
        assert_eq!(flash.written(facts(TIME, 7_999), at(0), BUDGET), None, "an octet below the bound");
        let warning = flash.written(facts(PENDING_ACK, 1), at(1), BUDGET);
        assert_eq!(warning, Some(Warning { today: 8_000, budget: BUDGET, most: "time" }));
        assert_eq!(flash.written(facts(TIME, 8_000), at(FLASH_DAY_MS - 1), BUDGET), None, "said already");
        assert_eq!(flash.status(at(FLASH_DAY_MS - 1), BUDGET)["today"], 16_000);
        assert_eq!(flash.status(at(FLASH_DAY_MS), BUDGET)["today"], 0, "another day");
        assert_eq!(flash.written(facts(TIME, 7_999), at(FLASH_DAY_MS), BUDGET), None);
        assert!(flash.written(facts(TIME, 1), at(2 * FLASH_DAY_MS - 1), BUDGET).is_some());
    }

    /// The largest budget and all that a day can bring do not overflow.
    #[test]
    fn the_largest_budget_has_a_bound_as_well() {
        let mut flash = FlashUse::default();
        let bound = (u64::from(u32::MAX) * FLASH_WARNING_PERCENT).div_ceil(100) - 1;
        assert_eq!(flash.written(facts(TIME, bound), at(0), u32::MAX), None);
        assert!(flash.written(facts(TIME, 1), at(0), u32::MAX).is_some());
    }
}
