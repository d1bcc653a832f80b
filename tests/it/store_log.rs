//! The log on a medium that works, fills up, rots, or belongs to another version.

use fieldgate::limits::{
    STORE_BATCH_BYTES_MAX, STORE_BLOCK_BYTES, STORE_KEY_BYTES_MAX, STORE_REGION_BYTES_MIN, STORE_VALUE_BYTES_MAX,
};
use fieldgate::store::flash::{FlashError, Region};
use fieldgate::store::log::{Capacity, Change, Damage, Log, LogError};

use crate::flash::{Fault, MemoryFlash, SharedFlash};

/// CRC-32C.
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
const SMALL: Capacity = Capacity { region_bytes_min: 8 * 4096, region_bytes_max: 64 * 4096, live_bytes_max: 20 * 4070 };

#[test]
fn the_last_value_of_each_key_wins() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"a", b"1"), Change::put(b"b", b"2"), Change::put(b"a", b"3")]);
    commit(&mut log, &[Change::remove(b"b"), Change::put(b"c", b"")]);
    let (_, log) = open(medium.snapshot().restarted());
    assert_eq!(keys(&log), ["a", "c"]);
    assert_eq!(log.facts().next(), Some((&b"a"[..], &b"3"[..])));
}

#[test]
fn a_group_of_appends_costs_one_block_and_one_sync() {
    let (medium, mut log) = open(MemoryFlash::new());
    let before = medium.snapshot();
    for n in 0..20 {
        log.append(vec![Change::put(&[n], &[n; 100])]).expect("it fits");
    }
    log.sync().expect("it works");
    let after = medium.snapshot();
    assert_eq!(after.sync_count - before.sync_count, 1);
    assert!(after.written - before.written <= STORE_BLOCK_BYTES);
}

/// The counts are those of the medium: each sync, and each octet in whole blocks; compaction apart.
#[test]
fn what_is_written_is_counted() {
    let (medium, mut log) = open(MemoryFlash::new());
    let syncs = |medium: &SharedFlash| medium.snapshot().sync_count as u64;
    let block = STORE_BLOCK_BYTES as u64;
    let (made, compaction) = log.wear();
    assert_eq!((made.syncs, compaction.bytes), (syncs(&medium), 0));
    assert_eq!(made.bytes, 2 * SMALL.region_bytes_min as u64 + 2 * block, "two regions of zeros, and their headers");
    commit(&mut log, &[Change::put(b"k", b"v")]);
    commit(&mut log, &[Change::put(b"k", b"v")]);
    commit(&mut log, &[Change::put(b"large", &[7; 5_000])]);
    let (after, compaction) = log.wear();
    assert_eq!((after.since(made).bytes, after.since(made).syncs, compaction.syncs), (3 * block, 2, 0));
    // Seven blocks behind the header are three units and the room for four more.
    for n in 0..5_u8 {
        assert_eq!(log.wear().1.bytes, 0);
        commit(&mut log, &[Change::put(b"k", &[n])]);
    }
    let (full, compaction) = log.wear();
    assert_eq!(full.syncs, syncs(&medium));
    // Eight blocks more, a unit for the small fact and two blocks for the large one, the header; not what was appended.
    assert_eq!((compaction.bytes, compaction.syncs), ((8 + 3 + 1) * block, 3));
    assert_eq!(full.since(after).since(compaction).bytes, 4 * block);
}

#[test]
fn a_commit_changes_no_file_length_and_shares_no_block() {
    let (medium, mut log) = open(MemoryFlash::new());
    let sizes = |medium: &SharedFlash| Region::BOTH.map(|region| medium.snapshot().region(region).len());
    let before = sizes(&medium);
    assert_eq!(before, [SMALL.region_bytes_min; 2]);
    let mut seen = medium.snapshot().region(Region::A).clone();
    for n in 0..5_u8 {
        commit(&mut log, &[Change::put(&[n], b"value")]);
        let now = medium.snapshot().region(Region::A).clone();
        let block = (1 + usize::from(n)) * STORE_BLOCK_BYTES;
        assert_eq!(now[..block], seen[..block], "what is safe is never written again");
        seen = now;
    }
    assert_eq!(sizes(&medium), before);
}

