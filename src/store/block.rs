//! Blocks and changes as octets: emitted and parsed, one at a time. The byte page is in [`super::log`].

use crc::{CRC_32_ISCSI, Crc};
use zeroize::Zeroizing;

use super::change::Change;
use crate::limits::{STORE_BLOCK_BYTES, STORE_KEY_BYTES_MAX};

/// The only version of the format so far.
pub(super) const VERSION: u16 = 1;

const REGION_MAGIC: [u8; 8] = *b"fieldlog";
const REGION_HEADER_BYTES: usize = 20;
const BLOCK_MAGIC: [u8; 4] = *b"FGB1";
const BLOCK_HEADER_BYTES: usize = 26;
/// Octets of a unit that one block carries.
pub(super) const BLOCK_PAYLOAD_BYTES: usize = STORE_BLOCK_BYTES - BLOCK_HEADER_BYTES;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
/// Octets of a change beyond key and value, at most.
const CHANGE_HEADER_BYTES: usize = 7;

const _: () = assert!(BLOCK_PAYLOAD_BYTES <= u16::MAX as usize);
const _: () = assert!(STORE_KEY_BYTES_MAX <= u16::MAX as usize);

/// CRC-32C (Castagnoli), known as CRC-32/ISCSI.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What the header of a region says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegionHeader {
    /// A region of this format, complete as of this generation.
    Valid(u32),
    /// A region of a format this code does not know.
    OtherVersion(u16),
    /// No header, or a broken one.
    Invalid,
}

