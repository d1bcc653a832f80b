//! Devices that sleep: what is kept for them, what wakes them, and what they are told.

use super::*;
use crate::proto::device::LinkOptions;
use crate::wire::message::Uplink;

/// What the service says is left of the lifetime of a message.
const LIFE_S: u64 = 3_600;
/// How long the devices here say that they will sleep.
const SLEEP_S: u32 = 600;
/// After which time they count as absent.
const OVERSLEPT_MS: u64 = 2 * 1_000 * SLEEP_S as u64 + SLEEP_GRACE_MS;

/// Messages that are kept by default, and at most.
const DEFAULT: usize = HOLD_FOR_SLEEP_DEFAULT as usize;
const MAX: usize = HOLD_FOR_SLEEP_MAX as usize;

/// A device, ready, for which so many messages are kept.
fn keeping(count: usize) -> Rig {
    let mut rig = Rig::serving(&["a"]);
    let link = LinkOptions { hold_for_sleep: count as u8, ..LinkOptions::default() };
    rig.add_device_with("a", &[1], Options { link, ..Options::default() });
    rig.feed(Input::StatusAsked { device: id("a") });
    rig.outputs.clear();
    rig
}

fn sleeps(rig: &mut Rig, seconds: u32) {
    rig.feed(Input::DeviceAsleep { device: id("a"), seconds });
}

fn wakes(rig: &mut Rig) {
    rig.feed(Input::DeviceAwake { device: id("a") });
}

fn up(rig: &mut Rig, session: u32) {
    rig.feed(Input::DeviceUp {
        device: id("a"),
        session,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
}

/// The promise of a message that lives so long; none if it is refused.
fn promised(rig: &mut Rig, device: &str, name: &str) -> Option<SlotId> {
    let send = rig.send_uri(device);
    rig.promise(message(name), Some(send)).map(|(slot, _)| slot)
}

fn comes(rig: &mut Rig, slot: SlotId, life_s: u64) {
    let max_age = Some(Duration::from_secs(life_s));
    rig.feed(Input::Pushed { connection: rig.on, slot, send: None, body: b"sealed".to_vec(), max_age, age: None });
    for output in rig.take(|output| matches!(output, Output::Decode { .. })) {
        let Output::Decode { slot, .. } = output else { continue };
        rig.feed(Input::Decoded { slot, outcome: Ok(b"hello".to_vec()) });
    }
}

/// Whether a message that lives for an hour is taken.
fn pushed(rig: &mut Rig, name: &str) -> bool {
    let Some(slot) = promised(rig, "a", name) else { return false };
    comes(rig, slot, LIFE_S);
    true
}

fn held(rig: &Rig) -> usize {
    rig.gateway.status().in_flight
}

fn presence(rig: &Rig) -> &'static str {
    rig.gateway.status().devices[0].presence
}

fn fetches(rig: &mut Rig) -> usize {
    rig.take(|output| matches!(output, Output::Fetch { .. })).len()
}

/// Everything stored was given to the service's satisfaction.
fn fetch_ends(rig: &mut Rig) {
    let subscription = rig.gateway.subscriptions.iter().next().expect("one").id;
    rig.feed(Input::FetchEnded { connection: rig.on, subscription, read: granted(1).read, next: Next::Again });
}

fn statuses(rig: &mut Rig) -> Vec<(Uplink, usize)> {
    let status = |output| match output {
        Output::Reply { reply: Reply::Status { uplink, waiting }, .. } => Some((uplink, waiting)),
        _ => None,
    };
    let replies = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Status { .. }, .. }));
    replies.into_iter().filter_map(status).collect()
}

fn waiting(rig: &mut Rig) -> Vec<usize> {
    statuses(rig).into_iter().map(|(_, waiting)| waiting).collect()
}

fn acks(rig: &mut Rig, messages: &[MessageId]) {
    for message in messages {
        rig.feed(Input::DeviceAck { device: id("a"), message: *message });
    }
    for message in rig.take_acknowledged() {
        rig.feed(Input::Acknowledged { connection: rig.on, message, outcome: Deletion::Done });
    }
}

