//! The gateway as a pure machine: everything it decides, and nothing it does.
//!
//! [`Gateway`] takes [`Input`]s and gives [`Output`]s. The shell feeds one input, drains all outputs, feeds the next;
//! how an output went comes back as an input. It sees neither streams nor ports: promises, slots, subscriptions and
//! devices are names for what the shells hold.
//!
//! ```text
//! handle_input(input, now)    the only way in; a rejected input leaves state unchanged
//! handle_timeout(now)         early or repeated calls are harmless
//! poll_output()               called until None; finds the next due thing in state and marks it taken
//! poll_timeout()              when to call back, and for what
//! ```

pub mod acknowledgement;
pub mod alternative;
pub mod announcement;
pub mod backoff;
pub mod connection;
pub mod delivery;
pub mod departure;
pub mod device;
pub mod event;
pub mod flood;
pub mod keep_alive;
pub mod last_time;
pub mod lasting;
pub mod monitor;
pub mod record;
pub mod status;
pub mod subscription;
pub mod upstream;
mod urgency;
mod wall_time;

mod intake;
mod membership;
mod output;
mod rotation;
mod sleep;

use self::acknowledgement::Acknowledgement;
use self::announcement::Announcements;
use self::connection::{ConnectionId, Trouble, Was};
use self::delivery::{DeliveryTable, Freed, Slot, SlotId, Stage};
use self::departure::DepartureTable;
use self::device::{DeviceIndex, DeviceTable, Presence, Terms};
pub use self::event::{Change, Input, Output, PromiseId, Reply, Timer};
use self::flood::{Seen, Stopped};
use self::last_time::LastTime;
use self::record::{DeviceRecord, Key, PendingAck};
use self::rotation::Orphans;
use self::subscription::{Life, Mark, SubscriptionId, SubscriptionTable};
use self::upstream::{Upstream, UpstreamId, UpstreamTable};
use self::urgency::Level;
use self::wall_time::WallTime;
use crate::limits::{DELETE_BACKOFF_MS_MAX, LAST_STREAM_MS_MAX, SUBSCRIBE_UNKNOWN_MS};
use crate::random::Random;
use crate::time::{BootId, Duration, Instant, UnixTime};
use crate::webpush::exchange::Deletion;
use crate::webpush::resource::{PushMessageUri, PushServiceUri, SetUri};
use crate::wire::{ChannelId, DeviceId, MessageId};

/// What became of messages and promises since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Promises seen.
    pub promised: u64,
    /// Promises reset.
    pub refused: u64,
    /// Messages handed to a device, again included.
    pub relayed: u64,
    /// Device acks that led to an acknowledgement.
    pub device_acks: u64,
    /// Messages acknowledged at the service.
    pub acknowledged: u64,
    /// Messages given up unacknowledged; the service offers them again.
    pub given_up: u64,
    /// Messages that can never be delivered as they are.
    pub undeliverable: u64,
    /// Subscriptions that were ended because too many messages came.
    pub floods: u64,
    /// Connections that were ready.
    pub connections: u64,
}

/// What a write is about.
#[derive(Debug)]
enum Subject {
    Granted(SubscriptionId),
    Leaving(SubscriptionId),
    Erased(SubscriptionId),
    Ended(Key),
    Set(UpstreamId),
    Departure(SetUri),
    PendingAck(PushMessageUri),
    Stopped(DeviceId, ChannelId, bool),
    Announced(announcement::Channel, bool),
    Orphans(u8),
    Time,
    Alternatives(UpstreamId),
    Device(DeviceId, Option<DeviceRecord>),
}

/// A fact whose stored form is behind.
#[derive(Debug, Default)]
struct Behind {
    /// Devices to store or to remove, at most one entry each.
    devices: Vec<(DeviceId, Option<DeviceRecord>)>,
    /// Records that are to go: of subscriptions that the service ended, and of what is of no use.
    ended: Vec<Key>,
}

