//! What a person is shown: states and counts, never a capability URL.

use serde::Serialize;

use super::announcement::Counts;
use super::connection::Trouble;
use super::device::Presence;
use super::subscription::Life;
use super::upstream::{Reason, Upstream};
use super::{Counters, Gateway};
use crate::webpush::alt_svc::Alternative;

/// The gateway at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// See [`Gateway::uplink_state`].
    pub uplink: &'static str,
    /// Why there is no connection, or was none a moment ago.
    pub trouble: Option<Trouble>,
    /// Whether waiting will not mend that.
    pub needs_person: bool,
    /// How long a connection may be silent before it is tested, in seconds: learned from the path.
    pub keep_alive_s: u64,
    /// Where else the service can be reached.
    pub alternatives: Vec<AlternativeStatus>,
    /// Monitoring requests that are open.
    pub monitors: usize,
    /// The least urgency of messages that are wanted now.
    pub urgency: &'static str,
    /// What an application server is told of subscriptions.
    pub announcements: Counts,
    /// Channels whose subscriptions were ended because too many messages came, each with its device.
    pub flooded: Vec<(String, u16)>,
    /// The connections beside the first one.
    pub others: Vec<OtherStatus>,
    /// Messages in flight.
    pub in_flight: usize,
    /// Writes to the store in flight.
    pub persisting: usize,
    /// Messages known to be undeliverable.
    pub undeliverable_known: usize,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// Counts since the start.
    pub counters: Counters,
}

/// A connection beside the first one: to a further service, to one that requests were sent on to, or of one device alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherStatus {
    /// Host and port of the service.
    pub service: String,
    /// Whether the configuration names the service.
    pub is_configured: bool,
    /// The device whose alone it is.
    pub isolated: Option<String>,
    /// As [`Status::uplink`].
    pub uplink: &'static str,
    /// As [`Status::trouble`].
    pub trouble: Option<Trouble>,
    /// As [`Status::alternatives`].
    pub alternatives: Vec<AlternativeStatus>,
}

/// An alternative service (RFC 7838).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlternativeStatus {
    /// Its host and port.
    pub service: String,
    /// `in use`, `failed` or `known`.
    pub state: &'static str,
    /// Why it is not used for now.
    pub trouble: Option<Trouble>,
}

/// One device at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// Its id.
    pub id: String,
    /// `absent`, `ready`, `asleep` or `silent`.
    pub presence: &'static str,
    /// Messages in flight to it.
    pub in_flight: usize,
    /// Its channels.
    pub channels: Vec<ChannelStatus>,
}

/// One subscription at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// The device's label.
    pub channel: u16,
    /// `wanted`, `requested`, `granted`, `active`, `leaving` or `erasing`.
    pub state: &'static str,
}

impl Gateway {
    /// The gateway at a glance.
    pub fn status(&self) -> Status {
        let devices = self.devices.iter().map(|(index, device)| DeviceStatus {
            id: device.id.to_string(),
            presence: match device.presence {
                Presence::Absent => "absent",
                Presence::Ready { .. } => "ready",
                Presence::Asleep { .. } => "asleep",
                Presence::Silent => "silent",
            },
            in_flight: self.delivery.held_by(index),
            channels: self
                .subscriptions
                .iter()
                .filter(|entry| entry.device == Some(index))
                .map(channel_status)
                .collect(),
        });
        let home = self.upstreams.home();
        Status {
            uplink: self.uplink_state(),
            trouble: home.uplink.trouble(),
            needs_person: home.uplink.trouble().is_some_and(Trouble::needs_person),
            keep_alive_s: home.uplink.keep_alive_interval().as_secs(),
            alternatives: self.alternatives_of(home),
            monitors: self.upstreams.iter().map(|upstream| upstream.monitors.open_count()).sum(),
            urgency: self.level.current().as_str(),
            announcements: self.announcement_counts(),
            flooded: self.flooded(),
            others: self.upstreams.iter().skip(1).map(|upstream| self.other_status(upstream)).collect(),
            in_flight: self.delivery.iter().count(),
            persisting: self.persisting.len(),
            undeliverable_known: self.delivery.undeliverable_count(),
            devices: devices.collect(),
            counters: self.counters,
        }
    }

    fn flooded(&self) -> Vec<(String, u16)> {
        let stopped = self.stopped.iter().filter(|stopped| !stopped.is_over);
        stopped.map(|stopped| (stopped.device.to_string(), stopped.channel.0)).collect()
    }

    /// `connected` while messages can arrive, else what is being done about it.
    pub fn uplink_state(&self) -> &'static str {
        self.state_of(self.upstreams.home())
    }

    fn state_of(&self, upstream: &Upstream) -> &'static str {
        match &upstream.uplink {
            uplink if uplink.is_up() && upstream.monitors.open_count() > 0 => "connected",
            uplink if uplink.is_up() && upstream.displaced.is_yielding(self.now) => "displaced",
            uplink if uplink.is_up() => "subscribing",
            uplink if uplink.is_connecting() => "connecting",
            _ if self.subscriptions.has_any_at(upstream.id) => "waiting",
            _ => "idle",
        }
    }

    fn other_status(&self, upstream: &Upstream) -> OtherStatus {
        OtherStatus {
            service: upstream.service.authority().to_owned(),
            is_configured: upstream.reason != Reason::Moved,
            isolated: upstream.context.isolated.as_ref().map(ToString::to_string),
            uplink: self.state_of(upstream),
            trouble: upstream.uplink.trouble(),
            alternatives: self.alternatives_of(upstream),
        }
    }

    /// The one in use first, whether it is still announced or not.
    fn alternatives_of(&self, upstream: &Upstream) -> Vec<AlternativeStatus> {
        let in_use = upstream.uplink.current_place();
        let status =
            |place: &Alternative, state, trouble| AlternativeStatus { service: place.to_string(), state, trouble };
        let others = upstream.alternatives.iter(self.now).filter(|(place, _)| Some(*place) != in_use);
        let others =
            others.map(|(place, trouble)| status(place, if trouble.is_some() { "failed" } else { "known" }, trouble));
        in_use.map(|place| status(place, "in use", None)).into_iter().chain(others).collect()
    }
}

fn channel_status(entry: &super::subscription::Subscription) -> ChannelStatus {
    let state = match entry.life {
        Life::Wanted { .. } => "wanted",
        Life::Requested { .. } => "requested",
        Life::Granted { .. } => "granted",
        Life::Active(_) => "active",
        Life::Leaving { .. } => "leaving",
        Life::Erasing { .. } => "erasing",
    };
    ChannelStatus { channel: entry.channel.0, state }
}
