//! A push service that shares no code with ours: it does what a script says and logs what it is asked.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// What certificate the service shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// One that the authority in its file vouches for.
    Good,
    /// One for another name.
    OtherName,
    /// One whose time is over.
    Expired,
    /// One that is valid from then to then, in seconds since 1970.
    Within(u64, u64),
    /// One that the authority in its file knows nothing of.
    Unknown,
    /// One that its authority has revoked.
    Revoked,
    /// The certificate and key of two files, and the authority of a third, all in PEM.
    Given([&'static str; 3]),
}

/// How the service behaves.
#[derive(Clone, Copy)]
pub struct Script {
    /// Whether it offers sets.
    pub sets: bool,
    /// Requests that it allows at once.
    pub streams: u32,
    /// What it answers a monitoring request without content; none: it stays open.
    pub monitor: Option<u16>,
    /// What it answers a request with `wait=0` without content; none: it stays open.
    pub fetch: Option<u16>,
    /// Whether it says nothing once TLS is done.
    pub silent: bool,
    /// What it says on its first connection instead of HTTP/2, before it closes that.
    pub first: Option<&'static [u8]>,
    /// What it shows of itself.
    pub identity: Identity,
    /// The port to which it sends subscribe requests on.
    pub sends_on_to: Option<u16>,
    /// What time it says it is, in seconds since 1970.
    pub date: Option<u64>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            sets: true,
            streams: 100,
            monitor: None,
            fetch: Some(204),
            silent: false,
            first: None,
            identity: Identity::Good,
            sends_on_to: None,
            date: None,
        }
    }
}

/// The running service.
pub struct PushService {
    /// Where subscriptions are made.
    pub url: String,
    /// The authority that vouches for its certificate.
    pub ca_file: PathBuf,
    /// What its authority has revoked, where it is of that kind.
    pub crl_file: PathBuf,
    log: Rc<RefCell<Vec<String>>>,
    goes: watch::Sender<()>,
    _folder: tempfile::TempDir,
}

impl PushService {
    pub async fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let shown = shown(script.identity);
        let [ca_file, crl_file] = ["ca.pem", "crl.pem"].map(|name| folder.path().join(name));
        std::fs::write(&ca_file, &shown.authority).expect("written");
        std::fs::write(&crl_file, &shown.revoked).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("https://{}/subscribe", listener.local_addr().expect("an address"));
        let log: Rc<RefCell<Vec<String>>> = Rc::default();
        let (goes, _) = watch::channel(());
        spawn_local(accept(listener, acceptor(shown), script, Rc::clone(&log), goes.subscribe()));
        Self { url, ca_file, crl_file, log, goes, _folder: folder }
    }

    /// Lets the connections that are there go, in order: what is open goes on.
    pub fn go_away(&self) {
        self.goes.send_replace(());
    }

    /// How many log lines begin so: a method, a path, a token or `-`, and an urgency if there is one; or `CONTENT`, `RESET`
    /// with the path of a request that stayed open, `CONNECTED`, `CLOSED` or `REFUSED`.
    pub fn count(&self, start: &str) -> usize {
        self.log.borrow().iter().filter(|line| line.starts_with(start)).count()
    }
}

/// A-UA-15: whatever it was asked in a test, no request named more than one urgency.
impl Drop for PushService {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.count(SEVERAL_URGENCIES), 0);
        }
    }
}

const SEVERAL_URGENCIES: &str = "SEVERAL URGENCIES";

/// The urgency that a request names, as it ends a line of the log.
fn urgency<T>(request: &Request<T>, log: &RefCell<Vec<String>>) -> String {
    let lines: Vec<_> = request.headers().get_all("urgency").iter().collect();
    if lines.len() > 1 || lines.iter().any(|line| line.as_bytes().contains(&b',')) {
        log.borrow_mut().push(SEVERAL_URGENCIES.to_owned());
    }
    lines.first().map_or(String::new(), |line| format!(" {}", line.to_str().expect("text")))
}

/// What a service shows of itself, and whom its users trust.
struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// PEM.
    authority: String,
    /// A revocation list in PEM, or nothing.
    revoked: String,
}

fn shown(identity: Identity) -> Shown {
    match identity {
        Identity::Revoked => revoked(),
        Identity::Given([certificate, key, authority]) => Shown {
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate"),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
            authority: authority.to_owned(),
            revoked: String::new(),
        },
        Identity::Good | Identity::OtherName | Identity::Expired | Identity::Within(..) | Identity::Unknown => {
            vouching_for_itself(identity)
        }
    }
}

