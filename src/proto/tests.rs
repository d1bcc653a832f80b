use super::connection::*;
use super::device::Options;
use super::event::*;
use super::record::Record;
use super::*;
use crate::limits::*;
use crate::random::SeededRandom;
use crate::time::ClockReading;
use crate::webpush::exchange::{ContentError, Dialect, Granted, Next, SubscribeError, Target};
use crate::webpush::resource::{PushUri, SetUri, SubscriptionUri};
use crate::wire::ChannelId;

mod alternatives;
mod announced;
mod apart;
mod asleep;
mod lasting;
mod long_life;
mod moving;
mod owed;
mod patience;
mod redirected;
mod rotated;
mod wanted;

/// A-UA-24, A-UA-25: DELETE follows the device ack, and nothing else does.
#[test]
fn a_message_is_acknowledged_only_after_its_device_did() {
    let mut rig = Rig::serving(&["a"]);
    let message = rig.push("a", "m1");
    let sent = rig.delivered();
    assert_eq!(sent.len(), 1);
    rig.wait(3_600_000);
    assert_eq!(rig.acknowledgements(), 0, "no DELETE without a device ack");
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.take_acknowledged(), [message]);
}

/// A-UA-25: a refusal or a device that goes away is no acknowledgement.
#[test]
fn refusal_and_disconnection_are_no_acknowledgement() {
    let mut rig = Rig::serving(&["a"]);
    rig.push("a", "m1");
    rig.push("a", "m2");
    let sent = rig.delivered();
    rig.feed(Input::DeviceRefused { device: id("a"), message: sent[0], later: false });
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    rig.wait(3_600_000);
    assert_eq!(rig.acknowledgements(), 0);
}

/// A message that its device had no room for is asked for again after a pause.
#[test]
fn a_device_without_room_is_offered_the_message_again() {
    let mut rig = Rig::serving(&["a"]);
    rig.push("a", "m1");
    let sent = rig.delivered();
    rig.feed(Input::DeviceRefused { device: id("a"), message: sent[0], later: true });
    rig.wait(REFUSED_PAUSE_MS_MIN / 2 - 1);
    assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).is_empty());
    rig.wait(REFUSED_PAUSE_MS_MIN);
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
    assert_eq!(rig.acknowledgements(), 0);
}

/// A-UA-19: the push link of the promise routes, also for identical bodies.
#[test]
fn the_push_link_of_the_promise_routes() {
    let mut rig = Rig::serving(&["a", "b"]);
    rig.push("b", "m1");
    rig.push("a", "m2");
    assert_eq!(rig.delivered_to(), [id("b"), id("a")]);
}

/// A-UA-20: on a set, a link that comes only with the response routes; without any link nothing is relayed.
#[test]
fn a_link_in_the_response_routes_and_none_at_all_does_not() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let (slot, unrouted) = rig.promise(message("m1"), None).expect("a shared slot");
    assert!(unrouted);
    rig.arrive(slot, Some(send));
    assert_eq!(rig.delivered().len(), 1);
    let (slot, _) = rig.promise(message("m2"), None).expect("a shared slot");
    rig.arrive(slot, None);
    assert_eq!(rig.gateway.status().in_flight, 1, "the first one alone");
    rig.wait(60_000);
    assert_eq!((rig.delivered().len(), rig.acknowledgements()), (0, 0));
}

/// A-UA-26: while a message is in flight, its promise is refused; the device gets one copy.
#[test]
fn a_message_in_flight_is_not_relayed_twice() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let uri = rig.push("a", "m1");
    for _ in 0..2 {
        assert!(rig.promise(uri.clone(), Some(send.clone())).is_none());
    }
    let sent = rig.delivered();
    assert_eq!(sent.len(), 1);
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.take_acknowledged(), [uri.clone()]);
    // The answer to the DELETE is lost with the connection, and the service pushes again.
    rig.feed(rig.closed());
    rig.reconnect();
    assert!(rig.promise(uri.clone(), Some(send)).is_none());
    assert_eq!(rig.take_acknowledged(), [uri]);
    assert!(rig.delivered().is_empty());
}

/// A-UA-27: an acknowledgement that failed is repeated with growing pauses, one that found nothing is not.
#[test]
fn a_failed_acknowledgement_is_repeated() {
    let mut rig = Rig::serving(&["a"]);
    let uri = rig.push("a", "m1");
    let sent = rig.delivered();
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    rig.take_acknowledged();
    for _ in 0..3 {
        rig.feed(Input::Acknowledged { connection: rig.on, message: uri.clone(), outcome: Deletion::Retry(None) });
        assert_eq!(rig.acknowledgements(), 0, "not at once");
        rig.wait(DELETE_BACKOFF_MS_MAX);
        assert_eq!(rig.take_acknowledged(), [uri.clone()]);
    }
    rig.feed(Input::Acknowledged { connection: rig.on, message: uri, outcome: Deletion::Done });
    rig.wait(DELETE_BACKOFF_MS_MAX);
    assert_eq!((rig.acknowledgements(), rig.gateway.status().in_flight), (0, 0));
}

/// A-GAP-21: a message that its device did not get in time is given up; a late device ack still counts.
#[test]
fn a_late_device_ack_still_becomes_a_delete() {
    let mut rig = Rig::serving(&["a"]);
    let uri = rig.push("a", "m1");
    let sent = rig.delivered();
    rig.wait(HOLD_MS);
    assert_eq!(rig.gateway.status().in_flight, 0);
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.take_acknowledged(), [uri.clone()]);
    rig.feed(Input::Acknowledged { connection: rig.on, message: uri, outcome: Deletion::Done });
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.acknowledgements(), 0, "once is enough");
}

