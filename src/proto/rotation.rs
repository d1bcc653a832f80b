//! Subscriptions that are made anew while the old ones are in use, and sets that go as a whole.
//!
//! A new subscription comes before the old one goes: on request of a person, when a device is to be elsewhere or behind
//! another application server key, and when so many subscribe requests had no known outcome that their set is left for
//! another one.
//!
//! Source: RFC 8030 §7.3, §7.3.1, §8.2; RFC 8292 §4.2 (another key needs another subscription).

use super::connection::ConnectionId;
use super::device::{DeviceIndex, Isolation};
use super::record::Key;
use super::subscription::{Life, Mark, Place, Role, Subscription, SubscriptionId};
use super::upstream::{Full, UpstreamId};
use super::{Gateway, Subject};
use crate::limits::{ORPHAN_COUNT_MAX, ROTATION_GRACE_MS};
use crate::time::{Duration, Instant};
use crate::webpush::exchange::Deletion;
use crate::webpush::resource::SetUri;
use crate::wire::{ChannelId, DeviceId};

/// Subscribe requests that may have made a subscription of which nothing is known here.
///
/// A request of unknown outcome may not be repeated blindly, and what it made stays in its set until that goes. So each is
/// counted on flash before it is sent.
///
/// Source: RFC 8030 §4 (a subscribe request is not idempotent).
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Of unknown outcome.
    count: u8,
    /// What is surely on flash at least.
    stored: u8,
    /// A number is being written.
    is_persisting: bool,
}

impl Orphans {
    /// What an earlier run left behind: all of it may be there.
    pub(super) fn restored(&mut self, count: u8) {
        (self.count, self.stored) = (count, count);
    }

    /// Whether one more request may be sent beside those that are.
    pub(super) fn cover(&self, requested: u8) -> bool {
        self.stored > self.count.saturating_add(requested)
    }

    /// The number to be written, if another one is needed: enough for what is about to be sent, and no more once nothing
    /// is to be asked for.
    fn to_store(&self, requested: u8, is_due: bool, is_any_wanted: bool) -> Option<u8> {
        let needed = self.count.saturating_add(requested).saturating_add(u8::from(is_due));
        if self.stored < needed {
            return Some(needed);
        }
        (self.stored > self.count && requested == 0 && !is_any_wanted).then_some(self.count)
    }
}

impl Gateway {
    /// The number of orphans to be written.
    pub(super) fn orphans_to_store(&self) -> Option<u8> {
        if self.orphans.is_persisting {
            return None;
        }
        let is_due = self
            .upstreams
            .iter()
            .any(|upstream| upstream.uplink.requests_on().is_some() && self.next_to_subscribe(upstream.id).is_some());
        let is_any_wanted = self.subscriptions.iter().any(|entry| matches!(entry.life, Life::Wanted { .. }));
        self.orphans.to_store(self.requested_count(), is_due, is_any_wanted)
    }

    /// Subscribe requests on the way.
    pub(super) fn requested_count(&self) -> u8 {
        let requested = self.subscriptions.iter().filter(|entry| matches!(entry.life, Life::Requested { .. }));
        u8::try_from(requested.count()).unwrap_or(u8::MAX)
    }

    /// The number is being written: until that is done, the smaller one counts.
    pub(super) fn orphans_persisting(&mut self, count: u8) {
        self.orphans.is_persisting = true;
        self.orphans.stored = self.orphans.stored.min(count);
    }

    pub(super) fn orphans_persisted(&mut self, count: u8, stored: bool) {
        self.orphans.is_persisting = false;
        if stored {
            self.orphans.stored = count;
        }
    }

    /// The outcome of a subscribe request is unknown. Too many of those, and their sets are left for others.
    pub(super) fn subscribe_lost(&mut self) {
        self.orphans.count = self.orphans.count.saturating_add(1);
        if self.orphans.count > ORPHAN_COUNT_MAX && self.abandoned.is_empty() {
            self.abandon_sets();
        }
    }

