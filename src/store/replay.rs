//! Reading a region back: which generation it holds, and which facts.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::block::{self, Block, RegionHeader};
use super::change::{Change, LogError};
use super::flash::{Flash, FlashError, Region};
use crate::limits::STORE_BLOCK_BYTES;

/// The facts of a log: the last value of each key.
pub(super) type Facts = BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>;

/// What one look over a region shows, whatever it holds.
#[derive(Debug)]
pub(super) struct Survey {
    /// The generation the region belongs to; `None` when it was never completed or was disowned.
    pub(super) generation: Option<u32>,
    /// Its header is whole.
    pub(super) has_header: bool,
    /// The highest generation of any block in it, also of abandoned ones.
    pub(super) generation_max: u32,
    /// The highest sequence number of any block in it, also of abandoned ones.
    pub(super) sequence_max: u64,
    /// It holds octets, and none that this format explains.
    pub(super) is_foreign: bool,
}

/// Looks over a region.
///
/// # Errors
/// Another version wrote it, or nothing of it can be read.
pub(super) fn survey(flash: &mut impl Flash, region: Region) -> Result<Survey, LogError> {
    let mut octets = [0; STORE_BLOCK_BYTES];
    let mut header = RegionHeader::Invalid;
    let mut newest: Option<(u32, u64)> = None;
    let mut unreadable = None;
    let mut has_octets = false;
    let region_bytes = flash.size(region)?;
    for index in 0..region_bytes.div_ceil(STORE_BLOCK_BYTES) {
        if let Err(error) = read_block(flash, region, region_bytes, index, &mut octets) {
            unreadable = Some(error);
        } else if index == 0 {
            header = block::parse_region_header(&octets);
        } else if let Some(block) = Block::parse(&octets) {
            let (generation, sequence) = newest.unwrap_or_default();
            newest = Some((generation.max(block.generation), sequence.max(block.sequence)));
        } else {
            has_octets |= octets != [0; STORE_BLOCK_BYTES];
        }
    }
    if let (RegionHeader::Invalid, None, Some(error)) = (header, newest, unreadable) {
        return Err(error.into());
    }
    let (generation_max, sequence_max) = newest.unwrap_or_default();
    let generation = match header {
        RegionHeader::OtherVersion(version) => return Err(LogError::Version(version)),
        RegionHeader::Valid(generation) => generation,
        // A header is only written once all blocks behind it are safe, so they tell as well.
        RegionHeader::Invalid => generation_max,
    };
    Ok(Survey {
        generation: Some(generation).filter(|&generation| generation > 0),
        has_header: header != RegionHeader::Invalid,
        generation_max: generation_max.max(generation),
        sequence_max,
        is_foreign: has_octets && header == RegionHeader::Invalid && newest.is_none(),
    })
}

/// What the active region holds.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) facts: Facts,
    /// The index of the first block behind the last good unit.
    pub(super) tail: usize,
    /// Bad blocks in front of a good unit: damage, since a unit is only written once the one before it is safe.
    pub(super) bad_block_count: usize,
}

/// Applies every good unit of a region in order; what follows the last one is a torn or empty tail.
///
/// # Errors
/// The medium does not tell the size of the region.
pub(super) fn replay(flash: &mut impl Flash, region: Region, generation: u32) -> Result<Replayed, FlashError> {
    let region_bytes = flash.size(region)?;
    let block_count = region_bytes.div_ceil(STORE_BLOCK_BYTES);
    let mut replayed = Replayed { tail: 1, ..Replayed::default() };
    let mut sequence = 0;
    let mut at = 1;
    while at < block_count {
        let Some(unit) = read_unit(flash, region, region_bytes, at).filter(|unit| unit.follows(generation, sequence))
        else {
            at += 1;
            continue;
        };
        replayed.bad_block_count += at - replayed.tail;
        sequence = unit.sequence;
        at += unit.block_count;
        replayed.tail = at;
        unit.changes.into_iter().for_each(|change| apply(&mut replayed.facts, change));
    }
    Ok(replayed)
}

struct Unit {
    generation: u32,
    sequence: u64,
    block_count: usize,
    changes: Vec<Change>,
}

impl Unit {
    /// It is of this generation, and newer than what was read before.
    fn follows(&self, generation: u32, sequence: u64) -> bool {
        self.generation == generation && self.sequence > sequence
    }
}

/// Reads the unit that starts at a block; `None` when any of its blocks is not as it was written.
fn read_unit(flash: &mut impl Flash, region: Region, region_bytes: usize, at: usize) -> Option<Unit> {
    let mut octets = [0; STORE_BLOCK_BYTES];
    read_block(flash, region, region_bytes, at, &mut octets).ok()?;
    let first = Block::parse(&octets).filter(|block| block.part == 0 && block.parts > 0)?;
    let (generation, sequence, parts) = (first.generation, first.sequence, first.parts);
    if (at + usize::from(parts) - 1) * STORE_BLOCK_BYTES >= region_bytes {
        return None;
    }
    let mut payload = Zeroizing::new(Vec::with_capacity(usize::from(parts) * STORE_BLOCK_BYTES));
    payload.extend_from_slice(first.payload);
    for part in 1..parts {
        read_block(flash, region, region_bytes, at + usize::from(part), &mut octets).ok()?;
        let same = |block: &Block| {
            (block.generation, block.sequence, block.part, block.parts) == (generation, sequence, part, parts)
        };
        payload.extend_from_slice(Block::parse(&octets).filter(same)?.payload);
    }
    Some(Unit { generation, sequence, block_count: parts.into(), changes: block::parse_changes(&payload)? })
}

/// Reads a block; where the region ends inside it, zeros follow: its end may have been lost while it was growing.
fn read_block(
    flash: &mut impl Flash,
    region: Region,
    region_bytes: usize,
    index: usize,
    octets: &mut [u8; STORE_BLOCK_BYTES],
) -> Result<(), FlashError> {
    let start = index * STORE_BLOCK_BYTES;
    let (inside, outside) = octets.split_at_mut(STORE_BLOCK_BYTES.min(region_bytes - start));
    outside.fill(0);
    flash.read(region, start, inside)
}

fn apply(facts: &mut Facts, change: Change) {
    match change {
        Change::Put { key, value } => facts.insert(key, value),
        Change::Remove { key } => facts.remove(&key),
    };
}
