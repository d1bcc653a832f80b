//! A running gateway takes up another configuration: what did not change does not notice.

use fieldgate::config::Config;
use fieldgate::control::Request;
use fieldgate::proto::device::{LinkOptions, Options};
use fieldgate::wire::{ChannelId, ToDevice, ToGateway};

use crate::device::Heard;
use crate::rig::Rig;

#[tokio::test(flavor = "local")]
async fn devices_come_and_go_while_another_keeps_its_session() {
    let mut rig = Rig::start().await;
    let kept = rig.subscription(1).await;
    let mut first = rig.attach(7).await;
    let mut config = rig.config.clone();
    config.devices.insert(0, rig.device("d2"));
    rig.reload(Ok(config.clone())).await;
    let added = first.tend(rig.subscription_of("d2", 1)).await;
    let mut second = rig.attach_at("d2", "d2", 8).await;
    rig.send(&added, "to the new one").await;
    let message = push_of(&first.tend(second.hear()).await, "to the new one");
    second.say(&ToGateway::Ack { message }).await;
    let acknowledged = rig.await_status(|status| status["counters"]["acknowledged"] == 1);
    first.tend(second.tend(acknowledged)).await;

    rig.reload(Ok(rig.config.clone())).await;
    assert!(first.tend(rig.ask(&Request::DeviceShow { id: "d2".to_owned(), channel: None })).await.is_err());
    assert_eq!(rig.subscription(1).await.endpoint, kept.endpoint);
    // The session of the first device lived through all of it.
    rig.send(&kept, "to the old one").await;
    let message = push_of(&first.hear().await, "to the old one");
    first.say(&ToGateway::Ack { message }).await;
    let acknowledged = rig.await_status(|status| status["counters"]["acknowledged"] == 2);
    let status = first.tend(acknowledged).await;
    assert_eq!(status["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["configuration"], serde_json::Value::Null);
}

/// The link of a device moves: what was handed over and not acknowledged is handed over again there, the subscription
/// is the same, and no other device is disturbed.
#[tokio::test(flavor = "local")]
async fn a_link_that_moves_loses_neither_messages_nor_the_subscription() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let sent = rig.send(&subscription, "before").await;
    push_of(&device.hear().await, "before");
    let mut config = rig.config.clone();
    config.devices[0].link = rig.device("elsewhere").link;
    rig.reload(Ok(config)).await;
    let status = rig.await_status(|status| status["devices"][0]["presence"] == "absent").await;
    assert_eq!(status["in_flight"], 1, "the message keeps its slot");
    let mut device = rig.attach_at("elsewhere", "d1", 8).await;
    let message = push_of(&device.hear().await, "before");
    device.say(&ToGateway::Ack { message }).await;
    device.tend(rig.await_gone(&sent)).await;
    assert_eq!(rig.subscription(1).await.endpoint, subscription.endpoint);
}

#[tokio::test(flavor = "local")]
async fn two_devices_may_change_places() {
    let mut rig = Rig::with_authority(None).await;
    rig.config.devices.push(rig.device("d2"));
    rig.start_gateway();
    let subscription = rig.subscription_of("d2", 1).await;
    let mut config = rig.config.clone();
    config.devices[0].link = rig.device("d2").link;
    config.devices[1].link = rig.device("d1").link;
    rig.reload(Ok(config)).await;
    let mut second = rig.attach_at("d1", "d2", 8).await;
    rig.send(&subscription, "changed places").await;
    push_of(&second.hear().await, "changed places");
    rig.attach_at("d2", "d1", 7).await;
}

#[tokio::test(flavor = "local")]
async fn channels_come_and_go_without_a_new_session() {
    let mut rig = Rig::start().await;
    let first = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    let with_channels = |rig: &Rig, channels: &[u16]| {
        let mut config = rig.config.clone();
        config.devices[0].channels = channels.iter().copied().map(ChannelId).collect();
        config
    };
    rig.reload(Ok(with_channels(&rig, &[1, 2]))).await;
    let second = device.tend(rig.subscription(2)).await;
    assert_eq!(rig.subscription(1).await.endpoint, first.endpoint);
    rig.reload(Ok(with_channels(&rig, &[2]))).await;
    let gone = async {
        while rig.ask(&Request::DeviceShow { id: "d1".to_owned(), channel: Some(1) }).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    device.tend(gone).await;
    rig.send(&second, "on the second").await;
    loop {
        let heard = device.hear().await;
        match heard.message() {
            ToDevice::Push { channel, body, .. } => break assert_eq!((channel.0, body), (2, &b"on the second"[..])),
            ToDevice::Subscribed { .. } | ToDevice::Unsubscribed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What is wrong is shown, and nothing else changes; the next good one takes the note away.
#[tokio::test(flavor = "local")]
async fn a_broken_configuration_leaves_the_old_one_in_effect() {
    let rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    rig.reload(Err("fieldgate.toml:3: no".to_owned())).await;
    let status = rig.await_status(|status| status["configuration"] == "not reloaded: fieldgate.toml:3: no");
    let status = device.tend(status).await;
    assert_eq!(status["devices"][0]["presence"], "ready");
    let line = rig.told().pop().expect("it was told");
    assert!(line.ends_with("; configuration not reloaded: fieldgate.toml:3: no"), "{line}");
    assert_eq!(rig.subscription(1).await.endpoint, subscription.endpoint);
    rig.reload(Ok(rig.config.clone())).await;
    device.tend(rig.await_status(|status| status["configuration"].is_null())).await;
    assert!(!rig.told().pop().expect("it was told").contains("configuration"));
}

#[tokio::test(flavor = "local")]
async fn what_needs_a_restart_is_named_until_it_is_taken_back() {
    let rig = Rig::start().await;
    let url = "https://other.example/subscribe".parse().expect("a URL");
    let mut config = rig.config.clone();
    config.push_service.url = url;
    config.devices.push(rig.device("d2"));
    rig.reload(Ok(config)).await;
    let status = rig.await_status(|status| status["configuration"] == "needs a restart: push_service.url").await;
    assert_eq!(status["devices"].as_array().map(Vec::len), Some(2), "the rest is taken up");
    assert_eq!(status["service"], rig.config.push_service.url.authority().expect("a host").as_str());
    rig.reload(Ok(rig.config.clone())).await;
    rig.await_status(|status| status["configuration"].is_null()).await;
}

#[tokio::test(flavor = "local")]
async fn a_device_that_was_added_by_command_stays_and_its_link_is_not_taken() {
    let rig = Rig::start().await;
    let device = rig.device("d2");
    let add = |id: &str| {
        let (id, link) = (id.to_owned(), device.link.to_string());
        Request::DeviceAdd {
            id,
            link,
            channels: vec![1],
            mtu: 256,
            options: Options::default(),
            link_options: LinkOptions::default(),
        }
    };
    rig.reload(Ok(rig.config.clone())).await;
    rig.ask(&add("added")).await.expect("added");
    let mut config = rig.config.clone();
    config.devices.push(device.clone());
    rig.reload(Ok(config)).await;
    let status = rig.ask(&Request::Status).await.expect("it answers");
    let note = status["configuration"].as_str().expect("a note").to_owned();
    assert!(note.starts_with("not reloaded: added, which was added by command, is on the link of d2"), "{note}");
    // The configuration may take the device over; then it is removed there.
    let mut taken_over = device.clone();
    taken_over.id = "added".parse().expect("an id");
    let with_added = Config { devices: vec![rig.config.devices[0].clone(), taken_over], ..rig.config.clone() };
    rig.reload(Ok(with_added)).await;
    let refused = rig.ask(&Request::DeviceRemove { id: "added".to_owned() }).await.expect_err("it is configured");
    assert!(refused.contains("remove it there and reload"), "{refused}");
    rig.reload(Ok(rig.config.clone())).await;
    let devices = rig.ask(&Request::DeviceList).await.expect("it answers");
    assert_eq!(devices.as_array().map(Vec::len), Some(1));
}

/// The message id of a push, which must be this one.
fn push_of(heard: &Heard, text: &str) -> fieldgate::wire::MessageId {
    match heard.message() {
        ToDevice::Push { message, body, .. } => {
            assert_eq!(body, text.as_bytes());
            message
        }
        other => panic!("{other:?} instead of {text}"),
    }
}