/// The gateway.
pub struct Gateway {
    random: Box<dyn Random>,
    now: Instant,
    upstreams: UpstreamTable,
    /// Connections of upstreams that are no more, to be closed.
    closing: Vec<ConnectionId>,
    devices: DeviceTable,
    subscriptions: SubscriptionTable,
    delivery: DeliveryTable,
    /// Sets that are being removed as a whole.
    departures: DepartureTable,
    /// Sets that are left for others, and are removed once all their subscriptions are replaced.
    abandoned: Vec<(SetUri, UpstreamId)>,
    orphans: Orphans,
    level: Level,
    announcements: Announcements,
    /// Messages that counted against floods.
    seen: Seen,
    /// Channels whose subscriptions were ended for good, at most as many as subscriptions may be.
    stopped: Vec<Stopped>,
    /// What an earlier run owed, until all subscriptions are known.
    restored_acks: Vec<PendingAck>,
    /// What an earlier run has left cannot be read as a whole: then nothing is removed for not fitting the rest.
    is_incomplete: bool,
    /// All stored facts and all configured devices are known.
    is_started: bool,
    /// Everything is to go.
    is_resetting: bool,
    /// The answer to the promise of the last input.
    promise: Option<Output>,
    /// The answer to the device's request of the last input.
    reply: Option<(DeviceIndex, Reply)>,
    behind: Behind,
    persisting: Vec<(u64, Subject)>,
    persist_not_before: Instant,
    next_ticket: u64,
    last_time: LastTime,
    wall_time: WallTime,
    counters: Counters,
}

impl Gateway {
    /// A gateway for one push service that knows nothing yet.
    pub fn new(service: PushServiceUri, random: Box<dyn Random>, now: Instant) -> Self {
        Self::with_services((None, service), [], random, now)
    }

