//! The push services that connections are kept to, each with what is read there.
//!
//! There is one in the normal case, the configured one. Others are further services of the configuration, and the same
//! ones on connections of their own for devices that are kept apart. A service that sends subscribe requests on to another
//! origin (RFC 8030 §7.1) adds that origin, for as long as it has subscriptions of ours.

use super::acknowledgement::AnswerTime;
use super::alternative::Alternatives;
use super::connection::{ConnectionId, Uplink};
use super::lasting::Lasting;
use super::monitor::{Displacements, MonitorTable};
use crate::limits::{HTTPS_PORT, UPSTREAM_MOVED_COUNT_MAX, UPSTREAM_PLACED_COUNT_MAX};
use crate::time::Instant;
use crate::webpush::resource::{PushServiceUri, SetUri};
use crate::wire::DeviceId;

/// Number of an upstream, never used twice in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(u32);

impl UpstreamId {
    /// The first configured one.
    pub const HOME: Self = Self(0);
}

/// Why an upstream is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The configuration names it.
    Configured,
    /// A device wants a connection of its own to one that the configuration names.
    Isolated,
    /// A subscribe request was sent on to it.
    Moved,
}

/// Whose trust and credential count on a connection, and what it may be shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Which of the configured services, in their order.
    pub service_index: usize,
    /// The device whose alone it is.
    pub isolated: Option<DeviceId>,
}

/// One origin and the connection to it.
#[derive(Debug)]
pub struct Upstream {
    /// Its number.
    pub id: UpstreamId,
    /// Its name, if it is configured and has one.
    pub name: Option<String>,
    /// Where subscriptions are asked for; of an origin that was added only the origin counts.
    pub service: PushServiceUri,
    /// Why it is there.
    pub reason: Reason,
    /// Whose it is.
    pub context: Context,
    /// Its connection.
    pub uplink: Uplink,
    /// Where else it can be reached.
    pub alternatives: Alternatives,
    /// What of these is on flash.
    pub lasting: Lasting,
    /// What is read there.
    pub monitors: MonitorTable,
    /// The set to present when subscribing for devices that are not kept apart.
    pub set: Option<SetUri>,
    /// Its stored form is behind.
    pub is_set_behind: bool,
    /// How long it takes to answer a DELETE.
    pub answer_time: AnswerTime,
    /// When another gateway took the place of this one.
    pub displaced: Displacements,
    /// Since when a request for stored messages has the last of the service's streams.
    pub last_stream_taken: Option<Instant>,
}

/// All upstreams, the configured ones first.
#[derive(Debug)]
pub struct UpstreamTable {
    entries: Vec<Upstream>,
    next_id: u32,
    next_connection: u64,
}

/// No room for another origin; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Upstream {
    /// Requests that may be open at once; a service that allows fewer than a monitor and one that ends allows nothing.
    pub fn requests_max(&self) -> usize {
        self.uplink.requests_max().max(2)
    }

    /// The set to present from now on.
    pub fn set_known(&mut self, set: Option<SetUri>) {
        if self.set != set {
            self.set = set;
            self.is_set_behind = true;
        }
    }
}

impl UpstreamTable {
    /// One configured service alone.
    pub fn new(name: Option<String>, service: PushServiceUri, now: Instant) -> Self {
        let mut table = Self { entries: Vec::new(), next_id: 0, next_connection: 0 };
        let context = Context { service_index: 0, isolated: None };
        table.add(name, service, Reason::Configured, context, now);
        table
    }

    /// Adds a further service of the configuration, before anything else is added.
    ///
    /// # Errors
    /// [`Full`] when [`UPSTREAM_PLACED_COUNT_MAX`] are there.
    pub fn configure(&mut self, name: Option<String>, service: PushServiceUri, now: Instant) -> Result<(), Full> {
        let context = Context { service_index: self.entries.len(), isolated: None };
        self.check_room(Reason::Configured)?;
        self.add(name, service, Reason::Configured, context, now);
        Ok(())
    }

    fn add(
        &mut self,
        name: Option<String>,
        service: PushServiceUri,
        reason: Reason,
        context: Context,
        now: Instant,
    ) -> UpstreamId {
        let id = UpstreamId(self.next_id);
        self.next_id += 1;
        let port = service.uri().port_u16().unwrap_or(HTTPS_PORT);
        self.entries.push(Upstream {
            id,
            name,
            service,
            reason,
            context,
            uplink: Uplink::new(now, port),
            alternatives: Alternatives::default(),
            lasting: Lasting::default(),
            monitors: MonitorTable::default(),
            set: None,
            is_set_behind: false,
            answer_time: AnswerTime::default(),
            displaced: Displacements::default(),
            last_stream_taken: None,
        });
        id
    }

    /// Origins that were moved to must not take the places of configured ones.
    fn check_room(&self, reason: Reason) -> Result<(), Full> {
        let (moved, placed): (Vec<_>, Vec<_>) = self.iter().partition(|entry| entry.reason == Reason::Moved);
        let is_full = match reason {
            Reason::Moved => moved.len() >= UPSTREAM_MOVED_COUNT_MAX,
            Reason::Configured | Reason::Isolated => placed.len() >= UPSTREAM_PLACED_COUNT_MAX,
        };
        if is_full { Err(Full) } else { Ok(()) }
    }

    /// The first configured one.
    pub fn home(&self) -> &Upstream {
        &self.entries[0]
    }

    /// The configured one of that name; the first one without a name.
    pub fn named(&self, name: Option<&str>) -> Option<&Upstream> {
        match name {
            None => self.entries.first(),
            Some(_) => self.configured().find(|entry| entry.name.as_deref() == name),
        }
    }

