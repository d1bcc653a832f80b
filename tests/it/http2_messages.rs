//! RFC 9113 §8 between either side and a peer that writes single frames: what is malformed is never taken for a message.

use crate::raw_push_service::{GOOD_HEAD, RawPushService, Seen, head};
use crate::raw_stage::{Stage, encrypted, is_delivered};
use crate::raw_user_agent::{
    DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawUserAgent, SETTINGS, block, frame,
    settings,
};
use crate::rig::Rig;

const PROTOCOL_ERROR: u32 = 1;

type Fields<'f> = Vec<(&'f str, &'f str)>;

/// D-9113-02: the first frame of a gateway is SETTINGS, and server push is not switched off in it.
#[tokio::test(flavor = "local")]
async fn d_9113_02_the_gateway_leaves_server_push_on() {
    let service = RawPushService::start().await;
    let mut rig = Rig::with_service_at(&service.url, &service.ca_file);
    rig.start_gateway();
    let first = service.accept().await.first;
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    let settings = settings(&first.payload);
    assert!(!settings.is_empty());
    assert!(settings.iter().all(|&(id, value)| id != ENABLE_PUSH || value == 1), "{settings:?}");
}

/// D-9113-18: the gateway asks nothing of a promised resource while its push goes on: no DELETE comes before END_STREAM.
#[tokio::test(flavor = "local")]
async fn d_9113_18_nothing_is_asked_of_a_message_that_is_still_pushed() {
    let mut stage = Stage::set().await;
    let mut other = stage.connection.serve(stage.rig.attach_at("d2", "d2", 8)).await;
    let to_other = stage.connection.serve(stage.rig.subscription_of("d2", 1)).await;
    let body = stage.encrypted("in two parts");
    let (stream, promise) = stage.connection.promise(&stage.subscription.endpoint, "/m/1");
    // Everything is there but the end.
    stage.connection.send(&[promise, head(stream, &GOOD_HEAD, 0), frame(DATA, 0, stream, &body)]).await;
    // One behind it, for another device, is delivered and acknowledged meanwhile.
    let whole = encrypted(&to_other, "whole", &mut stage.random);
    stage.connection.push(&to_other.endpoint, "/m/2", &GOOD_HEAD, &whole).await;
    is_delivered(&mut stage.connection, &mut other, "whole").await;
    assert_eq!(stage.connection.count(Seen::Delete), 1, "of the whole one alone");

    stage.connection.send(&[frame(DATA, END_STREAM, stream, &[])]).await;
    is_delivered(&mut stage.connection, &mut stage.device, "in two parts").await;
    assert_eq!(stage.connection.count(Seen::Delete), 2);
    let seen = &stage.connection.seen;
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Reset { .. })), "{seen:?}");
}

/// D-9113-19: a push whose head is malformed, or whose length is another than it says, ends as an error of its stream; it
/// reaches no device and is not acknowledged, and the next one on the same connection is.
#[tokio::test(flavor = "local")]
async fn d_9113_19_a_malformed_push_is_not_relayed() {
    let mut stage = Stage::set().await;
    let body = stage.encrypted("malformed");
    assert!((100..200).contains(&body.len()), "so that the lengths below are wrong");
    let no_status = GOOD_HEAD[1..].to_vec();
    for (name, fields, body) in [
        ("short DATA", with(&[("content-length", "200")]), &body[..]),
        ("long DATA", with(&[("content-length", "50")]), &body),
        ("no DATA", with(&[("content-length", "50")]), &[]),
        ("two lengths", with(&[("content-length", "50"), ("content-length", "60")]), &body),
        ("a length that is no number", with(&[("content-length", "many")]), &body),
        ("no status", no_status.clone(), &body),
        ("a status after a field", [no_status, vec![GOOD_HEAD[0]]].concat(), &body),
        ("two statuses", [&GOOD_HEAD[..1], &GOOD_HEAD].concat(), &body),
        ("connection", with(&[("connection", "close")]), &body),
        ("keep-alive", with(&[("keep-alive", "5")]), &body),
        ("proxy-connection", with(&[("proxy-connection", "close")]), &body),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), &body),
        ("upgrade", with(&[("upgrade", "h2c")]), &body),
    ] {
        let to = stage.subscription.endpoint.clone();
        let stream = stage.connection.push(&to, &format!("/malformed/{name}"), &fields, body).await;
        stage.is_reset(name, stream).await;
    }
}

/// D-9113-19: a promise that is malformed ends as an error of its stream or, where the field block itself is, of the
/// connection (RFC 9113 §5.4.1); what is pushed on it reaches no device.
#[tokio::test(flavor = "local")]
async fn d_9113_19_what_a_malformed_promise_brings_is_not_relayed() {
    for (name, missing, first, last) in [
        ("no method", ":method", None, None),
        ("no scheme", ":scheme", None, None),
        ("no path", ":path", None, None),
        ("two paths", "", Some((":path", "/other")), None),
        ("a path after a field", ":path", None, Some((":path", "/malformed"))),
        ("a status", "", Some((":status", "200")), None),
        ("connection", "", None, Some(("connection", "close"))),
        ("transfer-encoding", "", None, Some(("transfer-encoding", "chunked"))),
        ("content of its own", "", None, Some(("content-length", "5"))),
    ] {
        let mut stage = Stage::set().await;
        let endpoint = stage.subscription.endpoint.clone();
        let link = format!("<{}>; rel=\"urn:ietf:params:push\"", endpoint.as_str());
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", endpoint.authority())];
        let good = pseudo.into_iter().chain([(":path", "/malformed"), ("link", &link)]);
        let kept = good.filter(|(it, _)| *it != missing);
        let fields: Fields = first.into_iter().chain(kept).chain(last).collect();
        let (stream, promise) = stage.connection.promise_of(&fields);
        let body = stage.encrypted("malformed");
        let frames = [promise, head(stream, &GOOD_HEAD, 0), frame(DATA, END_STREAM, stream, &body)];
        stage.connection.send(&frames).await;
        stage.is_refused(name, stream).await;
    }
}

