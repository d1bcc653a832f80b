//! The gateway: [`proto::Gateway`](fieldgate::proto::Gateway) with the shells of its flash, its links and its
//! connections.

#[path = "perform.rs"]
mod perform;

use std::collections::{BTreeMap, VecDeque};

use fieldgate::limits::{
    ACKED_COUNT_MAX, DELIVERY_SLOT_COUNT, STORE_QUEUE_COUNT, SUBSCRIPTION_COUNT_MAX, UNDELIVERABLE_URI_COUNT_MAX,
};
use fieldgate::proto::connection::Trouble;
use fieldgate::proto::record::{DeviceRecord, Record};
use fieldgate::proto::status::Status;
use fieldgate::proto::{self, Input};
use fieldgate::random::SeededRandom;
use fieldgate::time::{ClockReading, Instant, UnixTime};
use fieldgate::webpush::headers::Urgency;
use fieldgate::webpush::resource::PushServiceUri;
use fieldgate::wire::{ChannelId, DeviceId, Refusal, ToGateway};

use super::application::ApplicationServer;
use super::device::Device;
use super::network::Down;
use super::plan::{Climate, Plan};
use super::pump::{Heard, Pump};
use super::upstream::{ORIGIN, Upstream};
use super::{Context, Dice, Event, Fault, WALL_S};

/// The connection in use, one that it replaces, and an attempt.
pub(super) const CONNECTION_COUNT_MAX: usize = 3;
/// Octets that encryption adds in front and behind; the cheap decoder takes as many away.
pub(super) const COVER_BYTES: (usize, usize) = (86, 17);

/// What happens inside the gateway.
pub(super) enum GatewayEvent {
    Start,
    /// A task of the upstream shell reports.
    Report {
        connection: u64,
        input: Input,
    },
    Dialed {
        connection: u64,
        streams_max: Option<usize>,
    },
    /// The gateway learns that a connection is gone.
    Left {
        connection: u64,
    },
    RequestLate {
        connection: u64,
        stream: u32,
    },
    BodyLate {
        connection: u64,
        stream: u32,
    },
    /// The oldest write is done.
    Stored {
        life: u32,
    },
    Decoded {
        life: u32,
        input: Input,
    },
    /// An announcement was answered.
    Announced {
        life: u32,
        input: Input,
    },
    /// A pump reports.
    Heard {
        life: u32,
        device: usize,
        heard: Heard,
    },
}

/// A write to flash, of all changes or none: keys with their values, removal if there is none.
struct Write {
    ticket: u64,
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The process, its configuration and its flash.
pub(super) struct Gateway {
    core: Option<proto::Gateway>,
    epoch: u64,
    /// When the machine has something to do by itself; looked up once after each turn, since most steps are others'.
    due: Option<u64>,
    life: u32,
    random: SeededRandom,
    ids: Vec<DeviceId>,
    /// Devices of the configuration; the others were added by command and are stored.
    configured: Vec<DeviceRecord>,
    added: Vec<DeviceRecord>,
    flash: BTreeMap<Vec<u8>, Vec<u8>>,
    writes: VecDeque<Write>,
    /// By their number in the network.
    upstreams: BTreeMap<u64, Upstream>,
    connection_count: u64,
    /// Connections of earlier lives.
    connection_base: u64,
    pumps: BTreeMap<usize, Pump>,
    session_count: u32,
    heard_at: u64,
    drained: u32,
    is_decoder_real: bool,
    is_calm: bool,
    application: Option<ApplicationServer>,
}

impl Gateway {
    pub fn new(plan: &Plan, devices: &[Device], application: Option<ApplicationServer>, dice: &mut Dice) -> Self {
        let (added, configured): (Vec<_>, Vec<_>) = devices.iter().partition(|device| device.is_added);
        let records = |devices: Vec<&Device>| devices.into_iter().map(Device::record).collect();
        Self {
            core: None,
            epoch: 0,
            due: None,
            life: 0,
            random: dice.source(),
            ids: devices.iter().map(|device| device.id.clone()).collect(),
            configured: records(configured),
            added: records(added),
            flash: BTreeMap::new(),
            writes: VecDeque::new(),
            upstreams: BTreeMap::new(),
            connection_count: 0,
            connection_base: 0,
            pumps: BTreeMap::new(),
            session_count: 0,
            heard_at: 0,
            drained: 0,
            is_decoder_real: plan.is_decoder_real,
            is_calm: plan.climate == Climate::Calm,
            application,
        }
    }

