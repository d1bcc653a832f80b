//! Subscriptions that get more messages than their device is to take: they are ended, and stay so until somebody asks.
//!
//! Each message counts once, when it comes by itself for the first time, whether it can be delivered or not: not when it
//! comes again, not when what is stored was asked for, and not when it is older than the connection, since all that waited
//! comes at once on a new one.
//!
//! Source: RFC 8030 §8.4.

use std::collections::VecDeque;

use super::delivery::SlotId;
use super::record::{Key, Record, Tag};
use super::subscription::SubscriptionId;
use super::{Gateway, Subject};
use crate::limits::{FLOOD_SEEN_COUNT, FLOOD_SLICE_COUNT, FLOOD_SLICE_MS, FLOOD_STOPPED_COUNT_MAX};
use crate::time::{Duration, Instant};
use crate::wire::{ChannelId, DeviceId};

/// By how much a message may be older than its service says, which tells both times in whole seconds.
const AGE_RESOLUTION: Duration = Duration::from_secs(1);

/// Messages of a subscription in the last minute, counted in slices of it. What came in the slice that the minute began in
/// is not among them: they are never more than came within a minute.
#[derive(Debug, Default)]
pub struct Arrivals {
    counts: [u32; FLOOD_SLICE_COUNT],
    /// The number of the newest slice since the start.
    slice: u64,
}

/// The messages that counted, the oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<Tag>);

/// A channel whose subscription was ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) device: DeviceId,
    pub(super) channel: ChannelId,
    /// It is to be removed from flash; else it is to be written, or is there.
    pub(super) is_over: bool,
    pub(super) is_behind: bool,
}

impl Arrivals {
    /// Counts a message. Whether that is more than the limit a minute.
    fn count(&mut self, per_minute: u32, now: Instant) -> bool {
        let slice = now.as_millis() / FLOOD_SLICE_MS;
        let begun = slice.saturating_sub(self.slice).min(FLOOD_SLICE_COUNT as u64);
        for number in 0..begun {
            *self.at(slice - number) = 0;
        }
        self.slice = slice;
        let newest = self.at(slice);
        *newest = newest.saturating_add(1);
        self.counts.iter().map(|&count| u64::from(count)).sum::<u64>() > u64::from(per_minute)
    }

    fn at(&mut self, slice: u64) -> &mut u32 {
        &mut self.counts[(slice % FLOOD_SLICE_COUNT as u64) as usize]
    }
}

impl Seen {
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the first time.
    fn is_first(&mut self, message: Tag) -> bool {
        if self.0.contains(&message) {
            return false;
        }
        if self.0.len() == FLOOD_SEEN_COUNT {
            self.0.pop_front();
        }
        self.0.push_back(message);
        true
    }
}

impl Gateway {
    /// A message has arrived; too many of them, and its subscription ends.
    pub(super) fn count_arrival(&mut self, id: SlotId) {
        let now = self.now;
        let Some(slot) = self.delivery.get_mut(id).filter(|slot| slot.is_live) else { return };
        let (route, connection, tag) = (slot.route, slot.connection, Tag::of(slot.message.as_str()));
        let age = slot.age;
        let Some(route) = route else { return };
        let limit = self.devices.get(route.device).and_then(|device| device.options.flood_per_minute);
        let Some(limit) = limit else { return };
        let since = self.upstreams.of(connection).and_then(|upstream| upstream.uplink.since(connection));
        let is_older = |since| age.is_some_and(|age| age + AGE_RESOLUTION > now.since(since));
        let is_backlog = since.is_none_or(is_older);
        if is_backlog || !self.seen.is_first(tag) {
            return;
        }
        let entry = self.subscriptions.get_mut(route.subscription).filter(|entry| !entry.is_leaving());
        let Some(entry) = entry else { return };
        if entry.arrivals.count(limit, now) {
            self.stop_flood(route.subscription);
        }
    }

