//! Message encryption: aes128gcm (RFC 8188) with the keys of Web Push (RFC 8291).
//!
//! ```text
//! body = salt(16) | rs(4, big endian) | idlen(1) | keyid(idlen) | records
//! push = idlen 65, keyid = the sender's P-256 key, one record: plaintext | 0x02 | zeros | tag(16)
//! ```
//!
//! [`decode`] and [`encode`] speak the push profile; [`open`] is the general codec below it, which also knows several
//! records. A message of several records is not valid for push here (RFC 8291 §4 allows to refuse it).

use std::cell::OnceCell;
use std::fmt;

use p256::{PublicKey, SecretKey};
use ring::{aead, hkdf};
use zeroize::Zeroizing;

use crate::limits::{PLAINTEXT_BYTES_MAX, PUSH_BODY_BYTES_MAX};
use crate::random::{Random, array};

/// Octets of an uncompressed P-256 public key.
pub const PUBLIC_KEY_BYTES: usize = 65;
/// Octets of an authentication secret.
pub const AUTH_SECRET_BYTES: usize = 16;

const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Salt, record size and length of the key id.
const PREFIX_BYTES: usize = SALT_BYTES + 4 + 1;
/// The header of a push message.
const HEADER_BYTES: usize = PREFIX_BYTES + PUBLIC_KEY_BYTES;
/// A record holds at least one octet of content beside delimiter and tag.
const RECORD_BYTES_MIN: usize = TAG_BYTES + 2;
const RECORD_BYTES: u32 = 4096;
const DELIMITER_LAST: u8 = 2;
const DELIMITER_MORE: u8 = 1;

/// The keys of one subscription: what its holder needs to read the messages sent to it.
///
/// The private key and the secret are zeroised when dropped and never printed.
pub struct Keys {
    private: SecretKey,
    /// Derived from the private one when it is first asked for: that costs a board 20 ms, and a start may take up hundreds.
    public: OnceCell<[u8; PUBLIC_KEY_BYTES]>,
    auth: Zeroizing<[u8; AUTH_SECRET_BYTES]>,
}

/// The stored private key is no valid scalar of P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

/// Why a body is not a message for these keys. Nothing of such a message is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its header, or longer than [`PUSH_BODY_BYTES_MAX`].
    Length,
    /// The record size is below 18.
    RecordSize,
    /// The key id is not an uncompressed point on P-256.
    SenderKey,
    /// More than one record.
    SeveralRecords,
    /// Wrong keys, or the message was altered.
    Authentication,
    /// A record without delimiter, or with the wrong one.
    Padding,
}

/// Why a message cannot be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The receiver's key is not an uncompressed point on P-256.
    ReceiverKey,
    /// The receiver's secret does not have 16 octets.
    AuthSecret,
    /// More than [`PLAINTEXT_BYTES_MAX`] octets.
    TooLarge,
}

impl Keys {
    /// Makes new keys.
    ///
    /// Source: RFC 8291 §3.1, §3.2.
    pub fn generate(random: &mut dyn Random) -> Self {
        let private = generate_private(random);
        Self::new(private, Zeroizing::new(array(random)))
    }

    /// Takes up stored keys.
    ///
    /// # Errors
    /// [`InvalidKey`] when the private key is zero or not below the order of the curve.
    pub fn from_stored(private: &[u8; 32], auth: &[u8; AUTH_SECRET_BYTES]) -> Result<Self, InvalidKey> {
        let private = SecretKey::from_slice(private).map_err(|_| InvalidKey)?;
        Ok(Self::new(private, Zeroizing::new(*auth)))
    }

    fn new(private: SecretKey, auth: Zeroizing<[u8; AUTH_SECRET_BYTES]>) -> Self {
        Self { private, public: OnceCell::new(), auth }
    }

    /// The public key, uncompressed: what the sender knows as `p256dh`.
    pub fn public(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.public.get_or_init(|| uncompressed(&self.private.public_key()))
    }

    /// The authentication secret: what the sender knows as `auth`.
    pub fn auth(&self) -> &[u8; AUTH_SECRET_BYTES] {
        &self.auth
    }