/// A-GAP-21: what is left of the lifetime shortens the hold, but not below its floor.
#[test]
fn the_rest_of_the_lifetime_shortens_the_hold() {
    for (max_age_s, held_ms) in [(0, HOLD_MS_MIN), (5, 5_000), (600, HOLD_MS)] {
        let mut rig = Rig::serving(&["a"]);
        let send = rig.send_uri("a");
        rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
        rig.feed(Input::DeviceUp {
            device: id("a"),
            session: 2,
            message_bytes_max: 4096,
            in_flight_max: DELIVERY_PER_DEVICE_MAX,
        });
        let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
        let max_age = Some(Duration::from_secs(max_age_s));
        rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: vec![1], max_age, age: None });
        rig.feed(Input::Decoded { slot, outcome: Ok(vec![1]) });
        rig.wait(held_ms - 1);
        assert_eq!(rig.gateway.status().in_flight, 1);
        rig.wait(1);
        assert_eq!(rig.gateway.status().in_flight, 0, "{max_age_s} s left");
    }
}

/// A-GAP-05, A-UA-39, A-UA-40: what is not encrypted, or cannot be decrypted, is neither relayed nor acknowledged nor
/// read again.
#[test]
fn undecodable_messages_are_refused_from_then_on() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send.clone())).expect("admitted");
    rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: vec![0; 200], max_age: None, age: None });
    rig.feed(Input::Decoded { slot, outcome: Err(crate::webpush::ece::DecodeError::Authentication) });
    assert!(rig.promise(message("m1"), Some(send.clone())).is_none());
    let (slot, _) = rig.promise(message("m2"), Some(send.clone())).expect("admitted");
    rig.feed(Input::PushFailed { connection: rig.on, slot, content: Some(ContentError::NotEncrypted) });
    assert!(rig.promise(message("m2"), Some(send)).is_none());
    rig.wait(3_600_000);
    assert_eq!((rig.delivered().len(), rig.acknowledgements()), (0, 0));
    assert_eq!(rig.gateway.status().counters.undeliverable, 2);
}

/// C-67: a message larger than its device takes is not cut; it is asked for again when the device takes more.
#[test]
fn a_message_too_large_for_its_device_waits_for_a_larger_maximum() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 64,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send.clone())).expect("admitted");
    rig.arrive_with(slot, None, vec![7; 51]);
    assert!(rig.delivered().is_empty() && rig.promise(message("m1"), Some(send.clone())).is_none());
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 3,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).len() == 1);
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted now");
    rig.arrive_with(slot, None, vec![7; 51]);
    assert_eq!(rig.delivered().len(), 1);
}

/// A-GAP-05: messages that can never be delivered may stand before others, and a service that sees them refused may hold
/// back all: it is asked for what there is, with pauses that grow, and not for each of them.
#[test]
fn what_stands_behind_undeliverable_messages_is_asked_for() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let fetches = |rig: &mut Rig| rig.take(|output| matches!(output, Output::Fetch { .. })).len();
    for name in ["m1", "m2"] {
        let (slot, _) = rig.promise(message(name), Some(send.clone())).expect("admitted");
        rig.arrive_with(slot, None, vec![7; 4_090]);
    }
    let mut pause_ms = REFUSED_PAUSE_MS_MIN;
    for _ in 0..10 {
        assert!(rig.promise(message("m1"), Some(send.clone())).is_none());
        assert!(rig.promise(message("m2"), Some(send.clone())).is_none());
        rig.wait(pause_ms / 2 - 1);
        assert_eq!(fetches(&mut rig), 0, "too early");
        rig.wait(pause_ms);
        assert_eq!(fetches(&mut rig), 1);
        let subscription = rig.gateway.subscriptions.iter().next().expect("one").id;
        rig.feed(Input::FetchEnded { connection: rig.on, subscription, read: granted(1).read, next: Next::Again });
        pause_ms = (2 * pause_ms).min(REFUSED_PAUSE_MS_MAX);
    }
    rig.wait(REFUSED_PAUSE_MS_MAX);
    assert_eq!((fetches(&mut rig), rig.acknowledgements()), (0, 0));
}

/// Walk D: a silent device gives its slots back, holds up nobody, and is served again when it speaks.
#[test]
fn a_silent_device_frees_its_slots_and_is_fetched_for_later() {
    let mut rig = Rig::serving(&["a", "b"]);
    let send = rig.send_uri("a");
    rig.push("a", "m1");
    let first = rig.delivered();
    rig.feed(Input::DeviceSilent { device: id("a"), session: 1 });
    assert_eq!(rig.gateway.status().in_flight, 0);
    assert!(rig.promise(message("m2"), Some(send.clone())).is_none(), "refused while silent");
    rig.push("b", "m3");
    assert_eq!(rig.delivered_to(), [id("b")]);
    assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).is_empty());
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    let fetches = rig.take(|output| matches!(output, Output::Fetch { .. }));
    assert_eq!(fetches.len(), 1);
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("pushed again");
    rig.arrive(slot, None);
    assert_eq!(rig.delivered(), first, "the same message id");
}

/// A report of an earlier session changes nothing.
#[test]
fn the_end_of_an_earlier_session_is_ignored() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    assert_eq!(rig.gateway.status().devices[0].presence, "ready");
}

/// A device that was reset gets again what it had not acknowledged, in order.
#[test]
fn a_new_session_gets_what_was_in_flight() {
    let mut rig = Rig::serving(&["a"]);
    rig.push("a", "m1");
    rig.push("a", "m2");
    let before = rig.delivered();
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    assert_eq!(rig.delivered(), before);
}

/// A-GAP-08, C-36: a device holds at most its share; when nearly all of it is free again, what was refused is asked for.
#[test]
fn a_slow_device_is_asked_for_again_when_nearly_all_of_its_slots_are_free() {
    let mut rig = Rig::serving(&["a", "b"]);
    let send = rig.send_uri("a");
    let uris: Vec<_> = (0..DELIVERY_PER_DEVICE_MAX).map(|number| rig.push("a", &format!("m{number}"))).collect();
    let sent = rig.delivered();
    assert!(rig.promise(message("more"), Some(send)).is_none(), "the ninth is refused");
    rig.push("b", "other");
    assert_eq!(rig.delivered_to(), [id("b")]);
    for (number, (uri, message)) in uris.into_iter().zip(sent).enumerate() {
        assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).is_empty(), "{number} acknowledged");
        rig.feed(Input::DeviceAck { device: id("a"), message });
        rig.feed(Input::Acknowledged { connection: rig.on, message: uri, outcome: Deletion::Done });
        if number + 1 == DELIVERY_PER_DEVICE_MAX - FETCH_HELD_COUNT_MAX {
            break;
        }
    }
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
}

