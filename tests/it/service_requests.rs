//! Requests to the push service, by HTTP/2 and HTTP/1.1: what is made, accepted, refused and ended.

use bytes::Bytes;
use http::StatusCode;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::service::{PATIENCE, Rig, client_config};

/// A-PS-04, A-PS-05, A-PS-06, A-PS-53: a subscribe request makes a subscription with a working push resource.
#[tokio::test(flavor = "local")]
async fn a_ps_04_subscribing_makes_resources_that_work() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    assert_eq!(client.monitor(&made.subscription, Some("wait=0")).end().await, 204);
    let answer = client.request("POST", &made.push, &[("ttl", "1")], b"").await;
    assert_eq!((answer.status, answer.field("ttl")), (StatusCode::CREATED, "1"));
}

/// A-PS-10, A-PS-11: a presented set is returned; what is none is refused.
#[tokio::test(flavor = "local")]
async fn a_ps_10_a_hundred_subscriptions_stay_in_their_set() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let first = client.subscribe(None).await;
    for _ in 0..100 {
        assert_eq!(client.subscribe(Some(&first.set)).await.set, first.set);
    }
    for other in [&first.push, &first.subscription, "/AAAAAAAAAAAAAAAAAAAAAA"] {
        let link = format!("<{other}>; rel=\"urn:ietf:params:push:set\"");
        assert_eq!(client.request("POST", "/subscribe", &[("link", &link)], b"").await.status, 400);
    }
}

/// A-PS-14, A-PS-15, A-PS-92: a message is accepted at once, can be read, and ended.
#[tokio::test(flavor = "local")]
async fn a_ps_14_messages_are_accepted_with_nobody_there() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let one = client.message(&made.push, "60", &[7; 36]).await;
    let two = client.message(&made.push, "60", &[7; 36]).await;
    assert_ne!(one, two);

    let answer = client.request("GET", &one, &[], b"").await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &[7; 36][..]));
    assert!(answer.field("cache-control").starts_with("private, max-age="));
    assert_eq!(client.acknowledge(&one).await, 204);
    assert_eq!(client.acknowledge(&one).await, 404);
    assert_eq!(client.request("GET", &one, &[], b"").await.status, 404);
}

/// A-PS-51, A-PS-69, A-PS-70: 4096 octets pass however they come, 4097 do not and leave nothing.
#[tokio::test(flavor = "local")]
async fn a_ps_70_content_of_4096_octets_is_never_too_large() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for length in [0, 1, 4_095, 4_096] {
        let content = vec![5; length];
        for announced in [None, Some(length.to_string())] {
            let mut fields = vec![("ttl", "60")];
            fields.extend(announced.as_deref().map(|length| ("content-length", length)));
            let octets: Vec<Bytes> = content.iter().map(|octet| Bytes::copy_from_slice(&[*octet])).collect();
            for pieces in [vec![Bytes::from(content.clone())], octets] {
                let answer = client.request_in_pieces("POST", &made.push, &fields, pieces).await;
                assert_eq!(answer.status, 201, "{length}");
                let message = answer.field("location").to_owned();
                assert_eq!(client.request("GET", &message, &[], b"").await.body, content);
                client.acknowledge(&message).await;
            }
        }
    }
    for announced in [&[("ttl", "60"), ("content-length", "4097")][..], &[("ttl", "60")]] {
        assert_eq!(client.request("POST", &made.push, announced, &[5; 4_097]).await.status, 413);
    }
    assert_eq!(client.monitor(&made.subscription, Some("wait=0")).end().await, 204);
}

/// A-PS-25, A-PS-76: no TTL is 400 on a live push resource, 404 on a dead one whatever the request has.
#[tokio::test(flavor = "local")]
async fn a_ps_76_a_dead_push_resource_is_404_with_and_without_ttl() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    assert_eq!(client.request("POST", &made.push, &[], b"x").await.status, 400);
    assert_eq!(client.request("DELETE", &made.subscription, &[], b"").await.status, 204);
    for fields in [&[("ttl", "60")][..], &[]] {
        let answer = client.request("POST", &made.push, fields, &[1; 5_000]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_FOUND, 0));
    }
    assert_eq!(client.request("GET", &made.subscription, &[], b"").await.status, 404);
    assert_eq!(client.request("DELETE", &made.subscription, &[], b"").await.status, 404);
}

