//! An application server that is told of subscriptions: what it was told last, though its answer may be lost.

use std::collections::BTreeMap;

use fieldgate::proto::announcement::Outcome;
use fieldgate::random::SeededRandom;
use fieldgate::time::Duration;
use serde_json::Value;

use super::Dice;

/// Announcements in a row that fail at most, so that no pause is longer than what is left of a run.
const FAILURES_MAX: u32 = 5;

/// A device's id and channel.
type Channel = (String, u16);

/// The application server.
pub(super) struct ApplicationServer {
    /// Of its own, so that the runs without it are as they were.
    dice: Dice,
    known: BTreeMap<Channel, String>,
    failures: u32,
    /// Whether an answer is on its way to the process that runs.
    pub is_asked: bool,
}

impl ApplicationServer {
    /// Half of the runs have one.
    pub fn draw(seed: u64) -> Option<Self> {
        let dice = Dice(SeededRandom::new(seed ^ 0xa990));
        (seed % 2 == 1).then_some(Self { dice, known: BTreeMap::new(), failures: 0, is_asked: false })
    }

    /// Takes an announcement, and tells what its sender makes of that, and when.
    pub fn take(&mut self, document: &str, is_well: bool, is_deaf: bool) -> (u64, Outcome) {
        self.is_asked = true;
        let fails = !is_well && self.failures < FAILURES_MAX && self.dice.percent(35);
        self.failures = if fails { self.failures + 1 } else { 0 };
        let asked = self.dice.percent(30).then(|| Duration::from_secs(self.dice.below(100)));
        let outcome = match (fails, self.dice.percent(50)) {
            (false, _) => Outcome::Accepted,
            (true, true) => Outcome::Failed(asked),
            (true, false) => Outcome::Unavailable(asked),
        };
        let is_taken = match outcome {
            Outcome::Accepted => !is_deaf,
            Outcome::Failed(_) => self.dice.percent(50),
            Outcome::Rejected | Outcome::Unavailable(_) => false,
        };
        if is_taken {
            let (channel, endpoint) = read(document);
            match endpoint {
                Some(endpoint) => drop(self.known.insert(channel, endpoint)),
                None => drop(self.known.remove(&channel)),
            }
        }
        (self.dice.between(1, if is_well { 50 } else { 20_000 }), outcome)
    }

    /// What it knows.
    pub fn known(&self) -> &BTreeMap<Channel, String> {
        &self.known
    }
}

/// The channel that a document is about, and where to post to it.
pub(super) fn read(document: &str) -> (Channel, Option<String>) {
    let document: Value = serde_json::from_str(document).expect("JSON");
    let device = document["device"].as_str().expect("a device").to_owned();
    let channel = document["channel"].as_u64().and_then(|channel| u16::try_from(channel).ok()).expect("a channel");
    ((device, channel), document["endpoint"].as_str().map(str::to_owned))
}
