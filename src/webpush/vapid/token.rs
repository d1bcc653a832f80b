//! The token that proves who an application server is: a JWT in compact form, signed with ES256.
//!
//! Claims and signature are checked apart, so that the costly half need be done only once for a token that is used again.
//!
//! Source: RFC 8292 §2, §3.1; RFC 7515 §5.2, §7.1; RFC 7518 §3.4; RFC 7519 §4.1, §7.2.

use std::fmt;

use http::uri::Authority;
use ring::digest;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::super::from_base64url;
use super::Identification;
use crate::limits::VAPID_LIFE_S_MAX;
use crate::time::UnixTime;

const ALGORITHM: &str = "ES256";
const HTTPS_PORT: u16 = 443;

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToken {
    /// Not a JWT whose claims `aud` and `exp` can be read.
    Malformed,
    /// Signed with something else than ES256, or with extensions that have to be understood.
    Algorithm,
    /// For another origin.
    Audience,
    /// Its time has passed.
    Expired,
    /// Its time ends in more than [`VAPID_LIFE_S_MAX`] seconds.
    TooFarAhead,
    /// Not signed by the key.
    Signature,
}

impl Identification {
    /// Checks everything but the signature: form, algorithm, audience and time.
    ///
    /// The audience is the origin `https://` + `authority`; a list of audiences has to name it. What the token says of its
    /// sender is not looked at, for nothing vouches for it.
    ///
    /// # Errors
    /// [`InvalidToken`].
    ///
    /// Source: RFC 8292 §2, §5.
    pub fn check(&self, authority: &Authority, now: UnixTime) -> Result<(), InvalidToken> {
        let mut parts = self.token.split('.');
        let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken::Malformed);
        };
        let (header, claims) = (object(header)?, object(claims)?);
        if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) || header.contains_key("crit") {
            return Err(InvalidToken::Algorithm);
        }
        let expires_s = claims.get("exp").and_then(Value::as_f64).ok_or(InvalidToken::Malformed)?;
        let audience = claims.get("aud").ok_or(InvalidToken::Malformed)?;
        if !names(audience, authority) {
            return Err(InvalidToken::Audience);
        }
        // Seconds since 1970 are exact far beyond any clock; fractions of them are allowed.
        let rest_s = expires_s - now.0 as f64;
        match rest_s {
            _ if rest_s <= 0.0 => Err(InvalidToken::Expired),
            _ if rest_s > VAPID_LIFE_S_MAX as f64 => Err(InvalidToken::TooFarAhead),
            _ => Ok(()),
        }
    }

    /// Checks the signature: 64 octets, r and s, by the key.
    ///
    /// # Errors
    /// [`InvalidToken::Signature`].
    pub fn verify(&self) -> Result<(), InvalidToken> {
        let (signed, signature) = self.token.rsplit_once('.').ok_or(InvalidToken::Signature)?;
        let signature = from_base64url(signature).ok_or(InvalidToken::Signature)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key().octets());
        key.verify(signed.as_bytes(), &signature).map_err(|_| InvalidToken::Signature)
    }

    /// Tells this token with this key from any other, and neither of the two.
    pub fn digest(&self) -> [u8; digest::SHA256_OUTPUT_LEN] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.key().octets());
        context.update(self.token.as_bytes());
        context.finish().as_ref().try_into().expect("SHA-256 has 32 octets")
    }
}

/// Of two members with one name the last one counts (RFC 7519 §4).
fn object(part: &str) -> Result<Map<String, Value>, InvalidToken> {
    let octets = from_base64url(part).ok_or(InvalidToken::Malformed)?;
    match serde_json::from_slice(&octets) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(InvalidToken::Malformed),
    }
}

/// Whether an audience, or one of several (RFC 7519 §4.1.3), is this origin.
fn names(audience: &Value, authority: &Authority) -> bool {
    match audience {
        Value::String(text) => is_origin(text, authority),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).any(|text| is_origin(text, authority)),
        _ => false,
    }
}

/// Compares as origins: scheme, host and port, and nothing behind them (RFC 6454 §5, §6.2). Names are in ASCII.
fn is_origin(text: &str, authority: &Authority) -> bool {
    let Some((scheme, named)) = text.split_once("://") else { return false };
    let Ok(named) = named.parse::<Authority>() else { return false };
    let places = (place(&named), place(authority));
    scheme.eq_ignore_ascii_case("https") && matches!(places, (Some(one), Some(other)) if one == other)
}

fn place(authority: &Authority) -> Option<(String, u16)> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)? {
        "" | ":" => HTTPS_PORT,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    Some((host.to_ascii_lowercase(), port))
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is no JWT with the claims aud and exp",
            Self::Algorithm => "the token is not signed with ES256",
            Self::Audience => "the token is for another audience than the origin of this push service",
            Self::Expired => "the token has expired",
            Self::TooFarAhead => "the token is valid for more than 24 hours from now",
            Self::Signature => "the token is not signed by the key k",
        })
    }
}

impl std::error::Error for InvalidToken {}

#[cfg(test)]
mod tests;
