//! The figures of one line: how much it carries, and how long an answer takes.

use fieldgate::link::Role;
use fieldgate::random::SeededRandom;
use fieldgate::wire::frame::payload_bytes_max;

use super::application::Application;
use super::line::Line;
use super::ours;
use super::stop_and_wait::StopAndWait;
use super::world::{End, World};

const S: u64 = 1_000_000_000;

/// What is sent how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Octets of the largest frame.
    pub mtu: usize,
    /// Octets of a message.
    pub bytes: usize,
    /// Whether both sides send at once.
    pub both: bool,
    /// It ends when so many seconds are over or so many messages arrived, whichever is later,
    pub seconds: u64,
    /// See `seconds`; of the side that has fewer.
    pub messages: u64,
    /// but with so many octets at the latest.
    pub octets: u64,
}

/// How much arrived: octets of messages as a part of what the line carries.
#[derive(Clone, Copy, Debug)]
pub struct Goodput {
    /// Of the bits of the line.
    pub of_line: f64,
    /// Of what this framing can carry at most.
    pub of_ceiling: f64,
    /// What stop and wait makes of the same line.
    pub baseline: f64,
}

impl Load {
    /// The share of a line that messages have if every frame is full, none is lost and nothing else is sent.
    pub fn ceiling(self) -> f64 {
        let prefix = if self.bytes < 128 { 1 } else { 2 };
        let frames = payload_bytes_max(self.mtu) as f64 / self.mtu as f64;
        frames * self.bytes as f64 / (self.bytes + prefix) as f64
    }

    fn is_over(self, ns: u64, received: u64) -> bool {
        let is_enough = ns >= self.seconds * S && received >= self.messages;
        is_enough || received * self.bytes as u64 >= self.octets
    }
}

/// Messages as fast as they go; the mean of both directions, if both send.
pub fn goodput(line: Line, load: Load, seed: u64) -> Goodput {
    let app = || Application::endless(load.bytes);
    let back = || if load.both { app() } else { Application::silent(load.bytes) };
    let Load { mtu, .. } = load;
    let ours = if load.both {
        let sides = (ours::wide(Role::Gateway, mtu, app()), ours::wide(Role::Device, mtu, back()));
        share(World::new(sides.0, sides.1, line, seed), line, load)
    } else {
        share(World::new(ours::gateway(mtu, app()), ours::device(mtu, back()), line, seed), line, load)
    };
    let simple = |role, app| StopAndWait::new(role, mtu, line, app);
    let baseline = World::new(simple(Role::Gateway, app()), simple(Role::Device, back()), line, seed);
    Goodput { of_line: ours, of_ceiling: ours / load.ceiling(), baseline: share(baseline, line, load) }
}

fn share<G: End, D: End>(mut world: World<G, D>, line: Line, load: Load) -> f64 {
    let start = world.now();
    world.run_until(|world| {
        let (there, back) = received(world);
        load.is_over(world.now() - start, if load.both { there.min(back) } else { there })
    });
    let ns = world.now() - start;
    let (there, back) = received(&mut world);
    if std::env::var_os("LINK_COUNTS").is_some() {
        let counts = (world.gateway.counts(), world.device.counts());
        eprintln!("{line:?} {load:?}, {} s: {there} {} / {back} {}", ns / S, counts.0, counts.1);
    }
    let messages = if load.both { (there + back) as f64 / 2.0 } else { there as f64 };
    messages * line.octets_ns(load.bytes) as f64 / ns as f64
}

fn received<G: End, D: End>(world: &mut World<G, D>) -> (u64, u64) {
    (world.device.application().received, world.gateway.application().received)
}

/// How long a message of 20 octets and its answer take, each asked when everything is quiet, in milliseconds.
pub fn round_trips(line: Line, mtu: usize, count: u64, seed: u64) -> Vec<f64> {
    let sides = (ours::gateway(mtu, Application::silent(20)), ours::device(mtu, Application::answering(20)));
    ask(World::new(sides.0, sides.1, line, seed), count, seed)
}

/// The same with stop and wait.
pub fn round_trips_of_baseline(line: Line, mtu: usize, count: u64, seed: u64) -> Vec<f64> {
    let side = |role, application| StopAndWait::new(role, mtu, line, application);
    let device = side(Role::Device, Application::answering(20));
    ask(World::new(side(Role::Gateway, Application::silent(20)), device, line, seed), count, seed)
}

fn ask<G: End, D: End>(mut world: World<G, D>, count: u64, seed: u64) -> Vec<f64> {
    let mut random = SeededRandom::new(seed);
    let mut times = Vec::new();
    for number in 0..count {
        let pause = S / 10 + random.next_u64() % (S / 10);
        world.run_to(world.now() + pause);
        let asked = world.now();
        world.gateway.application().waiting += 1;
        world.run_until(|world| world.gateway.application().received > number);
        times.push((world.now() - asked) as f64 / 1e6);
    }
    times
}
