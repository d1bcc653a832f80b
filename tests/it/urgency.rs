//! Which messages are wanted, and what changes of it cost: nothing but another request.

use std::collections::BTreeSet;

use fieldgate::config::Config;
use fieldgate::sender::Sender;
use fieldgate::transport::properties::Trust;
use fieldgate::webpush::headers::{Ttl, Urgency};
use fieldgate::wire::{MessageId, ToDevice, ToGateway};
use serde_json::Value;

use crate::device::{Heard, ScriptedDevice};
use crate::push_service::{PushService, Script};
use crate::rig::{Rig, await_true};

/// A-UA-14, A-UA-16, D-9113-12: the new request goes out on the same connection while the old one is open, with the one word
/// that is wanted; the old one is not reset.
#[tokio::test(flavor = "local")]
async fn a_ua_16_the_new_request_goes_out_first_and_the_old_one_is_not_reset() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    wanting(&mut rig.config, Urgency::VeryLow);
    rig.start_gateway();
    await_true(|| service.count("GET /t/0") == 1).await;
    assert_eq!(service.count("GET /t/0 - "), 0, "all is wanted, which needs no word");
    let mut config = rig.config.clone();
    wanting(&mut config, Urgency::High);
    rig.reload(Ok(config.clone())).await;
    await_true(|| service.count("GET /t/0 - high") == 1).await;
    let status = rig.await_status(|status| status["monitors"] == 2).await;
    assert_eq!((&status["urgency"], &status["uplink"]), (&"high".into(), &"connected".into()));
    assert!(status["power"].is_string() && status["metered"].is_boolean(), "{status}");
    // One that wants more follows at once; one that wants less would have to wait.
    wanting(&mut config, Urgency::Low);
    rig.reload(Ok(config)).await;
    await_true(|| service.count("GET /t/0 - low") == 1).await;
    assert_eq!((service.count("GET /t/0"), service.count("RESET"), service.count("CONNECTED")), (3, 0, 1));
}

/// A-UA-16: levels change while 20 messages are sent, and the last one wants all of them: what was held back comes with the
/// new request, each message once, on the connection that was there.
#[tokio::test(flavor = "local")]
async fn a_ua_16_no_message_is_lost_or_relayed_twice_when_levels_change() {
    let mut rig = Rig::with_authority(None).await;
    wanting(&mut rig.config, Urgency::VeryLow);
    rig.start_gateway();
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let mut config = rig.config.clone();
    let mut messages = Vec::new();
    for number in 0..20 {
        rig.set_urgency(&subscription, Urgency::ALL[number % 4]);
        messages.push(device.tend(rig.send(&subscription, &format!("message {number}"))).await);
        let level = match number {
            5 => Urgency::High,
            12 => Urgency::Normal,
            _ => continue,
        };
        wanting(&mut config, level);
        device.tend(rig.reload(Ok(config.clone()))).await;
    }
    let is_settled = |status: &Value| status["urgency"] == "normal" && status["monitors"] == 1;
    device.tend(rig.await_status(is_settled)).await;
    let mut got = BTreeSet::new();
    let wanted: Vec<String> = (0..20).filter(|it| *it < 6 || it % 4 > 1).map(|it| format!("message {it}")).collect();
    while !wanted.iter().all(|text| got.contains(text)) {
        assert!(got.insert(hear(&mut device).await));
    }
    for (urgency, text) in [(Urgency::VeryLow, "held back"), (Urgency::High, "urgent")] {
        rig.set_urgency(&subscription, urgency);
        messages.push(device.tend(rig.send(&subscription, text)).await);
    }
    assert_eq!(hear(&mut device).await, "urgent");
    wanting(&mut config, Urgency::VeryLow);
    device.tend(rig.reload(Ok(config))).await;
    while got.len() < 21 {
        assert!(got.insert(hear(&mut device).await));
    }
    for message in &messages {
        device.tend(rig.await_gone(message)).await;
    }
    let status = device.tend(rig.await_status(|status| status["counters"]["acknowledged"] == 22)).await;
    let counters = &status["counters"];
    assert_eq!((&counters["connections"], &counters["relayed"]), (&1.into(), &22.into()));
}

/// A-UA-23, A-GAP-06: a service that ends each monitoring request at once is asked again, with pauses; that is not taken for
/// another gateway.
#[tokio::test(flavor = "local")]
async fn a_ua_23_requests_that_end_are_no_displacement() {
    let service = PushService::start(Script { monitor: Some(200), ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    await_true(|| service.count("GET /t/0") >= 5).await;
    let status = rig.await_status(|_| true).await;
    assert_ne!(status["uplink"], "displaced");
    assert_eq!(service.count("CONNECTED"), 1);
}

/// A-AS-13, A-AS-28: a message has one urgency, and no word for the one that all messages have.
#[tokio::test(flavor = "local")]
async fn a_as_13_a_message_is_sent_with_its_urgency() {
    let service = PushService::start(Script::default()).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    let subscription = rig.subscription(1).await;
    let mut sender = Sender::new(&subscription, Trust::File(service.ca_file.clone())).expect("it is there");
    for urgency in Urgency::ALL {
        sender.set_urgency(urgency);
        sender.send(&subscription, b"x", Ttl::from_secs(60)).await.expect("accepted");
    }
    for (line, count) in [("", 4), (" very-low", 1), (" low", 1), (" normal", 0), (" high", 1)] {
        assert_eq!(service.count(&format!("POST /p/0 -{line}")), count, "{line}");
    }
}

/// Whatever power and network are where the test runs.
fn wanting(config: &mut Config, level: Urgency) {
    let urgency = &mut config.urgency;
    (urgency.mains, urgency.battery, urgency.low_battery, urgency.metered) = (level, level, level, level);
}

/// The next message, acknowledged.
async fn hear(device: &mut ScriptedDevice<tokio::net::UnixStream>) -> String {
    let heard = device.hear().await;
    let (message, text) = pushed(&heard);
    device.say(&ToGateway::Ack { message }).await;
    text
}

fn pushed(heard: &Heard) -> (MessageId, String) {
    match heard.message() {
        ToDevice::Push { message, body, .. } => (message, String::from_utf8_lossy(body).into_owned()),
        other => panic!("{other:?}"),
    }
}
