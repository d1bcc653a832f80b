//! Senders learn what became of their messages.

use super::*;

impl World {
    /// Posts a message whose receipt goes to a receipt subscription: message and receipt subscription.
    fn accept_with_receipt(&mut self, push: Token, ttl: u64, wish: ReceiptWish) -> (Token, Token) {
        match self.post(Posted { receipts: wish, ..posted(push, ttl, "m") }) {
            Reply::Accepted { message, receipts: Some(receipts), .. } => (message, receipts),
            other => panic!("{other:?}"),
        }
    }

    /// The receipts a connection has to push, each reported as received.
    fn receipts(&mut self, connection: ConnectionId) -> Vec<(Token, Outcome)> {
        let receipts = self.unconfirmed(connection);
        receipts.iter().for_each(|receipt| self.input(Input::Received(receipt.id)));
        receipts.iter().map(|receipt| (receipt.message, receipt.outcome)).collect()
    }

    fn unconfirmed(&mut self, connection: ConnectionId) -> Vec<Receipt> {
        let only_receipts = |output| match output {
            Output::Receipt(receipt) => receipt,
            other => panic!("{other:?}"),
        };
        self.outputs(connection).into_iter().map(only_receipts).collect()
    }
}

/// A-PS-16, A-PS-19, A-PS-57, A-PS-61: the acknowledgement gives a receipt to who monitors, once it is stored, and not
/// before.
#[test]
fn a_ps_57_an_acknowledgement_gives_a_receipt() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    world.store();
    assert_eq!(world.retention.kind(receipts), Some(Kind::Receipts));
    world.monitor(B, receipts, None);
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["m"]);
    world.pass(3_600_000 / 10);
    assert_eq!(world.outputs(B), []);
    assert_eq!(world.remove(message), Reply::Removed);
    assert_eq!(world.outputs(B), [], "it is not stored yet");
    assert!(matches!(
        world.store()[..],
        [Record::Subscription { .. }, Record::MessageEnded { .. }, Record::Receipt { .. }]
    ));
    assert_eq!(world.receipts(B), [(message, Outcome::Acknowledged)]);
    assert!(matches!(world.store()[..], [Record::ReceiptEnded(_)]));
    assert_eq!(world.outputs(B), []);
}

/// A-PS-20, A-PS-101: receipts are aggregated on the receipt subscription presented, until it has as many as it may.
#[test]
fn a_ps_20_a_presented_receipt_subscription_is_returned_again() {
    let mut world = World::new();
    let (one, two) = (world.subscribe(None), world.subscribe(None));
    let (first, receipts) = world.accept_with_receipt(one.push, 600, ReceiptWish::New);
    let (second, again) = world.accept_with_receipt(two.push, 600, ReceiptWish::In(receipts));
    assert_eq!(receipts, again);
    world.remove(first);
    world.remove(second);
    world.store();
    world.monitor(B, receipts, None);
    assert_eq!(world.receipts(B), [(first, Outcome::Acknowledged), (second, Outcome::Acknowledged)]);
    for _ in 0..SERVICE_RECEIPTS_PER_SUBSCRIPTION_MAX {
        let (message, again) = world.accept_with_receipt(one.push, 600, ReceiptWish::In(receipts));
        assert_eq!(receipts, again);
        world.retention.unstored_receipts.clear();
        world.remove(message);
    }
    let (message, other) = world.accept_with_receipt(one.push, 600, ReceiptWish::In(receipts));
    assert_ne!(receipts, other);
    world.remove(message);
    world.store();
    world.monitor(A, other, None);
    assert_eq!(world.receipts(A), [(message, Outcome::Acknowledged)]);
}

/// A-PS-21: what is no receipt subscription is refused, and the message is not kept.
#[test]
fn a_ps_21_an_invalid_receipt_subscription_is_refused() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    world.remove(receipts);
    world.store();
    let never_issued = Token::random(&mut SeededRandom::new(99));
    for wrong in [receipts, member.set, member.subscription, member.push, message, never_issued] {
        let reply = world.post(Posted { receipts: ReceiptWish::In(wrong), ..posted(member.push, 600, "refused") });
        assert_eq!(reply, Reply::InvalidReceipts);
    }
    assert_eq!((world.records(), world.retention.message_count), (vec![], 1));
}

