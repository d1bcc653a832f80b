//! Voluntary application server identification (RFC 8292), as a user agent needs it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ece::PUBLIC_KEY_BYTES;
use super::from_base64url;

/// The media type of the options of a subscribe request.
///
/// Source: RFC 8292 §4.1.
pub const OPTIONS_MEDIA_TYPE: &str = "application/webpush-options+json";

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

    /// The content of a subscribe request whose subscription only the holder of the private key may use.
    ///
    /// Source: RFC 8292 §4.1.
    pub fn options(&self) -> String {
        json!({ "vapid": self.0 }).to_string()
    }
}

impl FromStr for ApplicationServerKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let octets = from_base64url(text).filter(|octets| octets.len() == PUBLIC_KEY_BYTES).ok_or(InvalidKey)?;
        p256::PublicKey::from_sec1_bytes(&octets).map_err(|_| InvalidKey)?;
        Ok(Self(text.trim_end_matches('=').to_owned()))
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

    /// D-8292-10: the content names the key, and nothing else.
    #[test]
    fn the_options_name_the_key() {
        let key: ApplicationServerKey = KEY.parse().expect("a key");
        assert_eq!(key.options(), format!("{{\"vapid\":\"{KEY}\"}}"));
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
