//! The frames of the link protocol once more, written from its specification alone.

use fieldgate::wire::frame as wire;

/// The boot ids of a session: the gateway's and the device's.
pub type Ids = (u32, u32);

/// The flag DEVICE of a frame's kind.
pub const DEVICE: u8 = 0x08;

/// The smallest window that a side takes from its peer.
pub fn window_min(role: wire::Role) -> u16 {
    if role == wire::Role::Gateway { 34 } else { 64 }
}

/// What becomes of each octet in CRC-32C, bit by bit.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let mut crc = octet as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[octet] = crc;
        octet += 1;
    }
    table
};

/// CRC-32C, octet by octet.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let octets = parts.iter().copied().flatten();
    !octets.fold(u32::MAX, |crc, octet| (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ octet)])
}

/// A frame before encoding: `body` and its CRC.
pub fn sealed(session: Option<Ids>, body: &[u8]) -> Vec<u8> {
    let seed = session.map(|(gateway, device)| [gateway.to_le_bytes(), device.to_le_bytes()].concat());
    let crc = crc32c(&[seed.as_deref().unwrap_or_default(), body]);
    [body, &crc.to_le_bytes()].concat()
}

/// A frame as the line carries it.
pub fn frame(session: Option<Ids>, body: &[u8]) -> Vec<u8> {
    cobs_encoded(&sealed(session, body))
}

/// A frame of version 1, as its specification has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    HelloOfVersion(u8),
    Data { urgent: bool, number: u8, offset: u16, arrived: Option<Arrived>, limit: Option<u16>, payload: Vec<u8> },
    Ack { arrived: Arrived, urgent: bool, limit: u16 },
    Probe { answer: bool, token: u8, padding: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub ask: bool,
    pub boot_id: u32,
    pub echo: u32,
    pub mtu: u16,
    pub window: u16,
}

/// `newest` and `before`.
pub type Arrived = (u8, u16);

impl Frame {
    /// What is before the CRC, from a device if `flags` say so.
    pub fn body(&self, flags: u8) -> Vec<u8> {
        match self {
            Self::Hello(Hello { ask, boot_id, echo, mtu, window }) => [
                &[0x10 | u8::from(*ask) | flags, 1][..],
                &boot_id.to_le_bytes(),
                &echo.to_le_bytes(),
                &mtu.to_le_bytes(),
                &window.to_le_bytes(),
            ]
            .concat(),
            Self::HelloOfVersion(version) => vec![0x10 | flags, *version],
            Self::Data { urgent, number, offset, arrived, limit, payload } => {
                let kind = 0x20 | u8::from(*urgent) | u8::from(arrived.is_some()) << 1 | u8::from(limit.is_some()) << 2;
                let mut body = vec![kind | flags, *number];
                body.extend(offset.to_le_bytes());
                body.extend(arrived.map(arrived_octets).into_iter().flatten());
                body.extend(limit.map(u16::to_le_bytes).into_iter().flatten());
                body.extend(payload);
                body
            }
            Self::Ack { arrived, urgent, limit } => {
                [&[0x30 | u8::from(*urgent) | flags][..], &arrived_octets(*arrived), &limit.to_le_bytes()].concat()
            }
            Self::Probe { answer, token, padding } => {
                [&[0x40 | u8::from(*answer) | flags, *token][..], padding].concat()
            }
        }
    }

    /// The frame as the line carries it.
    pub fn emitted(&self, session: Ids, flags: u8) -> Vec<u8> {
        let is_in_session = matches!(self, Self::Data { .. } | Self::Ack { .. });
        frame(is_in_session.then_some(session), &self.body(flags))
    }

