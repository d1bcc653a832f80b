//! The devices: who is known, who is there.
//!
//! ```text
//! Absent --Up--> Ready --Down--> Absent        Ready --Asleep--> Asleep --Awake--> Ready
//!                  |  ^                                            |
//!               Silent Up                                          +--too long--> counts as absent
//!                  v  |
//!                 Silent
//! ```

use serde::{Deserialize, Serialize};

use crate::limits::{CHANNELS_PER_DEVICE_MAX, DELIVERY_PER_DEVICE_MAX, DEVICE_COUNT_MAX, HOLD_FOR_SLEEP_DEFAULT};
use crate::time::Instant;
use crate::webpush::vapid::ApplicationServerKey;
use crate::wire::{ChannelId, DeviceId};

/// Position of a device in the table, stable while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(usize);

/// Whether a device can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its link is not open.
    Absent,
    /// Its link is open.
    Ready {
        /// Number of the link session.
        session: u32,
        /// What it said about itself.
        terms: Terms,
    },
    /// Its link is open, and it hears nothing until it speaks.
    Asleep {
        /// Number of the link session.
        session: u32,
        /// What it said about itself.
        terms: Terms,
        /// When it has slept too long; none if it did not know.
        until: Option<Instant>,
    },
    /// Its link was open, but it stopped answering.
    Silent,
}

/// What a device said about itself when it attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Octets of the largest message it takes.
    pub message_bytes_max: u16,
    /// Messages that it may have without an answer.
    pub in_flight_max: usize,
}

/// Why a device is to be told how the gateway is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusDue {
    /// It is not.
    #[default]
    No,
    /// Once nothing waits for it.
    Drained,
    /// It asked, attached or woke.
    Now,
}

/// How far the subscriptions of a device are kept apart from those of others (RFC 8030 §4.1, RFC 9622 §6.2.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Not: one set and one connection for all.
    #[default]
    None,
    /// A set of their own, on the connection of all.
    Set,
    /// A set and a connection of their own: the service cannot tell whose gateway it is.
    Connection,
}

/// When what a device has acknowledged is written to flash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingAcks {
    /// When the service does not answer for a while, or the process ends.
    #[default]
    Auto,
    /// Before the service hears of it: for devices that act, and forget over their own reset what they have done.
    Flash,
}

/// What is done about a message that can never be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undeliverable {
    /// It is not acknowledged, for its device does not have it.
    #[default]
    Keep,
    /// It is acknowledged, so that it is gone.
    Acknowledge,
}

/// What a device wants of its subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The name of the push service where they are made; the first one if none is named.
    pub push_service: Option<String>,
    /// How far they are kept apart.
    pub isolated: Isolation,
    /// The key of the one application server that may send (RFC 8292 §4).
    pub application_server_key: Option<ApplicationServerKey>,
    /// When what it has acknowledged is written to flash.
    pub pending_acks: PendingAcks,
    /// Messages a minute beyond which a subscription is ended.
    pub flood_per_minute: Option<u32>,
    /// What is done about messages that can never be delivered.
    pub undeliverable: Undeliverable,
    /// What is special about its link.
    #[serde(skip)]
    pub link: LinkOptions,
}

/// What is special about the link of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkOptions {
    /// Messages that are kept for it while it sleeps.
    pub hold_for_sleep: u8,
    /// Channels whose messages overtake others.
    pub urgent_channels: Vec<ChannelId>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { hold_for_sleep: HOLD_FOR_SLEEP_DEFAULT, urgent_channels: Vec::new() }
    }
}

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// What it wants of its subscriptions.
    pub options: Options,
    /// Whether it can be reached.
    pub presence: Presence,
    /// Whether it is to be told how the gateway is.
    pub status_due: StatusDue,
    /// Channels whose subscriptions ended while it slept, of which it is to be told: at most
    /// [`CHANNELS_PER_DEVICE_MAX`].
    pub ended: Vec<ChannelId>,
}

/// Nothing more fits; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// All devices, at most [`DEVICE_COUNT_MAX`].
#[derive(Debug, Default)]
pub struct DeviceTable {
    devices: Vec<Option<Device>>,
}

