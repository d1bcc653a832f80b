//! RFC 9325 and RFC 9113 §9.2 on the wire: what either side offers, takes and refuses, read from its hellos.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fieldgate::service::{Service, ServiceOptions};
use fieldgate::wire::ToGateway;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::push_service::{PushService, Script};
use crate::relay::{Passed, Relay};
use crate::rig::Rig;
use crate::service::{PATIENCE, client_config};
use crate::tls_records::{
    ALERT, ALPN, EARLY_DATA, HANDSHAKE, Hello, POST_HANDSHAKE_AUTH, PRE_SHARED_KEY, SERVER_NAME, SIGNATURE_ALGORITHMS,
    SUPPORTED_GROUPS, SUPPORTED_VERSIONS, client_hello, records, server_hello,
};

const TLS_1_3_SUITES: [u16; 3] = [0x1301, 0x1302, 0x1303];
const ECDHE_ECDSA_AEAD_SUITES: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
const ECDHE_RSA_AEAD_SUITES: [u16; 3] = [0xc02f, 0xc030, 0xcca8];
/// Says that the renegotiation of TLS 1.2 would be the safe one; it is no suite.
const RENEGOTIATION_INFO: u16 = 0x00ff;
const HANDSHAKE_FAILURE: u8 = 40;

/// D-9325-04, D-9325-09, D-9325-10, D-9113-23: gateway and sender offer suites with AEAD and ECDHE and no others, no
/// compression, no weak group or digest, no certificate of theirs, and the name of the service.
#[tokio::test(flavor = "local")]
async fn d_9325_09_gateway_and_sender_offer_nothing_weak() {
    let (mut rig, relay) = behind_relay().await;
    let mut device = rig.attach(7).await;
    let subscription = device.tend(rig.subscription(1)).await;
    device.tend(rig.send(&subscription, "by way of the relay")).await;
    let hellos: Vec<Hello> = relay.passed().iter().map(|passed| Hello::of_client(&passed.sent)).collect();
    assert_eq!(hellos.len(), 2, "the gateway's and the sender's");
    let allowed = [&TLS_1_3_SUITES[..], &ECDHE_ECDSA_AEAD_SUITES, &ECDHE_RSA_AEAD_SUITES, &[RENEGOTIATION_INFO]];
    for hello in hellos {
        assert_eq!(set(&hello.suites), set(&allowed.concat()));
        assert_eq!(hello.compressions, [0]);
        assert_eq!(set(&hello.list(SUPPORTED_VERSIONS, 1)), set(&[0x0303, 0x0304]));
        // P-256, P-384, X25519: 224 bits and more.
        assert_eq!(set(&hello.list(SUPPORTED_GROUPS, 2)), set(&[23, 24, 29]));
        let digests: BTreeSet<u16> = hello.list(SIGNATURE_ALGORITHMS, 2).iter().map(|scheme| scheme >> 8).collect();
        assert!(digests.iter().all(|digest| (4..=8).contains(digest)), "MD5, SHA-1 or SHA-224: {digests:?}");
        assert!(hello.has(SERVER_NAME) && hello.has(ALPN));
        assert!(!hello.has(EARLY_DATA) && !hello.has(POST_HANDSHAKE_AUTH));
    }
}

/// D-9325-08, D-9113-24: a gateway that comes back resumes its session, and sends nothing before the handshake is done.
#[tokio::test(flavor = "local")]
async fn d_9113_24_a_resumed_gateway_sends_no_early_data() {
    let (rig, relay) = behind_relay().await;
    rig.await_status(|status| status["counters"]["connections"] == 1).await;
    relay.cut();
    rig.await_status(|status| status["counters"]["connections"] == 2).await;
    let passed = relay.passed();
    let [first, second] = [0, 1].map(|number| Hello::of_client(&passed[number].sent));
    assert!(!first.has(PRE_SHARED_KEY) && second.has(PRE_SHARED_KEY));
    assert!(Hello::of_server(&passed[1].answered).has(PRE_SHARED_KEY), "the service resumes");
    assert!(!first.has(EARLY_DATA) && !second.has(EARLY_DATA));
}