    /// What a side takes a decoded frame for; nothing if it drops it.
    pub fn parsed(octets: &[u8], from_device: bool, session: Option<Ids>) -> Option<Self> {
        let (body, _) = octets.split_last_chunk::<4>()?;
        let (&kind, fields) = body.split_first()?;
        let ids = match kind >> 4 {
            1 | 4 => None,
            2 | 3 => Some(session?),
            _ => return None,
        };
        if (kind & DEVICE != 0) != from_device || sealed(ids, body) != octets {
            return None;
        }
        let mut fields = Fields(fields);
        let frame = match kind >> 4 {
            1 => return fields.hello(kind & 1 != 0),
            2 => Self::Data {
                urgent: kind & 1 != 0,
                number: fields.u8()?,
                offset: fields.u16()?,
                arrived: if kind & 2 != 0 { Some((fields.u8()?, fields.u16()?)) } else { None },
                limit: if kind & 4 != 0 { Some(fields.u16()?) } else { None },
                payload: fields.rest(),
            },
            3 => Self::Ack { arrived: (fields.u8()?, fields.u16()?), urgent: kind & 1 != 0, limit: fields.u16()? },
            _ => Self::Probe { answer: kind & 1 != 0, token: fields.u8()?, padding: fields.rest() },
        };
        fields.0.is_empty().then_some(frame)
    }
}

fn arrived_octets((newest, before): Arrived) -> [u8; 3] {
    let [low, high] = before.to_le_bytes();
    [newest, low, high]
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn hello(&mut self, ask: bool) -> Option<Frame> {
        match self.u8()? {
            1 => {}
            version => return Some(Frame::HelloOfVersion(version)),
        }
        let (boot_id, echo, mtu, window) = (self.u32()?, self.u32()?, self.u16()?, self.u16()?);
        let is_possible = boot_id != 0 && mtu >= 20 && window >= 34 && self.0.is_empty();
        is_possible.then_some(Frame::Hello(Hello { ask, boot_id, echo, mtu, window }))
    }
}

impl From<wire::Frame<'_>> for Frame {
    fn from(frame: wire::Frame<'_>) -> Self {
        let is_urgent = |stream| stream == wire::Stream::Urgent;
        let pair = |arrived: wire::Arrived| (arrived.newest, arrived.before);
        match frame {
            wire::Frame::Hello(wire::Hello { ask, boot_id, echo, mtu, window }) => {
                Self::Hello(Hello { ask, boot_id, echo, mtu, window })
            }
            wire::Frame::HelloOfVersion(version) => Self::HelloOfVersion(version),
            wire::Frame::Data { stream, number, offset, arrived, limit, payload } => Self::Data {
                urgent: is_urgent(stream),
                number,
                offset,
                arrived: arrived.map(pair),
                limit,
                payload: payload.to_vec(),
            },
            wire::Frame::Ack { arrived, stream, limit } => {
                Self::Ack { arrived: pair(arrived), urgent: is_urgent(stream), limit }
            }
            wire::Frame::Probe { answer, token, padding } => Self::Probe { answer, token, padding: padding.to_vec() },
        }
    }
}

/// Encodes a frame and ends it with the delimiter.
pub fn cobs_encoded(frame: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut rest = frame;
    loop {
        let end = rest.iter().take(254).position(|&octet| octet == 0).unwrap_or(rest.len().min(254));
        let (block, tail) = rest.split_at(end);
        encoded.push(end as u8 + 1);
        encoded.extend(block);
        match tail {
            [0, tail @ ..] if end < 254 => rest = tail,
            [] if end < 254 => break,
            tail => rest = tail,
        }
    }
    encoded.push(0);
    encoded
}

/// Decodes what is between two delimiters; nothing if octets are missing.
pub fn cobs_decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let mut rest = encoded;
    while let Some((&code, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at_checked(usize::from(code).checked_sub(1)?)?;
        frame.extend(block);
        if code != 255 && !tail.is_empty() {
            frame.push(0);
        }
        rest = tail;
    }
    Some(frame)
}

/// The frames in octets of a line, by the MTU of the side that reads them.
pub fn deframed(mtu: usize, octets: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces: Vec<&[u8]> = octets.split(|&octet| octet == 0).collect();
    pieces.pop(); // Nothing ends it.
    let fitting = pieces.into_iter().filter(|piece| piece.len() < mtu);
    fitting.filter_map(cobs_decoded).filter(|frame| !frame.is_empty()).collect()
}
