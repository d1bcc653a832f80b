//! Topics and delivery receipts of the push service, over the network.

use std::time::Duration;

use fieldgate::service::retention::Policy;
use fieldgate::webpush::link;

use crate::raw_user_agent::{END_STREAM, HEADERS, PING, PUSH_PROMISE, RawUserAgent};
use crate::service::{Answer, Client, Rig, Subscribed};

/// The path that an answer links to by a relation.
fn linked(client: &Client, answer: &Answer, relation: &str) -> String {
    let base = client.origin.parse().expect("a URI");
    link::find(&answer.fields, relation, &base).expect("a link").expect("a good one").path().to_owned()
}

/// Posts a message whose receipt is wanted; the paths of message and receipt subscription.
async fn post(
    client: &mut Client,
    to: &Subscribed,
    receipts: Option<&str>,
    fields: &[(&str, &str)],
) -> (String, String) {
    let link = receipts.map(|path| link::value(path, link::RECEIPT).to_str().expect("text").to_owned());
    let mut all = vec![("prefer", "respond-async")];
    all.extend(link.iter().map(|link| ("link", &**link)));
    all.extend(fields);
    let answer = client.request("POST", &to.push, &all, b"m").await;
    assert_eq!(answer.status, 202);
    (answer.field("location").to_owned(), linked(client, &answer, link::RECEIPT))
}

/// A-PS-16, A-PS-18, A-PS-20, A-PS-57: the whole round, over two subscriptions and one receipt subscription.
#[tokio::test(flavor = "local")]
async fn a_ps_16_delivery_is_confirmed() {
    let rig = Rig::start().await;
    let (mut agent, mut sender) = (rig.client().await, rig.client().await);
    let (one, two) = (agent.subscribe(None).await, agent.subscribe(None).await);
    let (first, receipts) = post(&mut sender, &one, None, &[("ttl", "60")]).await;
    let (second, again) = post(&mut sender, &two, Some(&receipts), &[("ttl", "60")]).await;
    assert_eq!(receipts, again);
    let mut monitor = sender.monitor(&receipts, None);
    for (made, message) in [(&one, &first), (&two, &second)] {
        assert_eq!(agent.monitor(&made.set, None).next().await.path(), message);
    }
    assert_eq!(agent.acknowledge(&second).await, 204);
    let told = monitor.next().await;
    assert_eq!((told.path(), told.answer.status.as_u16(), told.answer.body.len()), (&*second, 204, 0));
    assert_eq!(agent.acknowledge(&first).await, 204);
    assert_eq!(monitor.next().await.path(), first);
    // What it answers after a receipt says that it has that.
    for _ in 0..2 {
        assert_eq!(sender.monitor(&receipts, Some("wait=0")).end().await, 204);
    }
    drop((sender, monitor));
    assert_eq!(rig.client().await.monitor(&receipts, Some("wait=0")).end().await, 204, "all are told, for ever");
}

/// A-PS-61, A-PS-62: a monitoring request on a receipt subscription stays open; a receipt is a promise on the message's path
/// and a head that ends its stream.
#[tokio::test(flavor = "local")]
async fn a_ps_62_a_receipt_is_a_promise_and_a_head() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let (message, receipts) = post(&mut client, &made, None, &[("ttl", "7200")]).await;
    let mut sender = RawUserAgent::connect(&rig, &[]).await;
    sender.request(1, "GET", &receipts, &[]).await;
    assert_eq!(sender.barrier().await, []);
    rig.running.clock.skip(Duration::from_secs(3_600));
    assert_eq!(sender.barrier().await, []);
    client.acknowledge(&message).await;
    let promise = sender.expect(PUSH_PROMISE, 1).await;
    let text = String::from_utf8_lossy(&promise.payload).into_owned();
    assert!(!text.contains("urn:ietf"), "no link: {text}");
    let head = sender.expect(HEADERS, promise.promised()).await;
    assert_eq!((head.payload[0], head.flags & END_STREAM), (0x89, END_STREAM), "204");
    assert_eq!(sender.barrier().await.iter().filter(|frame| frame.kind != PING).count(), 0);
}

/// A-PS-21, A-PS-78: what is presented and is no receipt subscription, or none any more, is 400, and nothing is kept.
#[tokio::test(flavor = "local")]
async fn a_ps_21_only_receipt_subscriptions_are_presented() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let (message, receipts) = post(&mut client, &made, None, &[("ttl", "60")]).await;
    assert_eq!(client.request("DELETE", &receipts, &[], b"").await.status, 204);
    for path in [&*receipts, &made.set, &made.push, &message, "/AAAAAAAAAAAAAAAAAAAAAA"] {
        let link = link::value(path, link::RECEIPT).to_str().expect("text").to_owned();
        let fields = [("ttl", "60"), ("prefer", "respond-async"), ("link", &*link)];
        assert_eq!(client.request("POST", &made.push, &fields, b"refused").await.status, 400, "{path}");
    }
    let (status, pushes) = client.monitor(&made.set, Some("wait=0")).finish().await;
    assert_eq!((status.as_u16(), pushes.len()), (200, 1), "the message is delivered on");
    assert_eq!(client.request("GET", &receipts, &[], b"").await.status, 404);
}

