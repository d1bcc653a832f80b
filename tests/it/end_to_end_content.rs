//! RFC 8291 at a push service that says what it likes: what a device gets was encrypted for it by its sender, or is nothing.

use fieldgate::random::SeededRandom;
use fieldgate::webpush::ece;
use fieldgate::webpush::subscription::PushSubscription;
use fieldgate::wire::{ChannelId, ToDevice};

use crate::raw_push_service::{GOOD_HEAD, Seen};
use crate::raw_stage::{Stage, is_delivered};

const TEXT: &str = "the sender's own words";

/// D-8291-15: fields come from the push service and not from the sender. Whatever they are, the device gets the same octets
/// on the same channel, and the message is acknowledged as any other.
#[tokio::test(flavor = "local")]
async fn d_8291_15_no_field_changes_what_the_device_gets() {
    let mut stage = Stage::set().await;
    let to = stage.subscription.endpoint.clone();
    for (number, more) in [
        &[][..],
        &[("content-type", "application/octet-stream")],
        &[("content-type", "application/json; charset=utf-16"), ("content-language", "fr")],
        &[("content-type", "nonsense"), ("content-type", "twice")],
        &[("content-disposition", "attachment; filename=\"/etc/passwd\"")],
        &[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"), ("date", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("last-modified", "Fri, 31 Dec 9999 23:59:59 GMT"), ("age", "99999999999999999999")],
        &[("last-modified", "yesterday"), ("date", "today"), ("expires", "0"), ("etag", "x")],
        &[("link", "</else>; rel=\"next\""), ("link", "nonsense"), ("location", "https://evil.example/")],
        &[("link", "</r/1>; rel=\"urn:ietf:params:push:receipt\"")],
        &[("topic", "other"), ("urgency", "very-low"), ("ttl", "0")],
        &[("crypto-key", "dh=AAAA"), ("encryption", "salt=AAAA"), ("authorization", "vapid t=x, k=y")],
        &[("set-cookie", "a=b"), ("refresh", "0"), ("alt-svc", "clear"), ("retry-after", "9999")],
        &[("x-channel", "7"), ("x-device", "d2"), ("from", "somebody@else.example")],
    ]
    .into_iter()
    .enumerate()
    {
        let body = stage.encrypted(TEXT);
        let fields = [&GOOD_HEAD, more].concat();
        stage.connection.push(&to, &format!("/m/{number}"), &fields, &body).await;
        let heard = stage.connection.serve(stage.device.hear()).await;
        let ToDevice::Push { channel, body, message, .. } = heard.message() else { panic!("{more:?}: {heard:?}") };
        assert_eq!((channel, body), (ChannelId(1), TEXT.as_bytes()), "{more:?}");
        stage.acknowledge(message).await;
    }
    let seen = &stage.connection.seen;
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Reset { .. } | Seen::GoAway { .. })), "{seen:?}");
}

