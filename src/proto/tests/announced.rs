//! Application servers that are told where to post.

use super::*;
use crate::proto::announcement::{Counts, Outcome};

/// Devices that are ready, with a target to announce at. That the first one may be known soon is on flash.
fn announcing(devices: &[&str]) -> Rig {
    let mut rig = Rig::new();
    rig.gateway.announce_to("https://app.example/devices".to_owned());
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
    rig.persist(true);
    rig
}

fn announcements(rig: &mut Rig) -> Vec<(u64, String, String)> {
    let outputs = rig.take(|output| matches!(output, Output::Announce { .. }));
    let announced = |output| match output {
        Output::Announce { number, device, document, .. } => Some((number, device.to_string(), document)),
        _ => None,
    };
    outputs.into_iter().filter_map(announced).collect()
}

/// An announcement is answered, and what that leads to is written.
fn answer(rig: &mut Rig, number: u64, outcome: Outcome) {
    rig.feed(Input::Announced { number, outcome });
    write(rig);
}

/// Writes until nothing is left to write.
fn write(rig: &mut Rig) {
    while rig.outputs.iter().any(|output| matches!(output, Output::Persist { .. })) {
        rig.persist(true);
    }
}

fn rotate(rig: &mut Rig, device: &str, number: usize) {
    rig.feed(Input::RotationAsked { device: id(device), channel: None });
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number))) });
    rig.persist(true);
}

/// Removes a device, at the push service as well.
fn remove(rig: &mut Rig, device: &str) {
    rig.feed(Input::DeviceRemoved(id(device)));
    rig.persist(true);
    let removals = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let [Output::Unsubscribe { subscription, .. }] = removals[..] else { panic!("{removals:?}") };
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
}

fn counts(rig: &Rig) -> (usize, usize, usize, usize) {
    let Counts { due, accepted, rejected, forgotten } = rig.gateway.status().announcements;
    (due, accepted, rejected, forgotten)
}

/// What a process that starts now finds.
fn again(rig: &Rig, target: Option<&str>) -> Rig {
    let mut again = Rig::new();
    if let Some(target) = target {
        again.gateway.announce_to(target.to_owned());
    }
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.flash = rig.flash.clone();
    again
}

fn written(rig: &Rig) -> usize {
    rig.flash.keys().filter(|key| key[0] == 9).count()
}

/// A-UA-08: each subscription is announced once it is on flash, one after another, and once; devices need not be there.
#[test]
fn a_ua_08_each_subscription_is_announced_once() {
    let mut rig = Rig::new();
    rig.gateway.announce_to("https://app.example/devices".to_owned());
    rig.add_device("a", &[1]);
    rig.feed(Input::Started);
    rig.connect();
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(1))) });
    assert_eq!(announcements(&mut rig), [], "persist, then tell");
    rig.persist(true);
    assert_eq!((announcements(&mut rig), written(&rig)), (vec![], 0), "that it may be known comes before it");
    rig.persist(true);
    assert_eq!((written(&rig), counts(&rig)), (1, (1, 0, 0, 0)));
    let told = announcements(&mut rig);
    let [(number, device, document)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(device, "a");
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    assert_eq!(document["endpoint"], granted(1).send.as_str());
    assert_eq!((&document["device"], &document["channel"]), (&"a".into(), &1.into()));
    assert!(document["keys"]["p256dh"].is_string() && document["keys"]["auth"].is_string());
    answer(&mut rig, *number, Outcome::Accepted);
    rig.wait(86_400_000);
    assert_eq!((announcements(&mut rig), written(&rig), counts(&rig)), (vec![], 1, (0, 1, 0, 0)));
}

/// A failed announcement is made again with growing pauses up to an hour, or after the pause that was asked for; the newest
/// fact takes the place of an older one.
#[test]
fn what_was_not_accepted_is_announced_again() {
    let mut rig = announcing(&["a"]);
    let mut at = Vec::new();
    for _ in 0..20 {
        let told = announcements(&mut rig);
        let [(number, ..)] = told[..] else { panic!("{told:?}") };
        at.push(rig.now);
        answer(&mut rig, number, Outcome::Failed(None));
        assert_eq!(announcements(&mut rig), []);
        while rig.outputs.iter().all(|output| !matches!(output, Output::Announce { .. })) {
            let (due, timer) = rig.gateway.poll_timeout().expect("it is due again");
            assert!(timer != Timer::Announce || due > rig.now);
            rig.wait(due.since(rig.now).as_millis() as u64);
        }
    }
    let pauses: Vec<u64> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_millis() as u64).collect();
    assert!(pauses[0] <= ANNOUNCE_BACKOFF_MS_MIN && pauses.iter().all(|pause| *pause <= ANNOUNCE_BACKOFF_MS_MAX));
    assert!(pauses[18] > ANNOUNCE_BACKOFF_MS_MAX / 3, "{pauses:?}");
}

