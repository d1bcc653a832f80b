//! Listener: yields the connections of devices that attach (RFC 9622 §7.2).
//!
//! A serial port yields one when it can be opened, which is when the device is plugged in; a socket yields one for each
//! device that connects. Nothing is opened before the first [`accept`](Listener::accept), so a port that is not there
//! yet is an error of that call, and calling again later is all there is to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::endpoint::LinkEndpoint;
use super::stack::LinkConnection;
use super::stack::memory::Socket;
use super::stack::serial;
use super::stack::socket::{BoundTcp, BoundUnix};

/// Yields connections from one endpoint.
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    Serial { path: PathBuf, baud: u32 },
    Unix { path: PathBuf, bound: Option<BoundUnix> },
    Tcp { address: SocketAddr, bound: Option<BoundTcp> },
    Memory(Socket),
}

/// Why no connection was established (RFC 9622 §7): the operating system's reason and what it is about.
#[derive(Debug)]
pub struct EstablishmentError {
    place: String,
    error: io::Error,
}

impl Listener {
    /// A listener at an endpoint; nothing is opened yet.
    pub fn new(endpoint: LinkEndpoint) -> Self {
        Self(match endpoint {
            LinkEndpoint::Serial { path, baud } => Source::Serial { path, baud },
            LinkEndpoint::Unix { path } => Source::Unix { path, bound: None },
            LinkEndpoint::Tcp(address) => Source::Tcp { address, bound: None },
        })
    }

    /// A listener for connections within the process.
    pub fn memory(socket: Socket) -> Self {
        Self(Source::Memory(socket))
    }

    /// Whether a newer connection can come while one is established, and replaces it.
    pub fn yields_more(&self) -> bool {
        !matches!(self.0, Source::Serial { .. })
    }

    /// Yields the next connection. Cancel safe: a connection that was not yielded stays with the operating system.
    ///
    /// # Errors
    /// [`EstablishmentError`]; the call may be repeated after a pause.
    pub async fn accept(&mut self) -> Result<LinkConnection, EstablishmentError> {
        let accepted = match &mut self.0 {
            Source::Serial { path, baud } => serial::open(path, *baud).map(|port| Box::new(port) as LinkConnection),
            Source::Unix { path, bound } => accept_unix(path, bound).await,
            Source::Tcp { address, bound } => accept_tcp(*address, bound).await,
            Source::Memory(socket) => match socket.accept().await {
                Some(stream) => Ok(Box::new(stream) as LinkConnection),
                None => std::future::pending().await,
            },
        };
        accepted.map_err(|error| EstablishmentError { place: self.to_string(), error })
    }
}

async fn accept_unix(path: &std::path::Path, bound: &mut Option<BoundUnix>) -> io::Result<LinkConnection> {
    let bound = match bound {
        Some(bound) => bound,
        // Boxed, so that the memory it needs is there only while it is being made.
        None => bound.insert(Box::pin(BoundUnix::bind(path)).await?),
    };
    bound.accept().await.map(|stream| Box::new(stream) as LinkConnection)
}

async fn accept_tcp(address: SocketAddr, bound: &mut Option<BoundTcp>) -> io::Result<LinkConnection> {
    let bound = match bound {
        Some(bound) => bound,
        None => bound.insert(Box::pin(BoundTcp::bind(address)).await?),
    };
    bound.accept().await.map(|stream| Box::new(stream) as LinkConnection)
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Serial { path, .. } | Source::Unix { path, .. } => path.display().fmt(f),
            Source::Tcp { address, .. } => address.fmt(f),
            Source::Memory(_) => f.write_str("memory"),
        }
    }
}

impl fmt::Display for EstablishmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.error)
    }
}

impl std::error::Error for EstablishmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
