//! Requests into actions, outcomes into answers.
//!
//! Pure: a request's head and what is known about its path decide what to do, and a [`Reply`] decides status and
//! fields. Everything about HTTP that the service promises is here; connections only carry it.
//!
//! Dead and unknown paths are told apart from nothing: they are checked first and answered alike (404, no content).
//!
//! Source: RFC 8030 §4 to §7, RFC 8292 §4, RFC 9110 §15.

use std::fmt;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LAST_MODIFIED, LINK, LOCATION,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};

use crate::limits::{SERVICE_DESCRIPTION_BYTES_MAX, SERVICE_RETRY_AFTER_S};
use crate::time::UnixTime;
use crate::webpush::headers::{InvalidTtl, Preferences, Topic, Ttl, Urgency, http_date};
use crate::webpush::headers::{MONITOR_FIELD, MONITOR_REPLACED};
use crate::webpush::vapid::{self, Identification, InvalidIdentification, InvalidOptions, InvalidToken};
use crate::webpush::{ece, link};

use super::identification::{Presented, Refusal};
use super::retention::{Content, Ending, Kind, Moment, Outcome, Posted, Push, Receipt, ReceiptWish, Reply};
use super::token::Token;

/// Path of the push service resource, where subscriptions are made.
pub const SUBSCRIBE_PATH: &str = "/subscribe";

const NO_HOST: &str = "the request names no host";

/// Whether the connection of a request can carry pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushSupport {
    /// HTTP/2 with server push.
    Available,
    /// HTTP/2, and the client switched server push off.
    Disabled,
    /// HTTP/1.1 has none.
    None,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Route {
    /// Answer it, whatever its content.
    Answer(Response<Bytes>),
    /// Make a subscription, in the set presented if there is one.
    Subscribe {
        /// The set.
        set: Option<Token>,
        /// Whether the content is options, and to be read.
        has_options: bool,
    },
    /// Read the content, which is still missing and bounded, and accept the message.
    Send {
        /// The message.
        posted: Posted,
        /// Who its sender says it is.
        sender: Option<Presented>,
    },
    /// Show a message.
    Read {
        /// The push message.
        message: Token,
    },
    /// Acknowledge a message, end a subscription, a set or a receipt subscription.
    Remove {
        /// The resource.
        resource: Token,
    },
    /// Keep the request open and push.
    Monitor {
        /// The subscription, set or receipt subscription.
        resource: Token,
        /// The preference for an answer after so many seconds.
        wait_s: Option<u64>,
        /// The least that is wanted.
        urgency: Urgency,
    },
}

/// Decides what to do with a request, given what its path names.
pub fn route(head: &request::Parts, push: PushSupport, kind: impl Fn(Token) -> Option<Kind>) -> Route {
    if !is_addressed(head) {
        return Route::Answer(reason(StatusCode::BAD_REQUEST, "the request names no host, or more than one"));
    }
    let path = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if path == SUBSCRIBE_PATH {
        return match head.method {
            Method::POST => subscribe(head),
            _ => Route::Answer(not_allowed("POST")),
        };
    }
    let Some((token, kind)) = Token::from_path(path).and_then(|token| Some((token, kind(token)?))) else {
        return Route::Answer(empty(StatusCode::NOT_FOUND));
    };
    match (kind, &head.method) {
        (Kind::Push, &Method::POST) => message(token, head),
        (Kind::Push, _) => Route::Answer(not_allowed("POST")),
        (Kind::Message, &Method::GET) => Route::Read { message: token },
        (Kind::Subscription | Kind::Set | Kind::Receipts, &Method::GET) => monitor(token, &head.headers, push),
        (_, &Method::DELETE) => Route::Remove { resource: token },
        _ => Route::Answer(not_allowed("GET, DELETE")),
    }
}

