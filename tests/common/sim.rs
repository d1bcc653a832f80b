//! The whole system without its sockets: the pure machines of gateway, push service and devices on one simulated
//! network and one clock.
//!
//! ```text
//!  application server -> Service (Retention, disk) <= connection => Gateway (proto::Gateway, flash)
//!                                                                      | Pump (Link)       a pump for each device
//!                                                                    line
//!                                                                      | Device, application
//! ```
//!
//! The shells around the machines are modelled small and honest: what a real one may delay, lose or never hear, these
//! delay, lose and never hear. A run is a loop over events in the order of their time. All chance comes from one seed,
//! so a run that fails can be repeated. What must hold is written down in `check`.

#[path = "sim/application.rs"]
mod application;
#[path = "sim/check.rs"]
mod check;
#[path = "sim/device.rs"]
mod device;
#[path = "sim/gateway.rs"]
mod gateway;
#[path = "sim/invariant.rs"]
pub mod invariant;
#[path = "sim/line.rs"]
mod line;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/pump.rs"]
mod pump;
#[path = "sim/service.rs"]
mod service;
#[path = "sim/sleep.rs"]
mod sleep;
#[path = "sim/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;

use fieldgate::random::SeededRandom;
use fieldgate::wire::Role;

use application::ApplicationServer;
use check::Check;
use device::{Device, DeviceEvent};
use gateway::{Gateway, GatewayEvent};
use invariant::{Bounds, Invariant, Report, Violation};
use line::Line;
use network::{Down, Network, Up};
use service::{Service, ServiceEvent};
use sleep::Sleepers;

pub use plan::Climate;

/// Wall time at the start of each run, in seconds since 1970.
const WALL_S: u64 = 1_800_000_000;
/// How long everything works again before the last check: longer than any pause after which something is tried again.
const HEALED_MS: u64 = 45 * 60_000;
/// Events that may happen in one millisecond.
const EVENTS_PER_MS_MAX: u32 = 50_000;
/// Events between two looks at the status of the gateway, which costs more than an event.
const EVENTS_PER_STATUS: u64 = 16;

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// What goes wrong; drawn from the seed if none is given.
    pub climate: Option<Climate>,
    /// A shell that breaks a rule on purpose.
    pub fault: Option<Fault>,
    /// What must hold.
    pub bounds: Bounds,
    /// Whether each event is printed.
    pub trace: bool,
}

/// A shell that breaks a rule on purpose, to see that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The gateway's shell takes a message that it handed over for acknowledged.
    AcknowledgesUnasked,
    /// The gateway's shell confuses the ids of two messages.
    AcknowledgesAnother,
    /// The upstream shell forgets a body that arrived.
    SwallowsBody,
    /// The service answers 201 and never stores the message.
    LosesStored,
    /// The gateway's flash says that it holds what it does not.
    FlashLies,
    /// A device that should remember its messages does not.
    ForgetsIds,
    /// A pump takes the newest message first.
    TakesNewestFirst,
    /// A pump hands over what is too late, and lets messages wait at times.
    IgnoresDeadline,
    /// The upstream shell says of acknowledgements that they failed, and does not send them until all is well.
    LosesDeletes,
    /// The same to the end.
    NeverDeletes,
    /// The decoder changes an octet.
    ChangesOctets,
    /// The shell says of announcements that they were accepted, and does not make them.
    NeverAnnounces,
    /// The upstream shell does not say how much a message must matter to be wanted.
    IgnoresUrgency,
    /// The shell tells devices that nothing waits, whatever the gateway says.
    HidesWaiting,
    /// The shell does not tell devices that nothing waits any more.
    WithholdsStatus,
}

