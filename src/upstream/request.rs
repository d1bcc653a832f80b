//! Requests with one answer.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, header};
use tokio::time::timeout;

use super::{Context, Report};
use crate::limits::REQUEST_WAIT_MS_MAX;
use crate::proto::Input;
use crate::proto::subscription::SubscriptionId;
use crate::webpush::exchange::{Deletion, SubscribeError};
use crate::webpush::resource::{PushServiceUri, SetUri};

/// Why a request was not answered.
enum Unanswered {
    /// The service has not looked at it.
    NotProcessed,
    /// It may have.
    Unknown,
}

/// Sends a DELETE and reports what became of it.
pub(super) async fn delete(context: Context, request: Request<()>, answer: impl FnOnce(Deletion) -> Input) {
    let outcome = match exchange(&context, request).await {
        Ok((status, headers)) => context.dialect.deleted(status, &headers, context.clock.now()),
        Err(_) => Deletion::Retry(None),
    };
    context.reporter.report(Report::Input(answer(outcome))).await;
}

/// Asks for a subscription and reports it.
pub(super) async fn subscribe(
    context: Context,
    service: PushServiceUri,
    set: Option<SetUri>,
    credential: Option<HeaderValue>,
    subscription: SubscriptionId,
) {
    let mut request = context.dialect.subscribe_request(&service, set.as_ref());
    if let Some(credential) = credential {
        request.headers_mut().insert(header::AUTHORIZATION, credential);
    }
    let outcome = match exchange(&context, request).await {
        Ok((status, headers)) => {
            let now = context.clock.now();
            Some(context.dialect.parse_subscribed(&service, set.as_ref(), status, &headers, now))
        }
        Err(Unanswered::NotProcessed) => Some(Err(SubscribeError::NotProcessed)),
        Err(Unanswered::Unknown) => None,
    };
    if let Some(Err(error)) = &outcome {
        tracing::warn!("no subscription: {error}");
    }
    let connection = context.reporter.connection;
    context.reporter.report(Report::Input(Input::Subscribed { connection, subscription, outcome })).await;
}

/// Waits until a request may be sent. A connection on which none can be sent any more is reported as going.
pub(super) async fn ready(context: &Context) -> Result<SendRequest<Bytes>, h2::Error> {
    let ready = context.requests.clone().ready().await;
    if ready.is_err() {
        context.reporter.report(Report::GoingAway).await;
    }
    ready
}

/// One request, one answer without content; none when it did not come in time, counted from when it could be sent.
async fn exchange(context: &Context, request: Request<()>) -> Result<(u16, HeaderMap), Unanswered> {
    let mut requests = ready(context).await.map_err(|_| Unanswered::NotProcessed)?;
    let (response, _) = requests.send_request(request, true).map_err(|_| Unanswered::NotProcessed)?;
    let answer = timeout(Duration::from_millis(REQUEST_WAIT_MS_MAX), response).await;
    let (head, _) = answer.map_err(|_| Unanswered::Unknown)?.map_err(|error| unanswered(&error))?.into_parts();
    Ok((head.status.as_u16(), head.headers))
}

/// Source: RFC 9113 §8.7 (a stream above the last one of a GOAWAY, or reset as refused, was not processed).
fn unanswered(error: &h2::Error) -> Unanswered {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && (error.is_go_away() || is_refused) { Unanswered::NotProcessed } else { Unanswered::Unknown }
}
