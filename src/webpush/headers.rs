//! Header fields that the gateway, the push service and the sender share: `TTL`, `Urgency`, `Topic`, `Prefer`,
//! `Retry-After`, `Cache-Control`, `Date`.
//!
//! Each is parsed once into a value that cannot be wrong; none of them is logged here.
//!
//! Source: RFC 8030 §5.2 (TTL), §5.3 (Urgency), §5.4 (Topic), RFC 7240 §2 (Prefer), RFC 9110 §5.6.7 and §10.2.3, RFC 9111 §5.2.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, DATE, LAST_MODIFIED, RETRY_AFTER};

use super::scan::Scanner;
use crate::limits::{RETRY_AFTER_S_MAX, TOPIC_CHARS_MAX, TTL_S_MAX};
use crate::time::{Duration, UnixTime};

/// The last second that an HTTP-date can express: 9999-12-31T23:59:59Z.
const HTTP_DATE_S_MAX: u64 = 253_402_300_799;

/// A field of ours: what a push service says of the end of a monitoring request beyond its status.
///
/// RFC 8030 leaves open what becomes of two requests on one resource. Without a word, a user agent could not tell a service
/// that ends requests now and then from another user agent that has its identity.
pub const MONITOR_FIELD: &str = "fieldgate-monitor";
/// Its value when a newer request on the same resource serves now.
pub const MONITOR_REPLACED: &str = "replaced";

/// How long a push service may keep a message.
///
/// Units: seconds, at most [`TTL_S_MAX`].
///
/// Source: RFC 8030 §5.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

/// Why a request has no usable TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidTtl {
    /// There is no TTL field.
    Missing,
    /// The value is not a run of digits.
    Malformed,
    /// There is more than one TTL field, even if they agree.
    Repeated,
}

impl Ttl {
    /// A time to live of `secs` seconds, clamped to [`TTL_S_MAX`].
    pub const fn from_secs(secs: u64) -> Self {
        Self(if secs < TTL_S_MAX { secs } else { TTL_S_MAX })
    }

    /// Reads the one TTL field of a request or response.
    ///
    /// # Errors
    /// [`InvalidTtl`] when the field is absent, repeated, or anything but digits.
    ///
    /// Source: RFC 8030 §5.2; a value too large to represent counts as 2147483648.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, InvalidTtl> {
        let mut values = headers.get_all("ttl").iter();
        let value = values.next().ok_or(InvalidTtl::Missing)?;
        if values.next().is_some() {
            return Err(InvalidTtl::Repeated);
        }
        digits(value.as_bytes()).map(Self::from_secs).ok_or(InvalidTtl::Malformed)
    }

    /// The time to live in seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

/// How much a message matters, and the least of that for which a user agent wants to be woken.
///
/// Source: RFC 8030 §5.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Advertisements: on power and an unmetered network.
    VeryLow,
    /// Updates on topics: on either of them.
    Low,
    /// Chat or calendar messages: on neither; of a message that says nothing.
    #[default]
    Normal,
    /// Time-sensitive alerts: on a low battery as well.
    High,
}

/// More than one level, or none that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUrgency;

impl Urgency {
    /// All of them, the least one first.
    pub const ALL: [Self; 4] = [Self::VeryLow, Self::Low, Self::Normal, Self::High];

    /// As it is written in a field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// Reads the one Urgency field of a request, if it has one.
    ///
    /// # Errors
    /// [`InvalidUrgency`] when the field is repeated, or its value is no level.
    ///
    /// Source: RFC 8030 §5.3; words without regard to case (RFC 5234 §2.3).
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidUrgency> {
        let mut values = headers.get_all("urgency").iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(InvalidUrgency);
        }
        value.to_str().map_err(|_| InvalidUrgency)?.parse().map(Some)
    }
}

impl FromStr for Urgency {
    type Err = InvalidUrgency;

    fn from_str(text: &str) -> Result<Self, InvalidUrgency> {
        let level = Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text.trim_ascii()));
        level.ok_or(InvalidUrgency)
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for InvalidUrgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no urgency; write one of: very-low, low, normal, high")
    }
}

impl std::error::Error for InvalidUrgency {}

/// What a message is about: the service keeps the newest of a topic in each subscription.
///
/// Layout: 1 to 32 characters of the URL-safe base64 alphabet; they differ in case.
///
/// Source: RFC 8030 §5.4.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Box<str>);

/// More than one topic, or none that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTopic;

impl Topic {
    /// As it is written in a field.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the one Topic field of a request, if it has one.
    ///
    /// # Errors
    /// [`InvalidTopic`] when the field is repeated, or its value is no topic.
    ///
    /// Source: RFC 8030 §5.4.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, InvalidTopic> {
        let mut values = headers.get_all("topic").iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(InvalidTopic);
        }
        value.to_str().map_err(|_| InvalidTopic)?.parse().map(Some)
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        let is_topic = (1..=TOPIC_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_topic { Ok(Self(text.into())) } else { Err(InvalidTopic) }
    }
}

