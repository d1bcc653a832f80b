//! The life of each subscription, and the keys it owns.
//!
//! ```text
//! Wanted --POST--> Requested --201--> Granted --on flash--> Active --leave--> Leaving --deleted--> Erasing --> (gone)
//!   ^                  |                                       |
//!   +---- failed ------+                                       |
//!   +------------------ the service ended it ------------------+
//! ```
//!
//! A device hears of its subscription only when it is `Active`: persist, then tell.
//!
//! One that is to be replaced stays in use until the new one is on flash, and is read for a while longer: its application
//! servers have to hear of the new one.
//!
//! ```text
//! old  Current, Active ----------------------------------> Retired, Active --grace--> Retired, Leaving --> (gone)
//! new           Replacement: Wanted, Requested, Granted --> Current, Active
//! ```

use std::rc::Rc;

use super::backoff::Backoff;
use super::connection::ConnectionId;
use super::device::{DeviceIndex, Isolation};
use super::flood::Arrivals;
use super::record::{Key, Record, Tag};
use super::upstream::UpstreamId;
use crate::limits::{
    DELIVERY_PER_DEVICE_MAX, MISSED_ASK_COUNT_MAX, MISSED_MS_MAX, REDIRECT_COUNT_MAX, REFUSED_PAUSE_MS_MAX,
    REFUSED_PAUSE_MS_MIN, ROTATION_COUNT_MAX, SUBSCRIBE_BACKOFF_MS_MAX, SUBSCRIBE_BACKOFF_MS_MIN,
    SUBSCRIPTION_COUNT_MAX, SUBSCRIPTION_STABLE_MS,
};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::webpush::ece::Keys;
use crate::webpush::exchange::{Granted, Target};
use crate::webpush::resource::{PushMessageUri, PushServiceUri, PushUri, SetUri};
use crate::webpush::vapid::ApplicationServerKey;
use crate::wire::{ChannelId, DeviceId};

/// Number of a subscription, never used twice in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u32);

/// A subscription as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The device it belongs to.
    pub device: DeviceId,
    /// The device's label for it.
    pub channel: ChannelId,
    /// Its keys.
    pub keys: Rc<Keys>,
    /// Its resources.
    pub granted: Granted,
    /// The service that was asked for it, when that sent the request on to another origin.
    pub via: Option<String>,
    /// The application server that alone may send to it.
    pub restricted_to: Option<ApplicationServerKey>,
    /// Whether it is to be removed at the service.
    pub leaving: bool,
}

/// Which subscription of its channel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that the device and its application servers know.
    Current,
    /// The one that is being made in its place.
    Replacement {
        /// Of which.
        of: SubscriptionId,
    },
    /// The one that was replaced.
    Retired {
        /// When it is to be removed.
        at: Instant,
    },
}

/// Where a subscription is to be, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The configured service.
    pub home: UpstreamId,
    /// Where it is asked for: there, or on a connection of its own.
    pub base: UpstreamId,
    /// How far it is kept apart.
    pub isolation: Isolation,
    /// The application server that alone may send to it.
    pub restricted_to: Option<ApplicationServerKey>,
}

/// Where a subscription stands.
#[derive(Debug)]
pub enum Life {
    /// To be asked for.
    Wanted {
        /// When it may be asked for.
        not_before: Instant,
    },
    /// Asked for.
    Requested {
        /// On which connection.
        on: ConnectionId,
    },
    /// The service granted it; it is to be stored.
    Granted {
        /// Its resources.
        granted: Granted,
        /// Whether the write is on its way.
        persisting: bool,
    },
    /// Stored and in use.
    Active(Granted),
    /// To be removed at the service.
    Leaving {
        /// Its resources.
        granted: Granted,
        /// Whether the store knows that it is leaving.
        mark: Mark,
        /// The connection on which the request is on its way.
        in_flight: Option<ConnectionId>,
        /// When it may be sent.
        not_before: Instant,
    },
    /// Removed at the service; its record is to go.
    Erasing {
        /// Whether the write is on its way.
        persisting: bool,
    },
}

/// How far a note has come on its way to flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// To be written.
    Due,
    /// Being written.
    Persisting,
    /// There.
    Stored,
    /// Nothing to write and nothing to ask: its whole set is being removed.
    WithSet,
}

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Its resource.
    pub message: PushMessageUri,
    /// How often it was asked for.
    pub asked_count: u32,
    /// When it was refused last.
    pub refused_at: Instant,
}

