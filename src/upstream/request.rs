//! Requests with one answer.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, header};
use tokio::time::timeout;

use super::{Report, Requester};
use crate::limits::REQUEST_WAIT_MS_MAX;
use crate::proto::Input;
use crate::proto::subscription::SubscriptionId;
use crate::webpush::exchange::{Deletion, SubscribeError};
use crate::webpush::resource::{PushServiceUri, SetUri};
use crate::webpush::vapid::ApplicationServerKey;

/// Why a request was not answered.
enum Unanswered {
    /// The service has not looked at it.
    NotProcessed,
    /// It may have.
    Unknown,
}

/// Sends a DELETE and reports what became of it.
pub(super) async fn delete(requester: Requester, request: Request<()>, answer: impl FnOnce(Deletion) -> Input) {
    let outcome = match exchange(&requester, request.map(|()| Bytes::new())).await {
        Ok((status, headers)) => requester.dialect.deleted(status, &headers, requester.clock.now()),
        Err(_) => Deletion::Retry(None),
    };
    requester.reporter.report(Report::Input(answer(outcome))).await;
}

/// A subscription as it is asked for.
pub(super) struct Asked {
    /// Where.
    pub service: PushServiceUri,
    /// The set to present.
    pub set: Option<SetUri>,
    /// What the service wants to see.
    pub credential: Option<HeaderValue>,
    /// The application server that alone may send to it.
    pub restricted_to: Option<ApplicationServerKey>,
}

/// Asks for a subscription and reports it.
pub(super) async fn subscribe(requester: Requester, asked: Asked, subscription: SubscriptionId) {
    let Asked { service, set, credential, restricted_to } = asked;
    let mut request = requester.dialect.subscribe_request(&service, set.as_ref(), restricted_to.as_ref());
    if let Some(credential) = credential {
        request.headers_mut().insert(header::AUTHORIZATION, credential);
    }
    let outcome = match exchange(&requester, request).await {
        Ok((status, headers)) => {
            let now = requester.clock.now();
            Some(requester.dialect.parse_subscribed(&service, set.as_ref(), status, &headers, now))
        }
        Err(Unanswered::NotProcessed) => Some(Err(SubscribeError::NotProcessed)),
        Err(Unanswered::Unknown) => None,
    };
    if let Some(Err(error)) = &outcome {
        tracing::warn!("no subscription: {error}");
    }
    let connection = requester.reporter.connection;
    requester.reporter.report(Report::Input(Input::Subscribed { connection, subscription, outcome })).await;
}

/// Waits until a request may be sent. A connection on which none can be sent any more is reported as going.
pub(super) async fn ready(requester: &Requester) -> Result<SendRequest<Bytes>, h2::Error> {
    let ready = requester.requests.clone().ready().await;
    if ready.is_err() {
        requester.reporter.report(Report::GoingAway).await;
    }
    ready
}

/// One request, one answer whose content does not matter; none when it did not come in time, counted from when it could be sent.
async fn exchange(requester: &Requester, request: Request<Bytes>) -> Result<(u16, HeaderMap), Unanswered> {
    let mut requests = ready(requester).await.map_err(|_| Unanswered::NotProcessed)?;
    let (head, content) = request.into_parts();
    let request = Request::from_parts(head, ());
    let sent = requester.send(&mut requests, request, content.is_empty()).map_err(|_| Unanswered::NotProcessed)?;
    let (response, mut stream) = sent;
    if !content.is_empty() {
        // The library sends it as far as the peer's window allows; it is far smaller than any.
        stream.send_data(content, true).map_err(|_| Unanswered::Unknown)?;
    }
    let answer = timeout(Duration::from_millis(REQUEST_WAIT_MS_MAX), response).await;
    let (head, _) = answer.map_err(|_| Unanswered::Unknown)?.map_err(|error| unanswered(&error))?.into_parts();
    requester.read_route(head.status, &head.headers).await.map_err(|_| Unanswered::NotProcessed)?;
    Ok((head.status.as_u16(), head.headers))
}

/// Source: RFC 9113 §8.7 (a stream above the last one of a GOAWAY, or reset as refused, was not processed).
fn unanswered(error: &h2::Error) -> Unanswered {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && (error.is_go_away() || is_refused) { Unanswered::NotProcessed } else { Unanswered::Unknown }
}