/// A service may count what it pushed a moment ago as delivered, and say that nothing is stored: what was refused is
/// asked for again, with growing pauses, until it came or was asked for often enough.
#[test]
fn what_was_refused_is_asked_for_until_it_comes() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    assert!(rig.promise(message("m1"), Some(send.clone())).is_none());
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    let nothing_stored = |rig: &mut Rig| {
        let mut asked = 0;
        for output in rig.take(|output| matches!(output, Output::Fetch { .. })) {
            let Output::Fetch { subscription, read, .. } = output else { continue };
            asked += 1;
            rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next: Next::Again });
        }
        asked
    };
    assert_eq!(nothing_stored(&mut rig), 1);
    rig.wait(REFUSED_PAUSE_MS_MIN);
    assert_eq!(nothing_stored(&mut rig), 1, "again, since it did not come");
    let (slot, _) = rig.promise(message("m1"), Some(send.clone())).expect("there it is");
    rig.arrive(slot, None);
    for message in rig.delivered() {
        rig.feed(Input::DeviceAck { device: id("a"), message });
    }
    rig.wait(3_600_000);
    let more = nothing_stored(&mut rig);
    assert!(more <= 1, "{more} more: what came is not asked for");
    rig.feed(Input::DeviceDown { device: id("a"), session: 2 });
    assert!(rig.promise(message("expired"), Some(send)).is_none());
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 3,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    let mut asked = 0;
    for _ in 0..MISSED_MS_MAX / 1_000 {
        asked += nothing_stored(&mut rig);
        rig.wait(1_000);
    }
    assert_eq!(asked, MISSED_ASK_COUNT_MAX as usize);
}

/// A-GAP-08: a promise of a message in flight is refused, which may make the service wait with others; if no
/// acknowledgement follows, they are asked for.
#[test]
fn what_stands_behind_a_refused_copy_is_asked_for() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let uri = rig.push("a", "m1");
    assert!(rig.promise(uri, Some(send)).is_none());
    assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).is_empty());
    rig.wait(REFUSED_PAUSE_MS_MIN);
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
}

/// A request with `wait=0` may stay open at the service until what it pushed is acknowledged: what it pushed and we
/// refused is asked for by another one, after a pause, and never by more than two.
#[test]
fn what_is_refused_while_a_fetch_is_open_is_asked_for_again() {
    let fetches = |rig: &mut Rig| rig.take(|output| matches!(output, Output::Fetch { .. })).len();
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    rig.feed(Input::FetchAsked(id("a")));
    assert_eq!(fetches(&mut rig), 1);
    for (round, expected) in [(1, 1), (2, 0)] {
        let held: Vec<_> = (0..DELIVERY_PER_DEVICE_MAX).map(|n| rig.push("a", &format!("m{round}-{n}"))).collect();
        assert!(rig.promise(message("refused"), Some(send.clone())).is_none());
        let sent = rig.delivered();
        for (uri, message) in held.into_iter().zip(sent) {
            rig.feed(Input::DeviceAck { device: id("a"), message });
            rig.feed(Input::Acknowledged { connection: rig.on, message: uri, outcome: Deletion::Done });
        }
        assert_eq!(fetches(&mut rig), 0, "not at once");
        rig.wait(FETCH_PAUSE_MS);
        assert_eq!(fetches(&mut rig), expected);
    }
}

/// A-UA-04, walk B: persist, then tell; what is told is where to send and the keys, never where messages are read.
#[test]
fn a_device_is_told_only_what_is_on_flash() {
    let mut rig = Rig::new();
    rig.add_device("a", &[]);
    rig.feed(Input::Started);
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(9) });
    rig.connect();
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(1))) });
    assert!(rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. })).is_empty());
    rig.persist(false);
    assert!(
        rig.take(|output| matches!(
            output,
            Output::Reply { reply: Reply::Subscribed { .. }, .. } | Output::Monitor { .. }
        ))
        .is_empty()
    );
    rig.wait(PERSIST_RETRY_MS);
    rig.persist(true);
    let replies = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. }));
    let [Output::Reply { reply: Reply::Subscribed { channel: ChannelId(9), send, .. }, .. }] = &replies[..] else {
        panic!("one reply: {replies:?}");
    };
    assert_eq!(*send, granted(1).send);
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    // Asked again, it is told again, and no second subscription is made.
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(9) });
    assert_eq!(rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. })).len(), 1);
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
}

/// A-UA-09, A-UA-18: later requests carry the set of the first; one monitor serves all.
#[test]
fn subscriptions_share_a_set_and_one_monitor() {
    let mut rig = Rig::new();
    for number in 0..20 {
        rig.add_device(&format!("d{number}"), &[1]);
    }
    rig.feed(Input::Started);
    rig.connect();
    for number in 0..20 {
        let mut requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
        assert_eq!(requests.len(), 1, "one at a time");
        let Some(Output::Subscribe { subscription, set, .. }) = requests.pop() else { panic!("a request") };
        assert_eq!(set.is_some(), number > 0);
        rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number))) });
        rig.persist(true);
    }
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
}

/// A-UA-11: when the service answers with another set, both are monitored; later requests present the new one.
#[test]
fn two_sets_are_both_monitored() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device("b", &[1]);
    let subscription = rig.requested();
    let mut other = granted(2);
    other.set = SetUri::parse("https://push.example/t/other").ok();
    let set = other.set.clone();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(other)) });
    rig.persist(true);
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    assert!(
        matches!(&monitors[..], [Output::Monitor { target: Target::Set(target), .. }] if Some(target) == set.as_ref())
    );
    assert_eq!(rig.gateway.status().monitors, 2);
    rig.add_device("c", &[1]);
    let requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    assert!(matches!(&requests[..], [Output::Subscribe { set: presented, .. }] if *presented == set));
}