/// Whether messages wait at the service that were refused here.
#[derive(Debug)]
pub struct Fetch {
    /// A promise was refused, or messages were given up.
    pub due: bool,
    /// Requests with `wait=0` that are open: a new one takes the place of one that waits for acknowledgements.
    pub open_count: usize,
    /// When the next may be sent.
    not_before: Instant,
    /// The same, by what the service asked for and by how often it is asked at most: no device shortens that.
    not_asked_before: Instant,
    /// Pauses while messages do not arrive, or their device has no room.
    pub backoff: Backoff,
    /// Messages that were refused and have not come again.
    pub missed: Vec<Missed>,
    /// When to ask although nothing was refused for want of room: messages that can never be delivered may stand before
    /// others, and the service may hold all of them back.
    again_at: Option<Instant>,
    /// Pauses between such requests.
    again_backoff: Backoff,
}

impl Default for Fetch {
    fn default() -> Self {
        let backoff = Backoff::new(REFUSED_PAUSE_MS_MIN, REFUSED_PAUSE_MS_MAX);
        let again_backoff = backoff.clone();
        let (again_at, missed) = (None, Vec::new());
        let (not_before, not_asked_before) = (Instant::ZERO, Instant::ZERO);
        Self { due: false, open_count: 0, not_before, not_asked_before, backoff, again_at, again_backoff, missed }
    }
}

impl Fetch {
    /// Asks after a pause that grows.
    pub fn later(&mut self, now: Instant, random: &mut dyn Random) {
        self.due = true;
        let pause = self.backoff.fail(None, random);
        self.not_before = self.not_before.max(now + pause);
    }

    /// Notes that a message was refused; beyond [`DELIVERY_PER_DEVICE_MAX`] of them no more are noted, since asking
    /// brings the others as well.
    pub fn missed(&mut self, message: PushMessageUri, now: Instant) {
        self.due = true;
        if let Some(missed) = self.missed.iter_mut().find(|missed| missed.message == message) {
            missed.refused_at = now;
        } else if self.missed.len() < DELIVERY_PER_DEVICE_MAX {
            self.missed.push(Missed { message, asked_count: 0, refused_at: now });
        }
    }

    /// Notes that a message came after all.
    pub fn came(&mut self, message: &PushMessageUri) {
        self.missed.retain(|missed| missed.message != *message);
    }

    /// A request for what is stored has ended: what did not come is asked for again later, but not for ever, since it
    /// may have expired. A service may count what it has just pushed as delivered for a while, but not what was refused
    /// long ago.
    pub fn ended(&mut self, now: Instant, random: &mut dyn Random) {
        for missed in &mut self.missed {
            missed.asked_count += 1;
        }
        let fresh = Duration::from_millis(MISSED_MS_MAX);
        self.missed.retain(|it| it.asked_count < MISSED_ASK_COUNT_MAX && now < it.refused_at + fresh);
        if !self.missed.is_empty() && !self.due {
            self.later(now, random);
        }
    }

    /// Asks after a pause that grows, for what stands behind messages that can never be delivered, or was not answered in
    /// time.
    pub fn look_behind(&mut self, now: Instant, random: &mut dyn Random) {
        if self.again_at.is_none() {
            self.again_at = Some(now + self.again_backoff.fail(None, random));
        }
    }

    /// When to ask next.
    pub fn due_at(&self) -> Option<Instant> {
        let at = if self.due { Some(self.not_before) } else { self.again_at };
        at.map(|at| at.max(self.not_before).max(self.not_asked_before))
    }

    /// It was asked.
    pub fn asked(&mut self, not_before: Instant) {
        (self.due, self.again_at) = (false, None);
        self.open_count += 1;
        self.wait_until(not_before);
    }

    /// The device is there: what was in vain before may not be so now.
    pub fn device_up(&mut self, now: Instant) {
        self.not_before = now;
        self.backoff.reset();
        self.again_backoff.reset();
    }

    /// Nothing is asked any more on the connection that was there. The next one may reach a service that knows nothing of
    /// what was in vain. What has not come is asked for there: only an answer tells that it is gone.
    pub fn connection_closed(&mut self) {
        self.due |= !self.missed.is_empty();
        self.open_count = 0;
        self.again_backoff.reset();
    }

