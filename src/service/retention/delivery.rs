//! The half of the machine that pushes: which message goes where, and what happens to it afterwards.

use crate::limits::{
    SERVICE_DRAIN_MS_MAX, SERVICE_IN_FLIGHT_PER_SUBSCRIPTION, SERVICE_PAUSE_MS_MAX, SERVICE_PAUSE_MS_MIN,
    SERVICE_RETRY_MS_MAX, SERVICE_RETRY_MS_MIN,
};
use crate::random::{Random, between_ms};
use crate::time::{Duration, Instant};
use crate::webpush::headers::Urgency;

use super::super::token::Token;
use super::model::{Delivery, Mode, Monitor, Monitored, Owner, Timer};
use super::{
    ConnectionId, DeliveryId, Ending, Input, Moment, MonitorId, Outcome, Output, Push, Reply, Resource, Retention,
    Room, SubscriptionId,
};

impl Retention {
    /// Takes in what became of a push, a monitor or a connection. News of what is already over changes nothing.
    pub fn handle_input(&mut self, input: Input, now: Moment, random: &mut dyn Random) {
        match input {
            Input::Delivered(delivery) => self.delivered(delivery, now, random),
            Input::Refused(delivery) => self.refused(delivery, now, random),
            Input::Dropped(delivery) => {
                self.end_promise(delivery);
                if self.is_current(delivery, |at| at != Delivery::Waiting) {
                    self.put_back(delivery.subscription, delivery.sequence);
                }
            }
            Input::MonitorClosed(monitor) => self.close_monitor(monitor, now),
            Input::ConnectionClosed(connection) => self.connection_closed(connection, now),
            Input::Unsent(receipt) => self.give_back_receipt(receipt),
            Input::Received(receipt) => self.received(receipt),
            Input::Stored(records) => self.stored(records),
            Input::NotStored(token) => self.not_stored(token),
            Input::Expire(token) => self.expire(token),
            Input::Stop => {
                self.is_stopping = true;
                for monitor in self.monitors.keys().copied().collect::<Vec<_>>() {
                    self.end_monitor(Some(monitor), Ending::Pushed);
                }
            }
        }
    }

    /// The next thing a connection has to do; a push only where it has room for one.
    pub fn poll_output(&mut self, connection: ConnectionId, room: Room, now: Moment) -> Option<Output> {
        for monitor in self.monitors_of(connection) {
            if room.is_for(monitor)
                && let Some(output) = self.next_output(monitor, now)
            {
                return Some(output);
            }
            if let Some(ending) = self.due_ending(monitor, now) {
                self.close_monitor(monitor, now);
                return Some(Output::End(monitor, ending));
            }
        }
        None
    }

    fn next_output(&mut self, monitor: MonitorId, now: Moment) -> Option<Output> {
        match self.monitors.get(&monitor)?.resource {
            Monitored::Receipts(id) => self.next_receipt(id, monitor).map(Output::Receipt),
            _ => self.next_push(monitor, now).map(|push| Output::Push(Box::new(push))),
        }
    }

    /// Whether a promised message should still be sent: it was neither ended nor given back, and has not expired.
    pub fn is_live(&self, delivery: DeliveryId, now: Moment) -> bool {
        self.is_current(delivery, |at| matches!(at, Delivery::Promised { .. }))
            && self.subscriptions[&delivery.subscription].messages[&delivery.sequence].expires > now.instant
    }

