//! All facts of a store in one file that a passphrase opens, to be carried to another board.
//!
//! # Byte page, version 1
//!
//! Numbers are little endian.
//!
//! ```text
//! offset  octets
//!      0       8  "fieldexp"
//!      8       2  version of the format: 1
//!     10       4  memory of the key derivation in KiB: 8 to 262144
//!     14       4  passes over it: at least 1; memory times passes at most 1048576 KiB
//!     18      16  salt, drawn anew for each file
//!     34      16  check: tells another passphrase from a changed file
//!     50       4  length of the contents: at most 1048576
//!     54          contents, encrypted
//!      …      16  tag over everything before it
//! ```
//!
//! Argon2id (RFC 9106; version 0x13, one lane) makes 48 octets of passphrase and salt: the key, then the check. The contents
//! are sealed with ChaCha20-Poly1305 (RFC 8439), with the header as additional data. The nonce is zero, since the salt gives
//! each file a key of its own.
//!
//! The contents are facts, in the order of their keys, none twice:
//!
//! ```text
//! length of the key (2) · length of the value (4) · key · value
//! ```
//!
//! # Reading
//!
//! Magic, version, length and cost are judged before any memory is taken or a passphrase asked for; the contents only once
//! the tag is right.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize as _, Zeroizing};

use super::Change;
use crate::limits::{
    EXPORT_MEMORY_KIB, EXPORT_MEMORY_KIB_MAX, EXPORT_PASSES, EXPORT_WORK_KIB_MAX, STORE_KEY_BYTES_MAX,
    STORE_LIVE_BYTES_MAX, STORE_VALUE_BYTES_MAX,
};
use crate::random::{self, Random};

const MAGIC: [u8; 8] = *b"fieldexp";
const VERSION: u16 = 1;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 54;
/// Octets of the largest export.
pub const EXPORT_BYTES_MAX: usize = HEADER_BYTES + STORE_LIVE_BYTES_MAX + TAG_BYTES;

const _: () = assert!(STORE_LIVE_BYTES_MAX <= u32::MAX as usize);

/// What it costs to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Units: KiB.
    memory_kib: u32,
    passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: EXPORT_MEMORY_KIB, passes: EXPORT_PASSES }
    }
}

impl Cost {
    /// A cost within bounds, if it is that.
    pub const fn new(memory_kib: u32, passes: u32) -> Option<Self> {
        let is_within = memory_kib >= Params::MIN_M_COST
            && memory_kib <= EXPORT_MEMORY_KIB_MAX
            && passes >= Params::MIN_T_COST
            && memory_kib as u64 * passes as u64 <= EXPORT_WORK_KIB_MAX;
        if is_within { Some(Self { memory_kib, passes }) } else { None }
    }
}

/// Why facts were not sealed, or an export not opened. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// It is something else.
    Foreign,
    /// Another version of the format.
    Version(u16),
    /// It is not as long as it says.
    Length {
        /// Octets that it has.
        found: usize,
        /// Octets that it should have.
        expected: usize,
    },
    /// It asks for more memory or time than any export does.
    Excessive,
    /// There is not as much memory as the passphrase takes.
    Memory,
    /// It was made with another passphrase.
    Passphrase,
    /// The passphrase is right, and octets are not as they were written.
    Changed,
    /// What is in it is no state.
    Malformed,
    /// The facts are more than a store holds.
    TooLarge,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no export; name a file that fieldgate export wrote"),
            Self::Version(version) => write!(
                f,
                "it has format {version}, this program knows format {VERSION}; use the version of fieldgate that wrote it"
            ),
            Self::Length { found, expected } if found < expected => write!(
                f,
                "it is cut: {found} of {expected} octets are there; copy it again, or make a new one with fieldgate export"
            ),
            Self::Length { .. } => {
                f.write_str("something follows its end; copy it again, or make a new one with fieldgate export")
            }
            Self::Excessive => f.write_str(
                "it asks for more memory or time than any export does: it is damaged, or meant to harm; make a new one with \
                 fieldgate export",
            ),
            Self::Memory => write!(
                f,
                "too little memory is free for the passphrase: it takes up to {} MiB; end other programs, and try again",
                EXPORT_MEMORY_KIB_MAX / 1024
            ),
            Self::Passphrase => f.write_str("it was made with another passphrase; try again with that one"),
            Self::Changed => f.write_str(
                "the passphrase is right, but the file was changed or damaged; copy it again, or make a new one with \
                 fieldgate export",
            ),
            Self::Malformed => {
                f.write_str("what is in it is no state of a gateway; make a new one with fieldgate export")
            }
            Self::TooLarge => f.write_str("the state is larger than a state can be"),
        }
    }
}

