//! The life of a simulated device: when it sleeps, wakes, starts anew, and asks for another subscription.
//!
//! It decides, and the shell performs. Time is an argument.
//!
//! ```text
//!   DOWN <--- session over --- any
//!     |
//!     | session open                   everything is handled and acknowledged
//!     v                                and nothing waits, or nothing came for long
//!   AWAKE ----------------------------------------------------------> FALLING: Sleep is said
//!     ^  ^                                                              |   |
//!     |  +------------------------- a message came --------------------+   | it is acknowledged
//!     |                                                                     v
//!     +------ Awake is said ------ the time has passed ------------------ ASLEEP: hears nothing
//! ```

use crate::limits::SIMULATE_QUIET_MS;
use crate::time::{Duration, Instant};
use crate::wire::{ChannelId, ToGateway};

/// What a device does by itself; the default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// It sleeps for so many seconds whenever there is nothing to do.
    pub sleep_s: Option<u32>,
    /// It starts anew each so many seconds.
    pub reset_s: Option<u32>,
    /// The channel for which it asks for another subscription, once.
    pub rotate: Option<ChannelId>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// This is said to the gateway.
    Say(ToGateway),
    /// The device hears nothing from now on.
    FallAsleep,
    /// The device starts anew.
    Reset,
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Awake {
        /// When it heard something last.
        heard: Instant,
        /// Whether the gateway said that nothing waits.
        is_told: bool,
    },
    Falling,
    Asleep {
        until: Instant,
    },
}

/// The life of one device.
pub(super) struct Life {
    sleep_s: Option<u32>,
    reset_s: Option<u32>,
    reset_at: Option<Instant>,
    /// What is to be rotated, and whether its subscription must come first.
    rotate: Option<(ChannelId, bool)>,
    is_rotate_due: bool,
    /// Subscriptions that were asked for and not yet answered.
    unanswered: usize,
    phase: Phase,
}

impl Life {
    /// `subscribe` are the channels that the device asks for itself: what is rotated must be there first.
    pub fn new(habits: &Habits, subscribe: &[ChannelId], now: Instant) -> Self {
        Self {
            sleep_s: habits.sleep_s,
            reset_s: habits.reset_s,
            reset_at: habits.reset_s.map(|s| now + Duration::from_secs(s.into())),
            rotate: habits.rotate.map(|channel| (channel, subscribe.contains(&channel))),
            is_rotate_due: false,
            unanswered: 0,
            phase: Phase::Down,
        }
    }

    /// A session is open, and so many subscriptions were asked for in it.
    pub fn up(&mut self, asked: usize, now: Instant) {
        self.phase = Phase::Awake { heard: now, is_told: false };
        self.unanswered = asked;
        self.is_rotate_due = self.rotate.is_some_and(|(_, waits)| !waits);
    }

    /// The session is over.
    pub fn down(&mut self) {
        self.phase = Phase::Down;
    }

    /// A message came: who falls asleep stays awake for it.
    pub fn heard(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Awake { heard, .. } => *heard = now,
            Phase::Falling => self.phase = Phase::Awake { heard: now, is_told: false },
            Phase::Down | Phase::Asleep { .. } => {}
        }
    }

    /// The gateway said how many messages wait.
    pub fn told(&mut self, waiting: u8) {
        if let Phase::Awake { is_told, .. } = &mut self.phase {
            *is_told = waiting == 0;
        }
    }

    /// A subscription came, or was refused.
    pub fn answered(&mut self, channel: ChannelId) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.is_rotate_due |= self.rotate.is_some_and(|(rotated, _)| rotated == channel);
    }

    /// Whether the device hears nothing, and does nothing.
    pub fn is_asleep(&self) -> bool {
        matches!(self.phase, Phase::Asleep { .. })
    }

    /// What is due; called until there is nothing. `is_idle`: everything is handled, acknowledged, and has arrived.
    pub fn poll(&mut self, is_idle: bool, now: Instant) -> Option<Act> {
        if self.reset_at.is_some_and(|at| at <= now) {
            self.reset_at = self.reset_s.map(|s| now + Duration::from_secs(s.into()));
            self.phase = Phase::Down;
            return Some(Act::Reset);
        }
        if matches!(self.phase, Phase::Awake { .. }) && std::mem::take(&mut self.is_rotate_due) {
            let (channel, _) = self.rotate.take()?;
            self.unanswered += 1;
            return Some(Act::Say(ToGateway::Rotate { channel }));
        }
        let seconds = self.sleep_s?;
        match self.phase {
            Phase::Awake { heard, is_told } if is_idle => {
                let is_settled = is_told && self.unanswered == 0;
                (is_settled || quiet_from(heard) <= now).then(|| {
                    self.phase = Phase::Falling;
                    Act::Say(ToGateway::Sleep { seconds })
                })
            }
            Phase::Falling if is_idle => {
                self.phase = Phase::Asleep { until: now + Duration::from_secs(seconds.into()) };
                Some(Act::FallAsleep)
            }
            Phase::Asleep { until } if until <= now => {
                self.phase = Phase::Awake { heard: now, is_told: false };
                Some(Act::Say(ToGateway::Awake))
            }
            Phase::Down | Phase::Awake { .. } | Phase::Falling | Phase::Asleep { .. } => None,
        }
    }

    /// When something is due by time alone.
    pub fn poll_timeout(&self, is_idle: bool) -> Option<Instant> {
        let turn = match self.phase {
            Phase::Asleep { until } => Some(until),
            Phase::Awake { heard, .. } if is_idle && self.sleep_s.is_some() => Some(quiet_from(heard)),
            Phase::Down | Phase::Awake { .. } | Phase::Falling => None,
        };
        turn.into_iter().chain(self.reset_at).min()
    }
}

