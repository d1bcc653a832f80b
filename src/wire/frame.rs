//! Frames: parsed from and emitted to slices, each with its CRC.
//!
//! It checks that a frame is whole and belongs to the session; what a frame does is the business of `link`. The layouts
//! are in the parent module.

use crc::{CRC_32_ISCSI, Crc};

use super::VERSION;
use super::cobs;
use crate::limits::{GATEWAY_LINK_WINDOW_BYTES_MIN, LINK_MTU_BYTES_MIN, LINK_WINDOW_BYTES_MIN};

/// CRC-32C: polynomial 0x1edc6f41, reflected, initial value and final exclusive-or 0xffffffff.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const CRC_BYTES: usize = 4;

const KIND_MASK: u8 = 0xf0;
const HELLO: u8 = 0x10;
const DATA: u8 = 0x20;
const ACK: u8 = 0x30;
const PROBE: u8 = 0x40;

const FROM_DEVICE: u8 = 0x08;
const HELLO_ASK: u8 = 0x01;
const DATA_URGENT: u8 = 0x01;
const DATA_ACK: u8 = 0x02;
const DATA_LIMIT: u8 = 0x04;
const ACK_URGENT: u8 = 0x01;
const PROBE_ANSWER: u8 = 0x01;

const HELLO_BYTES: usize = 14;
const DATA_HEADER_BYTES: usize = 4;
const ARRIVED_BYTES: usize = 3;
const LIMIT_BYTES: usize = 2;
const ACK_BYTES: usize = 1 + ARRIVED_BYTES + LIMIT_BYTES;
const PROBE_HEADER_BYTES: usize = 2;

/// Octets of payload in the largest DATA frame without an ack that `mtu` octets carry.
pub const fn payload_bytes_max(mtu: usize) -> usize {
    cobs::decoded_bytes_max(mtu).saturating_sub(DATA_HEADER_BYTES + CRC_BYTES)
}

/// Octets of padding in the largest PROBE frame that `mtu` octets carry.
pub const fn padding_bytes_max(mtu: usize) -> usize {
    cobs::decoded_bytes_max(mtu).saturating_sub(PROBE_HEADER_BYTES + CRC_BYTES)
}

// The smallest MTU carries a HELLO exactly, and a DATA frame that makes progress, with an ack and a limit as well.
const _: () = assert!(cobs::decoded_bytes_max(LINK_MTU_BYTES_MIN) == HELLO_BYTES + CRC_BYTES);
const _: () = assert!(payload_bytes_max(LINK_MTU_BYTES_MIN) == 10);
const _: () = assert!(ACK_BYTES + CRC_BYTES <= cobs::decoded_bytes_max(LINK_MTU_BYTES_MIN));

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
    /// Octets of the ordered stream that the sender has room for.
    pub window: u16,
}

/// Which of the two streams of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Messages in the order in which they were sent.
    Ordered,
    /// Messages that overtake those.
    Urgent,
}

