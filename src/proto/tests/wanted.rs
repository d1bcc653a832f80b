//! Which messages are wanted: by urgency, not from floods, and not while another gateway has the same identity.

use super::*;
use crate::proto::device::Undeliverable;
use crate::webpush::headers::Urgency;

fn monitors(rig: &mut Rig) -> Vec<(ConnectionId, monitor::MonitorId, Urgency)> {
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    let asked = |output| match output {
        Output::Monitor { connection, monitor, urgency, .. } => Some((connection, monitor, urgency)),
        _ => None,
    };
    monitors.into_iter().filter_map(asked).collect()
}

fn ended(rig: &mut Rig, monitor: monitor::MonitorId, next: Next) {
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next });
}

fn flooded(limit: u32) -> Options {
    Options { flood_per_minute: Some(limit), ..Options::default() }
}

/// One message that arrives whole, and what became of it.
fn arrive(rig: &mut Rig, name: &str, age: Option<Duration>) {
    let Some(send) = rig.gateway.push_subscription(&id("a"), None).map(|known| known.endpoint) else { return };
    let Some((slot, _)) = rig.promise(message(name), Some(send)) else { return };
    rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: b"sealed".to_vec(), max_age: None, age });
    for output in rig.take(|output| matches!(output, Output::Decode { .. })) {
        let Output::Decode { slot, .. } = output else { continue };
        rig.feed(Input::Decoded { slot, outcome: Ok(b"hello".to_vec()) });
    }
    for message in rig.delivered() {
        rig.feed(Input::DeviceAck { device: id("a"), message });
    }
    for message in rig.take_acknowledged() {
        rig.feed(Input::Acknowledged { connection: rig.on, message, outcome: Deletion::Done });
    }
}

/// A-UA-14, A-UA-16: another level means another request before the old one goes; the old one is not reset, and the
/// connection is kept while the service ends it in time.
#[test]
fn a_ua_16_the_new_request_comes_first() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::UrgencyWanted(Urgency::High));
    let new = monitors(&mut rig);
    assert!(matches!(new[..], [(on, _, Urgency::High)] if on == rig.on), "{new:?}");
    assert_eq!(rig.gateway.status().urgency, "high");
    rig.push("a", "still-on-the-old-one");
    let sent = rig.delivered();
    assert_eq!(sent.len(), 1);
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    let old = rig.monitor;
    ended(&mut rig, old, Next::Displaced);
    rig.wait(MONITOR_OUTDATED_MS_MAX * 2);
    assert!(monitors(&mut rig).is_empty() && rig.take(|output| matches!(output, Output::Connect { .. })).is_empty());
    assert_eq!(rig.gateway.status().monitors, 1);
    // What is stored is asked for with the same level.
    rig.feed(Input::FetchAsked(id("a")));
    rig.wait(60_000);
    let fetches = rig.take(|output| matches!(output, Output::Fetch { .. }));
    assert!(matches!(fetches[..], [Output::Fetch { urgency: Urgency::High, .. }]), "{fetches:?}");
}

/// A-UA-16: a service that does not end the old request, or has no stream for a second one: the connection is replaced, new
/// before old.
#[test]
fn a_ua_16_what_stays_open_goes_with_its_connection() {
    for (streams_max, wait_ms) in [(100, MONITOR_OUTDATED_MS_MAX), (2, 0)] {
        let mut rig = Rig::serving(&["a"]);
        let old = rig.on;
        rig.feed(Input::RequestsMax { connection: old, streams_max });
        rig.wait(STABLE_MS + REPLACE_PAUSE_MS);
        rig.outputs.clear();
        rig.feed(Input::UrgencyWanted(Urgency::Normal));
        assert_eq!(monitors(&mut rig).len(), usize::from(streams_max > 2));
        rig.wait(wait_ms);
        rig.dial();
        assert!(rig.take(|output| matches!(output, Output::Close { .. })).is_empty(), "new before old");
        rig.ready(streams_max);
        let new = monitors(&mut rig);
        assert!(matches!(new[..], [(on, _, Urgency::Normal)] if on == rig.on && on != old), "{new:?}");
        rig.wait(DRAIN_MS_MAX);
        assert_eq!(rig.take(|output| matches!(output, Output::Close { .. })).len(), 1);
        assert!(rig.take(|output| matches!(output, Output::Connect { .. })).is_empty(), "once is enough");
    }
}

