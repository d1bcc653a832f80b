//! Peers that speak no right HTTP: each costs its own connection, and nobody else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::process::Site;
use crate::push_service::{PushService, Script};
use crate::rig::Rig;
use crate::service::client_config;

/// What the service of a test may take to answer octets that are wrong: it has no reason to wait for more of them.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A-PS-99: each wrong request of HTTP/1.1 is answered or cut off; the real process serves the others on, over the
/// connections that they have.
#[tokio::test(flavor = "local")]
async fn wrong_http_1_1_is_answered_and_costs_nobody_else() {
    let neighbour = Neighbour::start();
    for (request, status) in [
        ("nonsense\r\n\r\n", "400"),
        ("GET /subscribe\r\n\r\n", "400"),
        ("GET /subscribe HTTP/9.9\r\nHost: x\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nHost x\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        ("POST /subscribe HTTP/1.1\r\nConnection: close\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
        ("GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\r\n\r\n", "400"),
    ] {
        let answer = neighbour.tell(&["http/1.1"], request.as_bytes()).await;
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {line:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    let answer = neighbour.tell(&["http/1.1"], long.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    neighbour.is_served().await;
}

/// D-9113-21: each wrong frame of HTTP/2 ends its own stream or connection; the real process serves the others on, over
/// the connections that they have.
#[tokio::test(flavor = "local")]
async fn wrong_http_2_is_answered_and_costs_nobody_else() {
    const GO_AWAY: u8 = 7;
    let neighbour = Neighbour::start();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let long = vec![0; 20_000];
    for (name, octets) in [
        ("DATA on no stream", frame(0, 0, 0, b"x")),
        ("DATA on an idle stream", frame(0, 1, 5, b"x")),
        ("a frame that is too long", frame(0, 0, 1, &long)),
        ("HEADERS on an even stream", frame(1, 5, 2, &[0x82])),
        ("HEADERS that are no HPACK", frame(1, 5, 1, &[0xff; 20])),
        ("an index of no table", frame(1, 5, 1, &[0xbf, 0x7f])),
        ("SETTINGS of half a setting", frame(4, 0, 0, &[0, 4, 0])),
        ("a window beyond its bound", frame(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a promise of a client", frame(5, 4, 1, &[0, 0, 0, 2, 0x82])),
        ("a PING of seven octets", frame(6, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE by nothing", frame(8, 0, 0, &[0; 4])),
        ("CONTINUATION of nothing", frame(9, 4, 1, &[0x82])),
    ] {
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &octets].concat();
        let answer = neighbour.tell(&["h2"], &preface).await;
        assert!(kinds(&answer).contains(&GO_AWAY), "{name}: {:?}", kinds(&answer));
    }
    // What is no HTTP/2 at all, and what ends in the middle of a frame.
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"] {
        neighbour.tell(&["h2"], octets).await;
    }
    neighbour.is_served().await;
}

/// A gateway reads whatever a service says, tells what is wrong, serves its devices meanwhile, and tries again.
#[tokio::test(flavor = "local")]
async fn a_service_that_speaks_no_http_2_is_tried_again() {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let texts: [Vec<u8>; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"\0\0\0\x04\0".to_vec(),
        vec![0xff; 30_000],
        [SETTINGS, b"\0\0\x01\0\0\0\0\0\0x"].concat(),
        [SETTINGS, b"\0\0\x05\x05\x04\0\0\0\x01\0\0\0\x02\x82"].concat(),
        [SETTINGS, b"\0\0\x14\x01\x05\0\0\0\x01", &[0xff; 20]].concat(),
    ];
    for text in texts {
        let told = format!("{:?}", &text[..text.len().min(20)]);
        let first: &'static [u8] = text.leak();
        let service = PushService::start(Script { first: Some(first), ..Script::default() }).await;
        let mut rig = Rig::with_foreign(&service).await;
        rig.start_gateway();
        let mut device = rig.attach(7).await;
        let status = device.tend(rig.await_status(|status| status["last_error"].is_string())).await;
        let reason = status["last_error"].as_str().unwrap_or_default();
        assert!(reason.contains("HTTP/2 failed: ") || reason.contains("TLS failed: "), "{told}: {reason}");
        assert_eq!(status["devices"][0]["presence"], "ready", "{told}");
        device.tend(rig.subscription(1)).await;
        assert_eq!(service.count("CONNECTED"), 2, "{told}");
    }
}

/// A gateway with a device at the service under attack, all of them processes.
struct Neighbour {
    site: Site,
    _processes: [crate::process::Process; 3],
    subscription: fieldgate::webpush::subscription::PushSubscription,
}

impl Neighbour {
    fn start() -> Self {
        let (site, service) = Site::with_service();
        site.configure(&[("d1", site.device_link("d1"))]);
        let device = site.start_device("d1", &[]);
        let gateway = site.start_gateway();
        let subscription = site.subscription("d1");
        Self { site, _processes: [service, device, gateway], subscription }
    }

    /// Says something on a connection of its own, and returns the answer up to the end of the connection.
    async fn tell(&self, alpn: &[&str], octets: &[u8]) -> Vec<u8> {
        let connector = TlsConnector::from(Arc::new(client_config(Path::new(&self.site.ca), alpn)));
        let stream = TcpStream::connect(self.site.authority()).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(name, stream).await.expect("the certificate is good");
        let mut answer = Vec::new();
        let exchange = async {
            // It may have heard enough before all is said.
            stream.write_all(octets).await.ok();
            // HTTP/1.1 takes the end of what a client says for the end of its wish for an answer.
            if alpn == ["h2"] {
                stream.shutdown().await.ok();
            }
            // A reset ends it as well as a close.
            stream.read_to_end(&mut answer).await.ok();
        };
        timeout(ANSWER_WAIT, exchange).await.expect("the connection ends");
        answer
    }

    /// A message comes through, over the connection that the gateway had from the start.
    async fn is_served(&self) {
        self.site.send(&self.subscription, "beside the nonsense");
        self.site.await_received("d1", "beside the nonsense");
        assert_eq!(self.site.status()["counters"]["connections"], 1);
    }
}

/// The kinds of the frames in an answer.
fn kinds(mut octets: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [one, two, three, kind, ..] = *octets {
        kinds.push(kind);
        let length = u32::from_be_bytes([0, one, two, three]) as usize;
        octets = octets.get(9 + length..).unwrap_or_default();
    }
    kinds
}
