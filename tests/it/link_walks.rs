//! What a device says and is told beside messages, through gateway and service: how the gateway is, other subscriptions, what
//! overtakes, and how old a message is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fieldgate::webpush::headers::http_date;
use fieldgate::wire::message::{Age, Uplink};
use fieldgate::wire::{ChannelId, MessageId, Refusal, ToDevice, ToGateway};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::device::{Heard, ScriptedDevice};
use crate::raw_push_service::GOOD_HEAD;
use crate::raw_stage::Stage;
use crate::rig::Rig;

type Device = ScriptedDevice<UnixStream>;

/// The first word to a device is how the gateway is; it hears again when nothing waits any more, and not before.
#[tokio::test(flavor = "local")]
async fn a_device_is_told_what_waits_and_when_nothing_does() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    rig.await_status(|status| status["uplink"] == "connected").await;
    let texts = ["one", "two", "three"];
    for text in texts {
        rig.send(&subscription, text).await;
    }
    rig.await_status(|status| status["counters"]["refused"] == 3).await;
    let mut device = rig.attach(7).await;
    let (uplink, waiting, time) = device.hear_status(1).await;
    let first = device.first.take().expect("a first message");
    assert!(matches!(first.message(), ToDevice::Status { .. }), "before any other: {first:?}");
    assert_eq!(uplink, Uplink::Connected);
    assert!((3..=4).contains(&waiting), "these, and perhaps one more while it asks: {waiting}");
    assert!(wall_ms().abs_diff(time) < 1_500, "{time}");

    let mut last = MessageId([0; 8]);
    for text in texts {
        let message = device.hear_push(text).await;
        if text != texts[2] {
            device.say(&ToGateway::Ack { message }).await;
        }
        last = message;
    }
    device.idle(Duration::from_millis(1_500)).await;
    assert!(device.statuses.iter().all(|(_, waiting, _)| *waiting > 0), "{:?}", device.statuses);
    device.say(&ToGateway::Ack { message: last }).await;
    let count = device.statuses.len();
    assert_eq!(device.hear_status(count + 1).await.1, 0);
    assert_eq!(device.idle(Duration::from_millis(300)).await, []);
    assert_eq!(device.statuses.len(), count + 1, "said once");
}

/// Whoever asks is told: what was handed over and not answered waits.
#[tokio::test(flavor = "local")]
async fn a_device_that_asks_is_told() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    await_nothing_waits(&mut device).await;
    for waits in [0, 1, 2] {
        let count = device.statuses.len();
        device.say(&ToGateway::Ask).await;
        let (uplink, waiting, time) = device.hear_status(count + 1).await;
        assert_eq!((uplink, waiting), (Uplink::Connected, waits));
        assert!(wall_ms().abs_diff(time) < 1_500, "{time}");
        device.tend(rig.send(&subscription, "waits")).await;
        device.hear_push("waits").await;
    }
}

/// The uplink that a device is told of is the one of now.
#[tokio::test(flavor = "local")]
async fn a_device_is_told_that_the_service_cannot_be_reached() {
    let mut rig = Rig::start().await;
    rig.subscription(1).await;
    rig.stop_gateway().await;
    // Nothing listens there.
    rig.config.push_service.url = "https://127.0.0.1:1/subscribe".parse().expect("a URL");
    rig.start_gateway();
    let mut device = rig.attach(7).await;
    let (uplink, _, time) = device.hear_status(1).await;
    assert_eq!(uplink, Uplink::Down);
    assert!(wall_ms().abs_diff(time) < 1_500, "{time}");
}

/// A-UA-44: a device gets another subscription with other keys for the asking; messages to the old one come for a while too.
/// Asking again before the answer changes nothing.
#[tokio::test(flavor = "local")]
async fn a_device_has_its_subscription_replaced() {
    let mut rig = Rig::start().await;
    let old = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    await_nothing_waits(&mut device).await;
    for _ in 0..2 {
        device.say(&ToGateway::Rotate { channel: ChannelId(1) }).await;
    }
    let heard = device.hear().await;
    let ToDevice::Subscribed { channel: ChannelId(1), push, p256dh, auth } = heard.message() else {
        panic!("{heard:?}")
    };
    let new = device.tend(rig.subscription(1)).await;
    assert_eq!((push, p256dh, auth), (new.endpoint.as_str(), &new.public[..], &new.auth[..]));
    assert!(new.endpoint != old.endpoint && new.public != old.public && new.auth != old.auth);
    for (subscription, text) in [(&new, "to the new one"), (&old, "to the old one")] {
        let sent = device.tend(rig.send(subscription, text)).await;
        let message = device.hear_push(text).await;
        device.say(&ToGateway::Ack { message }).await;
        device.tend(rig.await_gone(&sent)).await;
    }
    assert_eq!(device.idle(Duration::from_millis(500)).await, [], "one answer");
}

#[tokio::test(flavor = "local")]
async fn a_channel_that_is_unknown_cannot_be_replaced() {
    let rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    device.say(&ToGateway::Rotate { channel: ChannelId(77) }).await;
    let refused = ToDevice::Refused { channel: ChannelId(77), reason: Refusal::UnknownChannel };
    assert_eq!(device.hear().await.message(), refused);
    assert_eq!(device.tend(rig.subscription(1)).await, subscription);
}