/// D-9325-08, D-9113-24: to a client that would send early data the service does not announce that it may.
#[tokio::test(flavor = "local")]
async fn d_9113_24_the_service_takes_no_early_data() {
    let rig = crate::service::Rig::start().await;
    let mut config = client_config(&rig.running.ca_file, &["http/1.1"]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let connector = TlsConnector::from(Arc::clone(&config));
    assert_eq!(kind_of_visit(&rig, &connector).await, HandshakeKind::Full);
    let name = ServerName::from(rig.running.address.ip());
    let mut again = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    again.write_tls(&mut hello).expect("written");
    let hello = Hello::of_client(&hello);
    assert!(hello.has(PRE_SHARED_KEY) && !hello.has(EARLY_DATA) && again.early_data().is_none());
}

/// D-9325-05: a session is resumed while the service lives, in either version; one of an earlier life leads to a whole
/// handshake, since nothing that would open it is left.
#[tokio::test(flavor = "local")]
async fn d_9325_05_an_old_ticket_leads_to_a_whole_handshake() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let rig = crate::service::Rig::start().await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(
            fieldgate::transport::trust::certificates(&rig.running.ca_file).expect("certificates"),
        );
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let config = config.expect("a version").with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut kinds = vec![kind_of_visit(&rig, &connector).await, kind_of_visit(&rig, &connector).await];
        let rig = rig.restart().await;
        kinds.extend([kind_of_visit(&rig, &connector).await, kind_of_visit(&rig, &connector).await]);
        let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
        assert_eq!(kinds, [full, resumed, full, resumed], "{version:?}");
    }
}

/// D-9325-09, D-9113-23: of all suites that there can be, the service takes those with AEAD and ECDHE that its key is good
/// for, and refuses all others together.
#[tokio::test(flavor = "local")]
async fn d_9325_09_the_service_takes_nothing_weak() {
    let rsa = include_str!("../common/certificates/rsa2048.key");
    for (key, own) in [(None, ECDHE_ECDSA_AEAD_SUITES), (Some(rsa), ECDHE_RSA_AEAD_SUITES)] {
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(key) = key {
            fs::write(folder.path().join("service.key"), key).expect("written");
        }
        let mut options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), folder.path());
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
        options.name = Some("push.example".to_owned());
        let service = Service::start(options).await.expect("it starts");
        for (version, allowed) in [([3, 3], own), ([3, 4], TLS_1_3_SUITES)] {
            for suite in allowed {
                let answer = answer_to(service.address, &client_hello(version, &[suite])).await;
                let hello = Hello::of_server(&answer);
                assert_eq!((&hello.suites[..], &hello.compressions[..]), (&[suite][..], &[0][..]));
            }
            let others: Vec<u16> = (0..=u16::MAX).filter(|suite| !allowed.contains(suite)).collect();
            // What one record has room for.
            for some in others.chunks(8_000) {
                let answer = answer_to(service.address, &client_hello(version, some)).await;
                let records = records(&answer).expect("records");
                assert_eq!(records, [(ALERT, &[2, HANDSHAKE_FAILURE][..])], "from {:#06x} on", some[0]);
            }
        }
        service.stop().await;
    }
}

