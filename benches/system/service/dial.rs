//! TLS connections to a server on the loopback address.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use fieldgate::transport::trust::certificates;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom to connect to, and whom to trust.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    config: ClientConfig,
}

impl Server {
    pub fn new(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca).expect("it was just made") {
            roots.add(certificate).expect("it was just made");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("both versions").with_root_certificates(roots).with_no_client_auth();
        // Many agents are played, and none has been here before.
        config.resumption = Resumption::disabled();
        Self { address, config }
    }

    pub async fn connect(&self, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(self.address.ip()), tcp).await
    }
}