/// Emits the header of a region.
pub(super) fn region_header(generation: u32) -> [u8; REGION_HEADER_BYTES] {
    let mut header = [0; REGION_HEADER_BYTES];
    header[..8].copy_from_slice(&REGION_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&generation.to_le_bytes());
    let crc = CRC.checksum(&header[..16]);
    header[16..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Parses the first block of a region.
pub(super) fn parse_region_header(block: &[u8; STORE_BLOCK_BYTES]) -> RegionHeader {
    let version = u16::from_le_bytes(array(block, 8));
    if block[..8] != REGION_MAGIC || CRC.checksum(&block[..16]) != u32::from_le_bytes(array(block, 16)) {
        RegionHeader::Invalid
    } else if version != VERSION {
        RegionHeader::OtherVersion(version)
    } else {
        RegionHeader::Valid(u32::from_le_bytes(array(block, 12)))
    }
}

/// A whole block, its CRC checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) generation: u32,
    pub(super) sequence: u64,
    pub(super) part: u16,
    pub(super) parts: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Parses a block; `None` when it is empty, torn or damaged.
    pub(super) fn parse(block: &'a [u8; STORE_BLOCK_BYTES]) -> Option<Self> {
        let length = usize::from(u16::from_le_bytes(array(block, 24)));
        if block[..4] != BLOCK_MAGIC || length > BLOCK_PAYLOAD_BYTES {
            return None;
        }
        let end = BLOCK_HEADER_BYTES + length;
        if CRC.checksum(&block[8..end]) != u32::from_le_bytes(array(block, 4)) {
            return None;
        }
        Some(Self {
            generation: u32::from_le_bytes(array(block, 8)),
            sequence: u64::from_le_bytes(array(block, 12)),
            part: u16::from_le_bytes(array(block, 20)),
            parts: u16::from_le_bytes(array(block, 22)),
            payload: &block[BLOCK_HEADER_BYTES..end],
        })
    }
}

/// Blocks that a unit of so many octets takes: at least one.
pub(super) const fn unit_blocks(payload_bytes: usize) -> usize {
    if payload_bytes == 0 { 1 } else { payload_bytes.div_ceil(BLOCK_PAYLOAD_BYTES) }
}

/// Emits a unit: its blocks one after the other, the last one without the unused rest.
pub(super) fn emit_unit(generation: u32, sequence: u64, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let parts = unit_blocks(payload.len());
    let parts_field = u16::try_from(parts).expect("a unit is smaller than a region, which has fewer than 65536 blocks");
    let mut out = Zeroizing::new(Vec::with_capacity(parts * BLOCK_HEADER_BYTES + payload.len()));
    for part in 0..parts_field {
        let start = usize::from(part) * BLOCK_PAYLOAD_BYTES;
        let chunk = &payload[start..payload.len().min(start + BLOCK_PAYLOAD_BYTES)];
        let block = out.len();
        out.extend_from_slice(&BLOCK_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&part.to_le_bytes());
        out.extend_from_slice(&parts_field.to_le_bytes());
        out.extend_from_slice(&u16::try_from(chunk.len()).expect("a chunk fits a block").to_le_bytes());
        out.extend_from_slice(chunk);
        let crc = CRC.checksum(&out[block + 8..]);
        out[block + 4..block + 8].copy_from_slice(&crc.to_le_bytes());
    }
    out
}

/// Octets of a fact inside a unit.
pub(super) const fn put_bytes(key: &[u8], value: &[u8]) -> usize {
    CHANGE_HEADER_BYTES + key.len() + value.len()
}

/// Appends one change to the payload of a unit; `None` removes.
pub(super) fn emit_change(unit: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let key_length = u16::try_from(key.len()).expect("keys are at most STORE_KEY_BYTES_MAX");
    unit.push(if value.is_some() { PUT } else { REMOVE });
    unit.extend_from_slice(&key_length.to_le_bytes());
    if let Some(value) = value {
        unit.extend_from_slice(&u32::try_from(value.len()).expect("values are bounded").to_le_bytes());
    }
    unit.extend_from_slice(key);
    unit.extend_from_slice(value.unwrap_or_default());
}

/// Parses the payload of a unit; `None` when it is not what [`emit_change`] writes.
pub(super) fn parse_changes(mut payload: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((&op, rest)) = payload.split_first() {
        let (key_length, rest) = rest.split_first_chunk()?;
        let (value_length, rest) = match op {
            PUT => rest.split_first_chunk().map(|(length, rest)| (Some(u32::from_le_bytes(*length)), rest))?,
            REMOVE => (None, rest),
            _ => return None, // The CRC was right: written by something that is not this format.
        };
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
        let (value, rest) = rest.split_at_checked(usize::try_from(value_length.unwrap_or(0)).ok()?)?;
        changes.push(match value_length {
            Some(_) => Change::put(key, value),
            None => Change::remove(key),
        });
        payload = rest;
    }
    Some(changes)
}

fn array<const N: usize>(block: &[u8; STORE_BLOCK_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_castagnoli() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn changes_survive_the_round_trip() {
        let mut unit = Vec::new();
        emit_change(&mut unit, b"k", Some(b"value"));
        emit_change(&mut unit, b"empty", Some(b""));
        emit_change(&mut unit, b"gone", None);
        let expected = vec![Change::put(b"k", b"value"), Change::put(b"empty", b""), Change::remove(b"gone")];
        assert_eq!(parse_changes(&unit), Some(expected));
    }

    #[test]
    fn no_payload_makes_the_parser_panic() {
        let mut unit = Vec::new();
        emit_change(&mut unit, b"key", Some(b"value"));
        for end in 1..unit.len() {
            assert_eq!(parse_changes(&unit[..end]), None, "cut at {end}");
        }
        assert_eq!(parse_changes(&[3, 0, 0]), None, "unknown operation");
        assert_eq!(parse_changes(&[PUT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None, "lengths beyond the end");
    }

    #[test]
    fn each_flipped_bit_of_a_block_is_noticed() {
        let unit = emit_unit(7, 9, b"payload");
        let mut block = [0; STORE_BLOCK_BYTES];
        block[..unit.len()].copy_from_slice(&unit);
        assert!(Block::parse(&block).is_some_and(|block| block.payload == b"payload" && block.sequence == 9));
        for bit in 0..unit.len() * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::parse(&flipped).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn each_flipped_bit_of_a_region_header_is_noticed() {
        let header = region_header(5);
        let mut block = [0; STORE_BLOCK_BYTES];
        block[..header.len()].copy_from_slice(&header);
        assert_eq!(parse_region_header(&block), RegionHeader::Valid(5));
        for bit in 0..header.len() * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_region_header(&flipped), RegionHeader::Invalid, "bit {bit}");
        }
    }
}