    /// A gateway for several push services, each with its name, that knows nothing yet; beyond
    /// [`UPSTREAM_PLACED_COUNT_MAX`](crate::limits::UPSTREAM_PLACED_COUNT_MAX) they are left out.
    pub fn with_services(
        (name, service): (Option<String>, PushServiceUri),
        more: impl IntoIterator<Item = (Option<String>, PushServiceUri)>,
        random: Box<dyn Random>,
        now: Instant,
    ) -> Self {
        let mut upstreams = UpstreamTable::new(name, service, now);
        for (name, service) in more {
            let configured = upstreams.configure(name, service, now);
            debug_assert!(configured.is_ok(), "the configuration keeps within the bound");
        }
        Self {
            random,
            now,
            upstreams,
            closing: Vec::new(),
            devices: DeviceTable::default(),
            subscriptions: SubscriptionTable::default(),
            delivery: DeliveryTable::default(),
            departures: DepartureTable::default(),
            abandoned: Vec::new(),
            orphans: Orphans::default(),
            level: Level::default(),
            announcements: Announcements::default(),
            seen: Seen::default(),
            stopped: Vec::new(),
            restored_acks: Vec::new(),
            is_incomplete: false,
            is_started: false,
            is_resetting: false,
            promise: None,
            reply: None,
            behind: Behind::default(),
            persisting: Vec::new(),
            persist_not_before: now,
            next_ticket: 0,
            last_time: LastTime::default(),
            wall_time: WallTime::default(),
            counters: Counters::default(),
        }
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.handle_timeout(now);
        // Reports of a connection that is over change nothing: what was on it is settled.
        if input.connection().is_some_and(|connection| self.upstreams.of(connection).is_none()) {
            return;
        }
        self.take_note(&input);
        if let Some(device) = input.speaker() {
            self.device_awake(device);
        }
        match input {
            Input::Incomplete => self.is_incomplete = true,
            Input::Started => self.started(),
            Input::Restored(record) => self.restored(record),
            Input::DeviceAdded { device, lasting } => self.device_added(device, lasting),
            Input::DeviceRemoved(device) => self.device_removed(&device),
            Input::FetchAsked(device) => self.fetch_asked(&device),
            Input::RotationAsked { device, channel } => self.rotation_asked(&device, channel),
            Input::ResetAsked => self.reset_asked(),
            Input::Announced { number, outcome } => self.announced(number, outcome),
            Input::Stopping => {
                self.stopping();
                self.last_time.stopping();
            }
            Input::Dated { date, not_after, clock, .. } if !self.is_resetting => {
                self.last_time.confirmed(date, not_after, clock, now);
                self.clock_looked_at(clock);
            }
            Input::ClockRead(clock) => {
                self.last_time.clock_read(clock, now);
                self.clock_looked_at(clock);
            }
            Input::TimeForgotten => {
                self.last_time.forget();
                self.wall_time.forget();
            }
            Input::Dated { .. } => {}
            Input::UrgencyWanted(urgency) => self.urgency_wanted(urgency),
            Input::PathChanged => {
                for upstream in self.upstreams.iter_mut() {
                    upstream.alternatives.path_changed();
                    upstream.uplink.path_changed(self.now, &mut *self.random);
                }
            }
            Input::ConnectionReady { connection, streams_max } => self.connection_ready(connection, streams_max),
            Input::ConnectionClosed { connection, trouble } => self.connection_closed(connection, trouble),
            Input::Alternatives { connection, announcement } => {
                self.alternatives_announced(connection, announcement);
            }
            Input::Misdirected { connection } => self.misdirected(connection),
            // Taken note of.
            Input::RequestsMax { .. } | Input::GoingAway { .. } | Input::Pong { .. } => {}
            Input::MonitorEnded { connection, monitor, next } => self.monitor_ended(connection, monitor, next),
            Input::FetchEnded { connection, subscription, read, next } => {
                self.fetch_ended(connection, subscription, &read, next);
            }
            Input::Promised { connection, promise, target, message, send } => {
                self.promised(connection, promise, &target, message, send);
            }
            Input::Pushed { slot, send, body, max_age, age, .. } => {
                self.pushed(slot, send, body, max_age, age);
                self.count_arrival(slot);
            }
            Input::PushFailed { slot, content, .. } => self.push_failed(slot, content),
            Input::Decoded { slot, outcome } => self.decoded(slot, outcome),
            Input::Acknowledged { message, outcome, .. } => self.acknowledged(&message, outcome),
            Input::Subscribed { connection, subscription, outcome } => {
                self.subscribed(connection, subscription, outcome);
            }
            Input::Unsubscribed { subscription, outcome, .. } => self.unsubscribed(subscription, outcome),
            Input::SetUnsubscribed { set, outcome, .. } => self.set_unsubscribed(&set, outcome),
            Input::Persisted { ticket, stored } => self.persisted(ticket, stored),
            Input::DeviceUp { device, session, message_bytes_max, in_flight_max } => {
                self.device_up(&device, session, Terms { message_bytes_max, in_flight_max });
            }
            Input::DeviceAsleep { device, seconds } => self.device_asleep(&device, seconds),
            Input::StatusAsked { device } | Input::DeviceAwake { device } => self.status_asked(&device),
            Input::DeviceDown { device, session } => self.device_gone(&device, session, Presence::Absent),
            Input::DeviceSilent { device, session } => self.device_gone(&device, session, Presence::Silent),
            Input::DeviceAck { device, message } => self.device_ack(&device, message),
            Input::DeviceRefused { device, message, later } => self.device_refused(&device, message, later),
            Input::Subscribe { device, channel } => self.subscribe_asked(&device, channel),
            Input::Rotate { device, channel } => self.rotate_asked(&device, channel),
            Input::Unsubscribe { device, channel } => self.unsubscribe_asked(&device, channel),
        }
        self.settle_urgency();
        self.retire();
        self.begin_rotations();
        self.drop_unused_upstreams();
    }

    /// What an input says about its connection alone.
    fn take_note(&mut self, input: &Input) {
        let Some(connection) = input.connection() else { return };
        let Some(upstream) = self.upstreams.of(connection) else { return };
        if let Input::GoingAway { .. } = input {
            upstream.note_end(connection, Trouble::Ended, self.now, &mut *self.random);
        }
        let uplink = &mut upstream.uplink;
        match input {
            Input::RequestsMax { streams_max, .. } => uplink.set_requests_max(connection, *streams_max),
            Input::GoingAway { .. } => uplink.going_away(connection, self.now, &mut *self.random),
            Input::Pong { .. } => uplink.answered(connection, self.now),
            _ => {}
        }
        if let Some(is_answer) = input.is_answer() {
            uplink.used(connection);
            if is_answer {
                uplink.heard(connection, self.now);
            } else {
                uplink.suspect();
            }
        }
    }