    fn abandon_sets(&mut self) {
        let mut sets: Vec<(SetUri, UpstreamId)> = Vec::new();
        let known = self.upstreams.iter().filter_map(|upstream| Some((upstream.set.clone()?, upstream.id)));
        let granted =
            self.subscriptions.iter().filter_map(|entry| Some((entry.granted()?.set.clone()?, entry.upstream)));
        for (set, upstream) in known.chain(granted) {
            if !sets.iter().any(|(other, _)| *other == set) && !self.departures.contains(&set) {
                sets.push((set, upstream));
            }
        }
        for upstream in self.upstreams.iter_mut() {
            upstream.set_known(None);
        }
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.granted().is_some_and(|it| it.set.is_some())) {
            entry.rotation_due = true;
        }
        self.abandoned = sets;
        // Without any set there is nothing that could end them.
        if self.abandoned.is_empty() {
            self.orphans.count = 0;
        }
    }

    /// Where a device's subscriptions are to be.
    pub(super) fn wanted_place(&mut self, index: DeviceIndex) -> Result<Place, Full> {
        let device = self.devices.get(index).ok_or(Full)?;
        let options = &device.options;
        let home = self.upstreams.named(options.push_service.as_deref()).ok_or(Full)?.id;
        let (isolation, restricted_to) = (options.isolated, options.application_server_key.clone());
        let isolated = (isolation == Isolation::Connection).then_some(&device.id);
        let base = self.upstreams.place(home, isolated, self.now)?;
        Ok(Place { home, base, isolation, restricted_to })
    }

    /// A device's subscriptions that are not where they are to be are asked for there, or replaced.
    pub(super) fn fit(&mut self, index: DeviceIndex) {
        let Ok(place) = self.wanted_place(index) else { return };
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            match entry.role {
                Role::Current if entry.place != place => entry.move_to(place.clone()),
                Role::Replacement { .. } if entry.place != place => entry.move_to(place.clone()),
                _ => {}
            }
        }
    }

    /// Stored subscriptions say nothing of how far they were kept apart, but their sets do.
    pub(super) fn fit_restored(&mut self) {
        let indices: Vec<DeviceIndex> = self.devices.iter().map(|(index, _)| index).collect();
        for index in indices {
            if let Ok(place) = self.wanted_place(index)
                && place.isolation != Isolation::None
                && self.is_apart(index)
            {
                self.take_apart(index, &place);
            }
            self.fit(index);
        }
    }

    /// Whether no other device's subscription is in a set of this one's.
    fn is_apart(&self, index: DeviceIndex) -> bool {
        let mine = self.subscriptions.iter().filter(|entry| entry.device == Some(index));
        let mine: Vec<&SetUri> = mine.filter_map(|entry| entry.granted()?.set.as_ref()).collect();
        let known = self.upstreams.iter().filter_map(|upstream| upstream.set.as_ref());
        let others = self.subscriptions.iter().filter(|entry| entry.device != Some(index));
        let others = others.filter_map(|entry| entry.granted()?.set.as_ref());
        known.chain(others).all(|set| !mine.contains(&set))
    }

    fn take_apart(&mut self, index: DeviceIndex, place: &Place) {
        let now = self.now;
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device == Some(index)) {
            if entry.place.home != place.home {
                continue;
            }
            let there = self.upstreams.get(entry.upstream).map(|upstream| upstream.service.clone());
            let is_moved = entry.upstream != entry.place.base;
            let restricted_to = entry.place.restricted_to.take();
            entry.place = Place { restricted_to, ..place.clone() };
            entry.upstream = match there {
                Some(service) if is_moved => self.upstreams.move_on(place.base, &service, now).unwrap_or(place.base),
                _ => place.base,
            };
        }
    }

    /// A person wants other URIs and keys for a device's channel, or for all of them.
    pub(super) fn rotation_asked(&mut self, device: &DeviceId, channel: Option<ChannelId>) {
        for channel in self.forgive(device, channel) {
            if let Some(index) = self.devices.find(device) {
                self.want(index, device, channel);
            }
        }
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.device_id == *device) {
            if entry.role == Role::Current && channel.is_none_or(|channel| entry.channel == channel) {
                entry.rotation_due |= entry.granted().is_some() && !entry.is_leaving();
            }
        }
    }

    /// Begins the replacements that are due, as far as there is room; the others follow.
    pub(super) fn begin_rotations(&mut self) {
        let due: Vec<(SubscriptionId, Option<DeviceIndex>)> = self
            .subscriptions
            .iter()
            .filter(|entry| entry.needs_rotation())
            .map(|entry| (entry.id, entry.device))
            .collect();
        for (id, device) in due {
            if self.subscriptions.replacement_of(id).is_some() {
                continue;
            }
            let Some(Ok(place)) = device.map(|device| self.wanted_place(device)) else { continue };
            if self.subscriptions.replace(id, place, self.now, &mut *self.random).is_err() {
                return;
            }
        }
    }

    /// The replacement is on flash: it is the one in use, and the old one is read for a while longer.
    pub(super) fn take_over(&mut self, new: SubscriptionId) {
        let Some(entry) = self.subscriptions.get_mut(new) else { return };
        let Role::Replacement { of } = entry.role else { return };
        entry.role = Role::Current;
        let at = self.now + Duration::from_millis(ROTATION_GRACE_MS);
        if let Some(old) = self.subscriptions.get_mut(of) {
            old.role = Role::Retired { at };
            (old.reply_due, old.rotation_due) = (false, false);
        }
    }

    /// The one that was to be replaced is gone: what is being made in its place is the one of its channel.
    pub(super) fn succeed(&mut self, old: SubscriptionId) -> bool {
        let Some(new) = self.subscriptions.replacement_of(old) else { return false };
        new.role = Role::Current;
        true
    }

    /// When the next subscription that was replaced is to be removed.
    pub(super) fn retirement_due(&self) -> Option<Instant> {
        let at = |entry: &Subscription| match (entry.role, &entry.life) {
            (Role::Retired { at }, Life::Active(_)) => Some(at),
            _ => None,
        };
        self.subscriptions.iter().filter_map(at).filter(|at| *at > self.now).min()
    }

    /// Removes what was replaced long enough ago, and with the last one a set that is left.
    pub(super) fn retire(&mut self) {
        let now = self.now;
        let mut left = false;
        for entry in self.subscriptions.iter_mut() {
            if matches!((entry.role, &entry.life), (Role::Retired { at }, Life::Active(_)) if at <= now) {
                entry.leave(now);
                left = true;
            }
        }
        for (set, upstream) in self.abandoned.clone() {
            if !self.departures.contains(&set) && self.is_left(&set) {
                self.depart(&set, upstream);
                left = true;
            }
        }
        if left {
            self.reconcile_monitors();
        }
    }

    /// Whether nobody needs a set any more.
    fn is_left(&self, set: &SetUri) -> bool {
        let is_in = |entry: &&Subscription| entry.granted().is_some_and(|granted| granted.set.as_ref() == Some(set));
        let is_done = |entry: &Subscription| match entry.role {
            Role::Retired { at } => at <= self.now,
            Role::Current | Role::Replacement { .. } => entry.is_leaving(),
        };
        self.subscriptions.iter().filter(is_in).all(is_done)
    }

    /// Begins the removal of a set as a whole; without room for that its subscriptions go one by one.
    fn depart(&mut self, set: &SetUri, upstream: UpstreamId) {
        let is_taken = self.departures.begin(set.clone(), upstream, Mark::Due, self.now).is_ok();
        if !is_taken {
            self.abandoned.retain(|(other, _)| other != set);
        }
        self.leave_set(set, is_taken);
    }

    /// The subscriptions of a set leave, with it or one by one.
    pub(super) fn leave_set(&mut self, set: &SetUri, with_it: bool) {
        let now = self.now;
        for entry in self.subscriptions.iter_mut() {
            if entry.granted().is_none_or(|granted| granted.set.as_ref() != Some(set)) {
                continue;
            }
            if !matches!(entry.life, Life::Leaving { .. }) {
                entry.leave(now);
            }
            if let (true, Life::Leaving { mark, .. }) = (with_it, &mut entry.life) {
                *mark = Mark::WithSet;
            }
        }
    }

    /// The removal of a set was answered.
    pub(super) fn set_unsubscribed(&mut self, set: &SetUri, outcome: Deletion) {
        let (now, random) = (self.now, &mut *self.random);
        let Some(departure) = self.departures.find_mut(set) else { return };
        match outcome {
            Deletion::Retry(asked) => {
                departure.in_flight = None;
                departure.not_before = now + departure.backoff.fail(asked, random);
            }
            Deletion::Done => {
                departure.erasing = Some(false);
                for entry in self.subscriptions.iter_mut() {
                    if entry.granted().is_some_and(|granted| granted.set.as_ref() == Some(set)) {
                        entry.life = Life::Erasing { persisting: false };
                    }
                }
            }
        }
    }

    /// That a set is being removed, or is gone, is on flash.
    pub(super) fn departure_persisted(&mut self, set: &SetUri, stored: bool) {
        let Some(departure) = self.departures.find_mut(set) else { return };
        match departure.erasing {
            Some(_) if !stored => departure.erasing = Some(false),
            Some(_) => {
                self.departures.remove(set);
                self.set_gone(set);
            }
            None => departure.mark = if stored { Mark::Stored } else { Mark::Due },
        }
    }

    /// A service that was not told of a set gives it all the same: it cannot be left.
    pub(super) fn set_given(&mut self, set: Option<&SetUri>) {
        if let Some(set) = set {
            self.set_gone(set);
        }
    }

    /// With the last set that was left all orphans are gone.
    fn set_gone(&mut self, set: &SetUri) {
        let before = self.abandoned.len();
        self.abandoned.retain(|(other, _)| other != set);
        if before > 0 && self.abandoned.is_empty() {
            self.orphans.count = 0;
        }
    }

    /// A request on a connection that ended is sent again.
    pub(super) fn departures_settled(&mut self, connection: ConnectionId) {
        for departure in self.departures.iter_mut() {
            departure.in_flight = departure.in_flight.filter(|on| *on != connection);
        }
    }

    /// A person wants all of it gone: every set and subscription at its service, and every fact on flash.
    ///
    /// Source: RFC 8030 §7.3.1.
    pub(super) fn reset_asked(&mut self) {
        if std::mem::replace(&mut self.is_resetting, true) {
            return;
        }
        self.give_up_where(|_| true);
        self.abandon_sets();
        // Whoever is told learns it from the push service: its resources are gone.
        self.forget_announced();
        self.last_time.forget();
        self.orphans.count = 0;
        for (set, upstream) in std::mem::take(&mut self.abandoned) {
            self.depart(&set, upstream);
        }
        self.forget_alternatives();
        let now = self.now;
        for entry in self.subscriptions.iter_mut() {
            entry.successor = None;
            if !entry.is_leaving() {
                entry.leave(now);
            }
        }
        let devices: Vec<DeviceId> = self.devices.iter().map(|(_, device)| device.id.clone()).collect();
        for id in devices {
            self.forgive(&id, None);
            self.store_device(id, None);
        }
        self.reconcile_monitors();
    }

    /// Subscriptions and sets that a reset has yet to remove; none when none is asked for.
    pub fn reset_left(&self) -> Option<usize> {
        let is_writing = self.wants_persist() || !self.persisting.is_empty();
        let left = self.subscriptions.iter().count() + self.departures.iter().count();
        self.is_resetting.then_some(if left == 0 && is_writing { 1 } else { left })
    }

    /// The subject and key of a departure whose stored form is behind.
    pub(super) fn departure_behind(&mut self) -> Option<(Subject, Option<SetUri>, Key)> {
        let departure = self.departures.iter_mut().find(|departure| departure.is_behind())?;
        let (subject, key) = (Subject::Departure(departure.set.clone()), departure.key());
        if departure.erasing.is_some() {
            departure.erasing = Some(true);
            return Some((subject, None, key));
        }
        departure.mark = Mark::Persisting;
        Some((subject, Some(departure.set.clone()), key))
    }
}
