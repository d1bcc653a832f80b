//! Random operations against a small reference model, and what holds after each.

use proptest::prelude::*;

use super::*;

/// What may happen. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Subscribe {
        in_set_of: Option<usize>,
    },
    Send {
        member: usize,
        ttl: u64,
        topic: Option<u8>,
        receipt: bool,
    },
    Monitor {
        member: usize,
        on_set: bool,
        connection: u64,
        wait_s: Option<u64>,
    },
    /// Let a connection take up to so many outputs.
    Poll {
        connection: u64,
        count: usize,
    },
    Report {
        push: usize,
        fate: Fate,
    },
    Acknowledge {
        message: usize,
    },
    RemoveMember {
        member: usize,
    },
    RemoveSet {
        member: usize,
    },
    Close {
        connection: u64,
    },
    Pass {
        ms: u64,
    },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    Refused,
    Dropped,
}

fn step() -> impl Strategy<Value = Step> {
    let connection = 1_u64..4;
    let wait = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(40))];
    let fate = prop_oneof![4 => Just(Fate::Delivered), 1 => Just(Fate::Refused), 1 => Just(Fate::Dropped)];
    let ttl = prop_oneof![1 => Just(0), 3 => 1_u64..20_000];
    prop_oneof![
        2 => prop::option::of(any::<usize>()).prop_map(|in_set_of| Step::Subscribe { in_set_of }),
        8 => (any::<usize>(), ttl, prop::option::weighted(0.3, 0_u8..3), any::<bool>())
            .prop_map(|(member, ttl, topic, receipt)| Step::Send { member, ttl, topic, receipt }),
        4 => (any::<usize>(), any::<bool>(), connection.clone(), wait)
            .prop_map(|(member, on_set, connection, wait_s)| Step::Monitor { member, on_set, connection, wait_s }),
        8 => (connection.clone(), 0_usize..6).prop_map(|(connection, count)| Step::Poll { connection, count }),
        8 => (any::<usize>(), fate).prop_map(|(push, fate)| Step::Report { push, fate }),
        4 => any::<usize>().prop_map(|message| Step::Acknowledge { message }),
        1 => any::<usize>().prop_map(|member| Step::RemoveMember { member }),
        1 => any::<usize>().prop_map(|member| Step::RemoveSet { member }),
        2 => connection.prop_map(|connection| Step::Close { connection }),
        3 => prop_oneof![0_u64..40_000, 0_u64..4_000_000].prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// What a client of the service knows: who exists, and which messages were accepted and are not over.
struct Reference {
    members: Vec<Member>,
    messages: Vec<Known>,
    disk: Vec<Record>,
    /// Pushes on their way, and the connections that carry them.
    under_way: Vec<Push>,
    /// The receipt subscription of all, once there is one.
    receipts: Option<Token>,
    /// What the sender is owed, in any order.
    owed: Vec<(Token, Outcome)>,
}

struct Known {
    token: Token,
    push: Token,
    accepted: UnixTime,
    expires: Instant,
    ttl: u64,
    sequence: usize,
    topic: Option<u8>,
    receipt: bool,
}

struct Trial {
    world: World,
    reference: Reference,
    accepted_count: usize,
}

impl Trial {
    fn new() -> Self {
        let reference = Reference {
            members: vec![],
            messages: vec![],
            disk: vec![],
            under_way: vec![],
            receipts: None,
            owed: vec![],
        };
        Self { world: World::new(), reference, accepted_count: 0 }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Subscribe { in_set_of } => {
                let set = in_set_of.and_then(|index| self.member(index)).map(|member| member.set);
                let member = self.world.subscribe(set);
                assert!(set.is_none_or(|set| set == member.set));
                self.reference.members.push(member);
            }
            Step::Send { member, ttl, topic, receipt } => self.send(member, ttl, topic, receipt),
            Step::Monitor { member, on_set, connection, wait_s } => {
                if let Some(member) = self.member(member) {
                    let resource = if on_set { member.set } else { member.subscription };
                    self.world.monitor(ConnectionId(connection), resource, wait_s);
                }
            }
            Step::Poll { connection, count } => self.poll(ConnectionId(connection), count),
            Step::Report { push, fate } => self.report(push, fate),
            Step::Acknowledge { message } => {
                if !self.reference.messages.is_empty() {
                    let index = message % self.reference.messages.len();
                    let known = self.reference.messages.remove(index);
                    assert_eq!(self.world.remove(known.token), Reply::Removed);
                    self.owe(&known, Outcome::Acknowledged);
                }
            }
            Step::RemoveMember { member } => {
                if let Some(member) = self.member(member) {
                    assert_eq!(self.world.remove(member.subscription), Reply::Removed);
                    self.forget(|it| it.subscription == member.subscription);
                }
            }
            Step::RemoveSet { member } => {
                if let Some(member) = self.member(member) {
                    assert_eq!(self.world.remove(member.set), Reply::Removed);
                    self.forget(|it| it.set == member.set);
                }
            }
            Step::Close { connection } => self.close(ConnectionId(connection)),
            Step::Pass { ms } => {
                self.world.pass(ms);
                let now = self.world.now.instant;
                self.give_up(|known| known.expires <= now);
            }
            Step::Restart => self.restart(),
        }
        self.store();
        self.check();
    }

    fn member(&self, index: usize) -> Option<Member> {
        let count = self.reference.members.len().max(1);
        self.reference.members.get(index % count).copied()
    }

    fn send(&mut self, member: usize, ttl: u64, topic: Option<u8>, receipt: bool) {
        let Some(member) = self.member(member) else { return };
        self.accepted_count += 1;
        // A message that lives for a moment ends in ways that a client cannot foresee.
        let receipt = receipt && ttl > 0;
        let posted = Posted {
            topic: topic.map(|topic| topic.to_string().parse().expect("a topic")),
            receipts: match (receipt, self.reference.receipts) {
                (false, _) => ReceiptWish::None,
                (true, None) => ReceiptWish::New,
                (true, Some(receipts)) => ReceiptWish::In(receipts),
            },
            ..posted(member.push, ttl, &self.accepted_count.to_string())
        };
        let Reply::Accepted { message: token, receipts, .. } = self.world.post(posted) else { panic!("accepted") };
        if receipt {
            assert!(self.reference.receipts.is_none() || self.reference.receipts == receipts);
            self.reference.receipts = receipts;
        }
        if topic.is_some() {
            self.reference.messages.retain(|known| known.push != member.push || known.topic != topic);
        }
        if ttl > 0 {
            let expires = self.world.now.instant + Duration::from_secs(ttl);
            let (accepted, sequence) = (self.world.now.wall, self.accepted_count);
            let known = Known { token, push: member.push, accepted, expires, ttl, sequence, topic, receipt };
            self.reference.messages.push(known);
        }
    }

    fn owe(&mut self, known: &Known, outcome: Outcome) {
        if known.receipt {
            self.reference.owed.push((known.token, outcome));
        }
    }

    /// Ends messages without an acknowledgement.
    fn give_up(&mut self, is_over: impl Fn(&Known) -> bool) {
        let (over, kept) = std::mem::take(&mut self.reference.messages).into_iter().partition(is_over);
        self.reference.messages = kept;
        let over: Vec<Known> = over;
        over.iter().for_each(|known| self.owe(known, Outcome::GivenUp));
    }

    fn poll(&mut self, connection: ConnectionId, count: usize) {
        for _ in 0..count {
            match self.world.retention.poll_output(connection, Room::Any, self.world.now) {
                Some(Output::Push(push)) => {
                    assert_eq!(push.monitor.connection, connection);
                    let known = self.reference.messages.iter().find(|known| known.token == push.message);
                    // A durable message is pushed only while it is known; a volatile one has no rest of life.
                    assert!(known.is_none_or(|known| known.push == push.push));
                    assert!(known.is_some() || push.max_age_s == 0, "pushed after its end");
                    // One attempt at a time.
                    let message = push.message;
                    let twice = |other: &Push| {
                        other.message == message && self.world.retention.is_live(other.delivery, self.world.now)
                    };
                    assert_eq!(self.reference.under_way.iter().filter(|it| twice(it)).count(), 0);
                    self.reference.under_way.push(*push);
                }
                Some(Output::End(..) | Output::Receipt(_)) => {}
                None => return,
            }
        }
    }

    fn report(&mut self, index: usize, fate: Fate) {
        if self.reference.under_way.is_empty() {
            return;
        }
        let index = index % self.reference.under_way.len();
        let delivery = self.reference.under_way.remove(index).delivery;
        self.world.input(match fate {
            Fate::Delivered => Input::Delivered(delivery),
            Fate::Refused => Input::Refused(delivery),
            Fate::Dropped => Input::Dropped(delivery),
        });
    }

    fn close(&mut self, connection: ConnectionId) {
        self.world.input(Input::ConnectionClosed(connection));
        self.reference.under_way.retain(|push| push.monitor.connection != connection);
    }

    fn forget(&mut self, is_gone: impl Fn(&Member) -> bool) {
        let gone: Vec<Token> = self.reference.members.iter().filter(|it| is_gone(it)).map(|it| it.push).collect();
        self.reference.members.retain(|member| !is_gone(member));
        self.give_up(|known| gone.contains(&known.push));
    }

    /// Starts the machine anew from what was stored.
    fn restart(&mut self) {
        self.store();
        self.world.retention = Retention::new(Policy::default());
        let rank = |record: &Record| match record {
            Record::Set { .. } | Record::Receipts { .. } => 0,
            Record::Subscription { .. } | Record::Receipt { .. } => 1,
            _ => 2,
        };
        self.reference.disk.sort_by_key(rank);
        for record in self.reference.disk.clone() {
            self.world.retention.restore(record, self.world.now);
        }
        self.reference.under_way.clear();
        // Lifetimes go on in whole seconds of the wall clock.
        let now = self.world.now;
        for known in &mut self.reference.messages {
            let rest = known.ttl.saturating_sub(now.wall.0 - known.accepted.0);
            known.expires = now.instant + Duration::from_secs(rest);
        }
        self.give_up(|known| known.expires <= now.instant);
    }

    /// Does what the store does.
    fn store(&mut self) {
        let records = self.world.store();
        let disk = &mut self.reference.disk;
        for record in records {
            match record {
                Record::SetEnded(ended) => disk.retain(|it| !matches!(it, Record::Set { id, .. } if *id == ended)),
                Record::SubscriptionEnded(ended) => disk.retain(|it| match it {
                    Record::Subscription { id, .. } => *id != ended,
                    Record::Message(stored) => stored.subscription != ended,
                    _ => true,
                }),
                Record::MessageEnded { sequence, .. } => {
                    disk.retain(|it| !matches!(it, Record::Message(stored) if stored.sequence == sequence));
                }
                Record::Replacement { message, replaced } => {
                    disk.retain(|it| !matches!(it, Record::Message(stored) if stored.sequence == replaced));
                    disk.push(Record::Message(message));
                }
                Record::ReceiptEnded(ended) => {
                    disk.retain(|it| !matches!(it, Record::Receipt { id, .. } if *id == ended))
                }
                Record::Subscription { id, .. } => {
                    disk.retain(|it| !matches!(it, Record::Subscription { id: other, .. } if *other == id));
                    disk.push(record);
                }
                record => disk.push(record),
            }
        }
    }

    fn check(&mut self) {
        let retention = &self.world.retention;
        for known in &self.reference.messages {
            assert_eq!(retention.kind(known.token), Some(Kind::Message), "message {} is lost", known.sequence);
        }
        let durable = |it: &&Message| it.is_durable();
        let all = || retention.subscriptions.values().flat_map(|it| it.messages.values());
        assert_eq!(all().filter(durable).count(), self.reference.messages.len());
        assert_eq!(all().count(), retention.message_count);
        assert_eq!(all().map(|it| it.stored.content.bytes()).sum::<usize>(), retention.message_bytes);
        for subscription in retention.subscriptions.values() {
            let waiting = subscription.messages.values().filter(|it| it.delivery == Delivery::Waiting).count();
            let ready = subscription.messages.values().filter(|it| it.is_ready()).count();
            assert_eq!(ready, subscription.ready.count());
            assert_eq!(subscription.messages.len() - waiting, subscription.in_flight_count);
            assert!(subscription.in_flight_count <= SERVICE_IN_FLIGHT_PER_SUBSCRIPTION);
        }
        let messages = self.reference.disk.iter().filter(|it| matches!(it, Record::Message(_))).count();
        assert_eq!(messages, self.reference.messages.len(), "the disk knows what the service knows");
        let told = retention.receipts.values().flat_map(|it| it.held());
        assert_eq!(sorted(told.collect()), sorted(self.reference.owed.clone()), "receipts are owed");
        let expected = self.reference.messages.iter().filter(|known| known.receipt).count();
        assert_eq!(retention.receipts.values().map(|it| it.expected_count).sum::<usize>(), expected);
        let stored = self.reference.disk.iter().filter(|it| matches!(it, Record::Receipt { .. })).count();
        assert_eq!(stored, self.reference.owed.len(), "the disk knows what is owed");
    }

    /// Whatever happened: one healthy receiver gets every message that is not over, once it is there.
    fn deliver_the_rest(&mut self) {
        (1..4).for_each(|connection| self.close(ConnectionId(connection)));
        let sets: BTreeSet<Token> = self.reference.members.iter().map(|member| member.set).collect();
        for set in sets {
            self.world.monitor(A, set, None);
        }
        loop {
            let pushes: Vec<Push> = self
                .world
                .outputs(A)
                .into_iter()
                .filter_map(|output| if let Output::Push(push) = output { Some(*push) } else { None })
                .collect();
            if pushes.is_empty() {
                break;
            }
            for push in pushes {
                self.world.input(Input::Delivered(push.delivery));
                self.world.remove(push.message);
                let acknowledged = |known: &Known| known.token == push.message;
                if let Some(index) = self.reference.messages.iter().position(acknowledged) {
                    let known = self.reference.messages.remove(index);
                    self.owe(&known, Outcome::Acknowledged);
                }
            }
        }
        assert_eq!(self.reference.messages.len(), 0, "a message was not pushed");
    }

    /// The sender is told all that it is owed, whatever became of earlier connections.
    fn tell_the_rest(&mut self) {
        let Some(receipts) = self.reference.receipts else { return };
        self.world.store();
        self.world.input(Input::ConnectionClosed(A));
        self.world.monitor(A, receipts, None);
        loop {
            let outputs = self.world.outputs(A);
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                let Output::Receipt(receipt) = output else { panic!("{output:?}") };
                let before = self.reference.owed.len();
                self.reference.owed.retain(|owed| *owed != (receipt.message, receipt.outcome));
                assert_eq!(before, self.reference.owed.len() + 1, "told once");
                self.world.input(Input::Received(receipt.id));
            }
        }
        assert_eq!(self.reference.owed, [], "the sender was not told");
    }
}

fn sorted(mut receipts: Vec<(Token, Outcome)>) -> Vec<(Token, Outcome)> {
    receipts.sort_by_key(|(message, _)| *message);
    receipts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A-PS-58, A-GAP-06, A-GAP-08, A-GAP-10: nothing accepted is lost, nothing ended is pushed, and every sender that wants
    /// to is told once what became of its message, unless that was replaced.
    #[test]
    fn no_message_is_lost_and_none_is_pushed_after_its_end(steps in prop::collection::vec(step(), 1..120)) {
        let mut trial = Trial::new();
        for step in steps {
            trial.run(step);
        }
        trial.deliver_the_rest();
        trial.tell_the_rest();
    }
}
