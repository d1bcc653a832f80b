//! Acknowledgements that a service is yet to hear, and what of them is on flash.
//!
//! ```text
//! pending_acks = "flash"   device ack -> record written -> DELETE -> 204 -> record removed
//! pending_acks = "auto"    device ack -> DELETE -> 204
//!                                          \-- no answer for a while, or the end of the process -> record written
//! ```
//!
//! In the one mode a power cut never makes a device see a message again; in the other a healthy uplink costs no write, and
//! after a power cut the device drops the copy by its message id.
//!
//! Source: RFC 8030 §6.2.

use super::backoff::Backoff;
use super::connection::ConnectionId;
use super::delivery::{Route, Stage};
use super::record::{Key, PendingAck, Record, Tag};
use super::subscription::Mark;
use super::upstream::{Upstream, UpstreamId};
use super::{Change, Gateway, Subject};
use crate::limits::{ACK_UNANSWERED_MS_MIN, DELETE_BACKOFF_MS_MAX, DELETE_BACKOFF_MS_MIN};
use crate::time::{Duration, Instant};
use crate::webpush::resource::PushMessageUri;
use crate::wire::MessageId;

/// A DELETE that is due, in flight, or to be repeated.
#[derive(Debug)]
pub struct Acknowledgement {
    /// The connection on which a request is on its way.
    pub in_flight: Option<ConnectionId>,
    /// When it may be sent.
    pub not_before: Instant,
    /// Pauses between repetitions.
    pub backoff: Backoff,
    /// When the device said it has the message.
    since: Instant,
    /// When it was sent last.
    asked_at: Instant,
    /// How far its record is, if it is to have one.
    record: Option<Mark>,
    /// It may be sent only once its record is on flash.
    is_stored_first: bool,
}

/// How long a service takes to answer a DELETE, smoothed.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerTime(Option<Duration>);

impl Acknowledgement {
    /// Due at once, or once it is on flash.
    pub fn due(now: Instant, is_stored_first: bool) -> Self {
        Self {
            in_flight: None,
            not_before: now,
            backoff: Backoff::new(DELETE_BACKOFF_MS_MIN, DELETE_BACKOFF_MS_MAX),
            since: now,
            asked_at: now,
            record: is_stored_first.then_some(Mark::Due),
            is_stored_first,
        }
    }

    /// One of an earlier run: on flash, and due.
    fn restored(now: Instant) -> Self {
        Self { record: Some(Mark::Stored), ..Self::due(now, false) }
    }

    /// Whether it is to be sent now.
    pub fn is_due(&self, now: Instant) -> bool {
        let is_allowed = !self.is_stored_first || self.record == Some(Mark::Stored);
        self.in_flight.is_none() && self.not_before <= now && is_allowed
    }

    /// It is being sent.
    pub fn sent(&mut self, connection: ConnectionId, now: Instant) {
        (self.in_flight, self.asked_at) = (Some(connection), now);
    }

    /// A connection has ended, and with it a request on it.
    pub fn connection_closed(&mut self, connection: ConnectionId) {
        self.in_flight = self.in_flight.filter(|on| *on != connection);
    }

    /// Whether a record of it is on flash, or is being written.
    pub fn has_record(&self) -> bool {
        matches!(self.record, Some(Mark::Persisting | Mark::Stored))
    }

    fn is_to_be_written(&self) -> bool {
        self.record == Some(Mark::Due)
    }
}

impl AnswerTime {
    /// An answer came after this time.
    fn measured(&mut self, time: Duration) {
        self.0 = Some(self.0.map_or(time, |smoothed| (smoothed * 7 + time) / 8));
    }

    /// How long an answer may take before the acknowledgement is written down.
    fn patience(self) -> Duration {
        (self.0.unwrap_or_default() * 4).max(Duration::from_millis(ACK_UNANSWERED_MS_MIN))
    }
}

impl Gateway {
    /// When the next acknowledgement has been without an answer for so long that it is written down.
    pub(super) fn unanswered_at(&self, upstream: &Upstream) -> Option<Instant> {
        let patience = upstream.answer_time.patience();
        let unwritten = self.acknowledgements(upstream.id).filter(|acknowledgement| acknowledgement.record.is_none());
        unwritten.map(|acknowledgement| acknowledgement.since + patience).min()
    }

    /// Writes down what has been without an answer for long.
    pub(super) fn write_unanswered(&mut self) {
        let now = self.now;
        let patience: Vec<(UpstreamId, Duration)> =
            self.upstreams.iter().map(|upstream| (upstream.id, upstream.answer_time.patience())).collect();
        let is_late = |of: UpstreamId, since: Instant| {
            patience.iter().any(|(upstream, patience)| *upstream == of && since + *patience <= now)
        };
        self.write_where(is_late);
    }

    /// The process ends: what is not answered by now is written down.
    pub(super) fn stopping(&mut self) {
        self.write_where(|_, _| true);
    }

    fn write_where(&mut self, condition: impl Fn(UpstreamId, Instant) -> bool) {
        for (upstream, acknowledgement) in self.acknowledgements_mut() {
            if acknowledgement.record.is_none() && condition(upstream, acknowledgement.since) {
                acknowledgement.record = Some(Mark::Due);
            }
        }
    }

