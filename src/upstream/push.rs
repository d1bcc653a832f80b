//! Monitoring requests, and the promises that come on them.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{PushPromise, PushPromises, ResponseFuture};
use http::Request;
use tokio::time::timeout;
use tracing::warn;

use super::{Report, Requester};
use crate::limits::{PUSH_BODY_BYTES_MAX, PUSH_BODY_WAIT_MS_MAX};
use crate::proto::Input;
use crate::proto::delivery::SlotId;
use crate::webpush::exchange::{ContentError, Next, Target, push_link};
use crate::webpush::headers;

/// Keeps a monitoring request open and reports each promise on it, then its end.
///
/// The response and its body are read beside the promises: the end of the request does not wake who waits for a
/// promise.
pub(super) async fn monitor(
    requester: Requester,
    request: Request<()>,
    target: Target,
    ended: impl FnOnce(Next) -> Input,
) {
    let next = match open(&requester, request).await {
        Ok((response, promises)) => watch(&requester, response, promises, target).await,
        Err(_) => None,
    };
    // A request that failed without an answer fails with its connection, or may be tried again on it.
    if next == Some(Next::Ended) {
        warn!("the push service no longer knows what was monitored; application servers need the new subscriptions");
    }
    requester.reporter.report(Report::Input(ended(next.unwrap_or(Next::Backoff(None))))).await;
}

async fn open(requester: &Requester, request: Request<()>) -> Result<(ResponseFuture, PushPromises), h2::Error> {
    let mut requests = super::request::ready(requester).await?;
    let (mut response, _) = requester.send(&mut requests, request, true)?;
    let promises = response.push_promises();
    Ok((response, promises))
}

async fn watch(
    requester: &Requester,
    mut response: ResponseFuture,
    mut promises: PushPromises,
    target: Target,
) -> Option<Next> {
    let mut next = None;
    let mut body: Option<RecvStream> = None;
    let mut promising = true;
    loop {
        tokio::select! {
            // Promises first: all of them precede the end of the request.
            biased;
            promise = promises.push_promise(), if promising => match promise {
                Some(Ok(promise)) => requester.reporter.report(Report::Promised(target.clone(), promise)).await,
                // No more of them; how the request ended is still to be read.
                Some(Err(_)) | None => promising = false,
            },
            head = &mut response, if next.is_none() => {
                let head = head.ok()?;
                if requester.read_route(head.status(), head.headers()).await.is_err() {
                    return Some(Next::Again);
                }
                let status = head.status().as_u16();
                next = Some(requester.dialect.end_of_monitor(status, head.headers(), requester.clock.now()));
                let stream = head.into_body();
                if stream.is_end_stream() {
                    return next;
                }
                body = Some(stream);
            }
            chunk = chunk(&mut body), if body.is_some() => {
                if chunk.is_none() {
                    return next;
                }
            }
        }
    }
}

/// Takes the next piece of a body and returns its credit.
async fn chunk(body: &mut Option<RecvStream>) -> Option<Bytes> {
    let body = body.as_mut()?;
    let data = body.data().await?.ok()?;
    body.flow_control().release_capacity(data.len()).ok()?;
    Some(data)
}

/// Takes in an admitted promise: head, then content within bounds of size and time.
pub(super) async fn receive(requester: Requester, promise: PushPromise, slot: SlotId, unrouted: bool) {
    let (wait, connection) = (Duration::from_millis(PUSH_BODY_WAIT_MS_MAX), requester.reporter.connection);
    let content = timeout(wait, content(&requester, promise, slot, unrouted)).await.unwrap_or(Err(None));
    let input = content.unwrap_or_else(|content| Input::PushFailed { connection, slot, content });
    requester.reporter.report(Report::Input(input)).await;
}

async fn content(
    requester: &Requester,
    promise: PushPromise,
    slot: SlotId,
    unrouted: bool,
) -> Result<Input, Option<ContentError>> {
    let (request, response) = promise.into_parts();
    let response = response.await.map_err(|_| None)?;
    let (head, stream) = response.into_parts();
    requester.read_date(&head.headers).await;
    requester.dialect.content(head.status.as_u16(), &head.headers)?;
    let send = push_link(&head.headers, request.uri());
    if unrouted && send.is_none() {
        return Err(None);
    }
    let mut body = Vec::new();
    let mut stream = Some(stream);
    while let Some(data) = chunk(&mut stream).await {
        if body.len() + data.len() > PUSH_BODY_BYTES_MAX {
            return Err(Some(ContentError::TooLarge));
        }
        body.extend_from_slice(&data);
    }
    // A stream that was reset has no end: what came of it is not the message.
    stream.ok_or(None)?.trailers().await.map_err(|_| None)?;
    let connection = requester.reporter.connection;
    let (max_age, age) = (headers::max_age(&head.headers), headers::stored_for(&head.headers));
    Ok(Input::Pushed { connection, slot, send, body, max_age, age })
}
