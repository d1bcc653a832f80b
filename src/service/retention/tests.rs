mod life;
mod model;
mod pace;
mod receipts;
mod topics;

use bytes::Bytes;

use super::*;
use crate::limits::{
    SERVICE_DRAIN_MS_MAX, SERVICE_DRAINS_IN_VAIN, SERVICE_FRESH_S, SERVICE_IN_FLIGHT_PER_SUBSCRIPTION,
    SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX, SERVICE_PAUSE_MS_MAX, SERVICE_PAUSE_MS_MIN, SERVICE_RECEIPT_COUNT_MAX,
    SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX, SERVICE_RECEIPTS_PER_SUBSCRIPTION_MAX, SERVICE_RECEIPTS_UNCONFIRMED_MAX,
    SERVICE_RETRY_MS_MAX, SERVICE_RETRY_MS_MIN, SERVICE_SET_MEMBER_COUNT_MAX, SERVICE_UNUSED_S, TTL_S_MAX,
};
use crate::random::SeededRandom;
use crate::webpush::headers::{Ttl, Urgency};

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

/// A machine with a clock and shorthands.
struct World {
    retention: Retention,
    now: Moment,
    random: SeededRandom,
    next_stream: u32,
}

#[derive(Clone, Copy)]
struct Member {
    subscription: Token,
    push: Token,
    set: Token,
}

impl World {
    fn new() -> Self {
        let now = Moment {
            instant: Instant::from_millis(5_000),
            wall: UnixTime(1_800_000_000),
            is_synchronised: true,
            boot: Some(1),
            uptime_s: 5,
        };
        let retention = Retention::new(Policy::default());
        Self { retention, now, random: SeededRandom::new(7), next_stream: 1 }
    }

    fn request(&mut self, request: Request) -> Reply {
        self.retention.handle_request(request, self.now, &mut self.random)
    }

    fn input(&mut self, input: Input) {
        self.retention.handle_input(input, self.now, &mut self.random);
    }

