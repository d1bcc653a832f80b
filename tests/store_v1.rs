//! Golden bytes of the gateway's log, version 1. Never edited: a change of the format is a new version, a new file
//! beside this one, and a reader that still opens what is here.
#![cfg(feature = "gateway")]

use fieldgate::store::flash::Region;
use fieldgate::store::log::{Capacity, Change, Log};

#[path = "common/flash.rs"]
mod flash;

use flash::{MemoryFlash, SharedFlash};

const CAPACITY: Capacity =
    Capacity { region_bytes_min: 8 * 4096, region_bytes_max: 16 * 4096, live_bytes_max: 3 * 4070 };

/// The octets at the start of each used block of region A, in hexadecimal; all others are zero.
const REGION_A: [&str; 5] = [
    "6669656c646c6f670100000001000000cb2ab46f",
    "46474231f51ec2e8010000000100000000000000000001000e0001020005000000016176616c7565",
    "464742318f049014010000000200000000000000000001000e000202000161010200000000000162",
    "46474231d6804a6701000000030000000000000000000200e60f010600e60f0000fe6c61726765",
    "46474231977bde05010000000300000000000000010002000d00292a2b2c2d2e2f303132333435",
];
const REGION_B: &str = "6669656c646c6f6701000000000000007380f1b2";
/// The large value reaches into a second block: its octets count up.
const LARGE_BYTES: usize = 4070;

#[test]
fn version_1_is_written_as_ever() {
    let medium = SharedFlash::new(MemoryFlash::new());
    let (mut log, _) = Log::open(medium.clone(), CAPACITY).expect("a new log");
    for batch in history() {
        log.append(batch).expect("it fits");
        log.sync().expect("it works");
    }
    let mut flash = medium.snapshot();
    for (region, golden) in [(Region::A, &region_a()), (Region::B, &region_b())] {
        for (index, (written, golden)) in flash.region(region).chunks(4096).zip(golden.chunks(4096)).enumerate() {
            assert_eq!(hex(written), hex(golden), "block {index} of region {region:?}");
        }
    }
}

#[test]
fn version_1_is_read_as_ever() {
    let mut flash = MemoryFlash::new();
    *flash.region(Region::A) = region_a();
    *flash.region(Region::B) = region_b();
    let (log, damage) = Log::open(flash.restarted(), CAPACITY).expect("it opens");
    assert_eq!(damage, None);
    let facts: Vec<_> = log.facts().collect();
    assert_eq!(facts, [(&b"\x01b"[..], &b""[..]), (&b"\xfelarge"[..], &large()[..])]);
}

fn history() -> [Vec<Change>; 3] {
    [
        vec![Change::put(b"\x01a", b"value")],
        vec![Change::remove(b"\x01a"), Change::put(b"\x01b", b"")],
        vec![Change::put(b"\xfelarge", &large())],
    ]
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|n| (n % 251) as u8).collect()
}

/// The block of the large value is golden up to the value, which is then filled in.
fn region_a() -> Vec<u8> {
    let mut region = region(&REGION_A);
    let value = large();
    let start = 3 * 4096 + 26 + 7 + 6;
    let split = 4 * 4096 - start;
    region[start..start + split].copy_from_slice(&value[..split]);
    region
}

fn region_b() -> Vec<u8> {
    region(&[REGION_B])
}

fn region(blocks: &[&str]) -> Vec<u8> {
    let mut region = vec![0; CAPACITY.region_bytes_min];
    for (index, block) in blocks.iter().enumerate() {
        let octets = octets(block);
        region[index * 4096..index * 4096 + octets.len()].copy_from_slice(&octets);
    }
    region
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(octets: &[u8]) -> String {
    let used = octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    octets[..used].iter().map(|octet| format!("{octet:02x}")).collect()
}
