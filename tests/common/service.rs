//! A push service on loopback with its own certificate authority, and clients for it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fieldgate::service::retention::Policy;
use fieldgate::service::{Running, Service, ServiceOptions};
use fieldgate::webpush::link;
use h2::client::{PushPromises, ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far longer than anything takes, so that a test that waits in vain ends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A service under test, with its state in a folder of its own.
pub struct Rig {
    pub running: Running,
    pub folder: tempfile::TempDir,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder")).await
    }

    pub async fn start_in(folder: tempfile::TempDir) -> Self {
        Self::start_as(folder, Policy::default()).await
    }

    pub async fn with_policy(policy: Policy) -> Self {
        Self::start_as(tempfile::tempdir().expect("a temporary folder"), policy).await
    }

    async fn start_as(folder: tempfile::TempDir, policy: Policy) -> Self {
        Self::start_with(folder, |options| options.policy = policy).await
    }

    /// A service that is told more than its defaults.
    pub async fn with(change: impl FnOnce(&mut ServiceOptions)) -> Self {
        Self::start_with(tempfile::tempdir().expect("a temporary folder"), change).await
    }

    async fn start_with(folder: tempfile::TempDir, change: impl FnOnce(&mut ServiceOptions)) -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let mut options = ServiceOptions::new(address, folder.path().join("state"));
        change(&mut options);
        let running = Service::start(options).await.expect("the service starts");
        Self { running, folder }
    }

    pub async fn restart(self) -> Self {
        self.running.stop().await;
        Self::start_in(self.folder).await
    }

    pub fn authority(&self) -> String {
        self.running.address.to_string()
    }

    pub async fn tls(&self, alpn: &[&str]) -> TlsStream<TcpStream> {
        tls(self.running.address, &self.running.ca_file, alpn).await.expect("it listens, with a good certificate")
    }

    /// A client of the usual kind.
    pub async fn client(&self) -> Client {
        self.client_with(h2::client::Builder::new().max_concurrent_streams(16)).await
    }

    pub async fn client_with(&self, builder: &h2::client::Builder) -> Client {
        Client::over(self.tls(&["h2"]).await, self.running.address, builder).await.expect("HTTP/2")
    }
}

/// Connects to a service; none if it goes away meanwhile.
async fn tls(address: SocketAddr, ca_file: &Path, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(client_config(ca_file, alpn)));
    connector.connect(ServerName::from(address.ip()), stream).await
}

pub fn client_config(ca_file: &Path, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("a certificate")).expect("a usable one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Paths of a subscription.
#[derive(Clone, Debug)]
pub struct Subscribed {
    pub subscription: String,
    pub push: String,
    pub set: String,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).expect("the field is there").to_str().expect("it is text")
    }
}

#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    pub origin: String,
}

impl Client {
    async fn over(stream: TlsStream<TcpStream>, address: SocketAddr, builder: &h2::client::Builder) -> Option<Self> {
        let (send, connection) = builder.handshake(stream).await.ok()?;
        // How a connection ends is seen by those who use it.
        spawn_local(async move { connection.await.ok() });
        Some(Self { send, origin: format!("https://{address}") })
    }

    /// A client of a service that may go away at any time.
    pub async fn connect(address: SocketAddr, ca_file: &Path) -> Option<Self> {
        let stream = tls(address, ca_file, &["h2"]).await.ok()?;
        Self::over(stream, address, h2::client::Builder::new().max_concurrent_streams(16)).await
    }

