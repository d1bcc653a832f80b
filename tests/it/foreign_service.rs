//! The gateway against a push service that is not ours.

use fieldgate::control::Request;
use fieldgate::wire::{ChannelId, ToGateway};

use crate::push_service::{PushService, Script};
use crate::rig::{Rig, await_true};

/// A-UA-33, A-UA-35: a 404 that ends the monitor with its head, without content, is understood.
#[tokio::test(flavor = "local")]
async fn a_set_that_is_gone_is_made_anew_also_without_content() {
    let service = PushService::start(Script { monitor: Some(404), ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    await_true(|| service.count("POST /subscribe") == 2).await;
}

/// A-UA-22: a 204 that ends a request for stored messages is no error, and it is not asked again.
#[tokio::test(flavor = "local")]
async fn nothing_stored_is_asked_for_once() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    rig.ask(&Request::DeviceFetch { id: "d1".into() }).await.expect("asked");
    await_true(|| service.count("GET /s/0") == 1).await;
    // Two more rounds of requests leave it at that: the channel is removed and made anew.
    device.say(&ToGateway::Unsubscribe { channel: ChannelId(1) }).await;
    device.tend(await_true(|| service.count("DELETE /s/0") == 1)).await;
    assert_eq!(service.count("GET /s/0"), 1);
}

/// A-UA-37, A-UA-02: with two streams, a set's monitor keeps one; everything else goes over the other.
#[tokio::test(flavor = "local")]
async fn two_streams_are_enough() {
    let service = PushService::start(Script { streams: 2, ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    for channel in 2..=8 {
        device.say(&ToGateway::Subscribe { channel: ChannelId(channel) }).await;
        device.hear_subscribed(channel).await;
    }
    rig.ask(&Request::DeviceFetch { id: "d1".into() }).await.expect("asked");
    for channel in 2..=8 {
        device.say(&ToGateway::Unsubscribe { channel: ChannelId(channel) }).await;
    }
    device.tend(await_true(|| service.count("DELETE /s/") == 7)).await;
    assert_eq!((service.count("GET /t/0"), service.count("CONNECTED")), (1, 1));
}

/// A-UA-30, A-UA-31, D-9113-13: a service that lets the connection go gets a new one with the monitor on it before the old
/// one is closed, and what comes next goes over the new one.
#[tokio::test(flavor = "local")]
async fn a_ua_31_a_goaway_is_answered_by_moving() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    device.tend(await_true(|| service.count("GET /t/0") == 1)).await;
    service.go_away();
    device.tend(await_true(|| service.count("GET /t/0") == 2)).await;
    assert_eq!((service.count("CONNECTED"), service.count("CLOSED")), (2, 0));
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    device.tend(await_true(|| service.count("CLOSED") == 1)).await;
    let status = rig.await_status(|status| status["uplink"] == "connected").await;
    assert_eq!((&status["counters"]["connections"], service.count("POST /subscribe")), (&2.into(), 2));
    assert!(status["last_error"].is_null() && status["trouble"].is_null(), "moving is no trouble");
}

/// A-UA-28: a subscribe that is sent on to another origin is made there, with the same method and the same set, and read
/// there; the connection to the first one stays for the next.
#[tokio::test(flavor = "local")]
async fn a_ua_28_a_307_is_followed_to_another_origin() {
    let second = PushService::start(Script::default()).await;
    let authority: http::uri::Authority =
        second.url["https://".len()..].split('/').next().expect("one").parse().expect("one");
    let first = PushService::start(Script { sends_on_to: authority.port_u16(), ..Script::default() }).await;
    // The gateway trusts both.
    let both = [&first, &second].map(|service| std::fs::read_to_string(&service.ca_file).expect("there"));
    std::fs::write(&first.ca_file, both.concat()).expect("written");
    let mut rig = Rig::with_foreign(&first).await;
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    device.tend(await_true(|| second.count("POST /subscribe2") == 1 && second.count("GET /t/0") == 1)).await;
    let subscription = rig.subscription(1).await;
    assert!(subscription.endpoint.as_str().starts_with(&format!("https://{authority}/p/")));
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    assert_eq!((first.count("POST /subscribe"), first.count("CONNECTED"), first.count("GET")), (2, 1, 0));
    assert_eq!((second.count("POST /subscribe2"), second.count("CONNECTED")), (2, 1));
}

/// A-UA-42: the credential is shown to the configured service when subscribing, and to none that it sends on to.
#[tokio::test(flavor = "local")]
async fn a_ua_42_the_credential_is_for_the_configured_service_alone() {
    let second = PushService::start(Script::default()).await;
    let port =
        second.url.trim_start_matches("https://127.0.0.1:").trim_end_matches("/subscribe").parse().expect("a port");
    let first = PushService::start(Script { sends_on_to: Some(port), ..Script::default() }).await;
    let both = [&first, &second].map(|service| std::fs::read_to_string(&service.ca_file).expect("there"));
    std::fs::write(&first.ca_file, both.concat()).expect("written");
    let mut rig = Rig::with_foreign(&first).await;
    rig.give_credential("t0ken");
    rig.start_gateway();
    rig.subscription(1).await;
    await_true(|| second.count("GET /t/0 -") == 1).await;
    assert_eq!(first.count("POST /subscribe Bearer t0ken"), 1);
    assert_eq!((second.count("POST /subscribe2 -"), second.count("POST")), (1, 1));
}

/// C-38: TLS alone is no connection; the peer's HTTP/2 preface belongs to it.
#[tokio::test(flavor = "local")]
async fn a_service_that_says_nothing_is_not_connected() {
    let service = PushService::start(Script { silent: true, ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    await_true(|| service.count("CONNECTED") == 1).await;
    let status = rig.await_status(|status| status["uplink"] == "connecting").await;
    assert_eq!(status["counters"]["connections"], 0);
}

/// A-UA-17, B-UA-09: without sets each subscription is monitored by itself.
#[tokio::test(flavor = "local")]
async fn without_sets_each_subscription_is_monitored() {
    let service = PushService::start(Script { sets: false, ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    device.tend(await_true(|| service.count("GET /s/0") == 1 && service.count("GET /s/1") == 1)).await;
}