#[test]
fn changes_that_change_nothing_cost_no_write() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"k", b"v")]);
    let before = medium.snapshot().written;
    commit(&mut log, &[Change::put(b"k", b"v"), Change::remove(b"absent")]);
    assert_eq!(medium.snapshot().written, before);
}

#[test]
fn kinds_that_nobody_knows_are_carried_through_compaction() {
    let (medium, mut log) = open(MemoryFlash::new());
    let unknown: Vec<Change> = (0..=255).map(|kind| Change::put(&[kind, 1], &[kind; 20])).collect();
    commit(&mut log, &unknown);
    for n in 0..100_u8 {
        commit(&mut log, &[Change::put(b"\x01counter", &[n])]);
    }
    let (_, log) = open(medium.snapshot().restarted());
    let kept = log.facts().filter(|(key, value)| key.len() == 2 && **value == [key[0]; 20]).count();
    assert_eq!(kept, 256);
}

#[test]
fn a_full_log_refuses_and_keeps_state() {
    let (_, mut log) = open(MemoryFlash::new());
    let mut count = 0_u16;
    while log.append(vec![Change::put(&count.to_be_bytes(), &[7; 1000])]).is_ok() {
        log.sync().expect("it works");
        count += 1;
    }
    // A fact takes its key, its value and seven octets more.
    assert_eq!(usize::from(count), SMALL.live_bytes_max / 1009);
    let before = keys(&log).len();
    let more = Change::put(b"more", &[0; 1000]);
    assert_eq!(log.append(vec![Change::put(b"tiny", b""), more.clone()]), Err(LogError::Full), "all or nothing");
    log.sync().expect("nothing is left of it");
    assert_eq!(keys(&log).len(), before);
    assert_eq!(log.append(vec![Change::remove(&[0, 0]), more]), Ok(()), "room that a batch makes counts in it");
    log.sync().expect("it works");
    assert_eq!(keys(&log).len(), before);
}

#[test]
fn each_size_is_taken_at_its_bound_and_refused_above() {
    let (_, mut log) = open(MemoryFlash::new());
    let fits = Change::put(&[1; STORE_KEY_BYTES_MAX], &[2; STORE_VALUE_BYTES_MAX]);
    commit(&mut log, &[fits]);
    for change in [
        Change::put(b"", b"v"),
        Change::put(&[1; STORE_KEY_BYTES_MAX + 1], b"v"),
        Change::remove(&[1; STORE_KEY_BYTES_MAX + 1]),
        Change::put(b"k", &[2; STORE_VALUE_BYTES_MAX + 1]),
    ] {
        assert_eq!(log.append(vec![change]), Err(LogError::TooLarge));
    }
    let batch = |bytes: usize| vec![Change::put(b"k", &[0; 1023]); bytes / 1024];
    assert_eq!(log.append(batch(STORE_BATCH_BYTES_MAX)), Ok(()));
    assert_eq!(log.append(batch(STORE_BATCH_BYTES_MAX + 1024)), Err(LogError::TooLarge));
}

#[test]
fn regions_grow_up_to_their_bound_and_keep_all_facts() {
    let (medium, mut log) = open(MemoryFlash::new());
    for round in 0..6_u8 {
        for n in 0..19_u8 {
            commit(&mut log, &[Change::put(&[n], &[round; 4060])]);
        }
    }
    for region in Region::BOTH {
        let size = medium.snapshot().region(region).len();
        assert!(size > SMALL.region_bytes_min && size <= SMALL.region_bytes_max, "{size}");
    }
    let (_, log) = open(medium.snapshot().restarted());
    assert!(log.facts().count() == 19 && log.facts().all(|(_, value)| value == [5; 4060]));
}