/// C-67: a short message to an urgent channel overtakes a long one whose frames are on the line; to another channel it waits.
#[tokio::test(flavor = "local")]
async fn an_urgent_message_overtakes_one_that_is_on_its_way() {
    for (urgent, order) in [(vec![ChannelId(2)], [20, 3_900]), (vec![], [3_900, 20])] {
        let mut rig = Rig::with_authority(None).await;
        rig.config.devices[0].channels = vec![ChannelId(1), ChannelId(2)];
        rig.config.devices[0].options.link.urgent_channels = urgent;
        rig.start_gateway();
        let (bulk, alarm) = (rig.subscription(1).await, rig.subscription(2).await);
        // Frames of 64 octets: as many as may be in flight carry a quarter of the long message.
        let mut device = ScriptedDevice::new(rig.connect("d1").await, 7, 64);
        device.attach("d1").await;
        await_nothing_waits(&mut device).await;
        // Nobody reads the line: so much of the long message as may be in flight is on it when the short one comes.
        rig.send(&bulk, &"x".repeat(3_900)).await;
        rig.await_status(|status| status["counters"]["relayed"] == 1).await;
        sleep(Duration::from_millis(50)).await;
        rig.send(&alarm, &"y".repeat(20)).await;
        rig.await_status(|status| status["counters"]["relayed"] == 2).await;
        sleep(Duration::from_millis(50)).await;
        let lengths = [body_bytes(&device.hear().await), body_bytes(&device.hear().await)];
        assert_eq!(lengths, order);
    }
}

/// A-UA-48: how long a message waited at its service and at the gateway is said to the second, also when it comes again.
#[tokio::test(flavor = "local")]
async fn a_message_that_waited_says_how_long() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    rig.stop_gateway().await;
    let sent_at = Instant::now();
    for text in ["waited", "waited longer"] {
        rig.send(&subscription, text).await;
    }
    sleep(Duration::from_millis(1_200)).await;
    rig.start_gateway();
    let mut device = ScriptedDevice::new(rig.connect("d1").await, 7, 256);
    // It takes one message at a time, so the other waits at the gateway.
    device.profile.memory = 2;
    device.attach("d1").await;
    let message = age_is_right(&device.hear().await, 1.0, sent_at);
    assert_eq!(device.idle(Duration::from_secs(4)).await, []);
    device.say(&ToGateway::Ack { message }).await;
    let message = age_is_right(&device.hear().await, 4.0, sent_at);
    device.say(&ToGateway::Refuse { message, reason: Refusal::Full }).await;
    assert_eq!(age_is_right(&device.hear().await, 6.0, sent_at), message);
}

/// A-UA-48: both times are the service's, whatever clock the gateway has.
#[tokio::test(flavor = "local")]
async fn an_age_is_what_the_service_says() {
    let mut stage = Stage::set().await;
    for (number, (waited, since)) in
        [(300, 1_000_000_000), (0, 1_000_000_000), (86_400, 3_000_000_000)].into_iter().enumerate()
    {
        let dates = [since, since + waited].map(|time| http_date(fieldgate::time::UnixTime(time)));
        let fields = [&GOOD_HEAD[..], &[("last-modified", dates[0].as_str()), ("date", dates[1].as_str())]].concat();
        let body = stage.encrypted("dated");
        stage.connection.push(&stage.subscription.endpoint, &format!("/m/{number}"), &fields, &body).await;
        let heard = stage.connection.serve(stage.device.hear()).await;
        let age = age_of(&heard).seconds().map(u64::from).expect("it is known");
        assert!((waited..=waited + 1).contains(&age), "{age} of {waited}");
        let ToDevice::Push { message, .. } = heard.message() else { panic!("{heard:?}") };
        stage.acknowledge(message).await;
    }
}

/// A message that did not wait is said to be new, if its age is known at all.
#[tokio::test(flavor = "local")]
async fn a_message_that_did_not_wait_is_not_old() {
    let mut rig = Rig::start().await;
    let subscription = rig.subscription(1).await;
    let mut device = rig.attach(7).await;
    await_nothing_waits(&mut device).await;
    for _ in 0..3 {
        device.tend(rig.send(&subscription, "new")).await;
        let heard = device.hear().await;
        assert!(age_of(&heard).seconds().is_none_or(|age| age <= 1), "{heard:?}");
    }
}

/// The gateway has asked its service what there is, and there is nothing.
async fn await_nothing_waits(device: &mut Device) {
    let mut count = 1;
    while device.hear_status(count).await.1 > 0 {
        count = device.statuses.len() + 1;
    }
}

#[allow(clippy::disallowed_methods, reason = "what the gateway says is compared with the clock of the machine")]
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the far future")
}

fn body_bytes(heard: &Heard) -> usize {
    let ToDevice::Push { body, .. } = heard.message() else { panic!("{heard:?}") };
    body.len()
}

fn age_of(heard: &Heard) -> Age {
    let ToDevice::Push { age, .. } = heard.message() else { panic!("{heard:?}") };
    age
}

/// At least so many seconds, and not more than now. Each of two dates is cut to its second.
fn age_is_right(heard: &Heard, least: f64, sent_at: Instant) -> MessageId {
    let ToDevice::Push { message, age, .. } = heard.message() else { panic!("{heard:?}") };
    let (is, said) = (sent_at.elapsed().as_secs_f64(), age.seconds().map(f64::from).expect("it is known"));
    assert!(said >= least && said <= is + 1.0, "{said} s instead of {is} s");
    message
}
