//! Two ends, a line between them, and the clock: from one moment in which something happens to the next.
//!
//! The clock counts nanoseconds; the ends see whole milliseconds, rounded down, and are woken when the millisecond of
//! their deadline begins, as in the gateway.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::time::Instant;

use super::application::Application;
use super::line::{Direction, Line};

const MS: u64 = 1_000_000;

/// One end of a line: a link and the application above it.
pub trait End {
    fn application(&mut self) -> &mut Application;

    /// Whether messages can be sent.
    fn is_open(&self) -> bool;

    /// Writes the frame that is due.
    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize>;

    fn receive(&mut self, octets: &[u8], now: Instant);

    fn deadline(&self) -> Option<Instant>;

    fn handle_timeout(&mut self, now: Instant);

    /// For a person who looks for the reason of a figure.
    fn counts(&self) -> String;
}

pub struct World<G, D> {
    pub gateway: G,
    pub device: D,
    down: Direction,
    up: Direction,
    now: u64,
    is_traced: bool,
}

impl<G: End, D: End> World<G, D> {
    /// Two ends that have nothing to say yet, once both are open.
    pub fn new(gateway: G, device: D, line: Line, seed: u64) -> Self {
        let is_traced = std::env::var_os("LINK_TRACE").is_some();
        let (down, up) =
            (Direction::new(line, false, 2 * seed), Direction::new(line, line.has_turnaround, 2 * seed + 1));
        let mut world = Self { gateway, device, down, up, now: 0, is_traced };
        world.run_until(|world| world.gateway.is_open() && world.device.is_open());
        world
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn run_until(&mut self, done: impl Fn(&mut Self) -> bool) {
        while !done(self) {
            self.step(u64::MAX);
        }
    }

    /// Until the clock shows this time.
    pub fn run_to(&mut self, end: u64) {
        while self.now < end {
            self.step(end);
        }
    }

    /// Everything that is due is sent; then time goes on to whatever happens next.
    fn step(&mut self, end: u64) {
        let now = Instant::from_millis(self.now / MS);
        let trace = self.is_traced.then_some(self.now);
        transmit(&mut self.gateway, &mut self.down, self.now, trace.map(|at| (at, "G")));
        transmit(&mut self.device, &mut self.up, self.now, trace.map(|at| (at, "                    D")));
        let deadlines = [self.gateway.deadline(), self.device.deadline()].into_iter().flatten();
        // What is due and could not be done waits for the line.
        let deadlines = deadlines.filter(|at| *at > now).map(|at| at.as_millis() * MS);
        let line = [&self.down, &self.up].into_iter().flat_map(|way| [way.delivers_at(), way.free_at(self.now)]);
        let next = line.flatten().chain(deadlines).min().unwrap_or(end).min(end);
        assert!(next < u64::MAX, "nothing happens any more");
        self.now = next.max(self.now);
        let now = Instant::from_millis(self.now / MS);
        self.device.receive(&self.down.deliver(self.now), now);
        self.gateway.receive(&self.up.deliver(self.now), now);
        self.gateway.handle_timeout(now);
        self.device.handle_timeout(now);
    }
}

fn transmit(end: &mut impl End, way: &mut Direction, now: u64, trace: Option<(u64, &str)>) {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    if way.is_free(now)
        && let Some(bytes) = end.transmit(Instant::from_millis(now / MS), &mut out)
    {
        way.carry(&out[..bytes], now);
        if let Some((at, who)) = trace {
            eprintln!("{:12.3} ms {who} {:02x?} {bytes}", at as f64 / 1e6, &out[..bytes.min(8)]);
        }
    }
}