/// A level that wants more counts at once; one that wants less waits, and only the last one counts.
#[test]
fn levels_do_not_flap() {
    let mut rig = Rig::serving(&["a"]);
    let asked = |rig: &mut Rig, urgency| {
        rig.feed(Input::UrgencyWanted(urgency));
        let new = monitors(rig);
        for (_, monitor, _) in &new {
            let old = std::mem::replace(&mut rig.monitor, *monitor);
            ended(rig, old, Next::Displaced);
        }
        new.len()
    };
    assert_eq!(asked(&mut rig, Urgency::High), 1);
    assert_eq!(asked(&mut rig, Urgency::Low), 1, "more is wanted");
    assert_eq!(asked(&mut rig, Urgency::High), 0);
    assert_eq!(asked(&mut rig, Urgency::Normal), 0);
    rig.wait(URGENCY_PAUSE_MS - 1);
    assert!(monitors(&mut rig).is_empty());
    rig.wait(1);
    assert!(matches!(monitors(&mut rig)[..], [(_, _, Urgency::Normal)]));
}

/// A-UA-44: more messages than the limit end the subscription, others go on, and it stays ended over a restart until the
/// device asks.
#[test]
fn a_ua_44_a_flood_ends_its_subscription() {
    let mut rig = Rig::serving(&["a", "b"]);
    rig.add_device_with("a", &[1], flooded(60));
    rig.wait(60_000);
    for number in 0..60 {
        arrive(&mut rig, &format!("m{number}"), None);
    }
    assert_eq!(rig.gateway.status().flooded, []);
    arrive(&mut rig, "one-more", None);
    assert_eq!(rig.gateway.status().flooded, [("a".to_owned(), 1)]);
    rig.persist(true);
    let removals = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let [Output::Unsubscribe { subscription, .. }] = removals[..] else { panic!("{removals:?}") };
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
    let replies = rig.take(|output| matches!(output, Output::Reply { .. }));
    assert!(matches!(&replies[..], [Output::Reply { reply: Reply::Unsubscribed { .. }, .. }]), "{replies:?}");
    rig.push("b", "undisturbed");
    assert_eq!(rig.delivered_to(), [id("b")]);

    let mut again = Rig::new();
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.flash = rig.flash.clone();
    again.add_device_with("a", &[1], flooded(60));
    again.add_device("b", &[1]);
    again.feed(Input::Started);
    again.connect();
    again.feed(Input::DeviceUp {
        device: id("a"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    again.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    assert!(again.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    again.feed(Input::Subscribe { device: id("a"), channel: ChannelId(1) });
    assert_eq!(again.take(|output| matches!(output, Output::Subscribe { .. })).len(), 1);
    again.persist(true);
    assert_eq!((again.gateway.status().flooded, again.flash.keys().filter(|key| key[0] == 10).count()), (vec![], 0));
}

/// A-UA-44: what comes again, what was asked for, and what is older than the connection is no flood; a steady stream at the
/// limit is none either.
#[test]
fn a_ua_44_only_what_is_new_counts() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(60));
    rig.wait(600_000);
    for number in 0..200 {
        arrive(&mut rig, &format!("stored-{number}"), Some(Duration::from_secs(900)));
    }
    for _ in 0..200 {
        arrive(&mut rig, "the-same", None);
    }
    for number in 0..300 {
        rig.wait(1_000);
        arrive(&mut rig, &format!("steady-{number}"), Some(Duration::ZERO));
    }
    let read = granted(1).read;
    for number in 0..200 {
        let (target, send) = (Target::Subscription(read.clone()), Some(rig.send_uri("a")));
        let (connection, promise) = (rig.on, PromiseId(10_000 + number));
        let message = message(&format!("asked-{number}"));
        rig.feed(Input::Promised { connection, promise, target, message, send });
        let answers = rig.take(|output| matches!(output, Output::Admit { .. }));
        let [Output::Admit { slot, .. }] = answers[..] else { panic!("{answers:?}") };
        rig.feed(Input::PushFailed { connection, slot, content: Some(ContentError::TooLarge) });
    }
    assert_eq!((rig.gateway.status().flooded, rig.gateway.status().counters.floods), (vec![], 0));
}

/// A-GAP-05, A-UA-44: what can never be delivered counts as well, whether it is read or not.
#[test]
fn a_gap_05_a_flood_of_undeliverable_messages_is_one() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(10));
    rig.wait(60_000);
    for number in 0..10 {
        assert_eq!(rig.gateway.status().flooded, [], "after {number}");
        let send = rig.send_uri("a");
        let (slot, _) = rig.promise(message(&format!("m{number}")), Some(send)).expect("admitted");
        let connection = rig.on;
        rig.feed(match number % 3 {
            0 => Input::PushFailed { connection, slot, content: Some(ContentError::NotEncrypted) },
            1 => Input::PushFailed { connection, slot, content: Some(ContentError::TooLarge) },
            _ => Input::Pushed { connection, slot, send: None, body: vec![0; 9], max_age: None, age: None },
        });
        for output in rig.take(|output| matches!(output, Output::Decode { .. })) {
            let Output::Decode { slot, .. } = output else { continue };
            rig.feed(Input::Decoded { slot, outcome: Err(crate::webpush::ece::DecodeError::Authentication) });
        }
    }
    // A head that is no message is none.
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("later"), Some(send)).expect("admitted");
    rig.feed(Input::PushFailed { connection: rig.on, slot, content: Some(ContentError::Status(503)) });
    assert_eq!(rig.gateway.status().flooded, []);
    arrive(&mut rig, "one-more", None);
    assert_eq!((rig.gateway.status().flooded, rig.acknowledgements()), (vec![("a".to_owned(), 1)], 0));
}

