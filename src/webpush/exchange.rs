//! Requests built and answers read, for each dialect behind the same types.
//!
//! What a subscription, a push and an acknowledgement mean is the same for every dialect; what they look like in HTTP
//! is known here alone. Callers hold [`Granted`] records that name their [`Dialect`] and never look at a status.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use super::headers::{self, Ttl, Urgency};
use super::link;
use super::resource::{InvalidResource, PushMessageUri, PushServiceUri, PushUri, SetUri, SubscriptionUri};
use super::vapid::{self, ApplicationServerKey};
use crate::time::UnixTime;

/// The form of the protocol that a push service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Dialect {
    /// RFC 8030.
    Rfc8030,
}

/// A subscription as the service granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The dialect of its service.
    pub dialect: Dialect,
    /// Where its messages are read.
    pub read: SubscriptionUri,
    /// Where messages for it are posted.
    pub send: PushUri,
    /// The set it belongs to.
    pub set: Option<SetUri>,
    /// How long the service says it keeps the subscription.
    pub keeps_for: Option<Duration>,
}

/// What a monitoring request reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// All subscriptions of a set.
    Set(SetUri),
    /// One subscription.
    Subscription(SubscriptionUri),
}

/// Why a subscribe request gave no subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// The set that was presented is no good (RFC 8030 §4.1): forget it and ask without.
    SetRefused,
    /// Too many requests, or the service is busy; with its wish how long to wait.
    Busy(Option<Duration>),
    /// 201 without the field named.
    Missing(&'static str),
    /// 201 with a URI that cannot be used.
    Invalid(&'static str, InvalidResource),
    /// Any other status.
    Status(u16),
    /// The service has not looked at the request, and says so.
    NotProcessed,
    /// Asked for elsewhere (RFC 8030 §7.1).
    Redirected(PushServiceUri),
}

/// A promise, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// A message; the link tells its subscription, and may come only with the response.
    Message {
        /// Where it is acknowledged.
        message: PushMessageUri,
        /// The push resource it was posted to.
        send: Option<PushUri>,
    },
    /// Nothing of ours: another origin, no https, too long.
    Unwanted(InvalidResource),
}

/// What follows the end of a monitoring request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It ended normally: ask again to keep receiving.
    Again,
    /// It ended because a newer request on the same resource serves now.
    Displaced,
    /// What was read is gone (RFC 8030 §7.3).
    Ended,
    /// The service did not serve it; with its wish how long to wait.
    Backoff(Option<Duration>),
}

/// What became of a DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, now or before.
    Done,
    /// Not done; with the service's wish how long to wait.
    Retry(Option<Duration>),
}

/// A message that the service accepted; that is no delivery (RFC 8030 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its resource.
    pub message: PushMessageUri,
    /// For how long the service keeps it, if it said so: at most what was asked for.
    pub keeps_for: Option<Duration>,
}

/// Why the service did not accept a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The subscription is gone (404, 410): nothing can be sent to it any more.
    Gone,
    /// The message is too large (413).
    TooLarge,
    /// Too many messages, or the service is busy; with its wish how long to wait.
    Busy(Option<Duration>),
    /// Accepted, but without a usable Location.
    NoLocation,
    /// Any other status.
    Status(u16),
}

/// Why pushed content is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentError {
    /// The pushed response is not a 200.
    Status(u16),
    /// Not exactly one content encoding `aes128gcm` (RFC 8291 §4).
    NotEncrypted,
    /// More than [`PUSH_BODY_BYTES_MAX`](crate::limits::PUSH_BODY_BYTES_MAX) octets.
    TooLarge,
}

impl Dialect {
    /// Asks for a subscription, presenting the known set; one that is restricted to an application server if its key is
    /// given.
    ///
    /// Source: RFC 8030 §4, §4.1; RFC 8292 §4.1.
    pub fn subscribe_request(
        self,
        service: &PushServiceUri,
        set: Option<&SetUri>,
        restricted_to: Option<&ApplicationServerKey>,
    ) -> Request<Bytes> {
        let options = restricted_to.map(ApplicationServerKey::options).unwrap_or_default();
        let mut request = request(Method::POST, service.uri()).map(|()| Bytes::from(options));
        let length = request.body().len();
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        if length > 0 {
            let media_type = HeaderValue::from_static(vapid::OPTIONS_MEDIA_TYPE);
            request.headers_mut().insert(header::CONTENT_TYPE, media_type);
        }
        if let Some(set) = set {
            request.headers_mut().insert(header::LINK, link::value(set.as_str(), link::SET));
        }
        request
    }