/// A device that sleeps is sent nothing, and nothing is acknowledged for it, however long it sleeps.
#[test]
fn a_sleeping_device_is_sent_nothing() {
    let mut rig = keeping(2);
    sleeps(&mut rig, SLEEP_S);
    assert!(pushed(&mut rig, "m1"));
    for _ in 0..10 {
        rig.wait(OVERSLEPT_MS / 5);
        assert!(!pushed(&mut rig, "m1"), "here, or given up");
    }
    rig.feed(Input::FetchAsked(id("a")));
    rig.wait(FETCH_PAUSE_MS);
    let said = rig.take(|it| matches!(it, Output::Deliver { .. } | Output::Reply { .. } | Output::Fetch { .. }));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!((rig.acknowledgements(), presence(&rig)), (0, "asleep"));
}

/// Of what it had not acknowledged, the oldest messages are kept as long as they live; the others stay with the service.
#[test]
fn so_many_messages_are_kept_as_the_device_wants() {
    for keeps in [0, 1, DEFAULT, MAX] {
        let mut rig = keeping(keeps);
        (0..DELIVERY_PER_DEVICE_MAX).for_each(|number| assert!(pushed(&mut rig, &format!("m{number}"))));
        let sent = rig.delivered();
        sleeps(&mut rig, 0);
        assert_eq!(held(&rig), keeps, "given up at once");
        rig.wait(1_000 * LIFE_S - 1);
        assert_eq!((held(&rig), rig.delivered().len()), (keeps, 0), "longer than any device is waited for");
        acks(&mut rig, &sent[..keeps]);
        assert_eq!((held(&rig), rig.acknowledgements()), (0, 0), "those were the oldest");
        assert_eq!(rig.gateway.status().counters.acknowledged, keeps as u64);
    }
}

/// A-UA-25: a device may have got what it was sent before it slept: a late device ack becomes a DELETE, and nothing else
/// does.
#[test]
fn a_ua_25_what_is_given_up_for_a_sleeper_can_be_acknowledged_late() {
    let mut rig = keeping(0);
    let sent: Vec<_> = ["m1", "m2"].iter().flat_map(|name| [pushed(&mut rig, name)]).collect();
    assert_eq!(sent, [true, true]);
    let sent = rig.delivered();
    sleeps(&mut rig, SLEEP_S);
    rig.wait(100_000);
    assert_eq!((held(&rig), rig.acknowledgements()), (0, 0));
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[1] });
    assert_eq!(rig.take_acknowledged(), [message("m2")]);
    assert_eq!(presence(&rig), "ready");
}

/// A message that was given up may be coming again when its late device ack is heard: it is not kept for a device that has
/// it, which could have forgotten that when it wakes.
#[test]
fn what_is_acknowledged_late_is_not_kept_when_it_comes_again() {
    let mut rig = keeping(2);
    assert!(pushed(&mut rig, "m1"));
    let sent = rig.delivered();
    rig.wait(HOLD_MS);
    let again = promised(&mut rig, "a", "m1").expect("given up");
    rig.feed(Input::DeviceAck { device: id("a"), message: sent[0] });
    assert_eq!(rig.take_acknowledged(), [message("m1")]);
    comes(&mut rig, again, LIFE_S);
    sleeps(&mut rig, SLEEP_S);
    rig.feed(Input::Acknowledged { connection: rig.on, message: message("m1"), outcome: Deletion::Done });
    wakes(&mut rig);
    assert_eq!((rig.delivered().len(), held(&rig)), (0, 0));
}

/// What is pushed meanwhile is kept up to the same number, with what was there before; the rest is refused.
#[test]
fn what_comes_meanwhile_is_kept_up_to_the_same_number() {
    for (keeps, before) in [(0, 0), (2, 0), (2, 1), (2, 2), (MAX, 3)] {
        let mut rig = keeping(keeps);
        (0..before).for_each(|number| assert!(pushed(&mut rig, &format!("b{number}"))));
        sleeps(&mut rig, 0);
        rig.wait(20_000);
        let taken = (0..10).filter(|number| pushed(&mut rig, &format!("m{number}"))).count();
        assert_eq!((taken, held(&rig)), (keeps - before, keeps));
        rig.wait(1_000 * LIFE_S - 20_001);
        assert_eq!(held(&rig), keeps);
    }
}

