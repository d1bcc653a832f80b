//! What the push service keeps and what it pushes next: subscriptions, sets, messages, monitors, retry times.
//!
//! Pure: time and randomness are arguments, and nothing here knows HTTP, sockets or files. The shell calls
//! [`handle_request`](Retention::handle_request) for what a client asks, [`handle_input`](Retention::handle_input) for
//! what became of a push, [`handle_timeout`](Retention::handle_timeout) when [`poll_timeout`](Retention::poll_timeout)
//! says so, and afterwards drains [`poll_record`](Retention::poll_record) and [`poll_wake`](Retention::poll_wake).
//! A connection that was woken, or has room again, asks [`poll_output`](Retention::poll_output) for its next output;
//! so there is no queue of outputs that could grow.
//!
//! ```text
//!            taken by a connection            written whole
//!  Waiting ------------------------> Promised -------------> Unacknowledged ---DELETE, TTL---> gone
//!     ^                                 |                          |
//!     +---- reset, connection lost -----+---- retry time, reset, --+
//!                                             connection lost
//! ```
//!
//! What a client may be told only once it is stored waits for [`Input::Stored`]: records are numbered in the order in which
//! they are polled.
//!
//! Source: RFC 8030 §4 to §7.

mod delivery;
mod lifetime;
mod model;
mod outcome;
mod pace;
mod policy;
mod rate;
mod ready;
mod receipts;
mod since;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::limits::{
    SERVICE_MESSAGE_BYTES_MAX, SERVICE_MESSAGE_COUNT_MAX, SERVICE_SUBSCRIPTION_COUNT_MAX, SERVICE_TIMERS_PER_TURN,
    SERVICE_TTL_ZERO_MS,
};
use crate::random::Random;
use crate::time::{Duration, Instant, UnixTime};
use crate::webpush::vapid::ApplicationServerKey;

use super::token::Token;
pub use model::{
    ConnectionId, Content, DeliveryId, Ending, Input, Kind, Moment, MonitorId, Outcome, Output, Posted, Push, Receipt,
    ReceiptId, ReceiptWish, ReceiptsId, Record, Reply, Request, Room, SetId, StoredMessage, SubscriptionId,
};
use model::{Delivery, Message, Monitor, Owner, Set, Subscription, Timer};
pub use policy::{Policy, WhenFull};
use rate::Window;
use receipts::Receipts;
pub use since::Since;

/// Every resource of the push service, and the next thing to do about each.
#[derive(Debug)]
pub struct Retention {
    tokens: BTreeMap<Token, Resource>,
    sets: BTreeMap<SetId, Set>,
    /// Sets whose members have all left; the oldest gives way when there are too many sets.
    empty_sets: BTreeSet<SetId>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    receipts: BTreeMap<ReceiptsId, Receipts>,
    /// Whose each receipt is, in the order of what they tell.
    receipt_order: BTreeMap<u64, ReceiptsId>,
    monitors: BTreeMap<MonitorId, Monitor>,
    /// Messages promised or unacknowledged, by the connection that carries them.
    carried: BTreeSet<(ConnectionId, SubscriptionId, u64)>,
    /// Receipts that may not have arrived, by the connection that carries them.
    carried_receipts: BTreeSet<(ConnectionId, ReceiptsId, u64)>,
    timers: BTreeSet<(Instant, Timer)>,
    woken: BTreeSet<ConnectionId>,
    records: VecDeque<Record>,
    /// Records polled so far: the number of the next one.
    polled_count: u64,
    /// Receipts to push once the record of that number is stored.
    unstored_receipts: BTreeMap<u64, ReceiptId>,
    /// Messages that have replaced another one once the record of that number is stored.
    unstored_replacements: BTreeMap<u64, (SubscriptionId, u64)>,
    next_number: u64,
    message_count: usize,
    message_bytes: usize,
    policy: Policy,
    is_stopping: bool,
}

/// There is no room for a message.
struct ServiceFull;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Subscription(SubscriptionId),
    Push(SubscriptionId),
    Set(SetId),
    Message(SubscriptionId, u64),
    Receipts(ReceiptsId),
}