    /// Lets time pass: a connection that is silent is given up, and messages that can no longer be handed over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let now = self.now;
        let dead: Vec<ConnectionId> =
            self.upstreams.iter_mut().filter_map(|upstream| upstream.uplink.handle_timeout(now)).collect();
        for connection in dead {
            self.connection_closed(connection, Trouble::Silent);
        }
        self.replace_stalled();
        let waits = |stage: &Stage| matches!(stage, Stage::Ready(_) | Stage::Sent(_));
        self.give_up_late(|slot| waits(&slot.stage) && slot.deadline <= now);
        self.give_up_sleepers();
        self.write_unanswered();
        self.settle_urgency();
        self.retire();
        self.begin_rotations();
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_output`](Self::poll_output) have something new to do.
    ///
    /// What is due already but waits for something else (a write in flight, a full device) comes with an input.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let hold = self.delivery.iter().filter(|(_, slot)| matches!(slot.stage, Stage::Ready(_) | Stage::Sent(_)));
        let hold = hold.map(|(_, slot)| (slot.deadline, Timer::Hold));
        let persist = self.wants_persist().then_some((self.persist_not_before, Timer::Persist));
        let upstreams = self.upstreams.iter().flat_map(|upstream| self.upstream_timeouts(upstream));
        let retirement = self.retirement_due().map(|at| (at, Timer::Subscription));
        let urgency = self.urgency_due().map(|at| (at, Timer::Monitor));
        let announcement = self.announcement_due().map(|at| (at, Timer::Announce));
        let sleepers = self.sleepers_due().map(|at| (at, Timer::Hold));
        let all =
            hold.chain(sleepers).chain(persist).chain(announcement).chain(retirement).chain(urgency).chain(upstreams);
        all.filter(|&(at, _)| at > self.now).min()
    }

    fn upstream_timeouts(&self, upstream: &Upstream) -> impl Iterator<Item = (Instant, Timer)> {
        let is_needed = self.is_needed(upstream.id);
        let connect = upstream.uplink.connect_at().filter(|_| is_needed).map(|at| (at, Timer::Connect));
        let move_at = upstream.move_at(self.now).filter(|_| is_needed).map(|at| (at, Timer::Connect));
        let uplink = upstream.uplink.due().chain(self.stalled_at(upstream)).map(|at| (at, Timer::Connection));
        let requests = self.request_timeouts(upstream).filter(|_| upstream.uplink.requests_on().is_some());
        let unanswered = self.unanswered_at(upstream).map(|at| (at, Timer::Acknowledge));
        connect.into_iter().chain(move_at).chain(uplink).chain(requests).chain(unanswered)
    }

    fn request_timeouts(&self, upstream: &Upstream) -> impl Iterator<Item = (Instant, Timer)> {
        let id = upstream.id;
        let monitor = upstream.monitors.due().map(|at| (at, Timer::Monitor));
        let mine = move || self.subscriptions.iter().filter(move |entry| entry.upstream == id);
        let requests = mine().filter_map(|entry| match entry.life {
            Life::Wanted { not_before } | Life::Leaving { mark: Mark::Stored, in_flight: None, not_before, .. } => {
                Some((not_before, Timer::Subscription))
            }
            _ => None,
        });
        let fetches = mine().filter_map(|entry| entry.fetch.due_at()).map(|at| (at, Timer::Fetch));
        let acked = self.acknowledgements(id).filter(|acknowledgement| acknowledgement.in_flight.is_none());
        let acked = acked.map(|acknowledgement| (acknowledgement.not_before, Timer::Acknowledge));
        let departures = self.departures.iter().filter(move |it| it.upstream == id && it.is_due());
        let departures = departures.map(|departure| (departure.not_before, Timer::Subscription));
        monitor.into_iter().chain(requests).chain(fetches).chain(acked).chain(departures)
    }

    /// Whether an upstream has something for a connection to do.
    fn is_needed(&self, upstream: UpstreamId) -> bool {
        self.is_started
            && (self.subscriptions.has_any_at(upstream) || self.departures.iter().any(|it| it.upstream == upstream))
    }

    /// When other requests have waited long enough behind one that has the last stream. A service may keep that open until
    /// it hears of acknowledgements, or for ever.
    fn stalled_at(&self, upstream: &Upstream) -> Option<Instant> {
        let waits = |life: &Life| {
            matches!(life, Life::Requested { .. } | Life::Wanted { .. } | Life::Leaving { mark: Mark::Stored, .. })
        };
        let mut mine = self.subscriptions.iter().filter(|entry| entry.upstream == upstream.id);
        let taken = upstream.last_stream_taken?;
        let is_waiting = self.acknowledgements(upstream.id).next().is_some() || mine.any(|entry| waits(&entry.life));
        is_waiting.then(|| taken + Duration::from_millis(LAST_STREAM_MS_MAX))
    }

    fn replace_stalled(&mut self) {
        let is_stalled = |it: &&Upstream| self.stalled_at(it).is_some_and(|at| at <= self.now);
        let stalled = self.upstreams.iter().find(is_stalled).map(|upstream| upstream.id);
        if let Some(upstream) = stalled.and_then(|id| self.upstreams.get_mut(id)) {
            upstream.uplink.replace(self.now);
        }
    }

    /// What is to be said, or being said, to a service.
    fn acknowledgements(&self, upstream: UpstreamId) -> impl Iterator<Item = &Acknowledgement> {
        let slots = self.delivery.iter().filter(move |(_, slot)| slot.upstream == upstream);
        let slots = slots.filter_map(|(_, slot)| match &slot.stage {
            Stage::Acked(acknowledgement) => Some(acknowledgement),
            _ => None,
        });
        let freed = self.delivery.freed().filter(move |freed| freed.upstream == upstream);
        slots.chain(freed.filter_map(|freed| freed.acknowledgement.as_ref()))
    }

    /// Requests can be sent on a connection; what another one carried moves to it.
    fn connection_ready(&mut self, connection: ConnectionId, streams_max: usize) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        let (id, old) = (upstream.id, upstream.uplink.drop_old());
        upstream.uplink.ready(connection, streams_max, self.now, &mut *self.random);
        upstream.last_stream_taken = None;
        upstream.monitors.moved(self.now);
        if let Some(old) = old {
            self.settle(id, old, Was::Old);
        }
        self.counters.connections += 1;
        for entry in self.subscriptions.iter_mut().filter(|entry| entry.upstream == id) {
            entry.fetch.moved();
        }
    }

    fn connection_closed(&mut self, connection: ConnectionId, trouble: Trouble) {
        let Some(upstream) = self.upstreams.of(connection) else { return };
        let (id, is_at_alternative) = (upstream.id, upstream.uplink.place(connection).is_some());
        upstream.note_end(connection, trouble, self.now, &mut *self.random);
        let was = upstream.uplink.closed(connection, trouble, self.now, &mut *self.random);
        match was {
            // Nothing was on its way on it, and the origin has not failed.
            Was::Attempt if is_at_alternative => return,
            Was::Attempt if trouble == Trouble::Network => upstream.alternatives.network_failed(),
            Was::Attempt | Was::Current | Was::Old => {}
        }
        if was == Was::Current {
            upstream.last_stream_taken = None;
            upstream.monitors.closed(self.now);
        }
        self.settle(id, connection, was);
    }

    /// What was on the way on a connection is not any more; what a device acknowledged stays to be said.
    fn settle(&mut self, upstream: UpstreamId, connection: ConnectionId, was: Was) {
        self.give_up_where(|slot| slot.is_arriving_on(connection));
        for (_, slot) in self.delivery.iter_mut() {
            if let Stage::Acked(acknowledgement) = &mut slot.stage {
                acknowledgement.connection_closed(connection);
            }
        }
        for freed in self.delivery.freed_mut() {
            if let Some(acknowledgement) = &mut freed.acknowledgement {
                acknowledgement.connection_closed(connection);
            }
        }
        self.departures_settled(connection);
        let mut lost = false;
        for entry in self.subscriptions.iter_mut() {
            if was == Was::Current && entry.upstream == upstream {
                entry.fetch.connection_closed();
            }
            if was == Was::Attempt && entry.upstream == upstream {
                entry.sent_on_in_vain(self.now, &mut *self.random);
            }
            match &mut entry.life {
                Life::Leaving { in_flight, .. } => *in_flight = in_flight.filter(|on| *on != connection),
                // The answer, if there was one, is lost with the connection.
                Life::Requested { on } if *on == connection => {
                    let pause = Some(Duration::from_millis(SUBSCRIBE_UNKNOWN_MS));
                    entry.request_failed(pause, self.now, &mut *self.random);
                    lost = true;
                }
                _ => {}
            }
        }
        if lost {
            self.subscribe_lost();
        }
    }

    /// Frees the slots of unacknowledged messages: the service keeps those.
    /// Not every service pushes again by itself what was not acknowledged, so it is asked for.
    fn give_up_late(&mut self, is_late: impl Fn(&Slot) -> bool) {
        let acked = |slot: &Slot| matches!(slot.stage, Stage::Acked(_));
        let late = self.delivery.iter().filter(|(_, slot)| !acked(slot) && is_late(slot));
        for route in late.filter_map(|(_, slot)| slot.route).collect::<Vec<_>>() {
            if let Some(entry) = self.subscriptions.get_mut(route.subscription) {
                entry.fetch.look_behind(self.now, &mut *self.random);
            }
        }
        self.give_up_where(is_late);
    }

    fn give_up_where(&mut self, condition: impl Fn(&Slot) -> bool) {
        let acked = |slot: &Slot| matches!(slot.stage, Stage::Acked(_));
        let chosen = self.delivery.iter().filter(|(_, slot)| !acked(slot) && condition(slot));
        let chosen: Vec<SlotId> = chosen.map(|(id, _)| id).collect();
        for slot in chosen {
            self.give_up(slot);
        }
    }

    /// Frees the slot of an unacknowledged message.
    fn give_up(&mut self, slot: SlotId) {
        if self.delivery.give_up(slot).is_some() {
            self.counters.given_up += 1;
        }
    }

    /// A device has a message: from a slot, or from one that was given up meanwhile.
    fn device_ack(&mut self, device: &DeviceId, message: MessageId) {
        let Some(device) = self.devices.find(device) else { return };
        let delivered = self.delivery.find_delivered(device, message);
        if let Some(slot) = delivered
            && let Some(route) = self.delivery.get_mut(slot).map(|slot| slot.route)
        {
            let due = Acknowledgement::due(self.now, self.stores_first(route));
            if let Some(slot) = self.delivery.get_mut(slot).filter(|slot| !matches!(slot.stage, Stage::Acked(_))) {
                slot.stage = Stage::Acked(due);
                self.counters.device_acks += 1;
            }
            if let Some(entry) = route.and_then(|route| self.subscriptions.get_mut(route.subscription)) {
                entry.fetch.backoff.reset();
            }
            return;
        }
        let is_it = |freed: &Freed| freed.route.device == device && freed.id == message;
        let known = self.delivery.freed().find(|freed| is_it(freed));
        let (route, again) = (known.map(|it| it.route), known.and_then(|it| self.delivery.find(&it.message)));
        let due = Acknowledgement::due(self.now, self.stores_first(route));
        if let Some(freed) = self.delivery.freed_mut().find(|freed| is_it(freed))
            && freed.acknowledgement.is_none()
        {
            freed.acknowledgement = Some(due);
            self.counters.device_acks += 1;
        }
        // The same message may be coming again: its device has it.
        if let Some(slot) = again {
            self.delivery.free(slot);
        }
    }

    /// A device will not take a message: that is no acknowledgement (a receipt must not lie).
    fn device_refused(&mut self, device: &DeviceId, message: MessageId, later: bool) {
        let Some(device) = self.devices.find(device) else { return };
        let Some(id) = self.delivery.find_delivered(device, message) else { return };
        let Some(slot) = self.delivery.get_mut(id).filter(|slot| !matches!(slot.stage, Stage::Acked(_))) else {
            return;
        };
        let subscription = slot.route.and_then(|route| self.subscriptions.get_mut(route.subscription));
        if !later {
            return self.undeliverable(id, None);
        }
        if let Some(entry) = subscription {
            entry.fetch.later(self.now, &mut *self.random);
        }
        self.give_up(id);
    }

    fn acknowledged(&mut self, message: &PushMessageUri, outcome: Deletion) {
        // A message that was given up and promised again may be acknowledged from where it was before.
        let slot = self.delivery.find(message);
        if let Some(slot) = slot
            && let Some(Stage::Acked(acknowledgement)) = self.delivery.get_mut(slot).map(|slot| &mut slot.stage)
        {
            match outcome {
                Deletion::Done => {
                    self.counters.acknowledged += 1;
                    if let Some(Slot { upstream, stage: Stage::Acked(done), .. }) = self.delivery.free(slot) {
                        self.answered(upstream, &done);
                        self.settled(message, &done);
                    }
                }
                Deletion::Retry(asked) => repeat(acknowledgement, asked, self.now, &mut *self.random),
            }
            return;
        }
        let freed = self.delivery.freed_mut().find(|freed| freed.message == *message);
        let Some(acknowledgement) = freed.and_then(|freed| freed.acknowledgement.as_mut()) else { return };
        match outcome {
            Deletion::Retry(asked) => repeat(acknowledgement, asked, self.now, &mut *self.random),
            Deletion::Done => {
                self.counters.acknowledged += 1;
                if let Some(Freed { acknowledgement: Some(done), .. }) = self.delivery.forget_freed(message) {
                    self.settled(message, &done);
                }
            }
        }
    }

    fn persisted(&mut self, ticket: u64, stored: bool) {
        let Some(at) = self.persisting.iter().position(|(number, _)| *number == ticket) else { return };
        let (_, subject) = self.persisting.swap_remove(at);
        if !stored {
            self.persist_not_before = self.now + Duration::from_millis(crate::limits::PERSIST_RETRY_MS);
        }
        let announced = match &subject {
            Subject::Granted(id) | Subject::Leaving(id) | Subject::Erased(id) => self.channel_of(*id),
            _ => None,
        };
        match subject {
            Subject::Granted(subscription) => self.granted_persisted(subscription, stored),
            Subject::Erased(subscription) => self.erased_persisted(subscription, stored),
            Subject::Leaving(subscription) => self.leaving_persisted(subscription, stored),
            Subject::Set(upstream) => {
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.is_set_behind |= !stored;
                }
            }
            Subject::Departure(set) => self.departure_persisted(&set, stored),
            Subject::Announced(channel, is_over) => self.announced_persisted(&channel, is_over, stored),
            Subject::Stopped(device, channel, is_over) => {
                self.stopped_persisted(&device, channel, is_over, stored);
            }
            Subject::PendingAck(message) => self.acknowledgement_persisted(&message, stored),
            Subject::Orphans(count) => self.orphans_persisted(count, stored),
            Subject::Time if !stored => self.last_time.not_written(),
            Subject::Alternatives(upstream) if !stored => self.alternatives_not_stored(upstream),
            Subject::Device(id, record) if !stored => self.device_not_stored(id, record),
            Subject::Ended(key) if !stored => self.ended_not_stored(key),
            Subject::Device(..) | Subject::Ended(_) | Subject::Time | Subject::Alternatives(_) => {}
        }
        if let Some(channel) = announced {
            self.look_at_announcement(channel);
        }
    }

    /// Whether writes are on their way.
    pub fn is_persisting(&self) -> bool {
        !self.persisting.is_empty()
    }

    /// In which boot the times to come become known.
    pub fn booted(&mut self, boot: Option<BootId>) {
        self.last_time.booted(boot);
    }

    /// The last wall time known to have passed, from the store or since.
    pub fn known_time(&self) -> Option<UnixTime> {
        self.last_time.time()
    }

    /// Whether that became known in this boot; none when the kernel does not tell boots apart, or nothing is known.
    pub fn is_time_of_this_boot(&self) -> Option<bool> {
        self.last_time.is_of_this_boot()
    }
}

fn repeat(acknowledgement: &mut Acknowledgement, asked: Option<Duration>, now: Instant, random: &mut dyn Random) {
    let asked = asked.map(|asked| asked.min(Duration::from_millis(DELETE_BACKOFF_MS_MAX)));
    acknowledgement.in_flight = None;
    acknowledgement.not_before = now + acknowledgement.backoff.fail(asked, random);
}

#[cfg(test)]
mod tests;
