//! Alternative services: other places where a push service says that it can be reached (RFC 7838).
//!
//! An alternative is another way to the same origin. Nothing but the connection goes there: what is asked for, whom the
//! certificate must be for, and every URI stay those of the origin. Only `h2` is of use here.
//!
//! ```text
//! Alt-Svc       = clear / 1#alt-value
//! alt-value     = protocol-id "=" <"> [ uri-host ] ":" port <"> *( OWS ";" OWS parameter )
//! ALTSVC frame    Origin-Len(2) | Origin | Alt-Svc-Field-Value
//! ```
//!
//! Source: RFC 7838 §3 (field), §4 (frame), §5 (Alt-Used).

use std::fmt;
use std::net::Ipv6Addr;

use http::header::{AGE, ALT_SVC};
use http::{HeaderMap, HeaderValue};

use super::headers::digits;
use super::resource::PushServiceUri;
use super::scan::{Scanner, Unterminated};
use crate::limits::{ALT_SVC_BYTES_MAX, ALTERNATIVE_COUNT_MAX, ALTERNATIVE_S, HTTPS_PORT};
use crate::time::Duration;

/// The one protocol of use. Protocol names have one spelling each, so that they are compared as they are (RFC 7838 §3).
const PROTOCOL: &[u8] = b"h2";
/// Octets of a name in the DNS.
const HOST_BYTES_MAX: usize = 253;

/// Another place where an origin can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Name or literal address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// An alternative as it is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where.
    pub alternative: Alternative,
    /// For how long new connections may go there, from now on.
    pub fresh_for: Duration,
    /// Whether it stays usable when the network changes.
    pub persists: bool,
}

/// What a service says of its alternatives: it replaces everything that it said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Those that are of use, in the service's order, at most [`ALTERNATIVE_COUNT_MAX`]; often none.
    pub offers: Vec<Offer>,
}

/// A field that does not follow the grammar.
struct Malformed;

impl From<Unterminated> for Malformed {
    fn from(_: Unterminated) -> Self {
        Self
    }
}

impl Announcement {
    /// Reads the field lines of a response of `origin`; nothing if there are none, or none that can be understood.
    ///
    /// Source: RFC 7838 §3, §3.1 (the response's age counts).
    pub fn from_headers(headers: &HeaderMap, origin: &PushServiceUri) -> Option<Self> {
        if !headers.contains_key(ALT_SVC) {
            return None;
        }
        let lines: Vec<&[u8]> = headers.get_all(ALT_SVC).iter().map(HeaderValue::as_bytes).collect();
        let age = headers.get(AGE).and_then(|age| digits(age.as_bytes())).unwrap_or(0);
        Self::parse(&lines.join(&b", "[..]), age, origin)
    }

    /// Reads an ALTSVC frame that came on a connection to `origin`; nothing if it is for another one, or cannot be
    /// understood.
    ///
    /// Source: RFC 7838 §4.
    pub fn from_frame(stream: u32, payload: &[u8], origin: &PushServiceUri) -> Option<Self> {
        let (named_bytes, rest) = payload.split_first_chunk::<2>()?;
        let (named, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*named_bytes)))?;
        // Every stream of such a connection is of its origin; on none of them the frame has to name it.
        let expected = if stream == 0 { format!("https://{}", origin.authority()) } else { String::new() };
        if named == expected.as_bytes() { Self::parse(value, 0, origin) } else { None }
    }

    fn parse(value: &[u8], age_s: u64, origin: &PushServiceUri) -> Option<Self> {
        if value.len() > ALT_SVC_BYTES_MAX {
            return None;
        }
        if value.trim_ascii() == b"clear" {
            return Some(Self::default());
        }
        let origin_uri = origin.uri();
        let host = origin_uri.host()?.trim_start_matches('[').trim_end_matches(']');
        members(value, age_s, host).ok()
    }
}

