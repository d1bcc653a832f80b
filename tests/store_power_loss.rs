//! Power is cut at every octet of every write: what was reported safe is there, nothing half-written is believed, and
//! the next start always succeeds.
#![cfg(feature = "gateway")]

use std::collections::BTreeMap;

use fieldgate::store::flash::{FlashError, Region};
use fieldgate::store::log::{Capacity, Change, Log, LogError};
use proptest::prelude::*;

#[path = "common/flash.rs"]
mod flash;

use flash::{Fate, Fault, MemoryFlash, POWER_IS_GONE, SharedFlash};

type Facts = BTreeMap<Vec<u8>, Vec<u8>>;
type Batch = Vec<Change>;

/// Regions of six blocks, so that a few commits lead to compaction and some large values to growth.
const SMALL: Capacity = Capacity { region_bytes_min: 6 * 4096, region_bytes_max: 48 * 4096, live_bytes_max: 15 * 4070 };

/// A-UA-49: each step of subscribe, acknowledge and unsubscribe, as a gateway writes them.
#[test]
fn every_octet_of_a_subscription_s_life() {
    let intent = |n: u8| Change::put(&[1, n], b"intent");
    let subscription = |n: u8| Change::put(&[2, n], &[n; 300]);
    cut_everywhere(&[
        vec![intent(1)],
        vec![subscription(1), Change::remove(&[1, 1])],
        vec![intent(2)],
        vec![subscription(2), Change::remove(&[1, 2])],
        vec![Change::put(b"\x03ack", b"message")],
        vec![Change::remove(b"\x03ack")],
        vec![Change::put(&[2, 1], b"deleting")],
        vec![Change::remove(&[2, 1])],
    ]);
}

/// A-UA-49: units of several blocks, compaction and growth.
#[test]
fn every_octet_of_large_commits() {
    cut_everywhere(&[
        vec![Change::put(b"a", &[1; 4200])],
        vec![Change::put(b"b", &[2; 4100]), Change::put(b"c", &[3; 200])],
        vec![Change::put(b"a", &[4; 100])],
        vec![Change::remove(b"b"), Change::put(b"d", &[5; 4080])],
    ]);
}

/// A-GAP-06: an identity that takes the place of another one is there as a whole, or the other one is; in units of several
/// blocks, and by compaction.
#[test]
fn every_octet_of_an_import() {
    let facts = |board: u8| (0..3).map(move |n| Change::put(&[board, n], &[board; 1500]));
    let in_place_of = |old: u8, new: u8| (0..3).map(|n| Change::remove(&[old, n])).chain(facts(new)).collect::<Batch>();
    cut_everywhere(&[facts(1).collect(), in_place_of(1, 2), in_place_of(2, 3)]);
}

/// A-UA-49: a log whose last fact is removed by compaction does not get it back.
#[test]
fn every_octet_of_a_log_that_becomes_empty() {
    let flicker = [vec![Change::put(b"k", b"v")], vec![Change::remove(b"k")]];
    let history: Vec<Batch> = flicker.iter().cycle().take(8).cloned().collect();
    cut_everywhere(&history);
}

/// A-UA-49: what one power loss left half-written is not taken for a part of what the next one cuts.
#[test]
fn power_losses_in_a_row_lose_nothing() {
    for step in 1..600 {
        let mut flash = MemoryFlash::new();
        let mut safe = Facts::new();
        for round in 0..10_u8 {
            let batches = [vec![Change::put(b"k", &[round; 7000])], vec![Change::put(&[round], &[round; 7000])]];
            let cut = flash.cut_after(8000 + usize::from(round) * 997 * step % 16_000);
            let (left, outcomes) = run(cut, &batches, &safe);
            flash = left.after_power_loss(Fate::Random((step * 100 + usize::from(round)) as u64));
            safe = check(&flash, &outcomes);
            if safe.len() > 4 {
                break;
            }
        }
    }
}

