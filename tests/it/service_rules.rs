//! What the operator of a push service may ask of requests beyond the protocol.

use std::os::unix::fs::PermissionsExt as _;

use fieldgate::service::gate::Rules;
use fieldgate::service::{Service, ServiceOptions, StartError};
use fieldgate::webpush::link;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::raw_user_agent::{HEADERS, MAX_CONCURRENT_STREAMS, RST_STREAM, RawUserAgent};
use crate::service::{Answer, Client, Rig, Subscribed};

const REFUSED_STREAM: u32 = 7;

async fn ruled(rules: Rules) -> Rig {
    Rig::with(|options| options.rules = rules).await
}

async fn post(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    client.request("POST", path, fields, b"").await
}

fn link_to(path: &str, relation: &str) -> String {
    link::value(path, relation).to_str().expect("text").to_owned()
}

async fn holds_nothing(client: &mut Client, made: &Subscribed) {
    assert_eq!(client.monitor(&made.set, Some("wait=0")).end().await, 204, "nothing was stored");
}

/// A-PS-12: a connection that has subscribed names its set to subscribe again.
#[tokio::test(flavor = "local")]
async fn a_ps_12_a_second_subscription_needs_the_set() {
    let rig = ruled(Rules { require_set: true, ..Rules::default() }).await;
    let mut client = rig.client().await;
    // What fails does not count.
    let foreign = "<https://other.example/AAAAAAAAAAAAAAAAAAAAAA>; rel=\"urn:ietf:params:push:set\"";
    assert_eq!(post(&mut client, "/subscribe", &[("link", foreign)]).await.status, 400);
    let unknown = link_to("/AAAAAAAAAAAAAAAAAAAAAA", link::SET);
    assert_eq!(post(&mut client, "/subscribe", &[("link", &unknown)]).await.status, 400);
    let made = client.subscribe(None).await;
    for _ in 0..2 {
        let refused = post(&mut client, "/subscribe", &[]).await;
        assert_eq!((refused.status.as_u16(), refused.fields.contains_key("location")), (429, false));
        assert_eq!(client.subscribe(Some(&made.set)).await.set, made.set);
    }
}

/// A-PS-13: who comes from the same address on another connection gets a first subscription, by HTTP/1.1 as well.
#[tokio::test(flavor = "local")]
async fn a_ps_13_other_connections_are_other_user_agents() {
    let rig = ruled(Rules { require_set: true, ..Rules::default() }).await;
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    assert_ne!(one.subscribe(None).await.set, two.subscribe(None).await.set);
    let mut stream = rig.tls(&["http/1.1"]).await;
    let request = "POST /subscribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n";
    stream.write_all(format!("{request}\r\n{request}Connection: close\r\n\r\n").as_bytes()).await.expect("written");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.expect("read");
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["201", "429"]);
}

/// A-PS-83: with sets, two requests at once are enough, and the third is refused before it is looked at.
#[tokio::test(flavor = "local")]
async fn a_ps_83_a_third_request_at_once_is_refused() {
    let rig = ruled(Rules { require_set: true, ..Rules::default() }).await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    assert!(agent.settings.contains(&(MAX_CONCURRENT_STREAMS, 2)), "{:?}", agent.settings);
    for stream in [1, 3] {
        agent.request(stream, "GET", [&made.set, &made.subscription][stream as usize / 2], &[]).await;
    }
    assert_eq!(agent.barrier().await, []);
    agent.request(5, "DELETE", &made.subscription, &[]).await;
    assert_eq!(agent.expect(RST_STREAM, 5).await.code(), REFUSED_STREAM);
    assert_eq!(agent.barrier().await, [], "nothing was removed, and the connection goes on");
    agent.reset(3, 8).await;
    agent.request(7, "DELETE", &made.subscription, &[]).await;
    assert!(agent.expect(HEADERS, 7).await.ends_stream());
    let rig = Rig::start().await;
    let agent = RawUserAgent::connect(&rig, &[]).await;
    assert!(agent.settings.contains(&(MAX_CONCURRENT_STREAMS, 100)), "{:?}", agent.settings);
}

/// A-PS-22: a connection that has its receipt subscriptions names one of them for the next message.
#[tokio::test(flavor = "local")]
async fn a_ps_22_receipt_subscriptions_of_a_connection_are_limited() {
    let rig = ruled(Rules { receipt_subscriptions_per_connection: 1, ..Rules::default() }).await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let base = format!("{}/", client.origin).parse().expect("a URI");
    let fields = [("ttl", "60"), ("prefer", "respond-async")];
    // What fails does not count.
    assert_eq!(post(&mut client, &made.push, &fields[1..]).await.status, 400);
    let first = post(&mut client, &made.push, &fields).await;
    assert_eq!(first.status, 202);
    assert_eq!(client.acknowledge(first.field("location")).await, 204);
    let refused = post(&mut client, &made.push, &fields).await;
    assert_eq!((refused.status.as_u16(), refused.fields.contains_key("location")), (429, false));
    holds_nothing(&mut client, &made).await;

    let receipts = link::find(&first.fields, link::RECEIPT, &base).expect("a link").expect("a good one");
    let presented = link_to(receipts.path(), link::RECEIPT);
    let second = post(&mut client, &made.push, &[fields[0], fields[1], ("link", &presented)]).await;
    assert_eq!(second.status, 202);
    assert_eq!(post(&mut client, &made.push, &fields[..1]).await.status, 201, "without receipts there is no limit");
    let mut other = rig.client().await;
    assert_eq!(post(&mut other, &made.push, &fields).await.status, 202);
}