/// What was on its way when a flood ended its subscription is no second one.
#[test]
fn a_flood_ends_its_subscription_once() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(1));
    rig.wait(10_000);
    let send = rig.send_uri("a");
    let slots: Vec<SlotId> = (0..5)
        .filter_map(|n| rig.promise(message(&format!("m{n}")), Some(send.clone())))
        .map(|(slot, _)| slot)
        .collect();
    for slot in slots {
        rig.feed(Input::PushFailed { connection: rig.on, slot, content: Some(ContentError::TooLarge) });
    }
    let status = rig.gateway.status();
    assert_eq!((status.flooded.len(), status.counters.floods, status.counters.undeliverable), (1, 1, 5));
}

/// A-UA-44: a limit is one of messages a minute however they are spread over it.
#[test]
fn a_ua_44_a_thousand_in_a_minute_are_more_than_six_hundred() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(600));
    rig.wait(7_777);
    for number in 0..1_000 {
        rig.wait(60);
        arrive(&mut rig, &format!("m{number}"), None);
    }
    assert_eq!(rig.gateway.status().flooded, [("a".to_owned(), 1)]);
    // A burst of as many as a minute may have, once a minute.
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(100));
    for burst in 0..5 {
        rig.wait(60_000);
        (0..100).for_each(|number| arrive(&mut rig, &format!("b{burst}-{number}"), None));
        assert_eq!(rig.gateway.status().flooded, [], "burst {burst}");
    }
}