    /// Reads the answer to a subscribe request.
    ///
    /// # Errors
    /// [`SubscribeError`]; no subscription exists for us then.
    ///
    /// Source: RFC 8030 §4, §4.1.
    pub fn parse_subscribed(
        self,
        service: &PushServiceUri,
        presented: Option<&SetUri>,
        status: u16,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Result<Granted, SubscribeError> {
        match status {
            201 => {}
            400 if presented.is_some() => return Err(SubscribeError::SetRefused),
            307 | 308 => return Err(redirected(service, headers)),
            429 | 503 => return Err(SubscribeError::Busy(headers::retry_after(headers, now))),
            other => return Err(SubscribeError::Status(other)),
        }
        let base = service.uri();
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or(SubscribeError::Missing("Location"))?;
        let read = link::resolve(&base, location).map_err(|_| SubscribeError::Missing("Location"))?;
        let read = SubscriptionUri::new(&read)
            .and_then(|read| same_origin(read.authority(), service).map(|()| read))
            .map_err(|error| SubscribeError::Invalid("Location", error))?;
        let send = linked(headers, link::PUSH, &base).ok_or(SubscribeError::Missing("push link"))?;
        let send = PushUri::new(&send).map_err(|error| SubscribeError::Invalid("push link", error))?;
        let set = linked(headers, link::SET, &base)
            .map(|set| SetUri::new(&set).and_then(|set| same_origin(set.authority(), service).map(|()| set)))
            .transpose();
        let set = set.map_err(|error| SubscribeError::Invalid("set link", error))?;
        Ok(Granted { dialect: self, read, send, set, keeps_for: headers::max_age(headers) })
    }

    /// What must be monitored to receive for this subscription: its set if it has one.
    ///
    /// Source: RFC 8030 §6.1.
    pub fn monitor_target(self, granted: &Granted) -> Target {
        match &granted.set {
            Some(set) => Target::Set(set.clone()),
            None => Target::Subscription(granted.read.clone()),
        }
    }

    /// Asks for messages that matter at least so much: for ever, or with `wait_s` for so many seconds (0: what is stored
    /// now).
    ///
    /// Source: RFC 8030 §5.3, §6, §6.1; RFC 7240 §4.3.
    pub fn monitor_request(self, target: &Target, wait_s: Option<u32>, urgency: Urgency) -> Request<()> {
        let mut request = request(Method::GET, target.uri());
        if urgency > Urgency::VeryLow {
            request.headers_mut().insert("urgency", HeaderValue::from_static(urgency.as_str()));
        }
        if let Some(wait_s) = wait_s {
            let value = http::HeaderValue::try_from(format!("wait={wait_s}")).expect("digits are a field value");
            request.headers_mut().insert("prefer", value);
        }
        request
    }

    /// Reads a promise that came on a monitoring request to `service`.
    ///
    /// Source: RFC 8030 §6.1; RFC 9113 §8.4 (only the origin we asked is authoritative).
    pub fn classify(self, service: &PushServiceUri, promised: &Request<()>) -> Pushed {
        let message = match PushMessageUri::new(promised.uri()) {
            Ok(message) if message.authority() == service.authority() => message,
            Ok(_) => return Pushed::Unwanted(InvalidResource::OtherOrigin),
            Err(error) => return Pushed::Unwanted(error),
        };
        Pushed::Message { message, send: push_link(promised.headers(), promised.uri()) }
    }

    /// Checks the head of a pushed response: its content must be encrypted.
    ///
    /// # Errors
    /// [`ContentError`]; the content is then not read.
    ///
    /// Source: RFC 8291 §4; RFC 8188 §4.1.
    pub fn content(self, status: u16, headers: &HeaderMap) -> Result<(), ContentError> {
        if status != 200 {
            return Err(ContentError::Status(status));
        }
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        match (encodings.next(), encodings.next()) {
            (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"aes128gcm") => Ok(()),
            _ => Err(ContentError::NotEncrypted),
        }
    }

    /// Reads the end of a monitoring request.
    ///
    /// Source: RFC 8030 §6, §7.3, §7.3.1.
    pub fn end_of_monitor(self, status: u16, headers: &HeaderMap, now: UnixTime) -> Next {
        match status {
            200..=299 if headers.get(headers::MONITOR_FIELD).is_some_and(|it| it == headers::MONITOR_REPLACED) => {
                Next::Displaced
            }
            200..=299 => Next::Again,
            404 | 410 => Next::Ended,
            _ => Next::Backoff(headers::retry_after(headers, now)),
        }
    }

    /// Acknowledges a message.
    ///
    /// Source: RFC 8030 §6.2.
    pub fn acknowledge_request(self, message: &PushMessageUri) -> Request<()> {
        request(Method::DELETE, message.uri())
    }

    /// Sends an encrypted message.
    ///
    /// Source: RFC 8030 §5, §5.2, §5.3; RFC 8291 §4.
    pub fn post_request(self, send: &PushUri, ttl: Ttl, urgency: Urgency, body_bytes: usize) -> Request<()> {
        let mut request = request(Method::POST, send.uri());
        let fields = request.headers_mut();
        if urgency != Urgency::default() {
            fields.insert("urgency", HeaderValue::from_static(urgency.as_str()));
        }
        fields.insert("ttl", ttl.as_secs().into());
        fields.insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("aes128gcm"));
        fields.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
        fields.insert(header::CONTENT_LENGTH, body_bytes.into());
        request
    }