/// What happens, and to whom.
enum Event {
    /// The next random operation.
    Operate,
    /// A device sleeps, asks or rotates.
    Doze,
    /// From now on everything works.
    Heal,
    /// A frame reaches the service.
    ToService {
        connection: u64,
        frame: Up,
    },
    /// A frame reaches the gateway.
    ToGateway {
        connection: u64,
        frame: Down,
    },
    /// An attempt to connect reaches the service's machine.
    Dial {
        connection: u64,
    },
    /// The service learns that a connection is gone.
    ServiceLeft {
        connection: u64,
    },
    Service(ServiceEvent),
    Gateway(GatewayEvent),
    Device(usize, DeviceEvent),
    /// Octets reach one end of a line, unless that was unplugged since.
    Octets {
        device: usize,
        to: Role,
        plug: u32,
        octets: Vec<u8>,
    },
    /// One end of a line can send again.
    LineFree {
        device: usize,
        from: Role,
    },
}

/// What can go wrong by itself at this time.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Of a hundred frames on a line.
    loss: u64,
    damage: u64,
    copies: u64,
    /// Of a thousand writes.
    store_fails: u64,
    commit_fails: u64,
    /// Of a hundred pushed messages, how many come in pieces.
    slow_bodies: u64,
    /// One way between gateway and service.
    latency_ms_max: u64,
}

/// What all parts share.
struct Context {
    now: u64,
    dice: Dice,
    check: Check,
    weather: Weather,
    network: Network,
    lines: Vec<Line>,
    fault: Option<Fault>,
    /// Whether nothing goes wrong any more.
    is_healed: bool,
    events: BTreeMap<(u64, u64), Event>,
    event_count: u64,
    trace: bool,
}

impl Context {
    /// Lets something happen later.
    fn after(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now + delay_ms, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.event_count += 1;
        self.events.insert((at.max(self.now), self.event_count), event);
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.3} {}", self.now as f64 / 1_000.0, text());
        }
    }
}

/// Chance, from the seed.
struct Dice(SeededRandom);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn permille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// A source of its own for one machine.
    fn source(&mut self) -> SeededRandom {
        SeededRandom::new(self.0.next_u64())
    }
}

/// Everything there is.
struct World {
    context: Context,
    service: Service,
    gateway: Gateway,
    devices: Vec<Device>,
    plan: plan::Plan,
    sleepers: Option<Sleepers>,
}

/// Runs one seed to its end.
///
/// # Errors
/// The first [`Violation`].
pub fn run(options: Options) -> Result<Report, Box<Violation>> {
    let mut world = World::new(options);
    let end = world.live();
    world.context.now = end;
    let World { context, service, gateway, devices, plan, .. } = &mut world;
    let wanted = devices.iter().flat_map(Device::subscriptions).collect::<Vec<_>>();
    let posted_at = |device, channel| gateway.posted_at(device, channel);
    let is_kept = |token| service.is_kept(token);
    context.check.conclude(end, plan, &wanted, posted_at, is_kept, gateway.status().as_ref());
    for device in devices.iter() {
        context.check.conclude_status(device.id.as_str(), device.waiting);
    }
    if let Some(known) = gateway.application_knows() {
        context.check.conclude_announced(known, &gateway.all_posted_at());
    }
    context.check.outcome()
}

impl World {
    fn new(options: Options) -> Self {
        let mut dice = Dice(SeededRandom::new(options.seed.wrapping_mul(0x9e37_79b9) ^ 0x5eed));
        let plan = plan::Plan::draw(options.seed, options.climate, &mut dice);
        let devices: Vec<Device> = (0..plan.device_count).map(|at| Device::draw(at, &plan, &mut dice)).collect();
        let (service, gateway) = (
            Service::new(&plan, &mut dice),
            Gateway::new(&plan, &devices, ApplicationServer::draw(options.seed), &mut dice),
        );
        let context = Context {
            now: 0,
            check: Check::new(options.bounds, devices.iter().map(|device| device.traits).collect()),
            weather: plan.weather,
            network: Network::new(),
            lines: devices.iter().map(Device::line).collect(),
            fault: options.fault,
            is_healed: false,
            events: BTreeMap::new(),
            event_count: 0,
            trace: options.trace,
            dice,
        };
        let sleepers = Sleepers::draw(options.seed, &plan);
        let mut world = Self { context, service, gateway, devices, plan, sleepers };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.context.trace(|| format!("{:?}", self.plan));
        self.service.start(&mut self.context);
        self.gateway.start(&mut self.context);
        for device in &mut self.devices {
            device.start(&mut self.context);
        }
        self.context.after(self.plan.first_operation_ms, Event::Operate);
        if self.sleepers.is_some() {
            self.context.after(self.plan.first_operation_ms, Event::Doze);
        }
    }

