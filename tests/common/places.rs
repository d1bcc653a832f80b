//! A push service at several places, each on a port of its own, that shares no code with ours. It is `localhost` to its
//! clients; what they do at which place is written down in one log.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio_rustls::TlsAcceptor;

const NAME: &str = "localhost";

/// How one place behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It serves.
    Serves,
    /// It answers all requests with 421, and names another place in that.
    Misdirected,
    /// It serves, and answers POST with 421.
    MisdirectedPost,
    /// It has a good certificate, for itself and not for the service.
    OtherName,
    /// It speaks HTTP/1.1 alone.
    OldProtocol,
    /// It speaks TLS alone, and agrees on nothing above it.
    NoProtocol,
}

/// The running service.
pub struct Places {
    /// Where subscriptions are made, at the first place.
    pub url: String,
    /// Vouches for all certificates.
    pub ca_file: PathBuf,
    /// The port of the first place.
    pub origin: u16,
    certificates: [rcgen::CertifiedKey<rcgen::KeyPair>; 2],
    state: Rc<State>,
    listening: RefCell<Vec<(u16, AbortHandle)>>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct State {
    log: RefCell<Vec<String>>,
    /// What responses say of alternatives.
    announcement: RefCell<Option<String>>,
    subscriptions: std::cell::Cell<u32>,
}

impl Places {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca_file = folder.path().join("ca.pem");
        let certificates = [NAME, "alternative.example"].map(certificate);
        std::fs::write(&ca_file, certificates.each_ref().map(|key| key.cert.pem()).concat()).expect("written");
        let mut places = Self {
            url: String::new(),
            ca_file,
            origin: 0,
            certificates,
            state: Rc::default(),
            listening: RefCell::default(),
            _folder: folder,
        };
        places.origin = places.open(Manner::Serves).await;
        places.url = format!("https://{NAME}:{}/subscribe", places.origin);
        places
    }

    /// Opens another place; its port.
    pub async fn open(&self, manner: Manner) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let port = listener.local_addr().expect("an address").port();
        let (acceptor, state) = (self.acceptor(manner), Rc::clone(&self.state));
        let task = spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                spawn_local(serve(tcp, acceptor.clone(), manner, port, Rc::clone(&state)));
            }
        });
        self.listening.borrow_mut().push((port, task.abort_handle()));
        port
    }

    /// Nothing listens at a place from now on; connections there live on.
    pub async fn close(&self, port: u16) {
        self.listening.borrow().iter().filter(|(at, _)| *at == port).for_each(|(_, task)| task.abort());
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            yield_now().await;
        }
    }

    /// What responses say of alternatives from now on.
    pub fn announce(&self, value: &str) {
        self.state.announcement.replace(Some(value.to_owned()));
    }

    /// What was done at a place: `CONNECTED` with the name that was asked for, `REFUSED`, `CLOSED`, or a method, a path, an
    /// authority and an alternative.
    pub fn at(&self, port: u16) -> Vec<String> {
        let (log, place) = (self.state.log.borrow(), format!("{port} "));
        log.iter().filter_map(|line| line.strip_prefix(&place)).map(str::to_owned).collect()
    }

    /// How often something that begins so was done at a place.
    pub fn count(&self, port: u16, start: &str) -> usize {
        self.at(port).iter().filter(|line| line.starts_with(start)).count()
    }

    /// Everything, in its order.
    pub fn log(&self) -> Vec<String> {
        self.state.log.borrow().clone()
    }

    fn acceptor(&self, manner: Manner) -> TlsAcceptor {
        let shown = &self.certificates[usize::from(manner == Manner::OtherName)];
        let key = PrivateKeyDer::Pkcs8(shown.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("TLS 1.2 and 1.3").with_no_client_auth();
        let mut config = config.with_single_cert(vec![shown.cert.der().clone()], key).expect("they belong together");
        config.alpn_protocols = match manner {
            Manner::OldProtocol => vec![b"http/1.1".to_vec()],
            Manner::NoProtocol => vec![],
            _ => vec![b"h2".to_vec()],
        };
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A certificate that vouches for itself.
fn certificate(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let signing_key = rcgen::KeyPair::generate().expect("a key");
    rcgen::CertifiedKey { cert: params.self_signed(&signing_key).expect("a certificate"), signing_key }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, manner: Manner, port: u16, state: Rc<State>) {
    let note = |what: String| state.log.borrow_mut().push(format!("{port} {what}"));
    let Ok(tls) = acceptor.accept(tcp).await else { return note("REFUSED".to_owned()) };
    note(format!("CONNECTED {}", tls.get_ref().1.server_name().unwrap_or("-")));
    let Ok(mut connection) = h2::server::Builder::new().handshake::<_, Bytes>(tls).await else {
        return note("CLOSED in the preface".to_owned());
    };
    let mut open = Vec::new();
    let how = loop {
        let (request, mut respond) = match connection.accept().await {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => break format!("by {error}"),
            None => break "in order".to_owned(),
        };
        let used = request.headers().get("alt-used").map_or("-", |used| used.to_str().expect("text"));
        let authority = request.uri().authority().expect("an authority");
        note(format!("{} {} {authority} {used}", request.method(), request.uri().path()));
        let is_post = request.method() == Method::POST;
        if manner == Manner::Misdirected || (manner == Manner::MisdirectedPost && is_post) {
            answer(&mut respond, Response::builder().status(421).header("alt-svc", r#"h2=":9""#));
        } else if let Some(response) = state.response(&request) {
            answer(&mut respond, response);
        } else {
            open.push(respond);
        }
    };
    note(format!("CLOSED {how}"));
}

impl State {
    /// The answer to a request; none for one that monitors.
    fn response<T>(&self, request: &Request<T>) -> Option<http::response::Builder> {
        let response = match *request.method() {
            Method::POST => {
                let number = self.subscriptions.replace(self.subscriptions.get() + 1);
                let response = Response::builder().status(201).header("location", format!("/s/{number}"));
                let response = response.header("link", format!("</p/{number}>; rel=\"urn:ietf:params:push\""));
                response.header("link", "</t/0>; rel=\"urn:ietf:params:push:set\"")
            }
            Method::GET if !request.headers().contains_key("prefer") => return None,
            _ => Response::builder().status(204),
        };
        let announcement = self.announcement.borrow();
        Some(announcement.iter().fold(response, |response, value| response.header("alt-svc", value)))
    }
}

/// Answers without content: END_STREAM stands on the head.
fn answer(respond: &mut SendResponse<Bytes>, response: http::response::Builder) {
    let response = response.body(()).expect("a response");
    respond.send_response(response, true).expect("the connection is there");
}