impl std::error::Error for ExportError {}

/// Seals facts, given in the order of their keys.
///
/// # Errors
/// [`ExportError::TooLarge`] or [`ExportError::Memory`].
pub fn seal<'a>(
    facts: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    passphrase: &[u8],
    cost: Cost,
    random: &mut dyn Random,
) -> Result<Vec<u8>, ExportError> {
    // As large as it may become: what grows leaves copies behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(STORE_LIVE_BYTES_MAX + TAG_BYTES));
    for (key, value) in facts {
        let key_length = u16::try_from(key.len()).map_err(|_| ExportError::TooLarge)?;
        let value_length = u32::try_from(value.len()).map_err(|_| ExportError::TooLarge)?;
        if contents.len() + 6 + key.len() + value.len() > STORE_LIVE_BYTES_MAX {
            return Err(ExportError::TooLarge);
        }
        contents.extend_from_slice(&key_length.to_le_bytes());
        contents.extend_from_slice(&value_length.to_le_bytes());
        contents.extend_from_slice(key);
        contents.extend_from_slice(value);
    }
    let salt: [u8; SALT_BYTES] = random::array(random);
    let derived = Derived::new(passphrase, &salt, cost)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + contents.len() + TAG_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&cost.memory_kib.to_le_bytes());
    out.extend_from_slice(&cost.passes.to_le_bytes());
    out.extend_from_slice(&salt);
    out.extend_from_slice(derived.check());
    out.extend_from_slice(&u32::try_from(contents.len()).map_err(|_| ExportError::TooLarge)?.to_le_bytes());
    let sealed = derived.key().seal_in_place_append_tag(nonce(), Aad::from(&out[..]), &mut *contents);
    sealed.map_err(|_| ExportError::TooLarge)?;
    out.extend_from_slice(&contents);
    Ok(out)
}

/// An export whose outside is in order.
#[derive(Debug)]
pub struct Sealed<'a> {
    header: &'a [u8; HEADER_BYTES],
    contents: &'a [u8],
    cost: Cost,
}

impl<'a> Sealed<'a> {
    /// Looks at what can be told without the passphrase.
    ///
    /// # Errors
    /// It is no export, one of another version, cut, or asks for too much.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ExportError> {
        let (magic, _) = octets.split_at_checked(MAGIC.len()).ok_or(ExportError::Foreign)?;
        if magic != MAGIC {
            return Err(ExportError::Foreign);
        }
        let short = ExportError::Length { found: octets.len(), expected: HEADER_BYTES + TAG_BYTES };
        let version = octets.get(8..10).and_then(|octets| octets.first_chunk()).ok_or(short)?;
        match u16::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(ExportError::Version(other)),
        }
        let (header, contents) = octets.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let cost = Cost::new(number(header, 10), number(header, 14)).ok_or(ExportError::Excessive)?;
        let length = usize::try_from(number(header, 50)).map_err(|_| ExportError::Excessive)?;
        if length > STORE_LIVE_BYTES_MAX {
            return Err(ExportError::Excessive);
        }
        let expected = HEADER_BYTES + length + TAG_BYTES;
        if octets.len() != expected {
            return Err(ExportError::Length { found: octets.len(), expected });
        }
        Ok(Self { header, contents, cost })
    }

    /// Opens it: the facts in it, as changes of a store.
    ///
    /// # Errors
    /// The passphrase is another one, the file was changed, what is in it is no state, or memory is short.
    pub fn open(&self, passphrase: &[u8]) -> Result<Vec<Change>, ExportError> {
        let derived = Derived::new(passphrase, &self.header[18..34], self.cost)?;
        // Not in constant time: whoever could measure it has the file.
        if derived.check() != &self.header[34..50] {
            return Err(ExportError::Passphrase);
        }
        let mut contents = Zeroizing::new(self.contents.to_vec());
        let opened = derived.key().open_in_place(nonce(), Aad::from(self.header), &mut contents);
        parse_facts(opened.map_err(|_| ExportError::Changed)?).ok_or(ExportError::Malformed)
    }
}

fn parse_facts(mut contents: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut last: &[u8] = &[];
    while !contents.is_empty() {
        let (key_length, rest) = contents.split_first_chunk()?;
        let (value_length, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_length)).ok()?)?;
        if key <= last || key.len() > STORE_KEY_BYTES_MAX || value.len() > STORE_VALUE_BYTES_MAX {
            return None;
        }
        changes.push(Change::put(key, value));
        (last, contents) = (key, rest);
    }
    Some(changes)
}