impl Retention {
    /// An empty service.
    pub fn new(policy: Policy) -> Self {
        Self {
            tokens: BTreeMap::new(),
            sets: BTreeMap::new(),
            empty_sets: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            receipts: BTreeMap::new(),
            receipt_order: BTreeMap::new(),
            monitors: BTreeMap::new(),
            carried: BTreeSet::new(),
            carried_receipts: BTreeSet::new(),
            timers: BTreeSet::new(),
            woken: BTreeSet::new(),
            records: VecDeque::new(),
            polled_count: 0,
            unstored_receipts: BTreeMap::new(),
            unstored_replacements: BTreeMap::new(),
            next_number: 1,
            message_count: 0,
            message_bytes: 0,
            policy,
            is_stopping: false,
        }
    }

    /// Takes back one stored record. Sets and receipt subscriptions come first, then subscriptions and receipts, then
    /// messages in their order.
    ///
    /// What expired meanwhile, or belongs to nothing, is ended at once.
    pub fn restore(&mut self, record: Record, now: Moment) {
        match record {
            Record::Set { id, token } => self.insert_set(id, token, now),
            Record::Receipts { id, token } => self.insert_receipts(id, token, now),
            Record::Subscription { id, set, token, push, was_monitored, restricted }
                if self.sets.contains_key(&set) =>
            {
                self.insert_subscription(id, set, (token, push), (was_monitored, restricted), now);
            }
            Record::Receipt { id, message, outcome } => self.restore_receipt(id, message, outcome),
            Record::Message(stored) => {
                // Its number names its record, which may outlive it here if the disk fails.
                self.next_number = self.next_number.max(stored.sequence + 1);
                // What no clock can tell ends nothing early.
                let age = stored.since.age_s(now).unwrap_or(0);
                let rest = stored.ttl.as_secs().saturating_sub(age);
                if rest > 0 && self.subscriptions.contains_key(&stored.subscription) {
                    let expires = now.instant + Duration::from_secs(rest);
                    self.insert_message(stored, expires, true);
                } else {
                    let (subscription, sequence) = (stored.subscription, stored.sequence);
                    self.push_record(Record::MessageEnded { subscription, sequence });
                    if let Some(receipts) = stored.receipts {
                        self.tell(receipts, stored.token, Outcome::GivenUp);
                    }
                }
            }
            // Ends are applied by the store and never come back; a member without its set is dropped.
            _ => {}
        }
    }

    /// The kind of a live resource.
    pub fn kind(&self, token: Token) -> Option<Kind> {
        self.tokens.get(&token).map(|resource| match resource {
            Resource::Subscription(_) => Kind::Subscription,
            Resource::Push(_) => Kind::Push,
            Resource::Set(_) => Kind::Set,
            Resource::Message(..) => Kind::Message,
            Resource::Receipts(_) => Kind::Receipts,
        })
    }

    /// The one application server that may send to a push resource, if it is not everybody.
    ///
    /// Source: RFC 8292 §4.
    pub fn restriction(&self, push: Token) -> Option<&ApplicationServerKey> {
        let Some(Resource::Push(subscription)) = self.tokens.get(&push) else { return None };
        self.subscriptions.get(subscription)?.restricted.as_ref()
    }

    /// Does what a client asked and says what to answer, once the records it left are stored.
    ///
    /// A request that cannot be fulfilled changes nothing.
    pub fn handle_request(&mut self, request: Request, now: Moment, random: &mut dyn Random) -> Reply {
        match request {
            Request::Subscribe { set, restricted } => self.subscribe(set, restricted, now, random),
            Request::Send(posted) => self.send(posted, now, random),
            Request::Read { message } => self.read(message, now),
            Request::Remove { resource } => self.remove(resource, now),
            Request::Monitor { resource, monitor, wait_s, urgency } => {
                self.monitor(resource, monitor, wait_s, urgency, now)
            }
        }
    }

