//! Subscriptions that are made anew while the old ones are in use, and sets that go as a whole.

use super::*;
use crate::webpush::vapid::ApplicationServerKey;

/// The keys of RFC 8292 §2.4 and of RFC 8291 §5.
const SERVER_KEYS: [&str; 2] = [
    "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs",
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
];

fn subscribes(rig: &mut Rig) -> Vec<Output> {
    rig.take(|output| matches!(output, Output::Subscribe { .. }))
}

fn grant(rig: &mut Rig, number: usize) {
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number))) });
}

fn rotate(rig: &mut Rig, device: &str) {
    rig.feed(Input::RotationAsked { device: id(device), channel: None });
}

fn unsubscribed(rig: &mut Rig) -> Vec<SubscriptionUri> {
    let requests = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let answered = requests.into_iter().filter_map(|output| match output {
        Output::Unsubscribe { connection, subscription, read } => Some((connection, subscription, read)),
        _ => None,
    });
    let mut all = Vec::new();
    for (connection, subscription, read) in answered.collect::<Vec<_>>() {
        rig.feed(Input::Unsubscribed { connection, subscription, outcome: Deletion::Done });
        all.push(read);
    }
    all
}

fn told(rig: &mut Rig) -> Vec<PushUri> {
    let replies = rig.take(|output| matches!(output, Output::Reply { .. }));
    let send = |output| match output {
        Output::Reply { reply: Reply::Subscribed { send, .. }, .. } => Some(send),
        _ => None,
    };
    replies.into_iter().filter_map(send).collect()
}

/// What a process that starts now would find.
fn again(rig: &Rig) -> Rig {
    let mut again = Rig::new();
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.flash = rig.flash.clone();
    again
}

/// A-UA-41: other URIs, another key and another secret; the old subscription goes once the new one is on flash and its
/// application servers had time to hear of it. Messages in flight and messages to the old URI arrive meanwhile.
#[test]
fn a_ua_41_a_rotation_loses_nothing() {
    let mut rig = Rig::serving(&["a", "b"]);
    let before = rig.gateway.push_subscription(&id("a"), None).expect("active");
    rig.push("a", "m1");
    let first = rig.delivered()[0];
    rotate(&mut rig, "a");
    grant(&mut rig, 9);
    assert_eq!(rig.gateway.push_subscription(&id("a"), None).as_ref(), Some(&before), "persist, then tell");
    rig.persist(true);
    let after = rig.gateway.push_subscription(&id("a"), None).expect("active");
    assert_eq!(after.endpoint, granted(9).send);
    assert!(after.public != before.public && after.auth != before.auth);
    assert_eq!(told(&mut rig), [granted(9).send], "the device hears of it");
    rig.feed(Input::DeviceAck { device: id("a"), message: first });
    assert_eq!(rig.take_acknowledged(), [message("m1")]);
    let (slot, _) = rig.promise(message("m2"), Some(before.endpoint.clone())).expect("the old one is read");
    rig.arrive(slot, None);
    rig.push("a", "m3");
    assert_eq!(rig.delivered_to(), [id("a"), id("a")]);
    rig.wait(ROTATION_GRACE_MS - 1);
    assert_eq!(unsubscribed(&mut rig), []);
    rig.wait(1);
    rig.persist(true);
    assert_eq!(unsubscribed(&mut rig), [granted(1).read]);
    rig.persist(true);
    assert!(rig.promise(message("m4"), Some(before.endpoint)).is_none());
    assert_eq!(rig.gateway.status().devices[0].channels.len(), 1);
    assert!(told(&mut rig).is_empty() && subscribes(&mut rig).is_empty());
}

/// Where no channel is named, the lowest is meant, also when its subscription is the newest.
#[test]
fn the_lowest_channel_stays_the_lowest() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    grant(&mut rig, 2);
    rig.persist(true);
    rig.feed(Input::RotationAsked { device: id("a"), channel: Some(ChannelId(1)) });
    grant(&mut rig, 9);
    rig.persist(true);
    assert_eq!(rig.gateway.push_subscription(&id("a"), None).expect("active").endpoint, granted(9).send);
}

/// A-UA-41, A-UA-49: cut at any moment, the channel has one subscription in the end, and the device the one in use.
#[test]
fn a_rotation_that_is_cut_ends_with_one_subscription() {
    for writes in 0..4 {
        let mut rig = Rig::serving(&["a"]);
        rotate(&mut rig, "a");
        grant(&mut rig, 9);
        for _ in 0..writes {
            rig.persist(true);
            rig.wait(ROTATION_GRACE_MS);
            unsubscribed(&mut rig);
        }
        let mut again = again(&rig);
        again.add_device("a", &[1]);
        again.feed(Input::Started);
        again.connect();
        for _ in 0..3 {
            again.wait(ROTATION_GRACE_MS);
            again.persist(true);
            unsubscribed(&mut again);
        }
        let expected = if writes == 0 { granted(1) } else { granted(9) };
        let known = again.gateway.push_subscription(&id("a"), None).expect("active");
        assert_eq!(known.endpoint, expected.send, "after {writes} writes");
        assert!(subscribes(&mut again).is_empty());
        let subscriptions = again.flash.keys().filter(|key| matches!(key[0], 1 | 5)).count();
        assert_eq!(subscriptions, 1, "after {writes} writes");
    }
}