    /// Starts the process from its configuration and its flash.
    pub fn start(&mut self, context: &mut Context) {
        if self.core.is_some() {
            return;
        }
        self.life += 1;
        self.epoch = context.now;
        self.session_count = 0;
        self.connection_base = self.connection_count;
        context.check.gateway_started();
        context.trace(|| format!("gateway starts with {} records", self.flash.len()));
        let service = PushServiceUri::parse(&format!("{ORIGIN}/subscribe")).expect("valid");
        let random = SeededRandom::new(self.random.next_u64());
        let mut core = proto::Gateway::new(service, Box::new(random), Instant::ZERO);
        if let Some(application) = &mut self.application {
            core.announce_to("https://app.example/".to_owned());
            application.is_asked = false;
        }
        self.core = Some(core);
        let mut stored = Vec::new();
        for (key, value) in self.flash.clone() {
            match Record::decode(&key, &value).expect("flash gives back what was written") {
                Record::Device(device) => stored.push(device),
                record => self.feed(Input::Restored(record), context),
            }
        }
        for device in self.configured.clone() {
            self.take_up(device, false, context);
        }
        for device in stored {
            self.take_up(device, false, context);
        }
        self.feed(Input::Started, context);
        if self.life == 1 {
            for device in self.added.clone() {
                self.take_up(device, true, context);
            }
        }
    }

    /// Ends the process; of the writes under way the first ones may be on flash.
    pub fn crash(&mut self, context: &mut Context) {
        if self.core.take().is_none() {
            return;
        }
        let done = context.dice.below(self.writes.len() as u64 + 1);
        for _ in 0..done {
            self.write_next();
        }
        self.writes.clear();
        self.pumps.clear();
        self.due = None;
        self.upstreams.clear();
        context.trace(|| "gateway crashes".to_owned());
    }

    pub fn is_running(&self) -> bool {
        self.core.is_some()
    }

    pub fn status(&self) -> Option<Status> {
        self.core.as_ref().map(proto::Gateway::status)
    }

    /// Records on flash, and streams of the shell.
    pub fn stock(&self) -> (usize, usize) {
        (self.flash.len(), self.upstreams.values().map(|upstream| 1 + upstream.streams()).sum())
    }

    /// Where messages for a channel are posted.
    pub fn posted_at(&self, device: usize, channel: ChannelId) -> Option<String> {
        let subscription = self.core.as_ref()?.push_subscription(&self.ids[device], Some(channel))?;
        Some(subscription.endpoint.as_str().to_owned())
    }

    /// Where messages for all channels are posted.
    pub fn all_posted_at(&self) -> BTreeMap<(String, u16), String> {
        let status = self.status();
        let devices = status.iter().flat_map(|status| &status.devices);
        let channels = devices.flat_map(|device| device.channels.iter().map(|channel| (&device.id, channel.channel)));
        let posted = channels.filter_map(|(device, channel)| {
            let index = self.ids.iter().position(|id| id.as_str() == device)?;
            Some(((device.clone(), channel), self.posted_at(index, ChannelId(channel))?))
        });
        posted.collect()
    }

    /// What the application server knows, if there is one.
    pub fn application_knows(&self) -> Option<&BTreeMap<(String, u16), String>> {
        self.application.as_ref().map(ApplicationServer::known)
    }

    /// Adds a device by command.
    pub fn add(&mut self, device: DeviceRecord, context: &mut Context) {
        if self.core.is_some() {
            self.take_up(device, true, context);
        }
    }

    /// Removes a device by command.
    pub fn remove(&mut self, device: usize, context: &mut Context) {
        if self.core.is_some() && self.pumps.remove(&device).is_some() {
            self.feed(Input::DeviceRemoved(self.ids[device].clone()), context);
        }
    }

    /// Gives a device other push URIs by command.
    pub fn rotate(&mut self, device: usize, context: &mut Context) {
        let input = Input::RotationAsked { device: self.ids[device].clone(), channel: None };
        self.feed(input, context);
    }

