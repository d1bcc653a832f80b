//! The log: facts appended to one region, moved to the other one when it is full.
//!
//! It knows keys and values, and nothing of what they mean. By convention the first octet of a key is the kind of the
//! fact; facts of a kind that this version does not know are carried along like all others.
//!
//! # Byte page, version 1
//!
//! Numbers are little endian. CRC-32C is that of RFC 3720 (of "123456789" it is e3069283). A *region* is a whole number of
//! *blocks* of 4096 octets, made of zeros: 128 blocks at first, at most 1024. Its first block starts with the region header,
//! the rest of that block is ignored:
//!
//! ```text
//! offset  octets
//!      0       8  "fieldlog"
//!      8       2  version of the format: 1
//!     10       2  zero
//!     12       4  generation; 0 when the region holds nothing that counts
//!     16       4  CRC-32C of the 16 octets before it
//! ```
//!
//! These 20 octets keep their place and meaning in every version; a reader that meets a whole header of another version
//! touches nothing. A region that ends inside a block is read as if zeros followed. The version of the program stands
//! nowhere: this number changes with the bytes of this page and with nothing else.
//!
//! All other blocks hold *units*, each in as many blocks as it needs, in order and without a gap:
//!
//! ```text
//! offset  octets
//!      0       4  "FGB1"
//!      4       4  CRC-32C of everything from offset 8 to the end of the payload
//!      8       4  generation
//!     12       8  sequence number of the unit
//!     20       2  part: 0 in the first block of the unit, then counted up
//!     22       2  number of parts
//!     24       2  length of the payload in this block, at most 4070
//!     26          payload; the rest of the block is ignored
//! ```
//!
//! The payloads of all parts, joined, are *changes*:
//!
//! ```text
//! put      1 (1 octet) · length of the key (2) · length of the value (4) · key · value
//! remove   2 (1 octet) · length of the key (2) · key
//! ```
//!
//! A key has 1 to 1024 octets, a value at most 8192. What keys and values mean is for others to say (those of a gateway:
//! `proto::record`); nobody here looks into them, so whatever a later program has put is carried along.
//!
//! A *whole* block has the magic, a length that fits and the right CRC; whole blocks make a unit if they follow each other,
//! agree in generation, sequence number and number of parts, and count their parts from 0 to the last.
//!
//! # Reading
//!
//! 1. The generation of a region is the one in its header; without a whole header, the highest of its whole blocks.
//! 2. The region of the higher generation is active, the first one if they are equal. If both are 0 or nothing, there are no
//!    facts; a region of octets that this page does not explain is then copied before anything is written.
//! 3. From block 1 of the active region on: a unit counts if it has the generation of the region, its sequence number is
//!    above that of the last unit that counted, and its payload is changes to the last octet. Otherwise the search goes on
//!    one block later. Changes are applied in their order.
//! 4. Blocks skipped in front of a unit that counts are damage. Blocks behind the last one are a torn or unused tail. A
//!    region with damage is copied, then compacted.
//!
//! # Writing
//!
//! A new unit goes behind the last one that counts, with a sequence number above that of every whole block in both
//! regions, and is synced before the next is written. When it does not fit, or its write or sync fails, *compaction*
//! writes all facts, the new ones included, to the other region: units of a generation above all whole blocks and
//! headers in both regions (at least one unit, so that the generation shows even without a header), sync, then the
//! header, sync. Only then is that region active. A header is never written before the blocks it vouches for are safe.
//! While the header of the other region may be newer than is known, nothing is appended before it is synced with
//! generation 0.
//!
//! Numbers never wrap. A log whose numbers are used up, which only a forged one can be, takes no more writes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;

use zeroize::Zeroizing;

