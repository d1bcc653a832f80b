//! A message replaces the outstanding one of its topic.

use super::*;

fn about(topic: &str, posted: Posted) -> Posted {
    Posted { topic: Some(topic.parse().expect("a topic")), ..posted }
}

impl World {
    fn accept_about(&mut self, topic: &str, push: Token, body: &str) -> Token {
        match self.post(about(topic, posted(push, 600, body))) {
            Reply::Accepted { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }
}

/// A-PS-38, A-PS-40, A-PS-46: the newest of a topic is there alone, in one record, and topics differ in case.
#[test]
fn a_ps_38_a_message_replaces_the_one_of_its_topic() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let old = [world.accept_about("upd", member.push, "1"), world.accept_about("upd", member.push, "2")];
    world.records();
    let new = world.accept_about("upd", member.push, "3");
    assert!(matches!(&world.store()[..], [Record::Replacement { message, .. }] if message.token == new));
    world.accept_about("UPD", member.push, "other case");
    for old in old {
        assert_eq!(world.request(Request::Read { message: old }), Reply::Gone);
        assert_eq!(world.remove(old), Reply::Gone);
    }
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["3", "other case"]);
    assert_eq!(world.remove(new), Reply::Removed);
    assert_eq!(world.retention.subscriptions.values().next().map(|it| it.topics.len()), Some(1), "none is left behind");
}

/// A-PS-43, A-PS-44: topics are one subscription's own, and messages without one have nothing to do with them.
#[test]
fn a_ps_43_topics_are_one_subscription_s_own() {
    let mut world = World::new();
    let one = world.subscribe(None);
    let two = world.subscribe(Some(one.set));
    world.accept(one.push, 600, "a");
    world.accept_about("t1", one.push, "b");
    world.accept(one.push, 600, "c");
    world.accept_about("t2", one.push, "d");
    world.accept_about("t1", two.push, "e");
    world.monitor(A, one.set, None);
    let mut bodies = world.delivered(A);
    bodies.sort();
    assert_eq!(bodies, ["a", "b", "c", "d", "e"]);
}

/// A-PS-42: lifetime and urgency are the new one's.
#[test]
fn a_ps_42_lifetime_and_urgency_are_the_new_one_s() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.post(about("t", Posted { urgency: Urgency::High, ..posted(member.push, 600, "old") }));
    world.post(about("t", Posted { urgency: Urgency::Low, ..posted(member.push, 5, "new") }));
    world.monitor_from(A, member.set, None, Urgency::Normal);
    assert_eq!(world.pushes(A), []);
    world.pass(5_000);
    world.monitor(A, member.set, Some(0));
    assert_eq!(world.retention.message_count, 0);
}

/// A-GAP-17: a promise whose message was replaced before it was written is no longer live; one that was written stays.
#[test]
fn a_gap_17_a_replaced_promise_is_dropped_while_it_can_be() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    world.accept_about("t", member.push, "1");
    let first = world.pushes(A).remove(0);
    assert!(world.retention.is_live(first.delivery, world.now));
    world.accept_about("t", member.push, "2");
    assert!(!world.retention.is_live(first.delivery, world.now));
    world.input(Input::Dropped(first.delivery));
    assert_eq!(world.delivered(A), ["2"]);
    world.accept_about("t", member.push, "3");
    assert_eq!(world.delivered(A), ["3"], "after the one that is there already");
    assert_eq!(world.remove(first.message), Reply::Gone);
}

/// A replacement that could not be stored has replaced nothing, one after the other.
#[test]
fn what_could_not_be_stored_has_replaced_nothing() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let first = world.accept_about("t", member.push, "first");
    world.store();
    let (second, third) = (world.accept_about("t", member.push, "2"), world.accept_about("t", member.push, "3"));
    world.records();
    world.input(Input::NotStored(second));
    world.input(Input::NotStored(third));
    assert_eq!(world.retention.kind(first), Some(Kind::Message));
    let fourth = world.accept_about("t", member.push, "4");
    world.store();
    world.input(Input::NotStored(Token::random(&mut SeededRandom::new(3))));
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["4"]);
    world.remove(fourth);
    assert_eq!((world.retention.message_count, world.retention.message_bytes), (0, 0));
    assert!(world.retention.unstored_replacements.is_empty());
}

/// A replacement needs no room beyond what it frees.
#[test]
fn a_replacement_fits_where_the_old_one_was() {
    let mut world = World::new();
    world.retention.policy.message_count_max = 2;
    let member = world.subscribe(None);
    world.accept_about("t", member.push, "1");
    world.accept(member.push, 600, "2");
    assert_eq!(world.send(member.push, 600, "no room"), Reply::Full);
    world.accept_about("t", member.push, "3");
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["2", "3"]);
}

/// Several replacements that could not be stored have replaced nothing, whichever is told first.
#[test]
fn a_chain_that_could_not_be_stored_has_replaced_nothing() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new();
        let member = world.subscribe(None);
        let first = world.accept_about("t", member.push, "first");
        world.store();
        let later = ["2", "3", "4"].map(|body| world.accept_about("t", member.push, body));
        world.records();
        order.into_iter().for_each(|index: usize| world.input(Input::NotStored(later[index])));
        assert_eq!(world.retention.kind(first), Some(Kind::Message), "{order:?}");
        world.monitor(A, member.set, None);
        assert_eq!(world.delivered(A), ["first"], "{order:?}");
        assert!(world.retention.unstored_replacements.is_empty(), "{order:?}");
    }
}

/// A replacement that is over before it turns out that it could not be stored leaves nothing behind: neither here, nor on
/// the disk what it replaced.
#[test]
fn a_replacement_that_ends_takes_along_what_it_replaced() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let first = world.accept_about("t", member.push, "first");
    let [Record::Set { .. }, Record::Subscription { .. }, Record::Message(stored)] = &world.store()[..] else {
        panic!("three records")
    };
    assert_eq!(stored.token, first);
    let ended = Record::MessageEnded { subscription: stored.subscription, sequence: stored.sequence };
    let second = world.accept_about("t", member.push, "second");
    assert_eq!(world.remove(second), Reply::Removed);
    assert!(world.records().contains(&ended), "it may be there without the replacement");
    world.input(Input::NotStored(second));
    assert_eq!(world.retention.message_count, 0);
    assert!(world.retention.unstored_replacements.is_empty());
    // One that is never stored itself does the same.
    let first = world.accept_about("t", member.push, "first");
    world.store();
    let second = world.accept_about("t", member.push, "second");
    world.post(about("t", posted(member.push, 0, "nobody is there")));
    let ends = world.records().into_iter().filter(|record| matches!(record, Record::MessageEnded { .. })).count();
    assert_eq!(ends, 2, "{first:?} and {second:?}");
    assert!(world.retention.unstored_replacements.is_empty());
}