/// A message that was on its way when its device fell asleep is kept only within the number.
#[test]
fn what_was_on_its_way_counts_as_well() {
    for keeps in [0, 1, 2] {
        let mut rig = keeping(keeps);
        let slots = ["m1", "m2", "m3"].map(|name| promised(&mut rig, "a", name).expect("room"));
        sleeps(&mut rig, 0);
        slots.into_iter().for_each(|slot| comes(&mut rig, slot, LIFE_S));
        assert_eq!(held(&rig), keeps);
        wakes(&mut rig);
        assert_eq!(rig.delivered().len(), keeps);
    }
}

/// On Awake what was kept is delivered in its order, what waits at the service is asked for, and Status tells how much
/// there is, and then that there is no more.
#[test]
fn a_device_that_wakes_gets_what_was_kept_and_what_waits() {
    let mut rig = keeping(2);
    sleeps(&mut rig, SLEEP_S);
    let taken = ["m1", "m2", "m3"].map(|name| pushed(&mut rig, name));
    assert_eq!(taken, [true, true, false]);
    rig.wait(500_000);
    wakes(&mut rig);
    let kept = rig.delivered();
    assert_eq!((kept.len(), waiting(&mut rig)), (2, vec![4]), "two here, one refused, and one is to be asked for");
    assert_eq!(fetches(&mut rig), 0, "once nearly all of its slots are free");
    acks(&mut rig, &kept[..1]);
    assert_eq!(fetches(&mut rig), 1);
    acks(&mut rig, &kept[1..]);
    assert!(pushed(&mut rig, "m3"));
    let more = rig.delivered();
    assert_eq!(more.len(), 1);
    fetch_ends(&mut rig);
    rig.wait(1_000);
    assert_eq!(waiting(&mut rig), [0; 0], "something waits");
    acks(&mut rig, &more);
    assert_eq!((waiting(&mut rig), held(&rig)), (vec![0], 0));
    rig.wait(100_000);
    assert_eq!(waiting(&mut rig), [0; 0], "once is enough");
}

/// After Awake a device is waited for as usual: A-GAP-21.
#[test]
fn a_gap_21_what_was_kept_is_held_no_longer_once_its_device_is_awake() {
    for wake in [wakes, |rig: &mut Rig| up(rig, 2)] {
        let mut rig = keeping(2);
        sleeps(&mut rig, SLEEP_S);
        assert!(pushed(&mut rig, "m1"));
        rig.wait(500_000);
        wake(&mut rig);
        let sent = rig.take(|output| matches!(output, Output::Deliver { .. }));
        let [Output::Deliver { until, .. }] = sent[..] else { panic!("one: {sent:?}") };
        assert_eq!(until, rig.now + Duration::from_millis(HOLD_MS));
        rig.wait(HOLD_MS - 1);
        assert_eq!(held(&rig), 1);
        rig.wait(1);
        assert_eq!((held(&rig), rig.acknowledgements()), (0, 0));
    }
}

/// A link drops what it had not begun with when its time was over, also when its device slept all the time: that is sent
/// again.
#[test]
fn what_was_sent_before_is_sent_again_to_who_slept_long() {
    for (slept_ms, copies) in [(HOLD_MS - 1, 0), (HOLD_MS, 1)] {
        let mut rig = keeping(2);
        assert!(pushed(&mut rig, "m1"));
        let sent = rig.delivered();
        sleeps(&mut rig, SLEEP_S);
        rig.wait(slept_ms);
        wakes(&mut rig);
        assert_eq!(rig.delivered(), sent[..copies]);
        // Once more, after a short nap.
        sleeps(&mut rig, SLEEP_S);
        rig.wait(HOLD_MS - slept_ms + 1);
        wakes(&mut rig);
        assert_eq!(rig.delivered(), sent[copies..]);
        acks(&mut rig, &sent);
        assert_eq!((held(&rig), rig.gateway.status().counters.acknowledged), (0, 1));
    }
}

/// A device that has not said more than that it is awake is told so when nothing waits, too.
#[test]
fn a_device_for_which_nothing_waits_is_told_so() {
    let mut rig = keeping(2);
    sleeps(&mut rig, SLEEP_S);
    wakes(&mut rig);
    assert_eq!((waiting(&mut rig), fetches(&mut rig)), (vec![1], 1), "the service may have something");
    fetch_ends(&mut rig);
    assert_eq!(waiting(&mut rig), [0]);
    sleeps(&mut rig, SLEEP_S);
    rig.feed(rig.closed());
    wakes(&mut rig);
    assert_eq!(statuses(&mut rig), [(Uplink::Down, 0)], "nobody can be asked");
}