impl fmt::Display for InvalidTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no topic; write 1 to {TOPIC_CHARS_MAX} letters, digits, - and _")
    }
}

impl std::error::Error for InvalidTopic {}

/// The preferences of a request that RFC 8030 gives a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `respond-async`: a delivery receipt is wanted (RFC 8030 §5.1).
    pub respond_async: bool,
    /// `wait`: how long the answer may take (RFC 7240 §4.3); zero asks for what is there now (RFC 8030 §6).
    ///
    /// Units: seconds.
    pub wait_s: Option<u64>,
}

impl Preferences {
    /// Reads every Prefer field; of a repeated preference the first counts, unknown and malformed ones are ignored.
    ///
    /// Source: RFC 7240 §2.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        let mut wait_seen = false;
        for line in headers.get_all("prefer") {
            for_each_directive(line.as_bytes(), |name, value| {
                if name.eq_ignore_ascii_case("respond-async") {
                    preferences.respond_async = true;
                } else if name.eq_ignore_ascii_case("wait") && !wait_seen {
                    wait_seen = true;
                    preferences.wait_s = digits(value.as_bytes());
                }
            });
        }
        preferences
    }
}

/// How long the answering side asks to wait before a repeat.
///
/// A date in the past is zero; the result is capped by [`RETRY_AFTER_S_MAX`]. Anything else is no answer. A date is as far
/// away as it is from that of the answer itself, whatever our own clock shows; `now` counts when the answer has none.
///
/// Source: RFC 9110 §6.6.1, §10.2.3.
pub fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let now = date(headers).unwrap_or(now);
    let secs = digits(value.as_bytes()).or_else(|| Some(parse_http_date(value)?.0.saturating_sub(now.0)))?;
    Some(Duration::from_secs(secs.min(RETRY_AFTER_S_MAX)))
}

/// The `max-age` of a response; the first counts.
///
/// Source: RFC 9111 §5.2.2.1.
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut first = None;
    for line in headers.get_all(CACHE_CONTROL) {
        for_each_directive(line.as_bytes(), |name, value| {
            if name.eq_ignore_ascii_case("max-age") && first.is_none() {
                first = Some(digits(value.as_bytes()));
            }
        });
    }
    first.flatten().map(Duration::from_secs)
}

/// What time it was where an answer comes from.
///
/// Source: RFC 9110 §6.6.1.
pub fn date(headers: &HeaderMap) -> Option<UnixTime> {
    parse_http_date(headers.get(DATE)?.to_str().ok()?)
}

/// How long a message had been with its service when that answered: both times are of the service's own clock.
///
/// Source: RFC 8030 §7.2 (`Last-Modified` is when delivery was asked for).
pub fn stored_for(headers: &HeaderMap) -> Option<Duration> {
    let asked = parse_http_date(headers.get(LAST_MODIFIED)?.to_str().ok()?)?;
    let now = date(headers)?;
    Some(Duration::from_secs(now.0.saturating_sub(asked.0)))
}

/// Formats a time as IMF-fixdate, as `Date` and `Last-Modified` carry it.
///
/// Source: RFC 9110 §5.6.7.
pub fn http_date(time: UnixTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.0.min(HTTP_DATE_S_MAX)))
}

/// Parses any of the three forms of an HTTP-date.
///
/// Source: RFC 9110 §5.6.7.
pub fn parse_http_date(text: &str) -> Option<UnixTime> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(UnixTime(time.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

/// The number a run of digits stands for, saturating; nothing for anything else.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Calls `visit` with name and value of each list member `name [= value] *(; parameter)` of one field line.
///
/// Parsing stops at a quoted string without end: what follows it cannot be told apart from its content.
fn for_each_directive(line: &[u8], mut visit: impl FnMut(&str, &str)) {
    let mut scanner = Scanner::new(line);
    while !scanner.is_empty() {
        let Ok((name, value)) = pair(&mut scanner) else { return };
        visit(&name, &value);
        while scanner.eat(b';') {
            if pair(&mut scanner).is_err() {
                return;
            }
        }
        scanner.take_until(|byte| byte == b',');
        scanner.eat(b',');
    }
}

/// Takes `name [= value]`, leaving the scanner at the next `;`, `,` or what should not be there.
fn pair(scanner: &mut Scanner) -> Result<(String, String), super::scan::Unterminated> {
    scanner.skip_whitespace();
    let name = String::from_utf8_lossy(scanner.take_until(|byte| b"=;, \t".contains(&byte))).into_owned();
    scanner.skip_whitespace();
    if !scanner.eat(b'=') {
        return Ok((name, String::new()));
    }
    scanner.skip_whitespace();
    let value = scanner.word(b";,")?;
    scanner.skip_whitespace();
    Ok((name, value))
}

#[cfg(test)]
mod tests;
