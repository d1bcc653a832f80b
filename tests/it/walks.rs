//! The four walks through the whole system: delivery, subscription, restart, redelivery.

use fieldgate::control::Request;
use fieldgate::wire::{ChannelId, MessageId, Refusal, ToDevice, ToGateway};

use crate::device::Heard;
use crate::rig::Rig;

/// A-UA-24, A-UA-25: each message is acknowledged at the service when its own device ack came, and not before.
#[tokio::test(flavor = "local")]
async fn push_delivered_and_acknowledged() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let withheld = rig.send(&subscription, "first").await;
    let acknowledged = rig.send(&subscription, "second").await;
    let first = pushed(&device.hear().await, 1, "first");
    let second = pushed(&device.hear().await, 1, "second");
    device.say(&ToGateway::Ack { message: second }).await;
    device.tend(rig.await_gone(&acknowledged)).await;
    assert!(rig.holds(&withheld).await, "no DELETE without a device ack");
    device.say(&ToGateway::Ack { message: first }).await;
    device.tend(rig.await_gone(&withheld)).await;
}

/// A-UA-25, A-GAP-05: what the device refuses for good is not acknowledged.
#[tokio::test(flavor = "local")]
async fn a_refused_message_stays_with_the_service() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let message = rig.send(&subscription, "unwanted").await;
    let id = pushed(&device.hear().await, 1, "unwanted");
    device.say(&ToGateway::Refuse { message: id, reason: Refusal::NotPossible }).await;
    let refused = rig.await_status(|status| status["counters"]["undeliverable"] == 1);
    device.tend(refused).await;
    assert!(rig.holds(&message).await);
}

/// A-UA-49, A-UA-50: a device's own channel is a subscription of its own, told once it is on flash, and the same after
/// a restart.
#[tokio::test(flavor = "local")]
async fn subscription_created() {
    let mut rig = Rig::start().await;
    rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(9) }).await;
    let told = device.hear_subscribed(9).await;
    let subscription = rig.subscription(9).await;
    assert_eq!(told, subscription.endpoint.as_str());
    assert_ne!(told, rig.subscription(1).await.endpoint.as_str());
    rig.send(&subscription, "to channel 9").await;
    pushed(&device.hear().await, 9, "to channel 9");

    rig.stop_gateway().await;
    rig.start_gateway();
    let mut device = rig.attach(8).await;
    device.say(&ToGateway::Subscribe { channel: ChannelId(9) }).await;
    assert_eq!(device.hear_subscribed(9).await, told);
}

/// A-UA-32, A-PS-66: what was sent while gateway and service were away arrives in order once they are back.
#[tokio::test(flavor = "local")]
async fn reconnect_after_power_loss() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    rig.stop_gateway().await;
    let mut messages = Vec::new();
    for text in ["one", "two", "three"] {
        messages.push(rig.send(&subscription, text).await);
    }
    rig.restart_service().await;
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    for text in ["one", "two", "three"] {
        let id = pushed(&device.hear().await, 1, text);
        device.say(&ToGateway::Ack { message: id }).await;
    }
    for message in &messages {
        device.tend(rig.await_gone(message)).await;
    }
    assert_eq!(rig.subscription(1).await, subscription);
}

/// A-UA-26: a device that went without acknowledging gets the message again, with the same id.
#[tokio::test(flavor = "local")]
async fn silent_device_redelivery() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let message = rig.send(&subscription, "again").await;
    let id = pushed(&device.hear().await, 1, "again");
    drop(device);
    rig.await_status(|status| status["devices"][0]["presence"] == "absent").await;
    assert!(rig.holds(&message).await);
    let mut device = rig.attach(8).await;
    assert_eq!(pushed(&device.hear().await, 1, "again"), id);
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_gone(&message)).await;
}

/// Walk D: what was promised while the device was away is fetched when it comes.
#[tokio::test(flavor = "local")]
async fn messages_for_an_absent_device_are_fetched_when_it_comes() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    rig.await_status(|status| status["uplink"] == "connected").await;
    let message = rig.send(&subscription, "early").await;
    rig.await_status(|status| status["counters"]["refused"] == 1).await;
    let mut device = rig.attach(7).await;
    let id = pushed(&device.hear().await, 1, "early");
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_gone(&message)).await;
}

/// A-UA-38, D-9325-11: with another certification authority no request is made; the reason is shown.
#[tokio::test(flavor = "local")]
async fn a_service_that_cannot_be_verified_gets_no_request() {
    let other = Rig::with_authority(None).await;
    let mut rig = Rig::with_authority(Some(other.ca_file())).await;
    rig.start_gateway();
    let status = rig.await_status(|status| status["last_error"].is_string()).await;
    assert!(status["last_error"].as_str().is_some_and(|error| error.contains("certificate")), "{status}");
    assert_eq!(status["counters"]["connections"], 0);
    assert_eq!(rig.ask(&Request::DeviceShow { id: "d1".into(), channel: None }).await, Ok(serde_json::Value::Null));
}

/// A-UA-02, A-UA-46: everything for every subscription shares one connection.
#[tokio::test(flavor = "local")]
async fn all_subscriptions_share_one_connection() {
    let mut rig = Rig::start().await;
    let mut device = rig.attach(7).await;
    for channel in 2..=8 {
        device.say(&ToGateway::Subscribe { channel: ChannelId(channel) }).await;
        device.hear_subscribed(channel).await;
    }
    for channel in 1..=8 {
        let subscription = rig.subscription(channel).await;
        let message = rig.send(&subscription, "x").await;
        let id = pushed(&device.hear().await, channel, "x");
        device.say(&ToGateway::Ack { message: id }).await;
        device.tend(rig.await_gone(&message)).await;
    }
    let status = rig.await_status(|_| true).await;
    assert_eq!((&status["counters"]["connections"], &status["monitors"]), (&1.into(), &1.into()));
}

fn pushed(heard: &Heard, channel: u16, text: &str) -> MessageId {
    match heard.message() {
        ToDevice::Push { message, channel: ChannelId(on), body, .. } if on == channel && body == text.as_bytes() => {
            message
        }
        other => panic!("{other:?} instead of {text:?} on channel {channel}"),
    }
}
