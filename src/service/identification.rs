//! Who sends a message, and whether that one may.
//!
//! Pure. A message for a restricted subscription is taken from the application server that holds the key alone. One for
//! any other subscription needs no identification; but where a sender shows one, it has to be good.
//!
//! A signature is verified once for a token that is used again: a digest of token and key is kept for the last tokens that
//! were good, never a token. Its claims are checked each time, so that none outlives its end.
//!
//! Time is the wall clock's, synchronised or not, for there is no better one, and a token whose end nobody looked at would
//! be good for ever. A sender that is refused because of time is told if the clock is not synchronised, and what it shows
//! is in the field `Date`.
//!
//! Source: RFC 8292 §2, §4.2, §5.

use std::collections::BTreeMap;

use http::uri::Authority;

use crate::limits::SERVICE_VERIFIED_TOKEN_COUNT_MAX;
use crate::webpush::vapid::{ApplicationServerKey, Identification, InvalidToken};

use super::retention::Moment;

/// Octets of a digest.
const DIGEST_BYTES: usize = 32;

/// What a sender shows of itself, and at which place.
#[derive(Debug)]
pub struct Presented {
    /// Key and token.
    pub identification: Identification,
    /// The host that the request names.
    pub authority: Authority,
}

/// Why a message is not taken from its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The subscription is restricted, and the sender does not say who it is.
    Missing,
    /// The subscription is restricted to another one.
    OtherKey,
    /// The token is not good.
    Token(InvalidToken),
}

/// What the service knows of its names, and of senders that were here before.
#[derive(Debug)]
pub struct Identifier {
    /// The hosts that it is: a token for another one was shown there, and is passed on.
    names: Vec<String>,
    verified: Verified,
}

impl Identifier {
    /// For a service that is reached under `names`.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, verified: Verified::default() }
    }

    /// Decides whether a message is taken from its sender.
    ///
    /// # Errors
    /// [`Refusal`]; nothing of the token counts then.
    pub fn admit(
        &mut self,
        presented: Option<&Presented>,
        restriction: Option<&ApplicationServerKey>,
        now: Moment,
    ) -> Result<(), Refusal> {
        self.admit_by(presented, restriction, now, &mut Identification::verify)
    }

    fn admit_by(
        &mut self,
        presented: Option<&Presented>,
        restriction: Option<&ApplicationServerKey>,
        now: Moment,
        verify: &mut dyn FnMut(&Identification) -> Result<(), InvalidToken>,
    ) -> Result<(), Refusal> {
        let Some(Presented { identification, authority }) = presented else {
            return if restriction.is_some() { Err(Refusal::Missing) } else { Ok(()) };
        };
        if restriction.is_some_and(|key| key != identification.key()) {
            return Err(Refusal::OtherKey);
        }
        if !self.is_here(authority) {
            return Err(Refusal::Token(InvalidToken::Audience));
        }
        identification.check(authority, now.wall).map_err(Refusal::Token)?;
        self.verified.find_or(identification.digest(), || verify(identification)).map_err(Refusal::Token)
    }

    fn is_here(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        self.names.iter().any(|name| name.eq_ignore_ascii_case(literal))
    }
}

/// Digests of the tokens that were verified, at most [`SERVICE_VERIFIED_TOKEN_COUNT_MAX`].
#[derive(Debug, Default)]
struct Verified {
    /// When each was last used, counted in uses.
    used: BTreeMap<[u8; DIGEST_BYTES], u64>,
    /// The same by use.
    by_use: BTreeMap<u64, [u8; DIGEST_BYTES]>,
    use_count: u64,
}

impl Verified {
    /// Verifies what is not known; the digest that was used least recently gives way.
    fn find_or<E>(&mut self, digest: [u8; DIGEST_BYTES], verify: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        match self.used.get(&digest) {
            Some(last) => drop(self.by_use.remove(last)),
            None => verify()?,
        }
        self.use_count += 1;
        self.used.insert(digest, self.use_count);
        self.by_use.insert(self.use_count, digest);
        if self.used.len() > SERVICE_VERIFIED_TOKEN_COUNT_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.used.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::time::UnixTime;

    /// RFC 8292 §2.4.
    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    /// The example of RFC 8291 §5.
    const OTHER_KEY: &str = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    const EXPIRES: u64 = 1_453_523_768;

    fn presented(token: &str, authority: &str) -> Presented {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("vapid t={token}, k={KEY}").parse().expect("a value"));
        let identification = Identification::from_headers(&headers).expect("well-formed").expect("of the scheme");
        Presented { identification, authority: authority.parse().expect("a host") }
    }