    /// The configured ones.
    pub fn configured(&self) -> impl Iterator<Item = &Upstream> {
        self.entries.iter().filter(|entry| entry.reason == Reason::Configured)
    }

    /// The configured one of an origin.
    pub fn configured_at(&self, authority: &str) -> Option<&Upstream> {
        self.configured().find(|entry| entry.service.authority() == authority)
    }

    /// Where a device's subscriptions are asked for: at a configured service, on a connection of its own if it is to have
    /// one.
    ///
    /// # Errors
    /// [`Full`] when [`UPSTREAM_PLACED_COUNT_MAX`] are there.
    pub fn place(&mut self, home: UpstreamId, isolated: Option<&DeviceId>, now: Instant) -> Result<UpstreamId, Full> {
        let Some(home) = self.get(home) else { return Err(Full) };
        if isolated.is_none() {
            return Ok(home.id);
        }
        let (service, context) =
            (home.service.clone(), Context { isolated: isolated.cloned(), ..home.context.clone() });
        self.find_or_add(&service, Reason::Isolated, context, now)
    }

    /// Where a request is sent on to. It stays as far apart from others as it was.
    ///
    /// # Errors
    /// [`Full`] when [`UPSTREAM_MOVED_COUNT_MAX`] are there.
    pub fn move_on(&mut self, from: UpstreamId, service: &PushServiceUri, now: Instant) -> Result<UpstreamId, Full> {
        let context = self.get(from).map(|from| from.context.clone()).ok_or(Full)?;
        self.find_or_add(service, Reason::Moved, context, now)
    }

    fn find_or_add(
        &mut self,
        service: &PushServiceUri,
        reason: Reason,
        context: Context,
        now: Instant,
    ) -> Result<UpstreamId, Full> {
        if let Some(known) = self.find(service.authority(), context.isolated.as_ref()) {
            return Ok(known);
        }
        self.check_room(reason)?;
        Ok(self.add(None, service.clone(), reason, context, now))
    }

    /// The upstream of an origin.
    fn find(&self, authority: &str, isolated: Option<&DeviceId>) -> Option<UpstreamId> {
        let is_it =
            |entry: &&Upstream| entry.service.authority() == authority && entry.context.isolated.as_ref() == isolated;
        self.entries.iter().find(is_it).map(|entry| entry.id)
    }

    /// Drops an upstream that was added.
    pub fn remove(&mut self, id: UpstreamId) {
        self.entries.retain(|entry| entry.reason == Reason::Configured || entry.id != id);
    }

    /// The upstream of that number.
    pub fn get(&self, id: UpstreamId) -> Option<&Upstream> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// The upstream of that number.
    pub fn get_mut(&mut self, id: UpstreamId) -> Option<&mut Upstream> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// The upstream that a connection belongs to, or an attempt at one.
    pub fn of(&mut self, connection: ConnectionId) -> Option<&mut Upstream> {
        self.entries.iter_mut().find(|entry| entry.uplink.knows(connection))
    }

    /// A number for a new connection.
    pub fn next_connection(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    /// All upstreams.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.entries.iter()
    }

    /// All upstreams.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Upstream> {
        self.entries.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_tables_refuse_and_keep_what_they_have() {
        let service = |number: usize| PushServiceUri::parse(&format!("https://p{number}.example/s")).expect("valid");
        let mut table = UpstreamTable::new(None, service(0), Instant::ZERO);
        for number in 1..=UPSTREAM_MOVED_COUNT_MAX {
            table.move_on(UpstreamId::HOME, &service(number), Instant::ZERO).expect("room");
        }
        assert_eq!(table.move_on(UpstreamId::HOME, &service(99), Instant::ZERO), Err(Full));
        for number in 1..UPSTREAM_PLACED_COUNT_MAX {
            let device = format!("d{number}").parse().expect("an id");
            let placed = table.place(UpstreamId::HOME, Some(&device), Instant::ZERO).expect("room");
            assert_eq!(table.place(UpstreamId::HOME, Some(&device), Instant::ZERO), Ok(placed));
        }
        let device = "one-more".parse().expect("an id");
        assert_eq!(table.place(UpstreamId::HOME, Some(&device), Instant::ZERO), Err(Full));
        let known = table.move_on(UpstreamId::HOME, &service(1), Instant::ZERO).expect("it is there");
        table.remove(known);
        table.remove(table.home().id);
        assert_eq!(table.iter().count(), UPSTREAM_MOVED_COUNT_MAX + UPSTREAM_PLACED_COUNT_MAX - 1, "home stays");
        assert!(table.move_on(UpstreamId::HOME, &service(99), Instant::ZERO).is_ok());
    }

    /// A-UA-10: what is kept apart stays so when its request is sent on.
    #[test]
    fn a_request_of_an_isolated_device_is_sent_on_alone() {
        let service = |name: &str| PushServiceUri::parse(&format!("https://{name}.example/s")).expect("valid");
        let mut table = UpstreamTable::new(None, service("a"), Instant::ZERO);
        let device = "d".parse().expect("an id");
        let alone = table.place(UpstreamId::HOME, Some(&device), Instant::ZERO).expect("room");
        let moved = table.move_on(UpstreamId::HOME, &service("b"), Instant::ZERO).expect("room");
        let moved_alone = table.move_on(alone, &service("b"), Instant::ZERO).expect("room");
        assert_ne!(moved, moved_alone);
        let context = &table.get(moved_alone).expect("it is there").context;
        assert_eq!(*context, Context { service_index: 0, isolated: Some(device) });
    }
}
