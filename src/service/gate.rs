//! What an operator asks of requests beyond the protocol: who may subscribe, where instead, and how much one connection
//! may ask for.
//!
//! Pure: a request's head and what its connection has had so far decide.
//!
//! Source: RFC 8030 §4.1 and §5.1 (429), §7.1 (307), §7.2 (413), §8.3 (401).

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, request};

use crate::limits::{
    PUSH_BODY_BYTES_MAX, SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION, SERVICE_STREAM_COUNT_MAX,
    SERVICE_STREAM_COUNT_WITH_SETS,
};
use crate::transport::credential::Credential;

use super::retention::{Kind, ReceiptWish};
use super::routes::{self, PushSupport, Route, SUBSCRIBE_PATH};
use super::token::Token;

/// The choices of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether user agents are told of the set of their subscription.
    pub offer_sets: bool,
    /// Whether a connection that has subscribed must name its set to subscribe again.
    pub require_set: bool,
    /// Where to subscribe instead; nothing is subscribed here then.
    pub redirect_to: Option<Uri>,
    /// Receipt subscriptions that one connection may have made for it.
    pub receipt_subscriptions_per_connection: u32,
    /// Octets of a message: [`PUSH_BODY_BYTES_MAX`] or more, which no service may refuse.
    pub message_bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            offer_sets: true,
            require_set: false,
            redirect_to: None,
            receipt_subscriptions_per_connection: SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION,
            message_bytes_max: PUSH_BODY_BYTES_MAX,
        }
    }
}

impl Rules {
    /// Concurrent requests of one connection: with sets, one that monitors and one more are enough.
    ///
    /// Source: RFC 8030 §7.5.
    pub fn stream_count_max(&self) -> u32 {
        if self.require_set { SERVICE_STREAM_COUNT_WITH_SETS } else { SERVICE_STREAM_COUNT_MAX }
    }
}

/// The rules, and what proves that somebody may subscribe.
#[derive(Debug, Default)]
pub struct Gate {
    rules: Rules,
    token: Option<Credential>,
}

/// What one connection has had.
///
/// A user agent and an application server are told apart by their connections: that may be wrong, and costs the one
/// that shares a connection a link.
#[derive(Debug, Default)]
pub struct Client {
    subscriptions: Rc<Cell<u32>>,
    receipts: Rc<Cell<u32>>,
}

/// One more for a client, given back unless it is [kept](Self::keep).
#[derive(Debug, Default)]
pub struct Claim(Option<Rc<Cell<u32>>>);

impl Claim {
    fn of(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(Some(Rc::clone(count)))
    }

    /// The client got what it asked for.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.set(count.get().saturating_sub(1));
        }
    }
}

impl Gate {
    /// Rules, and the token without which nobody subscribes, if there is one.
    pub fn new(rules: Rules, token: Option<Credential>) -> Self {
        Self { rules, token }
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Decides what to do with a request, as [`routes::route`] within the rules. The claim is kept when it was answered
    /// with success.
    pub fn route(
        &self,
        head: &request::Parts,
        push: PushSupport,
        client: &Client,
        kind: impl Fn(Token) -> Option<Kind>,
    ) -> (Route, Claim) {
        let refusal = if routes::is_addressed(head) { self.refuse_subscriber(head) } else { None };
        let route = refusal.map_or_else(|| routes::route(head, push, kind), Route::Answer);
        self.admit(route, &head.headers, client)
    }

    /// Source: RFC 8030 §7.1, RFC 9110 §11.6.1, RFC 6750 §3.
    fn refuse_subscriber(&self, head: &request::Parts) -> Option<Response<Bytes>> {
        if head.method != Method::POST || head.uri.path_and_query().is_none_or(|path| path != SUBSCRIBE_PATH) {
            return None;
        }
        if let Some(elsewhere) = &self.rules.redirect_to {
            let mut response = routes::empty(StatusCode::TEMPORARY_REDIRECT);
            let location = HeaderValue::from_str(&elsewhere.to_string()).expect("a URI is visible ASCII");
            response.headers_mut().insert(LOCATION, location);
            return Some(response);
        }
        let token = self.token.as_ref()?;
        let mut presented = head.headers.get_all(AUTHORIZATION).iter();
        let challenge = match (presented.next(), presented.next()) {
            (Some(presented), None) if token.is(presented) => return None,
            (None, _) => "Bearer realm=\"subscribe\"",
            _ => "Bearer realm=\"subscribe\", error=\"invalid_token\"",
        };
        let mut response = routes::reason(StatusCode::UNAUTHORIZED, "subscribing here takes a bearer token");
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Some(response)
    }

    fn admit(&self, route: Route, headers: &HeaderMap, client: &Client) -> (Route, Claim) {
        match &route {
            Route::Subscribe { set: None, .. } if self.rules.require_set && client.subscriptions.get() > 0 => {
                (too_many("present the subscription set that this connection has"), Claim::default())
            }
            Route::Subscribe { .. } => (route, Claim::of(&client.subscriptions)),
            Route::Send { .. } if routes::announces_too_much(headers, self.rules.message_bytes_max) => {
                (Route::Answer(routes::too_large(self.rules.message_bytes_max)), Claim::default())
            }
            Route::Send { posted, .. } if posted.receipts == ReceiptWish::New => {
                if client.receipts.get() >= self.rules.receipt_subscriptions_per_connection {
                    return (too_many("present a receipt subscription that this connection has"), Claim::default());
                }
                (route, Claim::of(&client.receipts))
            }
            _ => (route, Claim::default()),
        }
    }
}

/// Waiting changes nothing, so the answer does not say how long.
fn too_many(text: &'static str) -> Route {
    Route::Answer(routes::reason(StatusCode::TOO_MANY_REQUESTS, text))
}
