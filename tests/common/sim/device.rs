//! A device: its firmware with a [`Device`](fieldgate::link::device::Device), and an application that is slow, full,
//! forgetful or away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldgate::limits::{DEVICE_SEEN_COUNT, LINK_MESSAGE_BYTES_MAX, LINK_MTU_BYTES_MAX};
use fieldgate::link::device::{self, Event as Heard, Received};
use fieldgate::link::memory::{DeviceMemory, Memory};
use fieldgate::link::{Config, SendError};
use fieldgate::proto::device::{LinkOptions, Options, PendingAcks};
use fieldgate::proto::record::DeviceRecord;
use fieldgate::time::Instant;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, Refusal, Role, ToDevice, ToGateway};

use super::line::{Lane, Line};
use super::plan::{Climate, Plan};
use super::sleep::Nap;
use super::{Context, Dice, Event, Fault};

/// Ids that a device remembers which keeps its ids.
pub(super) const KEPT_IDS: usize = 256;
/// Octets of the largest message of a small device.
pub(super) const SMALL_BYTES: usize = 600;
/// Room for the largest message, and for one more of the urgent stream.
type Large = DeviceMemory<LINK_MTU_BYTES_MAX, { LINK_MESSAGE_BYTES_MAX + 2 }, { LINK_MESSAGE_BYTES_MAX + 2 }, 512>;
/// Room for little.
type Small = DeviceMemory<LINK_MTU_BYTES_MAX, { SMALL_BYTES + 2 }, 64, 512>;
/// How long an application waits before it asks again for a subscription.
const ASK_AGAIN_MS: u64 = 20_000;

/// What a device is like for ever.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Whether the ids of messages outlive a reset.
    pub keeps_ids: bool,
    /// Ids it remembers.
    pub seen_count: usize,
    /// Octets of the largest message it takes.
    pub message_bytes_max: usize,
}

/// What happens at a device.
pub(super) enum DeviceEvent {
    /// The power is back.
    Start,
    /// The application has dealt with a message.
    Kept { boot: u32 },
    /// The application looks which subscriptions it lacks.
    Ask { boot: u32 },
    /// The firmware reads its port again.
    Hears,
    /// It has slept long enough.
    Wakes { nap: u32 },
}

/// Whether a device sleeps.
enum Sleep {
    No,
    /// It will, once it has nothing to do.
    Wanted {
        nap: Nap,
        /// The last word is that.
        is_said: bool,
    },
    /// It is switched off but for its memory.
    Off {
        loses_session: bool,
    },
}

/// The firmware, whatever its capacities.
trait Firmware {
    fn feed(&mut self, octets: &[u8], now: Instant) -> (usize, Option<Heard>);
    fn poll_message(&mut self) -> Option<Received<'_>>;
    fn remember(&mut self, message: MessageId);
    fn accept(&mut self, message: MessageId);
    fn refuse(&mut self, message: MessageId, reason: Refusal) -> Result<(), SendError>;
    fn send(&mut self, message: &ToGateway) -> Result<(), SendError>;
    fn is_idle(&self) -> bool;
    fn subscribe(&mut self, channel: ChannelId) -> Result<(), SendError>;
    fn unsubscribe(&mut self, channel: ChannelId) -> Result<(), SendError>;
    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn handle_timeout(&mut self, now: Instant) -> Option<Heard>;
}

impl<M: Memory, const SEEN: usize> Firmware for device::Device<M, SEEN> {
    fn feed(&mut self, octets: &[u8], now: Instant) -> (usize, Option<Heard>) {
        self.feed(octets, now)
    }
    fn poll_message(&mut self) -> Option<Received<'_>> {
        self.poll_message()
    }
    fn remember(&mut self, message: MessageId) {
        self.remember(message);
    }
    fn accept(&mut self, message: MessageId) {
        self.accept(message);
    }
    fn refuse(&mut self, message: MessageId, reason: Refusal) -> Result<(), SendError> {
        self.refuse(message, reason)
    }
    fn send(&mut self, message: &ToGateway) -> Result<(), SendError> {
        self.send(message)
    }
    fn is_idle(&self) -> bool {
        self.is_idle()
    }
    fn subscribe(&mut self, channel: ChannelId) -> Result<(), SendError> {
        self.subscribe(channel)
    }
    fn unsubscribe(&mut self, channel: ChannelId) -> Result<(), SendError> {
        self.unsubscribe(channel)
    }
    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit(now, out)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Instant) -> Option<Heard> {
        self.handle_timeout(now)
    }
}