/// A-PS-08, A-GAP-12: the push resource reads nothing, the subscription sends nothing.
#[tokio::test(flavor = "local")]
async fn a_ps_08_resources_carry_different_rights() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for (method, path, allowed) in [
        ("GET", &made.push, "POST"),
        ("DELETE", &made.push, "POST"),
        ("POST", &made.subscription, "GET, DELETE"),
        ("POST", &made.set, "GET, DELETE"),
    ] {
        let answer = client.request(method, path, &[("ttl", "5")], b"").await;
        assert_eq!((answer.status, answer.field("allow")), (StatusCode::METHOD_NOT_ALLOWED, allowed));
    }
}

/// D-9113-21: a header list above the limit is 431, and the connection goes on.
#[tokio::test(flavor = "local")]
async fn d_9113_21_too_many_header_fields_are_431() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let long = "x".repeat(17_000);
    assert_eq!(client.request("POST", "/subscribe", &[("x-long", &long)], b"").await.status, 431);
    client.subscribe(None).await;
}

/// A-PS-01, D-9325-03: no HTTP without TLS.
#[tokio::test(flavor = "local")]
async fn a_ps_01_cleartext_gets_no_http_answer() {
    let rig = Rig::start().await;
    for hello in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let answer = cleartext(&rig, hello).await;
        assert!(!answer.windows(4).any(|it| it == b"HTTP"), "{answer:?}");
        assert!(answer.is_empty() || answer[0] == 21, "a TLS alert or nothing");
    }
    rig.client().await.subscribe(None).await;
}

/// D-9325-01: a ClientHello of TLS 1.1 gets an alert.
#[tokio::test(flavor = "local")]
async fn d_9325_01_tls_1_1_is_refused() {
    let rig = Rig::start().await;
    let body = [&[3, 2][..], &[9; 32], &[0], &[0, 4, 0xc0, 0x13, 0, 0x2f], &[1, 0]].concat();
    let handshake = [&[1, 0, 0, u8::try_from(body.len()).expect("short")][..], &body].concat();
    let record = [&[22, 3, 1, 0, u8::try_from(handshake.len()).expect("short")][..], &handshake].concat();
    let answer = cleartext(&rig, &record).await;
    assert_eq!((answer[0], answer[5]), (21, 2), "a fatal alert");
}

async fn cleartext(rig: &Rig, hello: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(rig.running.address).await.expect("it listens");
    stream.write_all(hello).await.expect("written");
    let mut answer = Vec::new();
    // A reset ends it as well as a close.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time").ok();
    answer
}