/// A-PS-63: who subscribes is sent elsewhere, and nothing is made here; what is here already is served.
#[tokio::test(flavor = "local")]
async fn a_ps_63_subscribe_requests_are_redirected() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    drop(client);
    let Rig { running, folder } = rig;
    running.stop().await;
    let mut options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), folder.path().join("state"));
    let elsewhere = "https://other.example:8443/subscribe";
    options.rules.redirect_to = Some(elsewhere.parse().expect("a URI"));
    let rig = Rig { running: Service::start(options).await.expect("it starts"), folder };
    let mut client = rig.client().await;
    let presented = link_to(&made.set, link::SET);
    for fields in [&[][..], &[("link", &*presented)], &[("link", "broken")]] {
        let answer = post(&mut client, "/subscribe", fields).await;
        assert_eq!((answer.status.as_u16(), answer.field("location")), (307, elsewhere));
        assert!(!answer.fields.contains_key("link"), "no subscription was made");
    }
    assert_eq!(client.request("GET", "/subscribe", &[], b"").await.status, 405);
    let message = client.message(&made.push, "60", b"m").await;
    assert_eq!(client.monitor(&made.set, None).next().await.path(), message);
}

/// A-PS-89, A-PS-90: who subscribes proves that it may; the rest is by capability alone.
#[tokio::test(flavor = "local")]
async fn a_ps_89_only_subscribing_takes_the_token() {
    let keys = tempfile::tempdir().expect("a folder");
    let file = keys.path().join("token");
    std::fs::write(&file, "s3cret\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let rig = Rig::with(|options| options.subscribe_token_file = Some(file.clone())).await;
    let mut client = rig.client().await;
    let right = ("authorization", "Bearer s3cret");
    for (fields, challenge) in [
        (&[][..], "Bearer realm=\"subscribe\""),
        (&[("authorization", "Bearer s3cre")], "Bearer realm=\"subscribe\", error=\"invalid_token\""),
        (&[("authorization", "Basic s3cret")], "Bearer realm=\"subscribe\", error=\"invalid_token\""),
        (&[right, right], "Bearer realm=\"subscribe\", error=\"invalid_token\""),
    ] {
        let answer = post(&mut client, "/subscribe", fields).await;
        assert_eq!((answer.status.as_u16(), answer.field("www-authenticate")), (401, challenge));
        assert!(!answer.fields.contains_key("location") && !answer.fields.contains_key("link"));
    }
    let answer = post(&mut client, "/subscribe", &[right]).await;
    assert_eq!(answer.status, 201);
    let base = format!("{}/", client.origin).parse().expect("a URI");
    let linked =
        |relation| link::find(&answer.fields, relation, &base).expect("a link").expect("good").path().to_owned();
    let mut stranger = rig.client().await;
    let mut monitor = stranger.monitor(&linked(link::SET), None);
    let message = stranger.message(&linked(link::PUSH), "60", b"m").await;
    assert_eq!(monitor.next().await.path(), message);
    assert_eq!(stranger.acknowledge(&message).await, 204);
    assert_eq!(stranger.request("DELETE", answer.field("location"), &[], b"").await.status, 204);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
    let mut options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), keys.path().join("state"));
    options.subscribe_token_file = Some(file);
    let refused = Service::start(options).await.expect_err("others may read it");
    assert!(matches!(&refused, StartError::Token(_)) && refused.to_string().contains("chmod 600"), "{refused}");
}

/// A-PS-09: a service that offers no sets says nothing of them, and that is all.
#[tokio::test(flavor = "local")]
async fn a_ps_09_sets_need_not_be_offered() {
    for (offer_sets, links) in [(true, 2), (false, 1)] {
        let rig = ruled(Rules { offer_sets, ..Rules::default() }).await;
        let mut client = rig.client().await;
        let answer = post(&mut client, "/subscribe", &[]).await;
        let mut names: Vec<&str> = answer.fields.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["date", "link", "location"]);
        assert_eq!((answer.status.as_u16(), answer.fields.get_all("link").iter().count()), (201, links));
        let base = format!("{}/", client.origin).parse().expect("a URI");
        assert_eq!(link::find(&answer.fields, link::SET, &base).is_some(), offer_sets);
        let push = link::find(&answer.fields, link::PUSH, &base).expect("a link").expect("good").path().to_owned();
        let mut monitor = client.monitor(answer.field("location"), None);
        let message = client.message(&push, "60", b"m").await;
        assert_eq!(monitor.next().await.path(), message);
        assert_eq!(client.acknowledge(&message).await, 204);
    }
}

/// A-PS-69, A-PS-70: an operator may allow longer messages, and they come whole.
#[tokio::test(flavor = "local")]
async fn a_ps_69_longer_messages_may_be_allowed() {
    let rig = ruled(Rules { message_bytes_max: 65_536, ..Rules::default() }).await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let longest = vec![7; 65_536];
    for announced in [&[("ttl", "60"), ("content-length", "65537")][..], &[("ttl", "60")]] {
        let refused = client.request("POST", &made.push, announced, &[&longest[..], &[7]].concat()).await;
        assert_eq!(refused.status, 413);
    }
    holds_nothing(&mut client, &made).await;
    let message = client.message(&made.push, "60", &longest).await;
    let pushed = client.monitor(&made.set, None).next().await;
    assert_eq!((pushed.path(), &pushed.answer.body[..]), (message.as_str(), &longest[..]));
}
