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
//! Source: RFC 8030 §4 to §7.

mod delivery;
mod model;
mod since;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::limits::{
    SERVICE_MESSAGE_BYTES_MAX, SERVICE_MESSAGE_COUNT_MAX, SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX,
    SERVICE_SET_MEMBER_COUNT_MAX, SERVICE_SUBSCRIPTION_COUNT_MAX, SERVICE_TIMERS_PER_TURN, SERVICE_TTL_ZERO_MS,
};
use crate::random::Random;
use crate::time::{Duration, Instant, UnixTime};
use crate::webpush::headers::{Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

use super::token::Token;
pub use model::{
    ConnectionId, Content, DeliveryId, Ending, Input, Kind, Moment, MonitorId, Output, Push, Record, Reply, Request,
    Room, SetId, StoredMessage, SubscriptionId,
};
use model::{Delivery, Message, Monitor, Set, Subscription, Timer};
pub use since::Since;

/// Every resource of the push service, and the next thing to do about each.
#[derive(Debug)]
pub struct Retention {
    tokens: BTreeMap<Token, Resource>,
    sets: BTreeMap<SetId, Set>,
    /// Sets whose members have all left; the oldest gives way when there are too many sets.
    empty_sets: BTreeSet<SetId>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    monitors: BTreeMap<MonitorId, Monitor>,
    /// Messages promised or unacknowledged, by the connection that carries them.
    carried: BTreeSet<(ConnectionId, SubscriptionId, u64)>,
    timers: BTreeSet<(Instant, Timer)>,
    woken: BTreeSet<ConnectionId>,
    records: VecDeque<Record>,
    next_number: u64,
    message_count: usize,
    message_bytes: usize,
    ttl_max: Ttl,
    is_stopping: bool,
}

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Subscription(SubscriptionId),
    Push(SubscriptionId),
    Set(SetId),
    Message(SubscriptionId, u64),
}

impl Retention {
    /// An empty service that keeps no message longer than `ttl_max`.
    pub fn new(ttl_max: Ttl) -> Self {
        Self {
            tokens: BTreeMap::new(),
            sets: BTreeMap::new(),
            empty_sets: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            monitors: BTreeMap::new(),
            carried: BTreeSet::new(),
            timers: BTreeSet::new(),
            woken: BTreeSet::new(),
            records: VecDeque::new(),
            next_number: 1,
            message_count: 0,
            message_bytes: 0,
            ttl_max,
            is_stopping: false,
        }
    }

