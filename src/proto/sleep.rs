//! Devices that sleep, and what a device is told of the gateway.
//!
//! A sleeping device hears nothing: a few messages are kept for it, as long as they live; the rest stays with the
//! service. When it wakes, it is handed what was kept and what waits, and then told that there is no more.

use std::rc::Rc;

use super::connection::Trouble;
use super::device::{Presence, StatusDue};
use super::{DeviceIndex, Gateway, Output, Reply, Stage};
use crate::limits::{HOLD_MS, SLEEP_GRACE_MS};
use crate::time::{Duration, Instant};
use crate::wire::message::Uplink;
use crate::wire::{ChannelId, DeviceId};

impl Gateway {
    /// A device hears nothing from now on. What it has not acknowledged is kept for it as far as it wants that.
    pub(super) fn device_asleep(&mut self, id: &DeviceId, seconds: u32) {
        let Some(index) = self.devices.find(id) else { return };
        let now = self.now;
        let Some(device) = self.devices.get_mut(index) else { return };
        let Some((session, terms)) = device.session() else { return };
        let until = (seconds > 0)
            .then(|| now + Duration::from_secs(2 * u64::from(seconds)) + Duration::from_millis(SLEEP_GRACE_MS));
        device.presence = Presence::Asleep { session, terms, until };
        device.status_due = StatusDue::No;
        let keeps = usize::from(device.options.link.hold_for_sleep);
        self.keep_asleep(index, keeps);
        // What is given up, and what is refused meanwhile, may wait at the service when it wakes.
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            entry.fetch.due = true;
        }
    }

    /// A device that slept, if it did, hears again.
    pub(super) fn device_awake(&mut self, id: &DeviceId) {
        let Some(index) = self.devices.find(id) else { return };
        let now = self.now;
        let Some(device) = self.devices.get_mut(index) else { return };
        let Presence::Asleep { session, terms, .. } = device.presence else { return };
        device.presence = Presence::Ready { session, terms };
        device.status_due = StatusDue::Now;
        self.hold_kept(index);
        // What its link had not begun with is too late for that now. What it had begun with is a copy, which costs less than
        // to wait for an answer in vain.
        for (_, slot) in self.delivery.iter_mut().filter(|(_, slot)| slot.device() == Some(index) && slot.until <= now)
        {
            if let Stage::Sent(body) = &slot.stage {
                slot.stage = Stage::Ready(Rc::clone(body));
            }
        }
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            entry.fetch.device_up(now);
        }
    }

    /// What was kept for a device that slept is held for it from now on as for one that hears.
    pub(super) fn hold_kept(&mut self, index: DeviceIndex) {
        let until = self.now + Duration::from_millis(HOLD_MS);
        for (_, slot) in self.delivery.iter_mut().filter(|(_, slot)| slot.device() == Some(index)) {
            slot.deadline = until.min(slot.expires_at.unwrap_or(until));
        }
    }

    /// The content of a message is here: if its device sleeps, it is kept as far as there are not others enough.
    pub(super) fn came_asleep(&mut self, index: DeviceIndex) {
        let now = self.now;
        if let Some(device) = self.devices.get(index).filter(|it| matches!(it.presence, Presence::Asleep { .. })) {
            self.keep_asleep(index, device.takes(now));
        }
    }

    /// A device asks how the gateway is, or said that it hears again.
    pub(super) fn status_asked(&mut self, id: &DeviceId) {
        if let Some(device) = self.devices.find(id).and_then(|index| self.devices.get_mut(index)) {
            device.status_due = StatusDue::Now;
        }
    }

    /// A device asks for a new subscription in place of one.
    pub(super) fn rotate_asked(&mut self, id: &DeviceId, channel: ChannelId) {
        if self.has_channel(id, channel) {
            self.rotation_asked(id, Some(channel));
        } else if let Some(index) = self.devices.find(id) {
            self.reply = Some((index, Reply::Unknown { channel }));
        }
    }

    /// Devices that slept longer than twice what they said are as good as absent: nothing is kept for them.
    pub(super) fn give_up_sleepers(&mut self) {
        let now = self.now;
        let overslept = |presence| matches!(presence, Presence::Asleep { until: Some(until), .. } if until <= now);
        let late: Vec<DeviceIndex> =
            self.devices.iter().filter(|(_, device)| overslept(device.presence)).map(|(index, _)| index).collect();
        late.into_iter().for_each(|index| self.keep_asleep(index, 0));
    }

    /// When the next sleeper has slept too long.
    pub(super) fn sleepers_due(&self) -> Option<Instant> {
        let until = |presence| match presence {
            Presence::Asleep { until, .. } => until,
            _ => None,
        };
        self.devices.iter().filter_map(|(_, device)| until(device.presence)).filter(|until| *until > self.now).min()
    }

    /// The word that a device waits for, if it is time.
    pub(super) fn status_output(&mut self) -> Option<Output> {
        let is_due = |gateway: &Self, index| match gateway.devices.get(index).map(|device| device.status_due) {
            Some(StatusDue::Now) => true,
            Some(StatusDue::Drained) => gateway.waiting_for(index) == 0,
            Some(StatusDue::No) | None => false,
        };
        let ready = self.devices.iter().filter(|(_, device)| device.ready().is_some());
        let index = ready.map(|(index, _)| index).find(|index| is_due(self, *index))?;
        let (uplink, waiting) = (self.uplink_of_devices(), self.waiting_for(index));
        let device = self.devices.get_mut(index)?;
        device.status_due = if waiting == 0 { StatusDue::No } else { StatusDue::Drained };
        let (session, _) = device.ready()?;
        Some(Output::Reply { device: device.id.clone(), session, reply: Reply::Status { uplink, waiting } })
    }

    /// Keeps so many of the messages that a device has not acknowledged, the oldest ones, for as long as they live.
    fn keep_asleep(&mut self, index: DeviceIndex, keeps: usize) {
        let held = |stage: &Stage| !matches!(stage, Stage::Acked(_));
        let mut mine: Vec<(u64, Instant)> = Vec::new();
        for (_, slot) in self.delivery.iter_mut().filter(|(_, slot)| slot.device() == Some(index) && held(&slot.stage))
        {
            slot.deadline = slot.expires_at.unwrap_or(slot.deadline).max(slot.deadline);
            mine.push((slot.order, slot.deadline));
        }
        mine.sort_unstable();
        let waits = |stage: &Stage| matches!(stage, Stage::Received(_) | Stage::Ready(_) | Stage::Sent(_));
        let kept_to = mine.get(keeps.wrapping_sub(1)).map(|(order, _)| *order);
        self.give_up_where(|slot| {
            slot.device() == Some(index)
                && waits(&slot.stage)
                && kept_to.is_none_or(|last| slot.order > last)
                && mine.len() > keeps
        });
    }

    /// Messages of a device that are here and not answered, and those known to wait at the service; one more while the
    /// service is asked what it has.
    fn waiting_for(&self, index: DeviceIndex) -> usize {
        let entries = self.subscriptions.iter().filter(|entry| entry.device == Some(index));
        let missed: usize = entries.map(|entry| entry.fetch.missed.len()).sum();
        self.delivery.held_by(index) + missed + usize::from(self.is_asked_for(index))
    }

    /// Whether what waits for a device at the service is being asked for, or about to be and possible.
    fn is_asked_for(&self, index: DeviceIndex) -> bool {
        self.subscriptions.iter().filter(|entry| entry.device == Some(index)).any(|entry| {
            let reaches = self.upstreams.get(entry.upstream).is_some_and(|it| it.uplink.requests_on().is_some());
            reaches && entry.active().is_some() && (entry.fetch.due || entry.fetch.open_count > 0)
        })
    }

    fn uplink_of_devices(&self) -> Uplink {
        let home = self.upstreams.home();
        if home.uplink.is_up() {
            Uplink::Connected
        } else if home.uplink.trouble().is_some_and(Trouble::needs_person) {
            Uplink::NeedsPerson
        } else {
            Uplink::Down
        }
    }
}