/// When it has been quiet long enough.
fn quiet_from(heard: Instant) -> Instant {
    heard + Duration::from_millis(SIMULATE_QUIET_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(500);
    const SLEEPER: Habits = Habits { sleep_s: Some(60), reset_s: None, rotate: None };
    const SLEEP: Option<Act> = Some(Act::Say(ToGateway::Sleep { seconds: 60 }));
    const AWAKE: Option<Act> = Some(Act::Say(ToGateway::Awake));

    #[test]
    fn it_sleeps_when_nothing_waits_and_wakes_after_its_time_again_and_again() {
        let mut life = Life::new(&SLEEPER, &[], NOW);
        assert_eq!((life.poll(true, NOW), life.poll_timeout(true)), (None, None), "not without a session");
        life.up(0, NOW);
        assert_eq!(life.poll(true, NOW), None, "it was not told");
        let mut now = NOW;
        for _ in 0..3 {
            life.told(0);
            assert_eq!(life.poll(false, now), None, "not before everything is acknowledged");
            assert_eq!(life.poll(true, now), SLEEP);
            assert_eq!((life.poll(false, now), life.is_asleep()), (None, false), "not before the gateway knows");
            assert_eq!((life.poll(true, now), life.is_asleep()), (Some(Act::FallAsleep), true));
            now = now + Duration::from_secs(60);
            assert_eq!(life.poll_timeout(true), Some(now));
            assert_eq!((life.poll(true, now), life.is_asleep()), (AWAKE, false));
            assert_eq!(life.poll(true, now), None, "what waits comes first");
        }
    }

    #[test]
    fn a_gateway_that_says_nothing_keeps_nobody_awake_for_long() {
        let mut life = Life::new(&SLEEPER, &[], NOW);
        life.up(0, NOW);
        life.told(2);
        let later = NOW + Duration::from_millis(SIMULATE_QUIET_MS - 1);
        assert_eq!(life.poll(true, later), None);
        life.heard(later);
        let end = later + Duration::from_millis(SIMULATE_QUIET_MS);
        assert_eq!((life.poll_timeout(true), life.poll_timeout(false)), (Some(end), None));
        assert_eq!(life.poll(true, later + Duration::from_millis(SIMULATE_QUIET_MS)), SLEEP);
    }

    #[test]
    fn a_message_keeps_who_falls_asleep_awake() {
        let mut life = Life::new(&SLEEPER, &[], NOW);
        life.up(0, NOW);
        life.told(0);
        assert_eq!(life.poll(true, NOW), SLEEP);
        life.heard(NOW);
        assert_eq!(life.poll(true, NOW), None);
        life.told(0);
        assert_eq!(life.poll(true, NOW), SLEEP, "it says so again: the gateway took the answer for waking");
    }

    #[test]
    fn what_was_asked_for_is_awaited_before_sleep() {
        let mut life = Life::new(&SLEEPER, &[], NOW);
        life.up(2, NOW);
        life.told(0);
        life.answered(ChannelId(1));
        assert_eq!(life.poll(true, NOW), None);
        life.answered(ChannelId(2));
        assert_eq!(life.poll(true, NOW), SLEEP);
    }

    #[test]
    fn it_starts_anew_each_so_often_asleep_or_not() {
        let mut life = Life::new(&Habits { reset_s: Some(10), ..SLEEPER }, &[], NOW);
        let (first, second) = (NOW + Duration::from_secs(10), NOW + Duration::from_secs(20));
        assert_eq!((life.poll_timeout(true), life.poll(true, NOW)), (Some(first), None));
        assert_eq!(life.poll(true, first), Some(Act::Reset));
        life.up(0, first);
        life.told(0);
        assert_eq!((life.poll(true, first), life.poll(true, first)), (SLEEP, Some(Act::FallAsleep)));
        assert_eq!(life.poll_timeout(true), Some(second));
        assert_eq!((life.poll(true, second), life.is_asleep()), (Some(Act::Reset), false));
    }

    #[test]
    fn it_rotates_once_and_not_before_there_is_something_to_rotate() {
        let rotate = Habits { rotate: Some(ChannelId(7)), ..Habits::default() };
        let said = Some(Act::Say(ToGateway::Rotate { channel: ChannelId(7) }));
        let mut life = Life::new(&rotate, &[], NOW);
        assert_eq!(life.poll(true, NOW), None);
        for expected in [said.clone(), None] {
            life.up(0, NOW);
            assert_eq!(life.poll(true, NOW), expected);
            life.down();
        }
        let mut life = Life::new(&rotate, &[ChannelId(3), ChannelId(7)], NOW);
        life.up(2, NOW);
        life.answered(ChannelId(3));
        assert_eq!(life.poll(true, NOW), None);
        for expected in [said, None] {
            life.answered(ChannelId(7));
            assert_eq!(life.poll(true, NOW), expected);
        }
    }
}