    pub(super) fn monitor(
        &mut self,
        resource: Token,
        id: MonitorId,
        wait_s: Option<u64>,
        urgency: Urgency,
        now: Moment,
    ) -> Reply {
        let (monitored, members, before) = match self.tokens.get(&resource).copied() {
            Some(Resource::Subscription(one)) => {
                let before = self.subscriptions.get_mut(&one).and_then(|it| it.monitor.replace(id));
                (Monitored::Subscription(one), vec![one], before)
            }
            Some(Resource::Set(set)) => {
                let entry = self.sets.get_mut(&set).expect("tokens name live sets");
                let before = entry.monitor.replace(id);
                (Monitored::Set(set), entry.members.iter().copied().collect(), before)
            }
            Some(Resource::Receipts(receipts)) => {
                let before = self.receipts.get_mut(&receipts).and_then(|it| it.monitor.replace(id));
                (Monitored::Receipts(receipts), vec![], before)
            }
            _ => return Reply::Gone,
        };
        let mode = match wait_s {
            None => Mode::Open,
            Some(0) => Mode::Drain(now.instant + Duration::from_millis(SERVICE_DRAIN_MS_MAX)),
            Some(wait) => Mode::Until(now.instant + Duration::from_secs(wait)),
        };
        self.monitors.insert(id, Monitor::new(monitored, mode, urgency));
        self.set_end_timer(id, mode);
        self.end_monitor(before, Ending::Replaced);
        if self.is_stopping {
            self.end_monitor(Some(id), Ending::Pushed);
        }
        self.woken.insert(id.connection);
        if let Some(set) = members.first().and_then(|member| self.subscriptions.get(member)).map(|it| it.set) {
            self.release_batch(set);
        }
        for member in members {
            self.mark_monitored(member);
            self.clear_pause(member);
            if wait_s == Some(0) {
                self.put_back_unacknowledged(member);
            }
            self.offer(member);
        }
        Reply::Monitoring
    }

    pub(super) fn acknowledge(&mut self, subscription: SubscriptionId, sequence: u64, now: Moment) -> Reply {
        let is_expired = self.subscriptions[&subscription].messages[&sequence].expires <= now.instant;
        if !is_expired {
            self.clear_pause(subscription);
        }
        let end = if is_expired { Outcome::GivenUp } else { Outcome::Acknowledged };
        self.end_message(subscription, sequence, end);
        if is_expired { Reply::Gone } else { Reply::Removed }
    }

    /// Whether a message for this subscription could be taken by a connection at once.
    pub(super) fn can_push(&self, id: SubscriptionId) -> bool {
        let subscription = &self.subscriptions[&id];
        let in_flight_max = if subscription.pause_count > 0 { 1 } else { SERVICE_IN_FLIGHT_PER_SUBSCRIPTION };
        subscription.paused_until.is_none()
            && self.sets[&subscription.set].paced_until.is_none()
            && subscription.in_flight_count < in_flight_max
            && self.serving(id).is_some()
    }

    /// The monitor that serves a subscription: the one on itself before the one on its set.
    fn serving(&self, id: SubscriptionId) -> Option<MonitorId> {
        let subscription = &self.subscriptions[&id];
        let candidates = [subscription.monitor, self.sets[&subscription.set].monitor];
        candidates.into_iter().flatten().find(|monitor| self.monitors[monitor].ending.is_none())
    }

    /// The least urgency of messages that may be pushed for a subscription now.
    ///
    /// Source: RFC 8030 §5.3.
    pub(super) fn least_wanted(&self, id: SubscriptionId) -> Urgency {
        self.serving(id).map_or(Urgency::VeryLow, |monitor| self.monitors[&monitor].urgency)
    }

    /// Puts a subscription into the line of the monitor that serves it, if it has anything to push there.
    pub(super) fn offer(&mut self, id: SubscriptionId) {
        if !self.subscriptions.contains_key(&id) || !self.can_push(id) || self.first_waiting(id).is_none() {
            return;
        }
        let serving = self.serving(id);
        if self.subscriptions[&id].queued_on == serving {
            return;
        }
        self.leave_line(id);
        if let Some(monitor) = serving {
            self.subscriptions.get_mut(&id).expect("looked at above").queued_on = serving;
            self.monitors.get_mut(&monitor).expect("serving monitors exist").ready.push_back(id);
            self.woken.insert(monitor.connection);
        }
    }

    /// Takes a subscription out of the line it stands in.
    pub(super) fn leave_line(&mut self, id: SubscriptionId) {
        let left = self.subscriptions.get_mut(&id).and_then(|it| it.queued_on.take());
        if let Some(monitor) = left.and_then(|monitor| self.monitors.get_mut(&monitor)) {
            monitor.ready.retain(|other| *other != id);
        }
    }