/// A-PS-60, A-PS-72, A-PS-73, A-GAP-04: whatever ends a message without an acknowledgement is told as given up.
#[test]
fn a_ps_60_a_message_given_up_is_told() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (expired, receipts) = world.accept_with_receipt(member.push, 5, ReceiptWish::New);
    let wish = ReceiptWish::In(receipts);
    let (of_nobody, _) = world.accept_with_receipt(member.push, 0, wish);
    world.pass(5_000);
    let (removed, _) = world.accept_with_receipt(member.push, 600, wish);
    let (also_removed, _) = world.accept_with_receipt(member.push, 600, wish);
    world.remove(member.subscription);
    world.store();
    world.monitor(B, receipts, None);
    let given_up = |message| (message, Outcome::GivenUp);
    assert_eq!(world.receipts(B), [of_nobody, expired, removed, also_removed].map(given_up));
    assert_eq!(world.remove(expired), Reply::Gone);
}

/// A-PS-59: after as many attempts as the operator allows there is no other one.
#[test]
fn a_ps_59_attempts_may_be_limited() {
    let mut world = World::new();
    world.retention.policy.attempt_count_max = Some(3);
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, TTL_S_MAX, ReceiptWish::New);
    world.monitor(A, member.set, None);
    let mut attempts = 0;
    for _ in 0..10 {
        attempts += world.delivered(A).len();
        world.pass(2 * SERVICE_RETRY_MS_MAX);
    }
    assert_eq!(attempts, 3);
    world.store();
    world.monitor(B, receipts, None);
    assert_eq!(world.receipts(B), [(message, Outcome::GivenUp)]);
    assert_eq!(world.remove(message), Reply::Gone);
    world.store();
    assert_eq!(world.outputs(B), []);
}

/// A-PS-71, A-PS-72: where the operator prefers new messages, the oldest of the least urgent ones gives way.
#[test]
fn a_ps_71_the_oldest_of_the_least_urgent_gives_way() {
    let mut world = World::new();
    (world.retention.policy.message_count_max, world.retention.policy.when_full) = (3, WhenFull::Evict);
    let member = world.subscribe(None);
    let receipts = ReceiptWish::New;
    world.send_urgently(member.push, 600, Urgency::High, "high");
    let low = Posted { urgency: Urgency::Low, receipts, ..posted(member.push, 600, "low") };
    let Reply::Accepted { message: evicted, receipts: Some(receipts), .. } = world.post(low) else {
        panic!("accepted")
    };
    world.send_urgently(member.push, 600, Urgency::Low, "low, later");
    assert_eq!(world.send_urgently(member.push, 600, Urgency::VeryLow, "matters less than all"), Reply::Full);
    world.accept(member.push, 600, "normal");
    world.store();
    assert_eq!(world.request(Request::Read { message: evicted }), Reply::Gone);
    world.monitor(B, receipts, None);
    assert_eq!(world.receipts(B), [(evicted, Outcome::GivenUp)]);
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["high", "low, later", "normal"]);
}

/// A-PS-41, A-PS-42: of a replaced message nobody is told, even if its acknowledgement comes in late.
#[test]
fn a_ps_41_of_a_replaced_message_nobody_is_told() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let topic = || Some("t".parse().expect("a topic"));
    let with_topic = |receipts, body| Posted { topic: topic(), receipts, ..posted(member.push, 600, body) };
    let Reply::Accepted { message: old, receipts: Some(first), .. } = world.post(with_topic(ReceiptWish::New, "1"))
    else {
        panic!("accepted")
    };
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["1"]);
    let Reply::Accepted { message: new, receipts: Some(second), .. } = world.post(with_topic(ReceiptWish::New, "2"))
    else {
        panic!("accepted")
    };
    assert_eq!(world.remove(old), Reply::Gone);
    assert_eq!(world.delivered(A), ["2"]);
    world.remove(new);
    world.store();
    world.monitor(B, first, None);
    assert_eq!(world.outputs(B), []);
    world.monitor(B, second, None);
    assert_eq!(world.receipts(B), [(new, Outcome::Acknowledged)]);
    assert!(world.retention.receipts.values().all(|it| it.expected_count == 0));
}