/// A-UA-12: a refused set is forgotten, also on flash, and the request repeated once without it.
#[test]
fn a_refused_set_is_forgotten() {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device("b", &[1]);
    let mut requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    let Some(Output::Subscribe { subscription, set: Some(_), .. }) = requests.pop() else { panic!("with the set") };
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Err(SubscribeError::SetRefused)) });
    let mut requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    assert!(matches!(requests.pop(), Some(Output::Subscribe { set: None, .. })));
    let removed = |output: &Output| matches!(output, Output::Persist { change: Change::Remove(Key::Set(_)), .. });
    assert_eq!(rig.take(removed).len(), 1);
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Err(SubscribeError::Status(400))) });
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty(), "not at once again");
}

/// A-UA-13: a busy service is asked again when it said, not before.
#[test]
fn a_busy_service_is_left_alone_as_long_as_it_asks() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    let busy = SubscribeError::Busy(Some(Duration::from_secs(30)));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Err(busy)) });
    rig.wait(29_999);
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    rig.wait(1);
    assert_eq!(rig.take(|output| matches!(output, Output::Subscribe { .. })).len(), 1);
}

/// A-UA-35, A-UA-33: when the set is gone every member is made anew with other keys, and its old record goes first.
#[test]
fn a_set_that_is_gone_is_made_anew() {
    let mut rig = Rig::serving(&["a", "b"]);
    let old = rig.gateway.push_subscription(&id("a"), None).expect("active");
    let monitor = rig.monitor;
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next: Next::Ended });
    assert_eq!(rig.gateway.push_subscription(&id("a"), None), None);
    let removals = rig.take(|output| matches!(output, Output::Persist { change: Change::Remove(_), .. }));
    assert_eq!(removals.len(), 3, "two subscriptions and the set");
    rig.wait(SUBSCRIBE_BACKOFF_MS_MIN);
    for number in 10..12 {
        let subscription = rig.requested();
        rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number))) });
        rig.persist(true);
    }
    let new = rig.gateway.push_subscription(&id("a"), None).expect("active again");
    assert!(new.endpoint != old.endpoint && new.public != old.public && new.auth != old.auth);
    let told = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. }));
    assert_eq!(told.len(), 2);
}

/// A-UA-34: a subscription that is no longer wanted is marked so on flash, then deleted at the service, and only then its
/// record goes: after a power cut nothing is served that the service has removed.
#[test]
fn unsubscribing_deletes_at_the_service_between_two_writes() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
    rig.persist(false);
    assert!(rig.take(|output| matches!(output, Output::Unsubscribe { .. })).is_empty(), "the mark is not stored");
    rig.wait(PERSIST_RETRY_MS);
    rig.persist(true);
    let mut requests = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let Some(Output::Unsubscribe { subscription, .. }) = requests.pop() else { panic!("a DELETE") };
    let removals = |output: &Output| matches!(output, Output::Persist { change: Change::Remove(_), .. });
    assert!(!rig.outputs.iter().any(removals));
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
    let told = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Unsubscribed { .. }, .. }));
    assert_eq!(told.len(), 1);
    assert!(rig.gateway.status().devices[0].channels.is_empty());
}

/// A subscription that became unwanted while it was asked for is removed once its answer tells where it is.
#[test]
fn a_request_that_became_unwanted_is_undone() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    rig.feed(Input::DeviceRemoved(id("a")));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(1))) });
    rig.persist(true);
    assert_eq!(rig.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1);
}

/// A channel that is asked for while it is being removed is made anew afterwards.
#[test]
fn a_channel_can_be_asked_for_while_it_is_being_removed() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(1) });
    rig.persist(true);
    let mut requests = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let Some(Output::Unsubscribe { subscription, .. }) = requests.pop() else { panic!("a DELETE") };
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
    assert_eq!(rig.take(|output| matches!(output, Output::Subscribe { .. })).len(), 1);
}

/// A-UA-49: what was stored is served again after a restart, without a second subscribe.
#[test]
fn stored_subscriptions_are_monitored_again_after_a_restart() {
    let mut rig = Rig::serving(&["a"]);
    rig.dated(1_800_000_000);
    rig.persist(true);
    let mut again = Rig::new();
    for record in std::mem::take(&mut rig.stored) {
        let (key, value) = (record.key().encode(), record.encode());
        again.feed(Input::Restored(Record::decode(&key, &value).expect("readable")));
    }
    again.add_device("a", &[1]);
    again.feed(Input::Started);
    assert_eq!(again.gateway.known_time(), Some(UnixTime(1_800_000_000)));
    again.connect();
    assert!(again.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    assert_eq!(again.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    let before = rig.gateway.push_subscription(&id("a"), None);
    assert_eq!(again.gateway.push_subscription(&id("a"), None), before);
}

/// A stored subscription whose device is configured no longer is removed at the service.
#[test]
fn a_subscription_without_device_leaves() {
    let mut rig = Rig::serving(&["a"]);
    let mut again = Rig::new();
    for record in std::mem::take(&mut rig.stored) {
        again.feed(Input::Restored(record));
    }
    again.feed(Input::Started);
    again.connect();
    again.persist(true);
    assert_eq!(again.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1);
}

/// The record of its device may be what was lost or what a later version wrote: then its subscription stays as it is, with
/// what is owed for it, until the device is there again.
#[test]
fn a_subscription_without_device_stays_while_facts_are_missing() {
    let mut rig = Rig::serving(&["a", "b"]);
    let owed = PendingAck { message: message("m1"), device: id("b"), channel: ChannelId(1), id: MessageId([7; 8]) };
    let mut again = Rig::new();
    for record in std::mem::take(&mut rig.stored).into_iter().chain([Record::PendingAck(owed)]) {
        again.feed(Input::Restored(record));
    }
    again.feed(Input::Restored(Record::Stopped(id("c"), ChannelId(1))));
    again.feed(Input::Incomplete);
    again.add_device("a", &[1]);
    again.feed(Input::Started);
    again.connect();
    let ends = |output: &Output| matches!(output, Output::Unsubscribe { .. } | Output::Persist { .. });
    assert!(again.take(ends).is_empty(), "nothing is removed, neither there nor on flash");
    let monitors = again.take(|output| matches!(output, Output::Monitor { .. }));
    let [Output::Monitor { monitor, .. }] = monitors[..] else { panic!("one monitor") };
    again.monitor = monitor;
    let send = rig.send_uri("b");
    assert!(again.promise(message("m2"), Some(send)).is_none(), "the service keeps it");
    again.add_device("b", &[1]);
    assert!(again.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    assert_eq!(again.gateway.push_subscription(&id("b"), None), rig.gateway.push_subscription(&id("b"), None));
}

/// B-X-13: a promise whose acknowledgement would remove a subscription or a set is refused.
#[test]
fn a_promise_of_a_subscription_itself_is_refused() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    for uri in ["https://push.example/s/1", "https://push.example/t/0"] {
        let uri = PushMessageUri::parse(uri).expect("valid");
        assert!(rig.promise(uri, Some(send.clone())).is_none());
    }
}

/// A promise that links a subscription of nobody is refused, and nothing is asked for again.
#[test]
fn unknown_subscriptions_are_refused() {
    let mut rig = Rig::serving(&["a"]);
    let unknown = PushUri::parse("https://push.example/p/unknown").expect("valid");
    assert!(rig.promise(message("m1"), Some(unknown)).is_none());
    rig.wait(60_000);
    assert!(rig.take(|output| matches!(output, Output::Fetch { .. })).is_empty());
}

/// C-34: when the connection ends while content is on its way, nothing of it is relayed or acknowledged.
#[test]
fn half_a_message_is_no_message() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
    rig.feed(rig.closed());
    rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: vec![1], max_age: None, age: None });
    rig.wait(60_000);
    assert_eq!((rig.gateway.status().in_flight, rig.acknowledgements()), (0, 0));
}

