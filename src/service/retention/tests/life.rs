//! What nobody uses ends.

use super::*;

const FRESH_MS: u64 = SERVICE_FRESH_S * 1_000;
const UNUSED_MS: u64 = SERVICE_UNUSED_S * 1_000;

/// A-GAP-14: a subscription that nobody ever asked for messages ends after a day, and with it its messages.
#[test]
fn a_gap_14_subscriptions_that_were_never_monitored_expire() {
    let mut world = World::new();
    let (orphan, used) = (world.subscribe(None), world.subscribe(None));
    let message = world.accept(orphan.push, TTL_S_MAX, "m");
    let monitor = world.monitor(A, used.set, Some(0));
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Nothing)]);
    world.pass(FRESH_MS - 1);
    assert_eq!(world.retention.kind(orphan.subscription), Some(Kind::Subscription));
    world.pass(1);
    for gone in [orphan.subscription, orphan.push, message] {
        assert_eq!(world.retention.kind(gone), None);
    }
    assert_eq!(world.retention.kind(used.subscription), Some(Kind::Subscription));
    // One that joins while its set is monitored is monitored.
    world.monitor(A, used.set, None);
    let late = world.subscribe(Some(used.set));
    world.pass(FRESH_MS);
    assert_eq!(world.retention.kind(late.push), Some(Kind::Push));
    let asked_for = |record: &Record| matches!(record, Record::Subscription { was_monitored: true, .. });
    assert_eq!(world.records().iter().filter(|record| asked_for(record)).count(), 2);
}

/// A-PS-102, A-PS-103: what nobody uses for long ends; a monitor, on it or its set, keeps it.
#[test]
fn a_ps_102_unused_resources_expire() {
    let mut world = World::new();
    let (idle, kept) = (world.subscribe(None), world.subscribe(None));
    let beside = world.subscribe(Some(idle.set));
    world.monitor(A, idle.set, Some(0));
    world.monitor(A, kept.set, None);
    let narrow = world.monitor(A, beside.subscription, None);
    world.outputs(A);
    world.pass(UNUSED_MS);
    assert_eq!(world.retention.kind(idle.subscription), None);
    assert_eq!(world.retention.kind(beside.subscription), Some(Kind::Subscription), "it is monitored itself");
    world.input(Input::MonitorClosed(narrow));
    world.pass(UNUSED_MS / 2);
    assert_eq!(world.retention.kind(beside.subscription), Some(Kind::Subscription));
    world.pass(UNUSED_MS / 2);
    assert_eq!(world.retention.kind(beside.subscription), None);
    assert_eq!(world.send(beside.push, 60, "m"), Reply::Gone);
    world.pass(2 * UNUSED_MS);
    assert_eq!(world.retention.kind(idle.set), None, "an empty set, some time after its last member");
    for kept in [kept.subscription, kept.set] {
        assert!(world.retention.kind(kept).is_some());
    }
    world.input(Input::ConnectionClosed(A));
    world.pass(UNUSED_MS);
    assert_eq!(world.retention.kind(kept.subscription), None);
}

/// A-PS-74, A-PS-79, A-PS-80, A-PS-103: an operator may end anything; requests on it are answered with 404.
#[test]
fn a_ps_74_what_an_operator_ends_is_gone() {
    let mut world = World::new();
    let one = world.subscribe(None);
    let two = world.subscribe(Some(one.set));
    let wide = world.monitor(A, one.set, None);
    let narrow = world.monitor(A, one.subscription, None);
    world.input(Input::Expire(one.subscription));
    assert_eq!(world.outputs(A), [Output::End(narrow, Ending::Gone)]);
    assert_eq!(world.send(one.push, 60, "m"), Reply::Gone);
    let message = world.accept(two.push, 60, "m");
    world.input(Input::Expire(message));
    assert_eq!(world.remove(message), Reply::Gone);
    world.input(Input::Expire(one.set));
    assert_eq!(world.outputs(A), [Output::End(wide, Ending::Gone)]);
    assert_eq!(world.retention.kind(two.push), None);
    world.input(Input::Expire(two.push));
}

/// Receipt subscriptions are used by whoever presents or monitors them.
#[test]
fn unused_receipt_subscriptions_expire() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let wish = |receipts| Posted { receipts, ..posted(member.push, 60, "m") };
    let Reply::Accepted { receipts: Some(receipts), .. } = world.post(wish(ReceiptWish::New)) else {
        panic!("accepted")
    };
    world.pass(UNUSED_MS - 1);
    world.post(wish(ReceiptWish::In(receipts)));
    world.pass(1);
    assert_eq!(world.retention.kind(receipts), Some(Kind::Receipts));
    world.pass(UNUSED_MS);
    assert_eq!(world.retention.kind(receipts), None);
    assert_eq!(world.post(wish(ReceiptWish::In(receipts))), Reply::InvalidReceipts);
}