/// A-PS-73, A-PS-75, A-GAP-09, A-GAP-10: receipts are kept for who comes later, through a restart; the end of a
/// subscription gives up its messages, and the end of a receipt subscription answers its request.
#[tokio::test(flavor = "local")]
async fn a_ps_73_the_end_of_a_subscription_fails_its_receipts() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let (first, receipts) = post(&mut client, &made, None, &[("ttl", "60")]).await;
    let (second, _) = post(&mut client, &made, Some(&receipts), &[("ttl", "60")]).await;
    assert_eq!(client.request("DELETE", &made.subscription, &[], b"").await.status, 204);
    drop(client);
    let rig = rig.restart().await;
    let mut client = rig.client().await;
    let mut monitor = client.monitor(&receipts, None);
    for message in [first, second] {
        let told = monitor.next().await;
        assert_eq!((told.path(), told.answer.status.as_u16()), (&*message, 410));
    }
    assert_eq!(client.request("DELETE", &receipts, &[], b"").await.status, 204);
    assert_eq!(monitor.end().await, 404);
}

/// A receipt is over once its receiver has answered something later: one that never does gets it again elsewhere.
#[tokio::test(flavor = "local")]
async fn a_receipt_that_did_not_arrive_comes_again() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let (message, receipts) = post(&mut client, &made, None, &[("ttl", "60")]).await;
    let mut silent = RawUserAgent::connect(&rig, &[]).await;
    silent.request(1, "GET", &receipts, &[]).await;
    silent.barrier().await;
    client.acknowledge(&message).await;
    silent.expect(PUSH_PROMISE, 1).await;
    // It goes before it has answered what comes next.
    drop(silent);
    assert_eq!(client.monitor(&receipts, None).next().await.path(), message);
}

/// A-PS-38, A-PS-40, A-PS-41, A-PS-46: the newest message of a topic is there alone, and of the replaced ones nobody
/// is told.
#[tokio::test(flavor = "local")]
async fn a_ps_38_one_message_of_a_topic_is_pushed() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let fields = [("ttl", "60"), ("topic", "upd")];
    let (first, receipts) = post(&mut client, &made, None, &fields).await;
    let (second, _) = post(&mut client, &made, Some(&receipts), &fields).await;
    for wrong in ["", "a.b", &"x".repeat(33)] {
        let fields = [("ttl", "60"), ("topic", wrong)];
        assert_eq!(client.request("POST", &made.push, &fields, b"refused").await.status, 400);
    }
    let (third, _) = post(&mut client, &made, Some(&receipts), &fields).await;
    for replaced in [&first, &second] {
        assert_eq!(client.request("GET", replaced, &[], b"").await.status, 404);
        assert_eq!(client.acknowledge(replaced).await, 404);
    }
    let (_, pushes) = client.monitor(&made.set, Some("wait=0")).finish().await;
    assert_eq!(pushes.iter().map(|push| push.path()).collect::<Vec<_>>(), [&third]);
    client.acknowledge(&third).await;
    let (_, told) = client.monitor(&receipts, Some("wait=0")).finish().await;
    assert_eq!(told.iter().map(|told| told.path()).collect::<Vec<_>>(), [&third]);
}

/// A-PS-94, A-PS-95, D-6585-01: over the rate of a push resource a message is refused with the time to wait, and not kept;
/// another push resource has a rate of its own.
#[tokio::test(flavor = "local")]
async fn a_ps_94_a_message_over_the_rate_is_429() {
    let rig = Rig::with_policy(Policy { sends_per_minute: Some(10), ..Policy::default() }).await;
    let mut client = rig.client().await;
    let (made, other) = (client.subscribe(None).await, client.subscribe(None).await);
    for _ in 0..10 {
        client.message(&made.push, "60", b"m").await;
    }
    let refused = client.request("POST", &made.push, &[("ttl", "60")], b"m").await;
    assert_eq!(refused.status, 429);
    assert!((1..=6).contains(&refused.field("retry-after").parse::<u32>().expect("a number")));
    client.message(&other.push, "60", b"m").await;
    rig.running.clock.skip(Duration::from_secs(6));
    client.message(&made.push, "60", b"m").await;
}
