//! Connections at other places of the same service (RFC 7838).

use super::*;
use crate::proto::status::AlternativeStatus;
use crate::webpush::alt_svc::{Alternative, Announcement, Offer};

/// A gateway whose connection to the origin was good for a while.
pub(super) fn settled() -> Rig {
    let mut rig = Rig::serving(&["a"]);
    rig.wait(STABLE_MS);
    rig
}

pub(super) fn at(port: u16) -> Alternative {
    Alternative { host: "push.example".to_owned(), port }
}

pub(super) fn offer(port: u16, fresh_for_s: u64) -> Offer {
    Offer { alternative: at(port), fresh_for: Duration::from_secs(fresh_for_s), persists: false }
}

/// The service says on the connection in use where else it can be reached.
pub(super) fn announce(rig: &mut Rig, offers: &[Offer]) {
    let announcement = Announcement { offers: offers.to_vec() };
    rig.feed(Input::Alternatives { connection: rig.on, announcement });
}

/// The ports of the attempts that began, none for the origin; the last one becomes the connection in use.
pub(super) fn attempts(rig: &mut Rig) -> Vec<Option<u16>> {
    let attempts = rig.take(|output| matches!(output, Output::Connect { .. }));
    let mut ports = Vec::new();
    for attempt in attempts {
        let Output::Connect { connection, service, alternative, .. } = attempt else { continue };
        assert_eq!(service.authority(), "push.example", "the origin stays what it is");
        ports.push(alternative.map(|alternative| alternative.port));
        rig.on = connection;
    }
    ports
}

/// The attempt that began fails.
pub(super) fn fail(rig: &mut Rig, trouble: Trouble) {
    rig.feed(Input::ConnectionClosed { connection: rig.on, trouble });
}

/// A gateway whose connection is at an alternative, the old one being closed.
fn moved() -> Rig {
    let mut rig = settled();
    announce(&mut rig, &[offer(1001, 86_400)]);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    rig.ready(100);
    rig.wait(DRAIN_MS_MAX);
    let closed = rig.take(|output| matches!(output, Output::Close { .. }));
    let [Output::Close { connection }] = closed[..] else { panic!("one is closed: {closed:?}") };
    rig.feed(Input::ConnectionClosed { connection, trouble: Trouble::Ended });
    rig.outputs.clear();
    rig
}

pub(super) fn states(rig: &Rig) -> Vec<(String, &'static str, Option<Trouble>)> {
    let alternatives = rig.gateway.status().alternatives;
    alternatives.into_iter().map(|AlternativeStatus { service, state, trouble }| (service, state, trouble)).collect()
}

/// A-UA-29, A-UA-30, D-7838-06: a fresh alternative takes the place of the origin at once and gracefully: it monitors before
/// the old connection is closed, which is read as long as something comes on it, while acknowledgements go on the new one.
#[test]
fn a_ua_30_an_alternative_is_up_and_monitoring_before_the_origin_is_left() {
    let mut rig = settled();
    let (old, send) = (rig.on, rig.send_uri("a"));
    let acked = rig.push("a", "m1");
    let delivered = rig.delivered()[0];
    let (slot, _) = rig.promise(message("m2"), Some(send)).expect("admitted");
    announce(&mut rig, &[offer(1001, 60)]);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    let on_old = rig.take(|output| matches!(output, Output::Acknowledge { .. }));
    assert!(
        matches!(&on_old[..], [Output::Acknowledge { connection, .. }] if *connection == old),
        "it serves until then"
    );
    rig.feed(Input::Acknowledged { connection: old, message: acked, outcome: Deletion::Done });
    rig.ready(100);
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    assert!(matches!(&monitors[..], [Output::Monitor { connection, .. }] if *connection == rig.on));
    rig.wait(DRAIN_MS_MIN);
    assert!(rig.take(|output| matches!(output, Output::Close { .. })).is_empty(), "a body is still on its way");
    let new = std::mem::replace(&mut rig.on, old);
    rig.arrive(slot, None);
    rig.on = new;
    assert_eq!(rig.delivered().len(), 1);
    let closed = rig.take(|output| matches!(output, Output::Close { .. }));
    assert!(matches!(closed[..], [Output::Close { connection }] if connection == old));
    assert_eq!(states(&rig), [("push.example:1001".to_owned(), "in use", None)]);
}