/// Whatever a sleeping device says shows that it hears.
#[test]
fn any_word_of_a_sleeping_device_wakes_it() {
    let device = || id("a");
    let (message, channel) = (MessageId([9; 8]), ChannelId(1));
    for word in [
        Input::DeviceAck { device: device(), message },
        Input::DeviceRefused { device: device(), message, later: true },
        Input::Subscribe { device: device(), channel },
        Input::Unsubscribe { device: device(), channel: ChannelId(7) },
        Input::Rotate { device: device(), channel: ChannelId(7) },
        Input::StatusAsked { device: device() },
        Input::DeviceAwake { device: device() },
    ] {
        let mut rig = keeping(2);
        sleeps(&mut rig, SLEEP_S);
        assert!(pushed(&mut rig, "m1"));
        let text = format!("{word:?}");
        rig.feed(word);
        assert_eq!((presence(&rig), rig.delivered().len()), ("ready", 1), "{text}");
        assert_eq!(waiting(&mut rig).len(), 1, "{text}");
        assert_eq!(fetches(&mut rig), 1, "{text}");
    }
    let mut rig = Rig::serving(&["a", "b"]);
    sleeps(&mut rig, SLEEP_S);
    rig.feed(Input::StatusAsked { device: id("b") });
    assert_eq!(presence(&rig), "asleep", "a word of another one");
}

/// Twice the stated time and some more: then it counts as absent, nothing is kept for it, and what is kept is given up.
#[test]
fn a_device_that_overslept_counts_as_absent() {
    let mut rig = keeping(2);
    assert!(pushed(&mut rig, "m1"));
    sleeps(&mut rig, SLEEP_S);
    rig.wait(OVERSLEPT_MS - 1);
    assert_eq!(held(&rig), 1);
    let late = promised(&mut rig, "a", "m2").expect("still kept for");
    rig.wait(1);
    assert_eq!(held(&rig), 1, "only what is on its way");
    comes(&mut rig, late, LIFE_S);
    rig.feed(Input::StatusAsked { device: id("b") });
    assert_eq!((held(&rig), pushed(&mut rig, "m3")), (0, false));
    assert_eq!(rig.acknowledgements(), 0);
    wakes(&mut rig);
    assert_eq!((presence(&rig), fetches(&mut rig)), ("ready", 1));
    assert!(pushed(&mut rig, "m3"));
}

/// A device that does not know how long it sleeps never oversleeps, and one that says it anew sleeps from then on.
#[test]
fn a_device_that_knows_no_time_is_kept_for() {
    let mut rig = keeping(2);
    sleeps(&mut rig, 0);
    rig.wait(30 * 86_400_000);
    assert!(pushed(&mut rig, "m1"));
    let mut rig = keeping(2);
    sleeps(&mut rig, SLEEP_S);
    rig.wait(OVERSLEPT_MS - 1);
    sleeps(&mut rig, SLEEP_S);
    rig.wait(OVERSLEPT_MS - 1);
    assert!(pushed(&mut rig, "m1"));
    sleeps(&mut rig, u32::MAX);
    rig.wait(OVERSLEPT_MS);
    assert!(pushed(&mut rig, "m2"));
}

/// A device that lost its session opens a new one, and gets what was kept in that.
#[test]
fn a_new_session_wakes_a_device() {
    let mut rig = keeping(2);
    assert!(pushed(&mut rig, "m1"));
    let before = rig.delivered();
    sleeps(&mut rig, SLEEP_S);
    assert!(pushed(&mut rig, "m2") && !pushed(&mut rig, "m3"));
    rig.wait(300_000);
    up(&mut rig, 2);
    let sent = rig.delivered();
    assert_eq!((sent.len(), sent[0], presence(&rig)), (2, before[0], "ready"));
    assert_eq!(waiting(&mut rig), [4]);
    acks(&mut rig, &sent);
    assert_eq!(fetches(&mut rig), 1);
    assert_eq!(held(&rig), 0);
}