/// Without subscriptions there is nothing to connect for; with one, connecting never ends.
#[test]
fn connecting_is_tried_for_ever_with_bounded_pauses() {
    let mut rig = Rig::new();
    rig.feed(Input::Started);
    rig.wait(3_600_000);
    assert!(rig.take(|output| matches!(output, Output::Connect { .. })).is_empty());
    rig.add_device("a", &[1]);
    for _ in 0..50 {
        rig.dial();
        rig.feed(rig.closed());
        let (due, timer) = rig.gateway.poll_timeout().expect("a deadline");
        assert_eq!(timer, Timer::Connect);
        assert!(due.since(rig.now).as_millis() <= u128::from(BACKOFF_MS_MAX));
        let pause = due.since(rig.now).as_millis() as u64;
        rig.wait(pause);
    }
}

/// A report of a request that was made for an earlier subscription of the channel says nothing of the new one.
#[test]
fn a_late_end_of_a_fetch_does_not_end_the_new_subscription() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::FetchAsked(id("a")));
    let fetches = rig.take(|output| matches!(output, Output::Fetch { .. }));
    let [Output::Fetch { subscription, read, .. }] = &fetches[..] else { panic!("one fetch") };
    let monitor = rig.monitor;
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next: Next::Ended });
    rig.persist(true);
    rig.wait(SUBSCRIBE_BACKOFF_MS_MIN);
    let again = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription: again, outcome: Some(Ok(granted(10))) });
    rig.persist(true);
    let new = rig.gateway.push_subscription(&id("a"), None);
    assert!(new.is_some());
    rig.feed(Input::FetchEnded {
        connection: rig.on,
        subscription: *subscription,
        read: read.clone(),
        next: Next::Ended,
    });
    assert_eq!(rig.gateway.push_subscription(&id("a"), None), new);
}

/// A-UA-03: a service that grants and at once forgets is not asked in a tight loop.
#[test]
fn a_service_that_forgets_at_once_is_asked_with_growing_pauses() {
    let mut rig = Rig::serving(&["a"]);
    let mut requests = 0;
    let end = rig.now + Duration::from_secs(3_600);
    let mut monitor = rig.monitor;
    while rig.now < end {
        rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next: Next::Ended });
        rig.persist(true);
        while rig.now < end {
            rig.wait(1_000);
            if let Some(Output::Subscribe { subscription, .. }) =
                rig.take(|output| matches!(output, Output::Subscribe { .. })).pop()
            {
                requests += 1;
                rig.feed(Input::Subscribed {
                    connection: rig.on,
                    subscription,
                    outcome: Some(Ok(granted(requests + 10))),
                });
                rig.persist(true);
            }
            if let Some(Output::Monitor { monitor: next, .. }) =
                rig.take(|output| matches!(output, Output::Monitor { .. })).pop()
            {
                monitor = next;
                break;
            }
        }
    }
    assert!((4..20).contains(&requests), "{requests} requests in an hour");
}

/// What a verified service says of time is stored; a clock alone is not, and not each answer.
#[test]
fn a_time_that_a_verified_service_says_is_stored_rarely() {
    let times = |rig: &mut Rig| {
        let is_time =
            |output: &Output| matches!(output, Output::Persist { change: Change::Put(Record::LastTime(..)), .. });
        rig.take(is_time).len()
    };
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.feed(Input::ClockRead(ClockReading { wall_ms: 1_900_000_000_000, is_synchronised: false }));
    rig.connect();
    assert_eq!((times(&mut rig), rig.gateway.known_time()), (0, None));
    rig.dated(1_800_000_000);
    assert_eq!((times(&mut rig), rig.gateway.known_time()), (1, Some(UnixTime(1_800_000_000))));
    rig.persist(true);
    rig.feed(rig.closed());
    rig.reconnect();
    rig.dated(1_800_080_000);
    assert_eq!((times(&mut rig), rig.gateway.known_time()), (0, Some(UnixTime(1_800_080_000))));
    rig.feed(Input::Stopping);
    assert_eq!(times(&mut rig), 1);
}

/// Of a connection that is over nothing is believed.
#[test]
fn only_connections_that_are_there_say_what_time_it_is() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(rig.closed());
    rig.dated(1_800_000_000);
    assert_eq!(rig.gateway.known_time(), None);
}

/// What a person has forgotten is gone on flash, and learned again.
#[test]
fn a_time_that_is_forgotten_is_removed() {
    let mut rig = Rig::serving(&["a"]);
    rig.dated(1_800_000_000);
    rig.persist(true);
    rig.feed(Input::TimeForgotten);
    assert_eq!(rig.gateway.known_time(), None);
    let removed = rig.take(|output| matches!(output, Output::Persist { change: Change::Remove(Key::LastTime), .. }));
    assert_eq!(removed.len(), 1);
    rig.dated(1_700_000_000);
    assert_eq!(rig.gateway.known_time(), Some(UnixTime(1_700_000_000)));
}

