//! Application servers that are told by real processes, which are killed meanwhile: what was not accepted is told again,
//! and nothing else.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::process::{Process, Site, await_true};

/// A-UA-08, A-UA-41: the gateway is killed while one of two announcements is refused, while the answer to one is on its way,
/// and while the end of a subscription is refused. Each time it tells what was not accepted once more, and only that.
#[test]
fn a_ua_08_a_killed_gateway_tells_only_what_was_not_accepted() {
    let (site, _service) = Site::with_service();
    let server = AppServer::start(&site);
    server.answer(Answer::Refuse("d2"));
    // Nobody waits for devices: both are away all the time.
    site.configure(&[("d1", site.device_link("d1"))]);
    announce_to(&site, &server);
    let gateway = site.start_gateway();
    let first = endpoint(&site, "d1");
    assert!(site.command(&["device", "add", "d2", "--link", &site.device_link("d2")]).status.success());
    let second = endpoint(&site, "d2");
    server.await_told("d1", &first);
    server.await_told("d2", &second);

    let gateway = killed(&site, gateway, &server);
    server.await_told("d2", &second);
    let first = rotated(&site, &server);
    assert_eq!(server.take(), [told("d2", &second), told("d1", &first)]);

    server.answer(Answer::Silence);
    let first = rotated(&site, &server);
    let gateway = killed(&site, gateway, &server);
    server.await_told("d1", &first);
    server.answer(Answer::Refuse("d2"));
    assert!(site.command(&["device", "remove", "d2"]).status.success());
    server.await_told("d2", GONE);
    assert_eq!(server.take(), [told("d1", &first), told("d2", GONE)]);

    let gateway = killed(&site, gateway, &server);
    server.await_told("d2", GONE);
    let first = rotated(&site, &server);
    assert_eq!(server.take(), [told("d2", GONE), told("d1", &first)]);

    let _gateway = killed(&site, gateway, &server);
    let first = rotated(&site, &server);
    assert_eq!(server.take(), [told("d1", &first)], "all the rest was known");
}

/// Kills the gateway once it has stored what it heard, and starts it again; from then on the server accepts everything.
fn killed(site: &Site, mut gateway: Process, server: &AppServer) -> Process {
    server.await_answers_read();
    await_true("all is on flash", || site.status()["persisting"] == 0);
    gateway.kill();
    server.take();
    server.answer(Answer::Accept);
    site.start_gateway()
}

/// Gives `d1` another push resource, and waits until the server was told of it.
fn rotated(site: &Site, server: &AppServer) -> String {
    let before = endpoint(site, "d1");
    let rotated = site.command(&["device", "rotate", "d1"]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    await_true("another push resource", || endpoint(site, "d1") != before);
    let after = endpoint(site, "d1");
    server.await_told("d1", &after);
    after
}

fn endpoint(site: &Site, device: &str) -> String {
    site.subscription(device).endpoint.as_str().to_owned()
}

fn announce_to(site: &Site, server: &AppServer) {
    let config = site.path("fieldgate.toml");
    let text = fs::read_to_string(&config).expect("readable");
    let table = format!("[announce]\nurl = \"{}\"\nca_file = \"{}\"\n", server.url, site.path("app-ca.pem"));
    fs::write(&config, text + &table).expect("written");
}

/// What is said of a device that has no push resource any more.
const GONE: &str = "null";

/// A device, and where to post to it.
type Told = (String, String);

fn told(device: &str, endpoint: &str) -> Told {
    (device.to_owned(), endpoint.to_owned())
}

/// What the server says to what it is told.
#[derive(Clone, Copy)]
enum Answer {
    Accept,
    /// Not of this device, for now.
    Refuse(&'static str),
    /// Nothing at all.
    Silence,
}

/// An application server with threads and clocks of its own.
struct AppServer {
    url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    answer: Answer,
    /// Without copies that follow at once: those are pauses at work.
    told: Vec<Told>,
    /// Answers that were not yet read to their end.
    unread: usize,
}

impl AppServer {
    fn start(site: &Site) -> Self {
        let tls = Arc::new(identity(site));
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let url = format!("https://{}/devices", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { answer: Answer::Accept, told: Vec::new(), unread: 0 }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                let (tls, shared) = (Arc::clone(&tls), Arc::clone(&shared));
                // That a gateway which is killed breaks off is no failure of the server.
                std::thread::spawn(move || serve(tcp, tls, &shared).unwrap_or_default());
            }
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    fn answer(&self, answer: Answer) {
        self.state().answer = answer;
    }

    fn await_told(&self, device: &str, endpoint: &str) {
        await_true(device, || self.state().told.contains(&told(device, endpoint)));
    }

    fn await_answers_read(&self) {
        await_true("all answers are read", || self.state().unread == 0);
    }

    /// What it was told since the last time.
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.state().told)
    }
}

/// A certificate that vouches for itself, in a file as well.
fn identity(site: &Site) -> ServerConfig {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(site.path("app-ca.pem"), certified.cert.pem()).expect("written");
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("TLS 1.2 and 1.3").with_no_client_auth();
    config.with_single_cert(vec![certified.cert.der().clone()], key).expect("they belong together")
}

/// One request of HTTP/1.1, its answer, and the end of the connection.
fn serve(tcp: TcpStream, tls: Arc<ServerConfig>, shared: &Mutex<State>) -> io::Result<()> {
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    let (device, endpoint) = read(&mut stream)?;
    let state = || shared.lock().expect("nobody panicked");
    let answer = state().heard(&device, &endpoint);
    let status = match answer {
        Answer::Silence => return stream.read(&mut [0]).map(drop),
        Answer::Refuse(refused) if device == refused => "503 Not now\r\nRetry-After: 1",
        Answer::Refuse(_) | Answer::Accept => "204 Stored",
    };
    let answered = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let ended = answered.and_then(|()| stream.flush()).and_then(|()| stream.read(&mut [0]));
    state().unread -= 1;
    ended.map(drop)
}

impl State {
    fn heard(&mut self, device: &str, endpoint: &str) -> Answer {
        let told = told(device, endpoint);
        if self.told.last() != Some(&told) {
            self.told.push(told);
        }
        self.unread += usize::from(!matches!(self.answer, Answer::Silence));
        self.answer
    }
}

/// Reads one request whole.
fn read(stream: &mut impl io::Read) -> io::Result<Told> {
    let mut octets = Vec::new();
    loop {
        let mut piece = [0; 1_024];
        let bytes = stream.read(&mut piece)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        octets.extend_from_slice(&piece[..bytes]);
        let Some((head, content)) = std::str::from_utf8(&octets).ok().and_then(|text| text.split_once("\r\n\r\n"))
        else {
            continue;
        };
        assert!(head.starts_with("POST /devices HTTP/1.1\r\n"), "{head}");
        if let Ok(document) = serde_json::from_str::<Value>(content) {
            let endpoint = document["endpoint"].as_str().unwrap_or(GONE).to_owned();
            return Ok((document["device"].as_str().expect("a device").to_owned(), endpoint));
        }
    }
}