/// A device that gives its channel up while that is being replaced leaves nothing behind.
#[test]
fn a_channel_that_is_given_up_goes_with_its_replacement() {
    for steps in 0..3 {
        let mut rig = Rig::serving(&["a"]);
        rotate(&mut rig, "a");
        if steps > 0 {
            grant(&mut rig, 9);
        }
        if steps > 1 {
            rig.persist(true);
        }
        rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
        if steps == 0 {
            grant(&mut rig, 9);
        }
        let mut gone = Vec::new();
        for _ in 0..4 {
            rig.persist(true);
            gone.extend(unsubscribed(&mut rig));
        }
        gone.sort_by_key(|uri| uri.as_str().to_owned());
        assert_eq!(gone, [granted(1).read, granted(9).read], "after {steps} steps");
        assert_eq!(rig.flash.keys().filter(|key| matches!(key[0], 1 | 5)).count(), 0, "after {steps} steps");
    }
}

/// A-UA-33: a subscription that the service ends while it is being replaced is replaced all the same.
#[test]
fn what_ends_while_it_is_replaced_is_replaced() {
    let mut rig = Rig::serving(&["a"]);
    rotate(&mut rig, "a");
    let subscription = rig.requested();
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor: rig.monitor, next: Next::Ended });
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(9))) });
    rig.persist(true);
    rig.persist(true);
    rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    assert_eq!(rig.gateway.push_subscription(&id("a"), None).expect("active").endpoint, granted(9).send);
    assert!(subscribes(&mut rig).is_empty(), "one is enough");
    assert_eq!(rig.flash.keys().filter(|key| matches!(key[0], 1 | 5)).count(), 1);
}

/// Only so many are replaced at once; the others follow.
#[test]
fn rotations_come_in_turns() {
    let names: Vec<String> = (0..ROTATION_COUNT_MAX + 2).map(|number| format!("d{number:02}")).collect();
    let mut rig = Rig::serving(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        rotate(&mut rig, name);
    }
    for number in 0..ROTATION_COUNT_MAX {
        grant(&mut rig, 100 + number);
        rig.persist(true);
    }
    assert!(subscribes(&mut rig).is_empty(), "the old ones are still read");
    for _ in 0..3 {
        rig.wait(ROTATION_GRACE_MS);
        rig.persist(true);
        unsubscribed(&mut rig);
        rig.persist(true);
        if rig.outputs.iter().any(|output| matches!(output, Output::Subscribe { .. })) {
            for number in 0..2 {
                grant(&mut rig, 200 + number);
                rig.persist(true);
            }
        }
    }
    let sends: std::collections::BTreeSet<String> =
        names.iter().map(|name| rig.send_uri(name).as_str().to_owned()).collect();
    assert!(sends.iter().all(|send| send.len() == granted(100).send.as_str().len()), "{sends:?}");
    assert_eq!(sends.len(), names.len());
}

