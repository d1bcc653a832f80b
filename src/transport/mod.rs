//! Transport in the terms of Transport Services (RFC 9621 to 9623), the same for both sides of the gateway.
//!
//! - A [`Preconnection`](preconnection::Preconnection) holds endpoints, properties and the [`Application`], and can be
//!   initiated any number of times. Initiating gathers [candidates](candidate) and tries them one after another; the
//!   first whose handshakes are all done wins.
//! - A [`Listener`](listener::Listener) yields connections from devices that attach.
//! - A [`PathMonitor`](path::PathMonitor) tells when the network has changed.
//! - A [stack] is a composition of protocols: `h2/tls/tcp/ip` upstream; framed serial, Unix or TCP downstream.
//!
//! Whom a stack trusts is read by [trust]; at which time certificates are judged is known to the [clock].
//!
//! `transport` knows no push, no subscription and no device. What runs above a secured stack is given to it as an
//! [`Application`]; where messages begin and end on a device's byte stream is the business of the link protocol.
//!
//! Security never falls back: a candidate that does not meet the security parameters has failed (RFC 9621 §3.3, §6).

pub mod candidate;
pub mod certificate;
pub mod clock;
pub mod credential;
pub mod endpoint;
mod judge;
pub mod listener;
pub mod path;
pub mod preconnection;
pub mod properties;
pub mod stack;
pub mod trust;

use std::fmt;

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};

/// The last handshake before a connection is ready: what the application protocol does on a secured stream.
pub trait Application {
    /// What is usable once the handshake is done.
    type Session;

    /// Does the handshake, in the protocol that was negotiated if one was.
    ///
    /// # Errors
    /// [`HandshakeError`] fails this candidate.
    fn establish<S>(
        &self,
        stream: S,
        protocol: Option<&[u8]>,
    ) -> impl Future<Output = Result<Self::Session, HandshakeError>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static;
}

/// Why the application's handshake failed.
#[derive(Debug)]
pub struct HandshakeError(pub String);

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an HTTP/2 connection failed, without the text that the peer may have sent along: that could be anything.
pub fn describe(error: &h2::Error) -> String {
    match (error.reason(), error.get_io()) {
        (Some(reason), _) => format!("{} ({reason:?})", reason.description()),
        (None, Some(error)) => error.to_string(),
        (None, None) => "the protocol was violated".to_owned(),
    }
}
