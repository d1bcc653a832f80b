//! The messages in flight: one slot each, from promise to acknowledgement.
//!
//! ```text
//! promise -> Admitted -> Receiving -> Received -> Decoding -> Ready -> Sent -> Acked -> (free)
//!                            \            \           \          \      |  device ack  204
//!                             +------------+-----------+----------+-----+-> (free, not acknowledged)
//! ```
//!
//! A slot leaves this table acknowledged only through `Acked`, which only a device ack enters (RFC 8030 §6.2). One slot
//! is reserved for each device and some are shared, so that no device can take another's last one. A message that is
//! `Acked` counts for neither: the service may promise the next one before it has answered the DELETE.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::acknowledgement::{Acknowledgement, Owed};
use super::connection::ConnectionId;
use super::device::DeviceIndex;
use super::subscription::SubscriptionId;
use super::upstream::UpstreamId;
use crate::limits::{
    ACKED_COUNT_MAX, DELIVERY_PER_DEVICE_MAX, DELIVERY_SLOT_COUNT, DELIVERY_SLOT_SHARED_COUNT, FREED_URI_RING,
    UNDELIVERABLE_URI_COUNT_MAX,
};
use crate::time::{Duration, Instant};
use crate::webpush::resource::PushMessageUri;
use crate::wire::MessageId;

/// Position of a slot; with its generation, so that a late report for a freed slot finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    index: usize,
    generation: u32,
}

/// Where the message of a slot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// The device of that subscription.
    pub device: DeviceIndex,
}

/// How far a message has come.
pub enum Stage {
    /// Its promise was accepted, which is yet to be said.
    Admitted,
    /// Its content is on its way.
    Receiving,
    /// Its content is here, encrypted.
    Received(Vec<u8>),
    /// Its content is being decrypted.
    Decoding,
    /// It can be handed to its device.
    Ready(Rc<Vec<u8>>),
    /// It was handed to its device.
    Sent(Rc<Vec<u8>>),
    /// Its device has it; the service is to be told.
    Acked(Acknowledgement),
}

/// The name alone: the rest is the message.
impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admitted => "Admitted",
            Self::Receiving => "Receiving",
            Self::Received(_) => "Received(..)",
            Self::Decoding => "Decoding",
            Self::Ready(_) => "Ready(..)",
            Self::Sent(_) => "Sent(..)",
            Self::Acked(_) => "Acked(..)",
        })
    }
}

/// One message in flight.
#[derive(Debug)]
pub struct Slot {
    /// Its resource.
    pub message: PushMessageUri,
    /// The connection on which it was promised.
    pub connection: ConnectionId,
    /// Where it is acknowledged.
    pub upstream: UpstreamId,
    /// Where it goes; none until the pushed response tells.
    pub route: Option<Route>,
    /// Its identity on the link, known with its content.
    pub id: Option<MessageId>,
    /// When it was promised.
    pub promised_at: Instant,
    /// Until when it may be handed to its device.
    pub deadline: Instant,
    /// Until when its link may begin with it, since it was handed to that.
    pub until: Instant,
    /// When it is of no use to anybody any more, if the service says so.
    pub expires_at: Option<Instant>,
    /// How long it had been with the service when it was promised, if that says so.
    pub age: Option<Duration>,
    /// Whether it came by itself: not because what is stored was asked for.
    pub is_live: bool,
    /// Order of the promises.
    pub order: u64,
    /// How far it has come.
    pub stage: Stage,
}

/// A message that left its slot unacknowledged; a late device ack still counts.
#[derive(Debug)]
pub struct Freed {
    /// Its resource.
    pub message: PushMessageUri,
    /// Where it is acknowledged.
    pub upstream: UpstreamId,
    /// Its subscription, and the device it was sent to.
    pub route: Route,
    /// Its identity on the link.
    pub id: MessageId,
    /// Set once the device acknowledged it.
    pub acknowledgement: Option<Acknowledgement>,
}

/// A message that its device will never get as it is.
#[derive(Debug)]
struct Undeliverable {
    message: PushMessageUri,
    /// Octets of the encoded message, when its size was the reason, and the device it was for.
    too_large: Option<(DeviceIndex, usize)>,
}