/// D-8292-10, D-8292-15: the key of the application server is in the request; another key needs another subscription, and
/// the old one is removed after the new one is there. That holds over a restart.
#[test]
fn d_8292_15_another_server_key_makes_another_subscription() {
    let key = |number: usize| SERVER_KEYS[number].parse::<ApplicationServerKey>().expect("a key");
    let restricted = |key| Options { application_server_key: Some(key), ..Options::default() };
    let mut rig = Rig::new();
    rig.add_device_with("a", &[1], restricted(key(0)));
    rig.feed(Input::Started);
    rig.connect();
    let requests = subscribes(&mut rig);
    let [Output::Subscribe { subscription, restricted_to, .. }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(*restricted_to, Some(key(0)));
    rig.feed(Input::Subscribed { connection: rig.on, subscription: *subscription, outcome: Some(Ok(granted(1))) });
    rig.persist(true);

    let mut same = again(&rig);
    same.add_device_with("a", &[1], restricted(key(0)));
    same.feed(Input::Started);
    same.connect();
    assert!(subscribes(&mut same).is_empty(), "it is restricted to that key already");

    let mut other = again(&rig);
    other.add_device_with("a", &[1], restricted(key(1)));
    other.feed(Input::Started);
    other.connect();
    let requests = subscribes(&mut other);
    let [Output::Subscribe { subscription, restricted_to, .. }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(*restricted_to, Some(key(1)));
    other.feed(Input::Subscribed { connection: other.on, subscription: *subscription, outcome: Some(Ok(granted(2))) });
    other.persist(true);
    other.wait(ROTATION_GRACE_MS);
    other.persist(true);
    assert_eq!(unsubscribed(&mut other), [granted(1).read]);

    // The same while it runs.
    other.add_device_with("a", &[1], Options::default());
    let requests = subscribes(&mut other);
    assert!(matches!(requests[..], [Output::Subscribe { restricted_to: None, .. }]), "{requests:?}");
}

/// A-GAP-14: no subscribe request leaves before it is counted on flash, a known outcome costs nothing, and the count goes
/// down once nothing is to be asked for.
#[test]
fn a_gap_14_a_subscribe_is_counted_before_it_is_sent() {
    let mut rig = Rig::new();
    rig.stores_orphans = false;
    rig.add_device("a", &[1, 2]);
    rig.feed(Input::Started);
    rig.connect();
    assert!(subscribes(&mut rig).is_empty());
    rig.persist(false);
    assert!(subscribes(&mut rig).is_empty(), "a flash that refuses counts nothing");
    rig.wait(PERSIST_RETRY_MS);
    rig.persist(true);
    grant(&mut rig, 1);
    let count = |rig: &Rig| rig.flash.get(&vec![6_u8]).map(|value| value[1]);
    assert_eq!(count(&rig), Some(1));
    rig.persist(true);
    grant(&mut rig, 2);
    assert_eq!(count(&rig), Some(1), "one is enough for one after another");
    rig.persist(true);
    rig.persist(true);
    assert_eq!(count(&rig), None);
}

/// A-GAP-14, A-UA-36: after more requests of unknown outcome than may be, over a restart, all subscriptions move to a new
/// set, the new one before the old one, which is then removed with one request and whatever else is in it.
#[test]
fn a_gap_14_too_many_orphans_end_with_their_set() {
    let mut rig = Rig::serving(&["a", "b"]);
    let lose = |rig: &mut Rig, count: u8| {
        for _ in 0..count {
            let subscription = rig.requested();
            rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: None });
            rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
        }
    };
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    lose(&mut rig, ORPHAN_COUNT_MAX - 1);
    let mut rig = again(&rig);
    rig.add_device("a", &[1]);
    rig.add_device("b", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    rig.outputs.clear();
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    lose(&mut rig, 1);
    let new_set = SetUri::parse("https://push.example/t/new").ok();
    for number in [11, 12, 13] {
        let requests = subscribes(&mut rig);
        let [Output::Subscribe { subscription, set, .. }] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(*set, if number == 11 { None } else { new_set.clone() });
        let granted = Granted { set: new_set.clone(), ..granted(number) };
        rig.feed(Input::Subscribed { connection: rig.on, subscription: *subscription, outcome: Some(Ok(granted)) });
        rig.persist(true);
        rig.persist(true);
    }
    let open = rig.gateway.status().monitors;
    assert_eq!(open, 2, "the new set is monitored before the old one goes");
    rig.wait(ROTATION_GRACE_MS);
    rig.persist(true);
    let requests = rig.take(|output| matches!(output, Output::UnsubscribeSet { .. }));
    let [Output::UnsubscribeSet { set, .. }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(Some(set.clone()), granted(1).set);
    rig.feed(Input::SetUnsubscribed { connection: rig.on, set: set.clone(), outcome: Deletion::Done });
    for _ in 0..4 {
        rig.persist(true);
        rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    }
    assert_eq!(unsubscribed(&mut rig), [], "none alone");
    let kinds: Vec<u8> = rig.flash.keys().map(|key| key[0]).filter(|kind| *kind != 3).collect();
    assert_eq!(kinds, [1, 1, 1, 2], "three subscriptions and their set");
}

/// A-UA-36: one DELETE for the set, none for its members, and an empty flash after the answer; a failed one is repeated.
#[test]
fn a_ua_36_a_reset_removes_the_set_and_every_record() {
    let mut rig = Rig::serving(&["a", "b", "c"]);
    let device = device_record("d", vec![]);
    rig.feed(Input::DeviceAdded { device, lasting: true });
    rig.persist(true);
    rig.feed(Input::ResetAsked);
    assert!(rig.take(|output| matches!(output, Output::UnsubscribeSet { .. })).is_empty(), "flash knows first");
    rig.persist(true);
    for outcome in [Deletion::Retry(None), Deletion::Done] {
        let requests = rig.take(|output| matches!(output, Output::UnsubscribeSet { .. }));
        let [Output::UnsubscribeSet { set, .. }] = &requests[..] else { panic!("{requests:?}") };
        assert_ne!(rig.gateway.reset_left(), Some(0));
        rig.feed(Input::SetUnsubscribed { connection: rig.on, set: set.clone(), outcome });
        rig.wait(DELETE_BACKOFF_MS_MAX);
    }
    for _ in 0..4 {
        rig.persist(true);
    }
    assert_eq!((unsubscribed(&mut rig), rig.gateway.reset_left()), (vec![], Some(0)));
    assert!(rig.flash.is_empty(), "{:?}", rig.flash.keys());
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(1) });
    rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    assert!(subscribes(&mut rig).is_empty() && rig.flash.is_empty(), "nothing comes back");
}