    fn subscribe(&mut self, set: Option<Token>) -> Member {
        match self.request(Request::Subscribe { set, restricted: None }) {
            Reply::Subscribed { subscription, push, set } => Member { subscription, push, set },
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, push: Token, ttl: u64, body: &str) -> Reply {
        self.send_urgently(push, ttl, Urgency::Normal, body)
    }

    fn send_urgently(&mut self, push: Token, ttl: u64, urgency: Urgency, body: &str) -> Reply {
        self.post(Posted { urgency, ..posted(push, ttl, body) })
    }

    fn post(&mut self, posted: Posted) -> Reply {
        self.request(Request::Send(posted))
    }

    fn accept(&mut self, push: Token, ttl: u64, body: &str) -> Token {
        match self.send(push, ttl, body) {
            Reply::Accepted { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, resource: Token) -> Reply {
        self.request(Request::Remove { resource })
    }

    fn monitor(&mut self, connection: ConnectionId, resource: Token, wait_s: Option<u64>) -> MonitorId {
        self.monitor_from(connection, resource, wait_s, Urgency::VeryLow)
    }

    fn monitor_from(
        &mut self,
        connection: ConnectionId,
        resource: Token,
        wait_s: Option<u64>,
        urgency: Urgency,
    ) -> MonitorId {
        let monitor = MonitorId { connection, stream: self.next_stream };
        self.next_stream += 2;
        assert_eq!(self.request(Request::Monitor { resource, monitor, wait_s, urgency }), Reply::Monitoring);
        monitor
    }

    fn outputs(&mut self, connection: ConnectionId) -> Vec<Output> {
        std::iter::from_fn(|| self.retention.poll_output(connection, Room::Any, self.now)).collect()
    }

    /// The pushes a connection has to make; there must be nothing else.
    fn pushes(&mut self, connection: ConnectionId) -> Vec<Push> {
        let only_pushes = |output| match output {
            Output::Push(push) => *push,
            other => panic!("{other:?}"),
        };
        self.outputs(connection).into_iter().map(only_pushes).collect()
    }

    /// The bodies of the pushes a connection has to make, each reported as written.
    fn delivered(&mut self, connection: ConnectionId) -> Vec<String> {
        let pushes = self.pushes(connection);
        pushes.iter().for_each(|push| self.input(Input::Delivered(push.delivery)));
        bodies(&pushes)
    }

    /// Lets time pass in one step, with the timers handled at its end.
    fn pass(&mut self, ms: u64) {
        self.pass_without_timers(ms);
        while self.retention.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.retention.handle_timeout(self.now);
        }
    }

    fn pass_without_timers(&mut self, ms: u64) {
        self.now.instant = self.now.instant + Duration::from_millis(ms);
        self.now.wall = UnixTime(1_800_000_000 + (self.now.instant.as_millis() - 5_000) / 1_000);
        self.now.uptime_s = self.now.instant.as_millis() / 1_000;
    }

    fn records(&mut self) -> Vec<Record> {
        std::iter::from_fn(|| self.retention.poll_record()).collect()
    }

    /// Stores what there is to store.
    fn store(&mut self) -> Vec<Record> {
        let first = self.retention.next_record();
        let records = self.records();
        self.input(Input::Stored(first..self.retention.next_record()));
        records
    }

    /// Takes the pushes of a connection as written, and acknowledges them.
    fn take_all(&mut self, connection: ConnectionId) {
        for push in self.pushes(connection) {
            self.input(Input::Delivered(push.delivery));
            self.remove(push.message);
        }
    }
}

/// A message that says nothing but how long it lives.
fn posted(push: Token, ttl: u64, body: &str) -> Posted {
    let content = Content { body: Bytes::copy_from_slice(body.as_bytes()), ..Content::default() };
    let (ttl, urgency) = (Ttl::from_secs(ttl), Urgency::Normal);
    Posted { push, ttl, urgency, topic: None, receipts: ReceiptWish::None, content }
}

fn bodies(pushes: &[Push]) -> Vec<String> {
    pushes.iter().map(|push| String::from_utf8_lossy(&push.content.body).into_owned()).collect()
}

/// A-PS-07: every subscription has two tokens of its own.
#[test]
fn a_ps_07_a_thousand_subscriptions_have_two_thousand_tokens() {
    let mut world = World::new();
    let members: Vec<Member> = (0..1_000).map(|_| world.subscribe(None)).collect();
    let tokens: BTreeSet<Token> = members.iter().flat_map(|it| [it.subscription, it.push, it.set]).collect();
    assert_eq!(tokens.len(), 3_000);
}

/// A-PS-10, A-PS-11, A-PS-100: a set is returned again while it has room; what is no set is refused and leaves nothing.
#[test]
fn a_ps_10_a_presented_set_is_returned_again() {
    let mut world = World::new();
    let first = world.subscribe(None);
    for _ in 1..SERVICE_SET_MEMBER_COUNT_MAX {
        assert_eq!(world.subscribe(Some(first.set)).set, first.set);
    }
    assert_ne!(world.subscribe(Some(first.set)).set, first.set);

    let message = world.accept(first.push, 60, "m");
    world.records();
    let never_issued = Token::random(&mut SeededRandom::new(99));
    for other in [first.subscription, first.push, message, never_issued] {
        assert_eq!(world.request(Request::Subscribe { set: Some(other), restricted: None }), Reply::InvalidSet);
    }
    assert_eq!(world.records(), []);
    assert_eq!(world.remove(first.set), Reply::Removed);
    assert_eq!(world.request(Request::Subscribe { set: Some(first.set), restricted: None }), Reply::InvalidSet);
}

/// D-8292-10, D-8292-13: a restriction is its push resource's, for as long as that lives, and outlives power.
#[test]
fn d_8292_13_a_restriction_stays_with_its_subscription() {
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    let key: ApplicationServerKey = KEY.parse().expect("a key");
    let mut world = World::new();
    let open = world.subscribe(None);
    let asked = Request::Subscribe { set: Some(open.set), restricted: Some(key.clone()) };
    let Reply::Subscribed { subscription, push, .. } = world.request(asked) else { panic!("made") };
    assert_eq!(world.retention.restriction(push), Some(&key));
    for other in [open.push, subscription, open.set] {
        assert_eq!(world.retention.restriction(other), None);
    }
    let records = world.records();
    world.retention = Retention::new(Policy::default());
    records.into_iter().for_each(|record| world.retention.restore(record, world.now));
    assert_eq!((world.retention.restriction(push), world.retention.restriction(open.push)), (Some(&key), None));
    assert_eq!(world.remove(subscription), Reply::Removed);
    assert_eq!(world.retention.restriction(push), None);
}

#[test]
fn a_full_service_refuses_and_keeps_its_state() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for _ in 0..SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX {
        world.accept(member.push, 60, "m");
    }
    world.records();
    assert_eq!(world.send(member.push, 60, "one more"), Reply::Full);
    assert_eq!(world.records(), []);
    world.pass(61_000);
    world.accept(member.push, 60, "room again");

    for _ in 1..SERVICE_SUBSCRIPTION_COUNT_MAX {
        world.subscribe(None);
    }
    world.records();
    assert_eq!(world.request(Request::Subscribe { set: None, restricted: None }), Reply::Full);
    assert_eq!(world.records(), []);
}

#[test]
fn messages_are_bounded_in_number_and_in_octets() {
    for (octets, total) in [(1, SERVICE_MESSAGE_COUNT_MAX), (4_096, SERVICE_MESSAGE_BYTES_MAX / 4_096)] {
        let mut world = World::new();
        let body = "x".repeat(octets);
        let mut count = 0;
        'filled: loop {
            let member = world.subscribe(None);
            for _ in 0..SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX {
                if world.send(member.push, 60, &body) == Reply::Full {
                    break 'filled;
                }
                count += 1;
            }
            world.records();
        }
        assert_eq!(count, total);
    }
}

/// A-PS-103: a set that everyone left may expire; it does so when its place is needed.
#[test]
fn a_ps_103_empty_sets_give_way_oldest_first() {
    let mut world = World::new();
    let left: Vec<Member> = (0..SERVICE_SUBSCRIPTION_COUNT_MAX).map(|_| world.subscribe(None)).collect();
    left[..2].iter().for_each(|member| assert_eq!(world.remove(member.subscription), Reply::Removed));
    let monitor = world.monitor(A, left[0].set, None);
    world.records();
    world.subscribe(None);
    assert!(matches!(world.records()[..], [Record::SetEnded(_), Record::Set { .. }, Record::Subscription { .. }]));
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Gone)]);
    assert_eq!(world.subscribe(Some(left[1].set)).set, left[1].set);
    assert_eq!(world.retention.sets.len(), SERVICE_SUBSCRIPTION_COUNT_MAX);
}