    /// Lets time pass until the end, or the first violation; tells when that was.
    fn live(&mut self) -> u64 {
        let (mut steps, mut same_ms) = (0_u64, 0_u32);
        let mut end = u64::MAX;
        while self.context.check.violation().is_none() {
            let Some((at, who)) = self.next() else { return self.context.now };
            if at > end {
                return end;
            }
            same_ms = if at == self.context.now { same_ms + 1 } else { 0 };
            self.context.now = at;
            if same_ms > EVENTS_PER_MS_MAX {
                self.context.check.fail(Invariant::OutputsEnd, "time stands still".to_owned());
            }
            self.step(who);
            steps += 1;
            if steps.is_multiple_of(EVENTS_PER_STATUS) {
                self.gateway.look(&mut self.context);
            }
            if self.context.is_healed && end == u64::MAX {
                end = self.context.now + HEALED_MS;
            }
        }
        self.context.now
    }

    /// When something happens next, and where; events before timers.
    fn next(&mut self) -> Option<(u64, Who)> {
        let event = self.context.events.first_key_value().map(|((at, _), _)| (*at, Who::Event));
        let service = self.service.wake().map(|at| (at, Who::Service));
        let gateway = self.gateway.wake().map(|at| (at, Who::Gateway));
        let pumps = self.gateway.pumps().filter_map(|(index, pump)| Some((pump.wake()?, Who::Pump(index))));
        let devices = self.devices.iter().enumerate();
        let devices = devices.filter_map(|(index, device)| Some((device.wake()?, Who::Device(index))));
        let all = event.into_iter().chain(service).chain(gateway).chain(pumps).chain(devices);
        all.map(|(at, who)| (at.max(self.context.now), who)).min()
    }

    fn step(&mut self, who: Who) {
        let context = &mut self.context;
        match who {
            Who::Event => {
                if let Some((_, event)) = context.events.pop_first() {
                    self.happen(event);
                }
            }
            Who::Service => self.service.handle_timeout(context),
            Who::Gateway => self.gateway.handle_timeout(context),
            Who::Pump(index) => self.gateway.pump_timeout(index, context),
            Who::Device(index) => self.devices[index].handle_timeout(context),
        }
    }

    fn happen(&mut self, event: Event) {
        let context = &mut self.context;
        match event {
            Event::Operate => self.operate(),
            Event::Doze => self.doze(),
            Event::Heal => self.heal(),
            Event::ToService { connection, frame } if context.network.carries(connection) => {
                self.service.hear(connection, frame, context);
            }
            Event::ToGateway { connection, frame } if context.network.carries(connection) => {
                self.gateway.hear(connection, frame, context);
            }
            Event::ToService { .. } | Event::ToGateway { .. } => {}
            Event::Dial { connection } => {
                let streams_max = if context.network.is_up { self.service.connect(connection) } else { None };
                context.network.dialed(connection, streams_max.is_some());
                let answer = context.network.one_way_ms(&context.weather, &mut context.dice);
                context.after(answer, Event::Gateway(GatewayEvent::Dialed { connection, streams_max }));
            }
            Event::ServiceLeft { connection } => self.service.left(connection, context),
            Event::Service(event) => self.service.happen(event, context),
            Event::Gateway(event) => self.gateway.happen(event, context),
            Event::Device(index, event) => self.devices[index].happen(event, context),
            Event::Octets { device, to, plug, octets } => {
                if context.lines[device].plug != plug {
                    return;
                }
                match to {
                    Role::Gateway => self.gateway.octets(device, &octets, context),
                    Role::Device => self.devices[device].octets(&octets, context),
                }
            }
            Event::LineFree { device, from: Role::Gateway } => self.gateway.line_free(device, context),
            Event::LineFree { device, from: Role::Device } => self.devices[device].line_free(context),
        }
    }
}

/// Where something happens next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Event,
    Service,
    Gateway,
    Pump(usize),
    Device(usize),
}
