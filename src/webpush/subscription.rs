//! A push subscription as application servers know it: the JSON form of the Push API.
//!
//! ```text
//! {"endpoint": "https://…", "keys": {"p256dh": "<base64url, 65 octets>", "auth": "<base64url, 16 octets>"}}
//! ```
//!
//! All three are capabilities or secrets, so `Debug` prints none of them.

use std::fmt;

use serde_json::{Value, json};

use super::ece::{AUTH_SECRET_BYTES, PUBLIC_KEY_BYTES};
use super::resource::{InvalidResource, PushUri};
use super::{base64url, from_base64url};

/// What an application server needs to send to a subscription.
#[derive(Clone, PartialEq, Eq)]
pub struct PushSubscription {
    /// Where messages are posted.
    pub endpoint: PushUri,
    /// The public key for messages.
    pub public: [u8; PUBLIC_KEY_BYTES],
    /// The authentication secret for messages.
    pub auth: [u8; AUTH_SECRET_BYTES],
}

/// Why a text is no push subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidSubscription {
    /// Not JSON.
    Json(String),
    /// A member is missing, or is no text.
    Missing(&'static str),
    /// The endpoint cannot be used.
    Endpoint(InvalidResource),
    /// A member is no base64url of the length it must have, in octets.
    Key(&'static str, usize),
}

impl PushSubscription {
    /// The JSON form.
    pub fn to_json(&self) -> Value {
        let keys = json!({ "p256dh": base64url(&self.public), "auth": base64url(&self.auth) });
        json!({ "endpoint": self.endpoint.as_str(), "keys": keys })
    }

    /// Reads the JSON form; members it does not know are ignored.
    ///
    /// # Errors
    /// [`InvalidSubscription`] names the member that is wrong.
    pub fn from_json(text: &str) -> Result<Self, InvalidSubscription> {
        let json: Value = serde_json::from_str(text).map_err(|error| InvalidSubscription::Json(error.to_string()))?;
        let endpoint = json["endpoint"].as_str().ok_or(InvalidSubscription::Missing("endpoint"))?;
        Ok(Self {
            endpoint: PushUri::parse(endpoint).map_err(InvalidSubscription::Endpoint)?,
            public: key(&json["keys"]["p256dh"], "keys.p256dh")?,
            auth: key(&json["keys"]["auth"], "keys.auth")?,
        })
    }
}

/// What an application server is told of a device's channel: the subscription, or that there is none any more.
///
/// Layout: the JSON form with the members `device` and `channel`; `endpoint` is null when there is none.
pub fn announcement(device: &str, channel: u16, subscription: Option<&PushSubscription>) -> String {
    let mut document = subscription.map_or_else(|| json!({ "endpoint": null }), PushSubscription::to_json);
    document["device"] = device.into();
    document["channel"] = channel.into();
    document.to_string()
}

fn key<const N: usize>(member: &Value, name: &'static str) -> Result<[u8; N], InvalidSubscription> {
    let text = member.as_str().ok_or(InvalidSubscription::Missing(name))?;
    let octets = from_base64url(text).and_then(|octets| octets.try_into().ok());
    octets.ok_or(InvalidSubscription::Key(name, N))
}

impl fmt::Debug for PushSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushSubscription(..)")
    }
}

impl fmt::Display for InvalidSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "not a push subscription in JSON: {error}"),
            Self::Missing(name) => write!(f, "the push subscription lacks {name}"),
            Self::Endpoint(error) => write!(f, "endpoint: {error}"),
            Self::Key(name, bytes) => write!(f, "{name}: not the base64url of {bytes} octets"),
        }
    }
}

impl std::error::Error for InvalidSubscription {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_read_back() {
        let endpoint = PushUri::parse("https://push.example/p/1").expect("valid");
        let subscription = PushSubscription { endpoint, public: [4; 65], auth: [7; 16] };
        let text = subscription.to_json().to_string();
        assert_eq!(PushSubscription::from_json(&text), Ok(subscription.clone()));
        let with_more = text.replacen('{', "{\"expirationTime\":null,", 1);
        assert_eq!(PushSubscription::from_json(&with_more), Ok(subscription));
    }

    /// A-AS-25, A-ALL-02: a subscription whose endpoint is not https is refused.
    #[test]
    fn wrong_members_are_named() {
        let read = |text: &str| PushSubscription::from_json(text).expect_err("invalid");
        assert!(matches!(read("nonsense"), InvalidSubscription::Json(_)));
        assert_eq!(read("{}"), InvalidSubscription::Missing("endpoint"));
        let cleartext = InvalidSubscription::Endpoint(InvalidResource::NotHttps);
        assert_eq!(read(r#"{"endpoint":"http://push.example/p"}"#), cleartext);
        let short = r#"{"endpoint":"https://push.example/p","keys":{"p256dh":"AAAA","auth":"AAAA"}}"#;
        assert_eq!(read(short), InvalidSubscription::Key("keys.p256dh", 65));
    }
}