/// A-PS-24, A-PS-26, A-PS-27, A-GAP-20: the time a message has is never above what was asked or what is allowed.
#[test]
fn a_ps_26_the_service_may_keep_messages_for_less_time() {
    let mut world = World::new();
    world.retention.policy.ttl_max = Ttl::from_secs(3_600);
    let member = world.subscribe(None);
    for (asked, kept) in [(0, 0), (15, 15), (3_600, 3_600), (86_400, 3_600), (u64::MAX, 3_600)] {
        let Reply::Accepted { ttl, .. } = world.send(member.push, asked, "m") else { panic!("accepted") };
        assert_eq!(ttl.as_secs(), kept);
    }
    let message = world.accept(member.push, 86_400, "m");
    world.pass(3_599_000);
    assert!(matches!(world.request(Request::Read { message }), Reply::Content { max_age_s: 1, .. }));
    world.pass(1_000);
    assert_eq!(world.request(Request::Read { message }), Reply::Gone);
}

/// A-PS-23, A-PS-24: the largest lifetimes do not wrap.
#[test]
fn a_ps_23_the_rest_of_a_long_life_is_exact() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for asked in [2_147_483_647, 2_147_483_648, u64::MAX] {
        let message = world.accept(member.push, asked, "m");
        world.pass(10_000);
        let Reply::Content { max_age_s, .. } = world.request(Request::Read { message }) else { panic!("it lives") };
        assert_eq!(max_age_s, asked.min(2_147_483_648) - 10);
    }
}

/// A-PS-28, A-PS-97: no delivery after the lifetime, also when the timers are late and the wall clock was set back.
#[test]
fn a_ps_28_expired_messages_are_not_pushed_even_without_timers() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.accept(member.push, 10, "old");
    world.accept(member.push, 60, "young");
    world.pass_without_timers(10_500);
    world.now.wall = UnixTime(1_700_000_000);
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["young"]);
    world.records();
    world.pass(50_000);
    assert_eq!(world.pushes(A), []);
}

/// A-PS-28: what was promised is no longer live once it expired or its subscription ended.
#[test]
fn a_ps_28_a_promise_is_dropped_when_its_message_expires() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    world.accept(member.push, 10, "a");
    let push = world.pushes(A).remove(0);
    assert!(world.retention.is_live(push.delivery, world.now));
    world.pass_without_timers(10_000);
    assert!(!world.retention.is_live(push.delivery, world.now));
    world.pass(0);
    assert_eq!(world.retention.poll_wake(), Some(A));
    world.input(Input::Dropped(push.delivery));

    world.accept(member.push, 10, "b");
    let push = world.pushes(A).remove(0);
    world.remove(member.subscription);
    assert!(!world.retention.is_live(push.delivery, world.now));
    world.input(Input::Delivered(push.delivery));
    assert_eq!(world.pushes(A), []);
}

/// A-PS-29, A-PS-30: a lifetime of zero is for who is there now, once.
#[test]
fn a_ps_29_ttl_zero_is_pushed_at_once_and_never_again() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    world.records();
    let message = world.accept(member.push, 0, "now");
    let push = world.pushes(A).remove(0);
    assert_eq!((push.message, push.max_age_s, push.last_modified), (message, 0, None));
    world.input(Input::Delivered(push.delivery));
    assert_eq!(world.remove(message), Reply::Gone);

    for end in [Input::Refused as fn(DeliveryId) -> Input, Input::Dropped] {
        world.monitor(A, member.set, None);
        world.outputs(A);
        world.accept(member.push, 0, "refused");
        let push = world.pushes(A).remove(0);
        world.input(end(push.delivery));
        assert_eq!(world.pushes(A), []);
    }
    world.monitor(A, member.set, None);
    world.outputs(A);
    world.accept(member.push, 0, "cut");
    world.pushes(A);
    world.input(Input::ConnectionClosed(A));
    world.monitor(B, member.set, None);
    assert_eq!(world.pushes(B), []);
    world.accept(member.push, 0, "no turn in time");
    world.pass(SERVICE_TTL_ZERO_MS);
    assert_eq!(world.pushes(B), []);
    assert_eq!(world.records(), []);
}

/// A-PS-31: with nobody there it expires, and leaves nothing.
#[test]
fn a_ps_31_ttl_zero_without_a_monitor_is_accepted_and_gone() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let message = world.accept(member.push, 0, "m");
    assert_eq!(world.request(Request::Read { message }), Reply::Gone);
    world.monitor(A, member.subscription, Some(0));
    assert!(matches!(world.outputs(A)[..], [Output::End(_, Ending::Nothing)]));
}

