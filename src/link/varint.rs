//! The length before each message in a stream: 7 bits an octet, lowest first, at most two octets.

/// The largest length that takes one octet.
pub(super) const ONE_OCTET_MAX: usize = 0x7f;

/// Writes a length of at most 16383; `None` for a larger one.
pub(super) fn emit(length: u16, out: &mut [u8; 2]) -> Option<&[u8]> {
    *out = [(length & 0x7f) as u8, u8::try_from(length >> 7).ok().filter(|high| *high < 0x80)?];
    if out[1] == 0 {
        return Some(&out[..1]);
    }
    out[0] |= 0x80;
    Some(&out[..])
}

/// A length at the start of `octets`, and how many octets it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// It is not whole yet.
    Partial,
    /// Longer than it may be.
    Invalid,
    /// Here it is.
    Whole {
        /// What it says.
        length: usize,
        /// The octets that it takes.
        bytes: usize,
    },
}

/// Reads a length. One that is not in its shortest form counts as well.
pub(super) fn parse(octets: &[u8]) -> Parsed {
    match *octets {
        [] => Parsed::Partial,
        [low, ..] if low < 0x80 => Parsed::Whole { length: low.into(), bytes: 1 },
        [_] => Parsed::Partial,
        [low, high, ..] if high < 0x80 => {
            Parsed::Whole { length: usize::from(low & 0x7f) | (usize::from(high) << 7), bytes: 2 }
        }
        [..] => Parsed::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_written_shortest_and_read_back() {
        for length in 0..1 << 14 {
            let mut out = [0; 2];
            let octets = emit(length, &mut out).expect("at most 16383");
            assert_eq!(octets.len(), if length < 128 { 1 } else { 2 });
            assert_eq!(parse(octets), Parsed::Whole { length: length.into(), bytes: octets.len() });
        }
        assert_eq!(emit(1 << 14, &mut [0; 2]), None);
        assert_eq!(emit(u16::MAX, &mut [0; 2]), None);
    }

    #[test]
    fn a_length_that_is_not_whole_waits_and_a_longer_one_is_none() {
        assert_eq!(parse(&[]), Parsed::Partial);
        assert_eq!(parse(&[0x80]), Parsed::Partial);
        assert_eq!(parse(&[0xff, 0x80]), Parsed::Invalid);
    }
}
