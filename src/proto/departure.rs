//! Sets that are removed at their service as a whole, with one request for all their subscriptions.
//!
//! Source: RFC 8030 §7.3.1.

use super::backoff::Backoff;
use super::connection::ConnectionId;
use super::record::{Key, Tag};
use super::subscription::Mark;
use super::upstream::UpstreamId;
use crate::limits::{DELETE_BACKOFF_MS_MAX, DELETE_BACKOFF_MS_MIN, DEPARTURE_COUNT_MAX};
use crate::time::Instant;
use crate::webpush::resource::SetUri;

/// A set that is being removed.
#[derive(Debug)]
pub struct Departure {
    /// Which.
    pub set: SetUri,
    /// Where.
    pub upstream: UpstreamId,
    /// Whether the store knows.
    pub mark: Mark,
    /// The connection on which the request is on its way.
    pub in_flight: Option<ConnectionId>,
    /// When it may be sent.
    pub not_before: Instant,
    /// Pauses between requests that fail.
    pub backoff: Backoff,
    /// The service has removed it; whether the write of that is on its way.
    pub erasing: Option<bool>,
}

/// All of them, at most [`DEPARTURE_COUNT_MAX`].
#[derive(Debug, Default)]
pub struct DepartureTable(Vec<Departure>);

/// Nothing more fits; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Departure {
    /// What it is filed under.
    pub fn key(&self) -> Key {
        Key::Departure(Tag::of(self.set.as_str()))
    }

    /// Whether the store is yet to be told.
    pub fn is_behind(&self) -> bool {
        self.mark == Mark::Due || self.erasing == Some(false)
    }

    /// Whether the request may be sent, as far as the store is concerned.
    pub fn is_due(&self) -> bool {
        self.mark == Mark::Stored && self.in_flight.is_none() && self.erasing.is_none()
    }
}

impl DepartureTable {
    /// Begins the removal of a set, unless it is being removed.
    ///
    /// # Errors
    /// [`Full`] when [`DEPARTURE_COUNT_MAX`] are being removed.
    pub fn begin(&mut self, set: SetUri, upstream: UpstreamId, mark: Mark, now: Instant) -> Result<(), Full> {
        if self.contains(&set) {
            return Ok(());
        }
        if self.0.len() == DEPARTURE_COUNT_MAX {
            return Err(Full);
        }
        let backoff = Backoff::new(DELETE_BACKOFF_MS_MIN, DELETE_BACKOFF_MS_MAX);
        self.0.push(Departure { set, upstream, mark, in_flight: None, not_before: now, backoff, erasing: None });
        Ok(())
    }

    /// Whether a set is being removed.
    pub fn contains(&self, set: &SetUri) -> bool {
        self.0.iter().any(|departure| departure.set == *set)
    }

    /// The removal of that set.
    pub fn find_mut(&mut self, set: &SetUri) -> Option<&mut Departure> {
        self.0.iter_mut().find(|departure| departure.set == *set)
    }

    /// Forgets a set that is gone.
    pub fn remove(&mut self, set: &SetUri) {
        self.0.retain(|departure| departure.set != *set);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Departure> {
        self.0.iter()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Departure> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let set = |number: usize| SetUri::parse(&format!("https://push.example/t/{number}")).expect("valid");
        let mut table = DepartureTable::default();
        for number in 0..DEPARTURE_COUNT_MAX {
            table.begin(set(number), UpstreamId::HOME, Mark::Due, Instant::ZERO).expect("room");
        }
        assert_eq!(table.begin(set(99), UpstreamId::HOME, Mark::Due, Instant::ZERO), Err(Full));
        assert_eq!(table.begin(set(0), UpstreamId::HOME, Mark::Due, Instant::ZERO), Ok(()), "it is there already");
        table.remove(&set(0));
        assert_eq!(table.begin(set(99), UpstreamId::HOME, Mark::Due, Instant::ZERO), Ok(()));
    }
}
