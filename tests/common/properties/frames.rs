//! Link frames: what the deframer finds in a stream, and what a frame means.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::wire::Role;
use fieldgate::wire::cobs::{self, Deframer};
use fieldgate::wire::frame::{Frame, SessionSeed};

use super::input::Input;
use super::line::{self, Ids};

const IDS: Ids = (0x1122_3344, 0x5566_7788);

/// Frames in a stream are the same in chunks of any size and by the specification; a frame means what the specification
/// says or is dropped, and one that is not is emitted again to the same octets.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mtu = input.below(LINK_MTU_BYTES_MAX + 2);
    let chunk_bytes = 1 + usize::from(input.byte());
    let octets = input.rest();

    let frames = deframed(mtu, chunk_bytes, octets);
    assert_eq!(frames, line::deframed(mtu.min(LINK_MTU_BYTES_MAX), octets));
    assert!(frames.iter().all(|frame| frame.len() + 2 <= mtu));
    for frame in &frames {
        check_parsing(frame);
    }
    check_encoding(octets);
    for session in [None, Some(IDS)] {
        check_parsing(&line::sealed(session, octets));
    }
}

fn deframed(mtu: usize, chunk_bytes: usize, octets: &[u8]) -> Vec<Vec<u8>> {
    let mut deframer = Deframer::<LINK_MTU_BYTES_MAX>::new(mtu);
    let mut frames = Vec::new();
    for mut chunk in octets.chunks(chunk_bytes) {
        while !chunk.is_empty() {
            let (taken, complete) = deframer.feed(chunk);
            assert!(taken > 0 && taken <= chunk.len());
            assert!(taken == chunk.len() || chunk[taken - 1] == cobs::DELIMITER);
            chunk = &chunk[taken..];
            if complete && !deframer.frame().is_empty() {
                frames.push(deframer.frame().to_vec());
            }
        }
    }
    frames
}

/// The final `01` behind a block of 254 octets may be there or not; everything else is as specified.
fn check_encoding(octets: &[u8]) {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let (head, tail) = octets.split_at(octets.len() / 3);
    let Some(bytes) = cobs::encode(&[head, tail], &mut out) else {
        assert!(octets.len() > cobs::decoded_bytes_max(out.len()));
        return;
    };
    let specified = line::cobs_encoded(octets);
    let shortened = [specified.strip_suffix(&[1, 0]).unwrap_or(&specified), &[0]].concat();
    assert!(out[..bytes] == specified || out[..bytes] == shortened);
    assert_eq!(line::cobs_decoded(&out[..bytes - 1]).as_deref(), Some(octets));
}

/// Whatever octets are between two delimiters: they mean what the specification says, to either role, in a session and
/// outside.
fn check_parsing(octets: &[u8]) {
    for from in [Role::Gateway, Role::Device] {
        for session in [None, Some(IDS)] {
            let seed = session.map(|(gateway, device)| SessionSeed::new(gateway, device));
            let parsed = Frame::parse(octets, from, seed);
            let expected = line::Frame::parsed(octets, from == Role::Device, session);
            assert_eq!(parsed.ok().map(line::Frame::from), expected);
            if let Ok(frame) = parsed {
                check_frame(octets, frame, from, session);
            }
        }
    }
}

/// A frame is emitted again to the same octets, apart from flags without a meaning; with those it is the same frame.
fn check_frame(octets: &[u8], frame: Frame<'_>, from: Role, session: Option<Ids>) {
    let seed = session.map(|(gateway, device)| SessionSeed::new(gateway, device));
    let (body, _) = octets.split_last_chunk::<4>().expect("every frame has a CRC");
    let known_flags: u8 = if body[0] & 0xf0 == 0x20 { 0x0f } else { 0x09 };
    let ids = if matches!(body[0] & 0xf0, 0x20 | 0x30) { session } else { None };
    for flags in [0, !known_flags & 0x0f] {
        let flagged = [&[body[0] & (0xf0 | known_flags) | flags], &body[1..]].concat();
        assert_eq!(Frame::parse(&line::sealed(ids, &flagged), from, seed), Ok(frame));
    }

    let mut out = [0; LINK_MTU_BYTES_MAX];
    let Some(bytes) = frame.emit(from, seed, &mut out) else {
        let is_too_large = octets.len() > cobs::decoded_bytes_max(out.len());
        assert!(is_too_large || matches!(frame, Frame::HelloOfVersion(_)), "{frame:?}");
        return;
    };
    let emitted = line::cobs_decoded(&out[..bytes - 1]).expect("what is emitted can be decoded");
    let known = [&[body[0] & (0xf0 | known_flags)], &body[1..]].concat();
    assert_eq!(emitted, line::sealed(ids, &known));
    assert_eq!(line::Frame::from(frame).body(known[0] & line::DEVICE), known);
    assert!(bytes > out.len() || frame.emit(from, seed, &mut out[..bytes - 1]).is_none(), "it fits no smaller room");
}