/// Which DATA frames arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The number of the newest.
    pub newest: u8,
    /// Which of the 16 before it did; the lowest bit stands for the one just before.
    pub before: u16,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A HELLO of this version.
    Hello(Hello),
    /// A HELLO of a version that is not spoken here.
    HelloOfVersion(u8),
    /// A piece of a stream.
    Data {
        /// Which stream.
        stream: Stream,
        /// Number of this frame in its direction, modulo 256.
        number: u8,
        /// Place of the first octet in the stream, modulo 65536.
        offset: u16,
        /// What arrived, if that is said.
        arrived: Option<Arrived>,
        /// From which offset on the sender has no room in the ordered stream, if that is said.
        limit: Option<u16>,
        /// The octets.
        payload: &'a [u8],
    },
    /// A frame ack alone.
    Ack {
        /// What arrived.
        arrived: Arrived,
        /// The stream that `limit` is of.
        stream: Stream,
        /// From which offset on the sender has no room.
        limit: u16,
    },
    /// A question whether somebody is there, or its answer.
    Probe {
        /// Whether it is the answer.
        answer: bool,
        /// Chosen by whoever asks.
        token: u8,
        /// Chosen by whoever asks.
        padding: &'a [u8],
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
            HELLO | PROBE => None,
            DATA | ACK => Some(session.ok_or(InvalidFrame::Checksum)?),
            _ => return Err(InvalidFrame::Kind),
        };
        if kind & FROM_DEVICE != from.flag() {
            return Err(InvalidFrame::Echo);
        }
        if checksum(seed, &[body]) != *crc {
            return Err(InvalidFrame::Checksum);
        }
        Self::parse_body(body)
    }

    fn parse_body(body: &'a [u8]) -> Result<Self, InvalidFrame> {
        match body.first().ok_or(InvalidFrame::Malformed)? & KIND_MASK {
            HELLO => parse_hello(body),
            DATA => parse_data(body),
            ACK => parse_ack(body),
            PROBE => parse_probe(body),
            _ => Err(InvalidFrame::Kind),
        }
    }

    /// The fields of a decoded frame whatever its CRC is: to show what passes on a line, never to act on it.
    ///
    /// # Errors
    /// [`InvalidFrame`] for an unknown kind, or a length or a value that its kind does not allow.
    pub fn parse_unchecked(octets: &'a [u8]) -> Result<Self, InvalidFrame> {
        let (body, _) = octets.split_last_chunk::<CRC_BYTES>().ok_or(InvalidFrame::Malformed)?;
        Self::parse_body(body)
    }

    /// Who sent a decoded frame, as it says itself.
    pub fn sender(octets: &[u8]) -> Option<Role> {
        octets.first().map(|kind| if kind & FROM_DEVICE != 0 { Role::Device } else { Role::Gateway })
    }

    /// Whether a decoded frame belongs to a session, which its CRC covers.
    pub fn needs_session(octets: &[u8]) -> bool {
        octets.first().is_some_and(|kind| matches!(kind & KIND_MASK, DATA | ACK))
    }

    /// Emits the frame as `from` sends it, encoded and delimited; returns the octets written, or `None` when `out` is too
    /// small.
    ///
    /// HELLO and PROBE ignore the session; DATA and ACK without one are not emitted.
    pub fn emit(&self, from: Role, session: Option<SessionSeed>, out: &mut [u8]) -> Option<usize> {
        match *self {
            Self::Hello(hello) => emit(None, &hello_body(from, hello), &[], out),
            Self::HelloOfVersion(_) => None,
            Self::Data { stream, number, offset, arrived, limit, payload } => {
                let kind = DATA
                    | from.flag()
                    | flag(stream == Stream::Urgent, DATA_URGENT)
                    | flag(arrived.is_some(), DATA_ACK)
                    | flag(limit.is_some(), DATA_LIMIT);
                let mut header = Header::new(kind);
                header.put(&[number]).put(&offset.to_le_bytes()).put_arrived(arrived);
                header.put(&limit.unwrap_or(0).to_le_bytes()[..limit.map_or(0, |_| LIMIT_BYTES)]);
                emit(Some(session?), header.octets(), payload, out)
            }
            Self::Ack { arrived, stream, limit } => {
                let mut header = Header::new(ACK | from.flag() | flag(stream == Stream::Urgent, ACK_URGENT));
                header.put_arrived(Some(arrived)).put(&limit.to_le_bytes());
                emit(Some(session?), header.octets(), &[], out)
            }
            Self::Probe { answer, token, padding } => {
                emit(None, &[PROBE | from.flag() | flag(answer, PROBE_ANSWER), token], padding, out)
            }
        }
    }
}

/// Octets that an ack and a limit take in a DATA frame.
pub(crate) const fn extra_bytes(arrived: bool, limit: bool) -> usize {
    (if arrived { ARRIVED_BYTES } else { 0 }) + (if limit { LIMIT_BYTES } else { 0 })
}

/// The fields before a payload, being written.
struct Header {
    octets: [u8; DATA_HEADER_BYTES + ARRIVED_BYTES + LIMIT_BYTES],
    bytes: usize,
}

impl Header {
    fn new(kind: u8) -> Self {
        let mut header = Self { octets: [0; DATA_HEADER_BYTES + ARRIVED_BYTES + LIMIT_BYTES], bytes: 0 };
        header.put(&[kind]);
        header
    }

    fn put(&mut self, field: &[u8]) -> &mut Self {
        self.octets[self.bytes..][..field.len()].copy_from_slice(field);
        self.bytes += field.len();
        self
    }

    fn put_arrived(&mut self, arrived: Option<Arrived>) -> &mut Self {
        match arrived {
            Some(Arrived { newest, before }) => self.put(&[newest]).put(&before.to_le_bytes()),
            None => self,
        }
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.bytes]
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
    body[12..14].copy_from_slice(&hello.window.to_le_bytes());
    body
}

/// Looks at the version before the length, so that another version may have another length.
fn parse_hello(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let [kind, version, fields @ ..] = body else { return Err(InvalidFrame::Malformed) };
    if *version != VERSION {
        return Ok(Frame::HelloOfVersion(*version));
    }
    let &[b0, b1, b2, b3, e0, e1, e2, e3, m0, m1, w0, w1] = fields else { return Err(InvalidFrame::Malformed) };
    let hello = Hello {
        ask: kind & HELLO_ASK != 0,
        boot_id: u32::from_le_bytes([b0, b1, b2, b3]),
        echo: u32::from_le_bytes([e0, e1, e2, e3]),
        mtu: u16::from_le_bytes([m0, m1]),
        window: u16::from_le_bytes([w0, w1]),
    };
    let window_min = if kind & FROM_DEVICE != 0 { LINK_WINDOW_BYTES_MIN } else { GATEWAY_LINK_WINDOW_BYTES_MIN };
    let fits = usize::from(hello.mtu) >= LINK_MTU_BYTES_MIN && usize::from(hello.window) >= window_min;
    if hello.boot_id == 0 || !fits {
        return Err(InvalidFrame::Malformed);
    }
    Ok(Frame::Hello(hello))
}

