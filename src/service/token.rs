//! Tokens: the paths of the push service's resources, each a capability.
//!
//! A token is 16 random octets and nothing else, so two of them have nothing in common: not the user agent, not the
//! time, not the order of issue.
//!
//! Source: RFC 8030 §8.2 (no correlation), §8.3 (at least 120 bits of randomness).

use std::fmt;

use crate::random::{Random, array};
use crate::webpush::{base64url, from_base64url};

/// Octets of a token.
pub const TOKEN_BYTES: usize = 16;
/// Characters of a token in a path.
const TOKEN_CHARS: usize = 22;

/// The unguessable part of a resource's path.
///
/// `Debug` does not show it, since knowing it is the right to use the resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// A fresh token.
    pub fn random(random: &mut dyn Random) -> Self {
        Self(array(random))
    }

    /// Reads the token out of a path `/` + 22 characters; nothing else is one.
    pub fn from_path(path: &str) -> Option<Self> {
        let text = path.strip_prefix('/').filter(|text| text.len() == TOKEN_CHARS)?;
        from_base64url(text)?.try_into().ok().map(Self)
    }

    /// The path of the resource: `/` + 22 base64url characters.
    pub fn path(&self) -> String {
        format!("/{}", base64url(&self.0))
    }

    /// A token from its octets, as stored.
    pub const fn from_bytes(octets: [u8; TOKEN_BYTES]) -> Self {
        Self(octets)
    }

    /// The octets, for storing.
    pub const fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    struct Fixed([u8; TOKEN_BYTES]);

    impl Random for Fixed {
        fn fill(&mut self, octets: &mut [u8]) {
            octets.copy_from_slice(&self.0);
        }
    }

    /// A-PS-91: each of the generator's 128 bits reaches the token.
    #[test]
    fn a_ps_91_every_generator_bit_changes_the_token() {
        let plain = Token::random(&mut Fixed([0; TOKEN_BYTES]));
        for bit in 0..TOKEN_BYTES * 8 {
            let mut octets = [0; TOKEN_BYTES];
            octets[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Token::random(&mut Fixed(octets)).path(), plain.path(), "bit {bit}");
        }
    }

    /// A-PS-84, A-PS-85, A-PS-88: fixed length and alphabet, and no position that depends on the order of issue.
    #[test]
    fn a_ps_84_tokens_share_nothing() {
        let mut random = SeededRandom::new(1);
        let paths: Vec<String> = (0..10_000).map(|_| Token::random(&mut random).path()).collect();
        assert!(paths.iter().all(|path| path.len() == 23 && path[1..].bytes().all(is_base64url)));
        for position in 1..22 {
            // Of 64 characters each appears about 78 times in each half; a fixed or growing part would not.
            for half in paths.chunks(5_000) {
                let mut counts = [0_u32; 128];
                half.iter().for_each(|path| counts[usize::from(path.as_bytes()[position])] += 1);
                assert!(counts.iter().all(|count| *count == 0 || (30..150).contains(count)), "position {position}");
            }
        }
    }

    #[test]
    fn only_whole_canonical_paths_are_tokens() {
        let token = Token::random(&mut SeededRandom::new(2));
        let path = token.path();
        assert_eq!(Token::from_path(&path), Some(token));
        let overlong_tail = format!("{}B", &Token::from_bytes([0; TOKEN_BYTES]).path()[..22]);
        for other in ["/", "/subscribe", "", &path[1..], &format!("{path}A"), &path[..22], &overlong_tail] {
            assert_eq!(Token::from_path(other), None);
        }
        assert_eq!(Token::from_path("/AAAAAAAAAAAAAAAAAAAA=="), None);
    }

    #[test]
    fn debug_output_does_not_reveal_it() {
        assert_eq!(format!("{:?}", Token::from_bytes([7; TOKEN_BYTES])), "Token(..)");
    }

    fn is_base64url(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
    }
}
