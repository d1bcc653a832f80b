//! From promise to a message that its device can take.

use std::rc::Rc;

use ring::digest;

use super::acknowledgement::Acknowledgement;
use super::connection::ConnectionId;
use super::delivery::{Route, SlotId, Stage};
use super::device::Undeliverable;
use super::{Gateway, Output, PromiseId};
use crate::limits::{HOLD_MS, HOLD_MS_MIN};
use crate::time::Duration;
use crate::webpush::ece::DecodeError;
use crate::webpush::exchange::{ContentError, Target};
use crate::webpush::resource::{PushMessageUri, PushUri};
use crate::wire::MessageId;
use crate::wire::message::PUSH_OVERHEAD_BYTES_MAX;

/// Why a promise is reset.
enum Refusal {
    /// Not now: the service keeps the message, and it is asked for again when there is room.
    NoRoom(Route),
    /// The same for one whose subscription is not known yet: all that it may belong to are asked for.
    NoRoomFor(Target),
    /// Not again: it is in flight, being acknowledged, or never deliverable. The service may take that as a sign to wait
    /// with others of its subscription, so those are asked for later.
    Known(Option<Route>),
    /// Of no subscription of ours.
    Unwanted,
}

impl Gateway {
    /// Admits a promise into a slot, or refuses it.
    ///
    /// Source: RFC 8030 §6.1; RFC 9113 §8.4.2, §5.1.2 (reserved streams escape the stream limit, so this is the bound).
    pub(super) fn promised(
        &mut self,
        connection: ConnectionId,
        promise: PromiseId,
        target: &Target,
        message: PushMessageUri,
        send: Option<PushUri>,
    ) {
        self.counters.promised += 1;
        debug_assert!(self.promise.is_none(), "each promise is answered before the next one comes");
        self.promise = Some(match self.admit(connection, target, message.clone(), send) {
            Ok((slot, unrouted)) => Output::Admit { promise, slot, unrouted },
            Err(refusal) => {
                if let Some(upstream) = self.upstreams.of(connection) {
                    upstream.uplink.refused(connection, self.now);
                }
                self.refused(&refusal, &message);
                Output::Refuse { promise }
            }
        });
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        target: &Target,
        message: PushMessageUri,
        send: Option<PushUri>,
    ) -> Result<(SlotId, bool), Refusal> {
        let upstream = self.upstreams.of(connection).map(|upstream| upstream.id).ok_or(Refusal::Unwanted)?;
        let acknowledging =
            self.delivery.freed().any(|freed| freed.message == message && freed.acknowledgement.is_some());
        if acknowledging || self.delivery.find(&message).is_some() || self.delivery.is_undeliverable(&message) {
            return Err(Refusal::Known(self.route(target, send.as_ref())));
        }
        if self.is_read_uri(&message) {
            return Err(Refusal::Unwanted);
        }
        // Only a set leaves open which subscription a promise without link belongs to.
        let unrouted = send.is_none() && matches!(target, Target::Set(_));
        let route = if unrouted { None } else { Some(self.route(target, send.as_ref()).ok_or(Refusal::Unwanted)?) };
        if let Some(route) = route
            && !self.is_ready(route)
        {
            return Err(Refusal::NoRoom(route));
        }
        let deadline = self.now + Duration::from_millis(HOLD_MS);
        match (self.delivery.reserve(message, (upstream, connection), route, self.now, deadline), route) {
            (Ok(slot), route) => {
                self.came(slot, route);
                self.note_origin(slot, target, route);
                Ok((slot, unrouted))
            }
            (Err(_), Some(route)) => Err(Refusal::NoRoom(route)),
            (Err(_), None) => Err(Refusal::NoRoomFor(target.clone())),
        }
    }

    /// The acknowledgement of a message must never remove a subscription.
    fn is_read_uri(&self, message: &PushMessageUri) -> bool {
        self.subscriptions.iter().filter_map(|entry| entry.granted()).any(|granted| {
            granted.read.as_str() == message.as_str()
                || granted.set.as_ref().is_some_and(|set| set.as_str() == message.as_str())
        })
    }

    fn route(&self, target: &Target, send: Option<&PushUri>) -> Option<Route> {
        let entry = match send {
            Some(send) => self.subscriptions.find_by_send(send),
            None => self.subscriptions.find_by_target(target),
        }?;
        Some(Route { subscription: entry.id, device: entry.device? })
    }

    fn is_ready(&self, route: Route) -> bool {
        let takes = self.devices.get(route.device).map_or(0, |device| device.takes(self.now));
        self.delivery.held_by(route.device) < takes
    }

    fn refused(&mut self, refusal: &Refusal, message: &PushMessageUri) {
        self.counters.refused += 1;
        if let Refusal::Known(route) = refusal {
            if let Some(entry) = route.and_then(|route| self.subscriptions.get_mut(route.subscription)) {
                entry.fetch.look_behind(self.now, &mut *self.random);
            }
            return;
        }
        for entry in self.subscriptions.iter_mut() {
            match refusal {
                Refusal::NoRoom(route) if entry.id == route.subscription => {
                    entry.fetch.missed(message.clone(), self.now)
                }
                Refusal::NoRoomFor(target) => {
                    let granted = entry.active();
                    entry.fetch.due |=
                        granted.is_some_and(|granted| granted.dialect.monitor_target(granted) == *target);
                }
                Refusal::NoRoom(_) | Refusal::Known(_) | Refusal::Unwanted => {}
            }
        }
    }

