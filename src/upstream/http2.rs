//! HTTP/2 with server push as a user agent needs it (RFC 9113).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::PingPong;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::wire::{Sightings, Wire};
use super::{Report, Reporter};
use crate::limits::{CLOSE_WAIT_MS_MAX, HEADER_LIST_BYTES_MAX, PROMISED_STREAMS_MAX};
use crate::proto::Input;
use crate::transport::{Application, HandshakeError, describe};
use crate::webpush::resource::PushServiceUri;

/// Unread octets of one promise; of all together HTTP/2's own 65,535.
const STREAM_WINDOW_BYTES: u32 = 16_384;
/// Room for the link of each subscription in the peer's compression state: 4,096 hold only about 34 of them.
const HEADER_TABLE_BYTES: u32 = 16_384;
/// How long frames of a refused promise may still come: longer than a bad radio link delays them.
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// The application protocol of the gateway, on connections to one origin.
#[derive(Debug)]
pub struct Http2 {
    service: PushServiceUri,
}

impl Http2 {
    /// For connections to the origin of `service`.
    pub fn new(service: PushServiceUri) -> Self {
        Self { service }
    }
}

/// A connection that is ready for requests.
pub struct Session {
    pub(super) requests: SendRequest<Bytes>,
    pub(super) connection: Driver,
    pub(super) ping: PingPong,
    pub(super) sightings: Rc<Sightings>,
}

/// The part of a connection that reads and writes, once its stream's type no longer matters.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = Result<(), h2::Error>>>>;

impl Application for Http2 {
    type Session = Session;

    async fn establish<S>(&self, stream: S, _: Option<&[u8]>) -> Result<Session, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let failed = |error: h2::Error| HandshakeError(format!("HTTP/2 failed: {}", describe(&error)));
        let sightings = Rc::new(Sightings::of(self.service.clone()));
        let stream = Wire::new(stream, Rc::clone(&sightings));
        let (requests, mut connection) = builder().handshake::<_, Bytes>(stream).await.map_err(failed)?;
        let mut ping = connection.ping_pong().expect("it is taken for the first time");
        let mut connection: Driver = Box::pin(drive_stream(connection));
        // The library does not wait for the peer's preface; an answer shows that it is there, and its settings known.
        tokio::select! {
            answer = ping.ping(h2::Ping::opaque()) => answer.map(drop).map_err(failed)?,
            ended = &mut connection => {
                ended.map_err(failed)?;
                return Err(HandshakeError("HTTP/2 failed: closed by the service".to_owned()));
            }
        }
        Ok(Session { requests, connection, ping, sightings })
    }
}

async fn drive_stream<S: AsyncRead + AsyncWrite + Unpin>(connection: Connection<S, Bytes>) -> Result<(), h2::Error> {
    connection.await
}

/// Push on, promises bounded, and the counters off that only grow during the life of a connection.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(true)
        .max_concurrent_streams(PROMISED_STREAMS_MAX as u32)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .header_table_size(HEADER_TABLE_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(16_384)
        .max_concurrent_reset_streams(64)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(100_000))
        .max_pending_accept_reset_streams(usize::MAX)
        .data_frame_budget(1 << 20);
    builder
}

/// Drives a connection until it ends, and reports that. One that is to end in order has some time for it.
pub(super) async fn drive(reporter: Reporter, mut connection: Driver, closing: Rc<Notify>) {
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.notified() => {
            let wait = Duration::from_millis(CLOSE_WAIT_MS_MAX);
            timeout(wait, &mut connection).await.unwrap_or(Ok(()))
        }
    };
    let reason = match ended {
        Ok(()) => "closed".to_owned(),
        Err(error) => describe(&error),
    };
    // Closed before it is reported, so that what replaces it never stands beside it for longer than it must.
    drop(connection);
    reporter.report(Report::Closed(reason)).await;
}

/// Tests a connection each time that is asked for, and reports the answer.
pub(super) async fn test(reporter: Reporter, mut ping: PingPong, asked: Rc<Notify>) {
    loop {
        asked.notified().await;
        if ping.ping(h2::Ping::opaque()).await.is_err() {
            // The end of the connection is reported by who drives it.
            return;
        }
        let connection = reporter.connection;
        reporter.report(Report::Input(Input::Pong { connection })).await;
    }
}

/// Reports how many requests the service allows when that changes, where else it says that it can be reached, and at last
/// that it lets the connection go.
pub(super) async fn watch(reporter: Reporter, requests: SendRequest<Bytes>, sightings: Rc<Sightings>) {
    let (connection, mut streams_max) = (reporter.connection, requests.current_max_send_streams());
    loop {
        tokio::select! {
            // Where to go comes before that it is time to go.
            biased;
            announcement = sightings.announcement() => {
                reporter.report(Report::Input(Input::Alternatives { connection, announcement })).await;
            }
            () = sightings.going_away() => break,
            () = sightings.settings() => {
                let now = requests.current_max_send_streams();
                if std::mem::replace(&mut streams_max, now) != now {
                    reporter.report(Report::Input(Input::RequestsMax { connection, streams_max })).await;
                }
            }
        }
    }
    // A connection whose handles are all dropped ends: this one must not keep it.
    drop(requests);
    reporter.report(Report::GoingAway).await;
}