/// Where an application server sends, as the application told it.
#[derive(Clone)]
pub(super) struct Told {
    pub push: String,
    pub p256dh: Vec<u8>,
    pub auth: Vec<u8>,
}

/// What the application does not have yet, by the id of the message.
struct Pending(MessageId);

pub(super) struct Device {
    index: usize,
    pub id: DeviceId,
    pub traits: Traits,
    /// Whether the gateway knows it by command and not by configuration.
    pub is_added: bool,
    configured_channels: Vec<ChannelId>,
    firmware: Option<Box<dyn Firmware>>,
    first_line: Line,
    lane: Lane,
    epoch: u64,
    boot: u32,
    is_up: bool,
    is_deaf: bool,
    sleep: Sleep,
    nap_count: u32,
    /// What it was told in this session of what waits for it.
    pub waiting: Option<u8>,
    /// Channels the application wants, and where messages for them are sent.
    wanted: BTreeSet<ChannelId>,
    told: BTreeMap<ChannelId, Told>,
    inbox: VecDeque<Pending>,
    is_busy: bool,
    /// What the application can hold, and how long it takes for one message.
    pub capacity: usize,
    pub work_ms_max: u64,
    pub stalled_until: u64,
    /// Ids on its flash, the newest last.
    kept_ids: VecDeque<MessageId>,
}

impl Device {
    pub fn draw(index: usize, plan: &Plan, dice: &mut Dice) -> Self {
        let climate = plan.climate;
        let is_odd = climate != Climate::Calm && dice.percent(40);
        let keeps_ids = !is_odd || dice.percent(50);
        let is_small = is_odd && dice.percent(40) && !plan.is_month();
        let message_bytes_max = if is_small { SMALL_BYTES } else { LINK_MESSAGE_BYTES_MAX };
        let seen_count = if keeps_ids { KEPT_IDS } else { DEVICE_SEEN_COUNT };
        let channels =
            (1..=dice.between(1, plan.channels_max)).map(|number| ChannelId(number as u16)).collect::<BTreeSet<_>>();
        let octets_per_s = *dice.pick(&[11_520, 11_520, 100_000, 1_000_000]);
        let mtu = *dice.pick(&[64, 128, 256, 256, 512, 1_024]);
        Self {
            index,
            id: format!("device-{index}").parse().expect("an id"),
            traits: Traits { keeps_ids, seen_count, message_bytes_max },
            is_added: dice.percent(30),
            configured_channels: channels.iter().copied().filter(|_| dice.percent(50)).collect(),
            firmware: None,
            first_line: Line { octets_per_s, mtu, plug: 0, is_plugged: true },
            lane: Lane::default(),
            epoch: 0,
            boot: 0,
            is_up: false,
            is_deaf: false,
            sleep: Sleep::No,
            nap_count: 0,
            waiting: None,
            wanted: channels,
            told: BTreeMap::new(),
            inbox: VecDeque::new(),
            is_busy: false,
            capacity: 16,
            work_ms_max: *dice.pick(&[1, 20, 400]),
            stalled_until: 0,
            kept_ids: VecDeque::new(),
        }
    }

    pub fn line(&self) -> Line {
        self.first_line
    }

    pub fn record(&self) -> DeviceRecord {
        DeviceRecord {
            id: self.id.clone(),
            link: format!("unix:/run/{}.sock", self.id),
            channels: self.configured_channels.clone(),
            mtu: self.first_line.mtu as u16,
            options: Options { pending_acks: self.pending_acks(), link: self.link_options(), ..Options::default() },
        }
    }

    /// Every other device acts on what it gets.
    fn pending_acks(&self) -> PendingAcks {
        if self.index.is_multiple_of(2) { PendingAcks::Auto } else { PendingAcks::Flash }
    }

    /// As many messages are kept as by default for some, and none, one or all for others.
    fn link_options(&self) -> LinkOptions {
        let default = LinkOptions::default();
        LinkOptions { hold_for_sleep: [default.hold_for_sleep, 8, 0, 1][self.index % 4], ..default }
    }

    /// The channels that should have a subscription at the end.
    pub fn subscriptions(&self) -> impl Iterator<Item = (usize, ChannelId, Option<&Told>)> {
        self.wanted.iter().map(|channel| (self.index, *channel, self.told.get(channel)))
    }