    /// A request without pieces; none if the service goes away meanwhile.
    pub async fn try_request(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let request = self.head(method, path, fields);
        let mut send = self.send.clone().ready().await.ok()?;
        let (response, mut stream) = send.send_request(request, body.is_empty()).ok()?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true).ok()?;
        }
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").ok()?;
        Some(whole(response).await)
    }

    fn head(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    pub async fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let pieces = if body.is_empty() { vec![] } else { vec![Bytes::copy_from_slice(body)] };
        self.request_in_pieces(method, path, fields, pieces).await
    }

    pub async fn request_in_pieces(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        pieces: Vec<Bytes>,
    ) -> Answer {
        let request = self.head(method, path, fields);
        let mut send = self.send.clone().ready().await.expect("the connection is there");
        let (response, mut body) = send.send_request(request, pieces.is_empty()).expect("it is sent");
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            // A refusal may come before all is sent.
            if body.send_data(piece, index + 1 == count).is_err() {
                break;
            }
        }
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
        whole(response).await
    }

    pub async fn subscribe(&mut self, set: Option<&str>) -> Subscribed {
        let link = set.map(|set| link::value(set, link::SET).to_str().expect("text").to_owned());
        let fields: Vec<(&str, &str)> = link.iter().map(|link| ("link", link.as_str())).collect();
        let answer = self.request("POST", "/subscribe", &fields, b"").await;
        assert_eq!(answer.status, 201);
        let base: Uri = format!("{}/subscribe", self.origin).parse().expect("a URI");
        let linked = |relation| {
            let target = link::find(&answer.fields, relation, &base).expect("the link is there").expect("and good");
            target.path().to_owned()
        };
        let subscription = link::resolve(&base, answer.field("location")).expect("a URI").path().to_owned();
        Subscribed { subscription, push: linked(link::PUSH), set: linked(link::SET) }
    }

    /// Sends a message and returns its path.
    pub async fn message(&mut self, push: &str, ttl: &str, body: &[u8]) -> String {
        let answer = self.request("POST", push, &[("ttl", ttl)], body).await;
        assert_eq!(answer.status, 201);
        answer.field("location").to_owned()
    }

    pub async fn acknowledge(&mut self, message: &str) -> StatusCode {
        self.request("DELETE", message, &[], b"").await.status
    }

    pub fn monitor(&mut self, path: &str, prefer: Option<&str>) -> Monitor {
        let fields: Vec<(&str, &str)> = prefer.iter().map(|prefer| ("prefer", *prefer)).collect();
        self.monitor_with(path, &fields)
    }

    pub fn monitor_with(&mut self, path: &str, fields: &[(&str, &str)]) -> Monitor {
        let request = self.head("GET", path, fields);
        let (mut response, _) = self.send.send_request(request, true).expect("it is sent");
        let promises = response.push_promises();
        Monitor { response, promises }
    }
}

/// A push, whole.
#[derive(Debug)]
pub struct Pushed {
    pub promise: Request<()>,
    pub answer: Answer,
}

impl Pushed {
    pub fn path(&self) -> &str {
        self.promise.uri().path()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.answer.body).into_owned()
    }
}

pub struct Monitor {
    response: ResponseFuture,
    promises: PushPromises,
}

impl Monitor {
    /// The next promise, its message still to come.
    pub async fn promise(&mut self) -> h2::client::PushPromise {
        let promise = tokio::time::timeout(PATIENCE, self.promises.push_promise()).await.expect("in time");
        promise.expect("the request is open").expect("and the connection")
    }

    pub async fn next(&mut self) -> Pushed {
        let (promise, response) = self.promise().await.into_parts();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("a message");
        let (head, body) = response.into_parts();
        Pushed { promise, answer: whole(Response::from_parts(head, body)).await }
    }

    /// The next push; none when the request has ended or the service goes away.
    pub async fn try_next(&mut self) -> Option<Pushed> {
        // The library does not wake who waits for a promise when the connection ends.
        let promise = tokio::select! { biased;
            promise = self.promises.push_promise() => promise,
            _ = &mut self.response => None,
        };
        let (promise, response) = promise?.ok()?.into_parts();
        let (head, body) = response.await.ok()?.into_parts();
        Some(Pushed { promise, answer: whole(Response::from_parts(head, body)).await })
    }

    /// How the request ends, with the pushes that came before.
    pub async fn finish(mut self) -> (StatusCode, Vec<Pushed>) {
        let response = tokio::time::timeout(PATIENCE, &mut self.response).await.expect("in time").expect("an answer");
        let mut pushes = Vec::new();
        while let Some(promise) = tokio::time::timeout(PATIENCE, self.promises.push_promise()).await.expect("in time") {
            let (promise, response) = promise.expect("the connection is there").into_parts();
            pushes.push(Pushed { promise, answer: whole(response.await.expect("a message")).await });
        }
        let status = response.status();
        assert!(whole(response).await.body.is_empty());
        (status, pushes)
    }

    /// How the request ends, when pushes are of no interest.
    pub async fn end(self) -> StatusCode {
        self.finish().await.0
    }
}

async fn whole(response: Response<h2::RecvStream>) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut octets = Vec::new();
    while let Some(chunk) = body.data().await {
        // After a refusal the rest of the request is cut off, and so may be what was left of the answer.
        let Ok(chunk) = chunk else { break };
        octets.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).expect("it was received");
    }
    Answer { status: head.status, fields: head.headers, body: octets.into() }
}