    /// Reads the answer to a message.
    ///
    /// # Errors
    /// [`PostError`]; the message is not with the service then.
    ///
    /// Source: RFC 8030 §5, §5.2, §7.2, §7.3, §8.4.
    pub fn parse_accepted(
        self,
        send: &PushUri,
        status: u16,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Result<Accepted, PostError> {
        match status {
            201 | 202 => {}
            404 | 410 => return Err(PostError::Gone),
            413 => return Err(PostError::TooLarge),
            429 | 503 => return Err(PostError::Busy(headers::retry_after(headers, now))),
            other => return Err(PostError::Status(other)),
        }
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|location| link::resolve(&send.uri(), location).ok());
        let message = location.and_then(|location| PushMessageUri::new(&location).ok()).ok_or(PostError::NoLocation)?;
        let keeps_for = Ttl::from_headers(headers).ok().map(|ttl| Duration::from_secs(ttl.as_secs()));
        Ok(Accepted { message, keeps_for })
    }

    /// Removes a subscription.
    ///
    /// Source: RFC 8030 §7.3.
    pub fn unsubscribe_request(self, subscription: &SubscriptionUri) -> Request<()> {
        request(Method::DELETE, subscription.uri())
    }

    /// Removes a set with all its subscriptions.
    ///
    /// Source: RFC 8030 §7.3.1.
    pub fn unsubscribe_set_request(self, set: &SetUri) -> Request<()> {
        request(Method::DELETE, set.uri())
    }

    /// Reads the answer to a DELETE; one that finds nothing has reached its aim, one that is refused for good never will.
    ///
    /// Source: RFC 9110 §9.2.2.
    pub fn deleted(self, status: u16, headers: &HeaderMap, now: UnixTime) -> Deletion {
        match status {
            408 | 421 | 425 | 429 | 500.. => Deletion::Retry(headers::retry_after(headers, now)),
            // What the service will never do is done with as well: asking for ever helps nobody.
            200..=299 | 400..=499 => Deletion::Done,
            _ => Deletion::Retry(None),
        }
    }
}

impl Target {
    fn uri(&self) -> Uri {
        match self {
            Self::Set(set) => set.uri(),
            Self::Subscription(subscription) => subscription.uri(),
        }
    }
}

/// The push link of a promise or of a pushed response; one that cannot be used counts as absent.
pub fn push_link(headers: &HeaderMap, base: &Uri) -> Option<PushUri> {
    linked(headers, link::PUSH, base).and_then(|send| PushUri::new(&send).ok())
}

