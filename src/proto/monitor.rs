//! The monitoring requests: one a set, and one a subscription without set.

use heapless::Deque;

use super::backoff::Backoff;
use crate::limits::{
    BACKOFF_MS_MAX, BACKOFF_MS_MIN, DISPLACED_COUNT_MAX, DISPLACED_PAUSE_MS, DISPLACED_TOGETHER_MS,
    DISPLACED_WINDOW_MS, STABLE_MS,
};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::webpush::exchange::Target;

/// Number of a monitoring request, never used twice in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(u32);

#[derive(Debug)]
enum MonitorState {
    Idle { not_before: Instant },
    Open { since: Instant },
}

#[derive(Debug)]
struct Monitor {
    id: MonitorId,
    target: Target,
    wanted: bool,
    state: MonitorState,
    backoff: Backoff,
    /// Ends in a row that came soon after the request.
    short_count: u32,
    /// Since when it asks for less or more than is wanted; another one takes its place.
    outdated_since: Option<Instant>,
}

/// When newer requests than ours, which were not ours, took the place of ours: two gateways have one identity.
#[derive(Debug, Default)]
pub struct Displacements {
    at: Deque<Instant, DISPLACED_COUNT_MAX>,
    until: Option<Instant>,
}

impl Displacements {
    /// Notes one; after some of them the other gateway is left alone for the time given back. Requests that are displaced
    /// together, on several sets, are so by one thing that the other one did.
    pub fn noted(&mut self, now: Instant) -> Option<Duration> {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return Some(until.since(now));
        }
        if self.at.back().is_some_and(|last| now.since(*last) < Duration::from_millis(DISPLACED_TOGETHER_MS)) {
            return None;
        }
        if self.at.is_full() {
            self.at.pop_front();
        }
        // There is room: one has just left.
        self.at.push_back(now).ok();
        let first = self.at.front().filter(|_| self.at.is_full())?;
        if now.since(*first) > Duration::from_millis(DISPLACED_WINDOW_MS) {
            return None;
        }
        self.at.clear();
        let pause = Duration::from_millis(DISPLACED_PAUSE_MS);
        self.until = Some(now + pause);
        Some(pause)
    }

    /// Whether the other gateway is being left alone.
    pub fn is_yielding(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// All monitoring requests: one a set, and one a subscription without set.
#[derive(Debug, Default)]
pub struct MonitorTable {
    monitors: Vec<Monitor>,
    next_id: u32,
}

impl MonitorTable {
    /// Makes the monitored targets those given: new ones are due at once, others are not asked for again.
    pub fn reconcile(&mut self, targets: &[Target], now: Instant) {
        for monitor in &mut self.monitors {
            monitor.wanted = targets.contains(&monitor.target) && monitor.outdated_since.is_none();
        }
        self.monitors.retain(|monitor| monitor.wanted || matches!(monitor.state, MonitorState::Open { .. }));
        for target in targets {
            if !self.monitors.iter().any(|monitor| monitor.target == *target && monitor.outdated_since.is_none()) {
                self.add(target.clone(), now);
            }
        }
    }

    fn add(&mut self, target: Target, now: Instant) {
        self.monitors.push(Monitor {
            id: MonitorId(self.next_id),
            target,
            wanted: true,
            state: MonitorState::Idle { not_before: now },
            backoff: Backoff::new(BACKOFF_MS_MIN, BACKOFF_MS_MAX),
            short_count: 0,
            outdated_since: None,
        });
        self.next_id += 1;
    }

    /// Has another request take the place of each open one: what is wanted has changed. The old ones stay until the
    /// service ends them, or their connection is replaced.
    ///
    /// Source: RFC 8030 §5.3, §6.
    pub fn renew(&mut self, now: Instant) {
        let mut targets = Vec::new();
        for monitor in self.monitors.iter_mut().filter(|monitor| monitor.wanted) {
            if matches!(monitor.state, MonitorState::Open { .. }) {
                (monitor.wanted, monitor.outdated_since) = (false, Some(now));
                targets.push(monitor.target.clone());
            }
        }
        for target in targets {
            self.add(target, now);
        }
    }

    /// Since when the oldest request has been one whose place another one takes.
    pub fn outdated_since(&self) -> Option<Instant> {
        self.monitors.iter().filter_map(|monitor| monitor.outdated_since).min()
    }

    /// Whether nothing of ours takes the place of a request: it is wanted, and the one on the connection in use.
    pub fn is_in_place(&self, id: MonitorId) -> bool {
        self.monitors.iter().any(|monitor| monitor.id == id && monitor.wanted)
    }

    /// Opens the next request that is due.
    pub fn open_next(&mut self, now: Instant) -> Option<(MonitorId, Target)> {
        let due =
            |monitor: &&mut Monitor| matches!(monitor.state, MonitorState::Idle { not_before } if not_before <= now);
        let monitor = self.monitors.iter_mut().filter(|monitor| monitor.wanted).find(due)?;
        monitor.state = MonitorState::Open { since: now };
        Some((monitor.id, monitor.target.clone()))
    }

    /// Takes the end of a request; gives its target. It is due again at once the first time, later with growing pauses.
    pub fn ended(
        &mut self,
        id: MonitorId,
        failed: bool,
        asked: Option<Duration>,
        now: Instant,
        random: &mut dyn Random,
    ) -> Option<Target> {
        let monitor = self.monitors.iter_mut().find(|monitor| monitor.id == id)?;
        let MonitorState::Open { since } = monitor.state else { return None };
        if now.since(since) >= Duration::from_millis(STABLE_MS) {
            monitor.short_count = 0;
            monitor.backoff.reset();
        }
        let at_once = !failed && asked.is_none() && monitor.short_count == 0;
        monitor.short_count = monitor.short_count.saturating_add(1);
        let pause = if at_once { Duration::ZERO } else { monitor.backoff.fail(asked, random) };
        monitor.state = MonitorState::Idle { not_before: now + pause };
        let target = monitor.target.clone();
        self.monitors.retain(|monitor| monitor.wanted || monitor.id != id);
        Some(target)
    }

    /// The connection ended: those that were open are due again on the next one; a pause goes on.
    pub fn closed(&mut self, now: Instant) {
        self.monitors.retain(|monitor| monitor.wanted);
        for monitor in &mut self.monitors {
            if let MonitorState::Open { .. } = monitor.state {
                monitor.state = MonitorState::Idle { not_before: now };
            }
        }
    }

    /// The connection was replaced: those that were open are due on the new one, under other numbers. How the old ones
    /// end says nothing any more.
    pub fn moved(&mut self, now: Instant) {
        self.closed(now);
        for monitor in &mut self.monitors {
            monitor.id = MonitorId(self.next_id);
            self.next_id += 1;
        }
    }

    /// When the next request is due.
    pub fn due(&self) -> Option<Instant> {
        let idle = |monitor: &Monitor| match monitor.state {
            MonitorState::Idle { not_before } => Some(not_before),
            MonitorState::Open { .. } => None,
        };
        self.monitors.iter().filter_map(idle).min()
    }

    /// Requests that are open.
    pub fn open_count(&self) -> usize {
        self.monitors.iter().filter(|monitor| matches!(monitor.state, MonitorState::Open { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::webpush::resource::SetUri;

    /// A-UA-23: a monitor that is closed 100 times in a row is asked for again with growing, bounded pauses.
    #[test]
    fn immediate_ends_grow_the_pause_but_not_beyond_the_bound() {
        let mut random = SeededRandom::new(1);
        let mut table = MonitorTable::default();
        let mut now = Instant::ZERO;
        table.reconcile(&[target(1)], now);
        let mut pauses = Vec::new();
        for _ in 0..100 {
            let (id, _) = table.open_next(now).expect("due");
            table.ended(id, false, None, now, &mut random);
            let due = table.due().expect("due again");
            pauses.push(due.since(now).as_millis() as u64);
            now = due;
        }
        assert_eq!(pauses[0], 0);
        assert!(pauses[1] >= BACKOFF_MS_MIN / 2 && pauses[20] > BACKOFF_MS_MAX / 3);
        assert!(pauses.iter().all(|&pause| pause <= BACKOFF_MS_MAX));
        let (id, _) = table.open_next(now).expect("due");
        now = now + Duration::from_millis(STABLE_MS);
        table.ended(id, false, None, now, &mut random);
        assert_eq!(table.due(), Some(now));
    }

    /// A-GAP-06: a gateway with many sets is displaced on all of them at once, which counts once; when it yields, it does so
    /// on all of them.
    #[test]
    fn a_gap_06_requests_that_are_displaced_together_count_once() {
        let mut displaced = Displacements::default();
        let at = |ms| Instant::from_millis(ms);
        for number in 0..64 {
            assert_eq!(displaced.noted(at(number)), None);
        }
        assert_eq!(displaced.noted(at(DISPLACED_TOGETHER_MS)), None);
        let start = 2 * DISPLACED_TOGETHER_MS;
        for late in [0, 1, 5_000] {
            assert_eq!(displaced.noted(at(start + late)), Some(Duration::from_millis(DISPLACED_PAUSE_MS - late)));
        }
        let end = start + DISPLACED_PAUSE_MS;
        assert!(displaced.is_yielding(at(end - 1)) && !displaced.is_yielding(at(end)));
        assert_eq!(displaced.noted(at(end)), None, "it begins anew");
    }

    #[test]
    fn targets_no_longer_wanted_are_dropped_when_they_end() {
        let mut random = SeededRandom::new(1);
        let mut table = MonitorTable::default();
        table.reconcile(&[target(1), target(2)], Instant::ZERO);
        let (one, _) = table.open_next(Instant::ZERO).expect("due");
        table.reconcile(&[target(2)], Instant::ZERO);
        assert_eq!(table.open_count(), 1);
        assert_eq!(table.ended(one, false, None, Instant::ZERO, &mut random), Some(target(1)));
        assert_eq!(table.open_next(Instant::ZERO).map(|(_, target)| target), Some(target(2)));
        assert_eq!(table.open_next(Instant::ZERO), None);
    }

    fn target(number: u32) -> Target {
        Target::Set(SetUri::parse(&format!("https://push.example/t/{number}")).expect("valid"))
    }
}
