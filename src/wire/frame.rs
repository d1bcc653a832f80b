//! Frames: parsed from and emitted to slices, each with its CRC.
//!
//! It checks that a frame is whole and belongs to the session; what a frame does is the business of `link`. The layouts
//! are in the parent module.

use crc::{CRC_32_ISCSI, Crc};

use super::VERSION;
use super::cobs;
use crate::limits::{LINK_MESSAGE_BYTES_MIN, LINK_MTU_BYTES_MIN};

/// CRC-32C: polynomial 0x1edc6f41, reflected, initial value and final exclusive-or 0xffffffff.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const CRC_BYTES: usize = 4;

const KIND_MASK: u8 = 0xf0;
const HELLO: u8 = 0x10;
const DATA: u8 = 0x20;
const ACK: u8 = 0x30;

const FROM_DEVICE: u8 = 0x08;
const HELLO_ASK: u8 = 0x01;
const DATA_FIRST: u8 = 0x01;
const DATA_LAST: u8 = 0x02;
const ACK_GAP: u8 = 0x01;

const HELLO_BYTES: usize = 14;
const DATA_HEADER_BYTES: usize = 3;
const ACK_BYTES: usize = 2;

/// Octets of payload in the largest DATA frame that `mtu` octets carry.
pub const fn payload_bytes_max(mtu: usize) -> usize {
    cobs::decoded_bytes_max(mtu).saturating_sub(DATA_HEADER_BYTES + CRC_BYTES)
}

// The smallest MTU carries a HELLO exactly, and a DATA frame that makes progress.
const _: () = assert!(cobs::decoded_bytes_max(LINK_MTU_BYTES_MIN) == HELLO_BYTES + CRC_BYTES);
const _: () = assert!(payload_bytes_max(LINK_MTU_BYTES_MIN) == 11);

/// Which end of a link: it is said in every frame, and orders the boot ids in the CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that holds the subscriptions.
    Gateway,
    /// The end that messages are for.
    Device,
}

impl Role {
    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Gateway => Self::Device,
            Self::Device => Self::Gateway,
        }
    }

    const fn flag(self) -> u8 {
        match self {
            Self::Gateway => 0,
            Self::Device => FROM_DEVICE,
        }
    }
}

/// The octets that precede every DATA and ACK frame of a session in its CRC, and are not sent.
///
/// Layout: boot id of the gateway, boot id of the device, each 4 octets little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSeed([u8; 8]);

impl SessionSeed {
    /// The seed of the session between these two boot ids.
    pub fn new(gateway_boot_id: u32, device_boot_id: u32) -> Self {
        let ids = (u64::from(device_boot_id) << 32) | u64::from(gateway_boot_id);
        Self(ids.to_le_bytes())
    }
}

/// What a side says about itself and whom it heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whether the sender is not open yet and wants a HELLO in return.
    pub ask: bool,
    /// The sender's boot id, never 0.
    pub boot_id: u32,
    /// The boot id last heard from the receiver of this frame, or 0.
    pub echo: u32,
    /// Octets of the largest frame that the sender accepts, delimiter included.
    pub mtu: u16,
    /// Octets of the largest message that the sender accepts.
    pub message_bytes_max: u16,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A HELLO of this version.
    Hello(Hello),
    /// A HELLO of a version that is not spoken here.
    HelloOfVersion(u8),
    /// A fragment of a message.
    Data {
        /// Whether a message starts here.
        first: bool,
        /// Whether a message ends here.
        last: bool,
        /// Number of this frame in its direction, modulo 256.
        seq: u8,
        /// Number of the frame that the sender expects next.
        ack: u8,
        /// The octets of the fragment.
        payload: &'a [u8],
    },
    /// A frame ack alone.
    Ack {
        /// Whether a later frame arrived while the expected one did not.
        gap: bool,
        /// Number of the frame that the sender expects next.
        ack: u8,
    },
}

/// Why octets between two delimiters are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidFrame {
    /// A kind that this version does not know.
    Kind,
    /// Sent by the end that received it: an echo, or a peer of the same role.
    Echo,
    /// Damaged, or of another session.
    Checksum,
    /// A length or a value that its kind does not allow.
    Malformed,
}