/// No slot is free for this device; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// All messages in flight and the bounded memory of those that were.
#[derive(Debug)]
pub struct DeliveryTable {
    slots: Vec<Option<Slot>>,
    generations: Vec<u32>,
    freed: VecDeque<Freed>,
    undeliverable: VecDeque<Undeliverable>,
    promises: u64,
}

impl Slot {
    /// The device its message is for.
    pub fn device(&self) -> Option<DeviceIndex> {
        self.route.map(|route| route.device)
    }

    /// Whether its message is still coming in on its connection.
    pub fn is_arriving_on(&self, connection: ConnectionId) -> bool {
        self.connection == connection && matches!(self.stage, Stage::Admitted | Stage::Receiving)
    }

    /// Whether its message is still on the way to being ready for its device.
    fn is_coming(&self) -> bool {
        matches!(self.stage, Stage::Admitted | Stage::Receiving | Stage::Received(_) | Stage::Decoding)
    }
}

impl Default for DeliveryTable {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(|| None).take(DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX).collect(),
            generations: vec![0; DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX],
            freed: VecDeque::with_capacity(FREED_URI_RING),
            undeliverable: VecDeque::new(),
            promises: 0,
        }
    }
}

impl DeliveryTable {
    /// Reserves a slot for a promised message.
    ///
    /// # Errors
    /// [`Full`] when the device has its share, or the shared slots are taken. A message without route takes a shared one.
    pub fn reserve(
        &mut self,
        message: PushMessageUri,
        (upstream, connection): (UpstreamId, ConnectionId),
        route: Option<Route>,
        now: Instant,
        deadline: Instant,
    ) -> Result<SlotId, Full> {
        if !self.has_room(route.map(|route| route.device)) {
            return Err(Full);
        }
        let index = self.slots.iter().position(Option::is_none).ok_or(Full)?;
        let order = self.promises;
        self.promises += 1;
        let stage = Stage::Admitted;
        self.slots[index] = Some(Slot {
            message,
            connection,
            upstream,
            route,
            id: None,
            promised_at: now,
            age: None,
            is_live: false,
            expires_at: None,
            deadline,
            until: deadline,
            order,
            stage,
        });
        Ok(SlotId { index, generation: self.generations[index] })
    }

    /// Whether a message for this device would get a slot.
    pub fn has_room(&self, device: Option<DeviceIndex>) -> bool {
        let held = device.map_or(DELIVERY_PER_DEVICE_MAX - 1, |device| self.held_by(device));
        held == 0 || (held < DELIVERY_PER_DEVICE_MAX && self.shared_in_use() < DELIVERY_SLOT_SHARED_COUNT)
    }

    /// Slots that a device holds: of messages that it has not acknowledged.
    pub fn held_by(&self, device: DeviceIndex) -> usize {
        self.held().filter(|slot| slot.device() == Some(device)).count()
    }

    fn held(&self) -> impl Iterator<Item = &Slot> {
        self.iter().map(|(_, slot)| slot).filter(|slot| !matches!(slot.stage, Stage::Acked(_)))
    }

    /// Slots in use beyond the first of each device.
    fn shared_in_use(&self) -> usize {
        let mut devices: Vec<DeviceIndex> = self.held().filter_map(Slot::device).collect();
        let taken = self.held().count();
        devices.sort_unstable();
        devices.dedup();
        taken - devices.len()
    }