    /// Ends what is due, at most [`SERVICE_TIMERS_PER_TURN`] things a call. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Moment) {
        for _ in 0..SERVICE_TIMERS_PER_TURN {
            let Some((_, timer)) = self.timers.first().copied().filter(|(due, _)| *due <= now.instant) else { return };
            self.timers.pop_first();
            match timer {
                Timer::Expire(subscription, sequence) => {
                    self.end_message(subscription, sequence, Outcome::GivenUp);
                }
                Timer::Retry(subscription, sequence) => self.put_back(subscription, sequence),
                Timer::Resume(subscription) => self.resume(subscription),
                Timer::End(monitor) => drop(self.woken.insert(monitor.connection)),
                Timer::Unused(owner) => self.look_at_use(owner, now),
                Timer::Pace(set) => self.end_pace(set),
                Timer::Batch(set) => self.release_batch(set),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next record to store; they are stored in this order.
    pub fn poll_record(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.polled_count += 1;
        Some(record)
    }

    /// The number of the next record, which [`Input::Stored`] speaks of.
    pub const fn next_record(&self) -> u64 {
        self.polled_count
    }

    /// Whether [`poll_record`](Self::poll_record) has something.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// The next connection that should ask for its outputs.
    pub fn poll_wake(&mut self) -> Option<ConnectionId> {
        self.woken.pop_first()
    }

    fn subscribe(
        &mut self,
        set: Option<Token>,
        restricted: Option<ApplicationServerKey>,
        now: Moment,
        random: &mut dyn Random,
    ) -> Reply {
        let presented = match set.map(|token| self.tokens.get(&token)) {
            None => None,
            Some(Some(Resource::Set(id))) => Some(*id),
            Some(_) => return Reply::InvalidSet,
        };
        if self.subscriptions.len() >= SERVICE_SUBSCRIPTION_COUNT_MAX {
            return Reply::Full;
        }
        let has_room = |id: &SetId| self.sets[id].members.len() < self.policy.set_member_count_max;
        let set = presented.filter(has_room).unwrap_or_else(|| self.create_set(now, random));
        let id = SubscriptionId(self.number());
        let (token, push) = (Token::random(random), Token::random(random));
        let was_monitored = self.sets[&set].monitor.is_some();
        self.insert_subscription(id, set, (token, push), (was_monitored, restricted.clone()), now);
        self.push_record(Record::Subscription { id, set, token, push, was_monitored, restricted });
        Reply::Subscribed { subscription: token, push, set: self.sets[&set].token }
    }

    fn send(&mut self, posted: Posted, now: Moment, random: &mut dyn Random) -> Reply {
        let Some(Resource::Push(id)) = self.tokens.get(&posted.push).copied() else { return Reply::Gone };
        if let Some(reply) = self.refuse_rate(id, now) {
            return reply;
        }
        let replaced = posted.topic.as_ref().and_then(|topic| self.subscriptions[&id].topics.get(topic).copied());
        let Ok(evicted) = self.make_room(id, &posted, replaced) else { return Reply::Full };
        let receipts = match self.receipts_for(posted.receipts, now, random) {
            Ok(receipts) => receipts,
            Err(reason) => return reason.into(),
        };
        if let Some(evicted) = evicted {
            self.end_message(id, evicted, Outcome::GivenUp);
        }
        let token = Token::random(random);
        let ttl = posted.ttl.min(self.policy.ttl_max);
        let reply = Reply::Accepted { message: token, ttl, receipts: receipts.map(|id| self.receipts[&id].token) };
        let can_go_now = self.can_push(id) && posted.urgency >= self.least_wanted(id);
        let Posted { urgency, topic, content, .. } = posted;
        let sequence = self.number();
        let since = Since::now(now);
        let stored = StoredMessage { subscription: id, sequence, token, since, ttl, urgency, topic, receipts, content };
        self.keep(stored, replaced, can_go_now, now);
        self.offer(id);
        reply
    }

    /// Keeps an accepted message; one with a time to live of zero that nobody can take now has expired.
    fn keep(&mut self, stored: StoredMessage, replaced: Option<u64>, can_go_now: bool, now: Moment) {
        let (id, sequence) = (stored.subscription, stored.sequence);
        let replaced = replaced.and_then(|sequence| self.take_message(id, sequence));
        if stored.ttl.as_secs() == 0 {
            if let Some(replaced) = replaced {
                self.record_end(&replaced);
            }
            match (can_go_now, stored.receipts) {
                (true, _) => {
                    self.insert_message(stored, now.instant + Duration::from_millis(SERVICE_TTL_ZERO_MS), false);
                }
                (false, Some(receipts)) => self.tell(receipts, stored.token, Outcome::GivenUp),
                (false, None) => {}
            }
            return;
        }
        let expires = now.instant + Duration::from_secs(stored.ttl.as_secs());
        self.insert_message(stored.clone(), expires, !can_go_now);
        self.record_message(stored, replaced);
        self.hold(id, sequence, now);
    }

    /// Whether a message fits in, and which one has to be given up for it: none while it is refused.
    ///
    /// Only messages of the same subscription give way: nobody loses anything to a neighbour.
    fn make_room(
        &self,
        id: SubscriptionId,
        posted: &Posted,
        replaced: Option<u64>,
    ) -> Result<Option<u64>, ServiceFull> {
        let messages = &self.subscriptions[&id].messages;
        let freed = replaced.and_then(|sequence| messages.get(&sequence)).map_or(0, |it| it.stored.content.bytes());
        let bytes = self.message_bytes - freed + posted.content.bytes();
        let gone = usize::from(replaced.is_some());
        let is_full = |gone, bytes| {
            self.message_count - gone >= SERVICE_MESSAGE_COUNT_MAX
                || bytes > SERVICE_MESSAGE_BYTES_MAX
                || messages.len() - gone >= self.policy.message_count_max
        };
        if !is_full(gone, bytes) {
            return Ok(None);
        }
        if self.policy.when_full == WhenFull::Refuse {
            return Err(ServiceFull);
        }
        let others = messages.iter().filter(|(sequence, _)| Some(**sequence) != replaced);
        let least = others.min_by_key(|(sequence, message)| (message.stored.urgency, **sequence));
        let (sequence, message) = least.filter(|(_, it)| it.stored.urgency <= posted.urgency).ok_or(ServiceFull)?;
        let still_full = is_full(gone + 1, bytes - message.stored.content.bytes());
        if still_full { Err(ServiceFull) } else { Ok(Some(*sequence)) }
    }

    fn read(&mut self, token: Token, now: Moment) -> Reply {
        let Some(Resource::Message(subscription, sequence)) = self.tokens.get(&token).copied() else {
            return Reply::Gone;
        };
        let message = &self.subscriptions[&subscription].messages[&sequence];
        if message.expires <= now.instant {
            return Reply::Gone;
        }
        Reply::Content {
            content: message.stored.content.clone(),
            accepted: message.stored.since.wall(now),
            max_age_s: message.rest_s(now),
        }
    }

    fn remove(&mut self, token: Token, now: Moment) -> Reply {
        match self.tokens.get(&token).copied() {
            Some(Resource::Message(subscription, sequence)) => self.acknowledge(subscription, sequence, now),
            Some(Resource::Subscription(id)) => {
                self.remove_subscription(id);
                self.push_record(Record::SubscriptionEnded(id));
                Reply::Removed
            }
            Some(Resource::Set(id)) => {
                self.remove_set(id);
                Reply::Removed
            }
            Some(Resource::Receipts(id)) => {
                self.remove_receipts(id);
                Reply::Removed
            }
            Some(Resource::Push(_)) | None => Reply::Gone,
        }
    }

    fn remove_set(&mut self, id: SetId) {
        let Some(set) = self.sets.get(&id) else { return };
        let (token, monitor, life) = (set.token, set.monitor, set.life);
        for member in set.members.clone() {
            self.remove_subscription(member);
            self.push_record(Record::SubscriptionEnded(member));
        }
        self.end_life(Owner::Set(id), life);
        self.stop_pacing(id);
        self.sets.remove(&id);
        self.empty_sets.remove(&id);
        self.tokens.remove(&token);
        self.push_record(Record::SetEnded(id));
        self.end_monitor(monitor, Ending::Gone);
    }

    /// Removes a subscription with its messages. Its set stays, for it may be presented again.
    fn remove_subscription(&mut self, id: SubscriptionId) {
        let sequences: Vec<u64> = self.subscriptions[&id].messages.keys().copied().collect();
        for sequence in sequences {
            if let Some(message) = self.take_message(id, sequence) {
                self.tell_end(&message, Outcome::GivenUp);
            }
        }
        self.leave_line(id);
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        self.end_life(Owner::Subscription(id), subscription.life);
        self.tokens.remove(&subscription.token);
        self.tokens.remove(&subscription.push);
        if let Some(until) = subscription.paused_until {
            self.timers.remove(&(until, Timer::Resume(id)));
        }
        if let Some(set) = self.sets.get_mut(&subscription.set) {
            set.members.remove(&id);
            if set.members.is_empty() {
                set.life.unused_since = None;
                self.empty_sets.insert(subscription.set);
            }
        }
        self.end_monitor(subscription.monitor, Ending::Gone);
    }

    /// Ends a message, and tells its sender.
    fn end_message(&mut self, id: SubscriptionId, sequence: u64, end: Outcome) {
        self.end_quietly(id, sequence, end);
        self.offer(id);
    }

    /// Ends a message without offering another one in its place.
    fn end_quietly(&mut self, subscription: SubscriptionId, sequence: u64, end: Outcome) {
        let Some(message) = self.take_message(subscription, sequence) else { return };
        self.record_end(&message);
        self.tell_end(&message, end);
    }

    fn tell_end(&mut self, message: &Message, outcome: Outcome) {
        if let Some(receipts) = message.stored.receipts {
            self.tell(receipts, message.stored.token, outcome);
        }
    }

    /// Takes a message out of every table it is in.
    fn take_message(&mut self, id: SubscriptionId, sequence: u64) -> Option<Message> {
        // Waiting messages are in no table but the subscription's.
        self.place(id, sequence, Delivery::Waiting);
        let subscription = self.subscriptions.get_mut(&id)?;
        let message = subscription.messages.remove(&sequence)?;
        subscription.ready.remove(&message);
        self.tokens.remove(&message.stored.token);
        self.timers.remove(&(message.expires, Timer::Expire(id, sequence)));
        if let Some(topic) = &message.stored.topic {
            subscription.topics.remove(topic);
        }
        if let Some(batch) = self.sets.get_mut(&subscription.set).and_then(|set| set.batch.as_mut()) {
            batch.held.remove(&(id, sequence));
        }
        if let Some(receipts) = message.stored.receipts.and_then(|id| self.receipts.get_mut(&id)) {
            receipts.expected_count -= 1;
        }
        if let Some(number) = message.replacement {
            self.unstored_replacements.remove(&number);
        }
        self.message_count -= 1;
        self.message_bytes -= message.stored.content.bytes();
        Some(message)
    }

    /// Changes where a message is, and with it every count and index that depends on it.
    fn place(&mut self, id: SubscriptionId, sequence: u64, to: Delivery) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let placed = subscription.change(sequence, |message| {
            message.was_stored |= to == Delivery::Waiting;
            std::mem::replace(&mut message.delivery, to)
        });
        let Some(from) = placed else { return };
        match from {
            Delivery::Waiting => {
                subscription.in_flight_count += 1;
            }
            Delivery::Promised { connection } => {
                self.carried.remove(&(connection, id, sequence));
                // The connection may be in the middle of it and has to look whether to go on.
                self.woken.insert(connection);
            }
            Delivery::Unacknowledged { connection, retry_at } => {
                self.carried.remove(&(connection, id, sequence));
                self.timers.remove(&(retry_at, Timer::Retry(id, sequence)));
            }
        }
        match to {
            Delivery::Waiting => {
                subscription.in_flight_count -= 1;
            }
            Delivery::Promised { connection } => drop(self.carried.insert((connection, id, sequence))),
            Delivery::Unacknowledged { connection, retry_at } => {
                self.carried.insert((connection, id, sequence));
                self.timers.insert((retry_at, Timer::Retry(id, sequence)));
            }
        }
    }

    /// Makes a set. There are as many at most as subscriptions, so at the bound one of them is empty.
    fn create_set(&mut self, now: Moment, random: &mut dyn Random) -> SetId {
        if self.sets.len() >= SERVICE_SUBSCRIPTION_COUNT_MAX
            && let Some(oldest) = self.empty_sets.first().copied()
        {
            self.remove_set(oldest);
        }
        let (id, token) = (SetId(self.number()), Token::random(random));
        self.insert_set(id, token, now);
        self.push_record(Record::Set { id, token });
        id
    }

    fn insert_set(&mut self, id: SetId, token: Token, now: Moment) {
        self.next_number = self.next_number.max(id.0 + 1);
        let life = self.begin_life(Owner::Set(id), self.policy.unused, now);
        self.tokens.insert(token, Resource::Set(id));
        let (members, pushed) = (BTreeSet::new(), Window::default());
        self.sets.insert(id, Set { token, members, monitor: None, life, pushed, paced_until: None, batch: None });
        self.empty_sets.insert(id);
    }

    fn insert_subscription(
        &mut self,
        id: SubscriptionId,
        set: SetId,
        (token, push): (Token, Token),
        (was_monitored, restricted): (bool, Option<ApplicationServerKey>),
        now: Moment,
    ) {
        self.next_number = self.next_number.max(id.0 + 1);
        let lasts = if was_monitored { self.policy.unused } else { self.policy.fresh };
        let life = self.begin_life(Owner::Subscription(id), lasts, now);
        self.tokens.insert(token, Resource::Subscription(id));
        self.tokens.insert(push, Resource::Push(id));
        let subscription = Subscription::new((token, push), set, was_monitored, life);
        self.subscriptions.insert(id, Subscription { restricted, ..subscription });
        self.sets.get_mut(&set).expect("the caller made sure of the set").members.insert(id);
        self.empty_sets.remove(&set);
    }

    fn insert_message(&mut self, stored: StoredMessage, expires: Instant, was_stored: bool) {
        let (id, sequence) = (stored.subscription, stored.sequence);
        self.next_number = self.next_number.max(sequence + 1);
        self.tokens.insert(stored.token, Resource::Message(id, sequence));
        self.timers.insert((expires, Timer::Expire(id, sequence)));
        self.message_count += 1;
        self.message_bytes += stored.content.bytes();
        if let Some(receipts) = stored.receipts.and_then(|id| self.receipts.get_mut(&id)) {
            receipts.expected_count += 1;
        }
        let subscription = self.subscriptions.get_mut(&id).expect("the caller made sure of the subscription");
        if let Some(topic) = stored.topic.clone() {
            subscription.topics.insert(topic, sequence);
        }
        let message = Message::new(stored, expires, was_stored);
        subscription.ready.add(&message);
        subscription.messages.insert(sequence, message);
    }

    fn message_mut(&mut self, id: SubscriptionId, sequence: u64) -> Option<&mut Message> {
        self.subscriptions.get_mut(&id)?.messages.get_mut(&sequence)
    }

    /// Hands over a record to store, and says its number.
    fn push_record(&mut self, record: Record) -> u64 {
        self.records.push_back(record);
        self.polled_count + self.records.len() as u64 - 1
    }

    /// The next internal number. It orders messages and keys records, and never leaves the service.
    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// The monitors of one connection.
    fn monitors_of(&self, connection: ConnectionId) -> Vec<MonitorId> {
        let first = MonitorId { connection, stream: 0 };
        let last = MonitorId { connection, stream: u32::MAX };
        self.monitors.range((Bound::Included(first), Bound::Included(last))).map(|(id, _)| *id).collect()
    }

    /// The wall time a message was accepted, if that is known and it had to wait.
    fn last_modified(message: &Message, now: Moment) -> Option<UnixTime> {
        message.stored.since.wall(now).filter(|_| message.was_stored)
    }
}