/// A-PS-47, A-PS-55: a monitor stays open, and covers members that join later.
#[test]
fn a_ps_55_a_set_monitor_covers_present_and_future_members() {
    let mut world = World::new();
    let one = world.subscribe(None);
    world.monitor(A, one.set, None);
    world.pass(3_600_000);
    assert_eq!(world.outputs(A), []);
    let two = world.subscribe(Some(one.set));
    world.accept(two.push, 60, "two");
    world.accept(one.push, 60, "one");
    let pushes = world.pushes(A);
    assert_eq!(bodies(&pushes), ["two", "one"]);
    assert_eq!((pushes[0].push, pushes[1].push), (two.push, one.push));
}

/// A-PS-52, A-PS-53, A-PS-68: `wait=0` ends with 200 after its pushes are written, or 204 without any.
#[test]
fn a_ps_52_wait_zero_pushes_what_there_is_and_ends() {
    let mut world = World::new();
    let member = world.subscribe(None);
    (0..5).for_each(|number| {
        world.accept(member.push, 60, &number.to_string());
    });
    let monitor = world.monitor(A, member.set, Some(0));
    let pushes = world.pushes(A);
    assert_eq!(bodies(&pushes), ["0", "1", "2", "3", "4"]);
    for push in &pushes {
        assert_eq!(world.outputs(A), []);
        world.input(Input::Delivered(push.delivery));
    }
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Pushed)]);

    world.pass(60_000);
    let monitor = world.monitor(A, member.set, Some(0));
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Nothing)]);
}

/// A-PS-52, A-GAP-08: more than may be in flight is pushed as acknowledgements come; without them it ends after a time.
#[test]
fn wait_zero_waits_for_acknowledgements_that_release_more() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let messages: Vec<Token> = (0..12).map(|n| world.accept(member.push, 600, &n.to_string())).collect();
    let monitor = world.monitor(A, member.subscription, Some(0));
    assert_eq!(world.delivered(A).len(), SERVICE_IN_FLIGHT_PER_SUBSCRIPTION);
    assert_eq!(world.outputs(A), []);
    world.remove(messages[0]);
    world.remove(messages[1]);
    assert_eq!(world.delivered(A), ["8", "9"]);
    world.pass(SERVICE_DRAIN_MS_MAX - 1);
    assert_eq!(world.outputs(A), []);
    world.pass(1);
    assert_eq!(world.retention.poll_wake(), Some(A));
    assert_eq!(world.outputs(A)[..1], [Output::End(monitor, Ending::Pushed)]);
}

/// A-PS-52, A-PS-58: what was written but not acknowledged is not yet delivered; `wait=0` pushes it again, in order.
#[test]
fn wait_zero_pushes_again_what_was_not_acknowledged() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let first = world.accept(member.push, 600, "0");
    world.accept(member.push, 600, "1");
    world.accept(member.push, 600, "2");
    assert_eq!(world.delivered(A), ["0", "1", "2"]);
    world.remove(first);
    let monitor = world.monitor(A, member.subscription, Some(0));
    let pushes = world.pushes(A);
    assert_eq!(bodies(&pushes), ["1", "2"]);
    assert!(pushes.iter().all(|push| push.monitor == monitor));
    pushes.iter().for_each(|push| world.input(Input::Delivered(push.delivery)));
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Pushed)]);
    // A new monitor without it waits for the retry time: it only ends the one before.
    world.monitor(A, member.set, None);
    assert!(world.outputs(A).iter().all(|output| matches!(output, Output::End(..))));
}

/// A-PS-58, A-GAP-05: messages that their receiver gets again and again and never acknowledges, for it cannot use them,
/// do not stand before others for ever, even when they are as many as may be in flight.
#[test]
fn messages_pushed_in_vain_let_others_go_first() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    for number in 0..SERVICE_IN_FLIGHT_PER_SUBSCRIPTION {
        world.accept(member.push, 6_000, &format!("useless {number}"));
    }
    world.accept(member.push, 6_000, "good");
    assert_eq!(world.delivered(A).len(), SERVICE_IN_FLIGHT_PER_SUBSCRIPTION);
    let mut asked = Vec::new();
    for _ in 0..=SERVICE_DRAINS_IN_VAIN {
        let before = world.monitor(A, member.subscription, Some(0));
        asked.push(world.delivered(A)[0].clone());
        world.input(Input::MonitorClosed(before));
    }
    assert_eq!(asked.pop().as_deref(), Some("good"));
    assert!(asked.iter().all(|first| first == "useless 0"), "the order is kept at first: {asked:?}");
}

/// A-PS-58: when more messages were pushed in vain than may be in flight, they take turns: the receiver may be able to use
/// one of them by now.
#[test]
fn messages_pushed_in_vain_take_turns() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let bodies: Vec<_> = (0..=SERVICE_IN_FLIGHT_PER_SUBSCRIPTION).map(|number| number.to_string()).collect();
    bodies.iter().for_each(|body| assert!(world.accept(member.push, 600_000, body) != member.push));
    let mut rounds = Vec::new();
    for _ in 0..4 * SERVICE_DRAINS_IN_VAIN {
        let monitor = world.monitor(A, member.subscription, Some(0));
        rounds.push(world.delivered(A));
        world.input(Input::MonitorClosed(monitor));
    }
    let late = &rounds[rounds.len() - 4..];
    assert!(bodies.iter().all(|body| late.iter().any(|round| round.contains(body))), "{late:?}");
}