    /// There is a new connection. What was asked on an old one is asked again: its messages may come to neither.
    pub fn moved(&mut self) {
        self.due |= self.open_count > 0;
        self.open_count = 0;
    }

    /// Asks no earlier than that, whatever devices say.
    pub fn wait_until(&mut self, at: Instant) {
        self.not_asked_before = self.not_asked_before.max(at);
    }

    /// A person asks, who knows better.
    pub fn ask_now(&mut self) {
        self.due = true;
        (self.not_before, self.not_asked_before) = (Instant::ZERO, Instant::ZERO);
    }
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Its number.
    pub id: SubscriptionId,
    /// The device it belongs to; none once that was removed.
    pub device: Option<DeviceIndex>,
    /// The id of that device.
    pub device_id: DeviceId,
    /// The device's label for it.
    pub channel: ChannelId,
    /// Its keys.
    pub keys: Rc<Keys>,
    /// Which one of its channel it is.
    pub role: Role,
    /// Of its resource, once granted.
    tag: Tag,
    /// It is to be replaced.
    pub rotation_due: bool,
    /// Where it is to be.
    pub place: Place,
    /// The set that was presented for it is no good.
    pub without_set: bool,
    /// Where it is, or is asked for.
    pub upstream: UpstreamId,
    /// Where exactly it is asked for, when a service sent the request on.
    pub asks: Option<PushServiceUri>,
    /// How often the request was sent on.
    pub redirects: u8,
    /// Where it stands.
    pub life: Life,
    /// Pauses between requests that fail.
    pub backoff: Backoff,
    /// Since when it has been in use.
    pub active_since: Instant,
    /// The device is to be told its push URI.
    pub reply_due: bool,
    /// Messages that wait at the service.
    pub fetch: Fetch,
    /// Messages that came of late.
    pub arrivals: Arrivals,
    /// It is to be removed once the answer to its request tells where it is.
    pub unwanted: bool,
    /// A device that asks for the same channel while the subscription is being removed.
    pub successor: Option<DeviceIndex>,
}

/// All subscriptions: at most [`SUBSCRIPTION_COUNT_MAX`], and [`ROTATION_COUNT_MAX`] that replace others or were replaced.
#[derive(Debug, Default)]
pub struct SubscriptionTable {
    entries: Vec<Subscription>,
    next_id: u32,
}

/// Nothing more fits; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Life {
    /// Whether the store is yet to be told.
    pub fn is_behind(&self) -> bool {
        matches!(
            self,
            Self::Granted { persisting: false, .. }
                | Self::Leaving { mark: Mark::Due, .. }
                | Self::Erasing { persisting: false }
        )
    }
}

impl Subscription {
    /// Its resources, while it is in use.
    pub fn active(&self) -> Option<&Granted> {
        match &self.life {
            Life::Active(granted) => Some(granted),
            _ => None,
        }
    }

    /// Its resources, as long as the service may have it.
    pub fn granted(&self) -> Option<&Granted> {
        match &self.life {
            Life::Granted { granted, .. } | Life::Active(granted) | Life::Leaving { granted, .. } => Some(granted),
            Life::Wanted { .. } | Life::Requested { .. } | Life::Erasing { .. } => None,
        }
    }

    /// Starts anew, with new keys (RFC 8030 §8.2: nothing links the new subscription to the old one).
    pub fn want(&mut self, not_before: Instant, random: &mut dyn Random) {
        self.keys = Rc::new(Keys::generate(random));
        self.ask_at_home();
        self.life = Life::Wanted { not_before };
        self.reply_due = true;
        self.fetch = Fetch::default();
    }

    /// It is asked for at the configured service.
    fn ask_at_home(&mut self) {
        (self.upstream, self.asks, self.redirects) = (self.place.base, None, 0);
    }

    /// It is to be elsewhere: asked for there, or replaced once it is in use.
    pub fn move_to(&mut self, place: Place) {
        if matches!(self.life, Life::Wanted { .. }) {
            self.place = place;
            self.ask_at_home();
        } else {
            self.rotation_due = true;
        }
    }

    /// Whether it is in use and not where it is to be, or to be replaced for another reason.
    pub fn needs_rotation(&self) -> bool {
        self.rotation_due && self.role == Role::Current && matches!(self.life, Life::Active(_))
    }