/// The answer to a reply; none while a monitoring request stays open.
pub fn answer(reply: Reply) -> Option<Response<Bytes>> {
    Some(match reply {
        Reply::Monitoring => return None,
        Reply::Subscribed { subscription, push, set } => subscribed(subscription, push, Some(set)),
        Reply::Accepted { message, ttl, receipts } => {
            let mut response = empty(if receipts.is_some() { StatusCode::ACCEPTED } else { StatusCode::CREATED });
            let fields = response.headers_mut();
            fields.insert(LOCATION, path_value(message));
            fields.insert("ttl", HeaderValue::from(ttl.as_secs()));
            if let Some(receipts) = receipts {
                fields.insert(LINK, link::value(&receipts.path(), link::RECEIPT));
            }
            response
        }
        Reply::Content { content, accepted, max_age_s } => {
            let mut response = Response::new(content.body.clone());
            describe(response.headers_mut(), &content, accepted, max_age_s);
            response
        }
        Reply::Removed => empty(StatusCode::NO_CONTENT),
        Reply::Gone => empty(StatusCode::NOT_FOUND),
        Reply::InvalidSet => {
            reason(StatusCode::BAD_REQUEST, "the subscription set in the link is not one of this service")
        }
        Reply::InvalidReceipts => {
            reason(StatusCode::BAD_REQUEST, "the receipt subscription in the link is not one of this service")
        }
        Reply::TooMany { wait_s } => {
            let mut response = reason(StatusCode::TOO_MANY_REQUESTS, "too many messages for this push resource");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_s));
            response
        }
        Reply::Full => unavailable("the service is full; try again later"),
    })
}

/// The answer to a subscribe request: the resources of the subscription, and its set where that is offered.
///
/// Source: RFC 8030 §4, §4.1.
pub fn subscribed(subscription: Token, push: Token, set: Option<Token>) -> Response<Bytes> {
    let mut response = empty(StatusCode::CREATED);
    let fields = response.headers_mut();
    fields.insert(LOCATION, path_value(subscription));
    fields.append(LINK, link::value(&push.path(), link::PUSH));
    if let Some(set) = set {
        fields.append(LINK, link::value(&set.path(), link::SET));
    }
    response
}

/// The answer when the outcome could not be stored.
pub fn not_stored() -> Response<Bytes> {
    unavailable("the service cannot store this now; try again later")
}

/// The answer to content of more than `bytes_max` octets.
pub fn too_large(bytes_max: usize) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("a message is at most {bytes_max} octets")));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}

/// The answer to options that are too long.
pub fn options_too_large() -> Response<Bytes> {
    reason(StatusCode::PAYLOAD_TOO_LARGE, "the options of the subscription are too long")
}

/// The answer to options that cannot be read.
pub fn invalid_options(invalid: InvalidOptions) -> Response<Bytes> {
    explained(StatusCode::BAD_REQUEST, &invalid)
}

/// The answer to a message that is not taken from its sender.
///
/// Source: RFC 8292 §4.2, RFC 9110 §11.6.1.
pub fn refused(refusal: Refusal, now: Moment) -> Response<Bytes> {
    match refusal {
        Refusal::Missing => {
            let text = "this subscription is restricted: the sender has to identify itself (RFC 8292)";
            let mut response = reason(StatusCode::UNAUTHORIZED, text);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("vapid"));
            response
        }
        Refusal::OtherKey => reason(StatusCode::FORBIDDEN, "this subscription is restricted to another key"),
        Refusal::Token(invalid @ (InvalidToken::Expired | InvalidToken::TooFarAhead)) if !now.is_synchronised => {
            let text = format!("{invalid}, by the clock of this service, which is not synchronised");
            explained(StatusCode::FORBIDDEN, &text)
        }
        Refusal::Token(invalid) => explained(StatusCode::FORBIDDEN, &invalid),
    }
}

