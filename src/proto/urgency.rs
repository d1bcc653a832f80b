//! The least urgency that messages must have to be wanted now, and changes of it.
//!
//! What counts is power and network, which the shell knows. A change means another monitoring request before the old one
//! goes; so one that wants less waits until the last change is a while ago, while one that wants more is made at once.
//!
//! Source: RFC 8030 §5.3.

use super::Gateway;
use crate::limits::{MONITOR_OUTDATED_MS_MAX, URGENCY_PAUSE_MS};
use crate::time::{Duration, Instant};
use crate::webpush::headers::Urgency;

/// The level in use, and the one to come.
#[derive(Debug)]
pub(super) struct Level {
    current: Urgency,
    wanted: Urgency,
    changed_at: Option<Instant>,
}

impl Default for Level {
    fn default() -> Self {
        Self { current: Urgency::VeryLow, wanted: Urgency::VeryLow, changed_at: None }
    }
}

impl Level {
    /// The level that requests carry.
    pub(super) fn current(&self) -> Urgency {
        self.current
    }

    /// When the level that is wanted counts, if it is another one.
    fn due_at(&self, now: Instant) -> Option<Instant> {
        let pause = Duration::from_millis(URGENCY_PAUSE_MS);
        match self.wanted.cmp(&self.current) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => Some(now),
            std::cmp::Ordering::Greater => Some(self.changed_at.map_or(now, |changed_at| changed_at + pause)),
        }
    }
}

impl Gateway {
    /// The least urgency that is wanted is another one.
    pub(super) fn urgency_wanted(&mut self, urgency: Urgency) {
        self.level.wanted = urgency;
    }

    /// Changes the level when it is time, and lets go of connections on which requests of another level stay open.
    pub(super) fn settle_urgency(&mut self) {
        let now = self.now;
        if self.level.due_at(now).is_some_and(|at| at <= now) {
            self.level.current = self.level.wanted;
            self.level.changed_at = Some(now);
            for upstream in self.upstreams.iter_mut() {
                upstream.monitors.renew(now);
            }
        }
        for upstream in self.upstreams.iter_mut() {
            // Two streams are a monitor and one for requests that end: there is none for a second monitor.
            let has_room = upstream.requests_max() > 2;
            let is_late = |since: Instant| now.since(since) >= Duration::from_millis(MONITOR_OUTDATED_MS_MAX);
            if upstream.monitors.outdated_since().is_some_and(|since| !has_room || is_late(since)) {
                upstream.uplink.replace(now);
            }
        }
    }

    /// When that has something to do.
    pub(super) fn urgency_due(&self) -> impl Iterator<Item = Instant> {
        let patience = Duration::from_millis(MONITOR_OUTDATED_MS_MAX);
        let outdated = self.upstreams.iter().filter_map(|upstream| upstream.monitors.outdated_since());
        self.level.due_at(self.now).into_iter().chain(outdated.map(move |since| since + patience))
    }
}
