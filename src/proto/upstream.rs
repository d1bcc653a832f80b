//! The push services that connections are kept to, each with what is read there.
//!
//! There is one in the normal case, the configured one. A service that sends subscribe requests on to another origin
//! (RFC 8030 §7.1) adds that origin, for as long as it has subscriptions of ours.

use super::connection::{ConnectionId, Uplink};
use super::monitor::MonitorTable;
use crate::limits::{HTTPS_PORT, UPSTREAM_COUNT_MAX};
use crate::time::Instant;
use crate::webpush::resource::{PushServiceUri, SetUri};

/// Number of an upstream, never used twice in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(u32);

impl UpstreamId {
    /// The configured one.
    pub const HOME: Self = Self(0);
}

/// One origin and the connection to it.
#[derive(Debug)]
pub struct Upstream {
    /// Its number.
    pub id: UpstreamId,
    /// Where subscriptions are asked for; of an origin that was added only the origin counts.
    pub service: PushServiceUri,
    /// Whether the configuration names it.
    pub is_configured: bool,
    /// Its connection.
    pub uplink: Uplink,
    /// What is read there.
    pub monitors: MonitorTable,
    /// The set to present when subscribing.
    pub set: Option<SetUri>,
    /// Since when a request for stored messages has the last of the service's streams.
    pub last_stream_taken: Option<Instant>,
}

/// All upstreams, at most [`UPSTREAM_COUNT_MAX`], the configured one first.
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
}

impl UpstreamTable {
    /// The configured service alone.
    pub fn new(service: PushServiceUri, now: Instant) -> Self {
        let mut table = Self { entries: Vec::new(), next_id: 0, next_connection: 0 };
        table.add(service, true, now);
        table
    }

    fn add(&mut self, service: PushServiceUri, is_configured: bool, now: Instant) -> UpstreamId {
        let id = UpstreamId(self.next_id);
        self.next_id += 1;
        let port = service.uri().port_u16().unwrap_or(HTTPS_PORT);
        let (uplink, monitors) = (Uplink::new(now, port), MonitorTable::default());
        self.entries.push(Upstream {
            id,
            service,
            is_configured,
            uplink,
            monitors,
            set: None,
            last_stream_taken: None,
        });
        id
    }

    /// The configured one.
    pub fn home(&self) -> &Upstream {
        &self.entries[0]
    }

    /// The configured one.
    pub fn home_mut(&mut self) -> &mut Upstream {
        &mut self.entries[0]
    }

    /// The upstream of an origin, which is added if it is a new one.
    ///
    /// # Errors
    /// [`Full`] when [`UPSTREAM_COUNT_MAX`] are there.
    pub fn find_or_add(&mut self, service: &PushServiceUri, now: Instant) -> Result<UpstreamId, Full> {
        if let Some(known) = self.find(service.authority()) {
            return Ok(known);
        }
        if self.entries.len() == UPSTREAM_COUNT_MAX {
            return Err(Full);
        }
        Ok(self.add(service.clone(), false, now))
    }

    /// The upstream of an origin.
    pub fn find(&self, authority: &str) -> Option<UpstreamId> {
        self.entries.iter().find(|entry| entry.service.authority() == authority).map(|entry| entry.id)
    }

    /// Drops an upstream that was added.
    pub fn remove(&mut self, id: UpstreamId) {
        self.entries.retain(|entry| entry.is_configured || entry.id != id);
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
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let service = |number: usize| PushServiceUri::parse(&format!("https://p{number}.example/s")).expect("valid");
        let mut table = UpstreamTable::new(service(0), Instant::ZERO);
        for number in 1..UPSTREAM_COUNT_MAX {
            table.find_or_add(&service(number), Instant::ZERO).expect("room");
        }
        assert_eq!(table.find_or_add(&service(99), Instant::ZERO), Err(Full));
        let known = table.find_or_add(&service(1), Instant::ZERO).expect("it is there");
        table.remove(known);
        table.remove(table.home().id);
        assert_eq!(table.iter().count(), UPSTREAM_COUNT_MAX - 1, "the configured one stays");
        assert!(table.find_or_add(&service(99), Instant::ZERO).is_ok());
    }
}