fn redirected(service: &PushServiceUri, headers: &HeaderMap) -> SubscribeError {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location.and_then(|location| link::resolve(&service.uri(), location).ok()) else {
        return SubscribeError::Missing("Location");
    };
    match PushServiceUri::new(&location) {
        Ok(service) => SubscribeError::Redirected(service),
        Err(error) => SubscribeError::Invalid("Location", error),
    }
}

/// What is read is asked of our one connection, so it must be on the service's own origin.
fn same_origin(authority: &str, service: &PushServiceUri) -> Result<(), InvalidResource> {
    if authority == service.authority() { Ok(()) } else { Err(InvalidResource::OtherOrigin) }
}

fn linked(headers: &HeaderMap, relation: &str, base: &Uri) -> Option<Uri> {
    link::find(headers, relation, base).and_then(Result::ok)
}

fn request(method: Method, uri: Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetRefused => f.write_str("the push service no longer knows the subscription set"),
            Self::Busy(Some(wait)) => write!(f, "the push service asks to wait {} s", wait.as_secs()),
            Self::Busy(None) => f.write_str("the push service is busy"),
            Self::Missing(field) => write!(f, "the push service answered without a usable {field}"),
            Self::Invalid(field, error) => write!(f, "the push service answered with a bad {field}: {error}"),
            Self::Status(status) => write!(f, "the push service answered {status}"),
            Self::Redirected(to) => write!(f, "the push service sends the request on to {}", to.authority()),
            Self::NotProcessed => f.write_str("the push service has not looked at the request; it is repeated"),
        }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the subscription is gone; ask its device for a new one"),
            Self::TooLarge => f.write_str("the message is too large for the push service"),
            Self::Busy(Some(wait)) => write!(f, "the push service asks to wait {} s", wait.as_secs()),
            Self::Busy(None) => f.write_str("the push service is busy"),
            Self::NoLocation => f.write_str("the push service accepted the message but does not say where it is"),
            Self::Status(status) => write!(f, "the push service answered {status}"),
        }
    }
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the pushed response has status {status}"),
            Self::NotEncrypted => f.write_str("the pushed content is not encrypted with aes128gcm"),
            Self::TooLarge => f.write_str("the pushed content is longer than 4096 octets"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect::Rfc8030;
    const NOW: UnixTime = UnixTime(1_800_000_000);

    /// A-UA-05, A-UA-09: POST to the configured URL, later with the known set in a link.
    #[test]
    fn subscribing_presents_the_known_set() {
        let first = DIALECT.subscribe_request(&service(), None, None);
        assert_eq!((first.method(), first.uri().path()), (&Method::POST, "/subscribe"));
        assert!(!first.headers().contains_key(header::LINK));
        let set = SetUri::parse("https://push.example/set/1").expect("valid");
        let second = DIALECT.subscribe_request(&service(), Some(&set), None);
        assert_eq!(second.headers()[header::LINK], "<https://push.example/set/1>; rel=\"urn:ietf:params:push:set\"");
    }

    /// A-UA-06: relative and absolute targets, one line or two, any order and case give the same record.
    #[test]
    fn every_form_of_a_201_gives_the_same_record() {
        let forms: [&[(&str, &str)]; 4] = [
            &[
                ("location", "https://push.example/s/1"),
                ("link", "<https://push.example/p/1>; rel=\"urn:ietf:params:push\""),
                ("link", "<https://push.example/t/1>; rel=\"urn:ietf:params:push:set\""),
            ],
            &[
                ("location", "/s/1"),
                ("link", "</p/1>; rel=\"urn:ietf:params:push\", </t/1>; rel=\"urn:ietf:params:push:set\""),
            ],
            &[
                ("location", "s/1"),
                ("link", "<t/1>; title=\"a, b; c\"; REL=\"urn:ietf:params:push:set\", <p/1>; rel=urn:ietf:params:push"),
            ],
            &[
                ("location", "//push.example/s/1"),
                ("link", "</p/1>; a=b; rel=\"next urn:ietf:params:push\""),
                ("link", "<./t/1>; rel=\"URN:ietf:params:push:SET\""),
            ],
        ];
        for form in forms {
            let granted = DIALECT.parse_subscribed(&service(), None, 201, &fields(form), NOW).expect("granted");
            assert_eq!(granted.read.as_str(), "https://push.example/s/1");
            assert_eq!(granted.send.as_str(), "https://push.example/p/1");
            assert_eq!(granted.set.as_ref().map(SetUri::as_str), Some("https://push.example/t/1"));
        }
    }

    /// A-UA-07, A-UA-38: without Location or push link, or with one that is not https, there is no subscription.
    #[test]
    fn an_incomplete_201_is_no_subscription() {
        let push = ("link", "</p/1>; rel=\"urn:ietf:params:push\"");
        let parse = |status, form: &[(&str, &str)]| {
            DIALECT.parse_subscribed(&service(), None, status, &fields(form), NOW).err()
        };
        assert_eq!(parse(201, &[push]), Some(SubscribeError::Missing("Location")));
        assert_eq!(parse(201, &[("location", "/s/1")]), Some(SubscribeError::Missing("push link")));
        let only_set = ("link", "</t/1>; rel=\"urn:ietf:params:push:set\"");
        assert_eq!(parse(201, &[("location", "/s/1"), only_set]), Some(SubscribeError::Missing("push link")));
        let elsewhere = SubscribeError::Invalid("Location", InvalidResource::OtherOrigin);
        assert_eq!(parse(201, &[("location", "https://other.example/s/1"), push]), Some(elsewhere));
        let cleartext = SubscribeError::Invalid("Location", InvalidResource::NotHttps);
        assert_eq!(parse(201, &[("location", "http://push.example/s/1"), push]), Some(cleartext));
        for status in [200, 202, 500] {
            assert_eq!(parse(status, &[("location", "/s/1"), push]), Some(SubscribeError::Status(status)));
        }
    }

    /// A-UA-12, A-UA-13: 400 refuses the set that was presented; 429 says how long to wait.
    #[test]
    fn refusals_of_a_subscribe_are_told_apart() {
        let set = SetUri::parse("https://push.example/t/1").expect("valid");
        let parse = |set, status, form: &[(&str, &str)]| {
            DIALECT.parse_subscribed(&service(), set, status, &fields(form), NOW).err()
        };
        assert_eq!(parse(Some(&set), 400, &[]), Some(SubscribeError::SetRefused));
        assert_eq!(parse(None, 400, &[]), Some(SubscribeError::Status(400)));
        let wait = Some(SubscribeError::Busy(Some(Duration::from_secs(30))));
        assert_eq!(parse(None, 429, &[("retry-after", "30")]), wait);
    }

    /// A-UA-18, A-UA-21: the set is monitored where there is one; `wait=0` asks for what is stored.
    #[test]
    fn the_set_is_monitored_where_there_is_one() {
        let mut granted = granted();
        let target = DIALECT.monitor_target(&granted);
        assert_eq!(DIALECT.monitor_request(&target, None, Urgency::VeryLow).uri().path(), "/t/1");
        granted.set = None;
        let target = DIALECT.monitor_target(&granted);
        let request = DIALECT.monitor_request(&target, Some(0), Urgency::VeryLow);
        assert_eq!((request.uri().path(), request.headers()["prefer"].as_bytes()), ("/s/1", &b"wait=0"[..]));
    }

    /// D-9113-06, D-8288-02: promises of another origin are not ours; links resolve against the promised URI.
    #[test]
    fn only_promises_of_our_origin_are_messages() {
        let link = ("link", "</p/1>; rel=\"urn:ietf:params:push\"");
        let pushed = DIALECT.classify(&service(), &promise("https://PUSH.example:443/m", &[link]));
        let message = PushMessageUri::parse("https://push.example/m").expect("valid");
        assert_eq!(pushed, Pushed::Message { message, send: Some(granted().send) });
        for other in ["https://other.test/m", "https://push.example:8443/m", "http://push.example/m", "/m"] {
            assert!(matches!(DIALECT.classify(&service(), &promise(other, &[])), Pushed::Unwanted(_)), "{other}");
        }
    }

    /// D-8291-11, D-8188-08: exactly one content encoding, and that one.
    #[test]
    fn only_aes128gcm_is_content() {
        let content = |form: &[(&str, &str)]| DIALECT.content(200, &fields(form));
        assert_eq!(content(&[("content-encoding", "aes128gcm")]), Ok(()));
        for bad in ["aes128gcm, aes128gcm", "gzip, aes128gcm", "aesgcm", ""] {
            assert_eq!(content(&[("content-encoding", bad)]), Err(ContentError::NotEncrypted), "{bad}");
        }
        let twice = [("content-encoding", "aes128gcm"), ("content-encoding", "aes128gcm")];
        assert_eq!(content(&twice), Err(ContentError::NotEncrypted));
        assert_eq!(content(&[]), Err(ContentError::NotEncrypted));
    }

    /// A-UA-22, A-UA-23, A-UA-33: what the end of a monitoring request means.
    #[test]
    fn the_end_of_a_monitor_is_read_from_its_status() {
        let end = |status, form: &[(&str, &str)]| DIALECT.end_of_monitor(status, &fields(form), NOW);
        assert_eq!((end(200, &[]), end(204, &[])), (Next::Again, Next::Again));
        assert_eq!((end(404, &[]), end(410, &[])), (Next::Ended, Next::Ended));
        assert_eq!(end(503, &[("retry-after", "5")]), Next::Backoff(Some(Duration::from_secs(5))));
    }

    /// A-AS-01, A-AS-09: a message has exactly one TTL of digits, its coding and its length.
    #[test]
    fn messages_carry_ttl_coding_and_length() {
        let request = DIALECT.post_request(&granted().send, Ttl::from_secs(60), Urgency::Normal, 144);
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/p/1"));
        let fields = request.headers();
        assert_eq!(fields.get_all("ttl").iter().collect::<Vec<_>>(), ["60"]);
        assert_eq!(
            (&fields["content-encoding"], &fields["content-length"]),
            (&"aes128gcm".parse().expect("a value"), &"144".parse().expect("a value"))
        );
    }

    /// A-AS-10, A-AS-19, A-AS-20, A-AS-24: what the answer to a message says.
    #[test]
    fn the_answer_to_a_message_is_read() {
        let read = |status, form: &[(&str, &str)]| DIALECT.parse_accepted(&granted().send, status, &fields(form), NOW);
        let message = PushMessageUri::parse("https://push.example/m").expect("valid");
        let kept = Accepted { message: message.clone(), keeps_for: Some(Duration::from_secs(60)) };
        assert_eq!(read(201, &[("location", "/m"), ("ttl", "60")]), Ok(kept));
        assert_eq!(read(201, &[("location", "https://push.example/m")]), Ok(Accepted { message, keeps_for: None }));
        assert_eq!(read(201, &[]), Err(PostError::NoLocation));
        assert_eq!((read(404, &[]), read(413, &[])), (Err(PostError::Gone), Err(PostError::TooLarge)));
        let wait = Some(Duration::from_secs(20));
        assert_eq!(read(429, &[("retry-after", "20")]), Err(PostError::Busy(wait)));
    }

    /// D-9110-03, A-GAP-01: a DELETE that finds nothing has reached its aim.
    #[test]
    fn a_delete_that_finds_nothing_is_done() {
        for status in [200, 204, 403, 404, 410] {
            assert_eq!(DIALECT.deleted(status, &fields(&[]), NOW), Deletion::Done);
        }
        for status in [307, 421, 429, 503] {
            assert_eq!(DIALECT.deleted(status, &fields(&[]), NOW), Deletion::Retry(None));
        }
    }

    fn service() -> PushServiceUri {
        PushServiceUri::parse("https://push.example/subscribe").expect("valid")
    }

    fn granted() -> Granted {
        let form = [
            ("location", "/s/1"),
            ("link", "</p/1>; rel=\"urn:ietf:params:push\""),
            ("link", "</t/1>; rel=\"urn:ietf:params:push:set\""),
        ];
        DIALECT.parse_subscribed(&service(), None, 201, &fields(&form), NOW).expect("granted")
    }

    fn promise(uri: &str, form: &[(&str, &str)]) -> Request<()> {
        let mut request = request(Method::GET, uri.parse().expect("a URI"));
        *request.headers_mut() = fields(form);
        request
    }

    fn fields(form: &[(&str, &str)]) -> HeaderMap {
        let parse = |text: &&str| text.parse::<http::HeaderName>().expect("a name");
        form.iter().map(|(name, value)| (parse(name), value.parse().expect("a value"))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }
}