    /// From now on messages that matter less are not wanted.
    pub fn want(&mut self, urgency: Urgency, context: &mut Context) {
        self.feed(Input::UrgencyWanted(urgency), context);
    }

    /// Whether a device is served.
    pub fn serves(&self, device: usize) -> bool {
        self.pumps.contains_key(&device)
    }

    fn take_up(&mut self, record: DeviceRecord, lasting: bool, context: &mut Context) {
        let index = self.ids.iter().position(|id| *id == record.id).expect("one of the devices");
        let mut pump = Pump::new(index, record.id.clone(), self.epoch);
        self.feed(Input::DeviceAdded { device: record, lasting }, context);
        if context.lines[index].is_plugged {
            pump.plugged(context.lines[index], context);
        }
        self.pumps.insert(index, pump);
    }

    /// Looks at what can be counted.
    pub fn look(&self, context: &mut Context) {
        let Some(status) = self.status() else { return };
        context.check.bound("messages in flight", status.in_flight, DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX);
        context.check.bound("writes in flight", status.persisting, STORE_QUEUE_COUNT);
        context.check.bound("monitors", status.monitors, SUBSCRIPTION_COUNT_MAX);
        context.check.bound("undeliverable URIs", status.undeliverable_known, UNDELIVERABLE_URI_COUNT_MAX);
    }

    pub fn wake(&self) -> Option<u64> {
        self.due
    }

    pub fn handle_timeout(&mut self, context: &mut Context) {
        let now = self.now(context);
        if let Some(core) = &mut self.core {
            core.handle_timeout(now);
            self.drained = 0;
            self.drain(context);
        }
    }

    pub fn happen(&mut self, event: GatewayEvent, context: &mut Context) {
        match event {
            GatewayEvent::Start => self.start(context),
            _ if self.core.is_none() => {}
            GatewayEvent::Report { connection, input } if self.upstreams.contains_key(&connection) => {
                self.feed(input, context);
            }
            GatewayEvent::Dialed { connection, streams_max } => self.dialed(connection, streams_max, context),
            GatewayEvent::Left { connection } => self.left(connection, context),
            GatewayEvent::RequestLate { connection, stream } => {
                if let Some(upstream) = self.upstreams.get_mut(&connection) {
                    upstream.request_late(stream, context);
                }
            }
            GatewayEvent::BodyLate { connection, stream } => {
                if let Some(upstream) = self.upstreams.get_mut(&connection) {
                    upstream.body_late(stream, context);
                }
            }
            GatewayEvent::Stored { life } if life == self.life => self.stored(context),
            GatewayEvent::Decoded { life, input } if life == self.life => self.feed(input, context),
            GatewayEvent::Announced { life, input } if life == self.life => {
                self.application.iter_mut().for_each(|application| application.is_asked = false);
                self.feed(input, context);
            }
            GatewayEvent::Heard { life, device, heard } if life == self.life => self.heard(device, heard, context),
            // Of an earlier connection or life.
            _ => {}
        }
    }

    /// Takes a frame of the service.
    pub fn hear(&mut self, connection: u64, frame: Down, context: &mut Context) {
        if self.core.is_some()
            && let Some(upstream) = self.upstreams.get_mut(&connection).filter(|upstream| upstream.is_up())
            && let Some(input) = upstream.hear(frame, context)
        {
            context.after(0, Event::Gateway(GatewayEvent::Report { connection, input }));
        }
    }

    pub fn pumps(&self) -> impl Iterator<Item = (usize, &Pump)> {
        self.pumps.iter().map(|(index, pump)| (*index, pump))
    }

    pub fn pump_timeout(&mut self, device: usize, context: &mut Context) {
        let line = context.lines[device];
        let heard = self.pumps.get_mut(&device).and_then(|pump| pump.handle_timeout(line, context));
        self.report(device, heard, context);
    }

    pub fn octets(&mut self, device: usize, octets: &[u8], context: &mut Context) {
        let (line, sessions) = (context.lines[device], &mut self.session_count);
        let Some(pump) = self.pumps.get_mut(&device) else { return };
        let heard = pump.feed(octets, line, sessions, context);
        self.report(device, heard, context);
    }

    pub fn line_free(&mut self, device: usize, context: &mut Context) {
        let line = context.lines[device];
        if let Some(pump) = self.pumps.get_mut(&device) {
            pump.line_free(line, context);
        }
    }

