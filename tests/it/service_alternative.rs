//! Our push service at two places (RFC 7838).

use fieldgate::service::alternative::Alternative;
use fieldgate::service::{Service, ServiceOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::raw_user_agent::{HEADERS, RawUserAgent};
use crate::service::Rig;

/// The type of the frame that announces alternatives.
const ALTSVC: u8 = 10;

async fn at_two_places() -> Rig {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), folder.path().join("state"));
    let options = ServiceOptions { alternative: Some(Alternative { ip: None, port: 0 }), ..options };
    Rig { running: Service::start(options).await.expect("the service starts"), folder }
}

/// A-PS-03, A-PS-64: answers name the other place, where everything that was made at the first one works as before, under
/// the same authority and with the same certificate.
#[tokio::test(flavor = "local")]
async fn a_ps_64_what_was_made_at_one_place_works_at_the_other() {
    let mut rig = at_two_places().await;
    let (origin, there) = (rig.authority(), rig.running.alternative.expect("it listens there"));
    assert_ne!(there, rig.running.address);
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    rig.running.address = there;
    let mut other = rig.client().await;
    other.origin = format!("https://{origin}");
    let mut monitor = other.monitor(&made.set, None);
    let message = other.message(&made.push, "60", b"sent there").await;
    let pushed = monitor.next().await;
    assert_eq!((pushed.path(), pushed.text().as_str()), (message.as_str(), "sent there"));
    assert_eq!(pushed.promise.uri().authority().map(|authority| authority.as_str()), Some(origin.as_str()));
    assert!(!pushed.answer.fields.contains_key("alt-svc"), "a push says it no second time");
    assert_eq!(client.acknowledge(&message).await, 204);
    assert_eq!(other.request("GET", &message, &[], b"").await.status, 404);
    let announced = format!("h2=\":{}\"; ma=86400", there.port());
    for client in [&mut client, &mut other] {
        let answer = client.request("DELETE", &made.subscription, &[], b"").await;
        assert_eq!(answer.field("alt-svc"), announced, "{}", answer.status);
    }
}

/// A-PS-03: clients that speak HTTP/1.1 are told as well; a service at one place says nothing.
#[tokio::test(flavor = "local")]
async fn every_answer_tells_and_none_where_there_is_nothing_to_tell() {
    for (rig, is_told) in [(at_two_places().await, true), (Rig::start().await, false)] {
        let mut stream = rig.tls(&["http/1.1"]).await;
        stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answer.contains("alt-svc: h2=\":"), is_told, "{answer}");
        let answer = rig.client().await.request("GET", "/nothing", &[], b"").await;
        assert_eq!((answer.status.as_u16(), answer.fields.contains_key("alt-svc")), (404, is_told));
    }
}

/// D-7838-11: what a client says of alternatives, in frames or in fields, changes nothing.
#[tokio::test(flavor = "local")]
async fn d_7838_11_what_clients_say_of_alternatives_is_ignored() {
    let rig = Rig::start().await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    let origin = format!("https://{}", rig.authority());
    let length = u16::try_from(origin.len()).expect("short").to_be_bytes();
    let value = b"h2=\":1\"";
    agent.send(ALTSVC, 0, 0, &[&length[..], origin.as_bytes(), value].concat()).await;
    agent.send(ALTSVC, 0, 1, &[&[0, 0], &value[..]].concat()).await;
    agent.send(ALTSVC, 0, 0, b"\xff").await;
    agent.request(1, "POST", "/subscribe", &[("alt-svc", "h2=\":1\""), ("alt-used", "elsewhere")]).await;
    let answer = agent.next().await.expect("the connection is open");
    assert_eq!((answer.kind, answer.stream), (HEADERS, 1));
    let mut client = rig.client().await;
    let answer = client.request("POST", "/subscribe", &[("alt-svc", "clear"), ("alt-used", "elsewhere")], b"").await;
    assert_eq!((answer.status.as_u16(), answer.fields.contains_key("alt-svc")), (201, false));
}