/// A session that ends while its device sleeps: it is absent, what was kept waits for its next session as long as for that
/// of any other device, and nothing more is taken.
#[test]
fn a_session_may_end_while_its_device_sleeps() {
    let mut rig = keeping(2);
    assert!(pushed(&mut rig, "m1"));
    rig.delivered();
    sleeps(&mut rig, SLEEP_S);
    rig.wait(300_000);
    rig.feed(Input::DeviceDown { device: id("a"), session: 9 });
    assert_eq!(presence(&rig), "asleep", "of another session");
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    assert_eq!((presence(&rig), pushed(&mut rig, "m2")), ("absent", false));
    rig.wait(HOLD_MS - 1);
    assert_eq!(held(&rig), 1);
    rig.wait(1);
    assert_eq!((held(&rig), rig.acknowledgements()), (0, 0));
    wakes(&mut rig);
    assert_eq!(presence(&rig), "absent", "a word without a session is none");
    up(&mut rig, 2);
    assert_eq!((fetches(&mut rig), presence(&rig)), (1, "ready"));
    assert!(pushed(&mut rig, "m1") && rig.delivered().len() == 1);
    // A link that finds no answer where the device said that it sleeps.
    sleeps(&mut rig, SLEEP_S);
    rig.feed(Input::DeviceSilent { device: id("a"), session: 2 });
    assert_eq!((held(&rig), presence(&rig), rig.acknowledgements()), (0, "silent", 0));
    sleeps(&mut rig, SLEEP_S);
    assert_eq!(presence(&rig), "silent", "who is not there cannot fall asleep");
}

/// A message whose content comes when its device is gone is held no longer than any other.
#[test]
fn what_comes_for_a_device_that_left_is_not_kept() {
    let mut rig = keeping(2);
    let slot = promised(&mut rig, "a", "m1").expect("room");
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    comes(&mut rig, slot, LIFE_S);
    rig.wait(HOLD_MS);
    assert_eq!(held(&rig), 0);
}

/// A-GAP-21: what expires while it is kept is given up; the service does the same with it. What says nothing about its
/// lifetime is held as ever.
#[test]
fn a_gap_21_what_expires_while_it_is_kept_is_given_up() {
    let mut rig = keeping(3);
    let slot = promised(&mut rig, "a", "short").expect("room");
    comes(&mut rig, slot, 20);
    assert_eq!(rig.delivered().len(), 1);
    sleeps(&mut rig, SLEEP_S);
    let slot = promised(&mut rig, "a", "long").expect("room");
    comes(&mut rig, slot, 60);
    let slot = promised(&mut rig, "a", "unknown").expect("room");
    rig.arrive(slot, None);
    rig.wait(HOLD_MS - 1);
    assert_eq!(held(&rig), 3);
    rig.wait(1);
    assert_eq!(held(&rig), 2);
    rig.wait(20_000 - HOLD_MS);
    assert_eq!(held(&rig), 1);
    rig.wait(39_999);
    assert_eq!(held(&rig), 1);
    rig.wait(1);
    assert_eq!((held(&rig), rig.acknowledgements()), (0, 0));
    wakes(&mut rig);
    assert!(rig.delivered().is_empty(), "too late");
    // A device that wakes shortly before has only the rest of the time.
    sleeps(&mut rig, SLEEP_S);
    let slot = promised(&mut rig, "a", "rest").expect("room");
    comes(&mut rig, slot, 60);
    rig.wait(57_000);
    wakes(&mut rig);
    let sent = rig.take(|output| matches!(output, Output::Deliver { .. }));
    let [Output::Deliver { until, .. }] = sent[..] else { panic!("one: {sent:?}") };
    assert_eq!(until, rig.now + Duration::from_millis(3_000));
}

