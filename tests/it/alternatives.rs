//! Alternative services (RFC 7838): the gateway against a service at several places, and our service at two.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use fieldgate::service::alternative::Alternative;
use fieldgate::time::ClockReading;
use fieldgate::transport::clock::WallClock;
use fieldgate::wire::{ChannelId, MessageId, ToDevice, ToGateway};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;

use crate::device::ScriptedDevice;
use crate::places::{Manner, Places};
use crate::raw_push_service::RawPushService;
use crate::raw_user_agent::frame;
use crate::rig::{Rig, await_true};

/// The type of the frame that announces alternatives.
const ALTSVC: u8 = 10;

/// A gateway for the origin of a service, and its device.
async fn gateway(places: &Places) -> (Rig, ScriptedDevice<UnixStream>) {
    let mut rig = Rig::with_service_at(&places.url, &places.ca_file);
    rig.start_gateway();
    let device = rig.attach(7).await;
    (rig, device)
}

/// A-UA-29, A-UA-30, A-UA-47, D-7838-01: the gateway moves to what the service announces. Name, authorities and what is
/// stored are those of the origin; every request there says where it is, and none before; the monitor is open there before
/// the old connection ends, in order.
#[tokio::test(flavor = "local")]
async fn a_ua_29_an_alternative_is_used_under_the_name_of_the_origin() {
    let places = Places::start().await;
    let there = places.open(Manner::Serves).await;
    places.announce(&format!("h3=\":1\", h2=\"127.0.0.1:{there}\"; ma=60"));
    let (rig, mut device) = gateway(&places).await;
    device.tend(await_true(|| places.count(places.origin, "CLOSED in order") == 1)).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    let push = device.hear_subscribed(2).await;
    device.say(&ToGateway::Unsubscribe { channel: ChannelId(2) }).await;
    device.tend(await_true(|| places.count(there, "DELETE /s/1") == 1)).await;

    let origin = format!("localhost:{}", places.origin);
    assert!(push.starts_with(&format!("https://{origin}/p/")), "{push}");
    assert_eq!(places.at(there)[0], "CONNECTED localhost");
    for (port, used) in [(there, format!("127.0.0.1:{there}")), (places.origin, "-".to_owned())] {
        let requests = places.at(port).into_iter().filter(|line| !line.starts_with('C')).collect::<Vec<_>>();
        assert!(
            !requests.is_empty() && requests.iter().all(|line| line.ends_with(&format!(" {origin} {used}"))),
            "{requests:?}"
        );
    }
    let log = places.log();
    let position = |line: String| log.iter().position(|logged| logged.starts_with(&line)).expect("it is there");
    assert!(position(format!("{there} GET /t/0")) < position(format!("{} CLOSED", places.origin)));
    let stored = std::fs::read_dir(&rig.config.state).expect("readable");
    for file in stored.map(|entry| entry.expect("readable").path()).filter(|path| path.is_file()) {
        let (octets, place) = (std::fs::read(&file).expect("readable"), there.to_string());
        assert!(!octets.windows(place.len()).any(|octets| octets == place.as_bytes()), "{}", file.display());
    }
    let status = rig.await_status(|status| status["uplink"] == "connected").await;
    assert_eq!(status["alternatives"][0]["service"], format!("127.0.0.1:{there}"));
    assert_eq!((&status["alternatives"][0]["state"], &status["last_error"]), (&"in use".into(), &().into()));
    for command in ["status", "connections"] {
        let text = device.tend(shown(&rig, command)).await;
        assert!(text.contains(&format!("alternative   127.0.0.1:{there} (in use)\n")), "{text}");
    }
}

/// C-52, D-7838-05: a gateway that starts while nothing listens at the origin connects at once to an alternative that persists,
/// under the name of the origin; `clear` takes that from flash.
#[tokio::test(flavor = "local")]
async fn c_52_an_alternative_that_persists_is_used_after_a_restart() {
    let places = Places::start().await;
    let there = places.open(Manner::Serves).await;
    places.announce(&format!("h2=\"127.0.0.1:{there}\"; persist=1"));
    let mut rig = Rig::with_service_at(&places.url, &places.ca_file);
    rig.clock = WallClock::new(|| ClockReading { wall_ms: 1_800_000_000_000, is_synchronised: true });
    rig.start_gateway();
    rig.await_status(|status| status["alternatives"][0]["state"] == "in use").await;
    rig.stop_gateway().await;
    let connected_count = |port| places.count(port, "CONNECTED");
    let at_origin = connected_count(places.origin);

    for is_alive in [true, false] {
        if !is_alive {
            places.close(places.origin).await;
        }
        let before = places.at(there).len();
        rig.start_gateway();
        let status = rig.await_status(|status| status["alternatives"][0]["state"] == "in use").await;
        assert_eq!((&status["uplink"], &status["counters"]["connections"]), (&"connected".into(), &1.into()));
        await_true(|| places.at(there)[before..].iter().any(|line| line.starts_with("GET /t/0"))).await;
        let connected = |line: &&String| line.starts_with("CONNECTED");
        assert_eq!(places.at(there)[before..].iter().filter(connected).collect::<Vec<_>>(), ["CONNECTED localhost"]);
        rig.stop_gateway().await;
        assert_eq!(connected_count(places.origin), at_origin, "the origin is not asked first");
    }

    rig.start_gateway();
    places.announce("clear");
    let mut device = rig.attach(7).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    rig.stop_gateway().await;
    rig.start_gateway();
    let status = rig.await_status(|status| !status["last_error"].is_null()).await;
    assert_eq!(status["alternatives"].as_array().map(Vec::len), Some(0), "the origin is tried, where nobody is");
}

