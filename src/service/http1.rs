//! HTTP/1.1 connections: most libraries of application servers speak it, and it is enough for all but receiving.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::limits::{SERVICE_BODY_MS_MAX, SERVICE_DRAIN_BYTES_MAX, SERVICE_HEADER_LIST_BYTES_MAX, SERVICE_IDLE_MS};
use crate::time::Duration;

use super::gate::Client;
use super::hub::{BodyError, Hub};
use super::routes::PushSupport;

/// Serves one connection until it ends or the service stops.
pub(super) async fn serve<T>(io: T, peer: IpAddr, hub: Rc<Hub>, mut stop: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(SERVICE_IDLE_MS))
        .max_buf_size(SERVICE_HEADER_LIST_BYTES_MAX as usize);
    let client = Client::default();
    let service = service_fn(|request| respond(request, &hub, peer, &client));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.wait_for(|stop| *stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP/1.1 connection ended");
    }
}

/// An error closes the connection; it is returned when the client broke off.
async fn respond(
    request: Request<Incoming>,
    hub: &Rc<Hub>,
    peer: IpAddr,
    client: &Client,
) -> Result<Response<Full<Bytes>>, BrokenOff> {
    let (head, mut body) = request.into_parts();
    let (route, claim) = hub.route(&head, PushSupport::None, client);
    let mut response = hub.perform(route, read(&mut body, hub.rules().message_bytes_max)).await.ok_or(BrokenOff)?;
    // Who waits to be told to go on has sent nothing, and need not.
    if !head.headers.contains_key(EXPECT) {
        drain(&mut body).await;
    }
    hub.slow_down(&response, peer).await;
    if response.status().is_success() {
        claim.keep();
    }
    hub.sign(response.headers_mut());
    Ok(response.map(Full::new))
}

async fn read(body: &mut Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    let collected = Limited::new(body, bytes_max).collect();
    let deadline = Duration::from_millis(SERVICE_BODY_MS_MAX);
    match tokio::time::timeout(deadline, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::TooSlow),
    }
}

/// Takes what is left of a request before it is answered, within bounds: a connection that is closed with octets unread is
/// reset, and the answer may be lost with it (RFC 9112 §9.6).
async fn drain(body: &mut Incoming) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > SERVICE_DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    if tokio::time::timeout(Duration::from_millis(SERVICE_BODY_MS_MAX), rest).await.is_err() {
        tracing::debug!("a request that is refused goes on too long");
    }
}

/// The client broke off in the middle of a request.
#[derive(Debug)]
struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client broke off in the middle of a request")
    }
}

impl std::error::Error for BrokenOff {}
