//! Header fields of a push service, a user agent or an application server.
//!
//! The octets are lines `name: value`; `base` and `reference` stand for the URI of the message and a reference in it.

use fieldgate::limits::{ALTERNATIVE_COUNT_MAX, RETRY_AFTER_S_MAX, TTL_S_MAX, URI_BYTES_MAX};
use fieldgate::time::UnixTime;
use fieldgate::webpush::alt_svc::{Announcement, Offer};
use fieldgate::webpush::headers::{
    InvalidTtl, Preferences, Topic, Ttl, Urgency, http_date, max_age, parse_http_date, retry_after,
};
use fieldgate::webpush::link::{self, PUSH, RECEIPT, SET};
use fieldgate::webpush::resource::{PushServiceUri, PushUri};
use fieldgate::webpush::vapid::{ApplicationServerKey, Identification, InvalidIdentification, InvalidToken};
use http::header::{ALT_SVC, AUTHORIZATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const FIELD_COUNT_MAX: usize = 64;
/// When the token of RFC 8292 §2.4 expires.
const EXAMPLE_EXPIRES_S: u64 = 1_453_523_768;

/// Each field is absent, refused or a value within its bounds, and that value written out again is read as itself.
pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut base = Uri::from_static("https://push.example.net/a/b?c");
    let mut references = Vec::new();
    for line in data.split(|&octet| octet == b'\n').take(FIELD_COUNT_MAX) {
        let colon = line.iter().position(|&octet| octet == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line[colon..].strip_prefix(b":").unwrap_or_default().trim_ascii());
        match name {
            b"base" => base = Uri::try_from(value).ok().filter(is_http).unwrap_or(base),
            b"reference" => references.extend(std::str::from_utf8(value)),
            name => {
                let Ok(name) = HeaderName::from_bytes(name) else { continue };
                let Ok(value) = HeaderValue::from_bytes(value) else { continue };
                headers.append(name, value);
            }
        }
    }
    check_ttl(&headers);
    check_urgency(&headers);
    check_topic(&headers);
    check_preferences(&headers);
    check_times(&headers);
    check_alternatives(&headers);
    check_identification(&headers);
    for relation in [PUSH, SET, RECEIPT] {
        if let Some(Ok(target)) = link::find(&headers, relation, &base) {
            check_target(&target, relation);
        }
    }
    for reference in references {
        if let Ok(target) = link::resolve(&base, reference) {
            check_target(&target, PUSH);
        }
    }
    check_resource(&base);
}

/// What a message can have come from.
fn is_http(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
}

/// What is read of alternatives is within its bounds, and the same when it is written out again.
fn check_alternatives(headers: &HeaderMap) {
    let origin = PushServiceUri::parse("https://push.example.net/subscribe").expect("valid");
    let Some(read) = Announcement::from_headers(headers, &origin) else { return };
    assert!(read.offers.len() <= ALTERNATIVE_COUNT_MAX);
    let write = |offer: &Offer| {
        let Offer { alternative, fresh_for, persists } = offer;
        format!("h2=\"{alternative}\"; ma={}; persist={}", fresh_for.as_secs(), u8::from(*persists))
    };
    let written: Vec<String> = read.offers.iter().map(write).collect();
    let written = if written.is_empty() { "clear".to_owned() } else { written.join(", ") };
    let again = HeaderMap::from_iter([(ALT_SVC, HeaderValue::try_from(written).expect("visible ASCII"))]);
    assert_eq!(Announcement::from_headers(&again, &origin), Some(read));
}

/// One field of the scheme identifies, with a key that can be written again; what it proves ends.
fn check_identification(headers: &HeaderMap) {
    let count = headers.get_all(AUTHORIZATION).iter().count();
    let read = Identification::from_headers(headers);
    assert_eq!(read == Err(InvalidIdentification::Repeated), count > 1);
    let Ok(Some(identification)) = read else { return };
    let key = identification.key();
    assert_eq!(ApplicationServerKey::from_octets(&key.octets()).as_ref(), Ok(key));
    let authority = Authority::from_static("push.example.net");
    let claims = identification.check(&authority, UnixTime(EXAMPLE_EXPIRES_S - 1));
    if claims.is_ok() {
        assert_eq!(identification.check(&authority, UnixTime(u64::MAX)), Err(InvalidToken::Expired));
    }
}

fn check_ttl(headers: &HeaderMap) {
    let values: Vec<&[u8]> = headers.get_all("ttl").iter().map(HeaderValue::as_bytes).collect();
    let is_number = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match Ttl::from_headers(headers) {
        Ok(ttl) => {
            assert!(values.len() == 1 && is_number(values[0]) && ttl.as_secs() <= TTL_S_MAX);
            assert_eq!(Ttl::from_headers(&one("ttl", &ttl.as_secs().to_string())), Ok(ttl));
        }
        Err(InvalidTtl::Missing) => assert!(values.is_empty()),
        Err(InvalidTtl::Repeated) => assert!(values.len() > 1),
        Err(InvalidTtl::Malformed) => assert!(values.len() == 1 && !is_number(values[0])),
    }
}

