//! Requests to the push service and what happens to its pushes, its disk and its clock.
//!
//! The octets are an operator's choices, then steps: a request by method, path and fields, what became of a push, a commit
//! that succeeds or fails, time that passes, a restart. The service runs as one machine without sockets and files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use fieldgate::limits::{SERVICE_PROMISES_UNENDED_MAX, SERVICE_RECEIPTS_UNCONFIRMED_MAX};
use fieldgate::random::SeededRandom;
use fieldgate::service::gate::{Client, Gate, Rules};
use fieldgate::service::retention::{
    ConnectionId, DeliveryId, Ending, Input as Event, Kind, Moment, MonitorId, Outcome, Output, Policy, Posted,
    ReceiptId, ReceiptWish, Record, Reply, Request, Retention, Room, WhenFull,
};
use fieldgate::service::routes::{self, PushSupport, Route};
use fieldgate::service::token::Token;
use fieldgate::time::{Duration, Instant, UnixTime};
use http::{Request as HttpRequest, Version};

use super::input::Input;

const STEP_COUNT_MAX: usize = 400;
const CONNECTION_COUNT: u8 = 3;
const METHODS: [&str; 5] = ["POST", "GET", "DELETE", "PUT", "post"];
const NAMES: [&str; 8] =
    ["ttl", "urgency", "topic", "prefer", "link", "content-type", "content-encoding", "content-length"];
const VALUES: [&str; 24] = [
    "0",
    "1",
    "60",
    "3600",
    "99999999999999999999",
    "-1",
    "very-low",
    "low",
    "normal",
    "High",
    "low, high",
    "upd",
    "UPD",
    "x",
    "a.b",
    "respond-async",
    "respond-async, wait=0",
    "wait=0",
    "wait=\"0\"",
    "wait=30",
    "wait=4294967296",
    "text/plain",
    "aes128gcm",
    "5000",
];

/// Nothing is pushed that is over, nobody is told what is not so, refusals keep nothing, and every bound holds.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut trial = Trial::new(&mut input);
    for _ in 0..STEP_COUNT_MAX {
        if input.is_empty() {
            break;
        }
        trial.step(&mut input);
    }
    trial.commit(true);
}

/// A message as its sender and its receiver know it.
struct Known {
    push: Token,
    topic: Option<String>,
    expires: Instant,
    is_durable: bool,
    wants_receipt: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Acknowledged,
    ReplacedBy(Token),
}

/// Records on their way to the disk, and what was made in them.
struct Write {
    records: Vec<Record>,
    numbers: Range<u64>,
    made: Vec<Token>,
}

struct Trial {
    retention: Retention,
    policy: Policy,
    gate: Gate,
    clients: Vec<Client>,
    random: SeededRandom,
    now: Moment,
    next_stream: u32,
    tokens: Vec<Token>,
    known: BTreeMap<Token, Known>,
    monitors: BTreeMap<MonitorId, Token>,
    pushes: Vec<(DeliveryId, MonitorId)>,
    receipts: Vec<(ReceiptId, MonitorId)>,
    writes: Vec<Write>,
    disk: Vec<Record>,
}