fn parse_data(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let &[kind, number, o0, o1, ref rest @ ..] = body else { return Err(InvalidFrame::Malformed) };
    let (arrived, rest) = if kind & DATA_ACK != 0 { split(rest, parse_arrived)? } else { (None, rest) };
    let (limit, payload) = if kind & DATA_LIMIT != 0 { split(rest, u16::from_le_bytes)? } else { (None, rest) };
    let stream = if kind & DATA_URGENT != 0 { Stream::Urgent } else { Stream::Ordered };
    Ok(Frame::Data { stream, number, offset: u16::from_le_bytes([o0, o1]), arrived, limit, payload })
}

/// Takes a field of `N` octets off the front.
fn split<T, const N: usize>(octets: &[u8], parse: impl Fn([u8; N]) -> T) -> Result<(Option<T>, &[u8]), InvalidFrame> {
    let (field, rest) = octets.split_first_chunk::<N>().ok_or(InvalidFrame::Malformed)?;
    Ok((Some(parse(*field)), rest))
}

fn parse_arrived([newest, b0, b1]: [u8; ARRIVED_BYTES]) -> Arrived {
    Arrived { newest, before: u16::from_le_bytes([b0, b1]) }
}

fn parse_ack(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let &[kind, newest, b0, b1, l0, l1] = body else { return Err(InvalidFrame::Malformed) };
    let stream = if kind & ACK_URGENT != 0 { Stream::Urgent } else { Stream::Ordered };
    Ok(Frame::Ack { arrived: parse_arrived([newest, b0, b1]), stream, limit: u16::from_le_bytes([l0, l1]) })
}

fn parse_probe(body: &[u8]) -> Result<Frame<'_>, InvalidFrame> {
    let [kind, token, padding @ ..] = body else { return Err(InvalidFrame::Malformed) };
    Ok(Frame::Probe { answer: kind & PROBE_ANSWER != 0, token: *token, padding })
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
        let octets = decoded(ACKED, Some(here));
        assert_eq!(Frame::parse(&octets, Role::Device, Some(here)), Ok(ACKED));
        for other in [Some(SessionSeed::new(2, 1)), Some(SessionSeed::new(1, 3)), None] {
            assert_eq!(Frame::parse(&octets, Role::Device, other), Err(InvalidFrame::Checksum));
        }
    }

    #[test]
    fn a_hello_with_impossible_values_is_malformed() {
        let good = Hello { ask: true, boot_id: 1, echo: 0, mtu: 20, window: 34 };
        for bad in [Hello { boot_id: 0, ..good }, Hello { mtu: 19, ..good }, Hello { window: 33, ..good }] {
            let octets = decoded(Frame::Hello(bad), None);
            assert_eq!(Frame::parse(&octets, Role::Device, None), Err(InvalidFrame::Malformed));
        }
        let octets = decoded(Frame::Hello(good), None);
        assert_eq!(Frame::parse(&octets, Role::Device, None), Ok(Frame::Hello(good)));
    }

    #[test]
    fn a_frame_of_the_own_role_is_an_echo() {
        let session = Some(SessionSeed::new(1, 2));
        let hello = Hello { ask: true, boot_id: 1, echo: 1, mtu: 20, window: 34 };
        let data = data(None, None, b"x");
        for frame in [Frame::Hello(hello), data, ACKED, Frame::Probe { answer: true, token: 3, padding: b"" }] {
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
        assert_eq!(parse(&[0x50, 0]), Err(InvalidFrame::Kind));
        assert_eq!(parse(&[0x30]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x30, 1, 2, 3, 4, 5, 6]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x20, 1, 0]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x20, 1, 0, 0]), Ok(()));
        assert_eq!(parse(&[0x22, 1, 0, 0, 1, 2]), Err(InvalidFrame::Malformed));
        assert_eq!(parse(&[0x26, 1, 0, 0, 1, 2, 3, 4]), Err(InvalidFrame::Malformed));
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
            let frame = data(Some(Arrived { newest: 6, before: 7 }), Some(8), &payload);
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

    const ACKED: Frame<'_> =
        Frame::Ack { arrived: Arrived { newest: 7, before: 0x8001 }, stream: Stream::Urgent, limit: 0x1234 };

    fn data(arrived: Option<Arrived>, limit: Option<u16>, payload: &[u8]) -> Frame<'_> {
        Frame::Data { stream: Stream::Urgent, number: 5, offset: 0x0102, arrived, limit, payload }
    }

    fn decoded(frame: Frame<'_>, session: Option<SessionSeed>) -> Vec<u8> {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let bytes = frame.emit(Role::Device, session, &mut out).expect("it fits");
        let mut deframer = Deframer::<LINK_MTU_BYTES_MAX>::new(LINK_MTU_BYTES_MAX);
        assert_eq!(deframer.feed(&out[..bytes]), (bytes, true));
        deframer.frame().to_vec()
    }
}