    /// Somewhere to send to.
    pub fn told(&self, dice: &mut Dice) -> Option<Told> {
        let all: Vec<&Told> = self.told.values().collect();
        if all.is_empty() { None } else { Some((*dice.pick(&all)).clone()) }
    }

    /// Starts the firmware, with a boot id never used before.
    pub fn start(&mut self, context: &mut Context) {
        if self.firmware.is_some() {
            return;
        }
        self.boot += 1;
        self.epoch = context.now;
        let boot_id = self.boot * 1_000_000 + context.dice.below(1_000) as u32;
        let config = Config { role: Role::Device, boot_id, mtu: self.first_line.mtu };
        let mut firmware = self.make(config);
        for message in &self.kept_ids {
            firmware.remember(*message);
        }
        self.firmware = Some(firmware);
        self.lane = Lane::default();
        context.trace(|| format!("{} starts", self.id));
        self.transmit(context);
    }

    fn make(&self, config: Config) -> Box<dyn Firmware> {
        let id = self.id.clone();
        match (self.traits.keeps_ids, self.traits.message_bytes_max) {
            (true, SMALL_BYTES) => Box::new(device::Device::<Small, KEPT_IDS>::new(id, config, Instant::ZERO)),
            (false, SMALL_BYTES) => {
                Box::new(device::Device::<Small, DEVICE_SEEN_COUNT>::new(id, config, Instant::ZERO))
            }
            (true, _) => Box::new(device::Device::<Large, KEPT_IDS>::new(id, config, Instant::ZERO)),
            (false, _) => Box::new(device::Device::<Large, DEVICE_SEEN_COUNT>::new(id, config, Instant::ZERO)),
        }
    }

    /// The power is gone: whatever the application had not kept is lost.
    pub fn stop(&mut self, context: &mut Context) {
        if self.firmware.take().is_none() {
            return;
        }
        self.inbox.clear();
        if self.is_off() {
            context.check.nap_ended(self.index, context.now);
        }
        (self.is_busy, self.is_up, self.sleep, self.waiting) = (false, false, Sleep::No, None);
        if !self.traits.keeps_ids || context.fault == Some(Fault::ForgetsIds) {
            self.kept_ids.clear();
        }
        if !self.traits.keeps_ids {
            context.check.forgot(self.index);
        }
        context.trace(|| format!("{} stops", self.id));
    }

    pub fn wake(&self) -> Option<u64> {
        let firmware = self.firmware.as_ref().filter(|_| !self.is_off())?;
        Some(self.epoch + firmware.poll_timeout()?.as_millis())
    }

    pub fn handle_timeout(&mut self, context: &mut Context) {
        let now = self.now(context);
        let event = self.firmware.as_mut().and_then(|firmware| firmware.handle_timeout(now));
        self.take(event, context);
        self.transmit(context);
    }

    pub fn happen(&mut self, event: DeviceEvent, context: &mut Context) {
        match event {
            DeviceEvent::Start => self.start(context),
            DeviceEvent::Kept { boot } if boot == self.boot => self.keep(context),
            DeviceEvent::Ask { boot } if boot == self.boot => self.ask(false, context),
            DeviceEvent::Hears => self.is_deaf = false,
            DeviceEvent::Wakes { nap } if nap == self.nap_count => self.wake_up(context),
            DeviceEvent::Kept { .. } | DeviceEvent::Ask { .. } | DeviceEvent::Wakes { .. } => {}
        }
        self.transmit(context);
    }

    /// The firmware does not read its port for a while.
    pub fn be_deaf(&mut self, ms: u64, context: &mut Context) {
        self.is_deaf = true;
        context.after(ms, Event::Device(self.index, DeviceEvent::Hears));
    }

    pub fn octets(&mut self, mut octets: &[u8], context: &mut Context) {
        let now = self.now(context);
        while !octets.is_empty() && !self.is_deaf && !self.is_off() {
            let Some(firmware) = &mut self.firmware else { return };
            let (taken, event) = firmware.feed(octets, now);
            octets = &octets[taken..];
            self.take(event, context);
        }
        self.transmit(context);
    }

    pub fn line_free(&mut self, context: &mut Context) {
        self.lane.freed();
        self.transmit(context);
    }

