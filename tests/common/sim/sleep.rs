//! Devices that sleep, and ask and rotate now and then: when, and for how long.

use fieldgate::random::SeededRandom;

use super::plan::{Climate, Plan};
use super::{Dice, Event, World};

/// What a device does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Sleep(Nap),
    Ask,
    Rotate,
}

/// How a device sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nap {
    /// What it says about it.
    pub seconds: u32,
    /// How long it is.
    pub away_ms: u64,
    /// Whether it has lost its session when it wakes.
    pub loses_session: bool,
}

/// Draws what they do.
pub(super) struct Sleepers {
    /// Of its own, so that the runs without it are as they were.
    dice: Dice,
    is_calm: bool,
    pause_ms_max: u64,
}

impl Sleepers {
    /// Half of the runs have some.
    pub fn draw(seed: u64, plan: &Plan) -> Option<Self> {
        let dice = Dice(SeededRandom::new(seed ^ 0x51ee_9e25));
        let is_calm = plan.climate == Climate::Calm;
        plan.has_sleepers.then_some(Self { dice, is_calm, pause_ms_max: 4 * plan.pause_ms_max })
    }

    fn pause_ms(&mut self) -> u64 {
        self.dice.between(1, self.pause_ms_max)
    }

    fn act(&mut self) -> Act {
        match self.dice.below(10) {
            0 => Act::Ask,
            1 if !self.is_calm => Act::Rotate,
            _ => Act::Sleep(self.nap()),
        }
    }

    fn nap(&mut self) -> Nap {
        let dice = &mut self.dice;
        let seconds = *dice.pick(&[0, 2, 10, 60, 60, 300, 1_800]);
        let about_ms = if seconds == 0 { dice.between(100, 600_000) } else { 1_000 * u64::from(seconds) };
        let away_ms = match dice.below(10) {
            0 => dice.between(1, about_ms),
            1 | 2 if !self.is_calm => 2 * about_ms + dice.between(30_000, 600_000),
            _ => about_ms * dice.between(90, 110) / 100,
        };
        Nap { seconds, away_ms, loses_session: !self.is_calm && dice.percent(20) }
    }
}

impl World {
    /// One of the devices does something, and another one later.
    pub(super) fn doze(&mut self) {
        let Some(sleepers) = self.sleepers.as_mut().filter(|_| !self.context.is_healed) else { return };
        let at = sleepers.dice.below(self.devices.len() as u64) as usize;
        let (act, pause) = (sleepers.act(), sleepers.pause_ms());
        let (context, device) = (&mut self.context, &mut self.devices[at]);
        context.trace(|| format!("{} is to {act:?}", device.id));
        match act {
            Act::Sleep(nap) => device.sleep(nap, context),
            Act::Ask => device.ask_status(context),
            Act::Rotate => device.rotate(&mut sleepers.dice, context),
        }
        self.context.after(pause, Event::Doze);
    }
}