    /// The private key, for storing.
    pub fn private(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.private.to_bytes().into())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Decrypts a pushed body in place.
///
/// # Errors
/// [`DecodeError`]; the content of `body` is then unspecified and must not be used.
///
/// Source: RFC 8291 §3.4, §4.
pub fn decode(keys: &Keys, mut body: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    if body.len() > PUSH_BODY_BYTES_MAX {
        return Err(DecodeError::Length);
    }
    let header = Header::parse(&body)?;
    let sender = public_key(&body[PREFIX_BYTES..header.bytes]).ok_or(DecodeError::SenderKey)?;
    if body.len() - header.bytes > header.record_bytes {
        return Err(DecodeError::SeveralRecords);
    }
    let ikm = input_keying_material(&keys.private, &sender, &*keys.auth, keys.public(), &uncompressed(&sender));
    let plaintext_bytes = open(&*ikm, &mut body)?;
    body.truncate(plaintext_bytes);
    Ok(body)
}

/// Zero octets that bring a plaintext to a multiple of `class_bytes`, or to the largest plaintext where that is less: all
/// plaintexts of one class look alike. A class of zero octets pads nothing.
///
/// Source: RFC 8291 §7 (lengths leak), RFC 8188 §2 (padding).
pub fn padding(plaintext_bytes: usize, class_bytes: usize) -> usize {
    let wanted = plaintext_bytes.max(1).div_ceil(class_bytes.max(1)).saturating_mul(class_bytes);
    wanted.min(PLAINTEXT_BYTES_MAX).saturating_sub(plaintext_bytes)
}

/// The key that the header of a body names: in a push message the one with which its sender encrypted.
///
/// Source: RFC 8188 §2.1, RFC 8291 §4.
pub fn key_id(body: &[u8]) -> Option<&[u8]> {
    let bytes = usize::from(*body.get(PREFIX_BYTES - 1)?);
    body.get(PREFIX_BYTES..PREFIX_BYTES + bytes)
}

/// Encrypts a message for the holder of `receiver` and `auth`, padded with `padding` zero octets.
///
/// # Errors
/// [`EncodeError`] when the keys are not valid or plaintext and padding do not fit.
///
/// Source: RFC 8291 §3, §4: one record, a new key pair and salt for each message.
pub fn encode(
    receiver: &[u8],
    auth: &[u8],
    plaintext: &[u8],
    padding: usize,
    random: &mut dyn Random,
) -> Result<Vec<u8>, EncodeError> {
    let private = generate_private(random);
    encode_with(receiver, auth, plaintext, padding, &private, array(random))
}

fn encode_with(
    receiver: &[u8],
    auth: &[u8],
    plaintext: &[u8],
    padding: usize,
    sender: &SecretKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, EncodeError> {
    let receiver_key = public_key(receiver).ok_or(EncodeError::ReceiverKey)?;
    let receiver: &[u8; PUBLIC_KEY_BYTES] = receiver.try_into().map_err(|_| EncodeError::ReceiverKey)?;
    let auth: &[u8; AUTH_SECRET_BYTES] = auth.try_into().map_err(|_| EncodeError::AuthSecret)?;
    if plaintext.len().saturating_add(padding) > PLAINTEXT_BYTES_MAX {
        return Err(EncodeError::TooLarge);
    }
    let sender_public = uncompressed(&sender.public_key());
    let ikm = input_keying_material(sender, &receiver_key, auth, receiver, &sender_public);
    let (key, nonce) = record_keys(&*ikm, &salt);

    let mut body = Vec::with_capacity(HEADER_BYTES + plaintext.len() + 1 + padding + TAG_BYTES);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(PUBLIC_KEY_BYTES as u8);
    body.extend_from_slice(&sender_public);
    body.extend_from_slice(plaintext);
    body.push(DELIMITER_LAST);
    body.resize(body.len() + padding, 0);
    let tag = key
        .seal_in_place_separate_tag(nonce_of(nonce, 0), aead::Aad::empty(), &mut body[HEADER_BYTES..])
        .expect("a record is far below the limit of the cipher");
    body.extend_from_slice(tag.as_ref());
    Ok(body)
}

/// Decrypts a body of any number of records in place, moves the plaintext to the front and returns its length.
///
/// # Errors
/// [`DecodeError`]; the content of `body` is then unspecified.
///
/// Source: RFC 8188 §2.
pub fn open(ikm: &[u8], body: &mut [u8]) -> Result<usize, DecodeError> {
    let header = Header::parse(body)?;
    let salt: [u8; SALT_BYTES] = body[..SALT_BYTES].try_into().expect("the header was parsed");
    let (key, nonce) = record_keys(ikm, &salt);
    let (mut from, mut to) = (header.bytes, 0);
    for sequence in 0u64.. {
        let end = body.len().min(from.saturating_add(header.record_bytes));
        let last = end == body.len();
        let record = &mut body[from..end];
        let content = key
            .open_in_place(nonce_of(nonce, sequence), aead::Aad::empty(), record)
            .map_err(|_| DecodeError::Authentication)?;
        let content_bytes = unpadded(content, if last { DELIMITER_LAST } else { DELIMITER_MORE })?;
        body.copy_within(from..from + content_bytes, to);
        to += content_bytes;
        from = end;
        if last {
            break;
        }
    }
    Ok(to)
}

/// Length of a record's content before its delimiter and padding (RFC 8188 §2).
fn unpadded(content: &[u8], delimiter: u8) -> Result<usize, DecodeError> {
    let at = content.iter().rposition(|&octet| octet != 0).ok_or(DecodeError::Padding)?;
    if content[at] == delimiter { Ok(at) } else { Err(DecodeError::Padding) }
}

struct Header {
    bytes: usize,
    record_bytes: usize,
}

impl Header {
    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let prefix = body.first_chunk::<PREFIX_BYTES>().ok_or(DecodeError::Length)?;
        let record_bytes = u32::from_be_bytes([prefix[16], prefix[17], prefix[18], prefix[19]]);
        let record_bytes = usize::try_from(record_bytes).map_err(|_| DecodeError::RecordSize)?;
        if record_bytes < RECORD_BYTES_MIN {
            return Err(DecodeError::RecordSize);
        }
        let bytes = PREFIX_BYTES + usize::from(prefix[20]);
        if body.len() <= bytes { Err(DecodeError::Length) } else { Ok(Self { bytes, record_bytes }) }
    }
}

/// Draws until the octets are a valid scalar, which all but one in 2^32 draws are.
fn generate_private(random: &mut dyn Random) -> SecretKey {
    for _ in 0..64 {
        let octets: Zeroizing<[u8; 32]> = Zeroizing::new(array(random));
        if let Ok(private) = SecretKey::from_slice(&*octets) {
            return private;
        }
    }
    panic!("the random source is stuck: 64 draws gave no P-256 key");
}

fn public_key(octets: &[u8]) -> Option<PublicKey> {
    // Compressed and hybrid forms are valid SEC1 but not valid here (RFC 8291 §4).
    if octets.len() != PUBLIC_KEY_BYTES || octets[0] != 4 {
        return None;
    }
    PublicKey::from_sec1_bytes(octets).ok()
}

fn uncompressed(key: &PublicKey) -> [u8; PUBLIC_KEY_BYTES] {
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    let point = key.to_sec1_point(false);
    point.as_bytes().try_into().expect("an uncompressed P-256 point has 65 octets")
}

/// The 32 octets from which RFC 8188 derives its keys (RFC 8291 §3.3); the receiver's key stands first on both sides.
fn input_keying_material(
    own: &SecretKey,
    peer: &PublicKey,
    auth: &[u8],
    receiver: &[u8; PUBLIC_KEY_BYTES],
    sender: &[u8; PUBLIC_KEY_BYTES],
) -> Zeroizing<[u8; 32]> {
    let secret = own.diffie_hellman(peer);
    let mut ikm = Zeroizing::new([0; 32]);
    expand(auth, secret.raw_secret_bytes(), &[b"WebPush: info\0", receiver, sender], &mut *ikm);
    ikm
}

fn record_keys(ikm: &[u8], salt: &[u8]) -> (aead::LessSafeKey, [u8; aead::NONCE_LEN]) {
    let mut key = Zeroizing::new([0; 16]);
    let mut nonce = [0; aead::NONCE_LEN];
    expand(salt, ikm, &[b"Content-Encoding: aes128gcm\0"], &mut *key);
    expand(salt, ikm, &[b"Content-Encoding: nonce\0"], &mut nonce);
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &*key).expect("the key has 16 octets");
    (aead::LessSafeKey::new(key), nonce)
}

