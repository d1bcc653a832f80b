//! Encrypted bodies: anything, altered ones, and ones whose records have any size and padding.

use fieldgate::limits::{PLAINTEXT_BYTES_MAX, PUSH_BODY_BYTES_MAX};
use fieldgate::random::SeededRandom;
use fieldgate::webpush::ece::{DecodeError, EncodeError, Keys, decode, encode, open};
use ring::{aead, hkdf};

use super::input::Input;

const IKM: [u8; 32] = [7; 32];
const TAG_BYTES: usize = 16;
thread_local! {
    /// They cost more than all the rest.
    static KEYS: Keys = Keys::generate(&mut SeededRandom::new(1));
}

/// Nothing but what was encrypted comes out, and that comes out whole.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => KEYS.with(|keys| check_anything(keys, input.rest())),
        1 => KEYS.with(|keys| check_push(keys, &mut input)),
        _ => check_records(&mut input),
    }
}

fn check_anything(keys: &Keys, body: &[u8]) {
    let decoded = decode(keys, body.to_vec());
    assert_eq!(decoded, decode(keys, body.to_vec()));
    if let Ok(plaintext) = decoded {
        assert!(plaintext.len() <= PLAINTEXT_BYTES_MAX && body.len() <= PUSH_BODY_BYTES_MAX);
    }
    let mut opened = body.to_vec();
    if let Ok(bytes) = open(&IKM, &mut opened) {
        assert!(bytes < body.len());
    }
}

fn check_push(keys: &Keys, input: &mut Input<'_>) {
    let [seed, altered, at_low, at_high] = input.array();
    let padding = input.below(5_000) / 8 * usize::from(input.byte() % 9);
    let plaintext = input.rest();
    let body = encode(keys.public(), keys.auth(), plaintext, padding, &mut SeededRandom::new(seed.into()));
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            assert!(error == EncodeError::TooLarge && plaintext.len() + padding > PLAINTEXT_BYTES_MAX);
            return;
        }
    };
    assert!(body.len() <= PUSH_BODY_BYTES_MAX);
    assert_eq!(decode(keys, body.clone()).as_deref(), Ok(plaintext));

    let at = usize::from(u16::from_le_bytes([at_low, at_high])) % body.len();
    let mut other = body.clone();
    other[at] ^= altered;
    // The record size is not authenticated: where there is one record, any that is large enough means the same.
    if let Ok(decoded) = decode(keys, other) {
        assert!(decoded == plaintext && (altered == 0 || (16..20).contains(&at)));
    }
    assert!(decode(keys, body[..at].to_vec()).is_err());
}

/// Records are taken as RFC 8188 §2 says: each but the last is full and ends in 1, the last in 2, then zeros.
fn check_records(input: &mut Input<'_>) {
    let salt: [u8; 16] = input.array();
    let record_bytes = 18 + input.below(80);
    let key_id = input.short();
    let count = 1 + usize::from(input.byte() % 5);
    let mut body = [&salt[..], &(record_bytes as u32).to_be_bytes(), &[key_id.len() as u8], key_id].concat();
    let mut expected = Ok(Vec::new());
    for number in 0..count {
        let last = number + 1 == count;
        let record = record(input, record_bytes - TAG_BYTES, last);
        let content = content(&record, if last { 2 } else { 1 });
        expected = expected.and_then(|plaintext: Vec<u8>| Ok([&plaintext, content?].concat()));
        body.extend(sealed(&salt, number as u8, record));
    }
    let mut opened = body.clone();
    let opened = open(&IKM, &mut opened).map(|bytes| opened[..bytes].to_vec());
    assert_eq!(opened, expected);
    assert!(open(&[8; 32], &mut body).is_err());
}

/// Content, a delimiter, mostly the right one, and padding; only the last record may be short.
fn record(input: &mut Input<'_>, bytes_max: usize, last: bool) -> Vec<u8> {
    let [delimiter, bytes, padding] = input.array();
    let mut record = input.octets(usize::from(bytes) % bytes_max).to_vec();
    record.push(match delimiter {
        0..200 => 1 + u8::from(last),
        other => other & 3,
    });
    let padded = record.len() + usize::from(padding);
    record.resize(if last { padded.min(bytes_max) } else { bytes_max }, 0);
    record
}

fn content(record: &[u8], delimiter: u8) -> Result<&[u8], DecodeError> {
    let zeros = record.iter().rev().take_while(|&&octet| octet == 0).count();
    record[..record.len() - zeros].strip_suffix(&[delimiter]).ok_or(DecodeError::Padding)
}

fn sealed(salt: &[u8], number: u8, mut record: Vec<u8>) -> Vec<u8> {
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&IKM);
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    fill(&pseudorandom, b"Content-Encoding: aes128gcm\0", &mut key);
    fill(&pseudorandom, b"Content-Encoding: nonce\0", &mut nonce);
    nonce[11] ^= number;
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).expect("16 octets"));
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut record).expect("a short record");
    record
}

fn fill(pseudorandom: &hkdf::Prk, info: &[u8], output: &mut [u8]) {
    struct Bytes(usize);
    impl hkdf::KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let info = [info];
    let okm = pseudorandom.expand(&info, Bytes(output.len())).expect("a short output");
    okm.fill(output).expect("of this length");
}