    /// The application wants one channel more, or one less; tells which.
    pub fn change_channel(&mut self, channel: ChannelId, context: &mut Context) {
        if self.is_off() {
            return;
        }
        if self.wanted.insert(channel) {
            context.trace(|| format!("{} wants channel {channel}", self.id));
            return self.ask(false, context);
        }
        let asked = self.firmware.as_mut().map(|firmware| firmware.unsubscribe(channel));
        if asked.is_some_and(|asked| asked.is_ok()) {
            context.trace(|| format!("{} leaves channel {channel}", self.id));
            self.spoke();
            self.wanted.remove(&channel);
            self.told.remove(&channel);
            context.check.left(self.index, channel);
            self.transmit(context);
        }
    }

    /// Asks for the subscriptions that the application does not know of, in a new session for all, and looks again later.
    fn ask(&mut self, is_new: bool, context: &mut Context) {
        let is_on = self.is_up && !self.is_off();
        let Some(firmware) = self.firmware.as_mut().filter(|_| is_on) else { return };
        let lacking: Vec<_> = self.wanted.iter().copied().filter(|it| is_new || !self.told.contains_key(it)).collect();
        for channel in &lacking {
            if firmware.subscribe(*channel).is_err() {
                break;
            }
        }
        if !lacking.is_empty() {
            self.spoke();
            let boot = self.boot;
            context.after(ASK_AGAIN_MS, Event::Device(self.index, DeviceEvent::Ask { boot }));
        }
    }

    fn take(&mut self, event: Option<Heard>, context: &mut Context) {
        match event {
            None => {}
            Some(Heard::Up { .. }) => {
                context.trace(|| format!("{} is up", self.id));
                self.is_up = true;
                self.ask(true, context);
            }
            Some(Heard::Down) => (self.is_up, self.sleep, self.waiting) = (false, Sleep::No, None),
            Some(Heard::Message) => while self.message(context) {},
            Some(Heard::VersionRefused(_)) => {}
        }
    }

    /// Takes the next message, if there is one.
    fn message(&mut self, context: &mut Context) -> bool {
        let Some(firmware) = &mut self.firmware else { return false };
        let message = match firmware.poll_message() {
            None => return false,
            Some(Received::Copy(message)) => {
                context.trace(|| format!("{} hears {message} again", self.id));
                self.spoke();
                return true;
            }
            Some(Received::New(message)) => message,
        };
        match message {
            ToDevice::Push { message, channel, body, .. } => {
                context.check.received(self.index, message, channel, body, context.now);
                self.put_in(message, context);
            }
            ToDevice::Subscribed { channel, push, p256dh, auth } if self.wanted.contains(&channel) => {
                let told = Told { push: push.to_owned(), p256dh: p256dh.to_vec(), auth: auth.to_vec() };
                context.check.told(self.index, channel, &told.push);
                context.trace(|| format!("{} is told of {}", self.id, told.push));
                self.told.insert(channel, told);
            }
            ToDevice::Unsubscribed { channel } if self.wanted.contains(&channel) => {
                // Word of an earlier wish, or the subscription ended: asked for again.
                self.told.remove(&channel);
                self.ask(false, context);
            }
            ToDevice::Subscribed { .. } | ToDevice::Unsubscribed { .. } | ToDevice::Refused { .. } => {}
            ToDevice::Status { waiting, .. } => self.waiting = Some(waiting),
        }
        true
    }

    /// The application takes a message in, unless it is full.
    fn put_in(&mut self, message: MessageId, context: &mut Context) {
        if self.inbox.iter().any(|pending| pending.0 == message) {
            return;
        }
        if self.inbox.len() >= self.capacity {
            context.check.refused_by_device();
            self.spoke();
            context.trace(|| format!("{} refuses {message}", self.id));
            if let Some(firmware) = &mut self.firmware
                && firmware.refuse(message, Refusal::Full).is_err()
            {
                context.trace(|| format!("{} says nothing about it", self.id));
            }
            return;
        }
        self.inbox.push_back(Pending(message));
        self.work(context);
    }

    fn work(&mut self, context: &mut Context) {
        if !self.is_busy && !self.inbox.is_empty() {
            self.is_busy = true;
            let rest = self.stalled_until.saturating_sub(context.now);
            let (pause, boot) = (rest + context.dice.between(0, self.work_ms_max), self.boot);
            context.after(pause, Event::Device(self.index, DeviceEvent::Kept { boot }));
        }
    }