    fn key(text: &str) -> ApplicationServerKey {
        text.parse().expect("a key")
    }

    fn identifier() -> Identifier {
        Identifier::new(vec!["push.example.net".to_owned(), "::1".to_owned()])
    }

    fn at(wall: u64) -> Moment {
        Moment { wall: UnixTime(wall), ..Moment::default() }
    }

    /// D-8292-08, D-8292-13: who has to say who it is, and who has to be the one it says.
    #[test]
    fn d_8292_13_a_restricted_subscription_takes_its_own_server_alone() {
        let good = presented(TOKEN, "push.example.net");
        let bad = presented(&TOKEN.replace("i3CY", "i3CZ"), "push.example.net");
        let signature = Err(Refusal::Token(InvalidToken::Signature));
        for (presented, restriction, admitted) in [
            (None, None, Ok(())),
            (None, Some(KEY), Err(Refusal::Missing)),
            (Some(&good), None, Ok(())),
            (Some(&good), Some(KEY), Ok(())),
            (Some(&good), Some(OTHER_KEY), Err(Refusal::OtherKey)),
            (Some(&bad), None, signature),
            (Some(&bad), Some(KEY), signature),
        ] {
            let restriction = restriction.map(key);
            let is = identifier().admit(presented, restriction.as_ref(), at(EXPIRES - 1));
            assert_eq!(is, admitted, "{presented:?} {restriction:?}");
        }
    }

    /// D-8292-02: a token that was shown to another push service is not taken from it, whatever host it names.
    #[test]
    fn d_8292_02_a_token_for_another_service_is_worth_nothing_here() {
        let mut elsewhere = Identifier::new(vec!["other.example".to_owned()]);
        let audience = Err(Refusal::Token(InvalidToken::Audience));
        for authority in ["push.example.net", "other.example"] {
            assert_eq!(elsewhere.admit(Some(&presented(TOKEN, authority)), None, at(EXPIRES - 1)), audience);
        }
        let names: Vec<Authority> = ["PUSH.example.net:8443", "[::1]:8443"].map(|it| it.parse().expect(it)).into();
        assert!(names.iter().all(|authority| identifier().is_here(authority)));
        assert!(!identifier().is_here(&"[::2]".parse().expect("a host")));
    }

    /// D-8292-16: a thousand messages with one token cost one verification; its end is its end all the same.
    #[test]
    fn d_8292_16_a_token_that_is_used_again_is_verified_once() {
        let (mut identifier, good, mut count) = (identifier(), presented(TOKEN, "push.example.net"), 0);
        let mut admit = |now| {
            identifier.admit_by(Some(&good), Some(&key(KEY)), at(now), &mut |identification| {
                count += 1;
                identification.verify()
            })
        };
        for second in 0..1_000 {
            assert_eq!(admit(EXPIRES - 1_000 + second), Ok(()));
        }
        assert_eq!(admit(EXPIRES), Err(Refusal::Token(InvalidToken::Expired)));
        assert_eq!(count, 1);
    }

    /// D-8292-16: the bound; what was refused is never remembered.
    #[test]
    fn d_8292_16_the_token_that_was_used_least_recently_is_forgotten() {
        let mut verified = Verified::default();
        let digest = |number: usize| {
            let mut digest = [0; DIGEST_BYTES];
            digest[..size_of::<usize>()].copy_from_slice(&number.to_le_bytes());
            digest
        };
        for number in 0..SERVICE_VERIFIED_TOKEN_COUNT_MAX {
            assert_eq!(verified.find_or(digest(number), || Ok::<_, ()>(())), Ok(()));
        }
        assert_eq!(verified.find_or(digest(0), || Err(())), Ok(()), "it is known");
        assert_eq!(verified.find_or(digest(usize::MAX), || Ok::<_, ()>(())), Ok(()));
        assert_eq!([verified.used.len(), verified.by_use.len()], [SERVICE_VERIFIED_TOKEN_COUNT_MAX; 2]);
        assert_eq!(verified.find_or(digest(0), || Err(())), Ok(()), "it was used");
        for _ in 0..2 {
            assert_eq!(verified.find_or(digest(1), || Err("forgotten")), Err("forgotten"));
        }
    }
}