    fn next_push(&mut self, monitor: MonitorId, now: Moment) -> Option<Push> {
        while let Some(id) = self.monitors.get_mut(&monitor)?.ready.pop_front() {
            self.subscriptions.get_mut(&id).expect("who ends leaves the line").queued_on = None;
            self.end_expired(id, now);
            if self.serving(id) == Some(monitor) && self.can_push(id) {
                let push = self.take_push(id, monitor, now);
                self.offer(id);
                if push.is_some() {
                    return push;
                }
            } else {
                self.offer(id);
            }
        }
        None
    }

    /// Ends expired messages that stand before the first one that may be pushed.
    fn end_expired(&mut self, id: SubscriptionId, now: Moment) {
        while let Some(sequence) = self.first_waiting(id) {
            if self.subscriptions[&id].messages[&sequence].expires > now.instant {
                return;
            }
            // It leaves the tables before anything is offered again, so this loop ends.
            self.end_quietly(id, sequence, Outcome::GivenUp);
        }
    }

    /// The waiting message that goes next, of those that are wanted.
    fn first_waiting(&self, id: SubscriptionId) -> Option<u64> {
        self.subscriptions[&id].ready.first(self.least_wanted(id))
    }

    fn take_push(&mut self, id: SubscriptionId, monitor: MonitorId, now: Moment) -> Option<Push> {
        let sequence = self.first_waiting(id)?;
        let drains = u32::from(matches!(self.monitors.get(&monitor)?.mode, Mode::Drain(_)));
        let subscription = self.subscriptions.get_mut(&id)?;
        subscription.change(sequence, |message| {
            message.attempt += 1;
            message.drain_count += drains;
        });
        let message = subscription.messages.get(&sequence)?;
        let delivery = DeliveryId { monitor, subscription: id, sequence, attempt: message.attempt };
        let push = Push {
            delivery,
            monitor,
            message: message.stored.token,
            push: subscription.push,
            content: message.stored.content.clone(),
            last_modified: Self::last_modified(message, now),
            max_age_s: message.rest_s(now),
        };
        let set = subscription.set;
        self.place(id, sequence, Delivery::Promised { connection: monitor.connection });
        self.count_push(set, now);
        let entry = self.monitors.get_mut(&monitor)?;
        entry.unended.insert(delivery);
        entry.has_pushed = true;
        if let Mode::Drain(until) = entry.mode {
            let later = Mode::Drain(now.instant + Duration::from_millis(SERVICE_DRAIN_MS_MAX));
            entry.mode = later;
            self.timers.remove(&(until, Timer::End(monitor)));
            self.set_end_timer(monitor, later);
        }
        Some(push)
    }

    /// How a monitor ends, if it is time: what it promised is written, and nothing more is coming.
    fn due_ending(&self, id: MonitorId, now: Moment) -> Option<Ending> {
        let monitor = &self.monitors[&id];
        if monitor.ending == Some(Ending::Gone) {
            return Some(Ending::Gone);
        }
        if !monitor.unended.is_empty() {
            return None;
        }
        let answered = if monitor.has_pushed { Ending::Pushed } else { Ending::Nothing };
        // A monitor that is ending may have outlived its resource.
        monitor.ending.or_else(|| match monitor.mode {
            Mode::Open => None,
            Mode::Until(until) => (now.instant >= until).then_some(answered),
            Mode::Drain(until) => (now.instant >= until || !self.has_more(id)).then_some(answered),
        })
    }

    /// Whether a monitor will have something to push without a new message: now, or after an acknowledgement.
    fn has_more(&self, id: MonitorId) -> bool {
        let waits = |member: &SubscriptionId| {
            let subscription = &self.subscriptions[member];
            subscription.paused_until.is_none()
                && self.serving(*member) == Some(id)
                && self.first_waiting(*member).is_some()
        };
        match self.monitors[&id].resource {
            Monitored::Subscription(one) => waits(&one),
            Monitored::Set(set) => self.sets[&set].members.iter().any(waits),
            Monitored::Receipts(receipts) => self.receipts[&receipts].has_waiting(),
        }
    }

