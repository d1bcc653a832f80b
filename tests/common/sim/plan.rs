//! What happens in a run: who is there, the weather, and the random operations.

#[path = "month.rs"]
mod month;

use bytes::Bytes;
use fieldgate::limits::PLAINTEXT_BYTES_MAX;
use fieldgate::webpush::ece;
use fieldgate::webpush::headers::Urgency;
use fieldgate::wire::ChannelId;

use super::device::{DeviceEvent, Told};
use super::gateway::{COVER_BYTES, GatewayEvent};
use super::service::ServiceEvent;
use super::upstream::token;
use super::{Context, Dice, Event, Weather, World};

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Climate {
    /// Nothing but a few lost frames: every message goes straight through.
    Calm,
    /// Devices come, go, reset, stall and refuse; lines are bad.
    Devices,
    /// Connections are cut, gateway and service crash, writes fail.
    Network,
    /// All of it.
    Storm,
    /// About so many messages, 1,000,000 in 30 days, to machines that are never started anew, and now and then something
    /// that goes wrong.
    Month(u32),
}

/// What a seed stands for.
#[derive(Debug)]
pub(super) struct Plan {
    pub climate: Climate,
    pub device_count: usize,
    /// Whether messages with a lifetime of zero are sent.
    pub has_ttl_zero: bool,
    /// Channels of a device when it starts.
    pub channels_max: u64,
    pub weather: Weather,
    pub first_operation_ms: u64,
    pub streams_max: usize,
    /// One seed in a hundred decrypts for real.
    pub is_decoder_real: bool,
    pub operations: u32,
    pub operations_left: u32,
    pub pause_ms_max: u64,
    /// Whether devices sleep now and then.
    pub has_sleepers: bool,
}

impl Plan {
    pub fn draw(seed: u64, climate: Option<Climate>, dice: &mut Dice) -> Self {
        let drawn = *dice.pick(&[Climate::Calm, Climate::Devices, Climate::Network, Climate::Storm]);
        let climate = climate.unwrap_or(drawn);
        let is_bad = |bad: Climate| climate == bad || climate == Climate::Storm;
        let mut weather = Weather {
            loss: dice.below(3),
            latency_ms_max: *dice.pick(&[2, 20, 150]),
            slow_bodies: *dice.pick(&[0, 0, 10]),
            ..Weather::default()
        };
        if is_bad(Climate::Devices) {
            (weather.loss, weather.damage, weather.copies) = (dice.below(16), dice.below(4), dice.below(4));
        }
        if is_bad(Climate::Network) {
            (weather.store_fails, weather.commit_fails) = (dice.below(30), dice.below(30));
            (weather.slow_bodies, weather.latency_ms_max) = (*dice.pick(&[0, 10, 60]), *dice.pick(&[2, 20, 150, 900]));
        }
        let streams_max = if climate == Climate::Calm { 100 } else { *dice.pick(&[2, 3, 4, 8, 100, 100, 100]) };
        if let Climate::Month(messages) = climate {
            return Self::month(seed, messages);
        }
        let (is_small, operations) = (dice.percent(40), dice.between(25, 90) as u32);
        Self {
            climate,
            device_count: dice.between(1, if is_small { 2 } else { 4 }) as usize,
            has_ttl_zero: !is_small,
            channels_max: if is_small { 1 } else { 3 },
            weather,
            first_operation_ms: dice.between(1_000, 8_000),
            streams_max,
            is_decoder_real: seed.is_multiple_of(100),
            operations,
            operations_left: operations,
            pause_ms_max: *dice.pick(&[200, 2_000, 15_000]),
            has_sleepers: climate != Climate::Network && seed / 2 % 2 == 1,
        }
    }

    /// Whether nothing goes wrong and no more is in flight than the gateway has slots for: a service lets 8 messages of a
    /// subscription be in flight and does not count those that it forgets at once, a device has 8 slots, and what is
    /// beyond that is promised again when there is room. What comes for a device that sleeps is promised again as well.
    pub fn is_steady(&self) -> bool {
        let is_small = self.channels_max == 1 && self.device_count <= 2 && !self.has_ttl_zero;
        self.climate == Climate::Calm && is_small && !self.has_sleepers
    }

    /// How long until the next operation: mostly soon, sometimes minutes, rarely hours.
    fn pause_ms(&self, dice: &mut Dice) -> u64 {
        match dice.below(100) {
            _ if self.is_month() => dice.between(1, self.pause_ms_max),
            0 if self.climate != Climate::Calm => dice.between(1, 5) * 3_600_000,
            0..5 => dice.between(10_000, 120_000),
            _ => dice.between(1, self.pause_ms_max),
        }
    }
}