/// A-GAP-13: `wait=n` holds the request for n seconds.
#[test]
fn a_gap_13_wait_n_ends_after_n_seconds() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for (sends, ending) in [(false, Ending::Nothing), (true, Ending::Pushed)] {
        let monitor = world.monitor(A, member.set, Some(20));
        world.pass(19_999);
        if sends {
            world.accept(member.push, 60, "m");
            world.delivered(A);
        }
        assert_eq!(world.outputs(A), []);
        world.pass(1);
        assert_eq!(world.outputs(A), [Output::End(monitor, ending)]);
    }
}

/// A-PS-56, A-GAP-01: an acknowledged message is never pushed again; a second acknowledgement finds nothing.
#[test]
fn a_ps_56_acknowledged_messages_are_over() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let message = world.accept(member.push, 60, "m");
    world.delivered(A);
    assert_eq!(world.remove(message), Reply::Removed);
    assert_eq!(world.remove(message), Reply::Gone);
    world.input(Input::ConnectionClosed(A));
    world.monitor(B, member.set, None);
    assert_eq!(world.pushes(B), []);
    world.pass(59_000);
    assert_eq!(world.pushes(B), []);
}

/// A-PS-58, A-GAP-08: unacknowledged messages come again after 30 s, doubling to 15 min, each at most a quarter later.
#[test]
fn a_ps_58_unacknowledged_messages_are_pushed_again_until_they_expire() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let message = world.accept(member.push, 14_400, "m");
    assert_eq!(world.delivered(A), ["m"]);
    let mut wait = SERVICE_RETRY_MS_MIN;
    let mut pushed = 1;
    while wait < SERVICE_RETRY_MS_MAX {
        world.pass(wait - 1);
        assert_eq!(world.pushes(A), []);
        world.pass(wait / 4 + 1);
        let pushes = world.pushes(A);
        assert_eq!((pushes.len(), pushes[0].message), (1, message));
        assert_eq!(pushes[0].last_modified, Some(UnixTime(1_800_000_000)));
        world.input(Input::Delivered(pushes[0].delivery));
        wait = (wait * 2).min(SERVICE_RETRY_MS_MAX);
        pushed += 1;
    }
    assert_eq!(pushed, 6);
    world.pass(14_400_000);
    assert_eq!(world.pushes(A), []);
}

/// A-PS-58: a connection that ends gives back at once what it delivered without an acknowledgement.
#[test]
fn a_ps_58_a_lost_connection_gives_its_messages_back() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    world.accept(member.push, 60, "written");
    world.delivered(A);
    world.accept(member.push, 60, "promised");
    let late = world.pushes(A).remove(0);
    world.input(Input::ConnectionClosed(A));
    world.monitor(B, member.set, None);
    assert_eq!(world.delivered(B), ["written", "promised"]);
    // News of the old attempt changes nothing.
    world.input(Input::Refused(late.delivery));
    assert_eq!(world.retention.poll_timeout().map(|due| due < world.now.instant + Duration::from_secs(61)), Some(true));
    world.accept(member.push, 60, "more");
    assert_eq!(world.delivered(B), ["more"]);
}

/// A-GAP-08: at most eight in flight; each acknowledgement releases the next.
#[test]
fn a_gap_08_eight_are_in_flight_and_an_acknowledgement_releases_the_next() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let messages: Vec<Token> = (0..200).map(|n| world.accept(member.push, 6_000, &n.to_string())).collect();
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A).len(), 8);
    let mut promises = 8;
    for message in messages {
        assert_eq!(world.pushes(A), []);
        world.remove(message);
        promises += world.delivered(A).len();
        world.pass(1_000);
    }
    assert_eq!(promises, 200);
}

/// A-GAP-08, D-9113-08: a refusal pauses the subscription for an hour, doubling to a day; then one message probes.
#[test]
fn a_gap_08_a_refused_subscription_pauses() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let other = world.subscribe(Some(member.set));
    world.monitor(A, member.set, None);
    (0..8).for_each(|_| {
        world.accept(member.push, TTL_S_MAX, "m");
    });
    for push in world.pushes(A) {
        world.input(Input::Refused(push.delivery));
    }
    world.accept(member.push, TTL_S_MAX, "new");
    world.accept(other.push, 60, "not held up");
    assert_eq!(world.delivered(A), ["not held up"]);

    let mut pause = SERVICE_PAUSE_MS_MIN;
    for _ in 0..7 {
        world.pass(pause - 1);
        assert_eq!(world.pushes(A), []);
        world.pass(pause / 4 + 1);
        let pushes = world.pushes(A);
        assert_eq!(pushes.len(), 1, "one message probes");
        world.input(Input::Delivered(pushes[0].delivery));
        world.input(Input::Refused(pushes[0].delivery));
        pause = (pause * 2).min(SERVICE_PAUSE_MS_MAX);
    }
    assert_eq!(pause, SERVICE_PAUSE_MS_MAX);
}

/// A-GAP-08: at most 12 promises in eight hours to a device that sleeps and refuses.
#[test]
fn a_gap_08_a_sleeping_device_costs_few_promises() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    (0..20).for_each(|_| {
        world.accept(member.push, TTL_S_MAX, "m");
    });
    let mut promises = 0;
    for _ in 0..8 * 60 {
        for push in world.pushes(A) {
            promises += 1;
            world.input(Input::Refused(push.delivery));
        }
        world.pass(60_000);
    }
    assert!((8..=12).contains(&promises), "{promises}");
}

