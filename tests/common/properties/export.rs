//! Exports as they may come from a stick that somebody found: cut, hostile, or made by whoever has the passphrase.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use fieldgate::limits::{
    EXPORT_MEMORY_KIB_MAX, EXPORT_WORK_KIB_MAX, STORE_KEY_BYTES_MAX, STORE_LIVE_BYTES_MAX, STORE_VALUE_BYTES_MAX,
};
use fieldgate::random::SeededRandom;
use fieldgate::store::Change;
use fieldgate::store::export::{Cost, ExportError, Sealed, seal};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::input::Input;

const PASSPHRASE: &[u8] = b"four random words";
const HEADER_BYTES: usize = 54;
const TAG_BYTES: usize = 16;
/// The least that is allowed, so that an attempt is quick.
const MEMORY_KIB: u32 = 8;

type Facts = Vec<(Vec<u8>, Vec<u8>)>;

/// What can be told without the passphrase is as the byte page says, and asks for no more than that allows; contents are
/// facts as the page says or refused as a whole; what was altered is refused.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => check_outside(input.rest()),
        1 => check_outside(&outside(&mut input)),
        _ => check_contents(&mut input),
    }
}

fn check_outside(octets: &[u8]) {
    let cost = match (Sealed::parse(octets), cost(octets)) {
        (Ok(sealed), Some(cost)) => (sealed, cost),
        (Err(error), None) => {
            assert_eq!(error == ExportError::Foreign, !octets.starts_with(b"fieldexp"));
            let version = octets.get(8..10).map(|octets| u16::from(octets[0]) | u16::from(octets[1]) << 8);
            let is_other = error != ExportError::Foreign && version.is_some_and(|version| version != 1);
            assert!(!is_other || Some(error) == version.map(ExportError::Version));
            return;
        }
        (parsed, cost) => panic!("{parsed:?}, while the page says {cost:?}"),
    };
    let (sealed, (memory, passes)) = cost;
    if memory <= 64 && passes <= 4 {
        assert!(sealed.open(b"another passphrase").is_err());
    }
}

/// What an export costs whose outside is in order.
fn cost(octets: &[u8]) -> Option<(u32, u32)> {
    let is_ours = octets.len() >= HEADER_BYTES + TAG_BYTES && octets.starts_with(b"fieldexp\x01\0");
    let [memory, passes, length] = is_ours.then(|| [10, 14, 50].map(|at| u32_at(octets, at)))?;
    let is_cheap = (MEMORY_KIB..=EXPORT_MEMORY_KIB_MAX).contains(&memory)
        && passes >= 1
        && u64::from(memory) * u64::from(passes) <= EXPORT_WORK_KIB_MAX;
    let is_whole =
        octets.len() - HEADER_BYTES - TAG_BYTES == length as usize && length as usize <= STORE_LIVE_BYTES_MAX;
    (is_cheap && is_whole).then_some((memory, passes))
}

/// An export with fields that are right or not, and contents that nobody sealed.
fn outside(input: &mut Input<'_>) -> Vec<u8> {
    let wrong = input.byte();
    let is_wrong = |bit: u8| wrong >> bit & 1 == 1;
    let mut octets = if is_wrong(0) { input.array::<8>().to_vec() } else { b"fieldexp".to_vec() };
    octets.extend(if is_wrong(1) { input.u16() } else { 1 }.to_le_bytes());
    octets.extend(if is_wrong(2) { input.u32() } else { MEMORY_KIB }.to_le_bytes());
    octets.extend(if is_wrong(3) { input.u32() } else { 1 }.to_le_bytes());
    let length = is_wrong(4).then(|| input.u32());
    octets.extend(input.array::<32>());
    let contents = input.rest();
    let length = length.unwrap_or(contents.len().saturating_sub(TAG_BYTES) as u32);
    octets.extend(length.to_le_bytes());
    octets.extend(contents);
    octets
}