    fn acknowledgements_mut(&mut self) -> impl Iterator<Item = (UpstreamId, &mut Acknowledgement)> {
        self.delivery.owed_mut().map(|owed| (owed.upstream, owed.acknowledgement))
    }

    /// Whether an acknowledgement waits to be written.
    pub(super) fn wants_acknowledgement_written(&self) -> bool {
        self.upstreams.iter().any(|upstream| self.acknowledgements(upstream.id).any(Acknowledgement::is_to_be_written))
    }

    pub(super) fn acknowledgement_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let owed = self.delivery.owed_mut().find(|owed| owed.acknowledgement.is_to_be_written())?;
        let message = owed.message.clone();
        let (route, id) = (owed.route?, owed.id?);
        let Some(entry) = self.subscriptions.get(route.subscription) else {
            // Its subscription is gone, and with it the message.
            owed.acknowledgement.record = Some(Mark::Stored);
            return None;
        };
        owed.acknowledgement.record = Some(Mark::Persisting);
        let (device, channel) = (entry.device_id.clone(), entry.channel);
        let record = Record::PendingAck(PendingAck { message: message.clone(), device, channel, id });
        Some((Subject::PendingAck(message), Change::Put(record), None))
    }

    /// An acknowledgement is on flash, or is not. The service may have answered meanwhile.
    pub(super) fn acknowledgement_persisted(&mut self, message: &PushMessageUri, stored: bool) {
        match self.delivery.owed_mut().find(|owed| owed.message == message) {
            Some(owed) => owed.acknowledgement.record = Some(if stored { Mark::Stored } else { Mark::Due }),
            None if stored => self.behind.ended.push(key(message)),
            None => {}
        }
    }

    /// The service has answered, or need not: nothing of it stays on flash.
    pub(super) fn settled(&mut self, message: &PushMessageUri, acknowledgement: &Acknowledgement) {
        // One that is being written is removed when that is done.
        if acknowledgement.record == Some(Mark::Stored) {
            self.behind.ended.push(key(message));
        }
    }

    /// An answer came.
    pub(super) fn answered(&mut self, upstream: UpstreamId, acknowledgement: &Acknowledgement) {
        let time = self.now.since(acknowledgement.asked_at);
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.answer_time.measured(time);
        }
    }

    /// Whether a device's messages may be acknowledged only once that is on flash.
    pub(super) fn stores_first(&self, route: Option<Route>) -> bool {
        let device = route.and_then(|route| self.devices.get(route.device));
        device.is_some_and(|device| device.options.pending_acks == super::device::PendingAcks::Flash)
    }

    /// Takes up what an earlier run owed. What has no subscription any more is owed to nobody.
    pub(super) fn restore_acknowledgements(&mut self) {
        for owed in std::mem::take(&mut self.restored_acks) {
            let entry = self.subscriptions.iter().find(|entry| {
                let is_its = |read: &str| read == owed.message.authority();
                (&entry.device_id, entry.channel) == (&owed.device, owed.channel)
                    && entry.granted().is_some_and(|granted| is_its(granted.read.authority()))
            });
            let restored = entry.and_then(|entry| {
                let route = Route { subscription: entry.id, device: entry.device? };
                let acknowledgement = Acknowledgement::restored(self.now);
                self.delivery.restore(owed.message.clone(), entry.upstream, route, owed.id, acknowledgement).ok()
            });
            if restored.is_none() && !self.is_incomplete {
                self.behind.ended.push(key(&owed.message));
            }
        }
    }

    /// Records of acknowledgements that are forgotten with their subscription or device.
    pub(super) fn forget_acknowledgements(&mut self, forgotten: Vec<(PushMessageUri, Acknowledgement)>) {
        for (message, acknowledgement) in forgotten {
            self.settled(&message, &acknowledgement);
        }
    }

    /// Whether a record is of an acknowledgement that is owed.
    pub(super) fn is_owed(&self, record: &Key) -> bool {
        let slots = self.delivery.iter().map(|(_, slot)| (&slot.message, slot_acknowledgement(&slot.stage)));
        let freed = self.delivery.freed().map(|freed| (&freed.message, freed.acknowledgement.as_ref()));
        slots.chain(freed).any(|(message, acknowledgement)| {
            acknowledgement.is_some_and(Acknowledgement::has_record) && key(message) == *record
        })
    }
}

fn slot_acknowledgement(stage: &Stage) -> Option<&Acknowledgement> {
    match stage {
        Stage::Acked(acknowledgement) => Some(acknowledgement),
        _ => None,
    }
}

/// One that is owed, wherever it is kept.
pub(super) struct Owed<'o> {
    pub(super) message: &'o PushMessageUri,
    pub(super) upstream: UpstreamId,
    pub(super) route: Option<Route>,
    pub(super) id: Option<MessageId>,
    pub(super) acknowledgement: &'o mut Acknowledgement,
}

fn key(message: &PushMessageUri) -> Key {
    Key::PendingAck(Tag::of(message.as_str()))
}