/// One random operation.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Send,
    Channel,
    Reset,
    Off,
    Unplug,
    Stall,
    Deaf,
    Fill,
    Remove,
    Rotate,
    Urgency,
    Cut,
    GoAway,
    Path,
    NetworkDown,
    GatewayCrash,
    ServiceCrash,
    Wipe,
    Mend,
}

const CALM: &[(u64, Operation)] = &[(20, Operation::Send)];
const DEVICES: &[(u64, Operation)] = &[
    (30, Operation::Send),
    (4, Operation::Channel),
    (4, Operation::Reset),
    (3, Operation::Off),
    (3, Operation::Unplug),
    (4, Operation::Stall),
    (3, Operation::Deaf),
    (2, Operation::Fill),
    (1, Operation::Remove),
    (1, Operation::Rotate),
    (2, Operation::Urgency),
];
const NETWORK: &[(u64, Operation)] = &[
    (30, Operation::Send),
    (4, Operation::Channel),
    (5, Operation::Cut),
    (3, Operation::GoAway),
    (2, Operation::Path),
    (2, Operation::Urgency),
    (2, Operation::NetworkDown),
    (4, Operation::GatewayCrash),
    (4, Operation::ServiceCrash),
];

impl World {
    pub(super) fn operate(&mut self) {
        if self.plan.operations_left == 0 {
            return self.context.after(1_000, Event::Heal);
        }
        self.plan.operations_left -= 1;
        if self.plan.is_month() {
            self.take_stock();
        }
        let operation = draw(self.plan.climate, &mut self.context.dice);
        self.perform(operation);
        let pause = self.plan.pause_ms(&mut self.context.dice);
        self.context.after(pause, Event::Operate);
    }

    fn perform(&mut self, operation: Operation) {
        if !matches!(operation, Operation::Send) {
            self.context.trace(|| format!("operation {operation:?}"));
        }
        let at = self.context.dice.below(self.devices.len() as u64) as usize;
        let (context, device) = (&mut self.context, &mut self.devices[at]);
        match operation {
            Operation::Send => self.send(at),
            Operation::Channel => {
                let channel = ChannelId(context.dice.between(1, 5) as u16);
                device.change_channel(channel, context);
            }
            Operation::Reset => {
                device.stop(context);
                device.start(context);
            }
            Operation::Off => {
                device.stop(context);
                let away = context.dice.between(100, 200_000);
                context.after(away, Event::Device(at, DeviceEvent::Start));
            }
            Operation::Unplug => self.plug(at),
            Operation::Stall => device.stalled_until = context.now + context.dice.between(1_000, 120_000),
            Operation::Deaf => {
                let ms = context.dice.between(1_000, 60_000);
                device.be_deaf(ms, context);
            }
            Operation::Fill => device.capacity = context.dice.between(1, 16) as usize,
            Operation::Urgency => {
                let urgency = *context.dice.pick(&Urgency::ALL);
                self.gateway.want(urgency, context);
            }
            Operation::Rotate => self.gateway.rotate(at, context),
            Operation::Remove => self.remove_or_add(at),
            Operation::Cut => self.cut_all(),
            Operation::GoAway => self.service.go_away(context),
            Operation::Path => self.gateway.path_changed(context),
            Operation::NetworkDown => {
                context.network.is_up = !context.network.is_up;
                self.cut_all();
            }
            Operation::GatewayCrash => self.crash_gateway(),
            Operation::ServiceCrash => self.crash_service(),
            Operation::Wipe => {
                self.crash_service();
                self.service.wipe();
                self.context.check.wiped();
            }
            Operation::Mend => self.mend(),
        }
    }

    /// A burst of messages for one device.
    fn send(&mut self, at: usize) {
        let dice = &mut self.context.dice;
        let count = if dice.percent(15) { dice.between(2, 12) } else { 1 };
        for _ in 0..count {
            let dice = &mut self.context.dice;
            let Some(told) = self.devices[at].told(dice) else { return };
            let shortest_s = if self.plan.has_ttl_zero { 0 } else { 10 };
            // What nobody can deliver is kept that long, and so much of it.
            let longest_s = if self.plan.is_month() { 10_000 } else { 1_000_000 };
            let ttl_s = *dice.pick(&[shortest_s, 10, 100, 1_000, longest_s.min(100_000), longest_s, longest_s]);
            let bytes = match dice.below(10) {
                0 => 0,
                1..7 => dice.below(200),
                7..9 => dice.below(1_500),
                _ => dice.below(PLAINTEXT_BYTES_MAX as u64 + 1),
            };
            let mut plaintext = vec![0; bytes as usize];
            fieldgate::random::Random::fill(&mut dice.0, &mut plaintext);
            let is_garbage = self.plan.climate != Climate::Calm && dice.permille(10);
            let body = if is_garbage {
                Bytes::from_static(b"not encrypted")
            } else {
                encrypt(&told, &plaintext, self.plan.is_decoder_real, &mut self.context)
            };
            let event = ServiceEvent::Send { push: token(&told.push), ttl_s, plaintext, body };
            let pause = self.context.dice.between(1, 30);
            self.context.after(pause, Event::Service(event));
        }
    }