/// A stored set of another service is not given away to this one.
#[test]
fn a_set_of_another_service_is_not_presented() {
    let mut rig = Rig::new();
    rig.feed(Input::Restored(Record::Set {
        service: None,
        set: SetUri::parse("https://old.example/t/secret").expect("valid"),
    }));
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let requests = rig.take(|output| matches!(output, Output::Subscribe { .. }));
    assert!(matches!(&requests[..], [Output::Subscribe { set: None, .. }]));
    let removed = |output: &Output| matches!(output, Output::Persist { change: Change::Remove(Key::Set(_)), .. });
    assert_eq!(rig.take(removed).len(), 1);
}

/// What could not be written is written later: a device that was added, and that it was removed.
#[test]
fn failed_writes_are_repeated() {
    let mut rig = Rig::new();
    rig.feed(Input::Started);
    let device = device_record("a", vec![]);
    rig.feed(Input::DeviceAdded { device, lasting: true });
    assert!(!rig.gateway.is_device_stored(&id("a")), "it waits for the write");
    rig.persist(false);
    assert!(!rig.gateway.is_device_stored(&id("a")), "it failed");
    rig.wait(PERSIST_RETRY_MS);
    let put = |output: &Output| matches!(output, Output::Persist { change: Change::Put(Record::Device(_)), .. });
    assert!(rig.outputs.iter().any(put));
    rig.persist(true);
    assert!(rig.gateway.is_device_stored(&id("a")));
    rig.feed(Input::DeviceRemoved(id("a")));
    assert!(!rig.gateway.is_device_stored(&id("a")));
    rig.persist(false);
    rig.wait(PERSIST_RETRY_MS);
    let removal = |output: &Output| matches!(output, Output::Persist { change: Change::Remove(Key::Device(_)), .. });
    assert!(rig.outputs.iter().any(removal));
}

/// A message that did not arrive is asked for: the service may hold it back after a reset.
#[test]
fn a_message_that_did_not_arrive_is_asked_for() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("m1"), Some(send)).expect("admitted");
    rig.feed(Input::PushFailed { connection: rig.on, slot, content: None });
    rig.wait(REFUSED_PAUSE_MS_MIN);
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
}

/// A device that never has room does not make its message travel for ever at the same pace.
#[test]
fn a_device_without_room_is_offered_a_message_less_and_less_often() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    rig.push("a", "m1");
    let mut downloads = 1;
    let end = rig.now + Duration::from_secs(3_600);
    while rig.now < end {
        for sent in rig.delivered() {
            rig.feed(Input::DeviceRefused { device: id("a"), message: sent, later: true });
        }
        rig.wait(1_000);
        for output in rig.take(|output| matches!(output, Output::Fetch { .. })) {
            let Output::Fetch { subscription, read, .. } = output else { continue };
            if let Some((slot, _)) = rig.promise(message("m1"), Some(send.clone())) {
                rig.arrive(slot, None);
                downloads += 1;
            }
            rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next: Next::Again });
        }
    }
    assert!(downloads < 20, "{downloads} in an hour");
}

/// A-UA-34: that a subscription is being removed survives a restart.
#[test]
fn a_removal_goes_on_after_a_restart() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(rig.closed());
    rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
    rig.persist(true);
    let mut again = Rig::new();
    for record in std::mem::take(&mut rig.stored) {
        let (key, value) = (record.key().encode(), record.encode());
        again.feed(Input::Restored(Record::decode(&key, &value).expect("readable")));
    }
    again.add_device("a", &[2]);
    again.feed(Input::Started);
    again.connect();
    assert_eq!(again.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1);
}

/// A monitor that is to wait waits, also over a reconnect.
#[test]
fn a_pause_of_a_monitor_outlives_its_connection() {
    let mut rig = Rig::serving(&["a"]);
    let monitor = rig.monitor;
    let wait = Some(Duration::from_secs(3_600));
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next: Next::Backoff(wait) });
    rig.feed(rig.closed());
    rig.reconnect();
    assert!(rig.take(|output| matches!(output, Output::Monitor { .. })).is_empty());
}

/// A-GAP-14: a subscribe request of unknown outcome is not repeated more than once a minute.
#[test]
fn a_request_of_unknown_outcome_is_not_repeated_within_a_minute() {
    let mut rig = Rig::new();
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: None });
    rig.wait(SUBSCRIBE_UNKNOWN_MS - 1);
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    rig.wait(1);
    rig.requested();
}

/// An acknowledgement of a message that was given up is repeated, also while the message is promised again.
#[test]
fn a_late_acknowledgement_is_repeated_while_its_message_comes_again() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let uri = rig.push("a", "m1");
    let sent = rig.delivered();
    rig.wait(HOLD_MS);
    let (slot, _) = rig.promise(uri.clone(), Some(send)).expect("again");
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.take_acknowledged().len(), 1);
    rig.feed(Input::Acknowledged { connection: rig.on, message: uri, outcome: Deletion::Retry(None) });
    rig.feed(Input::PushFailed { connection: rig.on, slot, content: None });
    rig.wait(DELETE_BACKOFF_MS_MAX);
    assert_eq!(rig.take_acknowledged().len(), 1);
}

/// A-UA-37: of two streams that a service allows, a monitor keeps one; the other is for one request after another.
#[test]
fn one_stream_is_left_for_requests_that_end() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    rig.dial();
    rig.ready(2);
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    for fetches in [1, 0] {
        rig.feed(Input::FetchAsked(id("a")));
        assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), fetches);
    }
    rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
    rig.persist(true);
    assert_eq!(rig.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1);
}