    /// Slots in use.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let ids = self.generations.iter().enumerate().map(|(index, &generation)| SlotId { index, generation });
        ids.zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Slots in use.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SlotId, &mut Slot)> {
        let ids = self.generations.iter().enumerate().map(|(index, &generation)| SlotId { index, generation });
        ids.zip(&mut self.slots).filter_map(|(id, slot)| Some((id, slot.as_mut()?)))
    }

    /// The slot, unless it was freed.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        if self.generations.get(id.index) != Some(&id.generation) {
            return None;
        }
        self.slots[id.index].as_mut()
    }

    /// The slot that holds a message.
    pub fn find(&self, message: &PushMessageUri) -> Option<SlotId> {
        self.iter().find(|(_, slot)| slot.message == *message).map(|(id, _)| id)
    }

    /// Empties a slot for good.
    pub fn free(&mut self, id: SlotId) -> Option<Slot> {
        self.get_mut(id)?;
        self.generations[id.index] = self.generations[id.index].wrapping_add(1);
        self.slots[id.index].take()
    }

    /// Empties a slot whose message is not acknowledged; one that its device may have is remembered.
    pub fn give_up(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.free(id)?;
        if let (Stage::Sent(_), Some(route), Some(message_id)) = (&slot.stage, slot.route, slot.id) {
            let freed = Freed {
                message: slot.message.clone(),
                upstream: slot.upstream,
                route,
                id: message_id,
                acknowledgement: None,
            };
            self.remember(freed);
        }
        Some(slot)
    }

    /// Remembers a freed message in the place of the oldest one that is not to be acknowledged.
    fn remember(&mut self, freed: Freed) {
        if self.freed.len() == FREED_URI_RING {
            let Some(oldest) = self.freed.iter().position(|freed| freed.acknowledgement.is_none()) else { return };
            self.freed.remove(oldest);
        }
        self.freed.push_back(freed);
    }

    /// Takes up a message that its device had acknowledged in an earlier run.
    ///
    /// # Errors
    /// [`Full`] when every slot is taken.
    pub(super) fn restore(
        &mut self,
        message: PushMessageUri,
        upstream: UpstreamId,
        route: Route,
        id: MessageId,
        acknowledgement: Acknowledgement,
    ) -> Result<(), Full> {
        let index = self.slots.iter().position(Option::is_none).ok_or(Full)?;
        let (promised_at, deadline) = (acknowledgement.not_before, acknowledgement.not_before);
        self.slots[index] = Some(Slot {
            message,
            connection: ConnectionId::default(),
            upstream,
            route: Some(route),
            id: Some(id),
            age: None,
            is_live: false,
            expires_at: None,
            promised_at,
            deadline,
            until: deadline,
            order: 0,
            stage: Stage::Acked(acknowledgement),
        });
        Ok(())
    }

    /// The acknowledgements that are owed.
    pub(super) fn owed_mut(&mut self) -> impl Iterator<Item = Owed<'_>> {
        let slots = self.slots.iter_mut().flatten().filter_map(|slot| match &mut slot.stage {
            Stage::Acked(acknowledgement) => Some(Owed {
                message: &slot.message,
                upstream: slot.upstream,
                route: slot.route,
                id: slot.id,
                acknowledgement,
            }),
            _ => None,
        });
        let freed = self.freed.iter_mut().filter_map(|freed| {
            let acknowledgement = freed.acknowledgement.as_mut()?;
            let (route, id) = (Some(freed.route), Some(freed.id));
            Some(Owed { message: &freed.message, upstream: freed.upstream, route, id, acknowledgement })
        });
        slots.chain(freed)
    }

    /// Messages that this device was handed and has not answered.
    pub fn sent_to(&self, device: DeviceIndex) -> usize {
        self.iter().filter(|(_, slot)| slot.device() == Some(device) && matches!(slot.stage, Stage::Sent(_))).count()
    }

    /// The next message that may be handed to this device: the oldest ready one of those that match, unless an older one
    /// is still coming.
    pub fn next_for(&self, device: DeviceIndex, matches: impl Fn(&Slot) -> bool) -> Option<SlotId> {
        let mine = || self.iter().filter(|(_, slot)| slot.device() == Some(device) && matches(slot));
        let ready = mine().filter(|(_, slot)| matches!(slot.stage, Stage::Ready(_))).min_by_key(|(_, slot)| slot.order);
        let (id, slot) = ready?;
        let overtaken = mine().any(|(_, other)| other.is_coming() && other.order < slot.order);
        (!overtaken).then_some(id)
    }

    /// The slot whose message this device acknowledges: one that was handed to it.
    pub fn find_delivered(&self, device: DeviceIndex, message: MessageId) -> Option<SlotId> {
        let delivered = |slot: &Slot| matches!(slot.stage, Stage::Ready(_) | Stage::Sent(_) | Stage::Acked(_));
        let mut slots = self.iter();
        let found =
            slots.find(|(_, slot)| slot.device() == Some(device) && slot.id == Some(message) && delivered(slot));
        found.map(|(id, _)| id)
    }

    /// Messages that left their slots unacknowledged.
    pub fn freed_mut(&mut self) -> impl Iterator<Item = &mut Freed> {
        self.freed.iter_mut()
    }

    /// Messages that left their slots unacknowledged.
    pub fn freed(&self) -> impl Iterator<Item = &Freed> {
        self.freed.iter()
    }

    /// Forgets a freed message.
    pub fn forget_freed(&mut self, message: &PushMessageUri) -> Option<Freed> {
        let at = self.freed.iter().position(|freed| freed.message == *message)?;
        self.freed.remove(at)
    }

    /// Forgets the messages of a subscription that the service no longer has: nothing is left to acknowledge. Gives what
    /// was to be.
    pub fn forget_subscription(&mut self, subscription: SubscriptionId) -> Vec<(PushMessageUri, Acknowledgement)> {
        let slots = self.iter().filter(|(_, slot)| slot.route.is_some_and(|route| route.subscription == subscription));
        let slots: Vec<SlotId> = slots.map(|(id, _)| id).collect();
        let mut owed = Vec::new();
        for slot in slots.into_iter().filter_map(|slot| self.free(slot)) {
            if let Stage::Acked(acknowledgement) = slot.stage {
                owed.push((slot.message, acknowledgement));
            }
        }
        let is_its = |freed: &Freed| freed.route.subscription == subscription;
        let (forgotten, kept): (VecDeque<Freed>, _) = self.freed.drain(..).partition(is_its);
        self.freed = kept;
        owed.extend(forgotten.into_iter().filter_map(|freed| Some((freed.message, freed.acknowledgement?))));
        owed
    }

    /// Forgets the messages of a device, but for those that it acknowledged.
    pub fn forget_device(&mut self, device: DeviceIndex) {
        self.freed.retain(|freed| freed.route.device != device || freed.acknowledgement.is_some());
        self.undeliverable.retain(|entry| entry.too_large.is_none_or(|(of, _)| of != device));
    }

    /// Remembers a message as undeliverable, the oldest such being forgotten at the bound.
    pub fn mark_undeliverable(&mut self, message: PushMessageUri, too_large: Option<(DeviceIndex, usize)>) {
        push_bounded(&mut self.undeliverable, Undeliverable { message, too_large }, UNDELIVERABLE_URI_COUNT_MAX);
    }

    /// Whether a message is known to be undeliverable.
    pub fn is_undeliverable(&self, message: &PushMessageUri) -> bool {
        self.undeliverable.iter().any(|entry| entry.message == *message)
    }

    /// Forgets that messages were too large for a device, as far as it takes them now. Tells whether there were any.
    pub fn device_takes(&mut self, device: DeviceIndex, message_bytes_max: usize) -> bool {
        let before = self.undeliverable.len();
        self.undeliverable
            .retain(|entry| entry.too_large.is_none_or(|(of, bytes)| of != device || bytes > message_bytes_max));
        self.undeliverable.len() < before
    }

    /// Messages known to be undeliverable.
    pub fn undeliverable_count(&self) -> usize {
        self.undeliverable.len()
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, count_max: usize) {
    if queue.len() == count_max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEVICE_COUNT_MAX;
    use crate::proto::device::DeviceTable;

    const ON: (UpstreamId, ConnectionId) = (UpstreamId::HOME, ConnectionId(0));

    #[test]
    fn every_device_has_a_slot_of_its_own_however_greedy_others_are() {
        let mut table = DeliveryTable::default();
        let devices = devices();
        for number in 0..DELIVERY_PER_DEVICE_MAX {
            table.reserve(message(number), ON, route(devices[0]), Instant::ZERO, Instant::ZERO).expect("room");
        }
        let refused = table.reserve(message(99), ON, route(devices[0]), Instant::ZERO, Instant::ZERO);
        assert_eq!(refused, Err(Full));
        for number in 0..DELIVERY_SLOT_SHARED_COUNT - (DELIVERY_PER_DEVICE_MAX - 1) {
            table.reserve(message(100 + number), ON, None, Instant::ZERO, Instant::ZERO).expect("a shared slot");
        }
        assert_eq!(table.reserve(message(200), ON, None, Instant::ZERO, Instant::ZERO), Err(Full));
        for &device in &devices[1..] {
            let uri = message(1_000 + table.iter().count());
            table.reserve(uri.clone(), ON, route(device), Instant::ZERO, Instant::ZERO).expect("its own slot");
            let second = table.reserve(message(9_999), ON, route(device), Instant::ZERO, Instant::ZERO);
            assert_eq!(second, Err(Full));
        }
        assert_eq!(table.iter().count(), DELIVERY_SLOT_COUNT);
    }

    #[test]
    fn messages_whose_device_has_them_hold_no_slot_until_too_many_wait() {
        let mut table = DeliveryTable::default();
        let device = devices()[0];
        for number in 0..DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX {
            let slot = table.reserve(message(number), ON, route(device), Instant::ZERO, Instant::ZERO).expect("room");
            table.get_mut(slot).expect("there").stage = Stage::Acked(Acknowledgement::due(Instant::ZERO, false));
        }
        assert_eq!(table.held_by(device), 0);
        let refused = table.reserve(message(9_999), ON, route(device), Instant::ZERO, Instant::ZERO);
        assert_eq!(refused, Err(Full));
    }

    #[test]
    fn a_report_for_a_freed_slot_finds_nothing() {
        let mut table = DeliveryTable::default();
        let slot = table.reserve(message(1), ON, None, Instant::ZERO, Instant::ZERO).expect("room");
        assert!(table.free(slot).is_some() && table.free(slot).is_none());
        let next = table.reserve(message(2), ON, None, Instant::ZERO, Instant::ZERO).expect("room");
        assert!(table.get_mut(slot).is_none() && table.get_mut(next).is_some());
    }

    #[test]
    fn messages_of_a_device_keep_the_order_of_their_promises() {
        let mut table = DeliveryTable::default();
        let device = devices()[0];
        let first = table.reserve(message(1), ON, route(device), Instant::ZERO, Instant::ZERO).expect("room");
        let second = table.reserve(message(2), ON, route(device), Instant::ZERO, Instant::ZERO).expect("room");
        table.get_mut(second).expect("there").stage = Stage::Ready(Rc::default());
        assert_eq!(table.next_for(device, |_| true), None);
        table.get_mut(first).expect("there").stage = Stage::Ready(Rc::default());
        assert_eq!(table.next_for(device, |_| true), Some(first));
        table.free(first);
        assert_eq!(table.next_for(device, |_| true), Some(second));
    }

    #[test]
    fn only_messages_that_were_sent_are_remembered_and_the_oldest_is_forgotten() {
        let mut table = DeliveryTable::default();
        let device = devices()[0];
        for number in 0..=FREED_URI_RING {
            let slot = table.reserve(message(number), ON, route(device), Instant::ZERO, Instant::ZERO).expect("room");
            let entry = table.get_mut(slot).expect("there");
            entry.id = Some(MessageId([number as u8; 8]));
            entry.stage = Stage::Sent(Rc::default());
            table.give_up(slot);
        }
        let unsent = table.reserve(message(900), ON, route(device), Instant::ZERO, Instant::ZERO).expect("room");
        table.give_up(unsent);
        assert_eq!(table.freed().count(), FREED_URI_RING);
        assert!(table.freed().all(|freed| freed.message != message(0) && freed.message != message(900)));
    }

    /// A-GAP-05: the memory of undeliverable messages is bounded.
    #[test]
    fn undeliverable_messages_are_remembered_within_a_bound() {
        let mut table = DeliveryTable::default();
        for number in 0..10_000 {
            table.mark_undeliverable(message(number), None);
        }
        assert_eq!(table.undeliverable_count(), UNDELIVERABLE_URI_COUNT_MAX);
        assert!(table.is_undeliverable(&message(9_999)) && !table.is_undeliverable(&message(0)));
    }

    /// C-67: a larger maximum clears the mark.
    #[test]
    fn a_message_that_was_too_large_is_tried_again_when_the_device_takes_more() {
        let mut table = DeliveryTable::default();
        let device = devices()[0];
        table.mark_undeliverable(message(1), Some((device, 600)));
        assert!(!table.device_takes(device, 599) && table.is_undeliverable(&message(1)));
        assert!(table.device_takes(device, 600) && !table.is_undeliverable(&message(1)));
    }

    fn devices() -> Vec<DeviceIndex> {
        let mut table = DeviceTable::default();
        let id = |number| format!("device-{number}").parse().expect("an id");
        (0..DEVICE_COUNT_MAX).map(|number| table.add(id(number)).expect("room")).collect()
    }

    fn route(device: DeviceIndex) -> Option<Route> {
        Some(Route { subscription: SubscriptionId::default(), device })
    }

    fn message(number: usize) -> PushMessageUri {
        PushMessageUri::parse(&format!("https://push.example/m/{number}")).expect("valid")
    }
}