/// What a person or the service brings about does not wait for a sleeping device; it is told when it wakes.
#[test]
fn rotations_do_not_wait_for_a_sleeping_device() {
    let mut rig = keeping(2);
    let old = rig.send_uri("a");
    sleeps(&mut rig, 0);
    rig.feed(Input::RotationAsked { device: id("a"), channel: None });
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(7))) });
    rig.persist(true);
    assert_ne!(rig.send_uri("a"), old);
    // What is pushed to the new one while its device sleeps is kept as well.
    assert!(pushed(&mut rig, "m1"));
    rig.wait(ROTATION_GRACE_MS);
    rig.persist(true);
    assert_eq!(rig.take(|output| matches!(output, Output::Unsubscribe { .. })).len(), 1, "the old one goes in time");
    assert!(rig.take(|output| matches!(output, Output::Reply { .. })).is_empty() && presence(&rig) == "asleep");
    wakes(&mut rig);
    let told = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. }));
    let [Output::Reply { reply: Reply::Subscribed { send, .. }, .. }] = &told[..] else { panic!("one: {told:?}") };
    assert_eq!((send, rig.delivered().len()), (&rig.send_uri("a"), 1));
}

/// Subscriptions of a sleeping device are made, stored and announced.
#[test]
fn subscriptions_and_announcements_do_not_wait_for_a_sleeping_device() {
    let mut rig = Rig::new();
    rig.gateway.announce_to("https://app.example/".to_owned());
    rig.add_device("a", &[]);
    rig.feed(Input::Started);
    up(&mut rig, 1);
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(1) });
    sleeps(&mut rig, 0);
    rig.connect();
    let status = rig.take(|output| matches!(output, Output::Reply { .. }));
    assert_eq!(status.len(), 1, "as it attached");
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(1))) });
    rig.persist(true);
    rig.persist(true);
    assert_eq!(rig.take(|output| matches!(output, Output::Announce { .. })).len(), 1);
    assert_eq!(rig.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    assert!(rig.take(|output| matches!(output, Output::Reply { .. })).is_empty());
    assert!(pushed(&mut rig, "m1"));
    wakes(&mut rig);
    let told = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Subscribed { .. }, .. }));
    assert_eq!((told.len(), rig.delivered().len()), (1, 1));
}

/// The end of a subscription is told to who slept meanwhile.
#[test]
fn a_device_that_wakes_is_told_of_what_ended() {
    for wake in [wakes, |rig: &mut Rig| rig.feed(Input::StatusAsked { device: id("a") })] {
        let mut rig = keeping(2);
        rig.feed(Input::Unsubscribe { device: id("a"), channel: ChannelId(1) });
        sleeps(&mut rig, SLEEP_S);
        rig.persist(true);
        let removals = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
        let [Output::Unsubscribe { subscription, .. }] = removals[..] else { panic!("{removals:?}") };
        rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
        rig.persist(true);
        assert!(rig.take(|output| matches!(output, Output::Reply { .. })).is_empty());
        rig.wait(100_000);
        wake(&mut rig);
        let told = rig.take(|output| matches!(output, Output::Reply { reply: Reply::Unsubscribed { .. }, .. }));
        assert!(
            matches!(&told[..], [Output::Reply { reply: Reply::Unsubscribed { channel: ChannelId(1) }, .. }]),
            "{told:?}"
        );
        assert_eq!(waiting(&mut rig), [0], "nothing can wait for it");
        sleeps(&mut rig, SLEEP_S);
        wakes(&mut rig);
        assert!(
            rig.take(|output| matches!(output, Output::Reply { reply: Reply::Unsubscribed { .. }, .. })).is_empty()
        );
    }
}

/// What waits at a subscription that is yet to be made cannot be asked for, and is not waited for.
#[test]
fn a_subscription_that_is_not_there_has_nothing_that_waits() {
    let mut rig = keeping(2);
    rig.feed(Input::Subscribe { device: id("a"), channel: ChannelId(2) });
    rig.outputs.clear();
    sleeps(&mut rig, SLEEP_S);
    wakes(&mut rig);
    assert_eq!((waiting(&mut rig), fetches(&mut rig)), (vec![1], 1));
    fetch_ends(&mut rig);
    assert_eq!(waiting(&mut rig), [0]);
}

/// What was refused long ago and has not come when it was asked for has expired or was replaced: a device that woke does
/// not wait for it.
#[test]
fn what_is_gone_at_the_service_is_not_waited_for() {
    let mut rig = keeping(0);
    sleeps(&mut rig, SLEEP_S);
    assert!(!pushed(&mut rig, "gone"));
    rig.wait(1_000 * u64::from(SLEEP_S));
    wakes(&mut rig);
    assert_eq!((waiting(&mut rig), fetches(&mut rig)), (vec![2], 1));
    fetch_ends(&mut rig);
    assert_eq!(waiting(&mut rig), [0]);
    rig.wait(3_600_000);
    assert_eq!(fetches(&mut rig), 0);
}

