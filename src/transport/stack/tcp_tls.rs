//! The stack `tls/tcp/ip`, always verified: there is no way to turn that off.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{InvalidDnsNameError, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits::TCP_USER_TIMEOUT_MS;
use crate::transport::certificate::Validity;
use crate::transport::clock::WallClock;
use crate::transport::judge::Judge;
use crate::transport::properties::SecurityParameters;
use crate::transport::trust::{self, TrustError};

/// TLS sessions remembered for resumption, in memory only.
const RESUMPTION_COUNT_MAX: usize = 4;

/// TCP and TLS with fixed security parameters.
#[derive(Clone)]
pub struct TcpTls {
    config: Arc<ClientConfig>,
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

/// For what is not about certificates: how old a session is that may be resumed.
impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now().0)))
    }
}

impl TcpTls {
    /// Prepares the stack: reads the trust anchors and revocation lists once.
    ///
    /// # Errors
    /// [`TrustError`] when there is no trust anchor to verify with, or no list where one is named.
    pub fn new(security: &SecurityParameters, clock: WallClock) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = trust::verifier(&security.trust, security.revocations.as_deref(), Arc::clone(&provider))?;
        let judge = Judge::new(verifier, clock.clone());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock))
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            // The library calls each verifier dangerous that is not its own. Ours has the library's decide everything and chooses
            // the time it decides at, which for a board without a clock depends on the chain presented: no setting does that.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge))
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
        // HTTP/1.1 was spoken before protocols were negotiated (RFC 9112, RFC 7301 §3.2).
        let is_optional = self.config.alpn_protocols.iter().any(|protocol| protocol == b"http/1.1");
        if stream.get_ref().1.alpn_protocol().is_none() && !is_optional {
            return Err(StackError::Protocol);
        }
        Ok(stream)
    }
}

/// When the certificate of a verified peer is valid.
pub fn validity(stream: &TlsStream<TcpStream>) -> Option<Validity> {
    Validity::of(stream.get_ref().1.peer_certificates()?.first()?)
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let timeout = Duration::from_millis(TCP_USER_TIMEOUT_MS);
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(timeout))
}

impl fmt::Debug for TcpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpTls(..)")
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

impl std::error::Error for StackError {}

/// What a person can do about a certificate that is not good.
fn advice(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let reason = match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(reason) => reason,
        rustls::Error::InvalidCertRevocationList(_) => {
            return Some("its authority did not sign the list in crl_file or --crl; name another");
        }
        _ => return None,
    };
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