/// What is newer takes the place of what is on its way, failed or was not wanted, and does not wait for it.
#[test]
fn a_newer_fact_takes_the_place_of_an_older_one() {
    for outcome in [Outcome::Failed(None), Outcome::Rejected, Outcome::Accepted] {
        let mut rig = announcing(&["a"]);
        let (number, ..) = announcements(&mut rig).remove(0);
        rotate(&mut rig, "a", 9);
        assert_eq!(announcements(&mut rig), [], "one at a time");
        answer(&mut rig, number, outcome);
        let told = announcements(&mut rig);
        assert!(told.len() == 1 && told[0].2.contains(granted(9).send.as_str()), "the newest one alone, at once");
        answer(&mut rig, told[0].0, Outcome::Rejected);
        assert_eq!(counts(&rig).2, 1);
        rotate(&mut rig, "a", 10);
        assert_eq!(announcements(&mut rig).len(), 1);
        assert_eq!(counts(&rig).2, 0, "what was not wanted is of no matter now");
    }
}

/// One that fails, however often, delays no other: each has its own pauses.
#[test]
fn one_that_fails_does_not_hold_up_others() {
    let mut rig = announcing(&["a"]);
    for _ in 0..14 {
        let (number, ..) = announcements(&mut rig).remove(0);
        answer(&mut rig, number, Outcome::Failed(Some(Duration::from_secs(600))));
        rig.wait(ANNOUNCE_BACKOFF_MS_MAX);
    }
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Failed(None));
    rig.add_device("b", &[1]);
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    write(&mut rig);
    let told = announcements(&mut rig);
    assert_eq!(told.iter().map(|(_, device, _)| device.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// Where the place is what fails, all wait: with growing pauses that are drawn, or as long as was asked for, an hour at
/// most. Once it answers, the others follow without one.
#[test]
fn when_the_place_is_unavailable_all_wait() {
    let mut rig = announcing(&["a", "b"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Unavailable(None));
    assert_eq!(announcements(&mut rig), []);
    rig.wait(ANNOUNCE_BACKOFF_MS_MIN);
    let told = announcements(&mut rig);
    assert_eq!(told.len(), 1, "one of them, after at most the first pause");
    answer(&mut rig, told[0].0, Outcome::Unavailable(Some(Duration::from_secs(7_200))));
    rotate(&mut rig, "a", 9);
    rig.wait(ANNOUNCE_BACKOFF_MS_MAX - 1);
    assert_eq!(announcements(&mut rig), [], "also what is new");
    rig.wait(1);
    for _ in ["a", "b"] {
        let told = announcements(&mut rig);
        assert_eq!(told.len(), 1);
        answer(&mut rig, told[0].0, Outcome::Accepted);
    }
    assert_eq!((announcements(&mut rig), counts(&rig)), (vec![], (0, 2, 0, 0)));
}

/// Whatever became of an announcement, the application server may have it: its end is announced, also by a process that starts
/// later. Nobody hears of the end of what was never sent.
#[test]
fn the_end_of_what_may_be_known_is_announced() {
    for outcome in [Outcome::Failed(None), Outcome::Rejected, Outcome::Unavailable(None)] {
        let mut rig = announcing(&["a", "b"]);
        let (number, ..) = announcements(&mut rig).remove(0);
        rig.feed(Input::DeviceRemoved(id("b")));
        rig.feed(Input::DeviceRemoved(id("a")));
        rig.persist(true);
        answer(&mut rig, number, outcome);
        assert_eq!((counts(&rig).0, written(&rig)), (1, 1), "{outcome:?}");
        let mut rig = again(&rig, Some("https://app.example/devices"));
        rig.feed(Input::Started);
        let told = announcements(&mut rig);
        assert!(told.len() == 1 && told[0].1 == "a" && told[0].2.contains("\"endpoint\":null"), "{told:?}");
        answer(&mut rig, told[0].0, Outcome::Accepted);
        assert_eq!((counts(&rig), written(&rig)), ((0, 0, 0, 0), 0));
    }
}

/// A process that ends while an announcement is on its way has left a note of it, also where the subscription is gone by then.
#[test]
fn what_was_on_its_way_when_the_process_ended_may_be_known() {
    let mut rig = announcing(&["a"]);
    assert_eq!(announcements(&mut rig).len(), 1);
    remove(&mut rig, "a");
    assert!(!rig.flash.keys().any(|key| key[0] == 1), "no subscription is left");
    let mut again = again(&rig, Some("https://app.example/devices"));
    again.feed(Input::Started);
    let told = announcements(&mut again);
    assert!(told.len() == 1 && told[0].2.contains("\"endpoint\":null"), "{told:?}");
}

/// While the note of one cannot be written, the next one has its turn.
#[test]
fn a_note_that_cannot_be_written_holds_up_no_other() {
    let mut rig = announcing(&["a"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Accepted);
    rig.add_device("b", &[1]);
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    rig.persist(true);
    assert_eq!((announcements(&mut rig), counts(&rig).0), (vec![], 1));
    let held = rig.take(|output| matches!(output, Output::Persist { .. }));
    rotate(&mut rig, "a", 9);
    let told = announcements(&mut rig);
    assert!(told.len() == 1 && told[0].1 == "a", "{told:?}");
    rig.outputs.extend(held);
    rig.persist(false);
    answer(&mut rig, told[0].0, Outcome::Accepted);
    assert_eq!(announcements(&mut rig), [], "not before the note");
    rig.wait(PERSIST_RETRY_MS);
    write(&mut rig);
    let told = announcements(&mut rig);
    assert!(told.len() == 1 && told[0].1 == "b", "{told:?}");
}

/// Ends that nobody accepts are remembered up to a bound; beyond it, one is forgotten, and that is counted. What has a
/// subscription is kept.
#[test]
fn ends_that_are_not_accepted_are_remembered_up_to_a_bound() {
    let mut rig = announcing(&["kept"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Accepted);
    for number in 0..ANNOUNCED_COUNT_MAX + 2 {
        let device = format!("d{number}");
        rig.add_device(&device, &[1]);
        let subscription = rig.requested();
        rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(number + 2))) });
        write(&mut rig);
        let (number, ..) = announcements(&mut rig).remove(0);
        answer(&mut rig, number, Outcome::Accepted);
        rig.feed(Input::DeviceRemoved(id(&device)));
        rig.persist(true);
        let (number, ..) = announcements(&mut rig).remove(0);
        answer(&mut rig, number, Outcome::Rejected);
        rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
        write(&mut rig);
        rig.outputs.clear();
    }
    let ends = ANNOUNCED_COUNT_MAX - 1;
    assert_eq!(counts(&rig), (ends, ANNOUNCED_COUNT_MAX, ends, 3));
    assert_eq!(written(&rig), ANNOUNCED_COUNT_MAX);
    let kept = Key::Announced(id("kept"), ChannelId(1)).encode();
    assert!(rig.flash.contains_key(&kept), "it has a subscription");
}

/// A write that fails is repeated, and of one channel there is one at a time: what fails later is not lost.
#[test]
fn what_was_accepted_is_written_until_it_is_on_flash() {
    let mut rig = announcing(&["a"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    rig.feed(Input::Announced { number, outcome: Outcome::Accepted });
    rig.persist(false);
    rig.wait(PERSIST_RETRY_MS);
    let held = rig.take(|output| matches!(output, Output::Persist { .. }));
    assert_eq!(held.len(), 1);
    rig.feed(Input::DeviceRemoved(id("a")));
    rig.persist(true);
    let (number, ..) = announcements(&mut rig).remove(0);
    rig.feed(Input::Announced { number, outcome: Outcome::Accepted });
    assert!(!rig.outputs.iter().any(|output| matches!(output, Output::Persist { .. })), "one at a time");
    rig.outputs.extend(held);
    rig.persist(true);
    assert_eq!(written(&rig), 1);
    rig.persist(false);
    rig.wait(PERSIST_RETRY_MS);
    rig.persist(true);
    assert_eq!((written(&rig), counts(&rig)), (0, (0, 0, 0, 0)));
}

/// One that the application server does not want holds up no other, and is shown.
#[test]
fn a_rejected_announcement_holds_up_no_other() {
    let mut rig = announcing(&["a", "b", "c"]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let told = announcements(&mut rig);
        let [(number, ref device, _)] = told[..] else { panic!("{told:?}") };
        seen.push(device.clone());
        let outcome = if device == "a" { Outcome::Rejected } else { Outcome::Accepted };
        answer(&mut rig, number, outcome);
    }
    assert_eq!((seen, announcements(&mut rig)), (["a", "b", "c"].map(str::to_owned).to_vec(), vec![]));
    assert_eq!(counts(&rig), (1, 2, 1, 0));
    rig.wait(ANNOUNCE_BACKOFF_MS_MAX);
    assert_eq!(announcements(&mut rig).len(), 1);
}

/// A restart announces what was not accepted, and what has changed; at another target everything, without one nothing.
#[test]
fn a_restart_announces_what_is_not_known() {
    let mut rig = announcing(&["a", "b"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Accepted);
    for (target, expected) in
        [(Some("https://app.example/devices"), &["b"][..]), (Some("https://other.example/"), &["a", "b"]), (None, &[])]
    {
        let mut again = again(&rig, target);
        again.add_device("a", &[1]);
        again.add_device("b", &[1]);
        again.feed(Input::Started);
        let mut told = Vec::new();
        while let Some((number, device, _)) = announcements(&mut again).pop() {
            told.push(device);
            answer(&mut again, number, Outcome::Accepted);
        }
        again.persist(true);
        assert_eq!(
            (told, written(&again)),
            (expected.iter().map(|it| it.to_string()).collect(), 2 * usize::from(target.is_some()))
        );
    }
}

/// A-UA-33: the end of a subscription that is made anew is not announced, its successor is; that of one that is gone for good
/// is, also after a restart, and then nothing of it is left.
#[test]
fn a_ua_33_what_is_gone_for_good_is_announced() {
    let mut rig = announcing(&["a"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Accepted);
    let monitors = rig.take(|output| matches!(output, Output::Monitor { .. }));
    let [Output::Monitor { monitor, .. }] = monitors[..] else { panic!("{monitors:?}") };
    rig.feed(Input::MonitorEnded { connection: rig.on, monitor, next: Next::Ended });
    rig.persist(true);
    assert_eq!(announcements(&mut rig), []);
    rig.wait(SUBSCRIBE_BACKOFF_MS_MAX);
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(2))) });
    rig.persist(true);
    let (number, _, document) = announcements(&mut rig).remove(0);
    assert!(document.contains(granted(2).send.as_str()));
    answer(&mut rig, number, Outcome::Accepted);

    rig.feed(Input::DeviceRemoved(id("a")));
    assert_eq!(announcements(&mut rig), [], "persist, then tell");
    rig.persist(true);
    // The push service has not answered, and need not.
    assert!(rig.outputs.iter().any(|output| matches!(output, Output::Unsubscribe { .. })));
    let told = announcements(&mut rig);
    assert!(told.len() == 1 && told[0].2.contains("\"endpoint\":null"), "{told:?}");

    let mut again = again(&rig, Some("https://app.example/devices"));
    again.feed(Input::Started);
    let (number, _, document) = announcements(&mut again).remove(0);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&document).expect("JSON")["endpoint"],
        serde_json::Value::Null
    );
    answer(&mut again, number, Outcome::Accepted);
    again.persist(true);
    assert_eq!((announcements(&mut again), written(&again)), (vec![], 0));
}

/// A-UA-36: a reset leaves nothing of it, and waits for nobody.
#[test]
fn a_reset_forgets_what_was_announced() {
    let mut rig = announcing(&["a"]);
    let (number, ..) = announcements(&mut rig).remove(0);
    answer(&mut rig, number, Outcome::Accepted);
    rig.feed(Input::ResetAsked);
    rig.persist(true);
    let requests = rig.take(|output| matches!(output, Output::UnsubscribeSet { .. }));
    let [Output::UnsubscribeSet { set, .. }] = &requests[..] else { panic!("{requests:?}") };
    rig.feed(Input::SetUnsubscribed { connection: rig.on, set: set.clone(), outcome: Deletion::Done });
    for _ in 0..4 {
        rig.persist(true);
    }
    assert_eq!((announcements(&mut rig), rig.gateway.reset_left()), (vec![], Some(0)));
    assert!(rig.flash.is_empty(), "{:?}", rig.flash.keys());
}