    /// The request is sent on, at once. Tells whether it may be, or was sent on too often.
    ///
    /// Source: RFC 8030 §7.1; RFC 9110 §15.4.8 (the next request goes to the first place again).
    pub fn redirected(&mut self, upstream: UpstreamId, service: PushServiceUri, now: Instant) -> bool {
        if self.redirects == REDIRECT_COUNT_MAX {
            return false;
        }
        (self.upstream, self.asks) = (upstream, Some(service));
        self.redirects += 1;
        self.request_again(now);
        true
    }

    /// The place that the request was sent on to cannot be reached: the first one is asked again after a pause.
    pub fn sent_on_in_vain(&mut self, now: Instant, random: &mut dyn Random) {
        if self.asks.is_some() && matches!(self.life, Life::Wanted { .. }) {
            let pause = self.backoff.fail(None, random);
            self.ask_at_home();
            self.request_again(now + pause);
        }
    }

    /// It is on flash, and in use from now on.
    pub fn activate(&mut self, now: Instant) {
        if let Life::Granted { granted, .. } = &self.life {
            self.life = Life::Active(granted.clone());
            self.active_since = now;
        }
    }

    /// The service ended it: it is made anew after a pause, which grows if that happens again soon.
    pub fn ended(&mut self, now: Instant, random: &mut dyn Random) {
        if now.since(self.active_since) >= Duration::from_millis(SUBSCRIPTION_STABLE_MS) {
            self.backoff.reset();
        }
        let pause = self.backoff.fail(None, random);
        self.want(now + pause, random);
    }

    /// Begins its removal; whatever was never granted is only erased.
    pub fn leave(&mut self, now: Instant) {
        self.successor = None;
        self.life = match std::mem::replace(&mut self.life, Life::Erasing { persisting: false }) {
            Life::Granted { granted, .. } | Life::Active(granted) => {
                Life::Leaving { granted, mark: Mark::Due, in_flight: None, not_before: now }
            }
            requested @ Life::Requested { .. } => {
                self.unwanted = true;
                requested
            }
            Life::Wanted { .. } => Life::Erasing { persisting: false },
            leaving => leaving,
        }
    }

    /// The service granted it; it may have become unwanted meanwhile.
    pub fn request_granted(&mut self, granted: Granted, now: Instant) {
        if !matches!(self.life, Life::Requested { .. }) {
            return;
        }
        self.tag = Tag::of(granted.read.as_str());
        self.without_set = false;
        self.life = if std::mem::take(&mut self.unwanted) {
            Life::Leaving { granted, mark: Mark::Due, in_flight: None, not_before: now }
        } else {
            Life::Granted { granted, persisting: false }
        };
    }

    /// The request failed, or its outcome is unknown; it is repeated after a pause of at least `asked`.
    pub fn request_failed(&mut self, asked: Option<Duration>, now: Instant, random: &mut dyn Random) {
        if !matches!(self.life, Life::Requested { .. }) {
            return;
        }
        let asked = asked.map(|asked| asked.min(Duration::from_millis(SUBSCRIBE_BACKOFF_MS_MAX)));
        let pause = self.backoff.fail(asked, random);
        self.ask_at_home();
        self.request_again(now + pause);
    }

    /// The request is repeated at a time, unless it became unwanted meanwhile.
    pub fn request_again(&mut self, not_before: Instant) {
        self.life = if std::mem::take(&mut self.unwanted) {
            Life::Erasing { persisting: false }
        } else {
            Life::Wanted { not_before }
        };
    }

    /// Whether it is being removed.
    pub fn is_leaving(&self) -> bool {
        self.unwanted || matches!(self.life, Life::Leaving { .. } | Life::Erasing { .. })
    }

    /// What it is filed under.
    pub fn key(&self) -> Key {
        match self.role {
            Role::Current => Key::Subscription(self.device_id.clone(), self.channel),
            Role::Replacement { .. } | Role::Retired { .. } => {
                Key::Retired(self.device_id.clone(), self.channel, self.tag)
            }
        }
    }

    /// The record of it, once granted.
    pub fn record(&self, home: &PushServiceUri) -> Option<Record> {
        let stored = self.stored(home)?;
        Some(match self.role {
            Role::Current => Record::Subscription(stored),
            Role::Replacement { .. } | Role::Retired { .. } => Record::Retired(stored),
        })
    }