/// D-9325-02, D-9325-06, D-9325-07: both versions, known names only, and a protocol in common.
#[tokio::test(flavor = "local")]
async fn d_9325_02_tls_1_2_and_1_3_are_served_to_known_names() {
    let rig = Rig::start().await;
    let attempt = async |versions: &[&'static rustls::SupportedProtocolVersion], name: &str, alpn: &str| {
        let mut roots = rustls::RootCertStore::empty();
        let pem = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_file(
            &rig.running.ca_file,
        );
        roots.add(pem.expect("a certificate")).expect("a usable one");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(rig.running.address).await.expect("it listens");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connected = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
        connected.map(|stream| stream.get_ref().1.protocol_version())
    };
    use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
    use rustls::version::{TLS12, TLS13};
    assert_eq!(attempt(&[&TLS12], "localhost", "h2").await.expect("served"), Some(TLSv1_2));
    assert_eq!(attempt(&[&TLS13], "127.0.0.1", "h2").await.expect("served"), Some(TLSv1_3));
    assert_eq!(attempt(&[&TLS12, &TLS13], "localhost", "h2").await.expect("served"), Some(TLSv1_3));
    assert!(attempt(&[&TLS13], "other.example", "h2").await.is_err());
    let error = attempt(&[&TLS13], "localhost", "foo").await.expect_err("nothing in common");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

/// Sends one HTTP/1.1 request on a connection of its own and returns the answer as text.
async fn http1(rig: &Rig, request: &str, body: &[u8]) -> String {
    let mut stream = rig.tls(&["http/1.1"]).await;
    stream.write_all(request.as_bytes()).await.expect("written");
    stream.write_all(body).await.expect("written");
    stream.flush().await.expect("flushed");
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time").expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
    line.expect("the field is there").split_once(": ").expect("name and value").1
}

/// A-PS-99, A-GAP-11, A-ALL-07: all but receiving works over HTTP/1.1; monitoring is refused at once.
#[tokio::test(flavor = "local")]
async fn a_ps_99_http_1_1_serves_all_but_monitoring() {
    let rig = Rig::start().await;
    let end = "Host: localhost\r\nConnection: close\r\n";
    let made = http1(&rig, &format!("POST /subscribe HTTP/1.1\r\n{end}Content-Length: 0\r\n\r\n"), b"").await;
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let subscription = field(&made, "location").to_owned();
    let push = field(&made, "link").split(['<', '>']).nth(1).expect("a target").to_owned();

    let post = format!("POST {push} HTTP/1.1\r\n{end}TTL: 60\r\nContent-Length: 5\r\n\r\n");
    let sent = http1(&rig, &post, b"hello").await;
    assert!(sent.starts_with("HTTP/1.1 201") && field(&sent, "date").ends_with("GMT"), "{sent}");
    let message = field(&sent, "location").to_owned();
    let shown = http1(&rig, &format!("GET {message} HTTP/1.1\r\n{end}\r\n"), b"").await;
    assert!(shown.starts_with("HTTP/1.1 200") && shown.ends_with("\r\n\r\nhello"), "{shown}");

    let refused = http1(&rig, &format!("GET {subscription} HTTP/1.1\r\n{end}\r\n"), b"").await;
    assert!(refused.starts_with("HTTP/1.1 505") && refused.ends_with("HTTP/2"), "{refused}");

    let chunked = format!("POST {push} HTTP/1.1\r\n{end}TTL: 60\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n");
    let body = [&[b'x'; 4_097][..], b"\r\n0\r\n\r\n"].concat();
    assert!(http1(&rig, &chunked, &body).await.starts_with("HTTP/1.1 413"));

    let gone = http1(&rig, &format!("DELETE {message} HTTP/1.1\r\n{end}\r\n"), b"").await;
    assert!(gone.starts_with("HTTP/1.1 204"), "{gone}");
    let unknown = http1(&rig, &format!("DELETE {message} HTTP/1.1\r\n{end}\r\n"), b"").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
}

/// D-9113-01: a client that negotiates nothing gets HTTP/1.1, never HTTP/2.
#[tokio::test(flavor = "local")]
async fn d_9113_01_no_alpn_is_no_http_2() {
    let rig = Rig::start().await;
    let stream = TcpStream::connect(rig.running.address).await.expect("it listens");
    let connector = TlsConnector::from(std::sync::Arc::new(client_config(&rig.running.ca_file, &[])));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 404"));
}

/// A-PS-69: a sender that writes all before it reads hears of its refusal as well.
#[tokio::test(flavor = "local")]
async fn a_ps_69_a_refusal_is_heard_by_who_sends_all_first() {
    let rig = Rig::start().await;
    let made = rig.client().await.subscribe(None).await;
    for length in [5_000, 70_000, 300_000, 1_000_000] {
        for fields in [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()] {
            let body = if fields.starts_with('C') { vec![b'x'; length] } else { chunked(length) };
            let request =
                format!("POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTTL: 60\r\n{fields}\r\n\r\n", made.push);
            let answer = http1(&rig, &request, &body).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{length}, {fields}: {answer}");
        }
    }
    assert_eq!(rig.client().await.monitor(&made.set, Some("wait=0")).end().await, 204);
}

fn chunked(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n0\r\n\r\n"].concat()
}
