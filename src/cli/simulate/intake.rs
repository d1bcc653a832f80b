//! What a simulated application does with a message: it takes its time, and keeps or refuses it.
//!
//! While it is busy with a message, that stays where it is and its octets are no credit of the gateway. Time is an
//! argument.

use crate::time::{Duration, Instant};
use crate::wire::message::Age;
use crate::wire::{ChannelId, MessageId, Refusal};

/// How messages are taken; the default is at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    /// How long each message takes.
    pub slow: Duration,
    /// Which messages are refused.
    pub refuse: Option<Refusing>,
}

/// Messages that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusing {
    /// The reason that is given.
    pub reason: Refusal,
    /// How many are; all if no number is named.
    pub count: Option<u64>,
}

/// A message that the application is busy with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taking {
    pub message: MessageId,
    pub channel: ChannelId,
    pub age: Age,
    pub body: Vec<u8>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Refuse(Refusal),
}

/// The application's side of a message: one at a time.
pub(super) struct Intake {
    slow: Duration,
    refuse: Option<Refusing>,
    taking: Option<(Taking, Instant)>,
}

impl Intake {
    pub fn new(manners: Manners) -> Self {
        Self { slow: manners.slow, refuse: manners.refuse, taking: None }
    }

    /// The application has a message before it. It must not be busy.
    pub fn begin(&mut self, taking: Taking, now: Instant) {
        debug_assert!(self.taking.is_none(), "one at a time");
        self.taking = Some((taking, now + self.slow));
    }

    /// Whether it is busy.
    pub fn is_busy(&self) -> bool {
        self.taking.is_some()
    }

    /// The message it is done with, and what becomes of it.
    pub fn finish(&mut self, now: Instant) -> Option<(Taking, Verdict)> {
        let (taking, _) = self.taking.take_if(|(_, until)| *until <= now)?;
        Some((taking, self.judge()))
    }

    /// A refusal that was decided could not be said: the message comes again, and does not count.
    pub fn not_refused(&mut self) {
        if let Some(Refusing { count: Some(left), .. }) = &mut self.refuse {
            *left += 1;
        }
    }

    /// When it is done.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.taking.as_ref().map(|(_, until)| *until)
    }

    /// The device starts anew: what it was busy with is forgotten.
    pub fn reset(&mut self) {
        self.taking = None;
    }

    fn judge(&mut self) -> Verdict {
        match &mut self.refuse {
            None | Some(Refusing { count: Some(0), .. }) => Verdict::Keep,
            Some(Refusing { reason, count }) => {
                if let Some(left) = count {
                    *left -= 1;
                }
                Verdict::Refuse(*reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(100);

    #[test]
    fn a_message_is_kept_at_once_unless_told_otherwise() {
        let mut intake = Intake::new(Manners::default());
        assert_eq!(intake.finish(NOW), None);
        intake.begin(taking(1), NOW);
        assert_eq!(intake.finish(NOW), Some((taking(1), Verdict::Keep)));
        assert!(!intake.is_busy());
    }

    #[test]
    fn a_slow_application_is_busy_with_one_message_for_its_time() {
        let mut intake = Intake::new(Manners { slow: Duration::from_millis(50), refuse: None });
        intake.begin(taking(1), NOW);
        let end = NOW + Duration::from_millis(50);
        assert_eq!((intake.finish(NOW), intake.is_busy(), intake.poll_timeout()), (None, true, Some(end)));
        assert_eq!(intake.finish(end), Some((taking(1), Verdict::Keep)));
        intake.begin(taking(2), end);
        intake.reset();
        assert_eq!((intake.poll_timeout(), intake.is_busy()), (None, false));
    }

    #[test]
    fn so_many_messages_are_refused_as_was_asked_for() {
        for (count, refused) in [(None, 5), (Some(2), 2), (Some(0), 0)] {
            let refuse = Some(Refusing { reason: Refusal::Full, count });
            let mut intake = Intake::new(Manners { slow: Duration::ZERO, refuse });
            let verdicts: Vec<Verdict> = (0..5)
                .map(|number| {
                    intake.begin(taking(number), NOW);
                    intake.finish(NOW).expect("it is done").1
                })
                .collect();
            let expected: Vec<Verdict> = (0..5)
                .map(|number| if number < refused { Verdict::Refuse(Refusal::Full) } else { Verdict::Keep })
                .collect();
            assert_eq!(verdicts, expected);
        }
    }

    #[test]
    fn a_refusal_that_could_not_be_said_is_still_to_come() {
        let refuse = Some(Refusing { reason: Refusal::NotPossible, count: Some(1) });
        let mut intake = Intake::new(Manners { slow: Duration::ZERO, refuse });
        for _ in 0..2 {
            intake.begin(taking(1), NOW);
            let (_, verdict) = intake.finish(NOW).expect("it is done");
            assert_eq!(verdict, Verdict::Refuse(Refusal::NotPossible));
            intake.not_refused();
        }
    }

    fn taking(number: u8) -> Taking {
        Taking { message: MessageId([number; 8]), channel: ChannelId(1), age: Age::UNKNOWN, body: vec![number] }
    }
}