    /// It as it is stored, once granted.
    pub fn stored(&self, home: &PushServiceUri) -> Option<Stored> {
        let granted = self.granted()?.clone();
        let via = (granted.read.authority() != home.authority()).then(|| home.authority().to_owned());
        let (device, keys) = (self.device_id.clone(), Rc::clone(&self.keys));
        let restricted_to = self.place.restricted_to.clone();
        let leaving = matches!(self.life, Life::Leaving { .. });
        Some(Stored { device, channel: self.channel, keys, granted, via, restricted_to, leaving })
    }
}

impl SubscriptionTable {
    /// Adds a subscription that is yet to be made.
    ///
    /// # Errors
    /// [`Full`] when [`SUBSCRIPTION_COUNT_MAX`] are there.
    pub fn want(
        &mut self,
        device: DeviceIndex,
        device_id: DeviceId,
        channel: ChannelId,
        place: Place,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<&mut Subscription, Full> {
        let keys = Rc::new(Keys::generate(random));
        let life = Life::Wanted { not_before: now };
        self.add(Some(device), device_id, channel, Role::Current, keys, place, life)
    }

    /// Begins the replacement of one that needs it, if there is room for another.
    ///
    /// # Errors
    /// [`Full`] when [`ROTATION_COUNT_MAX`] replace others or were replaced.
    pub fn replace(
        &mut self,
        of: SubscriptionId,
        place: Place,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<(), Full> {
        // Keys take milliseconds of a board, so that there is room comes first.
        if self.entries.iter().filter(|entry| entry.role != Role::Current).count() >= ROTATION_COUNT_MAX {
            return Err(Full);
        }
        let Some(old) = self.get(of) else { return Ok(()) };
        let (device, device_id, channel) = (old.device, old.device_id.clone(), old.channel);
        let (keys, life) = (Rc::new(Keys::generate(random)), Life::Wanted { not_before: now });
        let new = self.add(device, device_id, channel, Role::Replacement { of }, keys, place, life)?;
        new.reply_due = true;
        if let Some(old) = self.get_mut(of) {
            old.rotation_due = false;
        }
        Ok(())
    }

    /// Adds a stored subscription, whose device may turn up later.
    ///
    /// # Errors
    /// [`Full`] when as many are there as may be.
    pub fn restore(
        &mut self,
        stored: Stored,
        role: Role,
        (home, upstream): (UpstreamId, UpstreamId),
        now: Instant,
    ) -> Result<(), Full> {
        let Stored { device: device_id, channel, keys, granted, via: _, restricted_to, leaving } = stored;
        let place = Place { home, base: home, isolation: Isolation::None, restricted_to };
        let tag = Tag::of(granted.read.as_str());
        let life = if leaving {
            Life::Leaving { granted, mark: Mark::Stored, in_flight: None, not_before: now }
        } else {
            Life::Active(granted)
        };
        let entry = self.add(None, device_id, channel, role, keys, place, life)?;
        (entry.upstream, entry.tag) = (upstream, tag);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what a subscription starts with")]
    fn add(
        &mut self,
        device: Option<DeviceIndex>,
        device_id: DeviceId,
        channel: ChannelId,
        role: Role,
        keys: Rc<Keys>,
        place: Place,
        life: Life,
    ) -> Result<&mut Subscription, Full> {
        let is_current = |entry: &&Subscription| entry.role == Role::Current;
        let current_count = self.entries.iter().filter(is_current).count();
        let is_full = match role {
            Role::Current => current_count == SUBSCRIPTION_COUNT_MAX,
            Role::Replacement { .. } | Role::Retired { .. } => self.entries.len() - current_count >= ROTATION_COUNT_MAX,
        };
        if is_full {
            return Err(Full);
        }
        let id = SubscriptionId(self.next_id);
        self.next_id += 1;
        self.entries.push(Subscription {
            id,
            device,
            device_id,
            channel,
            keys,
            role,
            tag: Tag::of(""),
            rotation_due: false,
            upstream: place.base,
            place,
            without_set: false,
            asks: None,
            redirects: 0,
            life,
            backoff: Backoff::new(SUBSCRIBE_BACKOFF_MS_MIN, SUBSCRIBE_BACKOFF_MS_MAX),
            active_since: Instant::ZERO,
            reply_due: false,
            fetch: Fetch::default(),
            arrivals: Arrivals::default(),
            unwanted: false,
            successor: None,
        });
        Ok(self.entries.last_mut().expect("it was just pushed"))
    }

    /// Drops a subscription.
    pub fn remove(&mut self, id: SubscriptionId) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// The subscription of that number.
    pub fn get(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// The subscription of that number.
    pub fn get_mut(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// The subscription of a device's channel.
    pub fn find_mut(&mut self, device: &DeviceId, channel: ChannelId) -> Option<&mut Subscription> {
        let mut current = self.entries.iter_mut().filter(|entry| entry.role == Role::Current);
        current.find(|entry| entry.device_id == *device && entry.channel == channel)
    }

    /// The one that is being made in the place of another.
    pub fn replacement_of(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.entries.iter_mut().find(|entry| entry.role == Role::Replacement { of: id })
    }

    /// The set that the newest subscription of a device is in, at a service, of those that are kept apart.
    pub fn set_of_device(&self, device: &DeviceId, home: UpstreamId) -> Option<&SetUri> {
        let mine = self.entries.iter().filter(|entry| entry.device_id == *device && entry.place.home == home);
        let apart = mine.filter(|entry| entry.place.isolation != Isolation::None);
        apart.filter_map(|entry| entry.granted()?.set.as_ref()).next_back()
    }

    /// Whether any is at an upstream, or is asked for there.
    pub fn has_any_at(&self, upstream: UpstreamId) -> bool {
        self.entries.iter().any(|entry| entry.upstream == upstream)
    }

    /// The active subscription whose messages are posted to this resource.
    pub fn find_by_send(&self, send: &PushUri) -> Option<&Subscription> {
        self.entries.iter().find(|entry| entry.active().is_some_and(|granted| granted.send == *send))
    }

    /// The active subscription that is read at this target, when it is read alone.
    pub fn find_by_target(&self, target: &Target) -> Option<&Subscription> {
        let Target::Subscription(read) = target else { return None };
        self.entries.iter().find(|entry| entry.active().is_some_and(|granted| granted.read == *read))
    }

    /// All subscriptions.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.entries.iter()
    }

    /// All subscriptions.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.entries.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::device::DeviceTable;
    use crate::random::SeededRandom;

    #[test]
    fn a_full_table_refuses_and_keeps_state() {
        let mut random = SeededRandom::new(1);
        let mut table = SubscriptionTable::default();
        let id: DeviceId = "a".parse().expect("an id");
        let device = DeviceTable::default().add(id.clone()).expect("room");
        for channel in 0..SUBSCRIPTION_COUNT_MAX {
            let channel = ChannelId(channel as u16);
            table.want(device, id.clone(), channel, place(), Instant::ZERO, &mut random).expect("room");
        }
        let refused = table.want(device, id.clone(), ChannelId(9_999), place(), Instant::ZERO, &mut random);
        assert_eq!(refused.err(), Some(Full));
        let ids: Vec<SubscriptionId> = table.iter().map(|entry| entry.id).collect();
        for of in &ids[..ROTATION_COUNT_MAX] {
            table.replace(*of, place(), Instant::ZERO, &mut random).expect("room of their own");
        }
        assert_eq!(table.replace(ids[ROTATION_COUNT_MAX], place(), Instant::ZERO, &mut random), Err(Full));
        assert_eq!(table.iter().count(), SUBSCRIPTION_COUNT_MAX + ROTATION_COUNT_MAX);
    }

    /// A-UA-41: a new subscription of the same channel shares no key with the old one.
    #[test]
    fn wanting_again_makes_new_keys() {
        let mut random = SeededRandom::new(1);
        let mut table = SubscriptionTable::default();
        let id: DeviceId = "a".parse().expect("an id");
        let device = DeviceTable::default().add(id.clone()).expect("room");
        let entry = table.want(device, id, ChannelId(1), place(), Instant::ZERO, &mut random).expect("room");
        let old = Rc::clone(&entry.keys);
        entry.want(Instant::ZERO, &mut random);
        assert!(old.public() != entry.keys.public() && old.auth() != entry.keys.auth());
    }

    fn place() -> Place {
        let home = UpstreamId::HOME;
        Place { home, base: home, isolation: Isolation::None, restricted_to: None }
    }
}