    /// The application has the oldest message for good.
    fn keep(&mut self, context: &mut Context) {
        self.is_busy = false;
        let Some(Pending(message)) = self.inbox.pop_front() else { return };
        if self.kept_ids.len() == self.traits.seen_count {
            self.kept_ids.pop_front();
        }
        self.kept_ids.push_back(message);
        let number = context.check.kept(self.index, message);
        context.trace(|| format!("{} has message {number:?}", self.id));
        if let Some(firmware) = &mut self.firmware {
            firmware.accept(message);
        }
        self.spoke();
        self.work(context);
    }

    // Sleep.

    fn is_off(&self) -> bool {
        matches!(self.sleep, Sleep::Off { .. })
    }

    /// The device is to sleep as soon as it can.
    pub fn sleep(&mut self, nap: Nap, context: &mut Context) {
        if self.is_up && matches!(self.sleep, Sleep::No) {
            self.sleep = Sleep::Wanted { nap, is_said: false };
            self.transmit(context);
        }
    }

    /// The application asks how the gateway is.
    pub fn ask_status(&mut self, context: &mut Context) {
        self.say(&ToGateway::Ask, context);
    }

    /// The application asks for another subscription in place of one, which may be none.
    pub fn rotate(&mut self, dice: &mut Dice, context: &mut Context) {
        let channel = ChannelId(dice.between(1, 5) as u16);
        self.say(&ToGateway::Rotate { channel }, context);
    }

    fn say(&mut self, message: &ToGateway, context: &mut Context) {
        let is_on = self.is_up && !self.is_off();
        let said = self.firmware.as_mut().filter(|_| is_on).map(|firmware| firmware.send(message));
        context.trace(|| format!("{} says {message:?}: {said:?}", self.id));
        self.spoke();
        self.transmit(context);
    }

    /// What it said last is not that it sleeps.
    fn spoke(&mut self) {
        if let Sleep::Wanted { is_said, .. } = &mut self.sleep {
            *is_said = false;
        }
    }

    /// Says that it sleeps once it has nothing else to do, and switches off once the gateway's link has that.
    fn settle_down(&mut self, context: &mut Context) {
        let Sleep::Wanted { nap, is_said } = &mut self.sleep else { return };
        let Some(firmware) = self.firmware.as_mut().filter(|_| !self.is_busy && self.inbox.is_empty()) else { return };
        if !*is_said {
            *is_said = firmware.send(&ToGateway::Sleep { seconds: nap.seconds }).is_ok();
            let now = Instant::from_millis(context.now - self.epoch);
            let line = context.lines[self.index];
            self.lane.transmit(self.index, Role::Gateway, line, context, |frame| firmware.poll_transmit(now, frame));
        } else if firmware.is_idle() {
            context.trace(|| format!("{} sleeps: {nap:?}", self.id));
            self.nap_count += 1;
            let (away_ms, loses_session) = (nap.away_ms, nap.loses_session);
            self.sleep = Sleep::Off { loses_session };
            self.waiting = None;
            context.check.nap_began(self.index, context.now);
            context.after(away_ms, Event::Device(self.index, DeviceEvent::Wakes { nap: self.nap_count }));
        }
    }

    /// A sleeping device hears again, and says so unless it has lost its session; one that was about to sleep does not.
    pub fn wake_up(&mut self, context: &mut Context) {
        match std::mem::replace(&mut self.sleep, Sleep::No) {
            Sleep::No | Sleep::Wanted { is_said: false, .. } => return,
            Sleep::Wanted { is_said: true, .. } => {}
            sleep @ Sleep::Off { loses_session: true } => {
                self.sleep = sleep;
                self.stop(context);
                return self.start(context);
            }
            Sleep::Off { loses_session: false } => context.check.nap_ended(self.index, context.now),
        }
        self.say(&ToGateway::Awake, context);
        self.ask(false, context);
    }

    fn transmit(&mut self, context: &mut Context) {
        let (now, line) = (self.now(context), context.lines[self.index]);
        let is_off = self.is_off();
        let Some(firmware) = self.firmware.as_mut().filter(|_| !is_off) else { return };
        self.lane.transmit(self.index, Role::Gateway, line, context, |frame| firmware.poll_transmit(now, frame));
        self.settle_down(context);
    }

    fn now(&self, context: &Context) -> Instant {
        Instant::from_millis(context.now - self.epoch)
    }
}
