//! Messages from application servers that identify themselves, over real TLS (RFC 8292).

use fieldgate::sender::SendError;
use fieldgate::sender::signer::Signer;
use fieldgate::webpush::exchange::PostError;
use fieldgate::wire::{ToDevice, ToGateway};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::application_server::{ApplicationServer, HEADER, claims};
use crate::device::ScriptedDevice;
use crate::process::{Site, await_true};
use crate::rig::Rig as System;
use crate::service::{Client, Rig};

const OPTIONS: (&str, &str) = ("content-type", "application/webpush-options+json");
const HOUR_S: u64 = 3_600;

/// The time in some seconds, by the clock of the service.
fn in_s(rig: &Rig, seconds: u64) -> u64 {
    rig.running.clock.now().wall.0 + seconds
}

/// Subscribes with a content, and returns the paths of subscription and push resource.
async fn subscribe_with(client: &mut Client, fields: &[(&str, &str)], content: &str) -> Result<[String; 2], u16> {
    let answer = client.request("POST", "/subscribe", fields, content.as_bytes()).await;
    if answer.status != 201 {
        return Err(answer.status.as_u16());
    }
    let link = answer.fields.get_all("link").iter().next().expect("a link").to_str().expect("text");
    let push = link.split(['<', '>']).nth(1).expect("a target").to_owned();
    Ok([answer.field("location").to_owned(), push])
}

async fn restricted(client: &mut Client, server: &ApplicationServer) -> [String; 2] {
    let content = format!("{{\"vapid\":\"{}\"}}", server.key());
    subscribe_with(client, &[OPTIONS], &content).await.expect("made")
}

async fn post(client: &mut Client, push: &str, authorization: Option<&str>) -> u16 {
    let fields: Vec<_> = [("ttl", "60")].into_iter().chain(authorization.map(|it| ("authorization", it))).collect();
    client.request("POST", push, &fields, b"m").await.status.as_u16()
}

/// D-8292-10, D-8292-12, D-8292-14, D-8292-16: the one server is let in, over both versions of HTTP and after a restart,
/// until its token expires; what it shows stays with the service.
#[tokio::test(flavor = "local")]
async fn d_8292_14_the_server_of_a_restricted_subscription_is_let_in_and_not_told_of() {
    let (rig, server) = (Rig::start().await, ApplicationServer::new());
    let mut client = rig.client().await;
    let [subscription, push] = restricted(&mut client, &server).await;
    drop(client);
    let rig = rig.restart().await;
    let mut client = rig.client().await;
    let field = server.field(&client.origin, in_s(&rig, HOUR_S));
    assert_eq!(post(&mut client, &push, None).await, 401);
    let mut monitor = client.monitor(&subscription, None);
    for content in ["two", "one"] {
        match content {
            "two" => assert_eq!(post(&mut client, &push, Some(&field)).await, 201),
            _ => assert!(http1(&rig, &push, &field).await.starts_with("HTTP/1.1 201 ")),
        }
        let pushed = monitor.next().await;
        let seen = format!("{:?} {:?} {:?}", pushed.promise, pushed.answer.fields, pushed.answer.body);
        assert!(!seen.contains("authorization") && !seen.contains(&server.key()) && !seen.contains("vapid"), "{seen}");
        let mut names: Vec<&str> = pushed.answer.fields.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "date", "link"]);
    }
    // Time passes, and what was good once is not good for ever.
    rig.running.clock.skip(std::time::Duration::from_secs(HOUR_S));
    assert_eq!(post(&mut client, &push, Some(&field)).await, 403);
    assert!(http1(&rig, &push, "Bearer x").await.starts_with("HTTP/1.1 401 "));
    let field = server.field(&client.origin, in_s(&rig, HOUR_S));
    assert!(http1(&rig, &push, &field.replace("t=", "t=x")).await.starts_with("HTTP/1.1 403 "));
}