#[test]
fn a_log_that_may_not_grow_works_on_while_it_fits() {
    let (medium, mut log) = open(MemoryFlash::new());
    medium.lock().fault = Fault::Grow;
    for n in 0..50_u8 {
        commit(&mut log, &[Change::put(b"k", &[n; 5000])]);
    }
    log.append(vec![Change::put(b"l", &[0; 8000]), Change::put(b"m", &[0; 8000])]).expect("within its capacity");
    log.append(vec![Change::put(b"n", &[0; 8000])]).expect("within its capacity");
    assert_eq!(log.sync(), Err(LogError::Flash(FlashError::NoSpace)));
    assert_eq!(keys(&log), ["k"]);
}

#[test]
fn a_medium_that_fails_for_a_while_is_used_again() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"a", b"1")]);
    for fault in [Fault::Writes(FlashError::ReadOnly), Fault::Writes(FlashError::NoSpace), Fault::Syncs] {
        medium.lock().fault = fault;
        for _ in 0..10 {
            log.append(vec![Change::put(b"b", &[9; 5000])]).expect("it fits");
            assert!(matches!(log.sync(), Err(LogError::Flash(_))));
            assert_eq!(keys(&log), ["a"]);
        }
        medium.lock().fault = Fault::None;
        commit(&mut log, &[Change::put(b"a", b"2")]);
        let (_, reopened) = open(medium.snapshot().restarted());
        assert_eq!(keys(&reopened), ["a"], "nothing that was refused comes back");
    }
}

#[test]
fn one_bad_region_stops_nothing() {
    for bad in Region::BOTH {
        let (medium, mut log) = open(MemoryFlash::new());
        medium.lock().fault = Fault::Region(bad);
        // The first commit moves off the bad region if it has to; compaction needs both.
        commit(&mut log, &[Change::put(b"a", b"1")]);
        commit(&mut log, &[Change::put(b"b", b"2")]);
        let (_, log) = open(medium.snapshot().restarted());
        assert_eq!(keys(&log), ["a", "b"]);
    }
}

#[test]
fn damage_in_front_of_newer_facts_is_reported_set_aside_and_repaired() {
    let (medium, mut log) = open(MemoryFlash::new());
    for key in [b"a", b"b", b"c"] {
        commit(&mut log, &[Change::put(key, b"value")]);
    }
    let mut flash = medium.snapshot().restarted();
    flash.flip(Region::A, (2 * STORE_BLOCK_BYTES + 30) * 8);
    let found = flash.region(Region::A).clone();
    let medium = SharedFlash::new(flash);
    let (log, damage) = Log::open(medium.clone(), SMALL).expect("the rest is used");
    assert_eq!(damage, Some(Damage { bad_block_count: 1, was_set_aside: true, was_repaired: true }));
    assert_eq!(keys(&log), ["a", "c"]);
    assert_eq!(medium.snapshot().aside, [(Region::A, found)], "as it was found");
    let (_, log) = open(medium.snapshot().restarted());
    assert_eq!(keys(&log), ["a", "c"]);
}

#[test]
fn a_flipped_bit_costs_one_commit_and_never_the_start() {
    let (medium, mut log) = open(MemoryFlash::new());
    for key in [b"a", b"b", b"c"] {
        commit(&mut log, &[Change::put(key, b"value")]);
    }
    let flash = medium.snapshot().restarted();
    let used_octets = (0..4).flat_map(|block| block * STORE_BLOCK_BYTES..block * STORE_BLOCK_BYTES + 46);
    for bit in used_octets.flat_map(|octet| octet * 8..octet * 8 + 8) {
        let mut flipped = flash.clone();
        flipped.flip(Region::A, bit);
        let (log, _) = Log::open(flipped, SMALL).expect("it opens");
        assert!(keys(&log).len() >= 2, "bit {bit}");
    }
}