fn vouching_for_itself(identity: Identity) -> Shown {
    let mut params = params(if identity == Identity::OtherName { "other.example" } else { "127.0.0.1" });
    if identity == Identity::Expired {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    if let Identity::Within(since, until) = identity {
        let date = |secs| std::time::UNIX_EPOCH + Duration::from_secs(secs);
        (params.not_before, params.not_after) = (date(since).into(), date(until).into());
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let authority = if identity == Identity::Unknown {
        vouching_for_itself(Identity::OtherName).authority
    } else {
        certificate.pem()
    };
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Shown { certificate: certificate.der().clone(), key, authority, revoked: String::new() }
}

/// A certificate that is good but for the list of its authority.
fn revoked() -> Shown {
    let (mut ca, mut leaf) = (params("authority.example"), params("127.0.0.1"));
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    leaf.serial_number = Some(7_u64.into());
    let [ca_key, key] = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
    let authority = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate").der().clone();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        // Long over: a list counts until there is another.
        next_update: rcgen::date_time_ymd(2024, 2, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: 7_u64.into(),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let revoked = list.signed_by(&issuer).expect("a list").pem().expect("PEM");
    Shown { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), authority, revoked }
}

fn params(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

/// The TLS of a service whose authority is in a file.
pub fn good_acceptor(ca_file: &Path) -> TlsAcceptor {
    let shown = shown(Identity::Good);
    std::fs::write(ca_file, &shown.authority).expect("written");
    acceptor(shown)
}

fn acceptor(shown: Shown) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("TLS 1.2 and 1.3").with_no_client_auth();
    let mut config = config.with_single_cert(vec![shown.certificate], shown.key).expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    script: Script,
    log: Rc<RefCell<Vec<String>>>,
    mut goes: watch::Receiver<()>,
) {
    let subscriptions = Rc::new(Cell::new(0));
    while let Ok((tcp, _)) = listener.accept().await {
        goes.mark_unchanged();
        spawn_local(serve(tcp, acceptor.clone(), script, Rc::clone(&log), Rc::clone(&subscriptions), goes.clone()));
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    script: Script,
    log: Rc<RefCell<Vec<String>>>,
    subscriptions: Rc<Cell<u32>>,
    mut goes: watch::Receiver<()>,
) {
    let Ok(mut tls) = acceptor.accept(tcp).await else { return log.borrow_mut().push("REFUSED".to_owned()) };
    let is_first = !log.borrow().contains(&"CONNECTED".to_owned());
    log.borrow_mut().push("CONNECTED".to_owned());
    if let Some(octets) = script.first.filter(|_| is_first) {
        // The other side may have heard enough before all is said.
        return drop(tls.write_all(octets).await.and(tls.shutdown().await));
    }
    if script.silent {
        sleep(Duration::from_secs(3_600)).await;
        return drop(tls);
    }
    let mut builder = h2::server::Builder::new();
    let Ok(mut connection) = builder.max_concurrent_streams(script.streams).handshake::<_, Bytes>(tls).await else {
        return;
    };
    loop {
        let (request, mut respond) = tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                _ => break,
            },
            Ok(()) = goes.changed() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let token = request.headers().get("authorization").map(|value| value.to_str().expect("text"));
        let (path, urgency) = (request.uri().path().to_owned(), urgency(&request, &log));
        log.borrow_mut().push(format!("{} {path} {}{urgency}", request.method(), token.unwrap_or("-")));
        match *request.method() {
            Method::POST => {
                if !request.body().is_end_stream() {
                    let media_type = request.headers().get("content-type").cloned();
                    spawn_local(note_content(request.into_body(), media_type, Rc::clone(&log)));
                }
                let number = subscriptions.replace(subscriptions.get() + 1);
                let response = match script.sends_on_to {
                    Some(port) => sent_on(port),
                    None => subscribed(number, script.sets),
                };
                answer(&mut respond, script.dated(response));
            }
            Method::GET => match script.answer(&request) {
                Some(status) => answer(&mut respond, script.dated(Response::builder().status(status))),
                None => drop(spawn_local(stay_open(respond, path, Rc::clone(&log)))),
            },
            _ => answer(&mut respond, script.dated(Response::builder().status(204))),
        }
    }
    log.borrow_mut().push("CLOSED".to_owned());
}

/// Leaves a request without an answer, and logs if it is reset.
async fn stay_open(mut respond: SendResponse<Bytes>, path: String, log: Rc<RefCell<Vec<String>>>) {
    if poll_fn(|context| respond.poll_reset(context)).await.is_ok() {
        log.borrow_mut().push(format!("RESET {path}"));
    }
}

/// Logs what a request carries.
async fn note_content(mut body: h2::RecvStream, media_type: Option<http::HeaderValue>, log: Rc<RefCell<Vec<String>>>) {
    let mut content = Vec::new();
    while let Some(Ok(octets)) = body.data().await {
        content.extend_from_slice(&octets);
    }
    let media_type = media_type.as_ref().and_then(|media_type| media_type.to_str().ok()).unwrap_or("-");
    log.borrow_mut().push(format!("CONTENT {media_type} {}", String::from_utf8_lossy(&content)));
}

impl Script {
    fn dated(&self, response: http::response::Builder) -> http::response::Builder {
        match self.date {
            Some(seconds) => {
                response.header("date", httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds)))
            }
            None => response,
        }
    }

    fn answer<T>(&self, request: &Request<T>) -> Option<u16> {
        if request.headers().contains_key("prefer") { self.fetch } else { self.monitor }
    }
}

fn subscribed(number: u32, sets: bool) -> http::response::Builder {
    let mut response = Response::builder().status(201).header("location", format!("/s/{number}"));
    response = response.header("link", format!("</p/{number}>; rel=\"urn:ietf:params:push\""));
    if sets { response.header("link", "</t/0>; rel=\"urn:ietf:params:push:set\"") } else { response }
}

fn sent_on(port: u16) -> http::response::Builder {
    Response::builder().status(307).header("location", format!("https://127.0.0.1:{port}/subscribe2"))
}

/// Answers without content: END_STREAM stands on the head.
fn answer(respond: &mut SendResponse<Bytes>, response: http::response::Builder) {
    let response = response.body(()).expect("a response");
    respond.send_response(response, true).expect("the connection is there");
}