/// One of four words in one field, in any case.
fn check_urgency(headers: &HeaderMap) {
    let values: Vec<&[u8]> = headers.get_all("urgency").iter().map(HeaderValue::as_bytes).collect();
    let words = ["very-low", "low", "normal", "high"];
    let is_word = |value: &[u8]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    match Urgency::from_headers(headers) {
        Ok(None) => assert!(values.is_empty()),
        Ok(Some(urgency)) => {
            assert!(values.len() == 1 && is_word(values[0]));
            let index = Urgency::ALL.iter().position(|it| *it == urgency).expect("all are there");
            assert!(values[0].eq_ignore_ascii_case(words[index].as_bytes()));
        }
        Err(_) => assert!(values.len() > 1 || !is_word(values[0])),
    }
}

/// 1 to 32 characters of the URL-safe alphabet in one field, kept as they are.
fn check_topic(headers: &HeaderMap) {
    let values: Vec<&[u8]> = headers.get_all("topic").iter().map(HeaderValue::as_bytes).collect();
    let is_allowed = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let is_topic = |value: &[u8]| (1..=32).contains(&value.len()) && value.iter().all(is_allowed);
    match Topic::from_headers(headers) {
        Ok(None) => assert!(values.is_empty()),
        Ok(Some(topic)) => assert!(values.len() == 1 && is_topic(values[0]) && topic.as_str().as_bytes() == values[0]),
        Err(_) => assert!(values.len() > 1 || !is_topic(values[0])),
    }
}

fn check_preferences(headers: &HeaderMap) {
    let preferences = Preferences::from_headers(headers);
    let mut text = if preferences.respond_async { "respond-async".to_owned() } else { String::new() };
    if let Some(wait_s) = preferences.wait_s {
        text.push_str(&format!(", wait={wait_s}"));
    }
    assert_eq!(Preferences::from_headers(&one("prefer", &text)), preferences);
    assert_eq!(Preferences::from_headers(&joined(headers, "prefer")), preferences);
    assert_eq!(max_age(&joined(headers, "cache-control")), max_age(headers));
}

/// The lines of a field as one; several lines mean the same as one list (RFC 9110 §5.3). Not so with quotes: a line may
/// end inside them.
fn joined(headers: &HeaderMap, name: &'static str) -> HeaderMap {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.iter().any(|line| line.contains(&b'"')) {
        return headers.clone();
    }
    let mut joined = HeaderMap::new();
    joined.append(name, HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("values joined are a value"));
    joined
}

fn check_times(headers: &HeaderMap) {
    let now = UnixTime(784_111_777);
    if let Some(wait) = retry_after(headers, now) {
        assert!(wait.as_secs() <= RETRY_AFTER_S_MAX);
        let text = wait.as_secs().to_string();
        assert_eq!(retry_after(&one("retry-after", &text), now), Some(wait));
    }
    if let Some(age) = max_age(headers) {
        let text = format!("max-age={}", age.as_secs());
        assert_eq!(max_age(&one("cache-control", &text)), Some(age));
    }
    let texts = headers.values().filter_map(|value| value.to_str().ok());
    for time in texts.filter_map(parse_http_date) {
        assert_eq!(parse_http_date(&http_date(time)), Some(time));
    }
}

/// A target is absolute and names a host; it survives being written into a Link field.
fn check_target(target: &Uri, relation: &str) {
    let authority = target.authority().expect("a target has an authority");
    assert!(target.scheme().is_some() && !authority.as_str().contains('@'), "{target}");
    assert!(!authority.host().is_empty(), "{target}");
    assert_eq!(link::resolve(target, "").as_ref(), Ok(target));

    let text = target.to_string();
    let found = |target: &str| {
        let mut headers = HeaderMap::new();
        headers.append("link", link::value(target, relation));
        link::find(&headers, relation, &Uri::from_static("https://other.example/x")).expect("it is there")
    };
    let written = found(&text).expect("it was absolute");
    assert_eq!(found(&written.to_string()).as_ref(), Ok(&written));
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"<>\"\\".contains(&octet);
    if text.bytes().all(is_plain) && !target.path().contains("/.") {
        assert_eq!(&written, target);
    }
    check_resource(target);
}

/// A resource has one text, which is the URI of the same place.
fn check_resource(uri: &Uri) {
    let Ok(resource) = PushUri::new(uri) else { return };
    assert!(resource.as_str().len() <= URI_BYTES_MAX);
    assert_eq!(PushUri::parse(resource.as_str()).as_ref(), Ok(&resource));
    assert_eq!(PushUri::new(&resource.uri()).as_ref(), Ok(&resource));
    let authority = uri.authority().expect("a resource has an authority");
    assert!(authority.host().eq_ignore_ascii_case(resource.uri().host().expect("and a host")));
    let port = authority.as_str()[authority.host().len()..].trim_start_matches(':');
    let port: u16 = if port.is_empty() { 443 } else { port.parse().expect("and a port that exists, if any") };
    assert_eq!(resource.uri().port_u16().unwrap_or(443), port);
}

fn one(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(name, value.parse().expect("a value"));
    headers
}
