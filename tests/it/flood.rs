//! A device that is to take no more than so many messages a minute.

use fieldgate::sender::SendError;
use fieldgate::webpush::exchange::PostError;
use fieldgate::wire::{ChannelId, ToDevice, ToGateway};

use crate::device::ScriptedDevice;
use crate::rig::Rig;

const LIMIT: u32 = 10;

/// A-UA-44: more messages than the limit end their subscription, and the device is told; its other one goes on. What waited
/// while nobody was there is no flood, and a channel that was ended stays so until the device asks.
#[tokio::test(flavor = "local")]
async fn a_ua_44_a_flood_ends_its_subscription_and_a_backlog_is_none() {
    let mut rig = Rig::with_authority(None).await;
    rig.config.devices[0].channels = vec![ChannelId(1), ChannelId(2)];
    rig.config.devices[0].options.flood_per_minute = Some(LIMIT);
    rig.start_gateway();
    let (flooded, other) = (rig.subscription(1).await, rig.subscription(2).await);
    rig.stop_gateway().await;
    for number in 0..2 * LIMIT {
        rig.send(&other, &format!("waited {number}")).await;
    }
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    for number in 0..2 * LIMIT {
        assert_eq!(hear(&mut device).await, Some((2, format!("waited {number}"))));
    }
    let status = device.tend(rig.await_status(|status| status["uplink"] == "connected")).await;
    assert_eq!(status["flooded"], serde_json::json!([]));

    let mut ended = false;
    while !ended {
        if let Err(error) = device.tend(rig.try_send(&flooded, "too much")).await {
            assert!(matches!(error, SendError::Refused(PostError::Gone)), "{error}");
            break;
        }
        ended = hear(&mut device).await.is_none();
    }
    while !ended {
        ended = hear(&mut device).await.is_none();
    }
    let status = device.tend(rig.await_status(|status| status["counters"]["floods"] == 1)).await;
    assert_eq!(status["flooded"], serde_json::json!([["d1", 1]]));
    let message = rig.send(&other, "undisturbed").await;
    assert_eq!(hear(&mut device).await, Some((2, "undisturbed".to_owned())));
    device.tend(rig.await_gone(&message)).await;

    rig.stop_gateway().await;
    rig.start_gateway();
    let mut device = rig.attach(8).await;
    let status = device.tend(rig.await_status(|status| status["uplink"] == "connected")).await;
    assert_eq!(status["flooded"], serde_json::json!([["d1", 1]]));
    device.say(&ToGateway::Subscribe { channel: ChannelId(1) }).await;
    assert_ne!(device.hear_subscribed(1).await, flooded.endpoint.as_str());
}

/// The next message with its channel, acknowledged; none when a subscription has ended instead.
async fn hear(device: &mut ScriptedDevice<tokio::net::UnixStream>) -> Option<(u16, String)> {
    let heard = device.hear().await;
    let (message, pushed) = match heard.message() {
        ToDevice::Push { message, channel, body, .. } => {
            (message, (channel.0, String::from_utf8_lossy(body).into_owned()))
        }
        ToDevice::Unsubscribed { channel: ChannelId(1) } => return None,
        other => panic!("{other:?}"),
    };
    device.say(&ToGateway::Ack { message }).await;
    Some(pushed)
}
