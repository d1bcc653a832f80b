//! Devices and subscriptions coming and going.

use super::connection::ConnectionId;
use super::delivery::Stage;
use super::device::{DeviceIndex, Isolation, Presence, StatusDue, Terms};
use super::monitor::MonitorId;
use super::record::{DeviceRecord, Key, Record, Tag};
use super::subscription::{Life, Mark, Role, Stored, Subscription, SubscriptionId};
use super::upstream::{Reason, Upstream, UpstreamId};
use super::{Gateway, Reply};
use crate::limits::{CHANNELS_PER_DEVICE_MAX, ROTATION_GRACE_MS, SUBSCRIBE_UNKNOWN_MS};
use crate::time::{ClockReading, Duration};
use crate::webpush::exchange::{Deletion, Granted, Next, SubscribeError, Target};
use crate::webpush::resource::{PushServiceUri, SetUri, SubscriptionUri};
use crate::webpush::subscription::PushSubscription;
use crate::wire::{ChannelId, DeviceId};

impl Gateway {
    /// Takes up a stored fact. A subscription whose device never turns up is removed at the service.
    pub(super) fn restored(&mut self, record: Record) {
        match record {
            Record::Subscription(stored) => self.restore_subscription(stored, Role::Current),
            Record::Retired(stored) => {
                let at = self.now + Duration::from_millis(ROTATION_GRACE_MS);
                self.restore_subscription(stored, Role::Retired { at });
            }
            Record::Set { service, set } => self.restore_set(service, set),
            Record::Departure(set) => self.restore_departure(set),
            Record::Announced(device, channel, hash) => self.restore_announced((device, channel), hash),
            Record::Stopped(device, channel) => self.restore_stopped(device, channel),
            // At most as many were ever owed as there are slots.
            Record::PendingAck(owed) => self.restored_acks.push(owed),
            Record::Orphans(count) => self.orphans.restored(count),
            Record::Time(time) => self.last_time.restored_earlier(time),
            Record::LastTime(time, boot) => self.last_time.restored(time, boot),
            Record::Alternatives(service, said) => self.restore_alternatives(service, said),
            Record::Device(device) => self.device_added(device, false),
        }
    }

    /// A set of another service would give it away there.
    fn restore_set(&mut self, service: Option<String>, set: SetUri) {
        let of = self.upstreams.configured_at(set.authority()).map(|upstream| upstream.id);
        let Some(upstream) = of.and_then(|id| self.upstreams.get_mut(id)) else {
            return self.behind.ended.push(Key::Set(service));
        };
        // A service that was the first one once has two.
        let is_own = service.is_some() != (upstream.id == UpstreamId::HOME);
        if is_own || upstream.set.is_none() {
            upstream.set = Some(set);
        }
        if !is_own {
            upstream.is_set_behind = true;
            self.behind.ended.push(Key::Set(service));
        }
    }

    fn restore_departure(&mut self, set: SetUri) {
        let of = self.upstreams.configured_at(set.authority()).map(|upstream| upstream.id);
        let known =
            self.subscriptions.iter().find(|entry| entry.granted().is_some_and(|it| it.set.as_ref() == Some(&set)));
        let begun = known
            .map(|entry| entry.upstream)
            .or(of)
            .is_some_and(|upstream| self.departures.begin(set.clone(), upstream, Mark::Stored, self.now).is_ok());
        if !begun {
            self.behind.ended.push(Key::Departure(Tag::of(set.as_str())));
        }
    }

    fn restore_subscription(&mut self, stored: Stored, role: Role) {
        // A record of another service is useless here, and its URIs must not be asked of this one.
        let Some(upstreams) = self.upstreams_of(&stored) else {
            let (device, channel) = (stored.device, stored.channel);
            self.behind.ended.push(match role {
                Role::Current => Key::Subscription(device, channel),
                _ => Key::Retired(device, channel, Tag::of(stored.granted.read.as_str())),
            });
            return;
        };
        // Beyond the bound nothing was ever stored; a store that was tampered with loses the rest here.
        if self.subscriptions.restore(stored, role, upstreams, self.now).is_ok() {
            self.reconcile_monitors();
        }
    }

    /// Where a stored subscription was asked for and where it is: at that service, or where it sent the request on to.
    fn upstreams_of(&mut self, stored: &Stored) -> Option<(UpstreamId, UpstreamId)> {
        let authority = stored.granted.read.authority();
        let home = self.upstreams.configured_at(stored.via.as_deref().unwrap_or(authority))?.id;
        let service = PushServiceUri::parse(&format!("https://{authority}/")).ok()?;
        Some((home, self.upstreams.move_on(home, &service, self.now).ok()?))
    }