    /// Whether a message comes by itself. What is asked for is read at its subscription; without a set that is monitored
    /// there as well.
    fn note_origin(&mut self, slot: SlotId, target: &Target, route: Option<Route>) {
        let entry = route.and_then(|route| self.subscriptions.get(route.subscription));
        let was_asked_for = matches!(target, Target::Subscription(_))
            && entry.is_some_and(|entry| {
                let has_set = entry.granted().is_some_and(|granted| granted.set.is_some());
                has_set || entry.fetch.open_count > 0
            });
        if let Some(slot) = self.delivery.get_mut(slot) {
            slot.is_live = !was_asked_for;
        }
    }

    /// A message that may have been refused before is here.
    fn came(&mut self, slot: SlotId, route: Option<Route>) {
        if let Some(entry) = route.and_then(|route| self.subscriptions.get_mut(route.subscription))
            && let Some(slot) = self.delivery.get_mut(slot)
        {
            entry.fetch.came(&slot.message);
        }
    }

    /// Takes in the content of a promised message; one without route gets it from the response now.
    pub(super) fn pushed(
        &mut self,
        id: SlotId,
        send: Option<PushUri>,
        body: Vec<u8>,
        max_age: Option<Duration>,
        age: Option<Duration>,
    ) {
        let Some(slot) = self.delivery.get_mut(id) else { return };
        if slot.route.is_none() {
            let route = send.and_then(|send| {
                let entry = self.subscriptions.find_by_send(&send)?;
                Some(Route { subscription: entry.id, device: entry.device? })
            });
            let message = slot.message.clone();
            let Some(route) = route else {
                self.refused(&Refusal::Unwanted, &message);
                return self.give_up(id);
            };
            if !self.is_ready(route) || !self.delivery.has_room(Some(route.device)) {
                self.refused(&Refusal::NoRoom(route), &message);
                return self.give_up(id);
            }
            if let Some(slot) = self.delivery.get_mut(id) {
                slot.route = Some(route);
            }
        }
        let Some(slot) = self.delivery.get_mut(id) else { return };
        let hold_min = Duration::from_millis(HOLD_MS_MIN);
        slot.expires_at = max_age.map(|age| slot.promised_at + age.max(hold_min));
        slot.deadline = slot.promised_at + Duration::from_millis(HOLD_MS);
        slot.deadline = slot.deadline.min(slot.expires_at.unwrap_or(slot.deadline));
        slot.id = Some(message_id(&slot.message, &body));
        slot.age = age;
        slot.stage = Stage::Received(body);
        if let Some(device) = slot.device() {
            self.came_asleep(device);
        }
    }

    /// A message did not come, or what came is nothing to deliver.
    pub(super) fn push_failed(&mut self, slot: SlotId, content: Option<ContentError>) {
        match content {
            Some(ContentError::NotEncrypted | ContentError::TooLarge) => {
                self.count_arrival(slot);
                self.undeliverable(slot, None);
            }
            Some(ContentError::Status(_)) | None => {
                // The service may hold it back for long after such an end, so it is asked for.
                let route = self.delivery.get_mut(slot).and_then(|slot| slot.route);
                if let Some(entry) = route.and_then(|route| self.subscriptions.get_mut(route.subscription)) {
                    entry.fetch.later(self.now, &mut *self.random);
                }
                self.give_up(slot);
            }
        }
    }

    /// Makes a decrypted message ready for its device, if that takes its size.
    pub(super) fn decoded(&mut self, id: SlotId, outcome: Result<Vec<u8>, DecodeError>) {
        let Some(slot) = self.delivery.get_mut(id) else { return };
        let Ok(plaintext) = outcome else { return self.undeliverable(id, None) };
        let link_bytes = plaintext.len() + PUSH_OVERHEAD_BYTES_MAX;
        let device = slot.route.and_then(|route| self.devices.get(route.device).map(|device| (route.device, device)));
        if let Some((index, device)) = device
            && device.session().is_some_and(|(_, terms)| link_bytes > usize::from(terms.message_bytes_max))
        {
            return self.undeliverable(id, Some(link_bytes).map(|bytes| (index, bytes)));
        }
        slot.stage = Stage::Ready(Rc::new(plaintext));
    }

    /// A message that can never be delivered as it is: not acknowledged, since a receipt must never say that a device
    /// got what it did not get; remembered, so that it is not read again.
    pub(super) fn undeliverable(&mut self, slot: SlotId, too_large: Option<(super::DeviceIndex, usize)>) {
        if self.gives_up_undeliverable(slot) {
            self.counters.undeliverable += 1;
            return;
        }
        if let Some(slot) = self.delivery.free(slot) {
            self.delivery.mark_undeliverable(slot.message, too_large);
            self.counters.undeliverable += 1;
        }
    }
}

impl Gateway {
    /// Acknowledges a message in spite of all, where the configuration says so.
    fn gives_up_undeliverable(&mut self, slot: SlotId) -> bool {
        let now = self.now;
        let Some(slot) = self.delivery.get_mut(slot) else { return false };
        let device = slot.route.and_then(|route| self.devices.get(route.device));
        let gives_up = device.is_some_and(|device| device.options.undeliverable == Undeliverable::Acknowledge);
        if gives_up {
            slot.stage = Stage::Acked(Acknowledgement::due(now, false));
        }
        gives_up
    }
}

/// See [`MessageId`].
fn message_id(message: &PushMessageUri, body: &[u8]) -> MessageId {
    let uri = message.as_str().as_bytes();
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&u16::try_from(uri.len()).expect("a URI is at most URI_BYTES_MAX long").to_be_bytes());
    hash.update(uri);
    hash.update(body);
    MessageId(*hash.finish().as_ref().first_chunk().expect("a SHA-256 has 32 octets"))
}