/// What a passphrase and a salt make.
struct Derived(Zeroizing<[u8; KEY_BYTES + CHECK_BYTES]>);

impl Derived {
    fn new(passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<Self, ExportError> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|_| ExportError::Excessive)?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(params.block_count()).map_err(|_| ExportError::Memory)?;
        memory.resize(params.block_count(), Block::new());
        let mut derived = Self(Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]));
        let argon2 = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params);
        let made = argon2.hash_password_into_with_memory(passphrase, salt, &mut *derived.0, &mut memory[..]);
        memory.iter_mut().for_each(|block| block.as_mut().zeroize());
        made.map(|()| derived).map_err(|_| ExportError::Excessive)
    }

    fn key(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.0[..KEY_BYTES]);
        LessSafeKey::new(key.expect("it has the length of a key"))
    }

    fn check(&self) -> &[u8] {
        &self.0[KEY_BYTES..]
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut octets = [0; 4];
    octets.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const PASSPHRASE: &[u8] = b"correct horse battery";
    const FACTS: &[(&[u8], &[u8])] = &[(b"\x01a", b"private part"), (b"\x01b", b""), (b"\xfe", b"of a later version")];

    fn cheap() -> Cost {
        Cost::new(8, 1).expect("within bounds")
    }

    fn sealed(facts: &[(&[u8], &[u8])]) -> Vec<u8> {
        seal(facts.iter().copied(), PASSPHRASE, cheap(), &mut SeededRandom::new(1)).expect("sealed")
    }

    fn open(octets: &[u8], passphrase: &[u8]) -> Result<Vec<Change>, ExportError> {
        Sealed::parse(octets)?.open(passphrase)
    }

    fn set(octets: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
        let mut octets = octets.to_vec();
        octets[at..at + value.len()].copy_from_slice(value);
        octets
    }

    #[test]
    fn facts_are_read_back_as_sealed() {
        for facts in [FACTS, &[]] {
            let octets = sealed(facts);
            let expected: Vec<Change> = facts.iter().map(|(key, value)| Change::put(key, value)).collect();
            assert_eq!(open(&octets, PASSPHRASE), Ok(expected));
            assert!(!octets.windows(7).any(|octets| octets == b"private"));
        }
    }

    /// Two files of one state and one passphrase have nothing in common but the header.
    #[test]
    fn each_file_has_a_key_of_its_own() {
        let mut random = SeededRandom::new(1);
        let [one, other] =
            [(); 2].map(|()| seal(FACTS.iter().copied(), PASSPHRASE, cheap(), &mut random).expect("sealed"));
        assert_eq!(one[..18], other[..18]);
        for at in [18..34, 34..50, HEADER_BYTES..one.len()] {
            assert_ne!(one[at.clone()], other[at]);
        }
    }

    /// Never to be edited: files of this version are out there. Opened with argon2-cffi and pyca/cryptography as well.
    #[test]
    fn version_1_stays_as_it_is() {
        let octets = sealed(&[(b"k", b"value")]);
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "6669656c64657870",
        "0100",
        "08000000",
        "01000000",
        "c15c0289ec2d0a9167ec8e65a18debbe",
        "4e464eddc52fdd9972688dfcd4c6f7a7",
        "0c000000",
        "f0567ac566e9932bc90cbb27",
        "5d6bbdc33ae27c94ddb5821b55c1bed9",
    );

    #[test]
    fn another_passphrase_opens_nothing() {
        for wrong in [&b""[..], b"correct horse", b"correct horse battery ", b"Correct horse battery"] {
            assert_eq!(open(&sealed(FACTS), wrong), Err(ExportError::Passphrase), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_too_long_is_told() {
        let octets = sealed(FACTS);
        for end in 0..octets.len() {
            match open(&octets[..end], PASSPHRASE) {
                Err(ExportError::Foreign) => assert!(end < 8, "{end}"),
                Err(ExportError::Length { found, expected }) => assert!(found == end && expected > end, "{end}"),
                other => panic!("cut at {end}: {other:?}"),
            }
        }
        let long = [&octets[..], b"x"].concat();
        assert!(matches!(open(&long, PASSPHRASE), Err(ExportError::Length { .. })));
        assert!(ExportError::Length { found: 1, expected: 2 }.to_string().contains("cut"));
        assert!(ExportError::Length { found: 2, expected: 1 }.to_string().contains("follows"));
    }

    #[test]
    fn a_foreign_file_and_another_version_are_told() {
        assert_eq!(open(b"", PASSPHRASE), Err(ExportError::Foreign));
        assert_eq!(open(&[b'x'; 100], PASSPHRASE), Err(ExportError::Foreign));
        for version in [0, 2, u16::MAX] {
            let octets = set(&sealed(FACTS), 8, &version.to_le_bytes());
            assert_eq!(open(&octets, PASSPHRASE), Err(ExportError::Version(version)));
        }
    }

    /// Each octet counts, wherever it is.
    #[test]
    fn no_changed_octet_is_taken() {
        let octets = sealed(FACTS);
        for at in 0..octets.len() {
            // A cost that is another one and within bounds makes another key.
            let changed = set(&octets, at, &[octets[at] ^ 1]);
            let error = open(&changed, PASSPHRASE).expect_err("it was changed");
            match at {
                0..8 => assert_eq!(error, ExportError::Foreign),
                8..10 => assert!(matches!(error, ExportError::Version(_))),
                10..18 => assert!(matches!(error, ExportError::Excessive | ExportError::Passphrase), "{at}: {error:?}"),
                18..50 => assert_eq!(error, ExportError::Passphrase),
                50..54 => {
                    assert!(matches!(error, ExportError::Length { .. } | ExportError::Excessive), "{at}: {error:?}");
                }
                _ => assert_eq!(error, ExportError::Changed),
            }
        }
    }

    /// What a hostile file asks for is bounded, at the bound; all of it before anything is computed.
    #[test]
    fn a_hostile_file_costs_nothing() {
        let octets = sealed(FACTS);
        for (memory, passes, is_within) in [
            (7, 1, false),
            (8, 0, false),
            (8, 131_072, true),
            (8, 131_073, false),
            (EXPORT_MEMORY_KIB_MAX, 4, true),
            (EXPORT_MEMORY_KIB_MAX, 5, false),
            (EXPORT_MEMORY_KIB_MAX + 1, 1, false),
            (u32::MAX, u32::MAX, false),
        ] {
            let octets = set(&set(&octets, 10, &u32::to_le_bytes(memory)), 14, &u32::to_le_bytes(passes));
            match Sealed::parse(&octets) {
                Ok(_) => assert!(is_within, "{memory} {passes}"),
                Err(error) => assert!(error == ExportError::Excessive && !is_within, "{memory} {passes}: {error:?}"),
            }
        }
        for (length, expected) in
            [(STORE_LIVE_BYTES_MAX, None), (STORE_LIVE_BYTES_MAX + 1, Some(ExportError::Excessive))]
        {
            let octets = set(&octets, 50, &u32::to_le_bytes(length as u32));
            let error = Sealed::parse(&octets).expect_err("it is not as long");
            assert_eq!(matches!(error, ExportError::Length { .. }), expected.is_none());
            assert!(expected.is_none_or(|expected| expected == error));
        }
    }

    /// Whoever has the passphrase may write anything; it is bounded as well.
    #[test]
    fn contents_that_are_no_state_are_refused() {
        let (long_key, long_value) = (vec![1; STORE_KEY_BYTES_MAX + 1], vec![1; STORE_VALUE_BYTES_MAX + 1]);
        let (largest_key, largest_value) = (vec![1; STORE_KEY_BYTES_MAX], vec![1; STORE_VALUE_BYTES_MAX]);
        assert!(open(&sealed(&[(&largest_key, &largest_value)]), PASSPHRASE).is_ok());
        for facts in [
            &[(&b"b"[..], &b""[..]), (b"a", b"")][..],
            &[(b"a", b""), (b"a", b"")],
            &[(b"", b"")],
            &[(&long_key, b"")],
            &[(b"a", &long_value)],
        ] {
            assert_eq!(open(&sealed(facts), PASSPHRASE), Err(ExportError::Malformed));
        }
        for cut in [1, 5, 6, 7] {
            assert_eq!(parse_facts(&[1, 0, 1, 0, 0, 0, b'k', b'v'][..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_no_store_holds_is_not_sealed() {
        let value = vec![0; STORE_LIVE_BYTES_MAX - 6 - 1];
        let seal =
            |value: &[u8]| seal([(&b"k"[..], value)].into_iter(), PASSPHRASE, cheap(), &mut SeededRandom::new(1));
        assert_eq!(seal(&value).expect("it fits").len(), EXPORT_BYTES_MAX);
        assert_eq!(seal(&[&value[..], &[0]].concat()), Err(ExportError::TooLarge));
    }
}
