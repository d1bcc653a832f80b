//! A publisher for the peers: MQTT 3.1.1 with QoS 1 over TLS, as fast as the broker accepts.

use std::sync::Arc;

use fieldgate::transport::trust::certificates;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use std::net::SocketAddr;
use std::path::Path;

/// Messages that wait for their PUBACK at once.
const CONCURRENCY: usize = 64;
const PUBACK_BYTES: usize = 4;

pub struct Publisher(TlsStream<TcpStream>);

impl Publisher {
    pub async fn connect(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca).expect("it was just made") {
            roots.add(certificate).expect("it was just made");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("both versions").with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(address).await.expect("the broker is there");
        tcp.set_nodelay(true).expect("a socket");
        let name = ServerName::from(address.ip());
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
        // CONNECT: protocol MQTT, level 4, clean session, no keep-alive, client "bench".
        stream.write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench").await.expect("it takes it");
        let mut accepted = [0; 4];
        stream.read_exact(&mut accepted).await.expect("CONNACK");
        assert_eq!(accepted, [0x20, 2, 0, 0]);
        Self(stream)
    }

    /// Publishes `count` messages, one topic after the other; done when the broker has taken all.
    pub async fn publish_all(&mut self, topics: &[String], content: &[u8], count: usize) {
        let (mut sent, mut acked, mut octets) = (0, 0, 0);
        let mut buffer = vec![0; CONCURRENCY * PUBACK_BYTES];
        while acked < count {
            while sent < count && sent - acked < CONCURRENCY {
                let packet = publish(&topics[sent % topics.len()], content, sent as u16 % u16::MAX + 1);
                self.0.write_all(&packet).await.expect("the broker is there");
                sent += 1;
            }
            // Nothing but PUBACKs comes here.
            let read = self.0.read(&mut buffer).await.expect("the broker is there");
            assert!(read > 0, "the broker is there");
            octets += read;
            acked = octets / PUBACK_BYTES;
        }
    }
}

fn publish(topic: &str, content: &[u8], id: u16) -> Vec<u8> {
    let mut packet = vec![0x32];
    let mut rest = 2 + topic.len() + 2 + content.len();
    while rest >= 128 {
        packet.push(rest as u8 % 128 + 128);
        rest /= 128;
    }
    packet.push(rest as u8);
    packet.extend((topic.len() as u16).to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(content);
    packet
}