/// A connection that ends while it is asked what waits: it is asked again on the next one, so that a device is told when
/// nothing does.
#[test]
fn a_connection_that_ends_does_not_leave_a_device_waiting() {
    let mut rig = keeping(0);
    sleeps(&mut rig, SLEEP_S);
    assert!(!pushed(&mut rig, "gone"));
    rig.wait(1_000 * u64::from(SLEEP_S));
    wakes(&mut rig);
    assert_eq!((waiting(&mut rig), fetches(&mut rig)), (vec![2], 1));
    rig.feed(rig.closed());
    rig.reconnect();
    rig.wait(FETCH_PAUSE_MS);
    assert_eq!((waiting(&mut rig), fetches(&mut rig)), (vec![], 1));
    fetch_ends(&mut rig);
    assert_eq!(waiting(&mut rig), [0]);
}

/// A-GAP-08: sleepers hold what they may hold, and no more; each device has at least its own slot.
#[test]
fn a_gap_08_sleepers_leave_the_slots_of_others() {
    let names: Vec<String> = (0..6).map(|number| format!("d{number}")).collect();
    let mut rig = Rig::serving(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let link = LinkOptions { hold_for_sleep: HOLD_FOR_SLEEP_MAX, ..LinkOptions::default() };
    for name in &names[..4] {
        rig.add_device_with(name, &[1], Options { link: link.clone(), ..Options::default() });
        rig.feed(Input::DeviceAsleep { device: id(name), seconds: 0 });
    }
    let mut taken = 0;
    for (at, name) in names[..4].iter().enumerate() {
        for number in 0..10 {
            let Some(slot) = promised(&mut rig, name, &format!("m{at}-{number}")) else { continue };
            comes(&mut rig, slot, LIFE_S);
            taken += 1;
        }
    }
    assert_eq!(taken, 4 + DELIVERY_SLOT_SHARED_COUNT);
    assert!(rig.gateway.status().devices.iter().all(|device| device.in_flight <= MAX));
    for name in &names[4..] {
        for round in 0..3 {
            rig.push(name, &format!("{name}-{round}"));
            let sent = rig.delivered();
            assert_eq!(sent.len(), 1);
            rig.feed(Input::DeviceAck { device: id(name), message: sent[0] });
            assert_eq!(rig.take_acknowledged().len(), 1);
        }
    }
    // With the default, what is left is enough for all.
    let mut rig = Rig::serving(&["a", "b"]);
    sleeps(&mut rig, 0);
    let taken = (0..10).filter(|number| pushed(&mut rig, &format!("m{number}"))).count();
    assert_eq!(taken, DEFAULT);
    (0..DELIVERY_PER_DEVICE_MAX).for_each(|number| drop(rig.push("b", &format!("n{number}"))));
    assert_eq!(rig.delivered_to(), vec![id("b"); DELIVERY_PER_DEVICE_MAX]);
}

/// Ask is answered at once, whatever the connection is like, and tells whether a person is needed.
#[test]
fn status_tells_how_the_connection_is() {
    let mut rig = keeping(2);
    let asked = |rig: &mut Rig| {
        rig.feed(Input::StatusAsked { device: id("a") });
        statuses(rig)
    };
    assert_eq!(asked(&mut rig), [(Uplink::Connected, 0)]);
    assert!(pushed(&mut rig, "m1"));
    assert_eq!(asked(&mut rig), [(Uplink::Connected, 1)]);
    rig.feed(rig.closed());
    assert_eq!(asked(&mut rig), [(Uplink::Down, 1)]);
    rig.wait(BACKOFF_MS_FIRST_MAX);
    rig.dial();
    rig.feed(Input::ConnectionClosed { connection: rig.on, trouble: Trouble::Certificate });
    assert_eq!(asked(&mut rig), [(Uplink::NeedsPerson, 1)]);
    rig.feed(Input::DeviceDown { device: id("a"), session: 1 });
    assert_eq!(asked(&mut rig), [], "who is not there is told nothing");
}