/// A-UA-44: a service tells times in seconds, so that in the first one of a connection all may have waited.
#[test]
fn a_ua_44_what_waited_for_a_second_is_no_flood() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], flooded(20));
    rig.wait(999);
    (0..200).for_each(|number| arrive(&mut rig, &format!("waited-{number}"), Some(Duration::ZERO)));
    assert_eq!(rig.gateway.status().flooded, []);
    rig.wait(1);
    (0..21).for_each(|number| arrive(&mut rig, &format!("new-{number}"), Some(Duration::ZERO)));
    assert_eq!(rig.gateway.status().flooded, [("a".to_owned(), 1)]);
}

/// A-UA-44: a subscription without set is monitored where what is stored is asked for; while that is under way, nothing
/// that comes there counts.
#[test]
fn a_ua_44_what_was_asked_for_counts_without_a_set_neither() {
    let mut rig = Rig::new();
    rig.add_device_with("a", &[1], flooded(5));
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    let granted = Granted { set: None, ..granted(1) };
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted.clone())) });
    rig.persist(true);
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    rig.wait(10_000);
    let come = |rig: &mut Rig, name: &str| {
        for number in 0..6 {
            let (connection, promise) = (rig.on, PromiseId(20_000 + number));
            let target = Target::Subscription(granted.read.clone());
            let message = message(&format!("{name}-{number}"));
            rig.feed(Input::Promised { connection, promise, target, message, send: None });
            let admitted = rig.take(|output| matches!(output, Output::Admit { .. } | Output::Refuse { .. }));
            let [Output::Admit { slot, .. }] = admitted[..] else { continue };
            rig.feed(Input::PushFailed { connection, slot, content: Some(ContentError::TooLarge) });
        }
        rig.gateway.status().flooded.len()
    };
    rig.feed(Input::FetchAsked(id("a")));
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
    assert_eq!(come(&mut rig, "asked"), 0);
    let read = granted.read.clone();
    rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next: Next::Again });
    assert_eq!(come(&mut rig, "live"), 1);
}

/// A-UA-44: power may go between the note that a subscription is to end and its end: it ends then.
#[test]
fn a_ua_44_a_flood_that_was_noted_ends_its_subscription_after_a_restart() {
    let rig = Rig::serving(&["a"]);
    let mut again = Rig::new();
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.feed(Input::Restored(Record::Stopped(id("a"), ChannelId(1))));
    again.add_device_with("a", &[1], flooded(60));
    again.feed(Input::Started);
    again.connect();
    again.persist(true);
    assert_eq!(again.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1);
    assert_eq!(again.gateway.status().flooded, [("a".to_owned(), 1)]);
    assert!(rig.gateway.push_subscription(&id("a"), None).is_some(), "it was there");
}

/// A-UA-44: of so many channels it is remembered; the oldest is forgotten, on flash as well.
#[test]
fn what_is_remembered_of_floods_is_bounded() {
    let mut rig = Rig::new();
    rig.add_device_with("a", &[60_000], flooded(1));
    for channel in 1..=FLOOD_STOPPED_COUNT_MAX as u16 + 1 {
        rig.feed(Input::Restored(Record::Stopped(id("a"), ChannelId(channel))));
    }
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(1))) });
    rig.persist(true);
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    rig.wait(10_000);
    rig.outputs.clear();
    (0..2).for_each(|number| arrive(&mut rig, &format!("m{number}"), None));
    let flooded = rig.gateway.status().flooded;
    assert_eq!(flooded.len(), FLOOD_STOPPED_COUNT_MAX);
    assert_eq!((flooded[0].1, flooded.last().map(|it| it.1)), (2, Some(60_000)));
    let forgotten = Key::Stopped(id("a"), ChannelId(1));
    let is_it =
        |output: &Output| matches!(output, Output::Persist { change: Change::Remove(key), .. } if *key == forgotten);
    assert_eq!(rig.take(is_it).len(), 1);
}