/// A-UA-30: messages that are sent while the connection moves to an alternative reach the device once each.
#[test]
fn a_ua_30_fifty_messages_across_the_move_are_relayed_once_each() {
    let mut rig = settled();
    let old = rig.on;
    let mut seen = Vec::new();
    for number in 0..50 {
        if number == 20 {
            announce(&mut rig, &[offer(1001, 60)]);
        }
        if number == 30 {
            assert_eq!(attempts(&mut rig), [Some(1001)]);
            rig.ready(100);
        }
        // The old connection still brings some, and each of them is offered again on the new one.
        let (name, new) = (format!("m{number}"), rig.on);
        if (30..40).contains(&number) {
            rig.on = old;
        }
        rig.push("a", &name);
        rig.on = new;
        let send = rig.send_uri("a");
        assert!(rig.promise(message(&name), Some(send)).is_none());
        for delivered in rig.delivered() {
            seen.push(delivered);
            rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
        }
        for acknowledged in rig.take_acknowledged() {
            rig.feed(Input::Acknowledged { connection: rig.on, message: acknowledged, outcome: Deletion::Done });
        }
    }
    seen.sort_unstable();
    seen.dedup();
    let counters = rig.gateway.status().counters;
    assert_eq!((seen.len(), counters.relayed, counters.acknowledged), (50, 50, 50));
}

/// A-UA-31: an old connection is not closed under a subscribe request whose answer may still come.
#[test]
fn a_move_waits_for_the_answer_to_a_subscribe_request() {
    let mut rig = settled();
    let old = rig.on;
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    announce(&mut rig, &[offer(1001, 60)]);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    rig.ready(100);
    rig.wait(DRAIN_MS_MAX - 1);
    assert!(rig.take(|output| matches!(output, Output::Close { .. })).is_empty());
    rig.feed(Input::Subscribed { connection: old, subscription, outcome: Some(Ok(granted(2))) });
    let closed = rig.take(|output| matches!(output, Output::Close { .. }));
    assert!(matches!(closed[..], [Output::Close { connection }] if connection == old));
}

/// D-7838-04: fresh alternatives are for new connections; one that exists stays when they no longer are. `ma=0` is not used.
#[test]
fn d_7838_04_freshness_limits_new_connections_only() {
    for (ms, port) in [(55_000, Some(1001)), (61_000, None)] {
        let mut rig = settled();
        announce(&mut rig, &[offer(1001, 60)]);
        assert_eq!(attempts(&mut rig), [Some(1001)]);
        rig.ready(100);
        rig.wait(ms);
        assert_eq!((attempts(&mut rig), rig.gateway.status().uplink), (vec![], "connected"), "it stays where it is");
        rig.feed(rig.closed());
        rig.wait(BACKOFF_MS_FIRST_MAX);
        assert_eq!(attempts(&mut rig), [port], "after {ms} ms");
    }
    let mut rig = settled();
    announce(&mut rig, &[offer(1001, 0)]);
    rig.wait(1);
    assert!(attempts(&mut rig).is_empty() && states(&rig).is_empty());
}

/// D-7838-05: on another network only alternatives that persist are used for new connections; the one in use stays.
#[test]
fn d_7838_05_a_network_change_drops_alternatives_that_do_not_persist() {
    let mut rig = settled();
    let persisting = Offer { persists: true, ..offer(1002, 86_400) };
    announce(&mut rig, &[offer(1001, 86_400), persisting]);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    rig.ready(100);
    rig.wait(MOVE_PAUSE_MS_MIN - 1);
    assert_eq!(states(&rig).len(), 2);
    rig.feed(rig.closed());
    rig.feed(Input::PathChanged);
    assert_eq!(states(&rig), [("push.example:1002".to_owned(), "known", None)]);
    rig.wait(BACKOFF_MS_FIRST_MAX);
    assert_eq!(attempts(&mut rig), [Some(1002)]);
}