/// A-GAP-08: an acknowledgement, or a new request on the subscription or its set, ends a pause.
#[test]
fn a_gap_08_an_acknowledgement_or_a_new_monitor_ends_a_pause() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let refuse_all = |world: &mut World, connection| {
        for push in world.pushes(connection) {
            world.input(Input::Refused(push.delivery));
        }
    };
    let message = world.accept(member.push, 600, "a");
    world.accept(member.push, 600, "b");
    world.monitor(A, member.set, None);
    refuse_all(&mut world, A);
    assert_eq!(world.pushes(A), []);
    world.remove(message);
    refuse_all(&mut world, A);
    assert_eq!(world.pushes(A), []);
    let narrow = world.monitor(B, member.subscription, Some(0));
    let push = world.pushes(B).remove(0);
    world.input(Input::Refused(push.delivery));
    assert_eq!(world.outputs(B), [Output::End(narrow, Ending::Pushed)], "after the first refusal it ends");
    assert_eq!(world.pushes(A), []);
    world.monitor(B, member.set, None);
    assert_eq!(world.pushes(B).len(), 1);
}

/// A-GAP-06: the newest monitor serves; the older one ends with 200 after its own pushes.
#[test]
fn a_gap_06_the_newest_monitor_serves() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let older = world.monitor(A, member.set, None);
    world.accept(member.push, 600, "delivered on the older one");
    world.delivered(A);
    world.accept(member.push, 600, "under way on the older one");
    let under_way = world.pushes(A).remove(0);
    world.monitor(B, member.set, None);
    world.accept(member.push, 600, "new");
    assert_eq!(world.delivered(B), ["new"]);
    assert_eq!(world.outputs(A), [], "its push is not written yet");
    world.input(Input::Delivered(under_way.delivery));
    assert_eq!(world.outputs(A), [Output::End(older, Ending::Replaced)]);
    assert_eq!(world.pushes(B), []);
    world.input(Input::ConnectionClosed(A));
    assert_eq!(world.delivered(B), ["delivered on the older one", "under way on the older one"]);
}

/// A-PS-36: what matters less than a monitor wants is kept, whatever its order, and comes to one that wants it.
#[test]
fn what_is_not_urgent_enough_waits_for_a_monitor_that_wants_it() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let connection = ConnectionId(1);
    world.monitor_from(connection, member.set, None, Urgency::Normal);
    for (urgency, body) in [(Urgency::VeryLow, "a"), (Urgency::High, "b"), (Urgency::Low, "c"), (Urgency::Normal, "d")]
    {
        assert!(matches!(world.send_urgently(member.push, 600, urgency, body), Reply::Accepted { .. }));
    }
    assert_eq!(world.delivered(connection), ["b", "d"]);
    // One that cannot wait is over when nobody wants it.
    world.send_urgently(member.push, 0, Urgency::Low, "never");
    world.monitor_from(connection, member.set, Some(0), Urgency::High);
    let outputs = world.outputs(connection);
    let pushed: Vec<&Output> = outputs.iter().filter(|output| matches!(output, Output::Push(_))).collect();
    assert!(matches!(pushed[..], [Output::Push(push)] if push.content.body == "b"), "{outputs:?}");
    world.input(Input::ConnectionClosed(connection));
    world.monitor_from(ConnectionId(3), member.set, None, Urgency::Low);
    assert_eq!(world.delivered(ConnectionId(3)), ["b", "c", "d"]);
    world.monitor_from(ConnectionId(3), member.set, None, Urgency::VeryLow);
    let outputs = world.outputs(ConnectionId(3));
    let pushed = outputs.iter().filter(|output| matches!(output, Output::Push(_))).count();
    assert_eq!(pushed, 1, "{outputs:?}");
}

/// A-GAP-07: a monitor on the subscription itself takes its messages from the set's, and gives way again.
#[test]
fn a_gap_07_the_narrower_monitor_comes_first() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let other = world.subscribe(Some(member.set));
    world.monitor(A, member.set, None);
    world.accept(member.push, 600, "in line on the set");
    let narrow = world.monitor(B, member.subscription, None);
    world.accept(other.push, 600, "other");
    assert_eq!(world.delivered(A), ["other"]);
    assert_eq!(world.delivered(B), ["in line on the set"]);
    world.input(Input::MonitorClosed(narrow));
    world.accept(member.push, 600, "on the set again");
    assert_eq!(world.delivered(A), ["on the set again"]);
}

#[test]
fn lines_do_not_grow_when_monitors_come_and_go() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let set = world.monitor(A, member.set, None);
    world.accept(member.push, 600, "m");
    for _ in 0..100 {
        let narrow = world.monitor(B, member.subscription, None);
        world.input(Input::MonitorClosed(narrow));
        let short_lived = world.subscribe(Some(member.set));
        world.accept(short_lived.push, 600, "m");
        world.remove(short_lived.subscription);
    }
    assert_eq!(world.retention.monitors[&set].ready.len(), 1);
}