impl Device {
    /// Session and terms, when it can be reached.
    pub fn ready(&self) -> Option<(u32, Terms)> {
        match self.presence {
            Presence::Ready { session, terms } => Some((session, terms)),
            Presence::Absent | Presence::Asleep { .. } | Presence::Silent => None,
        }
    }

    /// Session and terms, when its link is open, whether it hears or not.
    pub fn session(&self) -> Option<(u32, Terms)> {
        match self.presence {
            Presence::Ready { session, terms } | Presence::Asleep { session, terms, .. } => Some((session, terms)),
            Presence::Absent | Presence::Silent => None,
        }
    }

    /// A subscription ended: if it sleeps, it is told when it hears again.
    pub fn note_ended(&mut self, channel: ChannelId) {
        let is_asleep = matches!(self.presence, Presence::Asleep { .. });
        if is_asleep && self.ended.len() < CHANNELS_PER_DEVICE_MAX && !self.ended.contains(&channel) {
            self.ended.push(channel);
        }
    }

    /// How many messages may be kept for it, of which it has none yet.
    pub fn takes(&self, now: Instant) -> usize {
        match self.presence {
            Presence::Ready { .. } => DELIVERY_PER_DEVICE_MAX,
            Presence::Asleep { until, .. } if until.is_none_or(|until| now < until) => {
                self.options.link.hold_for_sleep.into()
            }
            Presence::Asleep { .. } | Presence::Absent | Presence::Silent => 0,
        }
    }
}

impl DeviceTable {
    /// Adds a device, or finds the one of that id.
    ///
    /// # Errors
    /// [`Full`] when [`DEVICE_COUNT_MAX`] are there.
    pub fn add(&mut self, id: DeviceId) -> Result<DeviceIndex, Full> {
        if let Some(index) = self.find(&id) {
            return Ok(index);
        }
        let (options, presence, status_due) = (Options::default(), Presence::Absent, StatusDue::No);
        let device = Some(Device { id, options, presence, status_due, ended: Vec::new() });
        if let Some(free) = self.devices.iter().position(Option::is_none) {
            self.devices[free] = device;
            return Ok(DeviceIndex(free));
        }
        if self.devices.len() == DEVICE_COUNT_MAX {
            return Err(Full);
        }
        self.devices.push(device);
        Ok(DeviceIndex(self.devices.len() - 1))
    }

    /// Forgets a device.
    pub fn remove(&mut self, index: DeviceIndex) {
        if let Some(entry) = self.devices.get_mut(index.0) {
            *entry = None;
        }
    }

    /// Finds a device by its id.
    pub fn find(&self, id: &DeviceId) -> Option<DeviceIndex> {
        self.iter().find(|(_, device)| device.id == *id).map(|(index, _)| index)
    }

    /// The device at an index.
    pub fn get(&self, index: DeviceIndex) -> Option<&Device> {
        self.devices.get(index.0)?.as_ref()
    }

    /// The device at an index.
    pub fn get_mut(&mut self, index: DeviceIndex) -> Option<&mut Device> {
        self.devices.get_mut(index.0)?.as_mut()
    }

    /// All devices.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.devices.iter_mut().flatten()
    }

    /// All devices.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceIndex, &Device)> {
        self.devices.iter().enumerate().filter_map(|(at, device)| Some((DeviceIndex(at), device.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_refuses_and_reuses_what_is_freed() {
        let mut table = DeviceTable::default();
        for number in 0..DEVICE_COUNT_MAX {
            table.add(id(number)).expect("room");
        }
        assert_eq!(table.add(id(DEVICE_COUNT_MAX)), Err(Full));
        let first = table.find(&id(0)).expect("known");
        assert_eq!(table.add(id(0)), Ok(first));
        table.remove(first);
        assert_eq!(table.add(id(DEVICE_COUNT_MAX)), Ok(first));
        assert_eq!(table.iter().count(), DEVICE_COUNT_MAX);
    }

    fn id(number: usize) -> DeviceId {
        format!("device-{number}").parse().expect("an id")
    }
}
