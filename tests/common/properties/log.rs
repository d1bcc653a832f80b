//! The log over a medium that holds anything.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use fieldgate::limits::{STORE_BLOCK_BYTES, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};
use fieldgate::store::flash::{Flash, FlashError, Region};
use fieldgate::store::log::{Capacity, Change, Log, LogError};

use super::input::Input;
use super::line::crc32c;
use crate::flash::{MemoryFlash, SharedFlash};

const SMALL: Capacity = Capacity {
    region_bytes_min: 4 * STORE_BLOCK_BYTES,
    region_bytes_max: 16 * STORE_BLOCK_BYTES,
    live_bytes_max: 4 * 4_070,
};
const BLOCK_COUNT_MAX: usize = 7;
const PAYLOAD_BYTES_MAX: usize = STORE_BLOCK_BYTES - 26;

/// What a log says when a forged medium leaves no number to be used.
const USED_UP: LogError = LogError::Flash(FlashError::Io(ErrorKind::InvalidData));

type Facts = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whatever a medium holds, the log finds what its byte page says is there; what it writes then is there after the next
/// start, with what was there before.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut medium = MemoryFlash::new();
    for region in Region::BOTH {
        *medium.region(region) = image(&mut input);
    }
    let before = medium.clone();
    let expected = read(&mut medium);
    let shared = SharedFlash::new(medium);
    let (mut log, damage) = match Log::open(shared.clone(), SMALL) {
        Ok(opened) => opened,
        Err(error) => {
            // A new log begins above every generation that is there.
            let is_used_up = error == USED_UP && expected == Ok(Facts::new());
            assert!(is_used_up || Err(error) == expected, "a medium that works is refused: {error}");
            let unchanged = Region::BOTH.map(|region| shared.snapshot().region(region).clone());
            assert_eq!(unchanged, Region::BOTH.map(|region| before.clone().region(region).clone()));
            return;
        }
    };
    let mut facts = expected.expect("another version is refused");
    assert_eq!(found(&log), facts);
    let was_repaired = damage.is_none_or(|damage| damage.was_repaired);
    write(&mut log, &mut facts, &mut input);
    assert_eq!(found(&log), facts);

    for _ in 0..2 {
        let (log, damage) = Log::open(shared.snapshot().restarted(), SMALL).expect("it opened before");
        assert_eq!(found(&log), facts);
        assert!(damage.is_none() || !was_repaired);
    }
}

fn found<F: Flash>(log: &Log<F>) -> Facts {
    log.facts().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Commits up to eight batches, and keeps the books.
fn write<F: Flash>(log: &mut Log<F>, facts: &mut Facts, input: &mut Input<'_>) {
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let mut after = facts.clone();
        let changes: Vec<Change> = (0..input.byte() % 4).map(|_| change(input, &mut after)).collect();
        let is_small = changes.iter().all(|change| match change {
            Change::Put { key, value } => is_key(key) && value.len() <= STORE_VALUE_BYTES_MAX,
            Change::Remove { key } => is_key(key),
        });
        match log.append(changes) {
            Ok(()) => assert!(is_small),
            Err(LogError::TooLarge) => assert!(!is_small),
            Err(error) => assert_eq!(error, LogError::Full),
        }
        // What was refused changes nothing, and only a medium that was full before has no room for what was taken.
        let was_taken = bytes(&after) <= SMALL.live_bytes_max || bytes(&after) <= bytes(facts);
        match log.sync() {
            Ok(()) if is_small && was_taken => *facts = after,
            Ok(()) => {}
            Err(error) => assert!(error == USED_UP || bytes(facts) > SMALL.live_bytes_max, "{error}"),
        }
    }
}

fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= STORE_KEY_BYTES_MAX
}

fn bytes(facts: &Facts) -> usize {
    facts.iter().map(|(key, value)| 7 + key.len() + value.len()).sum()
}

fn change(input: &mut Input<'_>, after: &mut Facts) -> Change {
    let key = match input.byte() {
        chosen @ 0..128 => after.keys().nth(usize::from(chosen) % 8).cloned().unwrap_or_else(|| vec![chosen]),
        other => vec![other; input.below(STORE_KEY_BYTES_MAX + 2)],
    };
    if input.byte().is_multiple_of(4) {
        after.remove(&key);
        return Change::remove(&key);
    }
    let mut value = input.short().to_vec();
    value.resize(value.len() + input.below(STORE_VALUE_BYTES_MAX + 9), 0xaa);
    after.insert(key.clone(), value.clone());
    Change::put(&key, &value)
}

/// A region: a header, blocks and an end, each as it should be or not.
fn image(input: &mut Input<'_>) -> Vec<u8> {
    let mut image = Vec::new();
    let count = usize::from(input.byte()) % (BLOCK_COUNT_MAX + 1);
    for index in 0..count {
        let start = image.len();
        if index == 0 {
            header(&mut image, input)
        } else {
            block(&mut image, input, index as u16)
        }
        image.resize(start + STORE_BLOCK_BYTES, 0);
    }
    let end = input.byte();
    if end > 200 {
        image.truncate(image.len().saturating_sub(usize::from(end) * 31 % (2 * STORE_BLOCK_BYTES)));
    }
    image
}

fn header(image: &mut Vec<u8>, input: &mut Input<'_>) {
    let how = input.byte();
    let version: u16 = if how == 255 { input.u16() } else { 1 };
    let generation = number(input);
    let mut octets = b"fieldlog".to_vec();
    octets.extend(version.to_le_bytes());
    octets.extend([0, 0]);
    octets.extend(generation.to_le_bytes());
    octets.extend(crc32c(&[&octets]).to_le_bytes());
    match how {
        0..40 => {}
        40..80 => image.extend(input.short()),
        _ => image.extend(octets),
    }
}

