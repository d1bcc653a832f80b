//! Several push services, and devices whose subscriptions are kept apart from those of others.

use super::*;
use crate::proto::device::Isolation;
use crate::proto::upstream::Context;

fn isolated(isolated: Isolation) -> Options {
    Options { isolated, ..Options::default() }
}

fn in_set(number: usize, set: &str) -> Granted {
    Granted { set: SetUri::parse(&format!("https://push.example/t/{set}")).ok(), ..granted(number) }
}

/// Answers the one request; tells on which connection it came, and with which set.
fn grant(rig: &mut Rig, granted: Granted) -> (ConnectionId, Option<SetUri>) {
    let requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    let [Output::Subscribe { connection, subscription, set, .. }] = &requests[..] else { panic!("{requests:?}") };
    let (connection, set) = (*connection, set.clone());
    rig.feed(Input::Subscribed { connection, subscription: *subscription, outcome: Some(Ok(granted)) });
    rig.persist(true);
    (connection, set)
}

fn monitored(rig: &mut Rig) -> Vec<(ConnectionId, Target)> {
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    let target = |output| match output {
        Output::Monitor { connection, target, .. } => Some((connection, target)),
        _ => None,
    };
    monitors.into_iter().filter_map(target).collect()
}

fn connects(rig: &mut Rig) -> Vec<(ConnectionId, Context)> {
    let connects = rig.take(|output| matches!(output, Output::Connect { .. }));
    let context = |output| match output {
        Output::Connect { connection, context, .. } => Some((connection, context)),
        _ => None,
    };
    connects.into_iter().filter_map(context).collect()
}

/// A-UA-10: a device with a set of its own presents no set of others, and others none of it; its set is read by a request
/// of its own on the same connection.
#[test]
fn a_ua_10_an_isolated_device_has_a_set_of_its_own() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.add_device_with("b", &[1, 2], isolated(Isolation::Set));
    rig.add_device("c", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let set = |name: &str| SetUri::parse(&format!("https://push.example/t/{name}")).ok();
    let presented = [
        grant(&mut rig, in_set(1, "all")).1,
        grant(&mut rig, in_set(2, "b")).1,
        grant(&mut rig, in_set(3, "b")).1,
        grant(&mut rig, in_set(4, "all")).1,
    ];
    assert_eq!(presented, [None, None, set("b"), set("all")]);
    let targets = monitored(&mut rig);
    let expected = [set("all"), set("b")].map(|set| (rig.on, Target::Set(set.expect("valid"))));
    assert_eq!(targets, expected);
    // Its set is refused: it is asked for once more without, and that of the others stays.
    rig.feed(Input::Subscribe { device: id("b"), channel: ChannelId(3) });
    let subscription = rig.requested();
    let refused = Some(Err(SubscribeError::SetRefused));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: refused });
    assert_eq!(grant(&mut rig, in_set(5, "b2")).1, None);
    rig.feed(Input::Subscribe { device: id("b"), channel: ChannelId(4) });
    assert_eq!(grant(&mut rig, in_set(6, "b2")).1, set("b2"));
    rig.feed(Input::Subscribe { device: id("c"), channel: ChannelId(2) });
    assert_eq!(grant(&mut rig, in_set(7, "all")).1, set("all"));
}

/// A-UA-10: over a restart what was kept apart is known by its set; what was not is made anew, apart.
#[test]
fn a_ua_10_isolation_holds_over_a_restart_and_can_be_asked_for_later() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.add_device_with("b", &[1], isolated(Isolation::Set));
    rig.feed(Input::Started);
    rig.connect();
    grant(&mut rig, in_set(1, "all"));
    grant(&mut rig, in_set(2, "b"));
    for (options_of_a, rotations) in [(Options::default(), 0), (isolated(Isolation::Set), 1)] {
        let mut again = Rig::new();
        for (key, value) in &rig.flash {
            again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
        }
        again.add_device_with("a", &[1], options_of_a);
        again.add_device_with("b", &[1], isolated(Isolation::Set));
        again.feed(Input::Started);
        again.connect();
        let requests = again.take(|output| matches!(output, Output::Subscribe { .. }));
        assert_eq!(requests.len(), rotations, "{requests:?}");
        assert!(requests.iter().all(|request| matches!(request, Output::Subscribe { set: None, .. })));
    }
}