/// D-8291-17, A-UA-39, A-UA-40: what is not encrypted, not for this device, not by somebody who knows its secret, or was
/// changed on its way reaches no device and is not acknowledged; the next message on the same connection is.
#[tokio::test(flavor = "local")]
async fn d_8291_17_only_what_is_properly_encrypted_is_delivered() {
    let mut stage = Stage::set().await;
    let to = stage.subscription.clone();
    let other = stage.connection.serve(stage.rig.subscription_of("d2", 1)).await;
    let good = stage.encrypted("never seen");
    let flipped = |at: usize| {
        let mut body = good.clone();
        body[at] ^= 1;
        body
    };
    let by =
        |public, auth, random: &mut SeededRandom| ece::encode(public, auth, b"never seen", 0, random).expect("it fits");
    let coding = |coding: &'static str| vec![GOOD_HEAD[0], ("content-encoding", coding)];
    let variants = [
        ("plaintext", coding("aes128gcm"), b"plaintext".to_vec()),
        ("no encoding", vec![GOOD_HEAD[0]], good.clone()),
        ("plaintext that says so", vec![GOOD_HEAD[0]], b"plaintext".to_vec()),
        ("another encoding", coding("gzip"), good.clone()),
        ("the encoding of a draft", coding("aesgcm"), good.clone()),
        ("two encodings", coding("aes128gcm, aes128gcm"), good.clone()),
        ("nothing", coding("aes128gcm"), vec![]),
        ("another salt", coding("aes128gcm"), flipped(0)),
        ("smaller records", coding("aes128gcm"), [&good[..16], &[0, 0, 0, 20], &good[20..]].concat()),
        ("a point off the curve", coding("aes128gcm"), flipped(60)),
        ("another ciphertext", coding("aes128gcm"), flipped(90)),
        ("another tag", coding("aes128gcm"), flipped(good.len() - 1)),
        ("less", coding("aes128gcm"), good[..good.len() - 1].to_vec()),
        ("more", coding("aes128gcm"), [&good[..], &[0]].concat()),
        ("another secret", coding("aes128gcm"), by(&to.public, &other.auth, &mut stage.random)),
        ("another key", coding("aes128gcm"), by(&other.public, &to.auth, &mut stage.random)),
        ("for another device", coding("aes128gcm"), by(&other.public, &other.auth, &mut stage.random)),
    ];
    for (number, (name, fields, body)) in variants.iter().enumerate() {
        stage.connection.push(&to.endpoint, &format!("/bad/{number}"), fields, body).await;
        stage.deliver(&format!("/good/{number}"), name).await;
        assert_eq!(stage.connection.count(Seen::Delete), number + 1, "{name}: the good ones alone");
    }
    let status = stage.connection.serve(stage.rig.await_status(|_| true)).await;
    assert_eq!(status["counters"]["undeliverable"], variants.len(), "{status}");
    assert_eq!(status["counters"]["connections"], 1);
}

/// D-8291-17: a message whose link names the subscription of another device reaches neither.
#[tokio::test(flavor = "local")]
async fn d_8291_17_a_message_under_a_wrong_link_reaches_nobody() {
    let mut stage = Stage::set().await;
    let mut other = stage.connection.serve(stage.rig.attach_at("d2", "d2", 8)).await;
    let to_other = stage.connection.serve(stage.rig.subscription_of("d2", 1)).await;
    let body = stage.encrypted("under a wrong link");
    stage.connection.push(&to_other.endpoint, "/bad", &GOOD_HEAD, &body).await;
    let PushSubscription { public, auth, endpoint } = &to_other;
    let right = ece::encode(public, auth, b"for d2", 0, &mut stage.random).expect("it fits");
    stage.connection.push(endpoint, "/good/2", &GOOD_HEAD, &right).await;
    is_delivered(&mut stage.connection, &mut other, "for d2").await;
    stage.deliver("/good/1", "for d1").await;
    assert_eq!(stage.connection.count(Seen::Delete), 2);
}

/// D-8291-18, A-ALL-14: padded messages look alike until the gateway has stripped what was added.
#[tokio::test(flavor = "local")]
async fn d_8291_18_padding_ends_at_the_gateway() {
    let mut stage = Stage::set().await;
    let PushSubscription { public, auth, endpoint } = stage.subscription.clone();
    let mut lengths = Vec::new();
    for (number, bytes) in [1, 2, 200, 400].into_iter().enumerate() {
        let text = "x".repeat(bytes);
        let padding = ece::padding(bytes, 512);
        let body = ece::encode(&public, &auth, text.as_bytes(), padding, &mut stage.random).expect("it fits");
        lengths.push(body.len());
        stage.connection.push(&endpoint, &format!("/m/{number}"), &GOOD_HEAD, &body).await;
        is_delivered(&mut stage.connection, &mut stage.device, &text).await;
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

/// D-8291-19: the gateway holds the keys. It decrypts, and no octet of the ciphertext goes on over the link.
#[tokio::test(flavor = "local")]
async fn d_8291_19_the_gateway_decrypts() {
    let mut stage = Stage::set().await;
    let body = stage.encrypted(TEXT);
    stage.connection.push(&stage.subscription.endpoint, "/m", &GOOD_HEAD, &body).await;
    let heard = stage.connection.serve(stage.device.hear()).await;
    let ToDevice::Push { body: plaintext, .. } = heard.message() else { panic!("{heard:?}") };
    assert_eq!(plaintext, TEXT.as_bytes());
    assert!(heard.0.len() < TEXT.len() + 32, "the text and a few octets around it: {}", heard.0.len());
    assert!(body.len() > heard.0.len() && !body.windows(TEXT.len()).any(|it| it == TEXT.as_bytes()));
}
