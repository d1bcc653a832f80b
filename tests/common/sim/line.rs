//! The line between a pump and its device: slow, and in bad weather it loses, damages and doubles frames.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::wire::Role;

use super::{Context, Event};

/// What both ends have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub octets_per_s: u64,
    pub mtu: usize,
    /// Octets of an earlier plug never arrive.
    pub plug: u32,
    pub is_plugged: bool,
}

/// One direction, at its sending end.
#[derive(Debug, Default)]
pub(super) struct Lane {
    free_at: u64,
    arrived_at: u64,
    is_waiting: bool,
}

impl Lane {
    pub fn freed(&mut self) {
        self.is_waiting = false;
    }

    /// Sends frames as long as the line is free.
    pub fn transmit(
        &mut self,
        device: usize,
        to: Role,
        line: Line,
        context: &mut Context,
        mut poll: impl FnMut(&mut [u8; LINK_MTU_BYTES_MAX]) -> Option<usize>,
    ) {
        let mut frame = [0; LINK_MTU_BYTES_MAX];
        let mut round = 0;
        while self.free_at <= context.now && context.check.is_output_allowed(round) {
            round += 1;
            let Some(bytes) = poll(&mut frame) else { return };
            self.free_at = context.now + (bytes as u64 * 1_000).div_ceil(line.octets_per_s);
            self.carry(device, to, line, &frame[..bytes], context);
        }
        if !self.is_waiting {
            self.is_waiting = true;
            context.at(self.free_at, Event::LineFree { device, from: to.peer() });
        }
    }

    fn carry(&mut self, device: usize, to: Role, line: Line, frame: &[u8], context: &mut Context) {
        let weather = context.weather;
        if !line.is_plugged || context.dice.percent(weather.loss) {
            return;
        }
        let mut octets = frame.to_vec();
        if context.dice.percent(weather.damage) {
            let at = context.dice.below(octets.len() as u64) as usize;
            octets[at] ^= 1 << context.dice.below(8);
        }
        let copies = if context.dice.percent(weather.copies) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.free_at + context.dice.between(0, 3);
            self.arrived_at = self.arrived_at.max(at);
            let event = Event::Octets { device, to, plug: line.plug, octets: octets.clone() };
            context.at(self.arrived_at, event);
        }
    }
}