#[test]
fn a_lost_region_header_loses_nothing() {
    let (medium, mut log) = open(MemoryFlash::new());
    for n in 0..20_u8 {
        commit(&mut log, &[Change::put(b"k", &[n])]);
    }
    for region in Region::BOTH {
        let mut flash = medium.snapshot().restarted();
        flash.region(region)[..STORE_BLOCK_BYTES].fill(0xff);
        let (_, log) = open(flash);
        assert_eq!(log.facts().collect::<Vec<_>>(), [(&b"k"[..], &[19_u8][..])]);
    }
}

#[test]
fn a_lost_region_header_brings_no_removed_fact_back() {
    let (medium, mut log) = open(MemoryFlash::new());
    // The region has room for seven commits: the eighth, a removal, moves to the other one, where no fact is left.
    for round in 0..4 {
        commit(&mut log, &[Change::put(b"k", &[round])]);
        commit(&mut log, &[Change::remove(b"k")]);
    }
    assert_eq!(keys(&log).len(), 0);
    let mut flash = medium.snapshot().restarted();
    flash.region(Region::B)[..STORE_BLOCK_BYTES].fill(0xff);
    let (_, log) = open(flash);
    assert_eq!(keys(&log).len(), 0);
}

#[test]
fn a_disowned_region_does_not_come_alive_when_the_other_is_lost() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"k", b"given up")]);
    let mut flash = medium.snapshot().restarted();
    let disowned = flash.region(Region::B)[..STORE_BLOCK_BYTES].to_vec();
    flash.region(Region::A)[..STORE_BLOCK_BYTES].copy_from_slice(&disowned);
    flash.region(Region::B).fill(0);
    let (medium, log) = open(flash);
    assert_eq!(keys(&log).len(), 0);
    let (_, log) = open(medium.snapshot().restarted());
    assert_eq!(keys(&log).len(), 0);
}

#[test]
fn parts_of_two_units_make_no_third() {
    let (medium, mut log) = open(MemoryFlash::new());
    medium.lock().fault = Fault::Syncs;
    log.append(vec![Change::put(b"k", &[1; 8000])]).expect("it fits");
    log.sync().expect_err("what is there now was not reported");
    let mut first = medium.snapshot();
    medium.lock().fault = Fault::None;
    commit(&mut log, &[Change::put(b"k", &[2; 8000])]);
    let mut second = medium.snapshot().restarted();
    let last_part = 2 * STORE_BLOCK_BYTES..3 * STORE_BLOCK_BYTES;
    second.region(Region::A)[last_part.clone()].copy_from_slice(&first.region(Region::A)[last_part]);
    let (_, log) = open(second);
    assert_eq!(keys(&log).len(), 0, "half of one and half of the other");
}

#[test]
fn a_region_that_lost_its_end_while_it_grew_is_read_to_its_last_octet() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"k", b"value")]);
    let mut flash = medium.snapshot().restarted();
    flash.region(Region::A).truncate(STORE_BLOCK_BYTES + 26 + 7 + 6);
    let (medium, mut log) = open(flash);
    assert_eq!(keys(&log), ["k"]);
    commit(&mut log, &[Change::put(b"l", b"value")]);
    let (_, log) = open(medium.snapshot().restarted());
    assert_eq!(keys(&log), ["k", "l"]);
}

#[test]
fn blocks_that_cannot_be_read_are_damage_and_a_region_that_cannot_be_read_an_error() {
    let (medium, mut log) = open(MemoryFlash::new());
    for key in [b"a", b"b", b"c"] {
        commit(&mut log, &[Change::put(key, b"value")]);
    }
    let mut flash = medium.snapshot().restarted();
    flash.fault = Fault::ReadsOf(Region::A, 1);
    let (log, damage) = Log::open(flash.clone(), SMALL).expect("the rest is used");
    assert_eq!(keys(&log), ["b", "c"]);
    assert!(damage.is_some_and(|damage| damage.bad_block_count == 1));
    flash.fault = Fault::ReadsOf(Region::A, 0);
    flash.region(Region::A)[STORE_BLOCK_BYTES..].fill(0);
    assert!(matches!(Log::open(flash, SMALL), Err(LogError::Flash(_))), "it may hold everything: no new log over it");
}

