//! Devices and subscriptions coming and going.

use super::connection::ConnectionId;
use super::delivery::Stage;
use super::device::{DeviceIndex, Presence};
use super::monitor::MonitorId;
use super::record::{DeviceRecord, Key, Record};
use super::subscription::{Life, Mark, Stored, SubscriptionId};
use super::upstream::{Upstream, UpstreamId};
use super::{Gateway, Reply};
use crate::limits::{CHANNELS_PER_DEVICE_MAX, SUBSCRIBE_UNKNOWN_MS};
use crate::time::{Duration, Instant};
use crate::webpush::exchange::{Deletion, Granted, Next, SubscribeError, Target};
use crate::webpush::resource::{PushServiceUri, SetUri, SubscriptionUri};
use crate::webpush::subscription::PushSubscription;
use crate::wire::{ChannelId, DeviceId};

impl Gateway {
    /// Takes up a stored fact. A subscription whose device never turns up is removed at the service.
    pub(super) fn restored(&mut self, record: Record) {
        match record {
            Record::Subscription(stored) => self.restore_subscription(stored),
            // A set of another service would give it away there.
            Record::Set(set) if set.authority() != self.upstreams.home().service.authority() => self.behind.set = true,
            Record::Set(set) => self.upstreams.home_mut().set = Some(set),
            Record::Time(time) => self.time = Some(time),
            Record::Device(device) => self.device_added(device, false),
        }
    }

    fn restore_subscription(&mut self, stored: Stored) {
        // A record of another service is useless here, and its URIs must not be asked of this one.
        let Some(upstream) = self.upstream_of(&stored) else {
            self.behind.ended.push(Key::Subscription(stored.device, stored.channel));
            return;
        };
        // Beyond the bound nothing was ever stored; a store that was tampered with loses the rest here.
        if self.subscriptions.restore(stored, upstream, self.now).is_ok() {
            self.reconcile_monitors();
        }
    }

    /// Where a stored subscription is: at the configured service, or where that sent the request on to.
    fn upstream_of(&mut self, stored: &Stored) -> Option<UpstreamId> {
        let authority = stored.granted.read.authority();
        if stored.via.as_deref().unwrap_or(authority) != self.upstreams.home().service.authority() {
            return None;
        }
        let service = PushServiceUri::parse(&format!("https://{authority}/")).ok()?;
        self.upstreams.find_or_add(&service, self.now).ok()
    }

