//! The stack `tls/tcp/ip`, always verified: there is no way to turn that off.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits::TCP_USER_TIMEOUT_MS;
use crate::transport::properties::{SecurityParameters, Trust};

/// TLS sessions remembered for resumption, in memory only.
const RESUMPTION_COUNT_MAX: usize = 4;

/// TCP and TLS with fixed security parameters.
#[derive(Clone)]
pub struct TcpTls {
    config: Arc<ClientConfig>,
}

/// The wall clock, never before a time that is known to have passed: boards without a clock boot in 1970.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    floor_s: Arc<AtomicU64>,
}

/// Why the trust anchors cannot be used.
#[derive(Debug)]
pub enum TrustError {
    /// The file cannot be read.
    Unreadable(PathBuf, String),
    /// The file holds no certificate.
    Empty(PathBuf),
    /// The operating system has no certification authorities.
    NoSystemRoots,
}

/// Why a stream could not be made.
#[derive(Debug)]
pub enum StackError {
    /// TCP failed.
    Tcp(io::Error),
    /// TLS failed, or the certificate is not good for the name.
    Tls(io::Error),
    /// The peer did not select the application protocol.
    Protocol,
    /// The host is no name that a certificate can carry.
    Name(InvalidDnsNameError),
}

impl WallClock {
    /// Raises the time below which the clock never reads.
    pub fn raise_floor(&self, time: crate::time::UnixTime) {
        self.floor_s.fetch_max(time.0, Ordering::Relaxed);
    }

    /// Seconds of wall time.
    #[allow(clippy::disallowed_methods)] // the shell is where the clock is read
    pub fn now(&self) -> crate::time::UnixTime {
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let system = system.map_or(0, |since| since.as_secs());
        crate::time::UnixTime(system.max(self.floor_s.load(Ordering::Relaxed)))
    }
}

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now().0)))
    }
}

impl TcpTls {
    /// Prepares the stack: reads the trust anchors once.
    ///
    /// # Errors
    /// [`TrustError`] when there is no trust anchor to verify with.
    pub fn new(security: &SecurityParameters, clock: WallClock) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock))
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(roots(&security.trust)?)
            .with_no_client_auth();
        config.alpn_protocols = security.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(RESUMPTION_COUNT_MAX);
        Ok(Self { config: Arc::new(config) })
    }

    /// The same trust without any session of this one's: a peer cannot tell by them that both are one.
    ///
    /// Source: RFC 9622 §6.2.8 (isolateSession).
    pub fn isolated(&self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::in_memory_sessions(RESUMPTION_COUNT_MAX);
        Self { config: Arc::new(config) }
    }

    /// Connects to one address and verifies that it is `host`.
    ///
    /// # Errors
    /// [`StackError`]; no octet of the application was sent then.
    pub async fn connect(&self, host: &str, address: SocketAddr) -> Result<TlsStream<TcpStream>, StackError> {
        let name = ServerName::try_from(host.to_owned()).map_err(StackError::Name)?;
        let tcp = TcpStream::connect(address).await.map_err(StackError::Tcp)?;
        prepare(&tcp).map_err(StackError::Tcp)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, tcp).await.map_err(StackError::Tls)?;
        if stream.get_ref().1.alpn_protocol().is_none() { Err(StackError::Protocol) } else { Ok(stream) }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let timeout = Duration::from_millis(TCP_USER_TIMEOUT_MS);
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(timeout))
}

fn roots(trust: &Trust) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::File(path) => {
            for certificate in certificates(path)? {
                let unusable = |error: rustls::Error| TrustError::Unreadable(path.clone(), error.to_string());
                store.add(certificate).map_err(unusable)?;
            }
            if store.is_empty() {
                return Err(TrustError::Empty(path.clone()));
            }
        }
        Trust::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TrustError::NoSystemRoots);
            }
        }
    }
    Ok(store)
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// [`TrustError::Unreadable`] when it cannot be read or is no PEM.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unreadable = |error: rustls::pki_types::pem::Error| TrustError::Unreadable(path.to_owned(), error.to_string());
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    certificates.map(|certificate| certificate.map_err(unreadable)).collect()
}

impl fmt::Debug for TcpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpTls(..)")
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: {error}; name a file with certificates in PEM", path.display())
            }
            Self::Empty(path) => {
                write!(f, "{}: holds no certificate; name a file with certificates in PEM", path.display())
            }
            Self::NoSystemRoots => f.write_str(
                "the system has no certification authorities: install ca-certificates, or name a file with them",
            ),
        }
    }
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(error) => {
                write!(f, "TLS failed: {error}")?;
                advice(error).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Protocol => f.write_str("the peer does not speak HTTP/2 (it selected no protocol)"),
            Self::Name(error) => write!(f, "the host cannot be verified: {error}"),
        }
    }
}

impl std::error::Error for TrustError {}
impl std::error::Error for StackError {}

/// What a person can do about a certificate that is not good.
fn advice(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let Some(rustls::Error::InvalidCertificate(reason)) = error.get_ref()?.downcast_ref() else { return None };
    Some(match reason {
        // Two authorities of one name: the one that is trusted here did not sign.
        UnknownIssuer | BadSignature => "name its certification authority with ca_file or --ca",
        Expired | ExpiredContext { .. } => "renew it, or set the clock of this machine",
        NotValidYet | NotValidYetContext { .. } => "set the clock of this machine",
        NotValidForName | NotValidForNameContext { .. } => "use a name that the certificate is for",
        // Damaged, revoked, for another purpose: the service has to mend it.
        _ => "the service needs another certificate",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_reads_before_its_floor() {
        let clock = WallClock::default();
        let far = crate::time::UnixTime(5_000_000_000);
        clock.raise_floor(far);
        clock.raise_floor(crate::time::UnixTime(1));
        assert_eq!(clock.now(), far);
    }

    /// C-59: without a trust anchor there is no stack.
    #[test]
    fn a_file_without_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let security = SecurityParameters { trust: Trust::File(file.path().into()), protocols: vec!["h2"] };
        assert!(matches!(TcpTls::new(&security, WallClock::default()), Err(TrustError::Empty(_))));
        let missing = SecurityParameters { trust: Trust::File("/nonexistent/ca.pem".into()), ..security };
        assert!(matches!(TcpTls::new(&missing, WallClock::default()), Err(TrustError::Unreadable(..))));
    }
}