impl<'a> Frame<'a> {
    /// Parses a decoded frame that `from` sent; DATA and ACK need the session they belong to.
    ///
    /// # Errors
    /// See [`InvalidFrame`]; the frame is to be dropped in every case.
    pub fn parse(octets: &'a [u8], from: Role, session: Option<SessionSeed>) -> Result<Self, InvalidFrame> {
        let (body, crc) = octets.split_last_chunk::<CRC_BYTES>().ok_or(InvalidFrame::Malformed)?;
        let kind = *body.first().ok_or(InvalidFrame::Malformed)?;
        let seed = match kind & KIND_MASK {
            HELLO => None,
            DATA | ACK => Some(session.ok_or(InvalidFrame::Checksum)?),
            _ => return Err(InvalidFrame::Kind),
        };
        if kind & FROM_DEVICE != from.flag() {
            return Err(InvalidFrame::Echo);
        }
        if checksum(seed, &[body]) != *crc {
            return Err(InvalidFrame::Checksum);
        }
        match kind & KIND_MASK {
            HELLO => parse_hello(body),
            DATA => parse_data(body),
            _ => parse_ack(body),
        }
    }

    /// Emits the frame as `from` sends it, encoded and delimited; returns the octets written, or `None` when `out` is too
    /// small.
    ///
    /// A HELLO ignores the session; DATA and ACK without one are not emitted.
    pub fn emit(&self, from: Role, session: Option<SessionSeed>, out: &mut [u8]) -> Option<usize> {
        match *self {
            Self::Hello(hello) => emit(None, &hello_body(from, hello), &[], out),
            Self::HelloOfVersion(_) => None,
            Self::Data { first, last, seq, ack, payload } => {
                let kind = DATA | from.flag() | flag(first, DATA_FIRST) | flag(last, DATA_LAST);
                emit(Some(session?), &[kind, seq, ack], payload, out)
            }
            Self::Ack { gap, ack } => {
                let kind = ACK | from.flag() | flag(gap, ACK_GAP);
                emit(Some(session?), &[kind, ack], &[], out)
            }
        }
    }
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn hello_body(from: Role, hello: Hello) -> [u8; HELLO_BYTES] {
    let mut body = [0; HELLO_BYTES];
    body[0] = HELLO | from.flag() | flag(hello.ask, HELLO_ASK);
    body[1] = VERSION;
    body[2..6].copy_from_slice(&hello.boot_id.to_le_bytes());
    body[6..10].copy_from_slice(&hello.echo.to_le_bytes());
    body[10..12].copy_from_slice(&hello.mtu.to_le_bytes());
    body[12..14].copy_from_slice(&hello.message_bytes_max.to_le_bytes());
    body
}

/// Looks at the version before the length, so that another version may have another length.
fn parse_hello(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let [kind, version, fields @ ..] = body else { return Err(InvalidFrame::Malformed) };
    if *version != VERSION {
        return Ok(Frame::HelloOfVersion(*version));
    }
    let &[b0, b1, b2, b3, e0, e1, e2, e3, m0, m1, l0, l1] = fields else { return Err(InvalidFrame::Malformed) };
    let hello = Hello {
        ask: kind & HELLO_ASK != 0,
        boot_id: u32::from_le_bytes([b0, b1, b2, b3]),
        echo: u32::from_le_bytes([e0, e1, e2, e3]),
        mtu: u16::from_le_bytes([m0, m1]),
        message_bytes_max: u16::from_le_bytes([l0, l1]),
    };
    let fits =
        usize::from(hello.mtu) >= LINK_MTU_BYTES_MIN && usize::from(hello.message_bytes_max) >= LINK_MESSAGE_BYTES_MIN;
    if hello.boot_id == 0 || !fits {
        return Err(InvalidFrame::Malformed);
    }
    Ok(Frame::Hello(hello))
}

fn parse_data(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let [kind, seq, ack, payload @ ..] = body else { return Err(InvalidFrame::Malformed) };
    let (first, last) = (kind & DATA_FIRST != 0, kind & DATA_LAST != 0);
    Ok(Frame::Data { first, last, seq: *seq, ack: *ack, payload })
}

fn parse_ack(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let &[kind, ack] = body else { return Err(InvalidFrame::Malformed) };
    Ok(Frame::Ack { gap: kind & ACK_GAP != 0, ack })
}

fn checksum(seed: Option<SessionSeed>, parts: &[&[u8]]) -> [u8; CRC_BYTES] {
    let mut digest = CRC.digest();
    if let Some(SessionSeed(octets)) = &seed {
        digest.update(octets);
    }
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_le_bytes()
}

fn emit(seed: Option<SessionSeed>, header: &[u8], payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let crc = checksum(seed, &[header, payload]);
    cobs::encode(&[header, payload, &crc], out)
}

// Sizes that the parent module states.
const _: () = assert!(cobs::decoded_bytes_max(8) == ACK_BYTES + CRC_BYTES);
const _: () = assert!(cobs::decoded_bytes_max(9) == DATA_HEADER_BYTES + CRC_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LINK_MTU_BYTES_MAX;
    use crate::wire::cobs::Deframer;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_crc_has_its_published_check_value() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_frame_of_another_session_fails_like_a_damaged_one() {
        let here = SessionSeed::new(1, 2);
        let octets = decoded(Frame::Ack { gap: false, ack: 7 }, Some(here));
        assert_eq!(Frame::parse(&octets, Role::Device, Some(here)), Ok(Frame::Ack { gap: false, ack: 7 }));
        for other in [Some(SessionSeed::new(2, 1)), Some(SessionSeed::new(1, 3)), None] {
            assert_eq!(Frame::parse(&octets, Role::Device, other), Err(InvalidFrame::Checksum));
        }
    }

    #[test]
    fn a_hello_with_impossible_values_is_malformed() {
        let good = Hello { ask: true, boot_id: 1, echo: 0, mtu: 20, message_bytes_max: 34 };
        for bad in [Hello { boot_id: 0, ..good }, Hello { mtu: 19, ..good }, Hello { message_bytes_max: 33, ..good }] {
            let octets = decoded(Frame::Hello(bad), None);
            assert_eq!(Frame::parse(&octets, Role::Device, None), Err(InvalidFrame::Malformed));
        }
        let octets = decoded(Frame::Hello(good), None);
        assert_eq!(Frame::parse(&octets, Role::Device, None), Ok(Frame::Hello(good)));
    }

    #[test]
    fn a_frame_of_the_own_role_is_an_echo() {
        let session = Some(SessionSeed::new(1, 2));
        let hello = Hello { ask: true, boot_id: 1, echo: 1, mtu: 20, message_bytes_max: 34 };
        let data = Frame::Data { first: true, last: true, seq: 0, ack: 0, payload: b"x" };
        for frame in [Frame::Hello(hello), data, Frame::Ack { gap: true, ack: 0 }] {
            let octets = decoded(frame, session);
            assert_eq!(Frame::parse(&octets, Role::Gateway, session), Err(InvalidFrame::Echo));
            assert_eq!(Frame::parse(&octets, Role::Device, session), Ok(frame));
        }
    }

    #[test]
    fn unknown_kinds_and_wrong_lengths_are_no_frames() {
        let session = SessionSeed::new(1, 2);
        let parse = |body: &[u8]| {
            let octets = [body, &checksum(Some(session), &[body])].concat();
            Frame::parse(&octets, Role::Gateway, Some(session)).map(|_| ())
        };
        assert_eq!(parse(&[0x40, 0]), Err(InvalidFrame::Kind));
        assert_eq!(parse(&[0x30]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x30, 1, 2]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x20, 1]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[]), Err(InvalidFrame::Malformed));
        assert_eq!(Frame::parse(&[1, 2, 3], Role::Gateway, None), Err(InvalidFrame::Malformed));
    }

    #[test]
    fn a_hello_of_another_version_may_have_another_length() {
        let body = [0x11, 9, 1, 2, 3];
        let octets = [&body[..], &checksum(None, &[&body])].concat();
        assert_eq!(Frame::parse(&octets, Role::Gateway, None), Ok(Frame::HelloOfVersion(9)));
    }

    proptest! {
        /// C-34, C-66: one flipped bit anywhere is seen.
        #[test]
        fn c_34_a_flipped_bit_is_seen(payload in prop::collection::vec(any::<u8>(), 0..100), bit in any::<prop::sample::Index>()) {
            let session = Some(SessionSeed::new(3, 4));
            let frame = Frame::Data { first: true, last: false, seq: 5, ack: 6, payload: &payload };
            let mut octets = decoded(frame, session);
            prop_assert_eq!(Frame::parse(&octets, Role::Device, session), Ok(frame));
            let bit = bit.index(octets.len() * 8);
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Frame::parse(&octets, Role::Device, session).is_err());
        }

        /// C-66: arbitrary octets never panic.
        #[test]
        fn c_66_hostile_frames_never_panic(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Frame::parse(&octets, Role::Device, Some(SessionSeed::new(1, 1))).is_err());
        }
    }

    fn decoded(frame: Frame<'_>, session: Option<SessionSeed>) -> Vec<u8> {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let bytes = frame.emit(Role::Device, session, &mut out).expect("it fits");
        let mut deframer = Deframer::new(LINK_MTU_BYTES_MAX);
        assert_eq!(deframer.feed(&out[..bytes]), (bytes, true));
        deframer.frame().to_vec()
    }
}