use super::block::{self, BLOCK_PAYLOAD_BYTES};
pub use super::change::{Change, LogError};
use super::flash::{Flash, FlashError, Region};
use super::replay::{self, Facts, Survey};
use crate::limits::{
    STORE_BATCH_BYTES_MAX, STORE_BLOCK_BYTES, STORE_KEY_BYTES_MAX, STORE_LIVE_BYTES_MAX, STORE_REGION_BYTES_MAX,
    STORE_REGION_BYTES_MIN, STORE_VALUE_BYTES_MAX,
};

/// Something that was safe is not readable any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Blocks that hold nothing readable although something newer follows; 0 when whole files are not ours.
    pub bad_block_count: usize,
    /// The medium kept a copy of what was found.
    pub was_set_aside: bool,
    /// The rest was written anew, so that the next start finds no damage.
    pub was_repaired: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bad_block_count {
            0 => f.write_str("the files of the state were something else")?,
            1 => f.write_str("a block of the state is unreadable")?,
            count => write!(f, "{count} blocks of the state are unreadable")?,
        }
        f.write_str(if self.was_set_aside { "; a copy was set aside" } else { "; no copy could be set aside" })?;
        f.write_str(if self.was_repaired { ", the rest is in use" } else { ", the rest is in use but not repaired" })
    }
}

/// Sizes of a log.
///
/// Units: octets; regions are multiples of [`STORE_BLOCK_BYTES`].
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Size of a new region.
    pub region_bytes_min: usize,
    /// Size up to which a region grows.
    pub region_bytes_max: usize,
    /// All facts together.
    pub live_bytes_max: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            region_bytes_min: STORE_REGION_BYTES_MIN,
            region_bytes_max: STORE_REGION_BYTES_MAX,
            live_bytes_max: STORE_LIVE_BYTES_MAX,
        }
    }
}

/// Writes to the medium, whether they succeeded or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Octets, in whole blocks: a medium writes no less.
    pub bytes: u64,
    /// How often the medium was made to write what it had.
    pub syncs: u64,
}

impl Wear {
    /// What was written after an earlier count.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { bytes: self.bytes - before.bytes, syncs: self.syncs - before.syncs }
    }

    /// Counts something more.
    pub const fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.syncs += more.syncs;
    }

    const fn write(&mut self, bytes: usize) {
        self.bytes += (bytes.div_ceil(STORE_BLOCK_BYTES) * STORE_BLOCK_BYTES) as u64;
    }
}

/// Blocks that compaction needs at most, the header included.
///
/// A unit is closed when the next change does not fit, so two neighbours fill more than one block; a change larger than
/// a block may leave its last block and the unit in front of it nearly empty: three blocks for the octets of one.
const fn compacted_blocks_max(live_bytes: usize) -> usize {
    3 * live_bytes.div_ceil(BLOCK_PAYLOAD_BYTES) + 2
}

const _: () = assert!(compacted_blocks_max(STORE_LIVE_BYTES_MAX) * STORE_BLOCK_BYTES <= STORE_REGION_BYTES_MAX);

/// No generation or sequence number is left.
const USED_UP: FlashError = FlashError::Io(ErrorKind::InvalidData);

/// An append-only log of facts on a medium.
#[derive(Debug)]
pub struct Log<F> {
    flash: F,
    capacity: Capacity,
    facts: Facts,
    facts_bytes: usize,
    /// Changes since the last sync; `None` removes.
    staged: BTreeMap<Vec<u8>, Option<Zeroizing<Vec<u8>>>>,
    /// What `facts_bytes` will be after the next sync.
    staged_bytes: usize,
    active: Region,
    active_blocks: usize,
    tail: usize,
    generation: u32,
    /// The highest generation and sequence number ever written, so that nothing left behind by a failed write is
    /// taken for something new.
    generation_max: u32,
    sequence_max: u64,
    /// The header of the other region is whole and its generation lower, whatever the power does.
    is_spare_disowned: bool,
    /// The last sync failed: what it wrote may show after a restart, so the next one has to write something newer.
    is_uncertain: bool,
    /// All that was written since the log was opened.
    wear: Wear,
    /// The part of it that only made room.
    compaction_wear: Wear,
}

