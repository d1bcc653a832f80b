//! The field in which an application server says who it is.
//!
//! Source: RFC 8292 §3, RFC 9110 §11.4 (credentials).

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::super::scan::Scanner;
use super::ApplicationServerKey;
use crate::limits::VAPID_TOKEN_BYTES_MAX;

/// The name of the scheme, which has no case.
const SCHEME: &[u8] = b"vapid";

/// A key, and a token that may or may not prove that it is the sender's.
///
/// `Debug` does not show the token: until it expires, whoever has it is the application server.
#[derive(Clone, PartialEq, Eq)]
pub struct Identification {
    pub(super) token: String,
    key: ApplicationServerKey,
}

/// Why an `Authorization` field identifies nobody although it sets out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidIdentification {
    /// There is more than one field.
    Repeated,
    /// The parameters cannot be told apart, or one comes twice.
    Malformed,
    /// No token, or no key.
    Incomplete,
    /// The key is none.
    Key,
    /// The token has more than [`VAPID_TOKEN_BYTES_MAX`] octets.
    TooLong,
}

impl Identification {
    /// Reads the `Authorization` field of a request; one of another scheme says nothing here.
    ///
    /// # Errors
    /// [`InvalidIdentification`].
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidIdentification> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(InvalidIdentification::Repeated);
        }
        let mut scanner = Scanner::new(line.as_bytes());
        scanner.skip_whitespace();
        let scheme = scanner.take_until(is_whitespace);
        if scheme.eq_ignore_ascii_case(SCHEME) { parameters(scanner).map(Some) } else { Ok(None) }
    }

    /// The key that the token is to be signed with.
    pub fn key(&self) -> &ApplicationServerKey {
        &self.key
    }
}

/// Parameters of other names are ignored, as RFC 8292 §3 asks.
fn parameters(mut scanner: Scanner<'_>) -> Result<Identification, InvalidIdentification> {
    let (mut token, mut key) = (None, None);
    loop {
        scanner.skip_whitespace();
        if scanner.is_empty() {
            break;
        }
        if scanner.eat(b',') {
            continue;
        }
        let (name, value) = parameter(&mut scanner).ok_or(InvalidIdentification::Malformed)?;
        let place = match name {
            b"t" | b"T" => &mut token,
            b"k" | b"K" => &mut key,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(InvalidIdentification::Malformed);
        }
    }
    let (token, key) = token.zip(key).ok_or(InvalidIdentification::Incomplete)?;
    if token.len() > VAPID_TOKEN_BYTES_MAX {
        return Err(InvalidIdentification::TooLong);
    }
    Ok(Identification { token, key: key.parse().map_err(|_| InvalidIdentification::Key)? })
}

fn parameter<'a>(scanner: &mut Scanner<'a>) -> Option<(&'a [u8], String)> {
    let name = scanner.take_until(|octet| is_whitespace(octet) || octet == b'=' || octet == b',');
    scanner.skip_whitespace();
    if !scanner.eat(b'=') {
        return None;
    }
    scanner.skip_whitespace();
    let value = scanner.word(b",").ok()?;
    scanner.skip_whitespace();
    (scanner.is_empty() || scanner.eat(b',')).then_some((name, value))
}

fn is_whitespace(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

impl fmt::Debug for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identification(..)")
    }
}

impl fmt::Display for InvalidIdentification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "there is more than one Authorization field",
            Self::Malformed => "the parameters of the Authorization field are malformed, or one comes twice",
            Self::Incomplete => "the Authorization field has no token t, or no key k",
            Self::Key => "the key k is not the base64url of an uncompressed P-256 public key",
            Self::TooLong => "the token t is too long",
        })
    }
}

impl std::error::Error for InvalidIdentification {}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The key of RFC 8292 §2.4.
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    fn read(lines: &[&str]) -> Result<Option<Identification>, InvalidIdentification> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        }
        Identification::from_headers(&headers)
    }

    /// D-8292-06: no case, no order, no spacing matters, and other parameters do not count.
    #[test]
    fn d_8292_06_order_spacing_and_other_parameters_do_not_matter() {
        for line in [
            format!("vapid t=a.b.c, k={KEY}"),
            format!("vapid k={KEY},x=1,t=a.b.c"),
            format!("VAPID\tT = \"a.b.c\" ,,\t K=\"{KEY}\" , "),
            format!("Vapid , x=\"t=d, k=e\\\"\", k={KEY}=, t=a.b.c,y="),
        ] {
            let read = read(&[&line]).expect(&line).expect(&line);
            assert_eq!((&*read.token, read.key().as_str()), ("a.b.c", KEY), "{line}");
        }
    }

    #[test]
    fn other_schemes_say_nothing() {
        for line in ["", "Bearer t=a", "vapid2 t=a", "WebPush a.b.c", "t=a, k=b"] {
            assert_eq!(read(&[line]), Ok(None), "{line}");
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer a", "Bearer b"]), Err(InvalidIdentification::Repeated));
    }

    /// D-8292-13: a field without token or key is not one.
    #[test]
    fn d_8292_13_an_incomplete_field_is_refused() {
        use InvalidIdentification::{Incomplete, Key, Malformed, TooLong};
        let with_key = |rest: &str| format!("vapid k={KEY}{rest}");
        let longest = "a".repeat(VAPID_TOKEN_BYTES_MAX);
        assert!(read(&[&with_key(&format!(", t={longest}"))]).is_ok());
        for (line, error) in [
            ("vapid".to_owned(), Incomplete),
            ("vapid t=a.b.c".to_owned(), Incomplete),
            (with_key(""), Incomplete),
            ("vapid t=a.b.c, k=".to_owned(), Key),
            (format!("vapid t=a.b.c, k={}", KEY.replace("Hxzyi", "Hxzya")), Key),
            (with_key(", t"), Malformed),
            (with_key(" t=a.b.c"), Incomplete),
            (with_key(", t=\"a"), Malformed),
            (with_key(", t=\"a\"b"), Malformed),
            (with_key(", t=a, t=a"), Malformed),
            (with_key(&format!(", t={longest}a")), TooLong),
        ] {
            assert_eq!(read(&[&line]), Err(error), "{line}");
        }
    }

    /// D-8292-14: the token is not printed.
    #[test]
    fn d_8292_14_debug_output_does_not_show_the_token() {
        assert_eq!(format!("{:?}", read(&[&format!("vapid t=a.b.c, k={KEY}")])), "Ok(Some(Identification(..)))");
    }
}