/// A-GAP-06: a connection that moves displaces its own requests, which says nothing of another gateway.
#[test]
fn a_gap_06_moving_is_no_displacement() {
    let mut rig = Rig::serving(&["a"]);
    let mut monitor = rig.monitor;
    for _ in 1..DISPLACED_COUNT_MAX {
        rig.wait(STABLE_MS);
        let old = rig.on;
        rig.feed(Input::GoingAway { connection: old });
        rig.connect();
        rig.feed(Input::MonitorEnded { connection: old, monitor, next: Next::Displaced });
        // A request that was late on the old connection displaces the one on the new connection.
        let late = monitors(&mut rig).last().expect("on the new connection").1;
        ended(&mut rig, late, Next::Displaced);
        rig.feed(Input::ConnectionClosed { connection: old, trouble: Trouble::Ended });
        rig.wait(BACKOFF_MS_MAX);
        monitor = monitors(&mut rig).last().expect("asked again").1;
    }
    rig.wait(STABLE_MS);
    ended(&mut rig, monitor, Next::Displaced);
    assert_eq!((monitors(&mut rig).len(), rig.gateway.uplink_state()), (1, "connected"), "the first one of another");
}

/// A-GAP-06: after three displacements in ten minutes the other gateway is left alone for a quarter of an hour, and a person
/// is told; fewer, or ends of another kind, mean nothing.
#[test]
fn a_gap_06_two_gateways_of_one_identity_do_not_fight() {
    let mut rig = Rig::serving(&["a"]);
    let mut monitor = rig.monitor;
    for round in 0..10 {
        let next = if round % 2 == 0 { Next::Again } else { Next::Displaced };
        ended(&mut rig, monitor, next);
        rig.wait(DISPLACED_WINDOW_MS / 3);
        assert_eq!(rig.gateway.uplink_state(), "connected", "round {round}");
        monitor = monitors(&mut rig).last().expect("asked again").1;
    }
    rig.wait(DISPLACED_WINDOW_MS);
    for round in 0..DISPLACED_COUNT_MAX {
        ended(&mut rig, monitor, Next::Displaced);
        if round + 1 < DISPLACED_COUNT_MAX {
            rig.wait(60_000);
            monitor = monitors(&mut rig).last().expect("asked again").1;
        }
    }
    assert_eq!(rig.gateway.uplink_state(), "displaced");
    rig.wait(DISPLACED_PAUSE_MS - 1);
    assert!(monitors(&mut rig).is_empty());
    rig.wait(1);
    assert_eq!((monitors(&mut rig).len(), rig.gateway.uplink_state()), (1, "connected"));
}

/// A-GAP-05: where the configuration says so, what can never be delivered is acknowledged, and then gone.
#[test]
fn a_gap_05_an_undeliverable_message_can_be_acknowledged() {
    for (undeliverable, acknowledged) in [(Undeliverable::Keep, 0), (Undeliverable::Acknowledge, 1)] {
        let mut rig = Rig::serving(&["a"]);
        rig.add_device_with("a", &[1], Options { undeliverable, ..Options::default() });
        let send = rig.send_uri("a");
        let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
        rig.feed(Input::PushFailed { connection: rig.on, slot, content: Some(ContentError::NotEncrypted) });
        assert_eq!((rig.acknowledgements(), rig.delivered().len()), (acknowledged, 0));
        assert_eq!(rig.gateway.status().counters.undeliverable, 1);
    }
}

/// A-UA-48: a device can be told how old its message is: how long it was with the service, by that one's own clock, and
/// here.
#[test]
fn a_ua_48_the_age_of_a_message_is_known() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
    rig.wait(1_000);
    let age = Some(Duration::from_secs(300));
    rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: b"sealed".to_vec(), max_age: None, age });
    for output in rig.take(|output| matches!(output, Output::Decode { .. })) {
        let Output::Decode { slot, .. } = output else { continue };
        rig.feed(Input::Decoded { slot, outcome: Ok(b"hello".to_vec()) });
    }
    let delivered = rig.take(|output| matches!(output, Output::Deliver { .. }));
    let [Output::Deliver { age, .. }] = delivered[..] else { panic!("{delivered:?}") };
    assert_eq!(age, Some(Duration::from_secs(301)));
}
