//! Alternatives that outlive power: which of them are on flash, and when that is written.
//!
//! After a restart nobody knows whether the network is still the same. So only alternatives that their service allows for
//! another network (`persist=1`) are stored, and only until it would no longer let new connections go there. One that
//! turns out to be dead costs what any failed alternative costs, and the certificate there is verified as ever.
//!
//! ```text
//! said --other, or half over--> behind --written--> on flash --start--> used while fresh
//!      --none (clear)---------> behind --removed
//! ```
//!
//! Each write wears flash, whatever a service says:
//!
//! - what it repeats is not written again before half of the time is over that it is fresh for;
//! - what it no longer says is removed at once; what takes its place is written at once as well, but within
//!   [`ALTERNATIVE_RECORD_PAUSE_MS`] of another write only when it is said again after that;
//! - what is fresh for less than [`ALTERNATIVE_RECORD_S_MIN`] is not worth a write.
//!
//! When it was said is stored with it, so that no clock makes it fresh for longer than the service said. While nothing is
//! known of the time, nothing is written, and what is on flash waits until something is.
//!
//! # What is not stored
//!
//! - TLS tickets: whoever reads the flash could resume the session, and a new handshake costs one round trip.
//! - Names' addresses: they live for minutes, and what resolves names is another one on another network.
//! - The addresses that were connected to last: they are of a path, and another path has others.
//! - What has failed: the network may have been at fault, and not to try costs more than to try once.
//! - How long an idle path lasts: see [`keep_alive`](super::keep_alive).
//! - Alternatives of devices' own connections, which share nothing, and of origins that requests were sent on to, which come
//!   and go: the origin is asked, and says it again.
//!
//! Source: RFC 7838 §2.2 (freshness, network changes), §3.1 (`persist`).

use super::Gateway;
use super::record::{Key, Record};
use super::upstream::{Reason, Upstream, UpstreamId};
use super::{Change, Subject};
use crate::limits::{ALTERNATIVE_RECORD_PAUSE_MS, ALTERNATIVE_RECORD_S_MIN, ALTERNATIVE_RECORD_SLACK_S};
use crate::time::{ClockReading, Duration, Instant, UnixTime};
use crate::webpush::alt_svc::Alternative;

/// What a service said, with when that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at: UnixTime,
    /// Alternatives that persist, in the service's order, each with for how many seconds it was fresh then; at most
    /// [`ALTERNATIVE_COUNT_MAX`](crate::limits::ALTERNATIVE_COUNT_MAX).
    pub places: Vec<(Alternative, u64)>,
}

/// What is on flash of the alternatives of one origin.
#[derive(Debug, Default)]
pub struct Lasting {
    /// What is on flash, or on its way there.
    written: Option<Said>,
    /// What is to be written; nothing: removed.
    next: Option<Option<Said>>,
    /// A write has failed: what is on flash is not known.
    is_unsure: bool,
    /// What is on flash is of an earlier run, and the service has not spoken since.
    is_restored: bool,
    not_before: Instant,
}

impl Said {
    /// What is worth a write of what is fresh now.
    fn of<'a>(lasting: impl Iterator<Item = (&'a Alternative, Duration)>, at: UnixTime) -> Option<Self> {
        let is_worth = |(place, fresh_for): &(&Alternative, Duration)| {
            // The host of an origin may be spelt as no announcement spells one.
            fresh_for.as_secs() >= ALTERNATIVE_RECORD_S_MIN
                && Alternative::parse(&place.to_string()).as_ref() == Some(*place)
        };
        let places = lasting.filter(is_worth).map(|(place, fresh_for)| (place.clone(), fresh_for.as_secs()));
        Some(Self { at, places: places.collect() }).filter(|said| !said.places.is_empty())
    }

    /// What of it is still fresh, and for how long: never longer than was said.
    fn fresh_at(&self, time: UnixTime) -> impl Iterator<Item = (Alternative, Duration)> {
        let passed = time.0.saturating_sub(self.at.0);
        let fresh = self.places.iter().filter(move |(_, fresh_for)| passed < *fresh_for);
        fresh.map(move |(place, fresh_for)| (place.clone(), Duration::from_secs(fresh_for - passed)))
    }

    /// Whether it says nothing that `newer` does not: the same places in the same order, and none for longer.
    fn holds_with(&self, newer: &Self) -> bool {
        self.places.len() == newer.places.len()
            && self.pairs(newer).all(|((place, until), (other, other_until))| {
                place == other && until <= other_until.saturating_add(ALTERNATIVE_RECORD_SLACK_S)
            })
    }

    /// Whether less than half of what `newer` says is left of it.
    fn is_half_over(&self, newer: &Self) -> bool {
        self.pairs(newer).any(|((_, until), (_, other_until))| {
            let [left, fresh_for] = [until, other_until].map(|until| until.saturating_sub(newer.at.0));
            left < fresh_for / 2
        })
    }

    fn pairs<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = ((&'a Alternative, u64), (&'a Alternative, u64))> {
        self.with_ends().zip(newer.with_ends())
    }

    fn with_ends(&self) -> impl Iterator<Item = (&Alternative, u64)> {
        self.places.iter().map(|(place, fresh_for)| (place, self.at.0.saturating_add(*fresh_for)))
    }
}