impl Trial {
    fn new(input: &mut Input) -> Self {
        let small = |octet: u8| (octet > 0).then_some(u32::from(octet));
        let policy = Policy {
            set_member_count_max: 1 + input.below(4),
            message_count_max: 1 + input.below(6),
            when_full: if input.flag() { WhenFull::Evict } else { WhenFull::Refuse },
            attempt_count_max: small(input.byte() % 4),
            sends_per_minute: small(input.byte()),
            refused_count_max: small(input.byte()),
            pushes_per_second: small(input.byte() % 5),
            batch: Duration::from_secs(u64::from(input.byte() % 3) * 10),
            ..Policy::default()
        };
        let rules = Rules { require_set: input.flag(), receipt_subscriptions_per_connection: 3, ..Rules::default() };
        let instant = Instant::from_millis(1_000);
        Self {
            retention: Retention::new(policy.clone()),
            policy,
            gate: Gate::new(rules, None),
            clients: (0..CONNECTION_COUNT).map(|_| Client::default()).collect(),
            random: SeededRandom::new(1),
            now: Moment { instant, wall: UnixTime(1_800_000_001), is_synchronised: true, ..Moment::default() },
            next_stream: 1,
            tokens: Vec::new(),
            known: BTreeMap::new(),
            monitors: BTreeMap::new(),
            pushes: Vec::new(),
            receipts: Vec::new(),
            writes: Vec::new(),
            disk: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 16 {
            0..=6 => self.request(input),
            7..=9 => {
                let connection = connection(input);
                let room = [Room::Any, Room::Any, Room::None, Room::On(u32::from(input.byte()))][input.below(4)];
                for _ in 0..=input.below(SERVICE_PROMISES_UNENDED_MAX) {
                    self.poll(connection, room);
                }
            }
            10 => self.report(input),
            11 => match input.byte() % 4 {
                0 => self.close(connection(input)),
                1 => {
                    if let Some(monitor) = pick(input, &self.monitors.keys().copied().collect::<Vec<_>>()) {
                        self.monitors.remove(&monitor);
                        self.event(Event::MonitorClosed(monitor));
                    }
                }
                _ => {
                    if let Some((id, monitor)) = take(input, &mut self.receipts) {
                        // Those before it came before it.
                        self.receipts.push((id, monitor));
                        let is_there = |it: &(ReceiptId, MonitorId)| it.1.connection == monitor.connection;
                        let (received, others) = self.receipts.drain(..).partition(is_there);
                        self.receipts = others;
                        let received: Vec<(ReceiptId, MonitorId)> = received;
                        received.into_iter().for_each(|(id, _)| self.event(Event::Received(id)));
                    }
                }
            },
            12 => {
                let is_stored = !input.byte().is_multiple_of(4);
                self.commit(is_stored);
            }
            13 | 14 => self.pass([0, 250, 1_000, 10_000, 60_000, 4_000_000, 90_000_000, 0][input.below(8)]),
            _ => match input.byte() % 4 {
                0 => self.restart(),
                1 => {
                    if let Some(token) = pick(input, &self.tokens.clone()) {
                        self.event(Event::Expire(token));
                    }
                }
                _ => self.commit(true),
            },
        }
        self.take_records(Vec::new());
        self.check();
    }

    fn request(&mut self, input: &mut Input) {
        let index = input.below(self.clients.len());
        let method = METHODS[[0, 0, 0, 0, 1, 1, 2, 2, 3, 4][input.below(10)]];
        let path = match input.byte() % 8 {
            0 | 1 => routes::SUBSCRIBE_PATH.to_owned(),
            2 => String::from_utf8_lossy(input.short()).into_owned(),
            _ => pick(input, &self.tokens).map_or("/".to_owned(), |token| token.path()),
        };
        let mut builder = HttpRequest::builder().method(method).version(Version::HTTP_2);
        builder = builder.uri(format!("https://push.example{path}"));
        for _ in 0..input.below(5) {
            let name = NAMES[input.below(NAMES.len())];
            builder = match (name, input.byte() % 8) {
                ("link", relation) => {
                    let target = pick(input, &self.tokens).map_or("/x".to_owned(), |token| token.path());
                    let relation =
                        ["urn:ietf:params:push:set", "urn:ietf:params:push:receipt"][usize::from(relation % 2)];
                    builder.header(name, format!("<{target}>; rel=\"{relation}\""))
                }
                (name, 0) => builder.header(name, input.short()),
                (name, _) => builder.header(name, VALUES[input.below(VALUES.len())]),
            };
        }
        let Ok(request) = builder.body(()) else { return };
        let (head, ()) = request.into_parts();
        let push = [PushSupport::Available, PushSupport::Available, PushSupport::Disabled, PushSupport::None];
        let push = push[input.below(4)];
        let (route, claim) = self.gate.route(&head, push, &self.clients[index], |token| self.retention.kind(token));
        let id = ConnectionId(index as u64 + 1);
        let request = match route {
            Route::Answer(response) => {
                let status = response.status();
                assert!(status.is_client_error() || push == PushSupport::None && status.as_u16() == 505, "{status}");
                return;
            }
            Route::Subscribe { set } => Request::Subscribe { set },
            Route::Send(mut posted) => {
                posted.content.body = Bytes::from(vec![b'x'; input.byte().into()]);
                Request::Send(posted)
            }
            Route::Read { message } => Request::Read { message },
            Route::Remove { resource } => Request::Remove { resource },
            Route::Monitor { resource, wait_s, urgency } => {
                assert_eq!(push, PushSupport::Available);
                let monitor = MonitorId { connection: id, stream: self.next_stream };
                self.next_stream += 2;
                self.monitors.insert(monitor, resource);
                Request::Monitor { resource, monitor, wait_s, urgency }
            }
        };
        let there = |token: &Token| self.retention.kind(*token) == Some(Kind::Message);
        let there: BTreeSet<Token> = self.known.keys().copied().filter(there).collect();
        let reply = self.retention.handle_request(request.clone(), self.now, &mut self.random);
        self.take_reply(request, &reply, &there);
        if routes::answer(reply).is_some_and(|response| response.status().is_success()) {
            claim.keep();
        }
    }

    /// Takes note of a reply; `there` are the messages before it.
    fn take_reply(&mut self, request: Request, reply: &Reply, there: &BTreeSet<Token>) {
        let mut made = Vec::new();
        match (request, reply) {
            (Request::Subscribe { .. }, Reply::Subscribed { subscription, push, set }) => {
                self.tokens.extend([subscription, push, set]);
                made.push(*subscription);
            }
            (Request::Send(posted), Reply::Accepted { message, ttl, receipts }) => {
                assert!(*ttl <= posted.ttl && receipts.is_some() == (posted.receipts != ReceiptWish::None));
                assert!(ttl.as_secs() == 0 || self.retention.kind(*message) == Some(Kind::Message));
                self.accepted(&posted, *message, ttl.as_secs(), there);
                self.tokens.push(*message);
                self.tokens.extend(receipts);
                made.push(*message);
            }
            (Request::Remove { resource }, Reply::Removed) => {
                assert_eq!(self.retention.kind(resource), None);
                if let Some(known) = self.known.get_mut(&resource) {
                    assert!(known.state == State::Live && self.now.instant < known.expires, "{:?}", known.state);
                    known.state = State::Acknowledged;
                }
            }
            (Request::Read { message }, Reply::Content { .. }) => {
                assert!(self.is_live(message), "it is over");
            }
            (Request::Monitor { .. }, Reply::Monitoring) => {}
            (Request::Monitor { monitor, .. }, Reply::Gone) => drop(self.monitors.remove(&monitor)),
            (_, Reply::Gone | Reply::InvalidSet | Reply::InvalidReceipts | Reply::TooMany { .. } | Reply::Full) => {
                let records = self.take_records(Vec::new());
                assert!(records.iter().all(Record::is_owed), "a refusal keeps nothing: {records:?}");
            }
            (request, reply) => panic!("{request:?}: {reply:?}"),
        }
        self.take_records(made);
    }

    fn accepted(&mut self, posted: &Posted, message: Token, ttl: u64, there: &BTreeSet<Token>) {
        let topic = posted.topic.as_ref().map(|topic| topic.as_str().to_owned());
        for (token, known) in &mut self.known {
            if topic.is_some() && known.topic == topic && known.push == posted.push && there.contains(token) {
                known.state = State::ReplacedBy(message);
            }
        }
        let rest = if ttl == 0 { Duration::from_secs(1) } else { Duration::from_secs(ttl) };
        let known = Known {
            push: posted.push,
            topic,
            expires: self.now.instant + rest,
            is_durable: ttl > 0,
            wants_receipt: posted.receipts != ReceiptWish::None,
            state: State::Live,
        };
        self.known.insert(message, known);
    }

    fn is_live(&self, message: Token) -> bool {
        let known = &self.known[&message];
        known.state == State::Live && self.now.instant < known.expires
    }

    fn poll(&mut self, connection: ConnectionId, room: Room) {
        match self.retention.poll_output(connection, room, self.now) {
            None => {}
            Some(Output::Push(push)) => {
                assert!(self.monitors.contains_key(&push.monitor) && push.monitor.connection == connection);
                assert!(self.is_live(push.message), "{:?}", self.known[&push.message].state);
                assert_eq!(self.known[&push.message].push, push.push);
                assert_eq!(self.retention.kind(push.push), Some(Kind::Push));
                assert!(self.retention.is_live(push.delivery, self.now));
                self.has_room(push.monitor, room);
                self.pushes.push((push.delivery, push.monitor));
            }
            Some(Output::Receipt(receipt)) => {
                assert!(self.monitors.contains_key(&receipt.monitor) && receipt.monitor.connection == connection);
                self.has_room(receipt.monitor, room);
                // One whose sender was told that it is not stored has no receipt that matters.
                if let Some(known) = self.known.get(&receipt.message) {
                    assert!(known.wants_receipt && !matches!(known.state, State::ReplacedBy(_)));
                    assert_eq!(known.state == State::Acknowledged, receipt.outcome == Outcome::Acknowledged);
                }
                self.receipts.push((receipt.id, receipt.monitor));
            }
            Some(Output::End(monitor, ending)) => {
                let resource = self.monitors.remove(&monitor).expect("an open one ends");
                assert_eq!(monitor.connection, connection);
                assert!(ending != Ending::Gone || self.retention.kind(resource).is_none());
                let unended =
                    self.pushes.iter().any(|(id, on)| *on == monitor && self.retention.is_live(*id, self.now));
                assert!(ending == Ending::Gone || !unended, "promises come before the end");
            }
        }
    }

    fn has_room(&self, monitor: MonitorId, room: Room) {
        assert!(room == Room::Any || room == Room::On(monitor.stream), "{room:?}");
    }

    fn report(&mut self, input: &mut Input) {
        let Some((delivery, _)) = take(input, &mut self.pushes) else { return };
        self.event(match input.byte() % 4 {
            0 | 1 => Event::Delivered(delivery),
            2 => Event::Refused(delivery),
            _ => Event::Dropped(delivery),
        });
    }

    fn event(&mut self, event: Event) {
        self.retention.handle_input(event, self.now, &mut self.random);
    }

    fn close(&mut self, connection: ConnectionId) {
        self.monitors.retain(|monitor, _| monitor.connection != connection);
        self.pushes.retain(|(_, monitor)| monitor.connection != connection);
        self.receipts.retain(|(_, monitor)| monitor.connection != connection);
        self.clients[connection.0 as usize - 1] = Client::default();
        self.event(Event::ConnectionClosed(connection));
    }

    fn pass(&mut self, ms: u64) {
        self.now.instant = self.now.instant + Duration::from_millis(ms);
        self.now.wall = UnixTime(1_800_000_000 + self.now.instant.as_millis() / 1_000);
        // One turn each, and as many turns as there can be things that are due.
        for _ in 0..64 {
            self.retention.handle_timeout(self.now);
        }
        assert!(self.retention.poll_timeout().is_none_or(|due| due > self.now.instant), "a timer is not handled");
    }

    /// Hands over what is to be stored, and returns it.
    fn take_records(&mut self, mut made: Vec<Token>) -> Vec<Record> {
        let first = self.retention.next_record();
        let records: Vec<Record> = std::iter::from_fn(|| self.retention.poll_record()).collect();
        let numbers = first..self.retention.next_record();
        assert_eq!(records.len() as u64, numbers.end - numbers.start);
        made.extend(records.iter().filter_map(|record| match record {
            Record::Receipts { token, .. } => Some(*token),
            _ => None,
        }));
        if !records.is_empty() || !made.is_empty() {
            self.writes.push(Write { records: records.clone(), numbers, made });
        }
        records
    }

    /// All that waits is stored, or the disk refuses it and takes what is owed later.
    fn commit(&mut self, is_stored: bool) {
        self.take_records(Vec::new());
        for write in std::mem::take(&mut self.writes) {
            for record in write.records.into_iter().filter(|record| is_stored || record.is_owed()) {
                apply(&mut self.disk, record);
            }
            if is_stored {
                self.event(Event::Stored(write.numbers));
                continue;
            }
            for token in write.made {
                self.forget(token);
                self.event(Event::NotStored(token));
            }
        }
    }

    /// What was refused has replaced nothing.
    fn forget(&mut self, token: Token) {
        let Some(refused) = self.known.remove(&token) else { return };
        // One that was acknowledged, or replaced the other way without a trace, was there all the same.
        let replaced = self.known.values_mut().filter(|it| it.state == State::ReplacedBy(token) && it.is_durable);
        if refused.is_durable && refused.state != State::Acknowledged {
            replaced.for_each(|it| it.state = refused.state);
        }
    }

    fn restart(&mut self) {
        self.commit(true);
        let mut retention = Retention::new(self.policy.clone());
        let order = |record: &Record| match record {
            Record::Set { .. } => 0,
            Record::Receipts { .. } => 1,
            Record::Receipt { .. } => 2,
            Record::Subscription { .. } => 3,
            _ => 4,
        };
        let mut disk = self.disk.clone();
        disk.sort_by_key(|record| {
            (order(record), if let Record::Message(it) = record { (it.subscription.0, it.sequence) } else { (0, 0) })
        });
        disk.into_iter().for_each(|record| retention.restore(record, self.now));
        self.retention = retention;
        // Messages are aged by whole seconds.
        self.known.values_mut().for_each(|it| it.expires = it.expires + Duration::from_secs(1));
        self.monitors.clear();
        self.pushes.clear();
        self.receipts.clear();
    }

    fn check(&self) {
        let mut counts = BTreeMap::new();
        for (message, known) in &self.known {
            if self.retention.kind(*message) == Some(Kind::Message) {
                assert_eq!(known.state, State::Live);
                *counts.entry(known.push).or_insert(0) += 1;
            }
        }
        assert!(counts.values().all(|count| *count <= self.policy.message_count_max + 1), "more than allowed");
        for monitor in self.monitors.keys() {
            let unconfirmed = self.receipts.iter().filter(|(_, on)| on == monitor).map(|(id, _)| *id);
            assert!(unconfirmed.collect::<BTreeSet<_>>().len() <= SERVICE_RECEIPTS_UNCONFIRMED_MAX);
        }
        assert!(!self.retention.has_records(), "all are taken");
    }
}

/// Does to the disk what a record says.
fn apply(disk: &mut Vec<Record>, record: Record) {
    let is_message = |it: &Record, id, number| matches!(it, Record::Message(stored) if stored.subscription == id && number == Some(stored.sequence));
    match record {
        Record::SetEnded(ended) => disk.retain(|it| !matches!(it, Record::Set { id, .. } if *id == ended)),
        Record::SubscriptionEnded(ended) => disk.retain(|it| match it {
            Record::Subscription { id, .. } => *id != ended,
            Record::Message(stored) => stored.subscription != ended,
            _ => true,
        }),
        Record::MessageEnded { subscription, sequence } => {
            disk.retain(|it| !is_message(it, subscription, Some(sequence)));
        }
        Record::Replacement { message, replaced } => {
            disk.retain(|it| !is_message(it, message.subscription, Some(replaced)));
            disk.push(Record::Message(message));
        }
        Record::ReceiptsEnded(ended) => disk.retain(|it| match it {
            Record::Receipts { id, .. } => *id != ended,
            Record::Receipt { id, .. } => id.key().0 != ended.0,
            _ => true,
        }),
        Record::ReceiptEnded(ended) => disk.retain(|it| !matches!(it, Record::Receipt { id, .. } if *id == ended)),
        Record::Subscription { id: again, .. } => {
            disk.retain(|it| !matches!(it, Record::Subscription { id, .. } if *id == again));
            disk.push(record);
        }
        made => disk.push(made),
    }
}

fn connection(input: &mut Input) -> ConnectionId {
    ConnectionId(u64::from(input.byte() % CONNECTION_COUNT) + 1)
}

fn pick<T: Copy>(input: &mut Input, from: &[T]) -> Option<T> {
    let index = usize::from(input.byte());
    from.get(index.checked_rem(from.len())?).copied()
}

fn take<T>(input: &mut Input, from: &mut Vec<T>) -> Option<T> {
    let index = usize::from(input.byte()).checked_rem(from.len())?;
    Some(from.remove(index))
}
