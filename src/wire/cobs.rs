//! Message boundaries in a byte stream: consistent overhead byte stuffing.
//!
//! It knows octets and the delimiter, and nothing of what a frame means. The encoding is defined in the parent module.
//!
//! Source: Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999).

use cobs::{CobsEncoder, DecodeResult, DecoderState};

/// The octet that ends each frame and occurs nowhere else.
pub const DELIMITER: u8 = 0;

/// Octets of the largest frame before encoding, when `mtu` octets carry it with its delimiter.
pub const fn decoded_bytes_max(mtu: usize) -> usize {
    let mut bytes = mtu.saturating_sub(2);
    while cobs::max_encoding_length(bytes) + 1 > mtu && bytes > 0 {
        bytes -= 1;
    }
    bytes
}

/// Encodes the concatenation of `parts` and ends it with the delimiter; returns the octets written.
///
/// The caller keeps the parts within [`decoded_bytes_max`] of the length of `out`; otherwise nothing is written.
pub fn encode(parts: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    let mut encoder = CobsEncoder::new(out);
    for part in parts.iter().filter(|part| !part.is_empty()) {
        encoder.push(part).ok()?;
    }
    let bytes = encoder.finalize();
    *out.get_mut(bytes)? = DELIMITER;
    Some(bytes + 1)
}

/// Collects one frame at a time from octets of any chunking.
///
/// Garbage, truncated frames and frames longer than the MTU are dropped up to the next delimiter.
///
/// Layout: one encoded frame of at most `MTU` octets.
pub struct Deframer<const MTU: usize> {
    state: DecoderState,
    frame: [u8; MTU],
    frame_bytes: usize,
    encoded_bytes: usize,
    mtu: usize,
}

impl<const MTU: usize> Deframer<MTU> {
    /// A deframer that drops frames of more than `mtu` octets, delimiter included.
    pub fn new(mtu: usize) -> Self {
        Self { state: DecoderState::Idle, frame: [0; MTU], frame_bytes: 0, encoded_bytes: 0, mtu: mtu.min(MTU) }
    }

    /// Takes octets up to and including one delimiter; returns how many, and whether a frame is complete.
    pub fn feed(&mut self, octets: &[u8]) -> (usize, bool) {
        for (index, &octet) in octets.iter().enumerate() {
            if octet == DELIMITER {
                return (index + 1, self.end());
            }
            self.encoded_bytes = self.encoded_bytes.saturating_add(1);
            if self.encoded_bytes < self.mtu {
                self.take(octet);
            }
        }
        (octets.len(), false)
    }

    /// The frame completed last; valid until the next [`feed`](Self::feed).
    pub fn frame(&self) -> &[u8] {
        &self.frame[..self.frame_bytes]
    }

    fn take(&mut self, octet: u8) {
        if self.encoded_bytes == 1 {
            self.frame_bytes = 0;
        }
        // Only a delimiter can be an error here, and `end` feeds that. Decoding never lengthens: the frame fits.
        if let Ok(DecodeResult::DataContinue(decoded)) = self.state.feed(octet) {
            self.frame[self.frame_bytes] = decoded;
            self.frame_bytes += 1;
        }
    }

    fn end(&mut self) -> bool {
        let fits = self.encoded_bytes < self.mtu;
        self.encoded_bytes = 0;
        let complete = matches!(self.state.feed(DELIMITER), Ok(DecodeResult::DataComplete));
        self.state = DecoderState::Idle;
        complete && fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    type Whole = Deframer<LINK_MTU_BYTES_MAX>;

    proptest! {
        /// C-32, C-66: what is encoded comes out again, in chunks of any size and behind garbage.
        #[test]
        fn c_66_every_frame_survives_any_chunking(
            frame in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..1000),
            garbage in prop::collection::vec(any::<u8>(), 0..2000),
            chunk in 1usize..700,
        ) {
            let mut out = [0; LINK_MTU_BYTES_MAX];
            let bytes = encode(&[&frame[..frame.len() / 2], &frame[frame.len() / 2..]], &mut out).expect("it fits");
            prop_assert!(bytes <= cobs::max_encoding_length(frame.len()) + 1);
            let stream = [&garbage[..], &[DELIMITER], &out[..bytes]].concat();
            let found = frames(&mut Whole::new(LINK_MTU_BYTES_MAX), &stream, chunk);
            prop_assert_eq!(found.last(), Some(&frame));
        }

        /// C-66: arbitrary octets never panic, and no frame exceeds the MTU.
        #[test]
        fn c_66_hostile_octets_stay_within_the_bound(
            octets in prop::collection::vec(any::<u8>(), 0..5000),
            mtu in LINK_MTU_BYTES_MIN..=LINK_MTU_BYTES_MAX,
        ) {
            for frame in frames(&mut Whole::new(mtu), &octets, octets.len().max(1)) {
                prop_assert!(frame.len() <= mtu - 2);
            }
        }
    }

    #[test]
    fn a_frame_of_exactly_the_mtu_passes_and_one_octet_more_does_not() {
        for mtu in [LINK_MTU_BYTES_MIN, 256, 257, 258, LINK_MTU_BYTES_MAX] {
            let largest = vec![7; decoded_bytes_max(mtu)];
            let mut out = [0; LINK_MTU_BYTES_MAX + 4];
            let bytes = encode(&[&largest], &mut out).expect("it fits");
            assert!(bytes <= mtu && bytes + 2 > mtu, "{mtu}: {bytes}");
            assert_eq!(frames(&mut Whole::new(bytes), &out[..bytes], 99), [largest]);
            assert!(frames(&mut Whole::new(bytes - 1), &out[..bytes], 99).is_empty());
        }
    }

    #[test]
    fn both_endings_of_a_full_block_decode_alike() {
        let block = vec![9; 254];
        let short = [&[0xff][..], &block, &[0]].concat();
        let long = [&[0xff][..], &block, &[1, 0]].concat();
        for stream in [short, long] {
            let found = frames(&mut Whole::new(LINK_MTU_BYTES_MAX), &stream, 1);
            assert_eq!(found, std::slice::from_ref(&block));
        }
    }

    #[test]
    fn too_small_a_buffer_gets_nothing() {
        assert_eq!(encode(&[&[1, 2, 3]], &mut [0; 4]), None);
        assert_eq!(encode(&[&[1, 2, 3]], &mut [0; 5]), Some(5));
    }

    fn frames(deframer: &mut Whole, stream: &[u8], chunk: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for mut octets in stream.chunks(chunk) {
            while !octets.is_empty() {
                let (taken, complete) = deframer.feed(octets);
                octets = &octets[taken..];
                if complete {
                    found.push(deframer.frame().to_vec());
                }
            }
        }
        found
    }
}
