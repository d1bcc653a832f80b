//! Alternatives that outlive power (RFC 7838 §2.2).

use super::alternatives::{announce, at, attempts, fail, offer, settled, states};
use super::*;
use crate::proto::device::Isolation;
use crate::proto::lasting::Said;
use crate::webpush::alt_svc::Offer;

const T: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;
const MINUTE_MS: u64 = 60_000;
const KEY: &[u8] = b"\x0cpush.example";

fn persisting(port: u16, fresh_for_s: u64) -> Offer {
    Offer { persists: true, ..offer(port, fresh_for_s) }
}

fn synchronised(seconds: u64) -> Input {
    Input::ClockRead(ClockReading { wall_ms: seconds * 1_000, is_synchronised: true })
}

/// A gateway that knows the time, with one place on flash that persists.
fn stored() -> Rig {
    let mut rig = settled();
    rig.dated(T);
    announce(&mut rig, &[persisting(1002, DAY_S)]);
    rig.persist(true);
    rig
}

/// The places on flash.
fn on_flash(rig: &Rig) -> Vec<u16> {
    let value = rig.flash.get(KEY).map(|value| Record::decode(KEY, value).expect("readable"));
    let Some(Record::Alternatives(_, said)) = value else { return Vec::new() };
    said.places.iter().map(|(place, _)| place.port).collect()
}

/// The writes that are due, as what they put there or remove; they succeed.
fn writes(rig: &mut Rig) -> Vec<&'static str> {
    let outputs = rig.take(|output| {
        matches!(
            output,
            Output::Persist {
                change: Change::Put(Record::Alternatives(..)) | Change::Remove(Key::Alternatives(_)),
                ..
            }
        )
    });
    let mut writes = Vec::new();
    for output in outputs {
        let Output::Persist { ticket, change, .. } = output else { continue };
        writes.push(if matches!(change, Change::Put(_)) { "put" } else { "removed" });
        rig.write(change);
        rig.feed(Input::Persisted { ticket, stored: true });
    }
    writes
}