/// A-PS-30, A-GAP-04: a message with a lifetime of zero may be acknowledged in its moment, and is given up after it.
#[test]
fn a_gap_04_ttl_zero_has_a_moment_for_its_acknowledgement() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let (first, receipts) = world.accept_with_receipt(member.push, 0, ReceiptWish::New);
    assert_eq!(world.delivered(A), ["m"]);
    assert_eq!(world.remove(first), Reply::Removed);
    let (second, _) = world.accept_with_receipt(member.push, 0, ReceiptWish::In(receipts));
    assert_eq!(world.delivered(A), ["m"]);
    world.pass(SERVICE_TTL_ZERO_MS);
    world.store();
    world.monitor(B, receipts, None);
    assert_eq!(world.receipts(B), [(first, Outcome::Acknowledged), (second, Outcome::GivenUp)]);
    assert_eq!(world.outputs(A), []);
}

/// A-GAP-09: receipts wait for who monitors, through a restart; `wait=0` takes what there is.
#[test]
fn a_gap_09_receipts_wait_for_a_monitor() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    let (expired, _) = world.accept_with_receipt(member.push, 60, ReceiptWish::In(receipts));
    world.remove(message);
    let mut disk = world.store();
    disk.retain(|it| !matches!(it, Record::Message(stored) if stored.token == message));

    let mut restarted = World::new();
    restarted.pass(60_000);
    disk.sort_by_key(|record| match record {
        Record::Set { .. } | Record::Receipts { .. } => 0,
        Record::Subscription { .. } | Record::Receipt { .. } => 1,
        _ => 2,
    });
    disk.into_iter().for_each(|record| restarted.retention.restore(record, restarted.now));
    restarted.store();
    let monitor = restarted.monitor(B, receipts, Some(0));
    let outputs = restarted.outputs(B);
    let told = outputs.iter().map(|output| match output {
        Output::Receipt(receipt) => Ok((receipt.message, receipt.outcome)),
        Output::End(monitor, ending) => Err((*monitor, *ending)),
        Output::Push(_) => panic!("nothing is pushed to a sender"),
    });
    let told: Vec<_> = told.collect();
    let both = [Ok((message, Outcome::Acknowledged)), Ok((expired, Outcome::GivenUp))];
    assert_eq!(told, [&both[..], &[Err((monitor, Ending::Pushed))]].concat());
    restarted.input(Input::ConnectionClosed(B));
    let monitor = restarted.monitor(A, receipts, Some(0));
    assert_eq!(restarted.outputs(A).len(), 3, "what a lost connection may not have delivered comes again");
    assert_eq!(restarted.retention.kind(receipts), Some(Kind::Receipts));
    assert_ne!(monitor.connection, B);
}

/// A-PS-53, A-GAP-06: without receipts `wait=0` is answered with 204, and the newest monitor serves.
#[test]
fn monitors_of_receipts_end_as_others_do() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    let first = world.monitor(A, receipts, None);
    let second = world.monitor(B, receipts, None);
    assert_eq!(world.outputs(A), [Output::End(first, Ending::Replaced)]);
    world.remove(message);
    world.store();
    assert_eq!(world.outputs(A), []);
    assert_eq!(world.receipts(B).len(), 1);
    let third = world.monitor(A, receipts, Some(0));
    assert_eq!(world.outputs(A), [Output::End(third, Ending::Nothing)]);
    assert_eq!(world.outputs(B), [Output::End(second, Ending::Replaced)]);
}

/// A-PS-75, A-PS-78: a receipt subscription that ends answers its monitor with 404; its messages are delivered on.
#[test]
fn a_ps_78_a_removed_receipt_subscription_is_gone() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for expires in [false, true] {
        let (_, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
        let monitor = world.monitor(B, receipts, None);
        if expires {
            world.input(Input::Expire(receipts));
        } else {
            assert_eq!(world.remove(receipts), Reply::Removed);
        }
        assert_eq!(world.outputs(B), [Output::End(monitor, Ending::Gone)]);
        assert_eq!(world.remove(receipts), Reply::Gone);
    }
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["m", "m"]);
    world.remove(member.set);
    world.store();
    assert_eq!(world.retention.receipt_order.len(), 0);
}

