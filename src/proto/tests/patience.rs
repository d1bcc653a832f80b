//! How long what waits for a device may hold a slot, and who may shorten a pause.

use super::*;

fn arrive_living(rig: &mut Rig, slot: SlotId, max_age_s: u64) {
    rig.feed(Input::Pushed {
        connection: rig.on,
        slot,
        send: None,
        body: b"sealed".to_vec(),
        max_age: Some(Duration::from_secs(max_age_s)),
        age: None,
    });
    for output in rig.take(|output| matches!(output, Output::Decode { .. })) {
        let Output::Decode { slot, .. } = output else { continue };
        rig.feed(Input::Decoded { slot, outcome: Ok(b"hello".to_vec()) });
    }
}

fn up(rig: &mut Rig, device: &str, session: u32, in_flight_max: usize) {
    rig.feed(Input::DeviceUp { device: id(device), session, message_bytes_max: 4096, in_flight_max });
}

fn fetches(rig: &mut Rig) -> usize {
    rig.take(|output| matches!(output, Output::Fetch { .. })).len()
}

/// A link that closes while a body is on its way.
#[test]
fn a_message_that_arrives_for_a_device_that_is_gone_holds_no_slot_for_its_lifetime() {
    for silent in [false, true] {
        let mut rig = Rig::serving(&["a"]);
        let send = rig.send_uri("a");
        let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
        rig.feed(if silent {
            Input::DeviceSilent { device: id("a"), session: 1 }
        } else {
            Input::DeviceDown { device: id("a"), session: 1 }
        });
        arrive_living(&mut rig, slot, 28 * 86_400);
        rig.wait(7 * 86_400_000);
        assert_eq!(rig.gateway.status().in_flight, 0, "silent {silent}: held for a week by a device that is not there");
    }
}

#[test]
fn two_dead_devices_take_no_shared_slots_of_others() {
    let mut rig = Rig::serving(&["a", "b", "c", "d"]);
    for device in ["a", "b", "c"] {
        let send = rig.send_uri(device);
        let slots: Vec<SlotId> = (0..8)
            .filter_map(|n| rig.promise(message(&format!("{device}{n}")), Some(send.clone())).map(|(slot, _)| slot))
            .collect();
        rig.feed(Input::DeviceDown { device: id(device), session: 1 });
        slots.into_iter().for_each(|slot| arrive_living(&mut rig, slot, 28 * 86_400));
    }
    rig.wait(86_400_000);
    let send = rig.send_uri("d");
    let admitted = (0..8).filter(|n| rig.promise(message(&format!("d{n}")), Some(send.clone())).is_some()).count();
    assert_eq!(admitted, 8, "a day later the device that is there has all of its slots");
}

/// A sleeper whose connection closes.
#[test]
fn what_is_kept_for_a_sleeper_is_given_up_also_when_its_link_closed() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::DeviceAsleep { device: id("a"), seconds: 60 });
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("kept");
    arrive_living(&mut rig, slot, 28 * 86_400);
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    rig.wait(7 * 86_400_000);
    assert_eq!(rig.gateway.status().in_flight, 0, "it said a minute; a week has passed");
}

/// A sleeper that comes back in a new session and does not answer a push.
#[test]
fn a_push_without_answer_is_given_up_also_after_sleep_and_a_new_session() {
    let mut rig = Rig::serving(&["a"]);
    up(&mut rig, "a", 1, 1);
    rig.feed(Input::DeviceAsleep { device: id("a"), seconds: 60 });
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send.clone())).expect("kept");
    arrive_living(&mut rig, slot, 28 * 86_400);
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    up(&mut rig, "a", 2, 1);
    assert_eq!(rig.delivered().len(), 1);
    rig.wait(60_000);
    let (slot, _) = rig.promise(message("m2"), Some(send)).expect("room");
    arrive_living(&mut rig, slot, 28 * 86_400);
    assert_eq!(rig.delivered().len(), 1, "the next one is not blocked by one that was not answered for a minute");
}