/// The answer to a message that was encrypted with the key that signs: one who may verify must not learn more by it.
///
/// Source: RFC 8292 §3.2.
pub fn same_key() -> Response<Bytes> {
    reason(StatusCode::BAD_REQUEST, "the key k must not be the one that the message is encrypted with")
}

/// Whether a message was encrypted with the key by which its sender identifies itself.
pub fn has_same_key(sender: &Presented, content: &Content) -> bool {
    let encoding = content.content_encoding.as_ref().map_or(&[][..], HeaderValue::as_bytes);
    encoding.eq_ignore_ascii_case(b"aes128gcm")
        && ece::key_id(&content.body) == Some(&sender.identification.key().octets())
}

/// The answer to content that did not arrive in time.
pub fn too_slow() -> Response<Bytes> {
    reason(StatusCode::REQUEST_TIMEOUT, "the content did not arrive in time")
}

/// The answer to a monitoring request of a client that takes no pushes.
pub fn push_disabled() -> Response<Bytes> {
    reason(StatusCode::BAD_REQUEST, "messages come by server push, which this client switched off")
}

/// Whether a request announces more content than a message may have.
pub fn announces_too_much(headers: &HeaderMap, bytes_max: usize) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > bytes_max as u64)
}

/// The final answer to a monitoring request.
pub fn ended(ending: Ending) -> Response<()> {
    let mut response = Response::new(());
    if ending == Ending::Replaced {
        response.headers_mut().insert(MONITOR_FIELD, HeaderValue::from_static(MONITOR_REPLACED));
    }
    *response.status_mut() = match ending {
        Ending::Pushed | Ending::Replaced => StatusCode::OK,
        Ending::Nothing => StatusCode::NO_CONTENT,
        Ending::Gone => StatusCode::NOT_FOUND,
    };
    response
}

/// The request that a push promises: GET on the message, with the push resource in a link.
///
/// Source: RFC 8030 §6.1, RFC 9113 §8.4.1.
pub fn promise(push: &Push, authority: &Authority) -> Request<()> {
    let mut request = promise_of(push.message, authority);
    request.headers_mut().insert(LINK, link::value(&push.push.path(), link::PUSH));
    request
}

fn promise_of(message: Token, authority: &Authority) -> Request<()> {
    let path = PathAndQuery::try_from(message.path()).expect("a slash and base64url are a path");
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(authority.clone());
    uri.path_and_query = Some(path);
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(uri).expect("all three parts are there");
    request
}

/// The request that a receipt promises: GET on the message it is about, and nothing else.
///
/// Source: RFC 8030 §6.3, RFC 9113 §8.4.1.
pub fn receipt_promise(receipt: &Receipt, authority: &Authority) -> Request<()> {
    promise_of(receipt.message, authority)
}

/// A receipt: what became of the message, as a status.
///
/// Source: RFC 8030 §6.3.
pub fn receipt(receipt: &Receipt) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = match receipt.outcome {
        Outcome::Acknowledged => StatusCode::NO_CONTENT,
        Outcome::GivenUp => StatusCode::GONE,
    };
    response
}

/// The head of a pushed response: what the sender said about the content, and nothing else of its fields.
///
/// Source: RFC 8030 §6, §7.2.
pub fn pushed(push: &Push) -> Response<()> {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(LINK, link::value(&push.push.path(), link::PUSH));
    describe(fields, &push.content, push.last_modified, push.max_age_s);
    response
}

/// The host of a request, from its target or its Host field.
pub fn authority(head: &request::Parts) -> Option<Authority> {
    let from_host = || head.headers.get(HOST)?.to_str().ok()?.parse().ok();
    head.uri.authority().cloned().or_else(from_host).filter(|authority| !authority.as_str().contains('@'))
}

/// Whether a request says for which host it is, as far as its version has to.
pub fn is_addressed(head: &request::Parts) -> bool {
    head.version != Version::HTTP_11 || names_host(&head.headers)
}