/// A region that claims the last generation there is: it is read, appended to while it has room, and never overtaken.
#[test]
fn numbers_that_are_used_up_cost_no_fact() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"k", b"v")]);
    let mut forged = medium.snapshot().restarted();
    let (header, blocks) = forged.region(Region::A).split_at_mut(STORE_BLOCK_BYTES);
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = CRC.checksum(&header[..16]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    blocks[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let end = 26 + usize::from(u16::from_le_bytes([blocks[24], blocks[25]]));
    let crc = CRC.checksum(&blocks[8..end]);
    blocks[4..8].copy_from_slice(&crc.to_le_bytes());

    let (medium, mut log) = open(forged);
    let mut kept = 0;
    while kept < 100 {
        log.append(vec![Change::put(b"n", &[kept])]).expect("it fits");
        if log.sync().is_err() {
            break;
        }
        kept += 1;
    }
    assert_eq!(usize::from(kept), SMALL.region_bytes_min / STORE_BLOCK_BYTES - 2, "the rest of the region");
    let (_, log) = open(medium.snapshot().restarted());
    let facts: Vec<_> = log.facts().collect();
    assert_eq!(facts, [(&b"k"[..], &b"v"[..]), (&b"n"[..], &[kept - 1][..])]);
}

#[test]
fn another_version_is_refused_and_nothing_is_overwritten() {
    let (medium, mut log) = open(MemoryFlash::new());
    commit(&mut log, &[Change::put(b"k", b"v")]);
    for region in Region::BOTH {
        let mut flash = medium.snapshot().restarted();
        // "fieldlog", version 2, generation 1, CRC-32C.
        let header = [b"fieldlog\x02\0\0\0\x01\0\0\0".as_slice(), &VERSION_2_CRC.to_le_bytes()].concat();
        flash.region(region)[..header.len()].copy_from_slice(&header);
        let before = flash.clone().region(region).clone();
        let medium = SharedFlash::new(flash);
        let refused = Log::open(medium.clone(), SMALL).map(|_| ()).expect_err("it is not for us");
        assert_eq!(refused, LogError::Version(2));
        assert!(refused.to_string().contains("format 2") && !refused.is_retryable());
        assert_eq!(medium.snapshot().written, 0);
        assert_eq!(*medium.snapshot().region(region), before);
    }
}

#[test]
fn files_of_something_else_are_set_aside_before_a_new_log() {
    let mut flash = MemoryFlash::new();
    *flash.region(Region::A) = vec![0x55; SMALL.region_bytes_min];
    let medium = SharedFlash::new(flash.restarted());
    let (log, damage) = Log::open(medium.clone(), SMALL).expect("a new log");
    assert!(damage.is_some_and(|damage| damage.was_set_aside) && keys(&log).is_empty());
    assert_eq!(medium.snapshot().aside, [(Region::A, vec![0x55; SMALL.region_bytes_min])]);
}

#[test]
fn the_regions_of_a_new_store_have_their_first_size() {
    let medium = SharedFlash::new(MemoryFlash::new());
    Log::open(medium.clone(), Capacity::default()).expect("a new log");
    assert_eq!(medium.snapshot().region(Region::A).len(), STORE_REGION_BYTES_MIN);
    assert_eq!(medium.snapshot().region(Region::B).len(), STORE_REGION_BYTES_MIN);
}

/// CRC-32C of the header of version 2 and generation 1.
const VERSION_2_CRC: u32 = 0xb4f0_ada2;

fn open(flash: MemoryFlash) -> (SharedFlash, Log<SharedFlash>) {
    let medium = SharedFlash::new(flash);
    let (log, damage) = Log::open(medium.clone(), SMALL).expect("it opens");
    assert_eq!(damage, None);
    (medium, log)
}

fn commit(log: &mut Log<SharedFlash>, changes: &[Change]) {
    log.append(changes.to_vec()).expect("it fits");
    log.sync().expect("it works");
}

fn keys<F: fieldgate::store::flash::Flash>(log: &Log<F>) -> Vec<String> {
    log.facts().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}