/// D-7838-02, D-7838-07: what cannot show a certificate for the origin, agrees on another protocol or on none, or does not
/// listen, has failed: it gets no request, the origin serves on, and a person is told why.
#[tokio::test(flavor = "local")]
async fn d_7838_02_an_alternative_that_is_not_the_origin_is_not_used() {
    for (manner, trouble) in [
        (Some(Manner::OtherName), "certificate"),
        (Some(Manner::OldProtocol), "protocol"),
        (Some(Manner::NoProtocol), "protocol"),
        (None, "network"),
    ] {
        let places = Places::start().await;
        let there = match manner {
            Some(manner) => places.open(manner).await,
            // Nothing ever listens there.
            None => 1,
        };
        places.announce(&format!("h2=\"127.0.0.1:{there}\""));
        let (rig, mut device) = gateway(&places).await;
        let failed = rig.await_status(|status| status["alternatives"][0]["state"] == "failed");
        let status = device.tend(failed).await;
        assert_eq!(status["alternatives"][0]["trouble"], trouble);
        assert_eq!((&status["needs_person"], &status["last_error"]), (&false.into(), &().into()), "{trouble}");
        let text = device.tend(shown(&rig, "status")).await;
        assert!(text.contains(&format!("alternative   127.0.0.1:{there} (failed, {trouble})\n")), "{text}");
        device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
        device.hear_subscribed(2).await;
        assert_eq!((places.count(places.origin, "POST"), places.count(places.origin, "CONNECTED")), (2, 1));
        assert!(
            places.at(there).iter().all(|line| line.starts_with('C') || line == "REFUSED"),
            "{:?}",
            places.at(there)
        );
    }
}

/// D-7838-13, D-7838-03: a 421 of an alternative sends the request back to the origin, on a new connection; what the 421 itself says of
/// alternatives is ignored, and the place is left alone although the origin goes on to name it. Each handshake names the origin.
#[tokio::test(flavor = "local")]
async fn d_7838_13_a_421_is_answered_by_asking_the_origin() {
    let places = Places::start().await;
    let there = places.open(Manner::Misdirected).await;
    places.announce(&format!("h2=\":{there}\""));
    let (rig, mut device) = gateway(&places).await;
    device.tend(await_true(|| places.count(places.origin, "GET /t/0") == 2)).await;
    assert_eq!((places.count(there, "CONNECTED"), places.count(there, "GET /t/0")), (1, 1));
    let status = device.tend(rig.await_status(|status| status["uplink"] == "connected")).await;
    let alternatives = status["alternatives"].to_string();
    assert!(!alternatives.contains(":9\"") && !alternatives.contains("in use"), "{alternatives}");
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    let status = device.tend(rig.await_status(|status| status["alternatives"][0]["state"] == "failed")).await;
    assert_eq!(status["alternatives"][0]["trouble"], "misdirected");
    assert_eq!(places.count(there, "CONNECTED"), 1);
    let connected: Vec<String> = places.log().into_iter().filter(|line| line.contains("CONNECTED")).collect();
    assert!(
        connected.len() == 3 && connected.iter().all(|line| line.ends_with(" CONNECTED localhost")),
        "{connected:?}"
    );
}

/// D-7838-13: a request that is no GET is repeated at the origin as well: the alternative has not looked at it.
#[tokio::test(flavor = "local")]
async fn d_7838_13_a_421_to_a_post_is_answered_by_asking_the_origin() {
    let places = Places::start().await;
    let there = places.open(Manner::MisdirectedPost).await;
    places.announce(&format!("h2=\":{there}\""));
    let (rig, mut device) = gateway(&places).await;
    device.tend(await_true(|| places.count(places.origin, "CLOSED in order") == 1)).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(2) }).await;
    device.hear_subscribed(2).await;
    assert_eq!((places.count(there, "POST"), places.count(places.origin, "POST")), (1, 2));
    device.tend(await_true(|| places.count(there, "CLOSED in order") == 1)).await;
    let status = device.tend(rig.await_status(|status| status["uplink"] == "connected")).await;
    assert!(status["last_error"].is_null() && status["trouble"].is_null(), "moving is no trouble");
}