impl Lasting {
    /// What an earlier run has written.
    pub(super) fn restored(&mut self, said: Said) {
        self.written = Some(said);
        self.is_restored = true;
    }

    /// What the service says now, as far as it is worth a write.
    fn said(&mut self, said: Option<Said>, now: Instant) {
        self.is_restored = false;
        let written = self.written.as_ref().filter(|_| !self.is_unsure);
        let is_gone = self.written.is_none() && !self.is_unsure;
        let holds = said.as_ref().zip(written).is_some_and(|(said, written)| written.holds_with(said));
        let is_late = said.as_ref().zip(written).is_some_and(|(said, written)| written.is_half_over(said));
        let may_write = now >= self.not_before;
        self.next = match said {
            None if is_gone => None,
            Some(_) if holds && !(is_late && may_write) => None,
            Some(said) if may_write => Some(Some(said)),
            Some(_) if is_gone => None,
            None | Some(_) => Some(None),
        };
    }

    /// Whether a write is due.
    pub(super) fn is_behind(&self) -> bool {
        self.next.is_some()
    }

    /// What is to be written; nothing in it: removed.
    fn take_next(&mut self, now: Instant) -> Option<Option<Said>> {
        let next = self.next.take()?;
        if next.is_some() {
            self.not_before = now + Duration::from_millis(ALTERNATIVE_RECORD_PAUSE_MS);
        }
        self.written.clone_from(&next);
        self.is_unsure = false;
        Some(next)
    }

    /// The write has failed; what of it is on flash is not known.
    fn not_written(&mut self) {
        self.is_unsure = true;
        self.not_before = Instant::ZERO;
        self.next.get_or_insert_with(|| self.written.clone());
    }
}

impl Upstream {
    /// The service has spoken, or what is known of it is less: flash follows.
    pub(super) fn alternatives_said(&mut self, time: Option<UnixTime>, now: Instant) {
        if self.reason == Reason::Configured {
            let said = time.and_then(|time| Said::of(self.alternatives.lasting(now), time));
            self.lasting.said(said, now);
        }
    }

    /// It is known, or known better, what time it is: by that it depends what of an earlier run is fresh.
    fn time_known(&mut self, time: UnixTime, now: Instant) {
        let Some(said) = self.lasting.written.as_ref().filter(|_| self.lasting.is_restored) else { return };
        self.alternatives.restored(said.fresh_at(time), now);
        if said.fresh_at(time).next().is_none() {
            self.lasting.said(None, now);
        }
    }
}

impl Gateway {
    /// Takes up what is on flash of an origin; of one that is not configured any more it is removed.
    pub(super) fn restore_alternatives(&mut self, service: String, said: Said) {
        let of = self.upstreams.configured_at(&service).map(|upstream| upstream.id);
        match of.and_then(|id| self.upstreams.get_mut(id)) {
            Some(upstream) => upstream.lasting.restored(said),
            None => self.behind.ended.push(Key::Alternatives(service)),
        }
    }

    /// The clock was looked at, or a verified service has said what time it is.
    pub(super) fn clock_looked_at(&mut self, clock: ClockReading) {
        self.wall_time.read(clock, self.last_time.time(), self.now);
        let Some(time) = self.wall_time.at(self.now) else { return };
        self.upstreams.iter_mut().for_each(|upstream| upstream.time_known(time, self.now));
    }

    /// Everything that is known of alternatives is to go, on flash as well.
    pub(super) fn forget_alternatives(&mut self) {
        for upstream in self.upstreams.iter_mut() {
            upstream.alternatives.forget();
            upstream.alternatives_said(None, self.now);
        }
    }

    pub(super) fn alternatives_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let upstream = self.upstreams.iter_mut().find(|upstream| upstream.lasting.is_behind())?;
        let service = upstream.service.authority().to_owned();
        let change = match upstream.lasting.take_next(self.now)? {
            Some(said) => Change::Put(Record::Alternatives(service, said)),
            None => Change::Remove(Key::Alternatives(service)),
        };
        Some((Subject::Alternatives(upstream.id), change, None))
    }

    pub(super) fn alternatives_not_stored(&mut self, upstream: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.lasting.not_written();
        }
    }
}