/// Whether there is one Host field, and a host in it.
///
/// Source: RFC 9112 §3.2.
fn names_host(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(HOST).iter();
    let is_host = |value: &HeaderValue| value.to_str().is_ok_and(|host| host.parse::<Authority>().is_ok());
    lines.next().is_some_and(is_host) && lines.next().is_none()
}

fn subscribe(head: &request::Parts) -> Route {
    let has_options = match vapid::has_options(&head.headers) {
        Ok(has_options) => has_options,
        Err(invalid) => return Route::Answer(invalid_options(invalid)),
    };
    match presented(head, link::SET) {
        Ok(set) => Route::Subscribe { set, has_options },
        Err(NotPresented::NoHost) => Route::Answer(reason(StatusCode::BAD_REQUEST, NO_HOST)),
        Err(NotPresented::Foreign) => refuse(Reply::InvalidSet),
    }
}

/// Reads who the sender of a message says it is, and then the rest.
fn message(push: Token, head: &request::Parts) -> Route {
    let identification = match Identification::from_headers(&head.headers) {
        Ok(None) => return send(push, None, head),
        Ok(Some(identification)) => identification,
        Err(invalid) => return Route::Answer(unidentified(invalid)),
    };
    match authority(head) {
        Some(authority) => send(push, Some(Presented { identification, authority }), head),
        None => Route::Answer(reason(StatusCode::BAD_REQUEST, NO_HOST)),
    }
}

fn unidentified(invalid: InvalidIdentification) -> Response<Bytes> {
    let status = match invalid {
        InvalidIdentification::Repeated => StatusCode::BAD_REQUEST,
        InvalidIdentification::Malformed
        | InvalidIdentification::Incomplete
        | InvalidIdentification::Key
        | InvalidIdentification::TooLong => StatusCode::FORBIDDEN,
    };
    explained(status, &invalid)
}

fn refuse(reply: Reply) -> Route {
    Route::Answer(answer(reply).expect("only an open monitor has no answer"))
}

/// Why what a request presents in a link is no resource of this service.
enum NotPresented {
    /// It cannot be told, for the request names no host.
    NoHost,
    /// It is another origin's, or nothing.
    Foreign,
}

/// The resource that a request presents in a link of a relation, if it does.
fn presented(head: &request::Parts, relation: &str) -> Result<Option<Token>, NotPresented> {
    let authority = authority(head).ok_or(NotPresented::NoHost)?;
    let base: Uri = format!("https://{authority}{SUBSCRIBE_PATH}").parse().map_err(|_| NotPresented::Foreign)?;
    match link::find(&head.headers, relation, &base) {
        None => Ok(None),
        Some(Ok(target)) if is_same_origin(&target, &base) => {
            let path = target.path_and_query().map_or("", PathAndQuery::as_str);
            Token::from_path(path).map(Some).ok_or(NotPresented::Foreign)
        }
        Some(_) => Err(NotPresented::Foreign),
    }
}

fn send(push: Token, sender: Option<Presented>, head: &request::Parts) -> Route {
    let refused = |text| Route::Answer(reason(StatusCode::BAD_REQUEST, text));
    let headers = &head.headers;
    let ttl = match Ttl::from_headers(headers) {
        Ok(ttl) => ttl,
        Err(InvalidTtl::Missing) => return refused("the TTL field is missing"),
        Err(InvalidTtl::Malformed) => return refused("the TTL field is not a number of seconds"),
        Err(InvalidTtl::Repeated) => return refused("there is more than one TTL field"),
    };
    let Ok(urgency) = Urgency::from_headers(headers) else { return invalid_urgency() };
    let Ok(topic) = Topic::from_headers(headers) else {
        return refused("a topic is one field of 1 to 32 letters, digits, - and _");
    };
    let fields = (description(headers, CONTENT_TYPE), description(headers, CONTENT_ENCODING));
    let (Ok(content_type), Ok(content_encoding)) = fields else {
        return refused("content type and content encoding are one field of at most 256 octets each");
    };
    let Ok(receipts) = receipt_wish(head) else { return refuse(Reply::InvalidReceipts) };
    let content = Content { body: Bytes::new(), content_type, content_encoding };
    let urgency = urgency.unwrap_or_default();
    Route::Send { posted: Posted { push, ttl, urgency, topic, receipts, content }, sender }
}