/// Another run on the same flash, before it has begun.
fn loaded(rig: &Rig) -> Rig {
    let mut again = Rig::new();
    for (key, value) in &rig.flash {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.flash.clone_from(&rig.flash);
    again.add_device("a", &[1]);
    again
}

/// Another run on the same flash.
fn restarted(rig: &Rig) -> Rig {
    let mut again = loaded(rig);
    again.feed(Input::Started);
    again
}

/// C-52, D-7838-05: after a restart the first connection goes to an alternative that persists, and to no other.
#[test]
fn c_52_the_first_connection_after_a_restart_goes_to_what_persists() {
    let mut rig = settled();
    rig.dated(T);
    announce(&mut rig, &[offer(1001, DAY_S), persisting(1002, DAY_S), persisting(1003, DAY_S)]);
    rig.persist(true);
    assert_eq!(on_flash(&rig), [1002, 1003]);
    let mut again = restarted(&rig);
    assert_eq!(attempts(&mut again), [Some(1002)]);
    again.ready(100);
    assert_eq!(again.take(|output| matches!(output, Output::Monitor { .. })).len(), 1);
    let state = |port, state| (format!("push.example:{port}"), state, None);
    assert_eq!(states(&again), [state(1002, "in use"), state(1003, "known")]);
}

/// D-7838-07: one that is dead after a restart costs one attempt, and the origin is tried at once.
#[test]
fn d_7838_07_a_stored_alternative_that_is_dead_leaves_the_origin() {
    for trouble in [Trouble::Network, Trouble::Certificate, Trouble::Protocol] {
        let mut again = restarted(&stored());
        assert_eq!(attempts(&mut again), [Some(1002)]);
        fail(&mut again, trouble);
        assert_eq!(attempts(&mut again), [None]);
        again.ready(100);
        assert_eq!(states(&again), [("push.example:1002".to_owned(), "failed", Some(trouble))]);
        assert_eq!(on_flash(&again), [1002], "the network may have been at fault");
    }
}

/// D-7838-09: a new announcement replaces what is on flash, and one without any that persists empties it.
#[test]
fn d_7838_09_what_is_on_flash_is_replaced_and_emptied() {
    for empty in [&[][..], &[offer(1002, DAY_S)], &[persisting(1002, 0)]] {
        let mut rig = stored();
        rig.wait(ALTERNATIVE_RECORD_PAUSE_MS);
        announce(&mut rig, &[persisting(1003, DAY_S), persisting(1002, DAY_S)]);
        assert_eq!((writes(&mut rig), on_flash(&rig)), (vec!["put"], vec![1003, 1002]));
        announce(&mut rig, empty);
        assert_eq!((writes(&mut rig), on_flash(&rig)), (vec!["removed"], vec![]));
        announce(&mut rig, empty);
        assert!(writes(&mut rig).is_empty());
        assert_eq!(attempts(&mut restarted(&rig)), [None]);
    }
}

/// D-7838-09: what is on flash never lasts longer than the service says now.
#[test]
fn d_7838_09_a_shorter_time_replaces_a_longer_one() {
    let mut rig = stored();
    rig.wait(ALTERNATIVE_RECORD_PAUSE_MS);
    let passed_s = ALTERNATIVE_RECORD_PAUSE_MS / 1_000;
    announce(&mut rig, &[persisting(1002, DAY_S - passed_s - ALTERNATIVE_RECORD_SLACK_S)]);
    assert!(writes(&mut rig).is_empty());
    announce(&mut rig, &[persisting(1002, DAY_S - passed_s - ALTERNATIVE_RECORD_SLACK_S - 1)]);
    assert_eq!(writes(&mut rig), ["put"]);
}

/// D-7838-04, C-52: what is no longer fresh by a clock that is right, or by what is known to have passed, is not used, and goes.
#[test]
fn d_7838_04_what_is_no_longer_fresh_after_a_restart_goes() {
    for (time, port, left) in [
        (synchronised(T + DAY_S - 1), Some(1002), vec![1002]),
        (synchronised(T + DAY_S), None, vec![]),
        (synchronised(T - 9 * DAY_S), Some(1002), vec![1002]),
        (Input::Restored(Record::LastTime(UnixTime(T + DAY_S), None)), None, vec![]),
        (Input::ClockRead(ClockReading { wall_ms: u64::MAX, is_synchronised: false }), Some(1002), vec![1002]),
    ] {
        let mut again = loaded(&stored());
        again.feed(time);
        again.feed(Input::Started);
        assert_eq!(attempts(&mut again), [port]);
        again.persist(true);
        assert_eq!(on_flash(&again), left);
    }
}

/// D-7838-04: whatever a clock shows after a restart, nothing is fresh for longer than the service said.
#[test]
fn d_7838_04_a_clock_that_is_behind_makes_nothing_fresh_for_longer() {
    let mut again = loaded(&stored());
    again.feed(synchronised(T - 9 * DAY_S));
    again.feed(Input::Started);
    again.wait(DAY_S * 1_000 - 1);
    assert_eq!(states(&again).len(), 1);
    again.wait(1);
    assert!(states(&again).iter().all(|(_, state, _)| *state == "in use"));
}

/// A clock that becomes right later counts from then on.
#[test]
fn what_turns_out_to_be_no_longer_fresh_goes_later() {
    let mut again = restarted(&stored());
    assert_eq!(attempts(&mut again), [Some(1002)]);
    again.feed(synchronised(T + DAY_S));
    assert_eq!(writes(&mut again), ["removed"]);
    fail(&mut again, Trouble::Network);
    assert_eq!((attempts(&mut again), states(&again)), (vec![None], vec![]));
    again.feed(synchronised(T));
    assert!(states(&again).is_empty(), "it is gone for good");
}

/// While nobody knows what time it is, nothing is stored, and what is stored waits until somebody does.
#[test]
fn without_a_time_nothing_is_stored_or_used() {
    let mut rig = settled();
    rig.feed(Input::ClockRead(ClockReading { wall_ms: T * 1_000, is_synchronised: false }));
    announce(&mut rig, &[persisting(1002, DAY_S)]);
    assert!(writes(&mut rig).is_empty());

    let mut known = stored();
    known.flash.retain(|key, _| *key != Key::LastTime.encode());
    let mut again = restarted(&known);
    assert_eq!(attempts(&mut again), [None]);
    again.ready(100);
    again.wait(STABLE_MS);
    assert_eq!(on_flash(&again), [1002]);
    again.dated(T + 1);
    assert_eq!(attempts(&mut again), [Some(1002)]);
}

/// An answer a minute for a month is two writes a day.
#[test]
fn what_is_repeated_is_written_rarely() {
    let mut rig = stored();
    let mut count = 0;
    for minute in 1..=30 * 24 * 60 {
        rig.now = rig.now + Duration::from_millis(MINUTE_MS);
        rig.dated(T + minute * 60);
        announce(&mut rig, &[persisting(1002, DAY_S)]);
        count += writes(&mut rig).len();
        rig.outputs.clear();
    }
    assert!((58..=60).contains(&count), "{count} in 30 days");
}

/// A service that says another thing each time costs two writes an hour at most, and nothing stays that it no longer says.
#[test]
fn a_service_that_changes_its_mind_wears_little() {
    let mut rig = stored();
    let mut count = 0;
    for number in 1..=24 * 60_u64 {
        rig.now = rig.now + Duration::from_millis(MINUTE_MS);
        let port = 2_000 + (number % 7) as u16;
        announce(&mut rig, &[persisting(port, DAY_S)]);
        count += writes(&mut rig).len();
        assert!(on_flash(&rig).iter().all(|stored| *stored == port));
        rig.outputs.clear();
    }
    assert!((40..=48).contains(&count), "{count} in a day");
}

/// What is fresh for a moment is not worth a write, however often it is said.
#[test]
fn what_is_fresh_for_a_moment_is_not_stored() {
    let mut rig = settled();
    rig.dated(T);
    announce(&mut rig, &[persisting(1001, ALTERNATIVE_RECORD_S_MIN - 1), persisting(1002, ALTERNATIVE_RECORD_S_MIN)]);
    rig.persist(true);
    assert_eq!(on_flash(&rig), [1002]);
}

/// A write that fails is made again, also when the service repeats itself meanwhile.
#[test]
fn a_write_that_fails_is_made_again() {
    for is_repeated in [false, true] {
        let mut rig = settled();
        rig.dated(T);
        rig.persist(true);
        announce(&mut rig, &[persisting(1002, DAY_S)]);
        rig.persist(false);
        if is_repeated {
            announce(&mut rig, &[persisting(1002, DAY_S)]);
        }
        rig.wait(PERSIST_RETRY_MS);
        assert_eq!((writes(&mut rig), on_flash(&rig)), (vec!["put"], vec![1002]));
    }
    let mut rig = stored();
    announce(&mut rig, &[]);
    rig.persist(false);
    announce(&mut rig, &[]);
    rig.wait(PERSIST_RETRY_MS);
    assert_eq!(writes(&mut rig), ["removed"]);
}

/// D-7838-13: what does not serve the origin goes from flash as well.
#[test]
fn d_7838_13_a_421_goes_from_flash_as_well() {
    let mut rig = settled();
    rig.dated(T);
    announce(&mut rig, &[persisting(1002, DAY_S), persisting(1003, DAY_S)]);
    rig.persist(true);
    let mut again = restarted(&rig);
    assert_eq!(attempts(&mut again), [Some(1002)]);
    again.ready(100);
    again.feed(Input::Misdirected { connection: again.on });
    again.persist(true);
    assert_eq!(on_flash(&again), [1003]);
}

/// D-7838-14: a reset leaves nothing on flash, and nothing is written meanwhile.
#[test]
fn d_7838_14_a_reset_empties_flash() {
    let mut rig = stored();
    rig.feed(Input::ResetAsked);
    assert_eq!(writes(&mut rig), ["removed"]);
    announce(&mut rig, &[persisting(1002, DAY_S)]);
    assert!(writes(&mut rig).is_empty());
}

/// What another service said is not used for this one, and goes.
#[test]
fn alternatives_of_a_service_that_is_not_configured_go() {
    let mut rig = Rig::new();
    let said = Said { at: UnixTime(T), places: vec![(at(1002), DAY_S)] };
    rig.feed(Input::Restored(Record::Alternatives("old.example".to_owned(), said)));
    rig.add_device("a", &[1]);
    rig.feed(synchronised(T));
    rig.feed(Input::Started);
    assert_eq!(writes(&mut rig), ["removed"]);
    assert_eq!(attempts(&mut rig), [None]);
}

/// C-52: a device that is kept apart shares no cached state, so nothing of its connection is stored.
#[test]
fn c_52_nothing_of_a_connection_that_is_kept_apart_is_stored() {
    let mut rig = Rig::new();
    rig.add_device_with("a", &[1], Options { isolated: Isolation::Connection, ..Options::default() });
    rig.feed(Input::Started);
    rig.connect();
    rig.dated(T);
    announce(&mut rig, &[persisting(1002, DAY_S)]);
    assert_eq!(states_of_all(&rig), ["push.example:1002"]);
    assert!(writes(&mut rig).is_empty());
}

/// The places that all connections know.
fn states_of_all(rig: &Rig) -> Vec<String> {
    let now = rig.now;
    let upstreams = rig.gateway.upstreams.iter();
    upstreams.flat_map(|upstream| upstream.alternatives.iter(now)).map(|(place, _)| place.to_string()).collect()
}