/// D-7838-07, D-7838-02: an alternative that cannot be reached, speaks something else or cannot show the certificate of the
/// origin is passed over; the origin serves meanwhile, and it is tried again after a while.
#[test]
fn d_7838_07_a_failed_alternative_leaves_the_next_one_or_the_origin() {
    for trouble in [Trouble::Network, Trouble::Certificate, Trouble::Protocol, Trouble::Name] {
        let mut rig = settled();
        let old = rig.on;
        announce(&mut rig, &[offer(1001, 86_400), offer(1002, 86_400)]);
        assert_eq!(attempts(&mut rig), [Some(1001)]);
        fail(&mut rig, trouble);
        assert_eq!(attempts(&mut rig), [Some(1002)]);
        fail(&mut rig, trouble);
        assert!(attempts(&mut rig).is_empty(), "the connection to the origin is good");
        rig.on = old;
        let failed = |port| (format!("push.example:{port}"), "failed", Some(trouble));
        assert_eq!(states(&rig), [failed(1001), failed(1002)]);
        let status = rig.gateway.status();
        assert_eq!((status.uplink, status.trouble, status.needs_person), ("connected", None, false));
        rig.feed(rig.closed());
        rig.wait(BACKOFF_MS_FIRST_MAX);
        assert_eq!(attempts(&mut rig), [None]);
        rig.ready(100);
        rig.wait(ALTERNATIVE_RETRY_MS_MIN / 2 - BACKOFF_MS_FIRST_MAX);
        assert!(attempts(&mut rig).is_empty());
        rig.wait(ALTERNATIVE_RETRY_MS_MIN / 2);
        assert_eq!(attempts(&mut rig).len(), 1, "another attempt");
    }
}

/// D-7838-07: without any connection the origin is tried as soon as the alternative has failed.
#[test]
fn d_7838_07_the_origin_is_tried_at_once_when_there_is_no_connection() {
    let mut rig = moved();
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    fail(&mut rig, Trouble::Certificate);
    assert_eq!(attempts(&mut rig), [None]);
    assert!(!rig.gateway.status().needs_person, "nobody has to mend an alternative");
    rig.ready(100);
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
}

/// A network that carries nothing says nothing of an alternative: it is tried first again, before the origin.
#[test]
fn after_an_outage_the_alternative_is_used_again() {
    let mut rig = moved();
    rig.feed(rig.closed());
    for _ in 0..5 {
        rig.wait(BACKOFF_MS_MAX);
        assert_eq!(attempts(&mut rig), [Some(1001)]);
        fail(&mut rig, Trouble::Network);
        assert_eq!(attempts(&mut rig), [None]);
        fail(&mut rig, Trouble::Network);
    }
    rig.wait(BACKOFF_MS_MAX);
    assert_eq!(attempts(&mut rig), [Some(1001)]);
    rig.ready(100);
    assert_eq!(states(&rig), [("push.example:1001".to_owned(), "in use", None)]);
}

/// An alternative whose connections end as soon as they are there is none, whether it says goodbye or not.
#[test]
fn an_alternative_that_does_not_last_has_failed() {
    for says_goodbye in [true, false] {
        let mut rig = settled();
        announce(&mut rig, &[offer(1001, 86_400)]);
        assert_eq!(attempts(&mut rig), [Some(1001)]);
        rig.ready(100);
        rig.wait(STABLE_MS - 1);
        rig.feed(if says_goodbye { Input::GoingAway { connection: rig.on } } else { rig.closed() });
        rig.wait(BACKOFF_MS_FIRST_MAX);
        assert_eq!(attempts(&mut rig), [None]);
        rig.ready(100);
        assert_eq!(states(&rig), [("push.example:1001".to_owned(), "failed", Some(Trouble::Ended))]);
    }
    let mut rig = moved();
    rig.feed(Input::GoingAway { connection: rig.on });
    assert_eq!(attempts(&mut rig), [Some(1001)], "one that was good is tried again");
}

/// D-7838-09: a new announcement replaces all of the one before; one without any leaves the connection where it is, and the
/// next one goes to the origin.
#[test]
fn d_7838_09_an_announcement_replaces_the_one_before() {
    let mut rig = moved();
    rig.wait(MOVE_PAUSE_MS_MIN);
    announce(&mut rig, &[offer(1002, 86_400)]);
    assert_eq!(attempts(&mut rig), [Some(1002)], "load is moved on");
    rig.ready(100);
    rig.wait(MOVE_PAUSE_MS_MAX);
    announce(&mut rig, &[]);
    rig.wait(1);
    assert!(attempts(&mut rig).is_empty());
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    assert_eq!(attempts(&mut rig), [None]);
}

