//! The monitoring requests: one a set, and one a subscription without set.

use super::backoff::Backoff;
use crate::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, STABLE_MS};
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
            monitor.wanted = targets.contains(&monitor.target);
        }
        self.monitors.retain(|monitor| monitor.wanted || matches!(monitor.state, MonitorState::Open { .. }));
        for target in targets {
            if !self.monitors.iter().any(|monitor| monitor.target == *target) {
                self.monitors.push(Monitor {
                    id: MonitorId(self.next_id),
                    target: target.clone(),
                    wanted: true,
                    state: MonitorState::Idle { not_before: now },
                    backoff: Backoff::new(BACKOFF_MS_MIN, BACKOFF_MS_MAX),
                    short_count: 0,
                });
                self.next_id += 1;
            }
        }
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
