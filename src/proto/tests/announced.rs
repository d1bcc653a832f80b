//! Application servers that are told where to post.

use super::*;
use crate::proto::announcement::Outcome;

/// Devices that are ready, with a target to announce at.
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

fn answer(rig: &mut Rig, number: u64, outcome: Outcome) {
    rig.feed(Input::Announced { number, outcome });
    rig.persist(true);
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
    let told = announcements(&mut rig);
    let [(number, device, document)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(device, "a");
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    assert_eq!(document["endpoint"], granted(1).send.as_str());
    assert_eq!((&document["device"], &document["channel"]), (&"a".into(), &1.into()));
    assert!(document["keys"]["p256dh"].is_string() && document["keys"]["auth"].is_string());
    answer(&mut rig, *number, Outcome::Accepted);
    rig.wait(86_400_000);
    assert_eq!((announcements(&mut rig), written(&rig), rig.gateway.status().announcements), (vec![], 1, (0, 1, 0)));
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

    let (number, ..) = announcements(&mut rig).remove(0);
    rig.feed(Input::RotationAsked { device: id("a"), channel: None });
    let subscription = rig.requested();
    rig.feed(Input::Subscribed { connection: rig.on, subscription, outcome: Some(Ok(granted(9))) });
    rig.persist(true);
    assert_eq!(announcements(&mut rig), [], "one at a time");
    answer(&mut rig, number, Outcome::Failed(Some(Duration::from_secs(7_200))));
    rig.wait(ANNOUNCE_BACKOFF_MS_MAX - 1);
    assert_eq!(announcements(&mut rig), []);
    rig.wait(1);
    let told = announcements(&mut rig);
    assert!(told.len() == 1 && told[0].2.contains(granted(9).send.as_str()), "the newest one alone");
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
    assert_eq!(rig.gateway.status().announcements, (1, 2, 1));
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
    rig.persist(true);
    let removals = rig.take(|output| matches!(output, Output::Unsubscribe { .. }));
    let [Output::Unsubscribe { subscription, .. }] = removals[..] else { panic!("{removals:?}") };
    rig.feed(Input::Unsubscribed { connection: rig.on, subscription, outcome: Deletion::Done });
    rig.persist(true);
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