fn block(image: &mut Vec<u8>, input: &mut Input<'_>, index: u16) {
    let how = input.byte();
    if how < 60 {
        image.extend(input.short());
        return;
    }
    let mut checked = number(input).to_le_bytes().to_vec();
    let sequence = match input.byte() {
        near @ 0..250 => u64::from(index) + u64::from(near / 64),
        _ => u64::from_le_bytes(input.array()),
    };
    checked.extend(sequence.to_le_bytes());
    let [part, parts] = if how < 200 { [0, 1] } else { input.array().map(|number: u8| number % 4) };
    checked.extend([part, 0, parts, 0]);
    let payload = if how.is_multiple_of(8) { input.short().to_vec() } else { changes(input) };
    checked.extend((payload.len() as u16).to_le_bytes());
    checked.extend(payload);
    image.extend(b"FGB1");
    image.extend(crc32c(&[&checked]).to_le_bytes());
    image.extend(checked);
}

/// Small numbers mostly: those that follow each other are of interest.
fn number(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        small @ 0..250 => u32::from(small / 50),
        _ => input.u32(),
    }
}

fn changes(input: &mut Input<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..input.byte() % 4 {
        let [op, key, bytes] = input.array();
        let value = input.octets(usize::from(bytes) % 40);
        if op.is_multiple_of(4) {
            payload.extend([2, 1, 0, key % 8]);
        } else {
            payload.extend([1, 1, 0, value.len() as u8, 0, 0, 0, key % 8]);
            payload.extend(value);
        }
    }
    payload
}

/// Reads a medium as the byte page of the log says.
fn read(medium: &mut MemoryFlash) -> Result<Facts, LogError> {
    let mut regions = Vec::new();
    for region in Region::BOTH {
        let mut octets = medium.region(region).clone();
        octets.resize(octets.len().next_multiple_of(STORE_BLOCK_BYTES), 0);
        let blocks: Vec<Vec<u8>> = octets.chunks(STORE_BLOCK_BYTES).map(<[u8]>::to_vec).collect();
        regions.push((generation(&blocks)?, blocks));
    }
    let active = usize::from(regions[1].0 > regions[0].0);
    let (generation, blocks) = &regions[active];
    Ok(if *generation == 0 { Facts::new() } else { replay(*generation, blocks) })
}

fn generation(blocks: &[Vec<u8>]) -> Result<u32, LogError> {
    let Some((header, blocks)) = blocks.split_first() else { return Ok(0) };
    if header.starts_with(b"fieldlog") && crc32c(&[&header[..16]]) == u32_at(header, 16) {
        return match u16_at(header, 8) {
            1 => Ok(u32_at(header, 12)),
            version => Err(LogError::Version(version)),
        };
    }
    Ok(blocks.iter().filter(|block| is_whole(block)).map(|block| u32_at(block, 8)).max().unwrap_or(0))
}

fn is_whole(block: &[u8]) -> bool {
    let length = usize::from(u16_at(block, 24));
    block.starts_with(b"FGB1") && length <= PAYLOAD_BYTES_MAX && crc32c(&[&block[8..26 + length]]) == u32_at(block, 4)
}

fn replay(generation: u32, blocks: &[Vec<u8>]) -> Facts {
    let mut facts = Facts::new();
    let (mut at, mut newest) = (1, 0);
    while at < blocks.len() {
        match unit(generation, newest, &blocks[at..]) {
            Some((sequence, block_count, changes)) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => facts.insert(key, value),
                        None => facts.remove(&key),
                    };
                }
                newest = sequence;
                at += block_count;
            }
            None => at += 1,
        }
    }
    facts
}

type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The unit that starts with the first of the blocks, if it counts.
fn unit(generation: u32, newest: u64, blocks: &[Vec<u8>]) -> Option<(u64, usize, Changes)> {
    let count = usize::from(u16_at(&blocks[0], 22));
    let parts = blocks.get(..count).filter(|parts| !parts.is_empty())?;
    let sequence = u64::from_le_bytes(blocks[0][12..20].try_into().ok()?);
    let mut payload = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let is_next = part[8..20] == parts[0][8..20] && usize::from(u16_at(part, 20)) == index;
        if !is_next || usize::from(u16_at(part, 22)) != count || !is_whole(part) {
            return None;
        }
        payload.extend(&part[26..26 + usize::from(u16_at(part, 24))]);
    }
    let counts = u32_at(&parts[0], 8) == generation && sequence > newest;
    if counts { Some((sequence, count, parsed(&payload)?)) } else { None }
}

fn parsed(mut payload: &[u8]) -> Option<Changes> {
    let mut changes = Vec::new();
    while let Some(&op) = payload.first() {
        let header_bytes = match op {
            1 => 7,
            2 => 3,
            _ => return None,
        };
        let (header, rest) = payload.split_at_checked(header_bytes)?;
        let (key, rest) = rest.split_at_checked(usize::from(u16_at(header, 1)))?;
        let value_bytes = if op == 1 { u32_at(header, 3) as usize } else { 0 };
        let (value, rest) = rest.split_at_checked(value_bytes)?;
        changes.push((key.to_vec(), (op == 1).then(|| value.to_vec())));
        payload = rest;
    }
    Some(changes)
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from(u16_at(octets, at)) | u32::from(u16_at(octets, at + 2)) << 16
}