impl<F: Flash> Log<F> {
    /// Opens the log on a medium, or makes a new one on an empty medium.
    ///
    /// After a power loss at any point this succeeds if the medium works, with every change that was synced.
    ///
    /// # Errors
    /// [`LogError::Version`] when another version wrote it, [`LogError::Flash`] when the medium fails.
    pub fn open(mut flash: F, capacity: Capacity) -> Result<(Self, Option<Damage>), LogError> {
        let surveys = [replay::survey(&mut flash, Region::A)?, replay::survey(&mut flash, Region::B)?];
        let [a, b] = &surveys;
        let (active, active_survey, spare_survey) =
            if b.generation > a.generation { (Region::B, b, a) } else { (Region::A, a, b) };
        let mut log = Self {
            flash,
            capacity,
            facts: Facts::new(),
            facts_bytes: 0,
            staged: BTreeMap::new(),
            staged_bytes: 0,
            active,
            active_blocks: 0,
            tail: 1,
            generation: 0,
            generation_max: a.generation_max.max(b.generation_max),
            sequence_max: a.sequence_max.max(b.sequence_max),
            is_spare_disowned: spare_survey.has_header,
            is_uncertain: false,
            wear: Wear::default(),
            compaction_wear: Wear::default(),
        };
        let damage = match active_survey.generation {
            Some(generation) => log.restore(generation, active_survey.has_header)?,
            None => log.create(&surveys)?,
        };
        Ok((log, damage))
    }

    fn restore(&mut self, generation: u32, has_header: bool) -> Result<Option<Damage>, LogError> {
        let replayed = replay::replay(&mut self.flash, self.active, generation)?;
        self.generation = generation;
        self.active_blocks = self.flash.size(self.active)? / STORE_BLOCK_BYTES;
        self.tail = replayed.tail;
        self.facts_bytes = replayed.facts.iter().map(|(key, value)| block::put_bytes(key, value)).sum();
        self.staged_bytes = self.facts_bytes;
        self.facts = replayed.facts;
        let is_damaged = replayed.bad_block_count > 0;
        let was_set_aside = is_damaged && self.flash.set_aside(self.active).is_ok();
        if !has_header {
            self.write_header(self.active, generation)?;
        }
        if !self.is_spare_disowned {
            self.disown_spare()?;
        }
        // A medium that takes no writes may still be read; each commit will report it.
        let was_repaired = is_damaged && self.compact().is_ok();
        Ok(is_damaged.then_some(Damage { bad_block_count: replayed.bad_block_count, was_set_aside, was_repaired }))
    }

    fn create(&mut self, surveys: &[Survey; 2]) -> Result<Option<Damage>, LogError> {
        self.generation_max = self.generation_max.checked_add(1).ok_or(USED_UP)?;
        let mut damage = None;
        for (region, survey) in Region::BOTH.into_iter().zip(surveys) {
            if survey.is_foreign {
                self.flash.set_aside(region)?; // Nobody else has it: no copy, no new log.
                damage = Some(Damage { bad_block_count: 0, was_set_aside: true, was_repaired: true });
            }
        }
        self.disown_spare()?;
        self.generation = self.generation_max;
        self.grow(self.active, self.capacity.region_bytes_min)?;
        self.active_blocks = self.flash.size(self.active)? / STORE_BLOCK_BYTES;
        self.write_header(self.active, self.generation)?;
        Ok(damage)
    }

    /// Iterates over the facts that are safe, in the order of their keys.
    pub fn facts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.facts.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// All that was written since the log was opened, and the part of it that only made room.
    pub const fn wear(&self) -> (Wear, Wear) {
        (self.wear, self.compaction_wear)
    }

