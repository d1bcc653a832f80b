//! Connections tested, replaced and let go.

use super::*;

/// A gateway with a connection that was good for a while.
fn settled() -> Rig {
    let mut rig = Rig::serving(&["a"]);
    rig.wait(STABLE_MS);
    rig
}

/// The connections that outputs of one kind name.
fn connects(rig: &mut Rig) -> usize {
    rig.outputs.iter().filter(|output| matches!(output, Output::Connect { .. })).count()
}

fn closes(rig: &mut Rig) -> Vec<ConnectionId> {
    let closes = rig.take(|output| matches!(output, Output::Close { .. }));
    let connection = |output| if let Output::Close { connection } = output { Some(connection) } else { None };
    closes.into_iter().filter_map(connection).collect()
}

/// A-UA-30, D-9113-12, D-9113-17: the new connection monitors before the old one goes; what the old one had promised is
/// still taken in, acknowledgements go on the new one.
#[test]
fn a_ua_30_the_replacement_is_up_and_monitoring_before_the_old_one_goes() {
    let mut rig = settled();
    let (old, send) = (rig.on, rig.send_uri("a"));
    let acked = rig.push("a", "m1");
    let message_id = rig.delivered()[0];
    let (slot, _) = rig.promise(message("m2"), Some(send)).expect("admitted");
    rig.feed(Input::GoingAway { connection: old });
    rig.feed(Input::DeviceAck { device: id("a"), message: message_id });
    assert_eq!(rig.take_acknowledged(), [], "no request on a connection that takes none");
    rig.connect();
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    assert_eq!(rig.take_acknowledged(), [acked]);
    rig.wait(DRAIN_MS_MIN);
    assert_eq!(closes(&mut rig), [], "a body is still on its way");
    let new = std::mem::replace(&mut rig.on, old);
    rig.arrive(slot, None);
    rig.on = new;
    assert_eq!(rig.delivered().len(), 1, "it came on the old connection");
    assert_eq!(closes(&mut rig), [old]);
    rig.feed(Input::ConnectionClosed { connection: old, trouble: Trouble::Ended });
    assert_eq!((rig.gateway.status().uplink, connects(&mut rig)), ("connected", 0));
}

/// A-UA-30: a body that never comes does not keep an old connection for ever.
#[test]
fn an_old_connection_is_closed_in_the_end() {
    let mut rig = settled();
    let (old, send) = (rig.on, rig.send_uri("a"));
    rig.promise(message("m1"), Some(send)).expect("admitted");
    rig.feed(Input::GoingAway { connection: old });
    rig.connect();
    rig.wait(DRAIN_MS_MAX - 1);
    assert_eq!(closes(&mut rig), []);
    rig.wait(1);
    assert_eq!(closes(&mut rig), [old]);
    rig.feed(Input::ConnectionClosed { connection: old, trouble: Trouble::Ended });
    assert_eq!(rig.gateway.status().in_flight, 0, "the service offers it again");
}

/// A-UA-30: messages that are sent while the connection moves reach the device once each.
#[test]
fn fifty_messages_across_a_move_are_relayed_once_each() {
    let mut rig = settled();
    let old = rig.on;
    let mut seen = Vec::new();
    for number in 0..50 {
        if number == 20 {
            rig.feed(Input::GoingAway { connection: old });
        }
        if number == 30 {
            rig.connect();
        }
        // The old connection still brings some, and each of them is offered again on the new one.
        let name = format!("m{number}");
        let new = rig.on;
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
            let outcome = Deletion::Done;
            rig.feed(Input::Acknowledged { connection: rig.on, message: acknowledged, outcome });
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((seen.len(), rig.gateway.status().counters.relayed), (50, 50));
    assert_eq!(rig.gateway.status().counters.acknowledged, 50);
}

/// A-UA-31, D-9113-15: a subscribe that the service says it has not looked at is repeated at once, and once.
#[test]
fn a_ua_31_a_request_that_was_not_processed_moves_to_the_new_connection() {
    let mut rig = settled();
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    rig.feed(Input::GoingAway { connection: rig.on });
    let outcome = Some(Err(SubscribeError::NotProcessed));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome });
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    rig.connect();
    assert_eq!(rig.requested(), subscription);
    rig.wait(SUBSCRIBE_UNKNOWN_MS);
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
}

/// A-UA-31, A-GAP-14: one whose answer is lost with the old connection is not.
#[test]
fn a_request_of_unknown_outcome_is_not_repeated_on_the_new_connection_at_once() {
    let mut rig = settled();
    let old = rig.on;
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    rig.feed(Input::GoingAway { connection: old });
    rig.connect();
    rig.feed(Input::ConnectionClosed { connection: old, trouble: Trouble::Ended });
    rig.wait(SUBSCRIBE_UNKNOWN_MS - 1);
    assert!(rig.take(|output| matches!(output, Output::Subscribe { .. })).is_empty());
    rig.wait(SUBSCRIBE_UNKNOWN_MS);
    assert_eq!(rig.requested(), subscription);
}

