//! A long run: machines that are never started anew, and all that they must not remember.

use super::super::invariant::Stock;
use super::super::{Dice, Weather, World};
use super::{Climate, Operation, Plan};

/// Messages that a hundred operations send.
const SENT_PERCENT: u64 = 185;
/// Between two operations, if 1,000,000 messages are those of a month.
const PAUSE_MS: u64 = 30 * 86_400_000 * SENT_PERCENT / 100 / 1_000_000;
/// What is over for so long comes from nowhere any more.
const OVER_MS: u64 = 86_400_000;
/// Operations between two times at which the reference model forgets what is over.
const OPERATIONS_PER_FORGETTING: u32 = 1_000;
/// All that goes wrong. It is mended sooner than the next thing happens.
const RARE: &[Operation] = &[
    Operation::Channel,
    Operation::Reset,
    Operation::Off,
    Operation::Unplug,
    Operation::Stall,
    Operation::Deaf,
    Operation::Fill,
    Operation::Remove,
    Operation::Rotate,
    Operation::Urgency,
    Operation::Cut,
    Operation::GoAway,
    Operation::Path,
    Operation::NetworkDown,
];

pub(super) fn draw(dice: &mut Dice) -> Operation {
    match dice.below(1_000) {
        0..20 => *dice.pick(RARE),
        20..60 => Operation::Mend,
        _ => Operation::Send,
    }
}

impl Plan {
    pub(super) fn month(seed: u64, messages: u32) -> Self {
        let operations = (u64::from(messages) * 100 / SENT_PERCENT) as u32;
        Self {
            climate: Climate::Month(messages),
            device_count: 4,
            has_ttl_zero: true,
            channels_max: 2,
            weather: Weather {
                loss: 2,
                damage: 1,
                copies: 1,
                store_fails: 10,
                commit_fails: 10,
                slow_bodies: 2,
                latency_ms_max: 20,
            },
            first_operation_ms: 8_000,
            streams_max: 100,
            is_decoder_real: seed.is_multiple_of(100),
            operations,
            operations_left: operations,
            pause_ms_max: 2 * PAUSE_MS,
            has_sleepers: false,
        }
    }

    pub fn is_month(&self) -> bool {
        matches!(self.climate, Climate::Month(_))
    }
}

impl World {
    /// Counts what there is after each tenth of the run, and now and then forgets what is over.
    pub(super) fn take_stock(&mut self) {
        let done = self.plan.operations - self.plan.operations_left;
        if done.is_multiple_of(OPERATIONS_PER_FORGETTING) {
            self.context.check.forget_over(self.context.now.saturating_sub(OVER_MS));
        }
        let tenth = self.plan.operations / 10;
        if done.is_multiple_of(tenth) && done / tenth <= 10 {
            let stock = self.stock();
            self.context.check.stock(done / tenth, stock);
        }
    }

    fn stock(&self) -> Stock {
        let (service_records, service_sending) = self.service.stock();
        let (gateway_records, gateway_streams) = self.gateway.stock();
        let status = self.gateway.status();
        let gateway_messages = status.as_ref().map_or(0, |it| it.in_flight);
        let connections = status.map_or(0, |it| it.counters.connections);
        Stock {
            connections,
            service_records,
            service_sending,
            gateway_records,
            gateway_messages,
            gateway_streams,
            events: self.context.events.len(),
            resident: resident(),
        }
    }
}

/// Pages of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}