    /// Takes changes for the next [`Log::sync`], all or none of them.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] and [`LogError::Full`]; the log is then as before.
    pub fn append(&mut self, changes: Vec<Change>) -> Result<(), LogError> {
        let bytes = self.bytes_after(&changes)?;
        if bytes > self.capacity.live_bytes_max && bytes > self.staged_bytes {
            return Err(LogError::Full);
        }
        self.staged_bytes = bytes;
        self.staged.extend(changes.into_iter().map(Change::into_parts));
        Ok(())
    }

    /// Makes everything appended since the last call safe from power loss, all of it or nothing.
    ///
    /// Changes that change nothing cost no write.
    ///
    /// # Errors
    /// The medium failed. The facts are as before the changes, which are forgotten; after a restart they may be there
    /// nevertheless, unless a later sync succeeded. Later calls work again when the medium does.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if !self.is_uncertain {
            self.staged.retain(|key, value| self.facts.get(key) != value.as_ref());
        }
        let is_idle = self.staged.is_empty() && !self.is_uncertain;
        let outcome = if is_idle { Ok(()) } else { self.write_staged() };
        self.is_uncertain = outcome.is_err();
        let staged = std::mem::take(&mut self.staged);
        if outcome.is_err() {
            self.staged_bytes = self.facts_bytes;
            return outcome.map_err(LogError::from);
        }
        for (key, value) in staged {
            match value {
                Some(value) => self.facts.insert(key, value),
                None => self.facts.remove(&key),
            };
        }
        self.facts_bytes = self.staged_bytes;
        Ok(())
    }

    fn bytes_after(&self, changes: &[Change]) -> Result<usize, LogError> {
        let mut sizes = BTreeMap::new();
        let mut bytes = self.staged_bytes;
        let mut batch_bytes = 0;
        for (key, value) in changes.iter().map(Change::parts) {
            let value_bytes = value.map_or(0, <[u8]>::len);
            batch_bytes += key.len() + value_bytes;
            if key.is_empty()
                || key.len() > STORE_KEY_BYTES_MAX
                || value_bytes > STORE_VALUE_BYTES_MAX
                || batch_bytes > STORE_BATCH_BYTES_MAX
            {
                return Err(LogError::TooLarge);
            }
            let after = value.map_or(0, |value| block::put_bytes(key, value));
            let before = sizes.insert(key, after).unwrap_or_else(|| self.staged_size(key));
            bytes = bytes - before + after;
        }
        Ok(bytes)
    }

    fn staged_size(&self, key: &[u8]) -> usize {
        let value = match self.staged.get(key) {
            Some(change) => change.as_ref(),
            None => self.facts.get(key),
        };
        value.map_or(0, |value| block::put_bytes(key, value))
    }

    fn write_staged(&mut self) -> Result<(), FlashError> {
        if !self.is_spare_disowned {
            self.disown_spare()?;
        }
        let bytes = |(key, value): (&Vec<u8>, &Option<Zeroizing<Vec<u8>>>)| {
            block::put_bytes(key, value.as_ref().map_or(&[], |value| value))
        };
        let mut unit = Zeroizing::new(Vec::with_capacity(self.staged.iter().map(bytes).sum()));
        for (key, value) in &self.staged {
            block::emit_change(&mut unit, key, value.as_ref().map(|value| value.as_slice()));
        }
        let end = self.tail + block::unit_blocks(unit.len());
        // A failed append is not reported: compaction is the second try, on other blocks, and speaks for both.
        if end <= self.active_blocks && self.append_unit(&unit).is_ok() {
            self.tail = end;
            return Ok(());
        }
        let before = self.wear;
        let compacted = self.compact();
        self.compaction_wear.add(self.wear.since(before));
        compacted
    }

    fn append_unit(&mut self, unit: &[u8]) -> Result<(), FlashError> {
        self.sequence_max = self.sequence_max.checked_add(1).ok_or(USED_UP)?;
        let octets = block::emit_unit(self.generation, self.sequence_max, unit);
        self.wear.write(octets.len());
        self.flash.write(self.active, self.tail * STORE_BLOCK_BYTES, &octets)?;
        self.sync_region(self.active)
    }

    /// Writes all facts, staged changes applied, to the other region and makes it the active one.
    fn compact(&mut self) -> Result<(), FlashError> {
        let target = self.active.other();
        let blocks = self.make_room(target)?;
        self.generation_max = self.generation_max.checked_add(1).ok_or(USED_UP)?;
        let tail = self.write_facts(target, blocks)?;
        self.sync_region(target)?;
        // Until the header is known to be safe, a restart may find either region to be the newer one: nothing may be
        // appended to the old one before the new one is disowned.
        self.is_spare_disowned = false;
        self.write_header(target, self.generation_max)?;
        self.is_spare_disowned = true;
        self.active = target;
        self.active_blocks = blocks;
        self.generation = self.generation_max;
        self.tail = tail;
        Ok(())
    }

    /// Writes units of at most one block, larger only for a single change, so that a bad block costs little.
    fn write_facts(&mut self, target: Region, blocks: usize) -> Result<usize, FlashError> {
        let Self { flash, facts, staged, generation_max, sequence_max, wear, .. } = self;
        let mut tail = 1;
        let mut write_unit = |unit: &[u8]| {
            let start = tail * STORE_BLOCK_BYTES;
            tail += block::unit_blocks(unit.len());
            *sequence_max = sequence_max.checked_add(1).ok_or(USED_UP)?;
            let octets = block::emit_unit(*generation_max, *sequence_max, unit);
            if tail > blocks {
                return Err(FlashError::NoSpace);
            }
            wear.write(octets.len());
            flash.write(target, start, &octets)
        };
        let kept = facts.iter().filter(|(key, _)| !staged.contains_key(*key));
        let added = staged.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let mut unit = Zeroizing::new(Vec::with_capacity(BLOCK_PAYLOAD_BYTES));
        for (key, value) in kept.chain(added) {
            if !unit.is_empty() && unit.len() + block::put_bytes(key, value) > BLOCK_PAYLOAD_BYTES {
                write_unit(&unit)?;
                unit.clear();
            }
            block::emit_change(&mut unit, key, Some(value));
        }
        write_unit(&unit)?;
        Ok(tail)
    }

    /// Sees to it that compaction leaves at least half of the region free; the number of its blocks.
    fn make_room(&mut self, target: Region) -> Result<usize, FlashError> {
        let needed = compacted_blocks_max(self.staged_bytes) * STORE_BLOCK_BYTES;
        let size = self.flash.size(target)?;
        let mut wanted = size.max(self.capacity.region_bytes_min);
        while wanted < 2 * needed && wanted < self.capacity.region_bytes_max {
            wanted = (2 * wanted).min(self.capacity.region_bytes_max);
        }
        match self.grow(target, wanted) {
            Ok(()) => Ok(wanted / STORE_BLOCK_BYTES),
            Err(_) if size >= needed => Ok(size / STORE_BLOCK_BYTES), // Smaller than wished, and enough.
            Err(error) => Err(error),
        }
    }

    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
        let size = self.flash.size(region)?;
        if size >= bytes {
            return Ok(());
        }
        self.wear.write(bytes - size);
        self.flash.grow(region, bytes)?;
        self.sync_region(region)
    }

    /// Makes sure that the other region is not taken for the active one, whatever it holds.
    fn disown_spare(&mut self) -> Result<(), FlashError> {
        let spare = self.active.other();
        self.grow(spare, self.capacity.region_bytes_min)?;
        self.write_header(spare, 0)?;
        self.is_spare_disowned = true;
        Ok(())
    }

    fn write_header(&mut self, region: Region, generation: u32) -> Result<(), FlashError> {
        let header = block::region_header(generation);
        self.wear.write(header.len());
        self.flash.write(region, 0, &header)?;
        self.sync_region(region)
    }

    fn sync_region(&mut self, region: Region) -> Result<(), FlashError> {
        self.wear.syncs += 1;
        self.flash.sync(region)
    }
}