/// A-UA-49: a device that was added by command is told of its subscription only once both are stored: after a power cut
/// an unknown device's subscription leaves.
#[test]
fn a_device_that_is_not_stored_is_not_told_of_its_subscription() {
    let mut rig = Rig::serving(&["a"]);
    let device = device_record("b", vec![ChannelId(1)]);
    rig.feed(Input::DeviceAdded { device, lasting: true });
    rig.persist(false);
    let subscription = rig.requested();
    rig.feed(Input::DeviceUp {
        device: id("b"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    rig.feed(Input::Subscribe { device: id("b"), channel: ChannelId(1) });
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    let told = |rig: &mut Rig| {
        rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. })).len()
    };
    rig.wait(PERSIST_RETRY_MS);
    let (devices, rest) =
        rig.take(|output| matches!(output, Output::Persist { .. })).into_iter().partition::<Vec<_>, _>(|output| {
            matches!(output, Output::Persist { change: Change::Put(Record::Device(_)), .. })
        });
    let stored = |rig: &mut Rig, outputs: Vec<Output>| {
        for output in outputs {
            let Output::Persist { ticket, .. } = output else { continue };
            rig.feed(Input::Persisted { ticket, stored: true });
        }
    };
    stored(&mut rig, rest);
    assert_eq!(told(&mut rig), 0, "the device is not stored yet");
    stored(&mut rig, devices);
    assert_eq!(told(&mut rig), 1);
}

/// A-GAP-05: what stands behind undeliverable messages is asked for soon after each reconnect, however long the pauses had
/// become: the service may have forgotten that it pushed in vain.
#[test]
fn a_new_connection_looks_behind_undeliverable_messages_soon() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    let (slot, _) = rig.promise(message("bad"), Some(send.clone())).expect("admitted");
    rig.feed(Input::PushFailed { connection: rig.on, slot, content: Some(ContentError::NotEncrypted) });
    let looks = |rig: &mut Rig, ms| {
        assert!(rig.promise(message("bad"), Some(send.clone())).is_none());
        rig.wait(ms);
        let fetches = rig.take(|output| matches!(output, Output::Fetch { .. }));
        for output in fetches.iter() {
            let Output::Fetch { subscription, read, .. } = output else { continue };
            let (subscription, read) = (*subscription, read.clone());
            rig.feed(Input::FetchEnded { connection: rig.on, subscription, read, next: Next::Again });
        }
        fetches.len()
    };
    for _ in 0..10 {
        assert_eq!(looks(&mut rig, REFUSED_PAUSE_MS_MAX), 1);
    }
    assert_eq!(looks(&mut rig, 2 * REFUSED_PAUSE_MS_MIN), 0, "the pauses have grown");
    rig.feed(rig.closed());
    rig.reconnect();
    rig.wait(REFUSED_PAUSE_MS_MAX);
    rig.take(|output| matches!(output, Output::Fetch { .. }));
    assert_eq!(looks(&mut rig, 2 * REFUSED_PAUSE_MS_MIN), 1);
}

/// A-ALL-04: what is traced of inputs, outputs and replies holds no capability, key or message.
#[test]
fn debug_output_holds_names_only() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(1) });
    rig.push("a", "m1");
    assert_eq!(format!("{:?}", rig.outputs), "[Reply { .. }, Deliver { .. }]");
    let reply = Reply::Full { channel: ChannelId(1) };
    assert_eq!(format!("{reply:?}"), "Full { .. }");
}

/// The gateway, with the outputs it has given and the facts it has stored.
struct Rig {
    gateway: Gateway,
    now: Instant,
    outputs: Vec<Output>,
    stored: Vec<Record>,
    flash: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    /// The connection in use.
    on: ConnectionId,
    /// Whether the service answers pings.
    answers: bool,
    /// Whether the number of orphans is stored at once.
    stores_orphans: bool,
    monitor: monitor::MonitorId,
    promises: u64,
}

impl Rig {
    fn new() -> Self {
        let service = PushServiceUri::parse("https://push.example/subscribe").expect("valid");
        let gateway = Gateway::new(service, Box::new(SeededRandom::new(1)), Instant::ZERO);
        let monitor = monitor::MonitorId::default();
        Self {
            gateway,
            now: Instant::ZERO,
            outputs: Vec::new(),
            stored: Vec::new(),
            flash: std::collections::BTreeMap::new(),
            on: ConnectionId(0),
            answers: true,
            stores_orphans: true,
            monitor,
            promises: 0,
        }
    }