/// A-UA-36: a reset that is cut goes on: the set is asked for again after a restart.
#[test]
fn a_reset_that_is_cut_goes_on() {
    let mut rig = Rig::serving(&["a", "b"]);
    rig.feed(Input::ResetAsked);
    rig.persist(true);
    let mut again = again(&rig);
    again.add_device("a", &[1]);
    again.feed(Input::Started);
    again.connect();
    let requests = again.take(|output| matches!(output, Output::UnsubscribeSet { .. }));
    let [Output::UnsubscribeSet { set, .. }] = &requests[..] else { panic!("{requests:?}") };
    again.feed(Input::SetUnsubscribed { connection: again.on, set: set.clone(), outcome: Deletion::Done });
    for _ in 0..3 {
        again.persist(true);
    }
    assert_eq!(unsubscribed(&mut again), []);
    grant(&mut again, 20);
    again.persist(true);
    again.persist(true);
    assert_eq!(again.flash.keys().filter(|key| matches!(key[0], 1 | 5 | 7)).count(), 1, "a new one for its device");
}

/// Loses as many subscribe requests as it takes to leave a set.
fn orphan(rig: &mut Rig, device: &str) {
    rig.feed(Input::Subscribe { device: id(device), channel: ChannelId(2) });
    for _ in 0..=ORPHAN_COUNT_MAX {
        let subscription = rig.requested();
        rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: None });
        rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    }
}

/// A-GAP-14: more subscriptions than may be replaced at once move all the same, turn by turn.
#[test]
fn a_gap_14_a_large_set_is_left_turn_by_turn() {
    let names: Vec<String> = (0..2 * ROTATION_COUNT_MAX).map(|number| format!("d{number:02}")).collect();
    let mut rig = Rig::serving(&names.iter().map(String::as_str).collect::<Vec<_>>());
    orphan(&mut rig, "d00");
    let new_set = SetUri::parse("https://push.example/t/new").ok();
    let mut set_removals = 0;
    for number in 100..250 {
        while let Some(Output::Subscribe { subscription, .. }) = subscribes(&mut rig).pop() {
            let granted = Granted { set: new_set.clone(), ..granted(100 * number + rig.outputs.len()) };
            rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted)) });
            rig.persist(true);
        }
        rig.wait(ROTATION_GRACE_MS);
        rig.persist(true);
        unsubscribed(&mut rig);
        for output in rig.take(|output| matches!(output, Output::UnsubscribeSet { .. })) {
            let Output::UnsubscribeSet { connection, set } = output else { continue };
            assert_eq!(Some(&set), granted(1).set.as_ref());
            set_removals += 1;
            rig.feed(Input::SetUnsubscribed { connection, set, outcome: Deletion::Done });
        }
        rig.persist(true);
    }
    let entries = rig.gateway.subscriptions.iter().map(|entry| entry.granted().and_then(|granted| granted.set.clone()));
    let sets: std::collections::BTreeSet<_> = entries.map(|set| set.map(|set| set.as_str().to_owned())).collect();
    assert_eq!(sets, [new_set.map(|set| set.as_str().to_owned())].into());
    assert_eq!((set_removals, rig.gateway.abandoned.len(), rig.gateway.departures.iter().count()), (1, 0, 0));
    let subscriptions = rig.flash.keys().filter(|key| matches!(key[0], 1 | 5)).count();
    assert_eq!(subscriptions, names.len() + 1);
}

/// A service that gives the set which was to be left all the same is taken at its word: nothing is replaced for ever.
#[test]
fn a_set_that_is_given_again_is_kept() {
    let mut rig = Rig::serving(&["a", "b"]);
    orphan(&mut rig, "a");
    for number in 10..16 {
        while let Some(Output::Subscribe { subscription, .. }) = subscribes(&mut rig).pop() {
            let outcome = Some(Ok(granted(number)));
            rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome });
            rig.persist(true);
        }
        rig.wait(ROTATION_GRACE_MS);
        rig.persist(true);
        unsubscribed(&mut rig);
        rig.persist(true);
    }
    assert!(subscribes(&mut rig).is_empty() && rig.gateway.abandoned.is_empty());
    assert!(rig.take(|output| matches!(output, Output::UnsubscribeSet { .. })).is_empty());
    assert_eq!(rig.flash.keys().filter(|key| matches!(key[0], 1 | 5)).count(), 3);
}