fn check_contents(input: &mut Input<'_>) {
    let (salt, at, change) = (input.array(), input.u16(), input.byte());
    let contents = if input.flag() { input.rest().to_vec() } else { facts(input) };
    let octets = sealed(&salt, &contents);
    let opened = Sealed::parse(&octets).expect("its outside is in order").open(PASSPHRASE);
    let expected = parsed(&contents);
    match (&opened, &expected) {
        (Ok(changes), Some(facts)) => assert_eq!(*changes, puts(facts)),
        (Err(ExportError::Malformed), None) => {}
        pair => panic!("{pair:?}"),
    }
    if let Some(facts) = expected {
        let cost = Cost::new(MEMORY_KIB, 1).expect("within bounds");
        let facts = facts.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let again = seal(facts, PASSPHRASE, cost, &mut SeededRandom::new(1)).expect("they fit");
        assert_eq!(Sealed::parse(&again).expect("it was just made").open(PASSPHRASE), opened);
    }
    let mut altered = octets;
    let at = usize::from(at) % altered.len();
    altered[at] ^= change;
    // Another cost may be one that takes seconds.
    if change != 0 && !(10..18).contains(&at) {
        assert!(Sealed::parse(&altered).and_then(|sealed| sealed.open(PASSPHRASE)).is_err());
    }
}

fn puts(facts: &Facts) -> Vec<Change> {
    facts.iter().map(|(key, value)| Change::put(key, value)).collect()
}

/// Facts with keys that mostly rise, and lengths that mostly are right.
fn facts(input: &mut Input<'_>) -> Vec<u8> {
    let mut contents = Vec::new();
    let mut kind = 0_u8;
    while !input.is_empty() && contents.len() < STORE_LIVE_BYTES_MAX / 2 {
        let how = input.byte();
        kind = kind.wrapping_add(how % 4);
        let key = match how {
            250.. => vec![kind; input.below(STORE_KEY_BYTES_MAX + 2)],
            _ => [&[kind], input.octets(usize::from(how % 8))].concat(),
        };
        let mut value = input.short().to_vec();
        if how == 249 {
            value.resize(value.len() + input.below(STORE_VALUE_BYTES_MAX + 2), 0xaa);
        }
        let wrong = u32::from(how == 248);
        contents.extend((key.len() as u16).to_le_bytes());
        contents.extend((value.len() as u32 + wrong).to_le_bytes());
        contents.extend(key);
        contents.extend(value);
    }
    contents
}

/// The facts in contents, as the page says.
fn parsed(mut contents: &[u8]) -> Option<Facts> {
    let mut facts = Facts::new();
    while !contents.is_empty() {
        let (lengths, rest) = contents.split_at_checked(6)?;
        let (key, rest) = rest.split_at_checked(usize::from(lengths[0]) | usize::from(lengths[1]) << 8)?;
        let (value, rest) = rest.split_at_checked(u32_at(lengths, 2) as usize)?;
        facts.push((key.to_vec(), value.to_vec()));
        contents = rest;
    }
    let is_in_order = facts.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let is_within = |(key, value): &(Vec<u8>, Vec<u8>)| {
        (1..=STORE_KEY_BYTES_MAX).contains(&key.len()) && value.len() <= STORE_VALUE_BYTES_MAX
    };
    (is_in_order && facts.iter().all(is_within)).then_some(facts)
}

/// Seals any contents as the byte page says.
fn sealed(salt: &[u8; 16], contents: &[u8]) -> Vec<u8> {
    let params = Params::new(MEMORY_KIB, 1, 1, Some(48)).expect("within bounds");
    let mut derived = [0; 48];
    let mut memory = vec![Block::new(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(PASSPHRASE, salt, &mut derived, &mut memory).expect("it has a salt");
    let mut octets = b"fieldexp\x01\0".to_vec();
    octets.extend(MEMORY_KIB.to_le_bytes());
    octets.extend(1_u32.to_le_bytes());
    octets.extend(salt);
    octets.extend(&derived[32..]);
    octets.extend((contents.len() as u32).to_le_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &derived[..32]).expect("its length"));
    let mut contents = contents.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(&octets), &mut contents).expect("it is short");
    octets.extend(contents);
    octets
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    octets[at..at + 4].iter().rev().fold(0, |number, octet| number << 8 | u32::from(*octet))
}