/// Posts by HTTP/1.1 and returns the head of the answer.
async fn http1(rig: &Rig, push: &str, authorization: &str) -> String {
    let mut stream = rig.tls(&["http/1.1"]).await;
    let request = format!(
        "POST {push} HTTP/1.1\r\nhost: {}\r\nttl: 60\r\nauthorization: {authorization}\r\nconnection: close\r\n\
         content-length: 1\r\n\r\nm",
        rig.authority()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it is closed properly");
    String::from_utf8_lossy(&answer).into_owned()
}

/// D-8292-13, D-8292-01, D-8292-02, D-8292-03: what is missing is 401, what is wrong is 403, and none of it reaches the user
/// agent; on a subscription for everybody what is wrong is no better.
#[tokio::test(flavor = "local")]
async fn d_8292_13_nobody_else_is_let_in() {
    let (rig, server, other) = (Rig::start().await, ApplicationServer::new(), ApplicationServer::new());
    let mut client = rig.client().await;
    let [subscription, push] = restricted(&mut client, &server).await;
    let open = client.subscribe(None).await;
    let (origin, soon) = (client.origin.clone(), in_s(&rig, HOUR_S));
    let good = claims(&origin, soon);
    let (token, key) = (server.token(HEADER, &good), server.key());
    let elsewhere = claims("https://push.example.net", soon);

    for (what, field) in [("no field", None), ("another scheme", Some("Bearer x"))] {
        assert_eq!(post(&mut client, &push, field).await, 401, "{what}");
        assert_eq!(post(&mut client, &open.push, field).await, 201, "{what}");
    }
    let answer = client.request("POST", &push, &[("ttl", "60")], b"m").await;
    assert_eq!((answer.field("www-authenticate"), answer.body.is_empty()), ("vapid", false));
    for (what, field) in [
        ("no token", format!("vapid k={key}")),
        ("no key", format!("vapid t={token}")),
        ("signed by another", format!("vapid t={}, k={key}", other.token(HEADER, &good))),
        ("signed in DER", format!("vapid t={}, k={key}", server.der_token(HEADER, &good))),
        ("not signed", server.field_of(r#"{"alg":"none"}"#, &good)),
        ("a shared secret", server.field_of(r#"{"alg":"HS256"}"#, &good)),
        ("expired", server.field(&origin, in_s(&rig, 0) - 1)),
        ("for more than a day", server.field(&origin, in_s(&rig, 24 * HOUR_S + 60))),
        ("for another service", server.field_of(HEADER, &elsewhere)),
        ("without audience", server.field_of(HEADER, &format!("{{\"exp\":{soon}}}"))),
        ("without end", server.field_of(HEADER, &format!("{{\"aud\":\"{origin}\"}}"))),
        ("no JWT", format!("vapid t=x, k={key}")),
    ] {
        for push in [&push, &open.push] {
            assert_eq!(post(&mut client, push, Some(&field)).await, 403, "{what}");
        }
    }
    let foreign = other.field(&origin, soon);
    assert_eq!(post(&mut client, &push, Some(&foreign)).await, 403);
    assert_eq!(post(&mut client, &open.push, Some(&foreign)).await, 201, "who may send needs no permission");
    let reordered = format!("VAPID k={key} ,x=\"1\",\tt={token}");
    assert_eq!(client.monitor(&subscription, Some("wait=0")).end().await, 204, "nothing has come");
    assert_eq!(post(&mut client, &push, Some(&reordered)).await, 201);
    assert_eq!(client.monitor(&subscription, Some("wait=0")).finish().await.1.len(), 1);
}

/// D-8292-02: a push service to which a server has sent cannot pass its token on, whatever host it names here.
#[tokio::test(flavor = "local")]
async fn d_8292_02_a_token_from_another_service_is_not_taken() {
    let (rig, server) = (Rig::start().await, ApplicationServer::new());
    let mut client = rig.client().await;
    let [_, push] = restricted(&mut client, &server).await;
    client.origin = "https://push.example.net".to_owned();
    let field = server.field(&client.origin, in_s(&rig, HOUR_S));
    assert_eq!(post(&mut client, &push, Some(&field)).await, 403);
    client.origin = format!("https://localhost:{}", rig.running.address.port());
    let field = server.field(&client.origin, in_s(&rig, HOUR_S));
    assert_eq!(post(&mut client, &push, Some(&field)).await, 201, "it is another name of the service");
}

/// D-8292-09: the key that signs must not be the one that the message was encrypted with.
#[tokio::test(flavor = "local")]
async fn d_8292_09_one_key_for_both_is_refused() {
    let (rig, server, other) = (Rig::start().await, ApplicationServer::new(), ApplicationServer::new());
    let mut client = rig.client().await;
    let [_, push] = restricted(&mut client, &server).await;
    let field = server.field(&client.origin, in_s(&rig, HOUR_S));
    let fields = [("ttl", "60"), ("content-encoding", "aes128gcm"), ("authorization", &field)];
    for (key, status) in [(server.octets(), 400), (other.octets(), 201)] {
        let body = [&[0; 20][..], &[65], &key, &[7; 40]].concat();
        assert_eq!(client.request("POST", &push, &fields, &body).await.status, status);
    }
}

/// D-8292-11: other media types and other members are ignored; options that cannot be read make no subscription.
#[tokio::test(flavor = "local")]
async fn d_8292_11_options_are_read_within_bounds() {
    let (rig, server) = (Rig::start().await, ApplicationServer::new());
    let mut client = rig.client().await;
    let (key, soon) = (server.key(), in_s(&rig, HOUR_S));
    let named = format!("{{\"vapid\":\"{key}\"}}");
    let more = format!("{{\"x\":[1],\"vapid\":\"{key}\",\"y\":{{}}}}");
    let longest = format!("{named}{}", " ".repeat(4_096 - named.len()));
    let text = ("content-type", "text/plain");
    for (fields, content, is_restricted) in [
        (&[OPTIONS][..], &*named, true),
        (&[OPTIONS], &more, true),
        (&[OPTIONS], &longest, true),
        (&[OPTIONS], "{}", false),
        (&[text], &named, false),
        (&[text], "{", false),
        (&[], &named, false),
    ] {
        let [_, push] = subscribe_with(&mut client, fields, content).await.expect("made");
        assert_eq!(post(&mut client, &push, None).await, if is_restricted { 401 } else { 201 }, "{content}");
        let field = server.field(&client.origin, soon);
        assert_eq!(post(&mut client, &push, Some(&field)).await, 201, "{content}");
    }
    let longer = format!("{longest} ");
    for (content, status) in
        [("", 400), ("{", 400), ("[]", 400), ("{\"vapid\":7}", 400), ("{\"vapid\":\"AAAA\"}", 400), (&longer, 413)]
    {
        assert_eq!(subscribe_with(&mut client, &[OPTIONS], content).await, Err(status), "{content}");
    }
}

/// D-8292-10, D-8292-12, D-8292-15: a device that names its application server is sent to by that one alone, from the
/// subscribe request to the device; with another key it has another subscription, and that key works.
#[tokio::test(flavor = "local")]
async fn d_8292_12_a_device_is_sent_to_by_its_own_server_alone() {
    let keys = tempfile::tempdir().expect("a folder");
    let signer = |name: &str| {
        let file = keys.path().join(name);
        if !file.exists() {
            Signer::create(&file).expect("made");
        }
        Signer::read(&file, Some("mailto:push@example.com".parse().expect("a contact"))).expect("a key")
    };
    let mut rig = System::with_authority(None).await;
    rig.config.devices[0].options.application_server_key = Some(signer("one").key().clone());
    rig.start_gateway();
    let first = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let refused = |sent: Result<_, SendError>| match sent {
        Err(SendError::Refused(PostError::Status(status))) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(rig.try_send(&first, "from nobody").await), 401);
    rig.identify_by(&first, signer("two"));
    assert_eq!(refused(rig.try_send(&first, "from another").await), 403);
    rig.identify_by(&first, signer("one"));
    rig.send(&first, "from its own").await;
    assert_eq!(acknowledged(&mut device).await, b"from its own");

    let mut config = rig.config.clone();
    config.devices[0].options.application_server_key = Some(signer("two").key().clone());
    rig.reload(Ok(config)).await;
    let mut second = rig.subscription(1).await;
    while second == first {
        second = device.tend(rig.subscription(1)).await;
    }
    rig.identify_by(&second, signer("two"));
    rig.send(&second, "from the new one").await;
    assert_eq!(acknowledged(&mut device).await, b"from the new one");
}

/// The text of the next message, which is acknowledged.
async fn acknowledged(device: &mut ScriptedDevice<UnixStream>) -> Vec<u8> {
    loop {
        let heard = device.hear().await;
        if let ToDevice::Push { message, body, .. } = heard.message() {
            let body = body.to_vec();
            device.say(&ToGateway::Ack { message }).await;
            return body;
        }
    }
}

/// D-8292-05, D-8292-12: with the real binary: a key is made and shown, a device is restricted to it, and its holder sends.
#[test]
fn d_8292_05_a_key_from_the_command_line_is_let_in() {
    let (site, _service) = Site::with_service();
    site.configure(&[]);
    let _gateway = site.start_gateway();
    let key_file = site.path("vapid.pem");
    let made = site.command_alone(&["vapid", "--new", &key_file]);
    let shown = site.command_alone(&["vapid", &key_file, "--json"]);
    let key = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), format!("{{\"application_server_key\":\"{key}\"}}\n"));
    let again = site.command_alone(&["vapid", "--new", &key_file]);
    assert_eq!((again.status.code(), again.stdout.is_empty()), (Some(1), true));

    await_true("the gateway runs", || site.command(&["status"]).status.success());
    let link = site.device_link("d1");
    let added = site.command(&["device", "add", "d1", "--link", &link, "--application-server-key", &key]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let _device = site.start_device("d1", &[]);
    let subscription = site.subscription("d1");
    let refused = site.try_send(&subscription, "from nobody");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--vapid"));
    let sent =
        site.send_with(&subscription, "from its own", &["--vapid", &key_file, "--contact", "mailto:a@example.com"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    site.await_received("d1", "from its own");
    let bad = site.send_with(&subscription, "x", &["--vapid", &key_file, "--contact", "tel:1"]);
    assert_eq!(bad.status.code(), Some(2));
}