/// Source: RFC 8030 §5.1.
fn receipt_wish(head: &request::Parts) -> Result<ReceiptWish, NotPresented> {
    if !Preferences::from_headers(&head.headers).respond_async {
        return Ok(ReceiptWish::None);
    }
    Ok(presented(head, link::RECEIPT)?.map_or(ReceiptWish::New, ReceiptWish::In))
}

/// A field that goes with the message to its receiver, whose room for fields is small.
fn description(headers: &HeaderMap, name: HeaderName) -> Result<Option<HeaderValue>, Indescribable> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.len() <= SERVICE_DESCRIPTION_BYTES_MAX => Ok(Some(value.clone())),
        _ => Err(Indescribable),
    }
}

/// A field that describes a message is repeated or too long.
struct Indescribable;

/// Source: RFC 8030 §5.3 (one value), which leaves open what other words mean.
fn invalid_urgency() -> Route {
    Route::Answer(reason(StatusCode::BAD_REQUEST, "an urgency is one of very-low, low, normal and high"))
}

fn monitor(resource: Token, headers: &HeaderMap, push: PushSupport) -> Route {
    let Ok(urgency) = Urgency::from_headers(headers) else { return invalid_urgency() };
    let urgency = urgency.unwrap_or(Urgency::VeryLow);
    match push {
        PushSupport::Available => {
            Route::Monitor { resource, wait_s: Preferences::from_headers(headers).wait_s, urgency }
        }
        PushSupport::Disabled => Route::Answer(push_disabled()),
        PushSupport::None => Route::Answer(reason(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "messages come by server push, which needs HTTP/2",
        )),
    }
}

fn is_same_origin(target: &Uri, base: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(443);
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    target.scheme() == base.scheme() && host(target) == host(base) && port(target) == port(base)
}

/// The fields that describe a message. They vary with it, so that HPACK tables are better off without the rarer ones.
fn describe(fields: &mut HeaderMap, content: &Content, last_modified: Option<UnixTime>, max_age_s: u64) {
    if let Some(content_type) = &content.content_type {
        fields.insert(CONTENT_TYPE, content_type.clone());
    }
    if let Some(content_encoding) = &content.content_encoding {
        fields.insert(CONTENT_ENCODING, content_encoding.clone());
    }
    let mut max_age = value(&format!("private, max-age={max_age_s}"));
    if let Some(accepted) = last_modified {
        fields.insert(LAST_MODIFIED, value(&http_date(accepted)));
        // What is left of a lifetime after waiting is a new number each time.
        max_age.set_sensitive(true);
    }
    fields.insert(CACHE_CONTROL, max_age);
}

pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    reason(status, "")
}

fn not_allowed(methods: &'static str) -> Response<Bytes> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn unavailable(text: &'static str) -> Response<Bytes> {
    let mut response = reason(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(SERVICE_RETRY_AFTER_S));
    response
}

/// An answer with a line that says what is wrong.
fn explained(status: StatusCode, what: &dyn fmt::Display) -> Response<Bytes> {
    with_text(status, Bytes::from(what.to_string()))
}

/// An answer with one line for a person.
pub(super) fn reason(status: StatusCode, text: &'static str) -> Response<Bytes> {
    with_text(status, Bytes::from_static(text.as_bytes()))
}

fn with_text(status: StatusCode, text: Bytes) -> Response<Bytes> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    if !response.body().is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

fn path_value(token: Token) -> HeaderValue {
    value(&token.path())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tokens, numbers and dates are visible ASCII")
}

#[cfg(test)]
mod tests;