/// A-PS-66, A-GAP-18: stored messages come oldest first when monitoring resumes.
#[test]
fn a_ps_66_stored_messages_come_oldest_first() {
    let mut world = World::new();
    let member = world.subscribe(None);
    for body in ["1", "2", "3"] {
        world.accept(member.push, 600, body);
        world.pass(1_000);
    }
    world.monitor(A, member.set, None);
    let pushes = world.pushes(A);
    assert_eq!(bodies(&pushes), ["1", "2", "3"]);
    // A-PS-67, A-GAP-21: when each was accepted, and what is left of its life.
    let times: Vec<_> =
        pushes.iter().map(|it| (it.last_modified.map(|at| at.0 - 1_800_000_000), it.max_age_s)).collect();
    assert_eq!(times, [(Some(0), 597), (Some(1), 598), (Some(2), 599)]);
}

/// A-PS-74, A-PS-77, A-GAP-16: removal of a subscription answers its monitor with 404 and ends everything of it.
#[test]
fn a_ps_77_a_removed_subscription_is_gone_with_all_that_is_its() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let message = world.accept(member.push, 600, "m");
    let monitor = world.monitor(A, member.subscription, None);
    assert_eq!(world.remove(member.subscription), Reply::Removed);
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Gone)]);
    assert_eq!(world.send(member.push, 60, "m"), Reply::Gone);
    for gone in [member.subscription, member.push, message] {
        assert_eq!(world.remove(gone), Reply::Gone);
        assert_eq!(world.retention.kind(gone), None);
    }
    assert_eq!(world.retention.kind(member.set), Some(Kind::Set));
    assert_eq!((world.retention.message_count, world.retention.message_bytes), (0, 0));
    assert_eq!(world.retention.timers.len(), 1, "that of the set");
}

/// A-PS-79, A-PS-80, A-PS-81: the end of a set is the end of its members, and of every monitor on any of them.
#[test]
fn a_ps_81_a_removed_set_takes_its_members_along() {
    let mut world = World::new();
    let one = world.subscribe(None);
    let two = world.subscribe(Some(one.set));
    world.accept(one.push, 600, "m");
    let wide = world.monitor(A, one.set, None);
    let narrow = world.monitor(A, two.subscription, None);
    world.records();
    assert_eq!(world.remove(one.set), Reply::Removed);
    let endings = world.outputs(A);
    assert_eq!(endings, [Output::End(wide, Ending::Gone), Output::End(narrow, Ending::Gone)]);
    for gone in [one.set, one.push, one.subscription, two.push, two.subscription] {
        assert_eq!(world.retention.kind(gone), None);
    }
    let records = world.records();
    assert!(matches!(records[..], [Record::SubscriptionEnded(_), Record::SubscriptionEnded(_), Record::SetEnded(_)]));
}

/// A-PS-82: a removed member leaves its set, and nothing of it is pushed.
#[test]
fn a_ps_82_a_removed_member_leaves_its_set() {
    let mut world = World::new();
    let members: Vec<Member> =
        (0..3).scan(None, |set, _| Some(world.subscribe(*set)).inspect(|it| *set = Some(it.set))).collect();
    members.iter().for_each(|member| {
        world.accept(member.push, 600, "before");
    });
    world.remove(members[1].subscription);
    world.monitor(A, members[0].set, None);
    assert_eq!(world.delivered(A).len(), 2);
    assert_eq!(world.send(members[1].push, 60, "after"), Reply::Gone);
    assert_eq!(world.outputs(A), []);
}

/// A-PS-92: reading shows the content and is no delivery.
#[test]
fn a_ps_92_reading_a_message_is_no_delivery() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let message = world.accept(member.push, 600, "m");
    for _ in 0..2 {
        assert!(
            matches!(world.request(Request::Read { message }), Reply::Content { content, .. } if content.body == "m")
        );
    }
    world.monitor(A, member.set, None);
    assert_eq!(world.delivered(A), ["m"]);
    world.remove(message);
    assert_eq!(world.request(Request::Read { message }), Reply::Gone);
}

/// A-PS-54: stopping ends every monitor with 200 after its pushes, and pushes nothing more.
#[test]
fn a_ps_54_stopping_ends_monitors_with_200() {
    let mut world = World::new();
    let member = world.subscribe(None);
    let monitor = world.monitor(A, member.set, None);
    world.accept(member.push, 600, "a");
    let push = world.pushes(A).remove(0);
    world.input(Input::Stop);
    world.accept(member.push, 600, "b");
    assert_eq!(world.outputs(A), []);
    world.input(Input::Delivered(push.delivery));
    assert_eq!(world.outputs(A), [Output::End(monitor, Ending::Pushed)]);
    let late = world.monitor(A, member.set, None);
    assert_eq!(world.outputs(A), [Output::End(late, Ending::Pushed)]);
}