/// "A push that is not answered within 10 s may be given up, and is pushed again later."
#[test]
fn a_push_that_was_given_up_is_asked_for_again() {
    let mut rig = Rig::serving(&["a"]);
    let service_asks = fetches(&mut rig);
    assert_eq!(service_asks, 0);
    rig.push("a", "m1");
    assert_eq!(rig.delivered().len(), 1);
    rig.wait(HOLD_MS);
    assert_eq!(rig.gateway.status().in_flight, 0, "given up");
    rig.wait(3 * 3_600_000);
    assert!(fetches(&mut rig) > 0, "three hours, a device that is there, and nobody asks for its message");
}

/// What a service asked for (Retry-After) holds whatever a device says.
#[test]
fn a_device_does_not_shorten_the_pause_a_service_asked_for() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::FetchAsked(id("a")));
    let asked = rig.take(|output| matches!(output, Output::Fetch { .. }));
    let [Output::Fetch { subscription, ref read, .. }] = asked[..] else { panic!("one") };
    let next = Next::Backoff(Some(Duration::from_secs(600)));
    rig.feed(Input::FetchEnded { connection: rig.on, subscription, read: read.clone(), next });
    let mut count = 0;
    for _ in 0..100 {
        rig.feed(Input::DeviceAsleep { device: id("a"), seconds: 1 });
        rig.feed(Input::DeviceAwake { device: id("a") });
        let asked = rig.take(|output| matches!(output, Output::Fetch { .. }));
        count += asked.len();
        for output in asked {
            let Output::Fetch { subscription, read, .. } = output else { continue };
            let next = Next::Backoff(Some(Duration::from_secs(600)));
            rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next });
        }
        rig.wait(10);
    }
    assert_eq!(count, 0, "requests in one second, after the service asked for ten minutes");
}

/// An answer that comes while the device sleeps is not lost: its session goes on.
#[test]
fn unsubscribed_waits_for_a_sleeper() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
    rig.persist(true);
    let asked = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let [Output::Unsubscribe { subscription, .. }] = asked[..] else { panic!("one: {asked:?}") };
    rig.feed(Input::DeviceAsleep { device: id("a"), seconds: 60 });
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
    rig.feed(Input::DeviceAwake { device: id("a") });
    rig.wait(1_000);
    let replies = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Unsubscribed { .. }, .. }));
    assert_eq!(replies.len(), 1);
}

/// A sleeper is told soon that nothing waits, also when what was refused while it slept has expired meanwhile.
#[test]
fn a_sleeper_is_not_kept_awake_by_messages_that_expired() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::DeviceAsleep { device: id("a"), seconds: 3_600 });
    let send = rig.send_uri("a");
    for name in ["m1", "m2"] {
        let (slot, _) = rig.promise(message(name), Some(send.clone())).expect("kept");
        arrive_living(&mut rig, slot, 30);
    }
    for name in ["m3", "m4", "m5"] {
        assert!(rig.promise(message(name), Some(send.clone())).is_none(), "more than two");
    }
    rig.wait(3_600_000);
    rig.outputs.clear();
    rig.feed(Input::DeviceAwake { device: id("a") });
    let awake_at = rig.now;
    for _ in 0..7_200 {
        for output in rig.take(|output| matches!(output, Output::Fetch { .. })) {
            let Output::Fetch { subscription, read, .. } = output else { continue };
            rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next: Next::Again });
        }
        let statuses =
            rig.take(|output| matches!(output, Output::Reply { reply: Reply::Status { waiting: 0, .. }, .. }));
        if !statuses.is_empty() {
            break;
        }
        rig.wait(1_000);
    }
    let awake_s = rig.now.since(awake_at).as_secs();
    assert!(awake_s <= 5, "the service has nothing, and the device is awake for {awake_s} s");
}