/// D-7838-09: `clear` empties what is known, whatever was announced before it.
#[tokio::test(flavor = "local")]
async fn d_7838_09_clear_empties_what_is_known() {
    let places = Places::start().await;
    places.announce("h2=\":1\"");
    let (rig, mut device) = gateway(&places).await;
    device.tend(rig.await_status(|status| status["alternatives"][0]["state"] == "failed")).await;
    for (value, count) in [("Clear", 1), ("clear", 0)] {
        places.announce(value);
        let channel = 2 + u16::from(count == 0);
        device.say(&ToGateway::Subscribe { channel: ChannelId(channel) }).await;
        device.hear_subscribed(channel).await;
        let status = rig.await_status(|status| status["uplink"] == "connected").await;
        assert_eq!(status["alternatives"].as_array().map(Vec::len), Some(count), "{value}");
    }
}

/// D-7838-10: of four frames two are for the origin of the connection; the others are ignored, and the connection lives.
#[tokio::test(flavor = "local")]
async fn d_7838_10_frames_announce_alternatives() {
    let service = RawPushService::start().await;
    let mut rig = Rig::with_service_at(&service.url, &service.ca_file);
    rig.start_gateway();
    let mut connection = service.accept().await;
    connection.serve_until(|it| it.is_monitored()).await;
    let mut device = connection.serve(rig.attach(7)).await;
    let origin = service.url.trim_end_matches("/subscribe").to_owned();
    for (stream, origin, port, is_used) in
        [(1, "", 1, true), (0, origin.as_str(), 2, true), (0, "", 3, false), (1, origin.as_str(), 4, false)]
    {
        let length = u16::try_from(origin.len()).expect("short").to_be_bytes();
        // Nothing listens there, which the status tells.
        let payload = [&length[..], origin.as_bytes(), format!("h2=\":{port}\"").as_bytes()].concat();
        connection.send(&[frame(ALTSVC, 0, stream, &payload)]).await;
        let place = format!("127.0.0.1:{}", if is_used { port } else { 2 });
        let known = rig.await_status(|status| status["alternatives"][0]["service"] == place);
        connection.serve(device.tend(known)).await;
        // What comes after the frame is understood, so that it was read.
        device.say(&ToGateway::Subscribe { channel: ChannelId(1 + port) }).await;
        connection.serve(device.hear_subscribed(1 + port)).await;
        let status = connection.serve(rig.await_status(|status| status["uplink"] == "connected")).await;
        assert_eq!(status["alternatives"][0]["service"], place);
        assert_eq!(status["counters"]["connections"], 1);
    }
}

/// A-PS-03, A-PS-64, A-UA-30: our own service at two places, while messages are sent: each is relayed once, what was made at
/// the first place works at the second one, and the sender notices nothing.
#[tokio::test(flavor = "local")]
async fn a_ps_03_fifty_messages_across_the_move_are_relayed_once_each() {
    let mut rig = Rig::with_alternative(Alternative { ip: None, port: 0 }).await;
    let there = rig.alternative();
    rig.start_gateway();
    // The answer to the subscribe request moves the gateway; the first messages are sent before the device is there.
    let subscription = rig.subscription(1).await;
    rig.await_status(|status| status["alternatives"][0]["state"] == "in use").await;
    rig.stop_gateway().await;
    let mut messages = Vec::new();
    for number in 0..25 {
        messages.push(rig.send(&subscription, &number.to_string()).await);
    }
    // It asks the origin again, where the first messages come, until the answer to a request moves it.
    rig.start_gateway();
    let mut device = rig.attach(8).await;
    for number in 25..50 {
        messages.push(rig.send(&subscription, &number.to_string()).await);
    }
    let mut heard = BTreeSet::new();
    while heard.len() < 50 {
        let (message, text) = pushed(&mut device).await;
        assert!(heard.insert(text), "each comes once");
        device.say(&ToGateway::Ack { message }).await;
    }
    assert_eq!(heard, (0..50).map(|number| number.to_string()).collect());
    for message in &messages {
        device.tend(rig.await_gone(message)).await;
    }
    let moved = rig.await_status(|status| {
        status["alternatives"][0]["state"] == "in use" && status["counters"]["acknowledged"] == 50
    });
    let status = device.tend(moved).await;
    assert_eq!(status["alternatives"][0]["service"], there.to_string());
    assert_eq!((&status["counters"]["relayed"], &status["counters"]["connections"]), (&50.into(), &2.into()));
    assert_eq!(device.idle(Duration::from_millis(50)).await, [], "nothing comes twice");
}

/// What a command says of the gateway.
async fn shown(rig: &Rig, command: &'static str) -> String {
    let control = rig.config.control.clone();
    let mut asking = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
    asking.args([command, "--control"]).arg(control);
    let ran = spawn_blocking(move || asking.output()).await.expect("no panic").expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

/// The next message at the device, and its text.
async fn pushed(device: &mut ScriptedDevice<UnixStream>) -> (MessageId, String) {
    let heard = device.hear().await;
    match heard.message() {
        ToDevice::Push { message, body, .. } => (message, String::from_utf8_lossy(body).into_owned()),
        other => panic!("{other:?} instead of a message"),
    }
}