/// A-UA-31: a service that lets each connection go as soon as it is there is tried again with growing pauses.
#[test]
fn a_goaway_on_each_new_connection_grows_the_pause() {
    let mut rig = Rig::serving(&["a"]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        rig.feed(Input::GoingAway { connection: rig.on });
        let (due, _) = rig.gateway.poll_timeout().expect("a deadline");
        pauses.push(due.since(rig.now).as_millis() as u64);
        rig.wait(BACKOFF_MS_MAX);
        rig.dial();
        rig.ready(100);
    }
    assert!(pauses[0] >= BACKOFF_MS_MIN / 2, "{pauses:?}");
    rig.wait(STABLE_MS);
    rig.feed(Input::GoingAway { connection: rig.on });
    assert_eq!(connects(&mut rig), 1, "one that was good is replaced at once");
}

/// A service that lets connection after connection go never has more than three of ours.
#[test]
fn an_old_connection_is_dropped_when_the_next_one_gets_old() {
    let mut rig = settled();
    let first = rig.on;
    let send = rig.send_uri("a");
    rig.promise(message("m1"), Some(send)).expect("admitted");
    for _ in 0..2 {
        rig.feed(Input::GoingAway { connection: rig.on });
        rig.wait(BACKOFF_MS_FIRST_MAX);
        rig.connect();
    }
    let dropped = rig.take(|output| matches!(output, Output::Drop { .. }));
    assert!(matches!(dropped[..], [Output::Drop { connection }] if connection == first));
    assert_eq!(rig.gateway.status().in_flight, 0);
}

/// A-UA-17, A-UA-45, A-UA-46: with nothing to do a connection carries pings, few, and nothing else; the monitor stays open
/// as long as they are answered.
#[test]
fn a_ua_46_an_idle_connection_carries_pings_only() {
    let mut rig = Rig::serving(&["a"]);
    rig.answers = false;
    let (mut pings, start) = (0, rig.now);
    while rig.now.since(start) < Duration::from_secs(7_200) {
        rig.wait(1_000);
        for output in std::mem::take(&mut rig.outputs) {
            let Output::Ping { connection } = output else { panic!("{output:?}") };
            rig.feed(Input::Pong { connection });
            pings += 1;
        }
    }
    let most = 7_200_000 / KEEP_ALIVE_MS;
    assert!((1..=most).contains(&pings), "{pings} pings");
    assert_eq!(rig.gateway.status().uplink, "connected");
    assert!(rig.gateway.status().keep_alive_s > KEEP_ALIVE_MS / 1_000, "the path has proved to last longer");
}

/// A-UA-45: what the service sends is a test as good as any.
#[test]
fn a_connection_that_is_not_idle_is_not_tested() {
    let mut rig = Rig::serving(&["a"]);
    rig.answers = false;
    for number in 0..20 {
        rig.wait(KEEP_ALIVE_MS - 1);
        let send = rig.send_uri("a");
        rig.promise(message(&format!("m{number}")), Some(send));
    }
    assert!(rig.take(|output| matches!(output, Output::Ping { .. })).is_empty());
}

/// D-9113-16, A-ALL-13: a connection whose path forgot it is found dead within the interval and the time for an answer, and
/// is replaced; the next one is tested earlier.
#[test]
fn d_9113_16_a_silent_connection_is_replaced() {
    let mut rig = Rig::serving(&["a"]);
    rig.answers = false;
    rig.wait(KEEP_ALIVE_MS + KEEP_ALIVE_WAIT_MS_MAX - 1);
    assert_eq!(rig.gateway.status().uplink, "connected");
    rig.wait(1);
    assert!(matches!(rig.take(|output| matches!(output, Output::Drop { .. }))[..], [Output::Drop { .. }]));
    assert_eq!(rig.gateway.status().trouble, Some(Trouble::Silent));
    rig.reconnect();
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    assert!(rig.gateway.status().keep_alive_s < KEEP_ALIVE_MS / 1_000);
}

/// An answer that does not come in time is no news of the request alone.
#[test]
fn an_unanswered_request_is_followed_by_a_test() {
    let mut rig = Rig::serving(&["a"]);
    rig.answers = false;
    let acked = rig.push("a", "m1");
    let message = rig.delivered()[0];
    rig.feed(Input::DeviceAck { device: id("a"), message });
    let outcome = Deletion::Retry(None);
    rig.feed(Input::Acknowledged { connection: rig.on, message: acked, outcome });
    assert_eq!(rig.take(|output| matches!(output, Output::Ping { .. })).len(), 1);
}

/// D-9113-22: before the numbers of streams run out the connection is replaced, by itself and in order.
#[test]
fn d_9113_22_a_connection_that_is_used_up_is_replaced() {
    let mut rig = Rig::serving(&["a"]);
    rig.gateway.upstreams.get_mut(UpstreamId::HOME).expect("home").uplink.limit_streams(20);
    for number in 0..20 {
        assert_eq!(connects(&mut rig), 0, "after {number}");
        let send = rig.send_uri("a");
        rig.promise(message(&format!("m{number}")), Some(send));
    }
    rig.wait(1);
    rig.connect();
    assert_eq!(rig.gateway.status().uplink, "connected");
}

