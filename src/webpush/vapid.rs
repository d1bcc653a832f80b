//! Voluntary application server identification (RFC 8292): an application server's key, the options of a subscribe
//! request that name it, the field in which a message names it, and the token in there that proves it.
//!
//! ```text
//! Authorization: vapid t=<header>.<claims>.<signature>, k=<key>
//!
//! header     {"alg":"ES256"}
//! claims     {"aud":"https://push.example.net","exp":1453523768,"sub":"mailto:push@example.com"}
//! signature  r and s, 64 octets, of header and claims as written
//! ```

mod authorization;
mod options;
mod token;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ece::PUBLIC_KEY_BYTES;
use super::{base64url, from_base64url};
pub use authorization::{Identification, InvalidIdentification};
pub use options::{InvalidOptions, OPTIONS_MEDIA_TYPE, has_options};
pub use token::InvalidToken;

/// The public key of the one application server that may send to a subscription.
///
/// Layout: base64url without padding of an uncompressed point on P-256, 87 characters.
///
/// Source: RFC 8292 §3.2, §4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApplicationServerKey(String);

/// Not the base64url of an uncompressed point on P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl ApplicationServerKey {
    /// As it is written in requests and configurations.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The uncompressed point.
    pub fn octets(&self) -> [u8; PUBLIC_KEY_BYTES] {
        let octets = from_base64url(&self.0).and_then(|octets| octets.try_into().ok());
        octets.expect("it was read when this was made")
    }

    /// The key with these octets.
    ///
    /// # Errors
    /// [`InvalidKey`] when they are no uncompressed point.
    pub fn from_octets(octets: &[u8]) -> Result<Self, InvalidKey> {
        if octets.len() != PUBLIC_KEY_BYTES {
            return Err(InvalidKey);
        }
        p256::PublicKey::from_sec1_bytes(octets).map_err(|_| InvalidKey)?;
        Ok(Self(base64url(octets)))
    }
}

impl FromStr for ApplicationServerKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::from_octets(&from_base64url(text).ok_or(InvalidKey)?)
    }
}

impl TryFrom<String> for ApplicationServerKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<ApplicationServerKey> for String {
    fn from(key: ApplicationServerKey) -> Self {
        key.0
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the base64url of a P-256 public key of 65 octets, without padding")
    }
}

impl std::error::Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8292 §2.4.
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    #[test]
    fn a_key_is_its_octets() {
        let key: ApplicationServerKey = KEY.parse().expect("a key");
        assert_eq!(ApplicationServerKey::from_octets(&key.octets()), Ok(key.clone()));
        assert_eq!(ApplicationServerKey::from_octets(&key.octets()[..64]), Err(InvalidKey));
        assert_eq!((key.octets()[0], key.as_str()), (4, KEY));
    }

    #[test]
    fn what_is_no_point_is_no_key() {
        let off_curve = KEY.replace("Hxzyi", "Hxzya");
        let short = &KEY[..KEY.len() - 1];
        assert_eq!(format!("{KEY}=").parse::<ApplicationServerKey>().expect("some pad").as_str(), KEY);
        for wrong in ["", short, &off_curve, &KEY.replace('_', "/")] {
            assert_eq!(wrong.parse::<ApplicationServerKey>(), Err(InvalidKey), "{wrong}");
        }
    }
}