/// How many random histories are cut: `FIELDGATE_CUTS`, or a few.
fn cuts() -> u32 {
    std::env::var("FIELDGATE_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cuts(), failure_persistence: None, ..ProptestConfig::default() })]

    /// A-UA-49: long random histories, cut anywhere, with any fate of what was not synced.
    #[test]
    fn random_histories(batches in prop::collection::vec(batch(), 1..60), cut in 0_usize..200_000, seed: u64) {
        let (flash, outcomes) = run(MemoryFlash::new().cut_after(cut), &batches, &Facts::new());
        check(&flash.after_power_loss(Fate::Random(seed)), &outcomes);
    }

    /// A medium that fails now and then, and then loses power: what was reported safe in between is there.
    #[test]
    fn random_faults(
        steps in prop::collection::vec((batch(), fault()), 1..40),
        cut in 0_usize..200_000,
        seed: u64,
    ) {
        let medium = SharedFlash::new(MemoryFlash::new());
        let (mut log, _) = Log::open(medium.clone(), SMALL).expect("an empty medium that works");
        medium.lock().cut_from_now(cut);
        let mut possible = vec![Facts::new()];
        for (batch, fault) in &steps {
            medium.lock().fault = *fault;
            if log.append(batch.clone()).is_err() {
                continue;
            }
            let safe = facts(&log);
            let outcome = log.sync();
            if outcome.is_ok() {
                possible = vec![facts(&log)];
            } else {
                prop_assert_eq!(facts(&log), safe.clone(), "a failed sync leaves the facts as they were");
                possible.push(after(&safe, batch));
            }
        }
        let flash = medium.snapshot().after_power_loss(Fate::Random(seed));
        let (log, damage) = Log::open(flash, SMALL).expect("the next start succeeds");
        prop_assert_eq!(damage, None);
        prop_assert!(possible.contains(&facts(&log)));
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    let change = (0_u8..7, prop::option::of((any::<u8>(), prop_oneof![0_usize..400, 3900_usize..8192])));
    let change = change.prop_map(|(key, value)| match value {
        Some((octet, length)) => Change::put(&[key, 0], &vec![octet; length]),
        None => Change::remove(&[key, 0]),
    });
    prop::collection::vec(change, 1..4)
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Writes(FlashError::NoSpace)),
        1 => Just(Fault::Syncs),
        6 => any::<u8>().prop_map(Fault::SomeSyncs),
        1 => Just(Fault::Region(Region::A)),
        1 => Just(Fault::Region(Region::B)),
        1 => Just(Fault::Grow),
    ]
}

/// Runs the batches once for each octet at which the power may go, and for each fate of what was not synced.
fn cut_everywhere(batches: &[Batch]) {
    let plenty = 10_000_000;
    let (uncut, _) = run(MemoryFlash::new().cut_after(plenty), batches, &Facts::new());
    let total = uncut.written + uncut.sync_count + 8;
    for cut in 0..total {
        let (flash, outcomes) = run(MemoryFlash::new().cut_after(cut), batches, &Facts::new());
        let seed = cut as u64 * 7919 + 1;
        for fate in [Fate::AllWritten, Fate::AllLost, Fate::LastWritten, Fate::LastLost, Fate::Random(seed)] {
            check(&flash.clone().after_power_loss(fate), &outcomes);
        }
    }
}

/// What a run reported: the facts as of the last success, and as of the commit that the power cut.
struct Outcomes {
    safe: Facts,
    in_flight: Option<Facts>,
}

/// Opens a log and commits batch after batch, until the power goes.
fn run(flash: MemoryFlash, batches: &[Batch], before: &Facts) -> (MemoryFlash, Outcomes) {
    let mut outcomes = Outcomes { safe: before.clone(), in_flight: None };
    let medium = SharedFlash::new(flash);
    match Log::open(medium.clone(), SMALL) {
        Ok((mut log, damage)) => {
            assert_eq!(damage, None);
            for batch in batches {
                log.append(batch.clone()).expect("these histories fit");
                let next = after(&outcomes.safe, batch);
                match log.sync() {
                    Ok(()) => outcomes.safe = next,
                    Err(error) => {
                        assert_eq!(error, LogError::Flash(POWER_IS_GONE));
                        outcomes.in_flight = Some(next);
                        break;
                    }
                }
                assert_eq!(facts(&log), outcomes.safe);
            }
        }
        Err(error) => assert_eq!(error, LogError::Flash(POWER_IS_GONE)),
    }
    (medium.snapshot(), outcomes)
}

/// Opens what the power loss left, and checks that it works on; the facts found.
fn check(flash: &MemoryFlash, outcomes: &Outcomes) -> Facts {
    let medium = SharedFlash::new(flash.clone());
    let (mut log, damage) = Log::open(medium.clone(), SMALL).expect("the next start succeeds");
    assert_eq!(damage, None, "a power loss is no damage");
    let found = facts(&log);
    assert!(
        found == outcomes.safe || Some(&found) == outcomes.in_flight.as_ref(),
        "what was reported is there, and nothing in halves"
    );
    log.append(vec![Change::put(b"next", b"commit")]).expect("it fits");
    log.sync().expect("the medium works");
    let again = medium.snapshot().after_power_loss(Fate::AllLost);
    let (log, damage) = Log::open(again, SMALL).expect("the start after that succeeds");
    assert_eq!(damage, None);
    assert_eq!(facts(&log), after(&found, &[Change::put(b"next", b"commit")]));
    found
}

fn after(facts: &Facts, batch: &[Change]) -> Facts {
    let mut facts = facts.clone();
    for change in batch.iter().cloned() {
        match change {
            Change::Put { key, value } => facts.insert(key, value.to_vec()),
            Change::Remove { key } => facts.remove(&key),
        };
    }
    facts
}

fn facts<F: fieldgate::store::flash::Flash>(log: &Log<F>) -> Facts {
    log.facts().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}
