//! Subscribe requests that a service sends on to another place (RFC 8030 §7.1).

use super::*;
use crate::webpush::resource::PushServiceUri;

fn service(name: &str) -> PushServiceUri {
    PushServiceUri::parse(&format!("https://{name}.example/subscribe2")).expect("valid")
}

fn granted_at(name: &str) -> Granted {
    let uri = |kind: &str| format!("https://{name}.example/{kind}/1");
    Granted {
        dialect: Dialect::Rfc8030,
        read: SubscriptionUri::parse(&uri("s")).expect("valid"),
        send: PushUri::parse(&uri("p")).expect("valid"),
        set: SetUri::parse(&uri("t")).ok(),
        keeps_for: None,
    }
}

fn subscribe(rig: &mut Rig) -> (SubscriptionId, PushServiceUri, Option<SetUri>) {
    let requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    let [Output::Subscribe { subscription, service, set, .. }] = &requests[..] else { panic!("one: {requests:?}") };
    (*subscription, service.clone(), set.clone())
}

fn answer(rig: &mut Rig, subscription: SubscriptionId, outcome: Result<Granted, SubscribeError>) {
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(outcome) });
}

/// A rig whose device `a` has channel 1 at home, on the first connection, and channel 2 at `b`, on the second.
fn moved() -> (Rig, ConnectionId, ConnectionId) {
    let mut rig = Rig::serving(&["a"]);
    let home = rig.on;
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let (subscription, asked, set) = subscribe(&mut rig);
    assert_eq!(asked.authority(), "push.example");
    answer(&mut rig, subscription, Err(SubscribeError::Redirected(service("b"))));
    rig.connect();
    let there = rig.on;
    let again = subscribe(&mut rig);
    assert_eq!(again, (subscription, service("b"), set), "the same request, at the other place");
    answer(&mut rig, subscription, Ok(granted_at("b")));
    rig.persist(true);
    (rig, home, there)
}

/// A-UA-28, D-9110-02: the request is sent on with its set, what is granted there is read and acknowledged there, and the
/// next request goes to the first place again.
#[test]
fn a_ua_28_a_subscribe_is_sent_on_and_the_next_one_is_not() {
    let (mut rig, home, there) = moved();
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    assert!(matches!(monitors[..], [Output::Monitor { connection, .. }] if connection == there));
    let send = granted_at("b").send;
    let message = PushMessageUri::parse("https://b.example/m/1").expect("valid");
    let (slot, _) = rig.promise(message, Some(send)).expect("admitted");
    rig.arrive(slot, None);
    let delivered = rig.delivered()[0];
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    let acknowledged = rig.take(|output| matches!(output, Output::Acknowledge { .. }));
    assert!(matches!(acknowledged[..], [Output::Acknowledge { connection, .. }] if connection == there));
    rig.on = home;
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(3) });
    let (_, asked, set) = subscribe(&mut rig);
    assert_eq!((asked.authority(), set), ("push.example", granted(1).set));
}

/// A-UA-28: places that send requests on to each other are left after a fixed number, and tried again later.
#[test]
fn a_ua_28_a_loop_ends() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let home = rig.on;
    let (subscription, first, _) = subscribe(&mut rig);
    answer(&mut rig, subscription, Err(SubscribeError::Redirected(service("b"))));
    rig.connect();
    for round in 1..REDIRECT_COUNT_MAX {
        subscribe(&mut rig);
        let is_back = round % 2 == 1;
        let to = if is_back { first.clone() } else { service("b") };
        answer(&mut rig, subscription, Err(SubscribeError::Redirected(to)));
        if is_back {
            rig.on = home;
        } else {
            rig.connect();
        }
    }
    subscribe(&mut rig);
    answer(&mut rig, subscription, Err(SubscribeError::Redirected(service("b"))));
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    rig.on = home;
    rig.wait(SUBSCRIBE_BACKOFF_MS_MIN);
    assert_eq!(subscribe(&mut rig).1, first, "from the beginning");
}

/// A-UA-28: who is sent on to a place that cannot be reached asks at the first one again.
#[test]
fn a_place_that_cannot_be_reached_is_given_up() {
    let mut rig = Rig::serving(&["a"]);
    let home = rig.on;
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let (subscription, first, _) = subscribe(&mut rig);
    answer(&mut rig, subscription, Err(SubscribeError::Redirected(service("b"))));
    rig.dial();
    rig.feed(Input::ConnectionClosed { connection: rig.on, trouble: Trouble::Network });
    rig.on = home;
    assert!(rig.gateway.status().others.is_empty(), "nothing of ours is there");
    rig.wait(SUBSCRIBE_BACKOFF_MS_MIN);
    assert_eq!(subscribe(&mut rig), (subscription, first, granted(1).set));
}

/// A service that sends each request to another place does not make us connect to all of them.
#[test]
fn only_so_many_places_are_gone_to() {
    let mut rig = Rig::serving(&["a"]);
    let home = rig.on;
    let mut connects = 0;
    for number in 2..=CHANNELS_PER_DEVICE_MAX {
        rig.on = home;
        rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(number as u16) });
        let (subscription, ..) = subscribe(&mut rig);
        answer(&mut rig, subscription, Err(SubscribeError::Redirected(service(&format!("p{number}")))));
        if rig.outputs.iter().any(|output| matches!(output, Output::Connect { .. })) {
            connects += 1;
            rig.connect();
            assert_eq!(subscribe(&mut rig).0, subscription);
            answer(&mut rig, subscription, Ok(granted_at(&format!("p{number}"))));
            rig.persist(true);
        }
    }
    assert_eq!(connects, UPSTREAM_MOVED_COUNT_MAX);
}

/// A-UA-49: where a subscription was granted survives a restart; when it is gone, so is the connection there.
#[test]
fn what_was_granted_elsewhere_is_read_there_after_a_restart_and_left_in_the_end() {
    let (mut rig, ..) = moved();
    let mut again = Rig::new();
    for record in std::mem::take(&mut rig.stored) {
        let (key, value) = (record.key().encode(), record.encode());
        again.feed(Input::Restored(Record::decode(&key, &value).expect("readable")));
    }
    again.add_device("a", &[1, 2]);
    again.feed(Input::Started);
    let connects = again.take(|output| matches!(output, Output::Connect { .. }));
    let [Output::Connect { connection: home, .. }, Output::Connect { connection: there, service, .. }] = &connects[..]
    else {
        panic!("two: {connects:?}")
    };
    assert_eq!(service.authority(), "b.example");
    for connection in [*home, *there] {
        again.on = connection;
        again.ready(100);
    }
    assert_eq!(again.take(|output| matches!(output, Output::Monitor { .. })).len(), 2);
    assert!(again.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    again.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(2) });
    again.persist(true);
    let mut removals = again.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let Some(Output::Unsubscribe { connection, subscription, .. }) = removals.pop() else { panic!("a DELETE") };
    assert_eq!(connection, *there);
    again.feed(Input::Unsubscribed { connection, subscription, outcome: Deletion::Done });
    again.persist(true);
    let closed = again.take(|output| matches!(output, Output::Close { .. }));
    assert!(matches!(closed[..], [Output::Close { connection }] if connection == *there));
    assert!(again.gateway.status().others.is_empty());
}