    /// All devices are known: a subscription whose device is none of them is removed at the service, unless the record of
    /// that one may be what is lost.
    pub(super) fn started(&mut self) {
        let now = self.now;
        self.is_started = true;
        self.clock_looked_at(ClockReading::default());
        let leaving: Vec<SetUri> = self.departures.iter().map(|departure| departure.set.clone()).collect();
        for set in leaving {
            self.leave_set(&set, true);
        }
        // A removal that was cut short: whose device is there gets another one afterwards.
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.role == Role::Current && entry.is_leaving()) {
            entry.successor = entry.device.or(entry.successor);
        }
        self.fit_restored();
        self.restore_acknowledgements();
        self.settle_stopped();
        self.settle_announced();
        let is_stray = |entry: &&mut Subscription| entry.device.is_none() && !entry.is_leaving();
        if !self.is_incomplete {
            self.subscriptions.iter_mut().filter(is_stray).for_each(|entry| entry.leave(now));
        }
        self.reconcile_monitors();
    }

    /// Takes up a device and makes the subscriptions of its channels.
    pub(super) fn device_added(&mut self, record: DeviceRecord, lasting: bool) {
        if self.is_resetting {
            return;
        }
        let Ok(index) = self.devices.add(record.id.clone()) else { return };
        if let Some(device) = self.devices.get_mut(index) {
            device.options = record.options.clone();
        }
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device_id == record.id && !entry.is_leaving()) {
            entry.device = Some(index);
        }
        for &channel in &record.channels {
            // A table that is full leaves the channel without subscription; status shows it.
            if self.is_stopped(&record.id, channel) {
                continue;
            }
            self.want(index, &record.id, channel);
        }
        if self.is_started {
            self.fit(index);
        }
        if lasting {
            self.store_device(record.id.clone(), Some(record));
        }
    }

    /// Forgets a device: its subscriptions leave, its messages stay with the service.
    pub(super) fn device_removed(&mut self, id: &DeviceId) {
        let Some(index) = self.devices.find(id) else { return };
        self.give_up_where(|slot| slot.device() == Some(index));
        self.delivery.forget_device(index);
        let now = self.now;
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device_id == *id) {
            entry.device = None;
            entry.leave(now);
        }
        self.devices.remove(index);
        self.forgive(id, None);
        self.store_device(id.clone(), None);
        self.reconcile_monitors();
    }

    pub(super) fn store_device(&mut self, id: DeviceId, record: Option<DeviceRecord>) {
        self.behind.devices.retain(|(other, _)| *other != id);
        self.behind.devices.push((id, record));
    }

    /// Makes sure that a channel has a subscription, or gets one.
    pub(super) fn want(&mut self, index: DeviceIndex, id: &DeviceId, channel: ChannelId) -> bool {
        let now = self.now;
        if let Some(entry) = self.subscriptions.find_mut(id, channel) {
            if entry.is_leaving() {
                entry.successor = Some(index);
            } else {
                entry.device = Some(index);
            }
            return true;
        }
        let mine = self.subscriptions.iter().filter(|entry| entry.device_id == *id && entry.role == Role::Current);
        if mine.count() >= CHANNELS_PER_DEVICE_MAX || self.is_resetting {
            return false;
        }
        let Ok(place) = self.wanted_place(index) else { return false };
        self.subscriptions.want(index, id.clone(), channel, place, now, &mut *self.random).is_ok()
    }

    /// A device asks for a subscription; it is told at once if there is one.
    pub(super) fn subscribe_asked(&mut self, id: &DeviceId, channel: ChannelId) {
        let Some(index) = self.devices.find(id) else { return };
        self.forgive(id, Some(channel));
        if !self.want(index, id, channel) {
            self.reply = Some((index, Reply::Full { channel }));
        } else if let Some(entry) = self.subscriptions.find_mut(id, channel) {
            entry.reply_due = true;
        }
    }

    /// A device wants a subscription no longer.
    pub(super) fn unsubscribe_asked(&mut self, id: &DeviceId, channel: ChannelId) {
        let Some(index) = self.devices.find(id) else { return };
        let now = self.now;
        match self.subscriptions.find_mut(id, channel) {
            Some(entry) if entry.is_leaving() => entry.successor = None,
            Some(_) => {}
            None => self.reply = Some((index, Reply::Unsubscribed { channel })),
        }
        // With what replaces it, and with what it replaced.
        let mine = self.subscriptions.iter_mut().filter(|entry| entry.device_id == *id && entry.channel == channel);
        for entry in mine.filter(|entry| !entry.is_leaving()) {
            entry.leave(now);
        }
        self.reconcile_monitors();
    }

    /// A subscribe request was answered, or lost.
    pub(super) fn subscribed(
        &mut self,
        connection: ConnectionId,
        id: SubscriptionId,
        outcome: Option<Result<Granted, SubscribeError>>,
    ) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        match outcome {
            Some(Err(SubscribeError::Status(401 | 403))) => upstream.uplink.set_authorised(false),
            Some(Ok(_)) => upstream.uplink.set_authorised(true),
            _ => {}
        }
        let upstream = upstream.id;
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        let shares = entry.place.isolation == Isolation::None && entry.place.base == upstream;
        match outcome {
            Some(Ok(granted)) => {
                let set = granted.set.clone();
                entry.request_granted(granted, now);
                self.set_given(set.as_ref());
                if shares {
                    self.set_known(upstream, set);
                }
            }
            // Forget the set and ask once more without it, at once (RFC 8030 §4.1).
            Some(Err(SubscribeError::SetRefused)) => {
                entry.without_set = true;
                entry.request_again(now);
                if entry.place.isolation == Isolation::None {
                    let home = entry.place.home;
                    self.set_known(home, None);
                }
            }
            Some(Err(SubscribeError::Redirected(service))) => self.subscribe_redirected(id, upstream, service),
            Some(Err(SubscribeError::NotProcessed)) => entry.request_again(now),
            Some(Err(SubscribeError::Busy(asked))) => entry.request_failed(asked, now, random),
            Some(Err(_)) => entry.request_failed(None, now, random),
            None => {
                entry.request_failed(Some(Duration::from_millis(SUBSCRIBE_UNKNOWN_MS)), now, random);
                self.subscribe_lost();
            }
        }
    }

    /// The service sends a request on; one that is sent on too often, or to too many places, has failed.
    fn subscribe_redirected(&mut self, id: SubscriptionId, from: UpstreamId, service: PushServiceUri) {
        let upstream = self.upstreams.move_on(from, &service, self.now);
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        if !upstream.is_ok_and(|upstream| entry.redirected(upstream, service, now)) {
            entry.request_failed(None, now, random);
        }
    }

    /// Lets go of origins that the configuration does not name, once nothing of ours is there.
    pub(super) fn drop_unused_upstreams(&mut self) {
        while let Some(unused) = self.unused_upstream() {
            if let Some(upstream) = self.upstreams.get(unused) {
                self.closing.extend(upstream.uplink.all());
            }
            self.upstreams.remove(unused);
        }
    }

    fn unused_upstream(&self) -> Option<UpstreamId> {
        let is_unused = |it: &&Upstream| {
            !self.subscriptions.has_any_at(it.id)
                && self.acknowledgements(it.id).next().is_none()
                && !self.delivery.iter().any(|(_, slot)| slot.upstream == it.id)
                && !self.departures.iter().any(|departure| departure.upstream == it.id)
                && !self.subscriptions.iter().any(|entry| entry.place.base == it.id)
        };
        let mut added = self.upstreams.iter().filter(|upstream| upstream.reason != Reason::Configured);
        added.find(is_unused).map(|upstream| upstream.id)
    }

    fn set_known(&mut self, home: UpstreamId, set: Option<SetUri>) {
        if let Some(home) = self.upstreams.get_mut(home) {
            home.set_known(set);
        }
    }

    /// A granted subscription is on flash: only now it is in use and told.
    pub(super) fn granted_persisted(&mut self, id: SubscriptionId, stored: bool) {
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        match &mut entry.life {
            Life::Granted { persisting, .. } if !stored => *persisting = false,
            _ => entry.activate(self.now),
        }
        let device = entry.device;
        if stored {
            self.take_over(id);
        }
        if let Some(device) = device {
            self.fit(device);
        }
        self.reconcile_monitors();
    }

    /// That a subscription is leaving is on flash: a restart goes on removing it.
    pub(super) fn leaving_persisted(&mut self, id: SubscriptionId, stored: bool) {
        if let Some(Life::Leaving { mark, .. }) = self.subscriptions.get_mut(id).map(|entry| &mut entry.life) {
            *mark = if stored { Mark::Stored } else { Mark::Due };
        }
    }

    /// A device could not be stored or removed: again, unless something newer is to be said of it.
    pub(super) fn device_not_stored(&mut self, id: DeviceId, record: Option<DeviceRecord>) {
        if !self.behind.devices.iter().any(|(other, _)| *other == id) {
            self.behind.devices.push((id, record));
        }
    }

    /// The record of an ended subscription could not be removed: again, unless a new one has taken its place.
    pub(super) fn ended_not_stored(&mut self, key: Key) {
        let replaced = |life: &Life| matches!(life, Life::Granted { persisting: true, .. } | Life::Active(_));
        if !self.subscriptions.iter().any(|entry| entry.key() == key && replaced(&entry.life)) && !self.is_owed(&key) {
            self.behind.ended.push(key);
        }
    }

    /// A removal was answered.
    pub(super) fn unsubscribed(&mut self, id: SubscriptionId, outcome: Deletion) {
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        let Life::Leaving { in_flight, not_before, .. } = &mut entry.life else { return };
        match outcome {
            Deletion::Done => entry.life = Life::Erasing { persisting: false },
            Deletion::Retry(asked) => {
                *in_flight = None;
                *not_before = now + entry.backoff.fail(asked, random);
            }
        }
        self.reconcile_monitors();
    }

    /// The record of a removed subscription is gone from flash: it is forgotten, or made anew for who asked meanwhile.
    pub(super) fn erased_persisted(&mut self, id: SubscriptionId, stored: bool) {
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        if !stored {
            entry.life = Life::Erasing { persisting: false };
            return;
        }
        if let Some(device) = entry.successor.take() {
            entry.device = Some(device);
            entry.want(now, random);
            self.place_anew(id);
        } else {
            if entry.role == Role::Current {
                self.reply = entry.device.map(|device| (device, Reply::Unsubscribed { channel: entry.channel }));
            }
            self.subscriptions.remove(id);
        }
        let owed = self.delivery.forget_subscription(id);
        self.forget_acknowledgements(owed);
    }

    /// A subscription that is made anew is asked for where its device wants it now.
    fn place_anew(&mut self, id: SubscriptionId) {
        let device = self.subscriptions.get(id).and_then(|entry| entry.device);
        if let Some(Ok(place)) = device.map(|device| self.wanted_place(device))
            && let Some(entry) = self.subscriptions.get_mut(id)
        {
            entry.move_to(place);
        }
    }

    /// What was read is gone: each of its subscriptions is made anew.
    ///
    /// Source: RFC 8030 §7.3, §7.3.1.
    fn ended(&mut self, target: &Target) {
        let gone: Vec<SubscriptionId> = self
            .subscriptions
            .iter()
            .filter(|entry| {
                entry.granted().is_some_and(|granted| match target {
                    Target::Set(set) => granted.set.as_ref() == Some(set),
                    Target::Subscription(read) => granted.read == *read,
                })
            })
            .map(|entry| entry.id)
            .collect();
        for id in gone {
            self.subscription_ended(id);
        }
        if let Target::Set(set) = target {
            for upstream in self.upstreams.iter_mut().filter(|upstream| upstream.set.as_ref() == Some(set)) {
                upstream.set_known(None);
            }
        }
        self.reconcile_monitors();
    }

    fn subscription_ended(&mut self, id: SubscriptionId) {
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        match entry.life {
            Life::Leaving { .. } => entry.life = Life::Erasing { persisting: false },
            Life::Active(_) if entry.role == Role::Current => {
                self.behind.ended.push(entry.key());
                entry.ended(now, random);
                let owed = self.delivery.forget_subscription(id);
                self.forget_acknowledgements(owed);
                if self.succeed(id) {
                    self.subscriptions.remove(id);
                } else {
                    self.place_anew(id);
                }
            }
            Life::Active(_) => entry.life = Life::Erasing { persisting: false },
            _ => {}
        }
    }

    pub(super) fn monitor_ended(&mut self, connection: ConnectionId, monitor: MonitorId, next: Next) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        // While a connection is replaced, a request that is late on the old one may displace one on the new one.
        let is_in_place = upstream.monitors.is_in_place(monitor) && upstream.uplink.old().is_none();
        let (failed, asked) = match next {
            Next::Again => (false, None),
            Next::Displaced if is_in_place => (false, upstream.displaced.noted(self.now)),
            Next::Displaced => (false, None),
            Next::Ended => (true, None),
            Next::Backoff(asked) => (true, asked),
        };
        let target = upstream.monitors.ended(monitor, failed, asked, self.now, &mut *self.random);
        if let (Next::Ended, Some(target)) = (next, target) {
            self.ended(&target);
        }
    }

    pub(super) fn fetch_ended(
        &mut self,
        connection: ConnectionId,
        id: SubscriptionId,
        read: &SubscriptionUri,
        next: Next,
    ) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        let is_old = upstream.uplink.old() == Some(connection);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        // What was asked of a subscription that has been made anew since says nothing of the new one.
        if is_old || entry.granted().is_none_or(|granted| granted.read != *read) {
            return;
        }
        entry.fetch.open_count = entry.fetch.open_count.saturating_sub(1);
        upstream.last_stream_taken = None;
        match next {
            Next::Again | Next::Displaced => entry.fetch.ended(self.now, &mut *self.random),
            Next::Backoff(asked) => {
                entry.fetch.due = true;
                entry.fetch.wait_until(self.now + asked.unwrap_or_default());
            }
            Next::Ended => {
                self.subscription_ended(id);
                self.reconcile_monitors();
            }
        }
    }

    /// A person asks for what waits at the service.
    pub(super) fn fetch_asked(&mut self, device: &DeviceId) {
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device_id == *device) {
            entry.fetch.ask_now();
        }
    }

    /// A link is open: what the device had not acknowledged is handed to it again, and what waits is asked for.
    pub(super) fn device_up(&mut self, id: &DeviceId, session: u32, terms: Terms) {
        let Some(index) = self.devices.find(id) else { return };
        if let Some(device) = self.devices.get_mut(index) {
            let was_asleep = matches!(device.presence, Presence::Asleep { .. });
            device.presence = Presence::Ready { session, terms };
            device.status_due = StatusDue::Now;
            if was_asleep {
                self.hold_kept(index);
            }
        }
        for (_, slot) in self.delivery.iter_mut().filter(|(_, slot)| slot.device() == Some(index)) {
            if let Stage::Sent(body) = &slot.stage {
                slot.stage = Stage::Ready(body.clone());
            }
        }
        let takes_more = self.delivery.device_takes(index, usize::from(terms.message_bytes_max));
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            entry.fetch.due |= takes_more;
            entry.fetch.device_up(self.now);
        }
    }

    /// A link is gone or dead. A silent device's slots are freed for others; a late device ack still counts.
    pub(super) fn device_gone(&mut self, id: &DeviceId, session: u32, presence: Presence) {
        let Some(index) = self.devices.find(id) else { return };
        let Some(device) = self.devices.get_mut(index) else { return };
        if device.session().map(|(current, _)| current) != Some(session) {
            return;
        }
        let was_asleep = matches!(device.presence, Presence::Asleep { .. });
        device.presence = presence;
        device.ended.clear();
        if was_asleep {
            self.hold_kept(index);
        }
        if presence == Presence::Silent {
            let waits = |stage: &Stage| matches!(stage, Stage::Ready(_) | Stage::Sent(_));
            self.give_up_where(|slot| slot.device() == Some(index) && waits(&slot.stage));
        }
        // Whatever was promised before may wait at the service when the device comes back.
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            entry.fetch.due = true;
        }
    }

    /// Monitors what the active subscriptions are read at.
    pub(super) fn reconcile_monitors(&mut self) {
        for upstream in self.upstreams.iter_mut() {
            let mut targets = Vec::new();
            let mine = self.subscriptions.iter().filter(|entry| entry.upstream == upstream.id);
            for granted in mine.filter_map(|entry| entry.active()) {
                let target = granted.dialect.monitor_target(granted);
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
            upstream.monitors.reconcile(&targets, self.now);
        }
    }

    /// Whether a device has, or is about to have, a subscription of that channel.
    pub fn has_channel(&self, device: &DeviceId, channel: ChannelId) -> bool {
        self.subscriptions.iter().any(|entry| entry.device_id == *device && entry.channel == channel)
    }

    /// Where messages for a device's channel, the lowest if none is named, are posted, with the keys for them, once that is
    /// stored.
    pub fn push_subscription(&self, device: &DeviceId, channel: Option<ChannelId>) -> Option<PushSubscription> {
        let entries =
            self.subscriptions.iter().filter(|entry| entry.device_id == *device && entry.role == Role::Current);
        let wanted = entries.filter(|entry| channel.is_none_or(|channel| entry.channel == channel));
        let entry = wanted.min_by_key(|entry| entry.channel.0)?;
        let granted = entry.active()?;
        let keys = &entry.keys;
        Some(PushSubscription { endpoint: granted.send.clone(), public: *keys.public(), auth: *keys.auth() })
    }
}