/// D-9325-09, D-9113-23, D-9325-01: a service that takes what was not offered gets an alert from the gateway and not one
/// octet more.
#[tokio::test(flavor = "local")]
async fn d_9113_23_a_service_that_takes_something_weak_is_refused() {
    const ECDHE: u16 = ECDHE_ECDSA_AEAD_SUITES[0];
    for (name, hello) in [
        ("no encryption", server_hello([3, 3], 0x0000, 0)),
        ("RSA without forward secrecy", server_hello([3, 3], 0x009c, 0)),
        ("CBC", server_hello([3, 3], 0xc023, 0)),
        ("RC4", server_hello([3, 3], 0x0005, 0)),
        ("DHE of an export", server_hello([3, 3], 0x0014, 0)),
        ("compression", server_hello([3, 3], ECDHE, 1)),
        ("TLS 1.1", server_hello([3, 2], ECDHE, 0)),
        ("TLS 1.0", server_hello([3, 1], ECDHE, 0)),
        ("SSL 3.0", server_hello([3, 0], ECDHE, 0)),
    ] {
        // Its authority is of use: no other part of it is asked.
        let trusted = PushService::start(Script::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let mut rig = Rig::with_foreign(&trusted).await;
        let address = listener.local_addr().expect("an address");
        rig.config.push_service.url = format!("https://{address}/subscribe").parse().expect("a URL");
        rig.start_gateway();
        let (mut tcp, _) = listener.accept().await.expect("it comes");
        let mut octets = vec![0; 4_096];
        let count = tcp.read(&mut octets).await.expect("a hello");
        Hello::of_client(&octets[..count]);
        tcp.write_all(&hello).await.expect("written");
        let mut rest = Vec::new();
        // A reset ends it as well as a close.
        timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("it ends").ok();
        let records = records(&rest).expect("records");
        let fatal = records.iter().all(|(kind, content)| *kind == ALERT && content[0] == 2);
        assert!(fatal && records.len() == 1, "{name}: {records:?}");
        let status = rig.await_status(|status| status["last_error"].is_string()).await;
        assert!(status["last_error"].as_str().is_some_and(|error| error.contains("TLS failed")), "{name}: {status}");
    }
}

/// A-ALL-01, A-ALL-03: a message from the sender over the service to the device and its acknowledgement back: on both
/// legs nothing passes but records of TLS, and no word of HTTP, no token and no text is in them. That they are made as
/// RFC 9325 wants is for the other tests here, and for those of `trust_faults`.
#[tokio::test(flavor = "local")]
async fn a_all_01_both_legs_carry_nothing_but_tls() {
    const TEXT: &str = "that nobody else reads";
    let (mut rig, relay) = behind_relay().await;
    let mut device = rig.attach(7).await;
    let subscription = device.tend(rig.subscription(1)).await;
    let message = device.tend(rig.send(&subscription, TEXT)).await;
    let id = device.hear_push(TEXT).await;
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_gone(&message)).await;
    let passed = relay.passed();
    assert_eq!(passed.len(), 2, "the gateway's leg and the sender's");
    let token = subscription.endpoint.as_str().rsplit('/').next().expect("a path");
    for Passed { sent, answered } in &passed {
        for octets in [sent, answered] {
            let records = records(octets).expect("nothing but records");
            assert_eq!(records[0].0, HANDSHAKE);
            assert!(records.len() > 5);
            for word in ["HTTP/", "PRI * ", "subscribe", TEXT, token, "aes128gcm"] {
                assert!(!octets.windows(word.len()).any(|it| it == word.as_bytes()), "{word}");
            }
        }
    }
}

/// A gateway that reaches its service by name and through a relay; a sender goes the same way.
async fn behind_relay() -> (Rig, Relay) {
    let mut rig = Rig::with_authority(None).await;
    let service = rig.config.push_service.url.authority().expect("an authority").as_str();
    let relay = Relay::start(service.parse().expect("an address")).await;
    rig.config.push_service.url = format!("https://localhost:{}/subscribe", relay.port).parse().expect("a URL");
    rig.start_gateway();
    (rig, relay)
}

/// A request over a connection of its own, and how its handshake went.
async fn kind_of_visit(rig: &crate::service::Rig, connector: &TlsConnector) -> HandshakeKind {
    let tcp = TcpStream::connect(rig.running.address).await.expect("it listens");
    let name = ServerName::from(rig.running.address.ip());
    let mut stream = connector.connect(name, tcp).await.expect("a handshake");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    stream.get_ref().1.handshake_kind().expect("it is done")
}

/// What a service says first.
async fn answer_to(address: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(address).await.expect("it listens");
    tcp.write_all(hello).await.expect("written");
    let mut answer = Vec::new();
    let first_record = async {
        while records(&answer).expect("records").is_empty() {
            if tcp.read_buf(&mut answer).await.expect("an answer") == 0 {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), first_record).await.expect("in time");
    answer
}

fn set(suites: &[u16]) -> BTreeSet<u16> {
    suites.iter().copied().collect()
}
