//! What is to be done next, found in state.

use std::rc::Rc;

use super::connection::ConnectionId;
use super::delivery::{Slot, SlotId, Stage};
use super::departure::Departure;
use super::device::{Device, DeviceIndex, Isolation};
use super::record::{Key, Record};
use super::subscription::{Life, Mark, Role, Subscription, SubscriptionId};
use super::upstream::{Upstream, UpstreamId};
use super::{Behind, Change, Gateway, Output, Reply, Subject};
use crate::limits::{
    FETCH_COUNT_MAX, FETCH_HELD_COUNT_MAX, FETCH_PAUSE_MS, FETCH_PER_SUBSCRIPTION_MAX, STORE_QUEUE_COUNT,
    UPSTREAM_COUNT_MAX,
};
use crate::time::Duration;
use crate::webpush::resource::SetUri;
use crate::wire::DeviceId;

impl Gateway {
    /// The next thing to do; called until none is left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.promise_output()
            .or_else(|| self.decode_output())
            .or_else(|| self.deliver_output())
            .or_else(|| self.acknowledge_output())
            .or_else(|| self.announce_output())
            .or_else(|| self.persist_output())
            .or_else(|| self.reply_output())
            .or_else(|| self.status_output())
            .or_else(|| self.connection_output())
            .or_else(|| self.request_output())
    }

    fn promise_output(&mut self) -> Option<Output> {
        let output = self.promise.take()?;
        if let Output::Admit { slot, .. } = &output
            && let Some(slot) = self.delivery.get_mut(*slot)
        {
            slot.stage = Stage::Receiving;
        }
        Some(output)
    }

    /// One body at a time: decrypting takes milliseconds of the only thread on a board.
    fn decode_output(&mut self) -> Option<Output> {
        if self.delivery.iter().any(|(_, slot)| matches!(slot.stage, Stage::Decoding)) {
            return None;
        }
        let received = self.delivery.iter().filter(|(_, slot)| matches!(slot.stage, Stage::Received(_)));
        let (id, _) = received.min_by_key(|(_, slot)| slot.order)?;
        let slot = self.delivery.get_mut(id)?;
        let route = slot.route?;
        let keys = Rc::clone(&self.subscriptions.get(route.subscription)?.keys);
        match std::mem::replace(&mut slot.stage, Stage::Decoding) {
            Stage::Received(body) => Some(Output::Decode { slot: id, keys, body }),
            _ => None,
        }
    }

    fn deliver_output(&mut self) -> Option<Output> {
        let (id, is_urgent) = self.devices.iter().find_map(|(index, device)| self.next_for(index, device))?;
        let slot = self.delivery.get_mut(id)?;
        let route = slot.route?;
        let device = self.devices.get(route.device)?;
        let (session, _) = device.ready()?;
        let channel = self.subscriptions.get(route.subscription)?.channel;
        let (message, Stage::Ready(body)) = (slot.id?, &slot.stage) else { return None };
        let (body, until) = (Rc::clone(body), slot.deadline);
        let age = slot.age.map(|age| age + self.now.since(slot.promised_at));
        (slot.stage, slot.until) = (Stage::Sent(Rc::clone(&body)), until);
        self.counters.relayed += 1;
        Some(Output::Deliver { device: device.id.clone(), session, message, channel, body, until, age, is_urgent })
    }

    /// The next message for a device that hears and has not as many as it can remember, and whether it overtakes others.
    fn next_for(&self, index: DeviceIndex, device: &Device) -> Option<(SlotId, bool)> {
        let (_, terms) = device.ready()?;
        if self.delivery.sent_to(index) >= terms.in_flight_max {
            return None;
        }
        let is_urgent = |slot: &Slot| {
            let entry = slot.route.and_then(|route| self.subscriptions.get(route.subscription));
            entry.is_some_and(|entry| device.options.link.urgent_channels.contains(&entry.channel))
        };
        let urgent = self.delivery.next_for(index, is_urgent).map(|id| (id, true));
        urgent.or_else(|| Some((self.delivery.next_for(index, |slot| !is_urgent(slot))?, false)))
    }

    fn acknowledge_output(&mut self) -> Option<Output> {
        let (now, upstreams) = (self.now, &self.upstreams);
        let on = |upstream| upstreams.get(upstream).and_then(|upstream| upstream.uplink.requests_on());
        for (_, slot) in self.delivery.iter_mut() {
            if let Some(connection) = on(slot.upstream)
                && let Stage::Acked(acknowledgement) = &mut slot.stage
                && acknowledgement.is_due(now)
            {
                acknowledgement.sent(connection, now);
                return Some(Output::Acknowledge { connection, message: slot.message.clone() });
            }
        }
        for freed in self.delivery.freed_mut() {
            if let Some(connection) = on(freed.upstream)
                && let Some(acknowledgement) = &mut freed.acknowledgement
                && acknowledgement.is_due(now)
            {
                acknowledgement.sent(connection, now);
                return Some(Output::Acknowledge { connection, message: freed.message.clone() });
            }
        }
        None
    }

    /// Whether a change waits to be written.
    pub(super) fn wants_persist(&self) -> bool {
        self.last_time.is_behind()
            || self.upstreams.iter().any(|upstream| upstream.is_set_behind || upstream.lasting.is_behind())
            || self.departures.iter().any(Departure::is_behind)
            || self.orphans_to_store().is_some()
            || self.wants_acknowledgement_written()
            || self.wants_announced_written()
            || self.stopped.iter().any(|stopped| stopped.is_behind)
            || !self.behind.devices.is_empty()
            || !self.behind.ended.is_empty()
            || self.subscriptions.iter().any(|entry| entry.life.is_behind())
    }

    /// Whether the grant of a subscription is being written.
    fn is_granting(&self, id: SubscriptionId) -> bool {
        self.persisting.iter().any(|(_, subject)| matches!(subject, Subject::Granted(other) if *other == id))
    }

    /// Whether it is on flash that a device was added, or removed.
    pub fn is_device_stored(&self, id: &DeviceId) -> bool {
        is_stored(&self.persisting, &self.behind, id)
    }

    fn persist_output(&mut self) -> Option<Output> {
        if self.persisting.len() >= STORE_QUEUE_COUNT || self.persist_not_before > self.now {
            return None;
        }
        let (subject, change, also) = self.next_change()?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.persisting.push((ticket, subject));
        Some(Output::Persist { ticket, change, also: also.map(Box::new) })
    }

    /// Removals come first: the record of an ended subscription has the key of the one that replaces it.
    fn next_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        if let Some(key) = self.behind.ended.pop() {
            return Some((Subject::Ended(key.clone()), Change::Remove(key), None));
        }
        if let Some((id, record)) = self.behind.devices.pop() {
            let change = match record.clone() {
                Some(record) => Change::Put(Record::Device(record)),
                None => Change::Remove(Key::Device(id.clone())),
            };
            return Some((Subject::Device(id, record), change, None));
        }
        if let Some((change, also)) = self.last_time.change(self.now) {
            return Some((Subject::Time, change, also));
        }
        if let Some(count) = self.orphans_to_store() {
            self.orphans_persisting(count);
            let change = if count == 0 { Change::Remove(Key::Orphans) } else { Change::Put(Record::Orphans(count)) };
            return Some((Subject::Orphans(count), change, None));
        }
        if let Some((subject, set, key)) = self.departure_behind() {
            return Some((subject, set.map_or(Change::Remove(key), |set| Change::Put(Record::Departure(set))), None));
        }
        self.announced_change()
            .or_else(|| self.stopped_change())
            .or_else(|| self.acknowledgement_change())
            .or_else(|| self.set_change())
            .or_else(|| self.subscription_change())
            .or_else(|| self.alternatives_change())
    }

    fn set_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let upstream = self.upstreams.iter_mut().find(|upstream| upstream.is_set_behind)?;
        upstream.is_set_behind = false;
        let (id, set) = (upstream.id, upstream.set.clone());
        let service = (id != UpstreamId::HOME).then(|| upstream.service.authority().to_owned());
        let change = match set {
            Some(set) => Change::Put(Record::Set { service, set }),
            None => Change::Remove(Key::Set(service)),
        };
        Some((Subject::Set(id), change, None))
    }

    fn subscription_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let next = |entry: &&Subscription| entry.life.is_behind() && !self.is_granting(entry.id);
        let id = self.subscriptions.iter().find(next)?.id;
        let entry = self.subscriptions.get_mut(id)?;
        let subject = match &mut entry.life {
            Life::Granted { persisting, .. } => {
                *persisting = true;
                Subject::Granted(entry.id)
            }
            Life::Leaving { mark, .. } => {
                *mark = Mark::Persisting;
                Subject::Leaving(entry.id)
            }
            Life::Erasing { persisting } => {
                *persisting = true;
                return Some((Subject::Erased(entry.id), Change::Remove(entry.key()), None));
            }
            Life::Wanted { .. } | Life::Requested { .. } | Life::Active(_) => return None,
        };
        let home = self.upstreams.get(entry.place.home)?.service.clone();
        // What replaces another takes its place on flash, and that one is kept under another key: both at once.
        if let (Role::Replacement { of }, Subject::Granted(_)) = (entry.role, &subject) {
            let record = Record::Subscription(entry.stored(&home)?);
            let old = self.subscriptions.get(of).and_then(|old| Some((old, self.upstreams.get(old.place.home)?)));
            let old = old.and_then(|(old, upstream)| old.stored(&upstream.service));
            return Some((subject, Change::Put(record), old.map(|old| Change::Put(Record::Retired(old)))));
        }
        Some((subject, Change::Put(entry.record(&home)?), None))
    }

    fn reply_output(&mut self) -> Option<Output> {
        if let Some((index, reply)) = self.reply.take()
            && let Some(device) = self.devices.get_mut(index)
        {
            match (device.ready(), reply) {
                (Some((session, _)), reply) => {
                    return Some(Output::Reply { device: device.id.clone(), session, reply });
                }
                (None, Reply::Unsubscribed { channel }) => device.note_ended(channel),
                // The others answer a word, and who speaks hears.
                (None, _) => {}
            }
        }
        if let Some(reply) = self.devices.iter_mut().find_map(|device| {
            let (session, _) = device.ready()?;
            let channel = device.ended.pop()?;
            Some(Output::Reply { device: device.id.clone(), session, reply: Reply::Unsubscribed { channel } })
        }) {
            return Some(reply);
        }
        let (persisting, behind) = (&self.persisting, &self.behind);
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.reply_due) {
            let Life::Active(granted) = &entry.life else { continue };
            // After a power cut a device that is not stored is unknown, and its subscriptions leave.
            if !is_stored(persisting, behind, &entry.device_id) {
                continue;
            }
            let Some(device) = entry.device.and_then(|index| self.devices.get(index)) else { continue };
            let Some((session, _)) = device.ready() else { continue };
            entry.reply_due = false;
            let (public, auth) = (*entry.keys.public(), *entry.keys.auth());
            let reply = Reply::Subscribed { channel: entry.channel, send: granted.send.clone(), public, auth };
            return Some(Output::Reply { device: device.id.clone(), session, reply });
        }
        None
    }

    fn connection_output(&mut self) -> Option<Output> {
        if let Some(connection) = self.closing.pop() {
            return Some(Output::Close { connection });
        }
        let (now, delivery, subscriptions) = (self.now, &self.delivery, &self.subscriptions);
        for upstream in self.upstreams.iter_mut() {
            if let Some(connection) = upstream.uplink.take_dead() {
                return Some(Output::Drop { connection });
            }
            if let Some(connection) = upstream.uplink.ping_next(now) {
                return Some(Output::Ping { connection });
            }
            if let Some(old) = upstream.uplink.old() {
                let is_asked = |life: &Life| matches!(life, Life::Requested { on, .. } if *on == old);
                let is_drained = !delivery.iter().any(|(_, slot)| slot.is_arriving_on(old))
                    && !subscriptions.iter().any(|entry| is_asked(&entry.life));
                if let Some(connection) = upstream.uplink.close_next(is_drained, now) {
                    return Some(Output::Close { connection });
                }
            }
        }
        let is_due = |it: &Upstream| {
            let due_at = it.uplink.connect_at().or_else(|| it.move_at(now));
            self.is_needed(it.id) && due_at.is_some_and(|at| at <= now)
        };
        let id = self.upstreams.iter().find(|upstream| is_due(upstream))?.id;
        let connection = self.upstreams.next_connection();
        let upstream = self.upstreams.get_mut(id)?;
        let alternative = upstream.alternatives.best(now).cloned();
        upstream.uplink.connecting(connection, alternative.clone());
        let (service, context) = (upstream.service.clone(), upstream.context.clone());
        Some(Output::Connect { connection, service, context, alternative })
    }

    fn request_output(&mut self) -> Option<Output> {
        let ready = |upstream: &Upstream| Some((upstream.id, upstream.uplink.requests_on()?));
        let ready: heapless::Vec<_, UPSTREAM_COUNT_MAX> = self.upstreams.iter().filter_map(ready).collect();
        ready.into_iter().find_map(|(upstream, connection)| self.request_on(upstream, connection))
    }

    fn request_on(&mut self, id: UpstreamId, connection: ConnectionId) -> Option<Output> {
        let has_stream_to_keep = self.has_stream_to_keep(id);
        let upstream = self.upstreams.get_mut(id)?;
        if has_stream_to_keep && let Some((monitor, target)) = upstream.monitors.open_next(self.now) {
            return Some(Output::Monitor { connection, monitor, target, urgency: self.level.current() });
        }
        self.subscribe_output(id, connection)
            .or_else(|| self.unsubscribe_output(id, connection))
            .or_else(|| self.departure_output(id, connection))
            .or_else(|| self.fetch_output(id, connection))
    }

    /// Whether one more request may stay open: one of the service's streams is always left for those that end.
    fn has_stream_to_keep(&self, id: UpstreamId) -> bool {
        let Some(upstream) = self.upstreams.get(id) else { return false };
        self.fetches_at(id) + upstream.monitors.open_count() + 1 < upstream.requests_max()
    }

    /// Requests for stored messages that are open.
    fn fetches_at(&self, id: UpstreamId) -> usize {
        self.subscriptions.iter().filter(|entry| entry.upstream == id).map(|entry| entry.fetch.open_count).sum()
    }

    /// The subscription to ask for next. One at a time at each service: the first answer names the set that the following
    /// requests present.
    pub(super) fn next_to_subscribe(&self, id: UpstreamId) -> Option<SubscriptionId> {
        let due = |entry: &&Subscription| {
            entry.upstream == id && matches!(entry.life, Life::Wanted { not_before } if not_before <= self.now)
        };
        let next = self.subscriptions.iter().find(due)?;
        let mut same = self.subscriptions.iter().filter(|entry| entry.place.home == next.place.home);
        let is_asking = same.any(|entry| matches!(entry.life, Life::Requested { .. }));
        (!is_asking).then_some(next.id)
    }

    fn subscribe_output(&mut self, id: UpstreamId, connection: ConnectionId) -> Option<Output> {
        let subscription = self.next_to_subscribe(id)?;
        if !self.orphans.cover(self.requested_count()) {
            return None;
        }
        let service = self.upstreams.get(id)?.service.clone();
        let set = self.set_to_present(subscription);
        let entry = self.subscriptions.get_mut(subscription)?;
        entry.life = Life::Requested { on: connection };
        let service = entry.asks.clone().unwrap_or(service);
        let restricted_to = entry.place.restricted_to.clone();
        Some(Output::Subscribe { connection, subscription, service, set, restricted_to })
    }

    /// The set of all, or that of a device that is kept apart; none that was refused or is to be left.
    fn set_to_present(&self, subscription: SubscriptionId) -> Option<SetUri> {
        let entry = self.subscriptions.get(subscription).filter(|entry| !entry.without_set)?;
        let home = entry.place.home;
        let set = match entry.place.isolation {
            Isolation::None => self.upstreams.get(home)?.set.as_ref(),
            Isolation::Set | Isolation::Connection => self.subscriptions.set_of_device(&entry.device_id, home),
        };
        let is_left =
            |set: &SetUri| self.abandoned.iter().any(|(other, _)| other == set) || self.departures.contains(set);
        set.filter(|set| !is_left(set)).cloned()
    }

    /// Only once the store knows, as with single ones.
    fn departure_output(&mut self, id: UpstreamId, connection: ConnectionId) -> Option<Output> {
        let now = self.now;
        let mut due = self.departures.iter_mut().filter(|it| it.upstream == id && it.is_due());
        let departure = due.find(|it| it.not_before <= now)?;
        departure.in_flight = Some(connection);
        Some(Output::UnsubscribeSet { connection, set: departure.set.clone() })
    }

    /// Only once the store knows: a restart must not take up again what the service may have removed.
    fn unsubscribe_output(&mut self, id: UpstreamId, connection: ConnectionId) -> Option<Output> {
        let now = self.now;
        self.subscriptions.iter_mut().filter(|entry| entry.upstream == id).find_map(|entry| match &mut entry.life {
            Life::Leaving { granted, mark: Mark::Stored, in_flight, not_before }
                if in_flight.is_none() && *not_before <= now =>
            {
                *in_flight = Some(connection);
                Some(Output::Unsubscribe { connection, subscription: entry.id, read: granted.read.clone() })
            }
            _ => None,
        })
    }

    /// Asks for what waits at the service once nearly all of the device's slots are free.
    fn fetch_output(&mut self, id: UpstreamId, connection: ConnectionId) -> Option<Output> {
        let open_count = self.fetches_at(id);
        let keeps_one = self.has_stream_to_keep(id);
        // The last stream is for one request after another; a monitor leaves at least that one.
        if open_count >= FETCH_COUNT_MAX || (!keeps_one && open_count > 0) {
            return None;
        }
        let (now, devices, delivery) = (self.now, &self.devices, &self.delivery);
        let entry = self.subscriptions.iter_mut().filter(|entry| entry.upstream == id).find(|entry| {
            let Some(index) = entry.device else { return false };
            entry.fetch.due_at().is_some_and(|at| at <= now)
                && entry.fetch.open_count < FETCH_PER_SUBSCRIPTION_MAX
                && devices.get(index).is_some_and(|device| device.ready().is_some())
                && delivery.held_by(index) <= FETCH_HELD_COUNT_MAX
                && delivery.has_room(Some(index))
                && matches!(entry.life, Life::Active(_))
        })?;
        let read = entry.active()?.read.clone();
        entry.fetch.asked(now + Duration::from_millis(FETCH_PAUSE_MS));
        let subscription = entry.id;
        self.upstreams.get_mut(id)?.last_stream_taken = (!keeps_one).then_some(now);
        Some(Output::Fetch { connection, subscription, read, urgency: self.level.current() })
    }
}

/// Whether all that is to be written about a device itself is written.
fn is_stored(persisting: &[(u64, Subject)], behind: &Behind, id: &DeviceId) -> bool {
    let mut writing = persisting.iter().map(|(_, subject)| subject);
    !writing.any(|subject| matches!(subject, Subject::Device(device, _) if device == id))
        && !behind.devices.iter().any(|(device, _)| device == id)
}