/// D-9113-19: names and values that no field can have end the connection, which is an error of the stream as well (RFC
/// 9113 §5.4.1); the push reaches no device, and the next connection serves it.
#[tokio::test(flavor = "local")]
async fn d_9113_19_a_push_with_impossible_fields_is_not_relayed() {
    for (name, fields) in [
        ("an upper-case name", with(&[("X-Field", "1")])),
        ("a name with a space", with(&[("x field", "1")])),
        ("a value with a line feed", with(&[("x-field", "1\n2")])),
        ("a status that is no number", vec![(":status", "ok"), GOOD_HEAD[1]]),
        ("an unknown pseudo field", [&[(":color", "red")], &GOOD_HEAD[..]].concat()),
    ] {
        // One for each: the pauses between connections that end soon grow.
        let mut stage = Stage::set().await;
        let body = stage.encrypted("malformed");
        let stream = stage.connection.push(&stage.subscription.endpoint, "/malformed", &fields, &body).await;
        stage.is_refused(name, stream).await;
    }
}

/// D-9113-19: a malformed request is an error of its stream, or 400; it stores no message and ends no subscription, and the
/// next request on the same connection is served.
#[tokio::test(flavor = "local")]
async fn d_9113_19_a_malformed_request_is_never_processed() {
    let rig = crate::service::Rig::start().await;
    let mut client = rig.client().await;
    let subscribed = client.subscribe(None).await;
    let mut raw = RawUserAgent::connect(&rig, &[]).await;
    let authority = rig.authority();
    let good: Fields = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", &subscribed.push),
        ("ttl", "60"),
    ];
    let without = |name: &str| good.iter().copied().filter(|(it, _)| *it != name).collect::<Fields>();
    let with = |more: &[(&'static str, &'static str)]| [&good, more].concat();
    let mut stream = 1;
    for (name, fields) in [
        ("short DATA", with(&[("content-length", "6")])),
        ("long DATA", with(&[("content-length", "4")])),
        ("two lengths", with(&[("content-length", "5"), ("content-length", "6")])),
        ("a length that is no number", with(&[("content-length", "five")])),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
        ("two paths", [&[(":path", "/other")], &good[..]].concat()),
        ("a path after a field", [&without(":path")[..], &[(":path", &*subscribed.push)]].concat()),
        ("a status", [&[(":status", "200")], &good[..]].concat()),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
    ] {
        let head = frame(HEADERS, END_HEADERS, stream, &block(&fields));
        raw.send_together(&[head, frame(DATA, END_STREAM, stream, b"12345")]).await;
        let seen = raw.barrier().await;
        let errors =
            seen.iter().filter(|it| it.kind == RST_STREAM && it.stream == stream && it.code() == PROTOCOL_ERROR);
        let refusals =
            seen.iter().filter(|it| it.kind == HEADERS && it.payload[0] == crate::raw_user_agent::STATUS_400);
        assert_eq!(errors.count() + refusals.count(), 1, "{name}: {seen:?}");
        stream += 2;
    }
    // The control: without a fault it is taken.
    raw.send_together(&[
        frame(HEADERS, END_HEADERS, stream, &block(&with(&[("content-length", "5")]))),
        frame(DATA, END_STREAM, stream, b"12345"),
    ])
    .await;
    println!("{:?}", raw.barrier().await);
    let (_, pushes) = client.monitor(&subscribed.subscription, Some("wait=0")).finish().await;
    assert_eq!(pushes.len(), 1, "the one that was well formed");
}

/// D-9113-19: names and values that no field can have end the connection of their sender, and nothing is stored.
#[tokio::test(flavor = "local")]
async fn d_9113_19_a_request_with_impossible_fields_is_never_processed() {
    let rig = crate::service::Rig::start().await;
    let mut client = rig.client().await;
    let subscribed = client.subscribe(None).await;
    for field in [("X-Field", "1"), ("x field", "1"), ("x-field", "1\n2"), (":color", "red")] {
        let mut raw = RawUserAgent::connect(&rig, &[]).await;
        let mut fields = vec![("ttl", "60")];
        // A pseudo field comes before the others.
        fields.insert(if field.0.starts_with(':') { 0 } else { 1 }, field);
        let request = raw.request_frame(1, "POST", &subscribed.push, &fields);
        raw.send_together(&[request]).await;
        let end = raw.expect(GOAWAY, 0).await;
        assert_eq!(end.code(), PROTOCOL_ERROR, "{field:?}");
        assert_eq!(raw.next().await, None, "{field:?}");
    }
    let (_, pushes) = client.monitor(&subscribed.subscription, Some("wait=0")).finish().await;
    assert!(pushes.is_empty());
}

/// The head of a message as it should be, and more.
fn with(more: &[(&'static str, &'static str)]) -> Fields<'static> {
    [&GOOD_HEAD, more].concat()
}