    /// All devices are known: a subscription whose device is none of them is removed at the service.
    pub(super) fn started(&mut self) {
        let now = self.now;
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device.is_none()) {
            entry.leave(now);
        }
        self.reconcile_monitors();
    }

    /// Takes up a device and makes the subscriptions of its channels.
    pub(super) fn device_added(&mut self, record: DeviceRecord, lasting: bool) {
        let Ok(index) = self.devices.add(record.id.clone()) else { return };
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device_id == record.id && !entry.is_leaving()) {
            entry.device = Some(index);
        }
        for &channel in &record.channels {
            // A table that is full leaves the channel without subscription; status shows it.
            self.want(index, &record.id, channel);
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
        self.store_device(id.clone(), None);
        self.reconcile_monitors();
    }

    fn store_device(&mut self, id: DeviceId, record: Option<DeviceRecord>) {
        self.behind.devices.retain(|(other, _)| *other != id);
        self.behind.devices.push((id, record));
    }

    /// Makes sure that a channel has a subscription, or gets one.
    fn want(&mut self, index: DeviceIndex, id: &DeviceId, channel: ChannelId) -> bool {
        let now = self.now;
        if let Some(entry) = self.subscriptions.find_mut(id, channel) {
            if entry.is_leaving() {
                entry.successor = Some(index);
            } else {
                entry.device = Some(index);
            }
            return true;
        }
        let channels = self.subscriptions.iter().filter(|entry| entry.device_id == *id).count();
        channels < CHANNELS_PER_DEVICE_MAX
            && self.subscriptions.want(index, id.clone(), channel, now, &mut *self.random).is_ok()
    }

    /// A device asks for a subscription; it is told at once if there is one.
    pub(super) fn subscribe_asked(&mut self, id: &DeviceId, channel: ChannelId) {
        let Some(index) = self.devices.find(id) else { return };
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
            Some(entry) if !entry.is_leaving() => entry.leave(now),
            Some(entry) => entry.successor = None,
            None => self.reply = Some((index, Reply::Unsubscribed { channel })),
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
        let is_home = upstream.is_configured;
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        match outcome {
            Some(Ok(granted)) => {
                let set = granted.set.clone();
                entry.request_granted(granted, now);
                if is_home {
                    self.set_known(set);
                }
            }
            // Forget the set and ask once more without it, at once (RFC 8030 §4.1).
            Some(Err(SubscribeError::SetRefused)) => {
                entry.request_again(now);
                self.set_known(None);
            }
            Some(Err(SubscribeError::Redirected(service))) => self.subscribe_redirected(id, service),
            Some(Err(SubscribeError::NotProcessed)) => entry.request_again(now),
            Some(Err(SubscribeError::Busy(asked))) => entry.request_failed(asked, now, random),
            Some(Err(_)) => entry.request_failed(None, now, random),
            None => entry.request_failed(Some(Duration::from_millis(SUBSCRIBE_UNKNOWN_MS)), now, random),
        }
    }

    /// The service sends a request on; one that is sent on too often, or to too many places, has failed.
    fn subscribe_redirected(&mut self, id: SubscriptionId, service: PushServiceUri) {
        let upstream = self.upstreams.find_or_add(&service, self.now);
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
        };
        let mut added = self.upstreams.iter().filter(|upstream| !upstream.is_configured);
        added.find(is_unused).map(|upstream| upstream.id)
    }

    fn set_known(&mut self, set: Option<SetUri>) {
        let home = self.upstreams.home_mut();
        if home.set != set {
            home.set = set;
            self.behind.set = true;
        }
    }

    /// A granted subscription is on flash: only now it is in use and told.
    pub(super) fn granted_persisted(&mut self, id: SubscriptionId, stored: bool) {
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        match &mut entry.life {
            Life::Granted { persisting, .. } if !stored => *persisting = false,
            _ => entry.activate(self.now),
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
        if !self.subscriptions.iter().any(|entry| entry.key() == key && replaced(&entry.life)) {
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
        } else {
            self.reply = entry.device.map(|device| (device, Reply::Unsubscribed { channel: entry.channel }));
            self.subscriptions.remove(id);
        }
        self.delivery.forget_subscription(id);
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
        if let Target::Set(set) = target
            && self.upstreams.home().set.as_ref() == Some(set)
        {
            self.set_known(None);
        }
        self.reconcile_monitors();
    }

    fn subscription_ended(&mut self, id: SubscriptionId) {
        let (now, random) = (self.now, &mut *self.random);
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        match entry.life {
            Life::Leaving { .. } => entry.life = Life::Erasing { persisting: false },
            Life::Active(_) => {
                entry.ended(now, random);
                self.behind.ended.push(entry.key());
                self.delivery.forget_subscription(id);
            }
            _ => {}
        }
    }

    pub(super) fn monitor_ended(&mut self, connection: ConnectionId, monitor: MonitorId, next: Next) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        let (failed, asked) = match next {
            Next::Again => (false, None),
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
            Next::Again => entry.fetch.ended(self.now, &mut *self.random),
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
            entry.fetch.due = true;
            entry.fetch.not_before = Instant::ZERO;
        }
    }

    /// A link is open: what the device had not acknowledged is handed to it again, and what waits is asked for.
    pub(super) fn device_up(&mut self, id: &DeviceId, session: u32, message_bytes_max: u16) {
        let Some(index) = self.devices.find(id) else { return };
        if let Some(device) = self.devices.get_mut(index) {
            device.presence = Presence::Ready { session, message_bytes_max };
        }
        for (_, slot) in self.delivery.iter_mut().filter(|(_, slot)| slot.device() == Some(index)) {
            if let Stage::Sent(body) = &slot.stage {
                slot.stage = Stage::Ready(body.clone());
            }
        }
        let takes_more = self.delivery.device_takes(index, usize::from(message_bytes_max));
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            entry.fetch.due |= takes_more;
            entry.fetch.device_up(self.now);
        }
    }

    /// A link is gone or dead. A silent device's slots are freed for others; a late device ack still counts.
    pub(super) fn device_gone(&mut self, id: &DeviceId, session: u32, presence: Presence) {
        let Some(index) = self.devices.find(id) else { return };
        let Some(device) = self.devices.get_mut(index) else { return };
        if device.ready().map(|(current, _)| current) != Some(session) {
            return;
        }
        device.presence = presence;
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

    /// Where messages for a device's channel are posted, with the keys for them, once that is stored.
    pub fn push_subscription(&self, device: &DeviceId, channel: Option<ChannelId>) -> Option<PushSubscription> {
        let mut entries = self.subscriptions.iter().filter(|entry| entry.device_id == *device);
        let entry = entries.find(|entry| channel.is_none_or(|channel| entry.channel == channel))?;
        let granted = entry.active()?;
        let keys = &entry.keys;
        Some(PushSubscription { endpoint: granted.send.clone(), public: *keys.public(), auth: *keys.auth() })
    }
}