    fn stop_flood(&mut self, id: SubscriptionId) {
        let now = self.now;
        let Some(entry) = self.subscriptions.get_mut(id) else { return };
        let (device, channel) = (entry.device_id.clone(), entry.channel);
        for entry in self.subscriptions.iter_mut().filter(|it| it.device_id == device && it.channel == channel) {
            if !entry.is_leaving() {
                entry.leave(now);
            }
        }
        self.counters.floods += 1;
        self.remember_stopped(device, channel);
        self.reconcile_monitors();
    }

    /// At the bound the oldest is forgotten.
    fn remember_stopped(&mut self, device: DeviceId, channel: ChannelId) {
        let mut remembered = self.stopped.iter_mut().filter(|it| !it.is_over);
        if let Some(oldest) = remembered.next()
            && remembered.count() + 1 == FLOOD_STOPPED_COUNT_MAX
        {
            (oldest.is_over, oldest.is_behind) = (true, true);
        }
        self.stopped.push(Stopped { device, channel, is_over: false, is_behind: true });
    }

    /// Whether a channel is not to be subscribed by itself.
    pub fn is_stopped(&self, device: &DeviceId, channel: ChannelId) -> bool {
        self.stopped.iter().any(|it| !it.is_over && it.device == *device && it.channel == channel)
    }

    /// Somebody asks for a channel: whatever it was stopped for is forgiven.
    pub(super) fn forgive(&mut self, device: &DeviceId, channel: Option<ChannelId>) -> Vec<ChannelId> {
        let mut channels = Vec::new();
        for stopped in self.stopped.iter_mut().filter(|it| !it.is_over && it.device == *device) {
            if channel.is_none_or(|channel| channel == stopped.channel) {
                (stopped.is_over, stopped.is_behind) = (true, true);
                channels.push(stopped.channel);
            }
        }
        channels
    }

    /// All devices are known: of others nothing needs to be remembered. What the process could not end any more is ended.
    pub(super) fn settle_stopped(&mut self) {
        let (now, devices, stopped) = (self.now, &self.devices, &self.stopped);
        let is_stopped =
            |device: &DeviceId, channel| stopped.iter().any(|it| it.device == *device && it.channel == channel);
        for entry in self.subscriptions.iter_mut().filter(|entry| is_stopped(&entry.device_id, entry.channel)) {
            if !entry.is_leaving() {
                entry.leave(now);
            }
        }
        let is_stray = |it: &&mut Stopped| !self.is_incomplete && devices.find(&it.device).is_none();
        for stopped in self.stopped.iter_mut().filter(is_stray) {
            (stopped.is_over, stopped.is_behind) = (true, true);
        }
    }

    pub(super) fn restore_stopped(&mut self, device: DeviceId, channel: ChannelId) {
        // Beyond the bound nothing was ever stored; a store that was tampered with loses the rest here.
        if self.stopped.len() == FLOOD_STOPPED_COUNT_MAX {
            return self.behind.ended.push(Key::Stopped(device, channel));
        }
        self.stopped.push(Stopped { device, channel, is_over: false, is_behind: false });
    }

    pub(super) fn stopped_change(&mut self) -> Option<(Subject, super::Change, Option<super::Change>)> {
        let stopped = self.stopped.iter_mut().find(|stopped| stopped.is_behind)?;
        stopped.is_behind = false;
        let (device, channel) = (stopped.device.clone(), stopped.channel);
        let subject = Subject::Stopped(device.clone(), channel, stopped.is_over);
        let change = if stopped.is_over {
            super::Change::Remove(Key::Stopped(device, channel))
        } else {
            super::Change::Put(Record::Stopped(device, channel))
        };
        Some((subject, change, None))
    }

    pub(super) fn stopped_persisted(&mut self, device: &DeviceId, channel: ChannelId, is_over: bool, stored: bool) {
        let is_it = |it: &Stopped| it.device == *device && it.channel == channel && it.is_over == is_over;
        // A newer flood of the same channel is what counts.
        let is_renewed = is_over && self.is_stopped(device, channel);
        if is_renewed {
            self.stopped.retain(|it| !is_it(it));
        } else if !stored {
            self.stopped.iter_mut().filter(|it| is_it(it)).for_each(|it| it.is_behind = true);
        } else if is_over {
            self.stopped.retain(|it| !is_it(it) || it.is_behind);
        }
    }
}