/// A-GAP-10: what the records say is what a restarted service knows; lifetimes go on through the restart.
#[test]
fn a_gap_10_records_restore_the_service() {
    let mut world = World::new();
    let one = world.subscribe(None);
    let two = world.subscribe(Some(one.set));
    world.accept(one.push, 600, "kept");
    world.accept(one.push, 10, "expires meanwhile");
    let acknowledged = world.accept(two.push, 600, "acknowledged");
    world.remove(acknowledged);
    world.accept(two.push, 0, "not stored");
    let ended = |record: &Record| matches!(record, Record::MessageEnded { .. });
    let (ends, mut records): (Vec<_>, Vec<_>) = world.records().into_iter().partition(ended);
    assert_eq!(ends.len(), 1);
    records.retain(|record| !matches!(record, Record::Message(stored) if stored.token == acknowledged));

    let mut restarted = World::new();
    restarted.pass(100_000);
    for record in records {
        restarted.retention.restore(record, restarted.now);
    }
    assert!(matches!(restarted.records()[..], [Record::MessageEnded { .. }]), "the expired one is ended");
    restarted.monitor(A, one.set, None);
    let pushes = restarted.pushes(A);
    assert_eq!(bodies(&pushes), ["kept"]);
    assert_eq!((pushes[0].max_age_s, pushes[0].last_modified), (500, Some(UnixTime(1_800_000_000))));
    // Numbers go on where they were.
    let three = restarted.subscribe(Some(one.set));
    restarted.accept(three.push, 60, "new");
    assert_eq!(restarted.delivered(A), ["new"]);
    assert_eq!(restarted.retention.subscriptions.len(), 3);
}

/// The wall clock jumps both ways, before and after a restart: nothing expires early. Within a boot it expires in time.
#[test]
fn a_clock_that_is_not_synchronised_expires_nothing_early() {
    for wall in [0, 1_700_000_000, 4_070_908_800] {
        for (boot, pushed) in [(Some(1), &["young"][..]), (Some(2), &["old", "young"]), (None, &["old", "young"])] {
            let mut world = World::new();
            (world.now.is_synchronised, world.now.wall) = (false, UnixTime(4_070_908_800 - wall));
            let member = world.subscribe(None);
            world.accept(member.push, 60, "old");
            world.accept(member.push, 600, "young");
            let records = world.records();
            let mut restarted = World::new();
            restarted.pass(100_000);
            restarted.now = Moment { is_synchronised: false, wall: UnixTime(wall), boot, ..restarted.now };
            for record in records.clone() {
                restarted.retention.restore(record, restarted.now);
            }
            restarted.monitor(A, member.set, None);
            let pushes = restarted.pushes(A);
            assert_eq!(bodies(&pushes), pushed, "wall {wall}, boot {boot:?}");
            let since = UnixTime(wall.saturating_sub(100));
            assert_eq!(pushes[0].last_modified, (boot == Some(1)).then_some(since));

            // A clock that is synchronised now tells nothing of a time before, and one that was nothing of now.
            let mut restarted = World::new();
            restarted.now = Moment { wall: UnixTime(4_070_908_800), boot: Some(2), ..restarted.now };
            for record in records {
                restarted.retention.restore(record, restarted.now);
            }
            restarted.monitor(A, member.set, None);
            assert_eq!(restarted.delivered(A), ["old", "young"]);
        }
    }
    let mut world = World::new();
    let member = world.subscribe(None);
    world.accept(member.push, 60, "of a synchronised clock");
    let records = world.records();
    let mut restarted = World::new();
    restarted.now = Moment { is_synchronised: false, wall: UnixTime(4_070_908_800), ..restarted.now };
    for record in records {
        restarted.retention.restore(record, restarted.now);
    }
    restarted.monitor(A, member.set, None);
    assert_eq!(restarted.delivered(A), ["of a synchronised clock"]);
}

/// A-GAP-10: a message that expired while the service was away may still be on the disk: no other takes its number.
#[test]
fn the_number_of_an_expired_message_is_not_used_again() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.accept(member.push, 10, "expires meanwhile");
    let records = world.records();
    let mut restarted = World::new();
    restarted.pass(100_000);
    for record in records {
        restarted.retention.restore(record, restarted.now);
    }
    let ended = restarted.records();
    restarted.accept(member.push, 600, "new");
    let stored = restarted.records();
    let [Record::MessageEnded { sequence, .. }] = ended[..] else { panic!("one end: {ended:?}") };
    assert!(matches!(&stored[..], [Record::Message(new)] if new.sequence > sequence));
}

#[test]
fn what_could_not_be_stored_is_taken_back() {
    let mut world = World::new();
    let member = world.subscribe(None);
    world.monitor(A, member.set, None);
    let message = world.accept(member.push, 600, "m");
    world.input(Input::NotStored(message));
    assert_eq!(world.pushes(A), []);
    world.input(Input::NotStored(member.subscription));
    assert_eq!(world.send(member.push, 600, "m"), Reply::Gone);
    assert_eq!(world.retention.message_count, 0);
}

#[test]
fn many_timers_are_handled_in_bounded_turns() {
    let mut world = World::new();
    let member = world.subscribe(None);
    (0..2 * SERVICE_TIMERS_PER_TURN).for_each(|_| {
        world.accept(member.push, 10, "m");
    });
    world.pass_without_timers(10_000);
    world.retention.handle_timeout(world.now);
    assert_eq!(world.retention.message_count, SERVICE_TIMERS_PER_TURN);
    world.retention.handle_timeout(world.now);
    assert_eq!(world.retention.message_count, 0);
}