/// The base nonce with the record's number added by exclusive or (RFC 8188 §2.3).
fn nonce_of(mut base: [u8; aead::NONCE_LEN], sequence: u64) -> aead::Nonce {
    for (octet, number) in base[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *octet ^= number;
    }
    aead::Nonce::assume_unique_for_key(base)
}

/// HKDF with SHA-256 (RFC 5869).
fn expand(salt: &[u8], input: &[u8], info: &[&[u8]], output: &mut [u8]) {
    struct Bytes(usize);
    impl hkdf::KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(input)
        .expand(info, Bytes(output.len()))
        .and_then(|okm| okm.fill(output))
        .expect("no output here is longer than HKDF allows");
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the body is too short or too long",
            Self::RecordSize => "the record size is below 18",
            Self::SenderKey => "the sender's key is no point on P-256",
            Self::SeveralRecords => "the message has several records",
            Self::Authentication => "the message was made for other keys or altered",
            Self::Padding => "the padding delimiter is wrong",
        })
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReceiverKey => f.write_str("the key p256dh is no uncompressed point on P-256"),
            Self::AuthSecret => f.write_str("the secret auth does not have 16 octets"),
            Self::TooLarge => write!(f, "the message has more than {PLAINTEXT_BYTES_MAX} octets"),
        }
    }
}

impl std::error::Error for DecodeError {}
impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests;