    /// A line was plugged in or pulled out.
    pub fn plug(&mut self, device: usize, context: &mut Context) {
        let line = context.lines[device];
        let Some(pump) = self.pumps.get_mut(&device) else { return };
        let heard = pump.unplugged();
        if line.is_plugged {
            pump.plugged(line, context);
        }
        self.report(device, heard, context);
    }

    /// Passes on what pumps report, in the order in which they do.
    fn report(&mut self, device: usize, heard: impl IntoIterator<Item = Heard>, context: &mut Context) {
        for heard in heard {
            self.heard_at = self.heard_at.max(context.now + context.dice.below(3));
            let event = GatewayEvent::Heard { life: self.life, device, heard };
            context.at(self.heard_at, Event::Gateway(event));
        }
    }

    /// The network is another one.
    pub fn path_changed(&mut self, context: &mut Context) {
        self.feed(Input::PathChanged, context);
    }

    fn dialed(&mut self, connection: u64, streams_max: Option<usize>, context: &mut Context) {
        let Some(upstream) = self.upstreams.get_mut(&connection) else { return };
        let id = upstream.id();
        let Some(streams_max) = streams_max else {
            self.upstreams.remove(&connection);
            return self.feed(Input::ConnectionClosed { connection: id, trouble: Trouble::Network }, context);
        };
        upstream.up(streams_max);
        if !context.network.carries(connection) {
            context.after(1, Event::Gateway(GatewayEvent::Left { connection }));
        }
        context.trace(|| format!("gateway: connection {connection} is up"));
        self.feed(Input::ConnectionReady { connection: id, streams_max }, context);
        let clock = ClockReading { wall_ms: WALL_S * 1_000 + context.now, is_synchronised: true };
        let not_after = UnixTime(u64::MAX);
        self.feed(Input::Dated { connection: id, date: None, not_after, clock }, context);
    }

    fn left(&mut self, connection: u64, context: &mut Context) {
        if let Some(upstream) = self.upstreams.remove(&connection) {
            context.trace(|| format!("gateway: connection {connection} is gone"));
            self.feed(Input::ConnectionClosed { connection: upstream.id(), trouble: Trouble::Ended }, context);
        }
    }

    fn heard(&mut self, index: usize, heard: Heard, context: &mut Context) {
        let device = self.ids[index].clone();
        let input = match heard {
            Heard::Up { session, message_bytes_max, in_flight_max } => {
                Input::DeviceUp { device, session, message_bytes_max, in_flight_max }
            }
            Heard::Down { session } => Input::DeviceDown { device, session },
            Heard::Silent { session } => Input::DeviceSilent { device, session },
            Heard::Message(ToGateway::Ack { message }) => {
                context.check.device_acked(index, message);
                let another = context.check.another_relayed(index, message);
                let is_confused = context.fault == Some(Fault::AcknowledgesAnother);
                let message = another.filter(|_| is_confused).unwrap_or(message);
                Input::DeviceAck { device, message }
            }
            Heard::Message(ToGateway::Refuse { message, reason }) => {
                Input::DeviceRefused { device, message, later: reason == Refusal::Full }
            }
            Heard::Message(ToGateway::Subscribe { channel }) => Input::Subscribe { device, channel },
            Heard::Message(ToGateway::Unsubscribe { channel }) => Input::Unsubscribe { device, channel },
            Heard::Message(ToGateway::Rotate { channel }) => Input::Rotate { device, channel },
            Heard::Message(ToGateway::Sleep { seconds }) => Input::DeviceAsleep { device, seconds },
            Heard::Message(ToGateway::Awake) => Input::DeviceAwake { device },
            Heard::Message(ToGateway::Ask) => Input::StatusAsked { device },
            Heard::Message(ToGateway::Attach { .. }) => return,
        };
        context.trace(|| format!("gateway hears of {}: {input:?}", self.ids[index]));
        self.feed(input, context);
    }

    fn feed(&mut self, input: Input, context: &mut Context) {
        let now = self.now(context);
        let Some(core) = &mut self.core else { return };
        core.handle_input(input, now);
        self.drained = 0;
        self.drain(context);
    }

    fn now(&self, context: &Context) -> Instant {
        Instant::from_millis(context.now - self.epoch)
    }
}
