//! Rates of what comes in and goes out.

use super::*;

/// A-PS-94, A-PS-95: a push resource takes so many messages a minute; the sender learns when it may go on, and others do
/// not notice.
#[test]
fn a_ps_94_a_push_resource_takes_so_many_messages_a_minute() {
    let mut world = World::new();
    world.retention.policy.sends_per_minute = Some(10);
    let (member, other) = (world.subscribe(None), world.subscribe(None));
    for _ in 0..10 {
        world.accept(member.push, 600, "m");
    }
    world.records();
    assert_eq!(world.send(member.push, 600, "one more"), Reply::TooMany { wait_s: 6 });
    assert_eq!((world.records(), world.retention.message_count), (vec![], 10));
    world.accept(other.push, 600, "m");
    world.pass(6_000);
    world.accept(member.push, 600, "m");
}

/// A-PS-96: whoever goes on and on loses the subscription; its monitor is answered with 404.
#[test]
fn a_ps_96_a_subscription_that_is_flooded_may_end() {
    let mut world = World::new();
    (world.retention.policy.sends_per_minute, world.retention.policy.refused_count_max) = (Some(1), Some(3));
    let member = world.subscribe(None);
    let monitor = world.monitor(A, member.subscription, None);
    for _ in 0..3 {
        world.send(member.push, 600, "m");
    }
    world.pass(60_000);
    world.accept(member.push, 600, "in time again");
    for _ in 0..3 {
        assert!(matches!(world.send(member.push, 600, "m"), Reply::TooMany { .. }));
    }
    assert_eq!(world.send(member.push, 600, "the last straw"), Reply::Gone);
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Gone)]);
    assert_eq!(world.send(member.push, 600, "m"), Reply::Gone);
}

/// A-PS-93: so many messages a second for one user agent, over all its subscriptions, and none is lost.
#[test]
fn a_ps_93_a_user_agent_gets_so_many_messages_a_second() {
    let mut world = World::new();
    world.retention.policy.pushes_per_second = Some(5);
    let first = world.subscribe(None);
    let mut pushes = vec![first.push];
    pushes.extend((1..10).map(|_| world.subscribe(Some(first.set)).push));
    for count in 0..50 {
        world.accept(pushes[count % 10], 600, "m");
    }
    world.monitor(A, first.set, None);
    let mut times = Vec::new();
    for _ in 0..200 {
        for push in world.pushes(A) {
            times.push(world.now.instant);
            world.input(Input::Delivered(push.delivery));
            world.remove(push.message);
        }
        world.pass(100);
    }
    assert_eq!(times.len(), 50);
    for from in &times {
        let second = *from..*from + Duration::from_secs(1);
        assert!(times.iter().filter(|at| second.contains(at)).count() <= 5);
    }
}

/// A-PS-104: messages of one set leave together; what is urgent, has no time, or would expire does not wait.
#[test]
fn a_ps_104_messages_leave_together() {
    let mut world = World::new();
    world.retention.policy.batch = Duration::from_secs(10);
    let one = world.subscribe(None);
    let two = world.subscribe(Some(one.set));
    world.accept(one.push, 600, "stored before");
    world.monitor(A, one.set, None);
    world.take_all(A);
    world.accept(one.push, 600, "1");
    world.pass(4_000);
    world.accept(two.push, 600, "2");
    world.accept(two.push, 600, "acknowledged meanwhile");
    world.accept(one.push, 5, "would expire");
    world.send_urgently(two.push, 600, Urgency::High, "urgent");
    world.accept(one.push, 0, "no time");
    let mut bodies = world.delivered(A);
    bodies.sort();
    assert_eq!(bodies, ["no time", "urgent", "would expire"]);
    world.pass(5_999);
    assert_eq!(world.outputs(A), []);
    world.pass(1);
    assert_eq!(world.delivered(A), ["1", "2", "acknowledged meanwhile"]);
    world.accept(one.push, 600, "3");
    world.monitor(B, one.set, None);
    world.input(Input::ConnectionClosed(A));
    assert_eq!(world.delivered(B).len(), 5, "who asks has its radio on");
}

/// Thousands of messages that leave together, and that nobody wants, hold up nobody else.
#[test]
fn messages_that_leave_together_are_looked_at_once() {
    const COUNT: usize = SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX;
    let mut world = World::new();
    world.retention.policy.batch = Duration::from_secs(10);
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let start = tokio::time::Instant::now();
    for _ in 0..COUNT {
        world.accept(member.push, 600, "m");
    }
    world.monitor_from(B, member.set, None, Urgency::High);
    world.pass(600_000);
    // Looking at all of them for each of them takes seconds.
    assert!(start.elapsed().as_millis() < 1_000, "{:?}", start.elapsed());
    assert_eq!(world.retention.message_count, 0);
}