    fn delivered(&mut self, delivery: DeliveryId, now: Moment, random: &mut dyn Random) {
        self.end_promise(delivery);
        if !self.is_current(delivery, |at| matches!(at, Delivery::Promised { .. })) {
            return;
        }
        let message = &self.subscriptions[&delivery.subscription].messages[&delivery.sequence];
        // One with a receipt stays for the moment in which its acknowledgement may come.
        if !message.is_durable() && message.stored.receipts.is_none() {
            self.end_message(delivery.subscription, delivery.sequence, Outcome::GivenUp);
            return;
        }
        let wait = doubled(SERVICE_RETRY_MS_MIN, SERVICE_RETRY_MS_MAX, message.attempt);
        let retry_at = later(now, wait, random);
        let connection = delivery.monitor.connection;
        self.place(delivery.subscription, delivery.sequence, Delivery::Unacknowledged { connection, retry_at });
    }

    fn refused(&mut self, delivery: DeliveryId, now: Moment, random: &mut dyn Random) {
        self.end_promise(delivery);
        if !self.is_current(delivery, |at| at != Delivery::Waiting) {
            return;
        }
        let id = delivery.subscription;
        if let Some(subscription) = self.subscriptions.get_mut(&id).filter(|it| it.paused_until.is_none()) {
            subscription.pause_count += 1;
            let until =
                later(now, doubled(SERVICE_PAUSE_MS_MIN, SERVICE_PAUSE_MS_MAX, subscription.pause_count), random);
            subscription.paused_until = Some(until);
            self.timers.insert((until, Timer::Resume(id)));
        }
        if self.monitors.get(&delivery.monitor).is_some_and(|it| matches!(it.mode, Mode::Drain(_))) {
            self.end_monitor(Some(delivery.monitor), Ending::Pushed);
        }
        self.put_back(id, delivery.sequence);
    }

