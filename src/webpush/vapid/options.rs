//! The content of a subscribe request whose subscription only one application server may use.
//!
//! Source: RFC 8292 §4.1.

use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::ApplicationServerKey;

/// The media type of the options of a subscribe request.
///
/// Source: RFC 8292 §4.1.
pub const OPTIONS_MEDIA_TYPE: &str = "application/webpush-options+json";

/// The member that names the key.
const VAPID: &str = "vapid";

/// Why options cannot be read. No subscription is made then: one that everybody may use was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidOptions {
    /// More than one Content-Type field.
    Repeated,
    /// Not a JSON object.
    Malformed,
    /// The member `vapid` is not a key.
    Key,
}

/// Whether the content of a request is to be read as options; that of other media types is ignored.
///
/// # Errors
/// [`InvalidOptions::Repeated`].
pub fn has_options(headers: &HeaderMap) -> Result<bool, InvalidOptions> {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) => {
            let media_type = line.as_bytes().split(|octet| *octet == b';').next().unwrap_or_default();
            Ok(media_type.trim_ascii().eq_ignore_ascii_case(OPTIONS_MEDIA_TYPE.as_bytes()))
        }
        (Some(_), Some(_)) => Err(InvalidOptions::Repeated),
    }
}

impl ApplicationServerKey {
    /// The content of a subscribe request whose subscription only the holder of the private key may use.
    pub fn options(&self) -> String {
        json!({ VAPID: self.as_str() }).to_string()
    }

    /// Reads such content: the key if it names one. Members of other names are ignored.
    ///
    /// # Errors
    /// [`InvalidOptions`].
    pub fn from_options(content: &[u8]) -> Result<Option<Self>, InvalidOptions> {
        let Ok(Value::Object(mut members)) = serde_json::from_slice(content) else {
            return Err(InvalidOptions::Malformed);
        };
        match members.remove(VAPID) {
            None => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| InvalidOptions::Key),
            Some(_) => Err(InvalidOptions::Key),
        }
    }
}

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "there is more than one Content-Type field",
            Self::Malformed => "the options are not a JSON object",
            Self::Key => "the option vapid is not the base64url of an uncompressed P-256 public key",
        })
    }
}

impl std::error::Error for InvalidOptions {}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The key of RFC 8292 §2.4.
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    /// D-8292-10: the content names the key, and nothing else.
    #[test]
    fn d_8292_10_the_options_name_the_key() {
        let key: ApplicationServerKey = KEY.parse().expect("a key");
        assert_eq!(key.options(), format!("{{\"vapid\":\"{KEY}\"}}"));
        assert_eq!(ApplicationServerKey::from_options(key.options().as_bytes()), Ok(Some(key)));
    }

    /// D-8292-11: what is not known is ignored; what is known and wrong is not.
    #[test]
    fn d_8292_11_only_the_member_vapid_counts() {
        let read = |text: &str| ApplicationServerKey::from_options(text.as_bytes());
        let key = Ok(Some(KEY.parse().expect("a key")));
        assert_eq!(read(&format!("{{\"x\":{{\"vapid\":1}},\"vapid\":\"{KEY}\",\"y\":[]}}")), key);
        for none in ["{}", "{\"VAPID\":1}", " {\"x\":null}\n"] {
            assert_eq!(read(none), Ok(None), "{none}");
        }
        for wrong in ["\"\"", "\"x\"", "null", "1", "{}", &format!("[\"{KEY}\"]")] {
            assert_eq!(read(&format!("{{\"vapid\":{wrong}}}")), Err(InvalidOptions::Key), "{wrong}");
        }
        let deep = "[".repeat(4_096);
        for malformed in ["", "{", "[]", "null", "{\"vapid\"}", "{}{}", "{\"vapid\":1e999}", &deep] {
            assert_eq!(read(malformed), Err(InvalidOptions::Malformed), "{malformed}");
        }
        assert_eq!(ApplicationServerKey::from_options(b"{\"\xff\":1}"), Err(InvalidOptions::Malformed));
    }

    /// D-8292-11: content of other media types is not looked at.
    #[test]
    fn d_8292_11_options_have_a_media_type() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            has_options(&headers)
        };
        for yes in
            [OPTIONS_MEDIA_TYPE, "Application/WebPush-Options+JSON", "application/webpush-options+json ;charset=x"]
        {
            assert_eq!(read(&[yes]), Ok(true), "{yes}");
        }
        for no in ["", ";", "text/plain", "application/json", "application/webpush-options+jsonx"] {
            assert_eq!(read(&[no]), Ok(false), "{no}");
        }
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&[OPTIONS_MEDIA_TYPE, "text/plain"]), Err(InvalidOptions::Repeated));
    }
}