    /// Takes back one stored record. Sets come first, then subscriptions, then messages in their order.
    ///
    /// What expired meanwhile, or belongs to nothing, is ended at once.
    pub fn restore(&mut self, record: Record, now: Moment) {
        match record {
            Record::Set { id, token } => self.insert_set(id, token),
            Record::Subscription { id, set, token, push, restricted } if self.sets.contains_key(&set) => {
                self.insert_subscription(id, set, (token, push), restricted);
            }
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
                    self.records.push_back(Record::MessageEnded {
                        subscription: stored.subscription,
                        sequence: stored.sequence,
                    });
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
            Request::Subscribe { set, restricted } => self.subscribe(set, restricted, random),
            Request::Send { push, ttl, urgency, content } => self.send(push, (ttl, urgency), content, now, random),
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
                Timer::Expire(subscription, sequence) => self.end_message(subscription, sequence),
                Timer::Retry(subscription, sequence) => self.put_back(subscription, sequence),
                Timer::Resume(subscription) => self.resume(subscription),
                Timer::End(monitor) => drop(self.woken.insert(monitor.connection)),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next record to store; they are stored in this order.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
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
        let has_room = |id: &SetId| self.sets[id].members.len() < SERVICE_SET_MEMBER_COUNT_MAX;
        let set = presented.filter(has_room).unwrap_or_else(|| self.create_set(random));
        let id = SubscriptionId(self.number());
        let (token, push) = (Token::random(random), Token::random(random));
        self.insert_subscription(id, set, (token, push), restricted.clone());
        self.records.push_back(Record::Subscription { id, set, token, push, restricted });
        Reply::Subscribed { subscription: token, push, set: self.sets[&set].token }
    }

    fn send(
        &mut self,
        push: Token,
        (ttl, urgency): (Ttl, Urgency),
        content: Content,
        now: Moment,
        random: &mut dyn Random,
    ) -> Reply {
        let Some(Resource::Push(subscription)) = self.tokens.get(&push).copied() else { return Reply::Gone };
        let ttl = ttl.min(self.ttl_max);
        let can_go_now = self.can_push(subscription) && urgency >= self.least_wanted(subscription);
        let message = Token::random(random);
        if ttl.as_secs() == 0 && !can_go_now {
            // Nobody can take it now, so it has expired.
            return Reply::Accepted { message, ttl };
        }
        if self.is_full_for(subscription, &content) {
            return Reply::Full;
        }
        let stored = StoredMessage {
            subscription,
            sequence: self.number(),
            token: message,
            since: Since::now(now),
            ttl,
            urgency,
            content,
        };
        let lifetime = match ttl.as_secs() {
            0 => Duration::from_millis(SERVICE_TTL_ZERO_MS),
            secs => Duration::from_secs(secs),
        };
        if ttl.as_secs() > 0 {
            self.records.push_back(Record::Message(stored.clone()));
        }
        self.insert_message(stored, now.instant + lifetime, !can_go_now);
        self.offer(subscription);
        Reply::Accepted { message, ttl }
    }

    fn is_full_for(&self, subscription: SubscriptionId, content: &Content) -> bool {
        self.message_count >= SERVICE_MESSAGE_COUNT_MAX
            || self.message_bytes + content.bytes() > SERVICE_MESSAGE_BYTES_MAX
            || self.subscriptions[&subscription].messages.len() >= SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX
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
                self.records.push_back(Record::SubscriptionEnded(id));
                Reply::Removed
            }
            Some(Resource::Set(id)) => {
                self.remove_set(id);
                Reply::Removed
            }
            Some(Resource::Push(_)) | None => Reply::Gone,
        }
    }

    fn remove_set(&mut self, id: SetId) {
        let Some(set) = self.sets.get(&id) else { return };
        let (token, monitor) = (set.token, set.monitor);
        for member in set.members.clone() {
            self.remove_subscription(member);
            self.records.push_back(Record::SubscriptionEnded(member));
        }
        self.sets.remove(&id);
        self.empty_sets.remove(&id);
        self.tokens.remove(&token);
        self.records.push_back(Record::SetEnded(id));
        self.end_monitor(monitor, Ending::Gone);
    }

    /// Removes a subscription with its messages. Its set stays, for it may be presented again.
    fn remove_subscription(&mut self, id: SubscriptionId) {
        let sequences: Vec<u64> = self.subscriptions[&id].messages.keys().copied().collect();
        for sequence in sequences {
            self.take_message(id, sequence);
        }
        self.leave_line(id);
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        self.tokens.remove(&subscription.token);
        self.tokens.remove(&subscription.push);
        if let Some(until) = subscription.paused_until {
            self.timers.remove(&(until, Timer::Resume(id)));
        }
        if let Some(set) = self.sets.get_mut(&subscription.set) {
            set.members.remove(&id);
            if set.members.is_empty() {
                self.empty_sets.insert(subscription.set);
            }
        }
        self.end_monitor(subscription.monitor, Ending::Gone);
    }

    /// Ends a message before or at its expiry.
    fn end_message(&mut self, subscription: SubscriptionId, sequence: u64) {
        if let Some(message) = self.take_message(subscription, sequence) {
            if message.is_durable() {
                self.records.push_back(Record::MessageEnded { subscription, sequence });
            }
            self.offer(subscription);
        }
    }

    /// Takes a message out of every table it is in.
    fn take_message(&mut self, id: SubscriptionId, sequence: u64) -> Option<Message> {
        // Waiting messages are in no table but the subscription's.
        self.place(id, sequence, Delivery::Waiting);
        let subscription = self.subscriptions.get_mut(&id)?;
        let message = subscription.messages.remove(&sequence)?;
        subscription.waiting_count -= 1;
        self.tokens.remove(&message.stored.token);
        self.timers.remove(&(message.expires, Timer::Expire(id, sequence)));
        self.message_count -= 1;
        self.message_bytes -= message.stored.content.bytes();
        Some(message)
    }

    /// Changes where a message is, and with it every count and index that depends on it.
    fn place(&mut self, id: SubscriptionId, sequence: u64, to: Delivery) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let Some(message) = subscription.messages.get_mut(&sequence) else { return };
        let from = std::mem::replace(&mut message.delivery, to);
        match from {
            Delivery::Waiting => {
                subscription.waiting_count -= 1;
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
                subscription.waiting_count += 1;
                subscription.in_flight_count -= 1;
                message.was_stored = true;
            }
            Delivery::Promised { connection } => drop(self.carried.insert((connection, id, sequence))),
            Delivery::Unacknowledged { connection, retry_at } => {
                self.carried.insert((connection, id, sequence));
                self.timers.insert((retry_at, Timer::Retry(id, sequence)));
            }
        }
    }

    /// Makes a set. There are as many at most as subscriptions, so at the bound one of them is empty.
    fn create_set(&mut self, random: &mut dyn Random) -> SetId {
        if self.sets.len() >= SERVICE_SUBSCRIPTION_COUNT_MAX
            && let Some(oldest) = self.empty_sets.first().copied()
        {
            self.remove_set(oldest);
        }
        let (id, token) = (SetId(self.number()), Token::random(random));
        self.insert_set(id, token);
        self.records.push_back(Record::Set { id, token });
        id
    }

    fn insert_set(&mut self, id: SetId, token: Token) {
        self.next_number = self.next_number.max(id.0 + 1);
        self.tokens.insert(token, Resource::Set(id));
        self.sets.insert(id, Set { token, members: BTreeSet::new(), monitor: None });
        self.empty_sets.insert(id);
    }

    fn insert_subscription(
        &mut self,
        id: SubscriptionId,
        set: SetId,
        (token, push): (Token, Token),
        restricted: Option<ApplicationServerKey>,
    ) {
        self.next_number = self.next_number.max(id.0 + 1);
        self.tokens.insert(token, Resource::Subscription(id));
        self.tokens.insert(push, Resource::Push(id));
        self.subscriptions.insert(id, Subscription::new(token, push, set, restricted));
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
        let subscription = self.subscriptions.get_mut(&id).expect("the caller made sure of the subscription");
        subscription.waiting_count += 1;
        subscription.messages.insert(sequence, Message::new(stored, expires, was_stored));
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