    /// Pulls a line out, or plugs it in again.
    fn plug(&mut self, at: usize) {
        let line = &mut self.context.lines[at];
        line.is_plugged = !line.is_plugged;
        line.plug += 1;
        self.context.trace(|| format!("line {at} is plugged: {}", self.context.lines[at].is_plugged));
        self.gateway.plug(at, &mut self.context);
    }

    /// Takes a device away from the gateway by command, or gives it back.
    fn remove_or_add(&mut self, at: usize) {
        if !self.devices[at].is_added || !self.gateway.is_running() {
            return;
        }
        if self.gateway.serves(at) {
            self.context.check.device_removed(at);
            self.gateway.remove(at, &mut self.context);
        } else {
            self.gateway.add(self.devices[at].record(), &mut self.context);
        }
    }

    /// Cuts every connection; the ends learn of it by themselves, soon or late.
    fn cut_all(&mut self) {
        for connection in self.context.network.alive() {
            self.context.network.cut(connection);
            let late = |dice: &mut Dice| if dice.percent(60) { dice.between(1, 500) } else { dice.between(1, 40_000) };
            let (gateway, service) = (late(&mut self.context.dice), late(&mut self.context.dice));
            // A path that only forgets tells nobody.
            if self.context.dice.percent(85) {
                self.context.after(gateway, Event::Gateway(GatewayEvent::Left { connection }));
            }
            self.context.after(service, Event::ServiceLeft { connection });
        }
    }

    fn crash_gateway(&mut self) {
        self.cut_all();
        self.gateway.crash(&mut self.context);
        let pause = self.context.dice.between(10, 30_000);
        self.context.after(pause, Event::Gateway(GatewayEvent::Start));
    }

    fn crash_service(&mut self) {
        self.cut_all();
        self.service.crash(&mut self.context);
        let pause = self.context.dice.between(10, 30_000);
        self.context.after(pause, Event::Service(ServiceEvent::Start));
    }

    /// From now on everything works.
    pub(super) fn heal(&mut self) {
        self.context.is_healed = true;
        self.context.trace(|| "healed".to_owned());
        self.context.weather = Weather { latency_ms_max: 10, ..Weather::default() };
        self.mend();
    }

    /// What is down or away comes back.
    fn mend(&mut self) {
        let context = &mut self.context;
        context.network.is_up = true;
        self.service.start(context);
        self.gateway.start(context);
        self.gateway.want(Urgency::VeryLow, context);
        for at in 0..self.devices.len() {
            if !self.context.lines[at].is_plugged {
                self.plug(at);
            }
            let (context, device) = (&mut self.context, &mut self.devices[at]);
            (device.stalled_until, device.work_ms_max, device.capacity) = (0, 20, 16);
            device.wake_up(context);
            device.start(context);
            if !self.gateway.serves(at) {
                self.gateway.add(device.record(), context);
            }
        }
    }
}

fn draw(climate: Climate, dice: &mut Dice) -> Operation {
    let tables: &[&[(u64, Operation)]] = match climate {
        Climate::Calm => &[CALM],
        Climate::Devices => &[DEVICES],
        Climate::Network => &[NETWORK],
        Climate::Storm => &[DEVICES, NETWORK],
        Climate::Month(_) => return month::draw(dice),
    };
    if climate == Climate::Storm && dice.permille(5) {
        return Operation::Wipe;
    }
    let table = *dice.pick(tables);
    let mut drawn = dice.below(table.iter().map(|(weight, _)| weight).sum());
    for (weight, operation) in table {
        if drawn < *weight {
            return *operation;
        }
        drawn -= weight;
    }
    Operation::Send
}

fn encrypt(told: &Told, plaintext: &[u8], is_real: bool, context: &mut Context) -> Bytes {
    if is_real {
        let encoded = ece::encode(&told.p256dh, &told.auth, plaintext, 0, &mut context.dice.0);
        return encoded.expect("a device passes on valid keys").into();
    }
    let (before, behind) = COVER_BYTES;
    [&vec![0; before], plaintext, &vec![0; behind]].concat().into()
}