/// Reads a list of at least one member; members that are of no use are left out.
fn members(value: &[u8], age_s: u64, origin_host: &str) -> Result<Announcement, Malformed> {
    let mut scanner = Scanner::new(value);
    let (mut offers, mut is_empty) = (Vec::<Offer>::new(), true);
    while !scanner.is_empty() {
        scanner.skip_whitespace();
        // Lists may have empty members (RFC 9110 §5.6.1).
        if scanner.is_empty() || scanner.eat(b',') {
            continue;
        }
        is_empty = false;
        if let Some(offer) = member(&mut scanner, age_s, origin_host)?
            && offers.len() < ALTERNATIVE_COUNT_MAX
            && !offers.iter().any(|known| known.alternative == offer.alternative)
        {
            offers.push(offer);
        }
        if !scanner.is_empty() && !scanner.eat(b',') {
            return Err(Malformed);
        }
    }
    if is_empty { Err(Malformed) } else { Ok(Announcement { offers }) }
}

/// Reads one member; nothing if it is of another protocol, or names no place.
fn member(scanner: &mut Scanner, age_s: u64, origin_host: &str) -> Result<Option<Offer>, Malformed> {
    let protocol = token(scanner)?;
    if !scanner.eat(b'=') || scanner.peek() != Some(b'"') {
        return Err(Malformed);
    }
    let authority = scanner.word(b"")?;
    let (mut max_age_s, mut persists) = (None, None);
    scanner.skip_whitespace();
    while scanner.eat(b';') {
        scanner.skip_whitespace();
        let (name, value) = parameter(scanner)?;
        if name.eq_ignore_ascii_case(b"ma") {
            // A lifetime that is no number must not pass for a long one.
            max_age_s.get_or_insert(digits(value.as_bytes()).unwrap_or(0));
        } else if name.eq_ignore_ascii_case(b"persist") {
            persists.get_or_insert(value == "1");
        }
        scanner.skip_whitespace();
    }
    let alternative = if protocol == PROTOCOL { alternative(&authority, origin_host) } else { None };
    Ok(alternative.map(|alternative| Offer {
        alternative,
        fresh_for: Duration::from_secs(max_age_s.unwrap_or(ALTERNATIVE_S).saturating_sub(age_s)),
        persists: persists.unwrap_or(false),
    }))
}

fn parameter<'a>(scanner: &mut Scanner<'a>) -> Result<(&'a [u8], String), Malformed> {
    let name = token(scanner)?;
    if !scanner.eat(b'=') {
        return Err(Malformed);
    }
    if scanner.peek() == Some(b'"') {
        return Ok((name, scanner.word(b"")?));
    }
    token(scanner).map(|value| (name, String::from_utf8_lossy(value).into_owned()))
}

/// Source: RFC 9110 §5.6.2.
fn token<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], Malformed> {
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    let token = scanner.take_until(|octet| !is_token(octet));
    if token.is_empty() { Err(Malformed) } else { Ok(token) }
}

/// A place, with the host of the origin if none is named.
fn alternative(authority: &str, origin_host: &str) -> Option<Alternative> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_number = port.bytes().all(|octet| octet.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| is_number && port > 0)?;
    let host = if host.is_empty() { origin_host.to_owned() } else { host_of(host)? };
    Some(Alternative { host, port })
}

fn host_of(text: &str) -> Option<String> {
    if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    (text.len() <= HOST_BYTES_MAX && text.bytes().all(is_name)).then(|| text.to_ascii_lowercase())
}

impl Alternative {
    /// Reads a place with its host, as it is written by [`Display`](fmt::Display).
    pub fn parse(text: &str) -> Option<Self> {
        alternative(text, "").filter(|alternative| !alternative.host.is_empty())
    }

    /// What a request that goes there says of it.
    ///
    /// Source: RFC 7838 §5.
    pub fn alt_used(&self) -> HeaderValue {
        let text = self.to_string();
        let default_port = format!(":{HTTPS_PORT}");
        let text = text.strip_suffix(&default_port).unwrap_or(&text);
        HeaderValue::from_str(text).expect("hosts and ports are visible ASCII")
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