/// Some counters of the HTTP/2 library only grow.
#[test]
fn an_old_or_worn_connection_is_replaced() {
    let mut rig = Rig::serving(&["a"]);
    rig.wait(CONNECTION_AGE_S_MAX * 1_000 * 7 / 8 - 1);
    assert_eq!(connects(&mut rig), 0);
    rig.wait(CONNECTION_AGE_S_MAX * 1_000 / 8 + 1);
    rig.connect();
    let send = rig.send_uri("a");
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    for number in 0..CONNECTION_REFUSALS_MAX {
        assert!(rig.promise(message(&number.to_string()), Some(send.clone())).is_none());
    }
    assert_eq!(closes(&mut rig), []);
    rig.wait(REPLACE_PAUSE_MS);
    assert_eq!((closes(&mut rig).len(), connects(&mut rig)), (1, 0), "one at a time");
}

/// A network that comes back is tried at once, and a connection that may have been on another one is tested; a network that
/// changes all the time changes nothing more.
#[test]
fn a_change_of_the_network_wakes() {
    let mut rig = Rig::serving(&["a"]);
    rig.answers = false;
    (0..5).for_each(|_| rig.feed(Input::PathChanged));
    assert_eq!(rig.take(|output| matches!(output, Output::Ping { .. })).len(), 1);
    rig.feed(rig.closed());
    for _ in 0..20 {
        rig.wait(BACKOFF_MS_MAX);
        rig.dial();
        rig.feed(rig.closed());
    }
    rig.feed(Input::PathChanged);
    rig.wait(BACKOFF_MS_FIRST_MAX);
    assert_eq!(connects(&mut rig), 1);
}

/// What heals by waiting and what needs a person is told apart.
#[test]
fn trouble_that_needs_a_person_is_named() {
    let mut rig = Rig::serving(&["a"]);
    for (trouble, needs_person) in
        [(Trouble::Network, false), (Trouble::Silent, false), (Trouble::Certificate, true), (Trouble::Name, true)]
    {
        rig.feed(Input::ConnectionClosed { connection: rig.on, trouble });
        let status = rig.gateway.status();
        assert_eq!((status.trouble, status.needs_person), (Some(trouble), needs_person));
        rig.wait(BACKOFF_MS_MAX);
        rig.dial();
    }
    rig.ready(100);
    assert_eq!(rig.gateway.status().trouble, None);
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    let subscription = rig.requested();
    let outcome = Some(Err(SubscribeError::Status(401)));
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome });
    assert!(rig.gateway.status().needs_person);
    rig.wait(2 * SUBSCRIBE_BACKOFF_MS_MIN);
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    assert_eq!(rig.gateway.status().trouble, None);
}

/// A-UA-37: with two streams the second one brings what was refused. Where a service keeps it open until it hears of
/// acknowledgements, which find no stream, a new connection brings the rest, and not too often.
#[test]
fn a_ua_37_with_two_streams_what_was_refused_comes_nevertheless() {
    let mut rig = Rig::serving(&["a"]);
    let send = rig.send_uri("a");
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    rig.dial();
    rig.ready(2);
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    assert!(rig.promise(message("m1"), Some(send)).is_none());
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session: 2,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1);
    rig.wait(LAST_STREAM_MS_MAX);
    assert_eq!(connects(&mut rig), 0, "nobody waits");
    rig.push("a", "m1");
    let acked = rig.delivered()[0];
    rig.feed(Input::DeviceAck { device: id("a"), message: acked });
    rig.wait(1);
    rig.dial();
    rig.ready(2);
    assert_eq!(rig.take_acknowledged().len(), 1);
    rig.wait(DRAIN_MS_MIN);
    assert_eq!(closes(&mut rig).len(), 1);
    assert_eq!(rig.take(|output| matches!(output, Output::Fetch { .. })).len(), 1, "the rest is asked for there");
}

/// The service may allow more or fewer requests at any time (RFC 9113 §6.5.2).
#[test]
fn another_limit_of_requests_counts_at_once() {
    let mut rig = Rig::serving(&["a"]);
    rig.feed(rig.closed());
    rig.wait(BACKOFF_MS_FIRST_MAX);
    rig.dial();
    rig.ready(2);
    let mut fetches = |limit| {
        rig.feed(Input::RequestsMax { connection: rig.on, streams_max: limit });
        rig.wait(FETCH_PAUSE_MS);
        rig.feed(Input::FetchAsked(id("a")));
        rig.take(|output| matches!(output, Output::Fetch { .. })).len()
    };
    assert_eq!((fetches(2), fetches(2), fetches(4)), (1, 0, 1));
}