/// C-47, C-69, A-UA-10: a device with a connection of its own shares it with no other, also after a restart.
#[test]
fn c_69_an_isolated_device_has_a_connection_of_its_own() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.add_device_with("b", &[1], isolated(Isolation::Connection));
    rig.feed(Input::Started);
    let apart = Context { service_index: 0, isolated: Some(id("b")) };
    let both = connects(&mut rig);
    let shared = Context { service_index: 0, isolated: None };
    assert_eq!(both.iter().map(|(_, context)| context).collect::<Vec<_>>(), [&shared, &apart]);
    rig.on = both[0].0;
    rig.ready(100);
    assert_eq!(grant(&mut rig, in_set(1, "all")), (both[0].0, None));
    rig.on = both[1].0;
    rig.ready(100);
    assert_eq!(grant(&mut rig, in_set(2, "b")), (both[1].0, None));
    let on: Vec<ConnectionId> = monitored(&mut rig).iter().map(|(on, _)| *on).collect();
    assert_eq!(on, [both[0].0, both[1].0]);

    let mut again = Rig::new();
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.add_device("a", &[1]);
    again.add_device_with("b", &[1], isolated(Isolation::Connection));
    again.feed(Input::Started);
    let both = connects(&mut again);
    assert_eq!(both.iter().map(|(_, context)| context).collect::<Vec<_>>(), [&shared, &apart]);
    again.on = both[1].0;
    again.ready(100);
    let set = SetUri::parse("https://push.example/t/b").expect("valid");
    assert_eq!(monitored(&mut again), [(both[1].0, Target::Set(set))]);
    assert!(again.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
}

/// A-UA-02, B-UA-03: each device is at its service, on one connection for each; a service that does not answer holds up no
/// subscription of the other; a device that is moved leaves the old one after it is at the new one.
#[test]
fn each_device_is_at_its_service() {
    let uri = |name: &str| PushServiceUri::parse(&format!("https://{name}.example/subscribe")).expect("valid");
    let services = [(Some("second".to_owned()), uri("second"))];
    let mut rig = Rig::new();
    let random = Box::new(SeededRandom::new(1));
    rig.gateway = Gateway::with_services((None, uri("push")), services, random, Instant::ZERO);
    let second = || Options { push_service: Some("second".to_owned()), ..Options::default() };
    rig.add_device("a", &[1]);
    rig.add_device_with("b", &[1], second());
    rig.feed(Input::Started);
    let both = connects(&mut rig);
    assert_eq!(both.iter().map(|(_, context)| context.service_index).collect::<Vec<_>>(), [0, 1]);
    for (connection, _) in &both {
        rig.on = *connection;
        rig.ready(100);
    }
    let requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    let [Output::Subscribe { subscription: first, .. }, Output::Subscribe { connection, subscription, service, .. }] =
        &requests[..]
    else {
        panic!("neither waits for the other: {requests:?}")
    };
    assert_eq!((*connection, service), (both[1].0, &uri("second")));
    let at_second = |number: usize| {
        let uri = |kind: &str| format!("https://second.example/{kind}/{number}");
        Granted {
            read: SubscriptionUri::parse(&uri("s")).expect("valid"),
            send: PushUri::parse(&uri("p")).expect("valid"),
            set: SetUri::parse("https://second.example/t/0").ok(),
            ..granted(number)
        }
    };
    let (first, subscription) = (*first, *subscription);
    rig.feed(Input::Subscribed { connection: both[1].0, subscription, outcome: Some(Ok(at_second(1))) });
    rig.feed(Input::Subscribed { connection: both[0].0, subscription: first, outcome: Some(Ok(granted(1))) });
    rig.persist(true);
    rig.persist(true);
    assert_eq!(monitored(&mut rig).len(), 2);

    rig.add_device_with("a", &[1], second());
    assert_eq!(grant(&mut rig, at_second(2)), (both[1].0, at_second(1).set));
    rig.wait(ROTATION_GRACE_MS);
    rig.persist(true);
    let removals = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    assert!(
        matches!(&removals[..], [Output::Unsubscribe { connection, read, .. }] if *connection == both[0].0 && *read == granted(1).read)
    );
    assert_eq!(rig.send_uri("a"), at_second(2).send);

    // Both sets are known after a restart, whatever the order of the services is then.
    let mut again = Rig::new();
    let random = Box::new(SeededRandom::new(1));
    let services = [(None, uri("push"))];
    again.gateway = Gateway::with_services((Some("second".into()), uri("second")), services, random, Instant::ZERO);
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    let sets: Vec<_> = again.gateway.upstreams.iter().map(|upstream| upstream.set.clone()).collect();
    assert_eq!(sets, [at_second(1).set, granted(1).set]);
}
