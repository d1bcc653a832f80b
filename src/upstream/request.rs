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
use crate::webpush::exchange::Deletion;
use crate::webpush::resource::{PushServiceUri, SetUri};

/// Sends a DELETE and reports what became of it.
pub(super) async fn delete(context: Context, request: Request<()>, answer: impl FnOnce(Deletion) -> Input) {
    let outcome = match exchange(&context, request).await {
        Some((status, headers)) => context.dialect.deleted(status, &headers, context.clock.now()),
        None => Deletion::Retry(None),
    };
    context.reporter.heard(Report::Input(answer(outcome))).await;
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
    context.reporter.heard(Report::Input(Input::Subscribed { subscription, outcome })).await;
}

/// Waits until a request may be sent. A connection on which none can be sent any more is reported as ended.
pub(super) async fn ready(context: &Context) -> Result<SendRequest<Bytes>, h2::Error> {
    let ready = context.requests.clone().ready().await;
    if let Err(error) = &ready {
        context.reporter.report(Report::Closed(error.to_string())).await;
    }
    ready
}

/// One request, one answer without content; none when it did not come in time.
async fn exchange(context: &Context, request: Request<()>) -> Option<(u16, HeaderMap)> {
    let answer = async {
        let mut requests = ready(context).await.ok()?;
        let (response, _) = requests.send_request(request, true).ok()?;
        let (head, _) = response.await.ok()?.into_parts();
        Some((head.status.as_u16(), head.headers))
    };
    timeout(Duration::from_millis(REQUEST_WAIT_MS_MAX), answer).await.ok()?
}
