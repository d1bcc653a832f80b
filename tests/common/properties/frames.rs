//! Link frames: what the deframer finds in a stream, and what a frame means.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::wire::Role;
use fieldgate::wire::cobs::{self, Deframer};
use fieldgate::wire::frame::{Frame, InvalidFrame, SessionSeed};

use super::input::Input;
use super::line::{self, Ids};

const IDS: Ids = (0x1122_3344, 0x5566_7788);

/// Frames in a stream are the same in chunks of any size and by the specification; a frame that parses is emitted again
/// to the same octets.
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
    let mut deframer = Deframer::new(mtu);
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

fn check_parsing(octets: &[u8]) {
    let seed = SessionSeed::new(IDS.0, IDS.1);
    for from in [Role::Gateway, Role::Device] {
        for session in [None, Some(seed)] {
            match Frame::parse(octets, from, session) {
                Ok(frame) => check_frame(octets, frame, from, session),
                Err(error) => assert!(error != InvalidFrame::Echo || session.is_none() || is_echo(octets, from)),
            }
        }
    }
}

fn is_echo(octets: &[u8], from: Role) -> bool {
    (octets[0] & line::DEVICE != 0) != (from == Role::Device)
}

fn check_frame(octets: &[u8], frame: Frame<'_>, from: Role, session: Option<SessionSeed>) {
    assert!(!is_echo(octets, from));
    let (body, crc) = octets.split_last_chunk::<4>().expect("every frame has a CRC");
    let ids = if body[0] & 0xf0 == 0x10 { None } else { Some(IDS) };
    assert_eq!(line::sealed(ids, body), octets, "the CRC {crc:02x?} is right");

    let mut out = [0; LINK_MTU_BYTES_MAX];
    let Some(bytes) = frame.emit(from, session, &mut out) else {
        let is_too_large = octets.len() > cobs::decoded_bytes_max(out.len());
        assert!(is_too_large || matches!(frame, Frame::HelloOfVersion(1..)), "{frame:?}");
        return;
    };
    let emitted = line::cobs_decoded(&out[..bytes - 1]).expect("what is emitted can be decoded");
    assert_eq!(Frame::parse(&emitted, from, session), Ok(frame));
    // Flags that have no meaning yet are ignored, and sent as 0.
    let known_flags = if body[0] & 0xf0 == 0x20 { 0xfb } else { 0xf9 };
    if body[0] & !known_flags == 0 {
        assert_eq!(emitted, octets);
    }
}