    /// Lets be pushed again what was written but not acknowledged.
    ///
    /// A receiver cannot refuse a small message: all of it is there before the receiver looks. So one that asks for what
    /// is stored now may lack these as well, and it knows which of them it still has.
    ///
    /// Source: RFC 8030 §6 (`wait=0` delivers everything not yet delivered), §6.2 (delivered is what is acknowledged).
    fn put_back_unacknowledged(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        let unacknowledged = |delivery| matches!(delivery, Delivery::Unacknowledged { .. });
        let messages = subscription.messages.iter().filter(|(_, message)| unacknowledged(message.delivery));
        for sequence in messages.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            self.put_back(id, sequence);
        }
    }

    /// Lets a message be pushed again, except one that was pushed as often as it may.
    pub(super) fn put_back(&mut self, id: SubscriptionId, sequence: u64) {
        let attempt_count_max = self.policy.attempt_count_max.unwrap_or(u32::MAX);
        let Some(message) = self.message_mut(id, sequence) else { return };
        if message.is_durable() && message.attempt < attempt_count_max {
            self.place(id, sequence, Delivery::Waiting);
            self.offer(id);
        } else {
            self.end_message(id, sequence, Outcome::GivenUp);
        }
    }

    fn is_current(&self, delivery: DeliveryId, is_there: impl Fn(Delivery) -> bool) -> bool {
        let message = self.subscriptions.get(&delivery.subscription).and_then(|it| it.messages.get(&delivery.sequence));
        message.is_some_and(|message| message.attempt == delivery.attempt && is_there(message.delivery))
    }

    fn end_promise(&mut self, delivery: DeliveryId) {
        if let Some(monitor) = self.monitors.get_mut(&delivery.monitor) {
            monitor.unended.remove(&delivery);
            self.woken.insert(delivery.monitor.connection);
        }
    }

    /// Ends a pause whose time is over; one message probes whether the receiver takes it now.
    pub(super) fn resume(&mut self, id: SubscriptionId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.paused_until = None;
            self.offer(id);
        }
    }

    fn clear_pause(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        subscription.pause_count = 0;
        if let Some(until) = subscription.paused_until.take() {
            self.timers.remove(&(until, Timer::Resume(id)));
        }
    }

    /// Marks a monitor as ending; its connection sends the answer.
    pub(super) fn end_monitor(&mut self, id: Option<MonitorId>, ending: Ending) {
        let Some(id) = id else { return };
        let Some(monitor) = self.monitors.get_mut(&id) else { return };
        if monitor.ending != Some(Ending::Gone) {
            monitor.ending = Some(ending);
        }
        self.woken.insert(id.connection);
        self.pass_on_line(id);
    }

    /// Forgets a monitor. What it promised goes on by itself.
    fn close_monitor(&mut self, id: MonitorId, now: Moment) {
        let Some(monitor) = self.monitors.get_mut(&id) else { return };
        monitor.ending = Some(Ending::Pushed);
        let (resource, mode) = (monitor.resource, monitor.mode);
        self.pass_on_line(id);
        self.monitors.remove(&id);
        if let Mode::Until(until) | Mode::Drain(until) = mode {
            self.timers.remove(&(until, Timer::End(id)));
        }
        let slot = match resource {
            Monitored::Subscription(one) => self.subscriptions.get_mut(&one).map(|it| &mut it.monitor),
            Monitored::Set(set) => self.sets.get_mut(&set).map(|it| &mut it.monitor),
            Monitored::Receipts(receipts) => self.receipts.get_mut(&receipts).map(|it| &mut it.monitor),
        };
        if let Some(slot) = slot.filter(|slot| **slot == Some(id)) {
            *slot = None;
        }
        self.used(resource.into(), now);
        if let Monitored::Subscription(one) = resource {
            // What it was in the way of can go to the set's monitor now.
            self.offer(one);
        }
    }

    /// Lets the subscriptions in an ending monitor's line stand in another one.
    fn pass_on_line(&mut self, id: MonitorId) {
        let Some(monitor) = self.monitors.get_mut(&id) else { return };
        for subscription in std::mem::take(&mut monitor.ready) {
            self.subscriptions.get_mut(&subscription).expect("who ends leaves the line").queued_on = None;
            self.offer(subscription);
        }
    }

    fn connection_closed(&mut self, connection: ConnectionId, now: Moment) {
        for monitor in self.monitors_of(connection) {
            self.close_monitor(monitor, now);
        }
        self.give_back_receipts(connection);
        let first = (connection, SubscriptionId(0), 0);
        let last = (connection, SubscriptionId(u64::MAX), u64::MAX);
        for (_, subscription, sequence) in self.carried.range(first..=last).copied().collect::<Vec<_>>() {
            self.put_back(subscription, sequence);
        }
        self.woken.remove(&connection);
    }

    /// Ends a resource as if its time were over.
    fn expire(&mut self, token: Token) {
        match self.tokens.get(&token).copied() {
            Some(Resource::Subscription(id)) => self.expire_owner(Owner::Subscription(id)),
            Some(Resource::Set(id)) => self.expire_owner(Owner::Set(id)),
            Some(Resource::Receipts(id)) => self.expire_owner(Owner::Receipts(id)),
            Some(Resource::Message(id, sequence)) => self.end_message(id, sequence, Outcome::GivenUp),
            Some(Resource::Push(_)) | None => {}
        }
    }

    fn set_end_timer(&mut self, monitor: MonitorId, mode: Mode) {
        if let Mode::Until(until) | Mode::Drain(until) = mode {
            self.timers.insert((until, Timer::End(monitor)));
        }
    }
}

/// `min`, doubled with each attempt after the first, up to `max`.
fn doubled(min: u64, max: u64, attempt: u32) -> u64 {
    min.saturating_mul(1 << attempt.saturating_sub(1).min(32)).min(max)
}

/// The point `wait_ms` from now, or up to a quarter later so that receivers do not move in step.
fn later(now: Moment, wait_ms: u64, random: &mut dyn Random) -> Instant {
    now.instant + Duration::from_millis(between_ms(random, wait_ms, wait_ms + wait_ms / 4))
}