/// So many receipts are pushed before any of them is known to have arrived; then the next ones follow.
#[test]
fn unconfirmed_receipts_are_bounded() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    world.remove(message);
    for _ in 0..SERVICE_RECEIPTS_UNCONFIRMED_MAX {
        let (message, _) = world.accept_with_receipt(member.push, 600, ReceiptWish::In(receipts));
        world.remove(message);
    }
    world.store();
    let monitor = world.monitor(B, receipts, Some(0));
    let sent = world.unconfirmed(B);
    assert_eq!(sent.len(), SERVICE_RECEIPTS_UNCONFIRMED_MAX);
    world.input(Input::Received(sent[0].id));
    assert!(
        matches!(world.outputs(B)[..], [Output::Receipt(_), Output::End(ended, Ending::Pushed)] if ended == monitor)
    );
}

/// A-GAP-09: beyond the bound the oldest receipt gives way.
#[test]
fn a_gap_09_the_oldest_receipt_gives_way() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let (_, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    let id = *world.retention.receipts.keys().next().expect("it was made");
    world.store();
    for count in 0..=SERVICE_RECEIPT_COUNT_MAX as u64 {
        world.retention.tell(id, Token::from_bytes(u128::from(count).to_be_bytes()), Outcome::GivenUp);
    }
    assert_eq!(world.retention.receipt_order.len(), SERVICE_RECEIPT_COUNT_MAX);
    world.store();
    world.monitor(B, receipts, None);
    assert_eq!(world.unconfirmed(B)[0].message, Token::from_bytes(1_u128.to_be_bytes()));
}

/// One that holds nothing gives way to a new one.
#[test]
fn idle_receipt_subscriptions_give_way() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let now = world.now;
    for number in 0..SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX as u64 {
        let token = Token::from_bytes(u128::from(number + 1).to_be_bytes());
        world.retention.insert_receipts(ReceiptsId(1_000 + number), token, now);
    }
    world.monitor(B, Token::from_bytes(1_u128.to_be_bytes()), None);
    world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    assert_eq!(world.retention.receipts.len(), SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX);
    let kind = |number: u128| world.retention.kind(Token::from_bytes(number.to_be_bytes()));
    assert_eq!((kind(1), kind(2), kind(3)), (Some(Kind::Receipts), None, Some(Kind::Receipts)));
}

#[test]
fn receipt_subscriptions_are_bounded() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for _ in 0..SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX {
        let (message, _) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
        world.remove(message);
    }
    world.store();
    let reply = world.post(Posted { receipts: ReceiptWish::New, ..posted(member.push, 600, "m") });
    assert_eq!((reply, world.records()), (Reply::Full, vec![]));
}

/// A receipt subscription that was made for a message that could not be stored is gone: nobody knows it.
#[test]
fn a_receipt_subscription_that_could_not_be_stored_is_gone() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.store();
    let (message, receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    world.input(Input::NotStored(message));
    world.input(Input::NotStored(receipts));
    assert_eq!((world.retention.kind(receipts), world.retention.receipts.len()), (None, 0));
}

/// A stored receipt without its receipt subscription is taken off the disk.
#[test]
fn a_receipt_of_nobody_is_not_kept() {
    let mut world = World::new();
    let id = ReceiptId::from_key((7, 9));
    let message = Token::random(&mut world.random);
    world.retention.restore(Record::Receipt { id, message, outcome: Outcome::GivenUp }, world.now);
    assert_eq!(world.records(), [Record::ReceiptEnded(id)]);
    assert_eq!(world.retention.receipt_order.len(), 0);
}

/// A receiver that never answers does not make the service remember what gave way.
#[test]
fn receipts_that_give_way_unconfirmed_leave_nothing_behind() {
    let mut world = World::new();
    world.retention.policy.sends_per_minute = None;
    let member = world.subscribe(None);
    let (message, mut receipts) = world.accept_with_receipt(member.push, 600, ReceiptWish::New);
    world.remove(message);
    world.store();
    world.monitor(B, receipts, None);
    assert_eq!(world.unconfirmed(B).len(), 1);
    for _ in 0..SERVICE_RECEIPT_COUNT_MAX {
        let (message, next) = world.accept_with_receipt(member.push, 600, ReceiptWish::In(receipts));
        receipts = next;
        world.remove(message);
        world.records();
        world.retention.unstored_receipts.clear();
    }
    assert_eq!(world.retention.carried_receipts.len(), 0);
}
