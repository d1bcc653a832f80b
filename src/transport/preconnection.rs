//! A potential connection: everything needed to establish it, as often as it takes (RFC 9622 §6).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::candidate;
use super::certificate::Validity;
use super::endpoint::RemoteEndpoint;
use super::stack::tcp_tls::{self, StackError, TcpTls};
use super::{Application, HandshakeError};
use crate::limits::{CONNECT_WAIT_MS_MAX, RESOLVE_WAIT_MS_MAX};

/// A potential connection over TLS.
#[derive(Debug)]
pub struct Preconnection<A> {
    remote: RemoteEndpoint,
    /// Where the peer is said to be as well.
    place: Option<RemoteEndpoint>,
    stack: TcpTls,
    application: A,
}

/// Who answered.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    /// When its certificate is valid.
    pub validity: Option<Validity>,
}

/// Why no connection could be established (RFC 9622 §7.1, EstablishmentError).
#[derive(Debug)]
pub enum EstablishmentError {
    /// The name could not be resolved.
    Resolution(RemoteEndpoint, io::Error),
    /// The name has no address.
    NoAddress(RemoteEndpoint),
    /// Every candidate failed; the last one like this.
    Candidate(SocketAddr, CandidateError),
}

/// Why one candidate failed.
#[derive(Debug)]
pub enum CandidateError {
    /// It took longer than [`CONNECT_WAIT_MS_MAX`].
    Timeout,
    /// TCP or TLS failed.
    Stack(StackError),
    /// The application's handshake failed.
    Application(HandshakeError),
}

impl<A: Application> Preconnection<A> {
    /// Describes a connection; nothing is resolved or opened yet.
    pub fn new(remote: RemoteEndpoint, stack: TcpTls, application: A) -> Self {
        Self { remote, place: None, stack, application }
    }

    /// Goes to another place for the same peer, which has to prove that it is that peer.
    ///
    /// Source: RFC 7838 §2.1.
    #[must_use]
    pub fn at(mut self, place: RemoteEndpoint) -> Self {
        self.place = Some(place);
        self
    }

    /// The peer.
    pub fn remote(&self) -> &RemoteEndpoint {
        &self.remote
    }

    /// Establishes a connection: tries one candidate after another until one has done all its handshakes.
    ///
    /// # Errors
    /// [`EstablishmentError`], with the reason of the last candidate.
    pub async fn initiate(&self) -> Result<(A::Session, Peer), EstablishmentError> {
        let candidates = candidate::gather(self.resolve().await?);
        let mut failure = EstablishmentError::NoAddress(self.place().clone());
        for address in candidates {
            match timeout(Duration::from_millis(CONNECT_WAIT_MS_MAX), self.attempt(address)).await {
                Ok(Ok((session, validity))) => return Ok((session, Peer { address, validity })),
                Ok(Err(error)) => failure = EstablishmentError::Candidate(address, error),
                Err(_) => failure = EstablishmentError::Candidate(address, CandidateError::Timeout),
            }
        }
        Err(failure)
    }

    fn place(&self) -> &RemoteEndpoint {
        self.place.as_ref().unwrap_or(&self.remote)
    }

    async fn attempt(&self, address: SocketAddr) -> Result<(A::Session, Option<Validity>), CandidateError> {
        let stream = self.stack.connect(&self.remote.host, address).await.map_err(CandidateError::Stack)?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let validity = tcp_tls::validity(&stream);
        let session = self.application.establish(stream, protocol.as_deref()).await;
        Ok((session.map_err(CandidateError::Application)?, validity))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, EstablishmentError> {
        let place = self.place();
        if let Ok(literal) = place.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, place.port)]);
        }
        let lookup = tokio::net::lookup_host((place.host.as_str(), place.port));
        let failed = |error| EstablishmentError::Resolution(place.clone(), error);
        match timeout(Duration::from_millis(RESOLVE_WAIT_MS_MAX), lookup).await {
            Ok(addresses) => Ok(addresses.map_err(failed)?.collect()),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl fmt::Display for EstablishmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolution(remote, error) => write!(f, "{remote}: the name cannot be resolved: {error}"),
            Self::NoAddress(remote) => write!(f, "{remote}: the name has no address"),
            Self::Candidate(address, error) => write!(f, "{address}: {error}"),
        }
    }
}

impl fmt::Display for CandidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => write!(f, "no connection within {} s", CONNECT_WAIT_MS_MAX / 1_000),
            Self::Stack(error) => error.fmt(f),
            Self::Application(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EstablishmentError {}