/// Places that name each other do not keep a gateway moving: the pauses grow.
#[test]
fn places_that_name_each_other_are_moved_between_less_and_less_often() {
    let mut rig = settled();
    let (start, mut moves) = (rig.now, 0_u16);
    while rig.now.since(start) < Duration::from_secs(86_400) {
        announce(&mut rig, &[offer(1001 + moves % 2, 86_400)]);
        if !attempts(&mut rig).is_empty() {
            rig.ready(100);
            moves += 1;
        }
        rig.wait(10_000);
        for output in rig.take(|output| matches!(output, Output::Close { .. })) {
            let Output::Close { connection } = output else { continue };
            rig.feed(Input::ConnectionClosed { connection, trouble: Trouble::Ended });
        }
    }
    assert!((20..=60).contains(&moves), "{moves} in a day");
}

/// D-7838-13: what does not serve the origin gets no more requests: the next connection goes to the origin, at once, and the
/// alternative is left alone even if it is named again.
#[test]
fn d_7838_13_a_421_sends_requests_back_to_the_origin() {
    let mut rig = moved();
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    rig.feed(Input::Misdirected { connection: rig.on });
    let outcome = Some(Err(SubscribeError::NotProcessed));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome });
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty(), "not there again");
    assert_eq!(attempts(&mut rig), [None]);
    assert!(states(&rig).iter().all(|(_, state, _)| *state == "in use"), "it is not known any more");
    rig.ready(100);
    assert_eq!(rig.requested(), subscription);
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    announce(&mut rig, &[offer(1001, 86_400)]);
    assert_eq!(states(&rig), [("push.example:1001".to_owned(), "failed", Some(Trouble::Misdirected))]);
    rig.wait(MOVE_PAUSE_MS_MIN);
    assert!(attempts(&mut rig).is_empty());
}

/// D-7838-13: a 421 of the origin itself says nothing of alternatives.
#[test]
fn a_421_of_the_origin_changes_nothing() {
    let mut rig = settled();
    rig.feed(Input::Misdirected { connection: rig.on });
    assert!(attempts(&mut rig).is_empty());
    assert_eq!(rig.gateway.status().uplink, "connected");
}

/// D-7838-14: a reset forgets alternatives, and learns none.
#[test]
fn d_7838_14_a_reset_forgets_alternatives() {
    let mut rig = moved();
    rig.feed(Input::ResetAsked);
    announce(&mut rig, &[offer(1001, 86_400), offer(1002, 86_400)]);
    assert_eq!(states(&rig), [("push.example:1001".to_owned(), "in use", None)]);
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    assert_eq!((attempts(&mut rig), states(&rig)), (vec![None], vec![]));
}

/// A-UA-29, D-7838-01: what is stored names the origin, and an alternative that does not persist is in none of it.
#[test]
fn a_ua_29_nothing_of_an_alternative_is_stored() {
    let mut rig = moved();
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    rig.persist(true);
    assert!(!rig.stored.is_empty());
    for record in &rig.stored {
        let octets = record.encode();
        assert!(!octets.windows(4).any(|octets| octets == b"1001"), "{record:?}");
    }
}

/// A-UA-45: an alternative on the port of Web Push is tested as seldom as that port allows, the origin as before.
#[test]
fn a_ua_45_an_alternative_has_the_interval_of_its_port() {
    let mut rig = moved();
    rig.answers = false;
    assert_eq!(rig.gateway.status().keep_alive_s, KEEP_ALIVE_WEBPUSH_MS / 1_000);
    rig.wait(KEEP_ALIVE_WEBPUSH_MS - DRAIN_MS_MAX - 1);
    assert!(rig.take(|output| matches!(output, Output::Ping { .. })).is_empty());
    rig.wait(1 + DRAIN_MS_MAX);
    assert_eq!(rig.take(|output| matches!(output, Output::Ping { .. })).len(), 1);
}
