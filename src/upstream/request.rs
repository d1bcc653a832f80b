//! Requests with one answer.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::time::timeout;

use super::{Context, Report};
use crate::limits::REQUEST_WAIT_MS_MAX;
use crate::proto::Input;
use crate::proto::subscription::SubscriptionId;
use crate::transport::describe;
use crate::webpush::exchange::Deletion;
use crate::webpush::resource::{PushServiceUri, SetUri};

/// Sends a DELETE and reports what became of it.
pub(super) async fn delete(context: Context, request: Request<()>, answer: impl FnOnce(Deletion) -> Input) {
    match exchange(&context, request).await {
        Some((status, headers)) => {
            let outcome = context.dialect.deleted(status, &headers, context.clock.now());
            context.reporter.heard(Report::Input(answer(outcome))).await;
        }
        None => context.reporter.report(Report::Input(answer(Deletion::Retry(None)))).await,
    }
}

/// Asks for a subscription and reports it.
pub(super) async fn subscribe(
    context: Context,
    service: PushServiceUri,
    set: Option<SetUri>,
    subscription: SubscriptionId,
) {
    let request = context.dialect.subscribe_request(&service, set.as_ref());
    let outcome = exchange(&context, request).await.map(|(status, headers)| {
        context.dialect.parse_subscribed(&service, set.as_ref(), status, &headers, context.clock.now())
    });
    if let Some(Err(error)) = &outcome {
        tracing::warn!("no subscription: {error}");
    }
    let is_answered = outcome.is_some();
    let report = Report::Input(Input::Subscribed { subscription, outcome });
    if is_answered {
        context.reporter.heard(report).await;
    } else {
        context.reporter.report(report).await;
    }
}

/// Waits until a request may be sent. A connection on which none can be sent any more is reported as ended.
pub(super) async fn ready(context: &Context) -> Result<SendRequest<Bytes>, h2::Error> {
    let ready = context.requests.clone().ready().await;
    if let Err(error) = &ready {
        context.reporter.report(Report::Closed(describe(error))).await;
    }
    ready
}

/// One request, one answer without content; none when it did not come in time, counted from when it could be sent.
async fn exchange(context: &Context, request: Request<()>) -> Option<(u16, HeaderMap)> {
    let mut requests = ready(context).await.ok()?;
    let (response, _) = requests.send_request(request, true).ok()?;
    let answer = timeout(Duration::from_millis(REQUEST_WAIT_MS_MAX), response).await.ok()?;
    let (head, _) = answer.ok()?.into_parts();
    Some((head.status.as_u16(), head.headers))
}