    /// Devices that are ready, each with one active subscription, all in one monitored set.
    fn serving(devices: &[&str]) -> Self {
        let mut rig = Self::new();
        for device in devices {
            rig.add_device(device, &[1]);
        }
        rig.feed(Input::Started);
        rig.connect();
        for number in 0..devices.len() {
            let subscription = rig.requested();
            rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number + 1))) });
            rig.persist(true);
        }
        for device in devices {
            rig.feed(Input::DeviceUp {
                device: id(device),
                session: 1,
                message_bytes_max: 4096,
                in_flight_max: DELIVERY_PER_DEVICE_MAX,
            });
        }
        let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
        let [Output::Monitor { monitor, .. }] = monitors[..] else { panic!("one monitor") };
        rig.monitor = monitor;
        rig.outputs.clear();
        rig
    }

    fn add_device(&mut self, device: &str, channels: &[u16]) {
        self.add_device_with(device, channels, Options::default());
    }

    fn add_device_with(&mut self, device: &str, channels: &[u16], options: Options) {
        let channels = channels.iter().copied().map(ChannelId).collect();
        let device = DeviceRecord { options, ..device_record(device, channels) };
        self.feed(Input::DeviceAdded { device, lasting: false });
    }

    fn connect(&mut self) {
        self.dial();
        self.ready(100);
    }

    /// An attempt to connect begins.
    fn dial(&mut self) {
        let attempts = self.take(|output| matches!(output, Output::Connect { .. }));
        let [Output::Connect { connection, .. }] = attempts[..] else { panic!("one attempt: {attempts:?}") };
        self.on = connection;
    }

    fn ready(&mut self, streams_max: usize) {
        self.feed(Input::ConnectionReady { connection: self.on, streams_max });
    }

    /// The service has answered at this time; its certificate is valid for ever.
    fn dated(&mut self, seconds: u64) {
        let (date, not_after) = (Some(UnixTime(seconds)), UnixTime(u64::MAX));
        self.feed(Input::Dated { connection: self.on, date, not_after, clock: ClockReading::default() });
    }

    /// The connection in use has ended.
    fn closed(&self) -> Input {
        Input::ConnectionClosed { connection: self.on, trouble: Trouble::Ended }
    }

    fn reconnect(&mut self) {
        self.wait(BACKOFF_MS_FIRST_MAX);
        self.connect();
    }

    fn feed(&mut self, input: Input) {
        self.gateway.handle_input(input, self.now);
        self.drain();
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some((at, _)) = self.gateway.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = at;
            self.gateway.handle_timeout(at);
            self.drain();
        }
        self.now = end;
        self.gateway.handle_timeout(end);
        self.drain();
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            match self.gateway.poll_output() {
                Some(Output::Ping { connection }) if self.answers => {
                    self.gateway.handle_input(Input::Pong { connection }, self.now);
                }
                Some(Output::Persist { ticket, change, .. }) if is_orphans(&change) && self.stores_orphans => {
                    self.write(change);
                    self.gateway.handle_input(Input::Persisted { ticket, stored: true }, self.now);
                }
                Some(output) => self.outputs.push(output),
                None => return,
            }
        }
        panic!("outputs never end");
    }

    fn take(&mut self, wanted: impl Fn(&Output) -> bool) -> Vec<Output> {
        let (taken, left) = std::mem::take(&mut self.outputs).into_iter().partition(|output| wanted(output));
        self.outputs = left;
        taken
    }

    fn requested(&mut self) -> SubscriptionId {
        let requests = self.take(|output| matches!(output, Output::Subscribe { .. }));
        let [Output::Subscribe { subscription, .. }] = requests[..] else { panic!("one request: {requests:?}") };
        subscription
    }

    /// Answers the writes that are due, or fails them.
    fn persist(&mut self, stored: bool) {
        for output in self.take(|output| matches!(output, Output::Persist { .. })) {
            let Output::Persist { ticket, change, also } = output else { continue };
            for change in std::iter::once(change).chain(also.map(|also| *also)) {
                if stored {
                    self.write(change);
                }
            }
            self.feed(Input::Persisted { ticket, stored });
        }
    }

    fn write(&mut self, change: Change) {
        match change {
            Change::Put(record) => {
                self.flash.insert(record.key().encode(), record.encode().to_vec());
                self.stored.push(record);
            }
            Change::Remove(key) => drop(self.flash.remove(&key.encode())),
        }
    }

    fn promise(&mut self, message: PushMessageUri, send: Option<PushUri>) -> Option<(SlotId, bool)> {
        self.promises += 1;
        let target = Target::Set(granted(1).set.expect("a set"));
        self.feed(Input::Promised { connection: self.on, promise: PromiseId(self.promises), target, message, send });
        let answers = self.take(|output| matches!(output, Output::Admit { .. } | Output::Refuse { .. }));
        match answers[..] {
            [Output::Admit { slot, unrouted, .. }] => Some((slot, unrouted)),
            [Output::Refuse { .. }] => None,
            _ => panic!("one answer: {answers:?}"),
        }
    }

    fn arrive(&mut self, slot: SlotId, send: Option<PushUri>) {
        self.arrive_with(slot, send, b"hello".to_vec());
    }

    fn arrive_with(&mut self, slot: SlotId, send: Option<PushUri>, plaintext: Vec<u8>) {
        self.feed(Input::Pushed {
            connection: self.on,
            slot,
            send,
            body: b"sealed".to_vec(),
            max_age: None,
            age: None,
        });
        for output in self.take(|output| matches!(output, Output::Decode { .. })) {
            let Output::Decode { slot, .. } = output else { continue };
            self.feed(Input::Decoded { slot, outcome: Ok(plaintext.clone()) });
        }
    }

    fn push(&mut self, device: &str, name: &str) -> PushMessageUri {
        let send = self.send_uri(device);
        let (slot, _) = self.promise(message(name), Some(send)).expect("admitted");
        self.arrive(slot, None);
        message(name)
    }

    fn send_uri(&self, device: &str) -> PushUri {
        self.gateway.push_subscription(&id(device), None).expect("active").endpoint
    }

    fn delivered(&mut self) -> Vec<MessageId> {
        let outputs = self.take(|output| matches!(output, Output::Deliver { .. }));
        let message = |output| if let Output::Deliver { message, .. } = output { Some(message) } else { None };
        outputs.into_iter().filter_map(message).collect()
    }

    fn delivered_to(&mut self) -> Vec<DeviceId> {
        let outputs = self.take(|output| matches!(output, Output::Deliver { .. }));
        let device = |output| if let Output::Deliver { device, .. } = output { Some(device) } else { None };
        outputs.into_iter().filter_map(device).collect()
    }

    fn acknowledgements(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Acknowledge { .. })).count()
    }

    fn take_acknowledged(&mut self) -> Vec<PushMessageUri> {
        let outputs = self.take(|output| matches!(output, Output::Acknowledge { .. }));
        let message = |output| if let Output::Acknowledge { message, .. } = output { Some(message) } else { None };
        outputs.into_iter().filter_map(message).collect()
    }
}

fn is_orphans(change: &Change) -> bool {
    matches!(change, Change::Put(Record::Orphans(_)) | Change::Remove(Key::Orphans))
}

fn device_record(device: &str, channels: Vec<ChannelId>) -> DeviceRecord {
    DeviceRecord {
        id: id(device),
        link: format!("unix:/run/{device}"),
        channels,
        mtu: 256,
        options: Options::default(),
    }
}

fn id(device: &str) -> DeviceId {
    device.parse().expect("an id")
}

fn message(name: &str) -> PushMessageUri {
    PushMessageUri::parse(&format!("https://push.example/m/{name}")).expect("valid")
}

fn granted(number: usize) -> Granted {
    let uri = |kind: &str, number| format!("https://push.example/{kind}/{number}");
    Granted {
        dialect: Dialect::Rfc8030,
        read: SubscriptionUri::parse(&uri("s", number)).expect("valid"),
        send: PushUri::parse(&uri("p", number)).expect("valid"),
        set: SetUri::parse(&uri("t", 0)).ok(),
        keeps_for: None,
    }
}
