//! The event loop: owns the machine, the store and both shells, and joins them.
//!
//! One input, then all outputs, then the next input. Decrypting, the one long computation, happens at most once a
//! round, and the loop yields after it: one thread serves every device.

mod reload;
mod report;
pub mod supervisor;
mod surroundings;
mod wear;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval_at, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use self::reload::Reloaded;
use self::report::{Report, status_line};
use self::supervisor::{News, Order, Supervisor};
use self::surroundings::Surroundings;
use self::wear::FlashUse;
use crate::announce::{self, Announcer};
use crate::config::urgency::Power;
use crate::config::{self, Config};
use crate::control::{Answer, Asked, Control, Request};
use crate::downstream::{self, Downstream, SendError};
use crate::kernel;
use crate::limits::{DEVICE_COUNT_MAX, RESET_LINGER_MS, STORE_CLOSE_MS_MAX, SURROUNDINGS_LOOK_S};
use crate::proto::device::Options;
use crate::proto::record::{DeviceRecord, Record, Unreadable};
use crate::proto::status::ChannelStatus;
use crate::proto::{Change, Gateway, Input, Output, Reply};
use crate::random::SystemRandom;
use crate::store::{self, Damage, Replay, Store, StoreError, file};
use crate::telemetry::{Fingerprints, Kind};
use crate::time::Instant;
use crate::transport::clock::{BUILT, WallClock};
use crate::transport::credential::{Credential, CredentialError};
use crate::transport::endpoint::{LinkEndpoint, RemoteEndpoint};
use crate::transport::path::PathMonitor;
use crate::transport::properties::{SecurityParameters, Trust};
use crate::transport::stack::tcp_tls::TcpTls;
use crate::transport::trust::TrustError;
use crate::upstream::{Service, Upstream};
use crate::webpush::ece;
use crate::webpush::headers::http_date;
use crate::webpush::resource::{InvalidResource, PushServiceUri};
use crate::wire::message::Age;
use crate::wire::{ChannelId, DeviceId, Refusal, ToDevice, ToGateway};

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A push service cannot be used.
    PushService {
        /// The setting that it is about.
        key: String,
        /// Why.
        error: ServiceError,
    },
    /// The state cannot be read.
    Store(StoreError),
    /// The control socket cannot be made.
    Control(PathBuf, io::Error),
}

/// Why a push service cannot be used.
#[derive(Debug)]
pub enum ServiceError {
    /// Its URL is none.
    Url(InvalidResource),
    /// Its certificate could not be verified.
    Trust(TrustError),
    /// The credential for it cannot be used.
    Credential(CredentialError),
    /// A folder cannot be used.
    Folder(PathBuf, io::Error),
}

/// Where a device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Configured,
    Stored,
    Command,
}

/// A device as the shell knows it.
struct Known {
    device: config::Device,
    origin: Origin,
    /// The number of its session, while one is open.
    session: Option<u32>,
    /// What its link does, for a person.
    link: String,
}

struct Shell {
    /// What is in effect.
    config: Config,
    reloaded: Reloaded,
    core: Gateway,
    upstream: Upstream,
    announcer: Option<Announcer>,
    downstream: Downstream,
    store: Store,
    clock: WallClock,
    start: TokioInstant,
    /// How long the machine had been suspended by then.
    suspended_at_start: Duration,
    /// Whether the clock was synchronised when it was looked at last.
    was_synchronised: Option<bool>,
    devices: BTreeMap<DeviceId, Known>,
    /// What was decrypted in the last round.
    decoded: Option<Input>,
    /// What was lost of the state, found when it was read.
    damage: Option<String>,
    /// Why the last change of the state is not on flash.
    write_failure: Option<String>,
    /// Who waits for a device to be added or removed for good: no more than the control socket serves at once.
    unstored: Vec<(DeviceId, oneshot::Sender<Answer>)>,
    fingerprints: Fingerprints,
    surroundings: Surroundings,
    /// Power and whether the network costs, as they were last.
    circumstances: Option<(Power, bool)>,
    flash: FlashUse,
    /// Another gateway is being left alone.
    was_displaced: bool,
}

/// Runs the gateway until its supervisor ends it, who hears that it is ready once the state is read and links are
/// served: whether the push service can be reached or not.
///
/// # Errors
/// [`StartError`]; once it serves, it goes on whatever happens.
pub async fn run(config: Config, supervisor: impl Supervisor) -> Result<(), StartError> {
    run_with(config, supervisor, WallClock::default(), Store::open).await
}

/// The same with another wall clock than the kernel's, and with the state on another medium than the folder.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    mut supervisor: impl Supervisor,
    clock: WallClock,
    open: impl FnOnce(&Path) -> Result<(Store, Replay), StoreError>,
) -> Result<(), StartError> {
    let (mut shell, mut control) = Shell::start(config, clock, open)?;
    let mut path = path_monitor();
    let mut report = Report::new(&supervisor, shell.start);
    // Before the first request there is: what it asks for depends on it.
    shell.look();
    let pause = Duration::from_secs(SURROUNDINGS_LOOK_S);
    let mut look = interval_at(shell.start + pause, pause);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    info!(devices = shell.devices.len(), service = shell.service(), "ready");
    supervisor.tell(News::Ready);
    loop {
        shell.drain();
        report.round(&shell, &mut supervisor);
        let wake = shell.core.poll_timeout().map(|(at, _)| shell.awake_at(at));
        if shell.core.reset_left() == Some(0) {
            linger(&mut shell, &mut control).await;
            break;
        }
        if let Some(input) = shell.decoded.take() {
            tokio::task::yield_now().await;
            shell.feed(input);
            continue;
        }
        tokio::select! {
            order = supervisor.order() => match order {
                Order::Stop => break,
                Order::Reset => shell.feed(Input::ResetAsked),
                Order::Reload(config) => {
                    shell.reload(config.map(|config| *config));
                    report.reloaded(&mut supervisor);
                }
            },
            input = shell.upstream.next() => shell.feed(input),
            event = shell.downstream.next() => shell.heard(event),
            persisted = shell.store.next() => shell.persisted(persisted),
            (number, outcome) = announce::next(&mut shell.announcer) => {
                shell.feed(Input::Announced { number, outcome });
            }
            asked = control.next() => shell.asked(asked),
            () = path_changed(&mut path) => {
                shell.feed(Input::PathChanged);
                shell.look();
            }
            _ = look.tick() => shell.look(),
            () = sleep_until(wake.unwrap_or(shell.start)), if wake.is_some() => shell.core.handle_timeout(shell.now()),
            () = report.due() => {}
        }
    }
    info!("stopping");
    supervisor.tell(News::Stopping);
    shell.stop().await;
    Ok(())
}

/// Answers a command.
fn tell(answer: oneshot::Sender<Answer>, reply: Answer) {
    if answer.send(reply).is_err() {
        debug!("who asked has gone");
    }
}

/// Whoever asked for a reset hears that it is done.
async fn linger(shell: &mut Shell, control: &mut Control) {
    let end = TokioInstant::now() + Duration::from_millis(RESET_LINGER_MS);
    while let Ok(asked) = timeout_at(end, control.next()).await {
        shell.asked(asked);
    }
}

/// The kernel's news of the network; without them a network that comes back is noticed by trying.
fn path_monitor() -> Option<PathMonitor> {
    PathMonitor::new().inspect_err(|error| warn!("changes of the network are not noticed: {error}")).ok()
}

/// Waits for a change of the network; for ever where nothing tells of them.
async fn path_changed(path: &mut Option<PathMonitor>) {
    if let Some(monitor) = path {
        match monitor.changed().await {
            Ok(()) => return info!("the network has changed"),
            Err(error) => warn!("changes of the network are no longer noticed: {error}"),
        }
        *path = None;
    }
    std::future::pending().await
}

impl Shell {
    fn start(
        config: Config,
        clock: WallClock,
        open: impl FnOnce(&Path) -> Result<(Store, Replay), StoreError>,
    ) -> Result<(Self, Control), StartError> {
        let services = services(&config, &clock)?;
        let mut named = config.push_services().map(|service| service.name.clone()).zip(uris(&services));
        let (store, replay) = open(&config.state).map_err(StartError::Store)?;
        let control =
            Control::listen(&config.control).map_err(|error| StartError::Control(config.control.clone(), error))?;
        let first = named.next().expect("a configuration has a service");
        let mut core = Gateway::with_services(first, named, Box::new(SystemRandom::default()), Instant::ZERO);
        core.booted(kernel::boot_id());
        let upstream = Upstream::new(services, clock.clone());
        let announcer = announcer(&config, &clock)?;
        if let Some(announcer) = &announcer {
            core.announce_to(announcer.target().name());
        }
        let start = TokioInstant::now();
        let devices = config.devices.clone();
        let mut shell = Self {
            config,
            reloaded: Reloaded::default(),
            core,
            upstream,
            announcer,
            downstream: Downstream::new(start),
            store,
            clock,
            start,
            suspended_at_start: kernel::suspended(),
            was_synchronised: None,
            devices: BTreeMap::new(),
            decoded: None,
            damage: None,
            write_failure: replay.takes_no_writes.map(|error| not_written(&error)),
            unstored: Vec::new(),
            fingerprints: Fingerprints::new(&mut SystemRandom::default()),
            surroundings: Surroundings::default(),
            circumstances: None,
            flash: FlashUse::default(),
            was_displaced: false,
        };
        shell.flash.opened(replay.wear);
        shell.damage = damage(replay.damage.as_ref(), &shell.config.state);
        let added = shell.restore(replay);
        for device in devices {
            shell.take_up(device, Origin::Configured);
        }
        for record in added {
            shell.take_up_added(&record);
        }
        // By what time it is it depends where the first connection goes.
        shell.look_at_clock();
        shell.feed(Input::Started);
        Ok((shell, control))
    }

    /// Gives the stored facts to the machine; gives back the devices among them, since the configured ones come first.
    fn restore(&mut self, replay: Replay) -> Vec<DeviceRecord> {
        if let Some(damage) = &self.damage {
            error!("the state was damaged: {damage}");
        }
        if let Some(failure) = &self.write_failure {
            error!("the state is {failure}");
        }
        let (mut added, mut is_incomplete) = (Vec::new(), self.damage.is_some());
        for (key, value) in replay.records {
            match Record::decode(&key, &value) {
                Ok(Record::Device(record)) => added.push(record),
                Ok(record) => self.feed(Input::Restored(record)),
                Err(error) => {
                    is_incomplete = true;
                    note_unreadable(&key, error);
                }
            }
        }
        if is_incomplete {
            self.feed(Input::Incomplete);
        }
        added
    }

    /// Serves a device that was added by command in an earlier run.
    fn take_up_added(&mut self, record: &DeviceRecord) {
        let DeviceRecord { id, link, channels, mtu, options } = record;
        match config::device(id.as_str(), link, channels.clone(), *mtu, options.clone()) {
            Err((key, problem)) => warn!(device = %id, "its stored {key} is no longer valid: {problem}"),
            Ok(device) if self.devices.contains_key(id) || self.on_link(&device.link).is_some() => {
                warn!(device = %id, "the configuration has its id or its link; what was added by command is ignored");
            }
            Ok(device) if !self.has_service(&device) => {
                warn!(device = %id, "its push service is not configured any more; it is not served");
            }
            Ok(_) if self.devices.len() >= DEVICE_COUNT_MAX => {
                warn!(device = %id, "{DEVICE_COUNT_MAX} devices are configured; it is not served");
            }
            Ok(device) => self.take_up(device, Origin::Stored),
        }
    }

    /// Serves a device; one that is added by command is stored.
    fn take_up(&mut self, device: config::Device, origin: Origin) {
        self.feed(Input::DeviceAdded { device: record(&device), lasting: origin == Origin::Command });
        self.attach(&device);
        let known = Known { device, origin, session: None, link: "closed".to_owned() };
        self.devices.insert(known.device.id.clone(), known);
    }

    /// Goes on serving a device that is configured differently.
    fn update(&mut self, device: config::Device, relink: bool) {
        self.feed(Input::DeviceAdded { device: record(&device), lasting: false });
        if relink {
            self.attach(&device);
            self.note_link(&device.id, "closed".to_owned());
        }
        if let Some(known) = self.devices.get_mut(&device.id) {
            known.device = device;
        }
    }

    fn has_service(&self, device: &config::Device) -> bool {
        let name = device.options.push_service.as_ref();
        name.is_none() || self.config.push_services().any(|service| service.name.as_ref() == name)
    }

    fn attach(&mut self, device: &config::Device) {
        let entry = downstream::Entry { device: device.id.clone(), endpoint: device.link.clone(), mtu: device.mtu };
        let attached = self.downstream.attach(entry);
        debug_assert!(attached.is_ok(), "both tables hold the same number of devices");
    }

    /// The device on a link.
    fn on_link(&self, link: &LinkEndpoint) -> Option<&DeviceId> {
        let place = config::link_place(link);
        let known = self.devices.values().find(|known| config::link_place(&known.device.link) == place);
        known.map(|known| &known.device.id)
    }

    fn forget(&mut self, id: &DeviceId) {
        self.devices.remove(id);
        self.downstream.detach(id);
        self.feed(Input::DeviceRemoved(id.clone()));
    }

    /// Looks at power and network, on which it depends what is wanted.
    fn look(&mut self) {
        let policy = &self.config.urgency;
        let power = self.surroundings.power(policy.low_battery_percent);
        let is_metered = self.surroundings.is_metered(policy);
        let level = policy.level(power, is_metered);
        if self.circumstances.replace((power, is_metered)) != Some((power, is_metered)) {
            info!(?power, is_metered, %level, "messages of less urgency are not wanted");
        }
        self.feed(Input::UrgencyWanted(level));
        self.look_at_clock();
    }

    fn look_at_clock(&mut self) {
        let clock = self.clock.reading();
        self.feed(Input::ClockRead(clock));
        if self.was_synchronised.replace(clock.is_synchronised) != Some(clock.is_synchronised) {
            let at = http_date(self.clock.judged_at(None));
            if clock.is_synchronised {
                info!("certificates are judged by the clock, which is synchronised: {at}");
            } else {
                info!("certificates are judged without a synchronised clock: at {at}, or since when they are valid");
            }
        }
    }

    /// Time since the start, in which the machine may have been suspended.
    fn now(&self) -> Instant {
        let passed = self.start.elapsed() + self.suspended();
        Instant::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long the machine has been suspended since the start, which the runtime's clock does not count.
    fn suspended(&self) -> Duration {
        kernel::suspended().saturating_sub(self.suspended_at_start)
    }

    /// When it is `at` on the runtime's clock if the machine stays awake. After a suspension a wait that began before is
    /// over at the next look at the surroundings, within [`SURROUNDINGS_LOOK_S`].
    fn awake_at(&self, at: Instant) -> TokioInstant {
        self.start + Duration::from_millis(self.awake(at).as_millis())
    }

    /// A point in time as those count it that do not count suspended time.
    fn awake(&self, at: Instant) -> Instant {
        at - self.suspended()
    }

    fn feed(&mut self, input: Input) {
        let now = self.now();
        self.core.handle_input(input, now);
        self.clock.set_stored(self.core.known_time());
        self.drain();
        let is_displaced = self.core.uplink_state() == "displaced";
        if is_displaced && !self.was_displaced {
            error!(
                "another gateway has the identity of this one: stop one of them, and empty its state folder; fieldgate reset \
                 would end the subscriptions of both"
            );
        }
        self.was_displaced = is_displaced;
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Decode { slot, keys, body } => {
                let outcome = ece::decode(&keys, body);
                if let Err(error) = &outcome {
                    debug!("a message was not decoded: {error}");
                }
                self.decoded = Some(Input::Decoded { slot, outcome });
            }
            Output::Deliver { device, session, message, channel, body, until, age, is_urgent } => {
                let age = Age::new(age);
                debug!(%device, %channel, %message, octets = body.len(), age_s = age.seconds(), is_urgent, "relayed");
                let push = ToDevice::Push { message, channel, age, body: &body };
                if let Err(later) = self.send(&device, session, push, Some(until), is_urgent) {
                    self.feed(Input::DeviceRefused { device, message, later });
                }
            }
            Output::Reply { device, session, reply } => self.reply(&device, session, &reply),
            Output::Persist { ticket, change, also } => {
                let changes = std::iter::once(change).chain(also.map(|also| *also)).map(stored).collect();
                let full = self.store.submit(changes, ticket);
                debug_assert!(full.is_ok(), "the machine keeps within the store's queue");
            }
            Output::Announce { number, device, document, .. } => {
                let all = self.core.announcements_of(&device);
                if let Some(announcer) = &mut self.announcer {
                    announcer.announce(number, device.as_str(), document, all);
                }
            }
            other => self.upstream.perform(other),
        }
    }

    fn reply(&mut self, device: &DeviceId, session: u32, reply: &Reply) {
        let message = match reply {
            Reply::Subscribed { channel, send, public, auth } => {
                ToDevice::Subscribed { channel: *channel, push: send.as_str(), p256dh: public, auth }
            }
            Reply::Full { channel } => ToDevice::Refused { channel: *channel, reason: Refusal::Full },
            Reply::Unknown { channel } => ToDevice::Refused { channel: *channel, reason: Refusal::UnknownChannel },
            Reply::Status { uplink, waiting } => ToDevice::Status {
                uplink: *uplink,
                waiting: u8::try_from(*waiting).unwrap_or(u8::MAX),
                time: self.clock.known_ms().unwrap_or(0),
            },
            Reply::Unsubscribed { channel } => ToDevice::Unsubscribed { channel: *channel },
        };
        // A device may ask as often as it likes, so this is no line for everybody.
        if let Err(reason) = self.downstream.send(device, session, &message) {
            debug!(%device, "not answered, it may ask again: {reason}");
        }
    }

    /// Hands a message to a device's pump; without success tells whether trying again later makes sense.
    fn send(
        &mut self,
        device: &DeviceId,
        session: u32,
        message: ToDevice<'_>,
        until: Option<Instant>,
        is_urgent: bool,
    ) -> Result<(), bool> {
        let until = until.map(|until| self.awake(until));
        self.downstream.send_until(device, session, &message, until, is_urgent).map_err(|reason| {
            info!(%device, "not relayed: {reason}");
            match reason {
                SendError::Full | SendError::UnknownDevice => true,
                SendError::TooLarge { .. } => false,
            }
        })
    }

    /// Turns what a device link reports into an input.
    fn heard(&mut self, event: downstream::Event) {
        use downstream::Event;
        let input = match event {
            Event::Up { device, session, boot_id, message_bytes_max, in_flight_max } => {
                info!(%device, boot_id, "device attached");
                self.note_link(&device, "open".to_owned());
                self.note_session(&device, None, Some(session));
                Input::DeviceUp { device, session, message_bytes_max, in_flight_max }
            }
            Event::Down { device, session, reason } => {
                info!(%device, "device gone: {reason}");
                self.note_link(&device, reason.to_string());
                self.note_session(&device, Some(session), None);
                Input::DeviceDown { device, session }
            }
            Event::Silent { device, session } => {
                warn!(%device, "device no longer answers");
                self.note_link(&device, "silent".to_owned());
                self.note_session(&device, Some(session), None);
                Input::DeviceSilent { device, session }
            }
            Event::AttachRefused { device, claimed } => {
                let claimed = claimed.map_or("no id".to_owned(), |claimed| format!("the id {claimed}"));
                warn!(%device, "its link was used by a device with {claimed}");
                return self.note_link(&device, format!("refused a device with {claimed}"));
            }
            Event::Retrying { device, reason } => {
                warn!(%device, "its link cannot be opened: {reason}");
                return self.note_link(&device, reason);
            }
            Event::Message { device, message, .. } => match message {
                ToGateway::Ack { message } => Input::DeviceAck { device, message },
                ToGateway::Refuse { message, reason } => {
                    debug!(%device, %message, "refused by its device: {reason}");
                    Input::DeviceRefused { device, message, later: reason == Refusal::Full }
                }
                ToGateway::Subscribe { channel } => Input::Subscribe { device, channel },
                ToGateway::Unsubscribe { channel } => Input::Unsubscribe { device, channel },
                ToGateway::Rotate { channel } => Input::Rotate { device, channel },
                ToGateway::Sleep { seconds } => Input::DeviceAsleep { device, seconds },
                ToGateway::Awake => Input::DeviceAwake { device },
                ToGateway::Ask => Input::StatusAsked { device },
                // The pump takes the first one of each session; another changes nothing.
                ToGateway::Attach { .. } => return,
            },
        };
        self.feed(input);
    }

    fn note_link(&mut self, device: &DeviceId, link: String) {
        if let Some(known) = self.devices.get_mut(device) {
            known.link = link;
        }
    }

    /// Notes the session that is open; the end of another one than that changes nothing.
    fn note_session(&mut self, device: &DeviceId, ended: Option<u32>, open: Option<u32>) {
        if let Some(known) = self.devices.get_mut(device).filter(|known| ended.is_none() || known.session == ended) {
            known.session = open;
        }
    }

    fn persisted(&mut self, persisted: store::Persisted) {
        if let Some(warning) = self.flash.written(persisted.written, self.now(), self.config.flash_bytes_per_day) {
            warn!("{warning}");
        }
        let stored = match persisted.result {
            Ok(()) => {
                if self.write_failure.take().is_some() {
                    info!("the state is written again");
                }
                true
            }
            Err(failure) => {
                let failure = not_written(&failure);
                // It is tried again and again, and said once.
                if self.write_failure.as_ref() != Some(&failure) {
                    error!("the state is {failure}");
                }
                self.write_failure = Some(failure);
                false
            }
        };
        self.feed(Input::Persisted { ticket: persisted.ticket, stored });
        self.tell_stored();
    }

    fn asked(&mut self, Asked { request, answer }: Asked) {
        let changed = match &request {
            Request::DeviceAdd { id, .. } | Request::DeviceRemove { id } => id.parse().ok(),
            _ => None,
        };
        match (self.answer(request), changed) {
            (Ok(_), Some(device)) => {
                self.unstored.push((device, answer));
                self.tell_stored();
            }
            (reply, _) => tell(answer, reply),
        }
    }

    /// A device that was added or removed for good is so once that is on flash; whoever asked hears it then.
    fn tell_stored(&mut self) {
        for (device, answer) in std::mem::take(&mut self.unstored) {
            if self.core.is_device_stored(&device) {
                tell(answer, Ok(Value::Null));
            } else if let Some(failure) = &self.write_failure {
                let state = if self.devices.contains_key(&device) { "served" } else { "removed" };
                let reason = format!("{device} is {state}, but that is not on flash; it is tried again: {failure}");
                tell(answer, Err(reason));
            } else if !answer.is_closed() {
                self.unstored.push((device, answer));
            }
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Ok(self.status()),
            Request::Connections => Ok(self.connections()),
            Request::DeviceList => Ok(self.device_list()),
            Request::DeviceAdd { id, link, channels, mtu, options, link_options } => {
                self.device_add(&id, &link, channels, mtu, Options { link: link_options, ..options })
            }
            Request::DeviceShow { id, channel } => {
                let id = self.known(&id)?;
                let subscription = self.core.push_subscription(&id, channel.map(ChannelId));
                if let (None, Some(channel)) = (&subscription, channel)
                    && !self.core.has_channel(&id, ChannelId(channel))
                {
                    return Err(format!("{id} has no channel {channel}; see fieldgate device list"));
                }
                Ok(subscription.map_or(Value::Null, |subscription| subscription.to_json()))
            }
            Request::DeviceRemove { id } => {
                let id = self.known(&id)?;
                if self.devices[&id].origin == Origin::Configured {
                    return Err(format!("{id} is part of the configuration: remove it there and reload it"));
                }
                self.forget(&id);
                Ok(Value::Null)
            }
            Request::DeviceFetch { id } => {
                let id = self.known(&id)?;
                self.feed(Input::FetchAsked(id));
                Ok(Value::Null)
            }
            Request::DeviceRotate { id, channel } => {
                let (device, channel) = (self.known(&id)?, channel.map(ChannelId));
                if let Some(channel) = channel.filter(|channel| !self.core.has_channel(&device, *channel)) {
                    return Err(format!("{id} has no channel {channel}; see fieldgate device list"));
                }
                self.feed(Input::RotationAsked { device, channel });
                Ok(Value::Null)
            }
            Request::Time => Ok(self.time()),
            Request::TimeReset => {
                self.feed(Input::TimeForgotten);
                Ok(self.time())
            }
            Request::Reset => {
                self.feed(Input::ResetAsked);
                Ok(json!({ "left": self.core.reset_left() }))
            }
        }
    }

    fn known(&self, id: &str) -> Result<DeviceId, String> {
        let id: DeviceId = id.parse().map_err(|error| format!("id: {error}"))?;
        if self.devices.contains_key(&id) { Ok(id) } else { Err(format!("no device {id}; see fieldgate device list")) }
    }

    fn device_add(&mut self, id: &str, link: &str, channels: Vec<u16>, mtu: u16, options: Options) -> Answer {
        let channels = channels.into_iter().map(ChannelId).collect();
        let device = config::device(id, link, channels, mtu, options);
        let device = device.map_err(|(key, problem)| format!("{key}: {problem}"))?;
        if !self.has_service(&device) {
            return Err("no push service has that name; see the configuration".to_owned());
        }
        if self.devices.contains_key(&device.id) {
            return Err(format!("{} is there already; remove it first", device.id));
        }
        if let Some(other) = self.on_link(&device.link) {
            return Err(format!("{other} is on that link already"));
        }
        if self.devices.len() >= DEVICE_COUNT_MAX {
            return Err(format!("{} devices are there; remove one first", self.devices.len()));
        }
        self.take_up(device, Origin::Command);
        Ok(Value::Null)
    }

    fn status(&self) -> Value {
        let core = self.core.status();
        let announcement_error = self.announcer.as_ref().and_then(Announcer::last_error);
        let mut status = json!(core);
        status["service"] = json!(self.service());
        status["announcement_error"] = json!(announcement_error.filter(|_| core.announcements.due > 0));
        status["last_error"] = json!(self.upstream.last_error());
        status["octets"] = json!(self.upstream.octets());
        status["flash"] = self.flash.status(self.now(), self.config.flash_bytes_per_day);
        status["power"] = json!(self.circumstances.map(|(power, _)| power.as_str()));
        status["metered"] = json!(self.circumstances.map(|(_, is_metered)| is_metered));
        status["state_warning"] = json!(self.state_warning());
        status["configuration"] = json!(self.reloaded.note());
        status["uptime_s"] = json!(self.now().as_millis() / 1_000);
        status["time"] = self.time();
        status
    }

    /// What is known of the time.
    fn time(&self) -> Value {
        let clock = self.clock.reading();
        let date = |time| json!({ "date": http_date(time), "unix_s": time.0 });
        json!({
            "kernel": date(clock.wall()),
            "synchronised": clock.is_synchronised,
            "stored": self.clock.stored().map(date),
            "stored_in_this_boot": self.core.is_time_of_this_boot(),
            "built": date(BUILT),
            "certificates": date(self.clock.judged_at(None)),
        })
    }

    /// What the gateway does, in a line for a person.
    fn status_line(&self) -> String {
        let state = self.state_warning().map(|warning| format!("state: {warning}")).into_iter();
        let configuration = self.reloaded.note().map(|note| format!("configuration {note}"));
        let notes: Vec<String> = state.chain(configuration).collect();
        status_line(self.service(), self.core.uplink_state(), self.upstream.last_error(), &notes)
    }

    /// What is wrong with the state.
    fn state_warning(&self) -> Option<&String> {
        self.write_failure.as_ref().or(self.damage.as_ref())
    }

    /// The first push service.
    fn service(&self) -> &str {
        self.config.push_service.url.authority().map_or("", |authority| authority.as_str())
    }

    fn connections(&self) -> Value {
        let devices: Vec<Value> = self.devices.values().map(|known| {
            json!({ "device": known.device.id.as_str(), "endpoint": known.device.link.to_string(), "state": known.link })
        }).collect();
        let status = self.core.status();
        json!({
            "upstream": {
                "service": self.service(),
                "stack": "h2/tls/tcp",
                "state": status.uplink,
                "alternatives": status.alternatives,
                "remotes": self.upstream.remotes().map(|remote| remote.to_string()).collect::<Vec<_>>(),
                "last_error": self.upstream.last_error(),
            },
            "links": devices,
        })
    }

    fn device_list(&self) -> Value {
        let status = self.core.status();
        let device = |known: &Known| {
            let state = status.devices.iter().find(|device| device.id == known.device.id.as_str());
            json!({
                "id": known.device.id.as_str(),
                "link": known.device.link.to_string(),
                "mtu": known.device.mtu,
                "configured": known.origin == Origin::Configured,
                "presence": state.map(|state| state.presence),
                "channels": state.map(|state| self.channels(&known.device.id, &state.channels)),
            })
        };
        self.devices.values().map(device).collect()
    }

    /// The channels of a device, each with the fingerprint of where it is sent to: never the capability itself.
    fn channels(&self, id: &DeviceId, channels: &[ChannelStatus]) -> Value {
        let channel = |channel: &ChannelStatus| {
            let subscription = self.core.push_subscription(id, Some(ChannelId(channel.channel)));
            let push = subscription.map(|known| self.fingerprints.of(Kind::PushResource, known.endpoint.as_str()));
            json!({ "channel": channel.channel, "state": channel.state, "push": push.map(|push| push.to_string()) })
        };
        channels.iter().map(channel).collect()
    }

    /// What devices have acknowledged and the service does not know is on flash when the process ends.
    async fn write_acknowledgements(&mut self) {
        self.feed(Input::Stopping);
        let end = TokioInstant::now() + Duration::from_millis(STORE_CLOSE_MS_MAX);
        while self.core.is_persisting()
            && let Ok(persisted) = timeout_at(end, self.store.next()).await
        {
            self.persisted(persisted);
        }
    }

    async fn stop(mut self) {
        self.write_acknowledgements().await;
        drop(self.downstream);
        self.upstream.close().await;
        if let Err(failure) = self.store.close() {
            error!("the state was not closed: {failure}");
        }
    }
}

fn services(config: &Config, clock: &WallClock) -> Result<Vec<Service>, StartError> {
    let with_key = |(index, configured): (usize, &config::PushService)| {
        service(configured, clock)
            .map_err(|(key, error)| StartError::PushService { key: config.push_service_key(index, key), error })
    };
    config.push_services().enumerate().map(with_key).collect()
}

/// Where application servers are told of subscriptions, as it is used.
fn announcer(config: &Config, clock: &WallClock) -> Result<Option<Announcer>, StartError> {
    let failed = |key: &str, error| StartError::PushService { key: format!("announce.{key}"), error };
    let target = match &config.announce {
        None => return Ok(None),
        Some(config::Announce::Folder(folder)) => {
            file::create_folder(folder)
                .map_err(|error| failed("folder", ServiceError::Folder(folder.clone(), error)))?;
            announce::Target::Folder(folder.clone())
        }
        Some(config::Announce::Post { url, ca_file, credential_file }) => {
            let trust = ca_file.clone().map_or(Trust::System, Trust::File);
            let security = SecurityParameters { trust, revocations: None, protocols: vec!["h2", "http/1.1"] };
            let stack = TcpTls::new(&security, clock.clone());
            let stack = stack.map_err(|error| failed("ca_file", ServiceError::Trust(error)))?;
            let credential = credential_file.as_deref().map(Credential::read).transpose();
            let credential = credential.map_err(|error| failed("credential_file", ServiceError::Credential(error)))?;
            announce::Target::Post { url: url.clone(), stack, credential }
        }
    };
    Ok(Some(Announcer::new(target, clock.clone())))
}

/// A push service as it is used, or what is wrong with which of its settings.
fn service(configured: &config::PushService, clock: &WallClock) -> Result<Service, (&'static str, ServiceError)> {
    let uri = PushServiceUri::new(&configured.url).map_err(|error| ("url", ServiceError::Url(error)))?;
    let trust = configured.ca_file.clone().map_or(Trust::System, Trust::File);
    let security = SecurityParameters { trust, revocations: configured.crl_file.clone(), protocols: vec!["h2"] };
    let distrust = |error: TrustError| {
        (if error.is_of_revocations() { "crl_file" } else { "ca_file" }, ServiceError::Trust(error))
    };
    let stack = TcpTls::new(&security, clock.clone()).map_err(distrust)?;
    RemoteEndpoint::of_authority(uri.authority()).ok_or(("url", ServiceError::Url(InvalidResource::Authority)))?;
    let credential = configured.credential_file.as_deref().map(Credential::read).transpose();
    let credential = credential.map_err(|error| ("credential_file", ServiceError::Credential(error)))?;
    Ok(Service { uri, stack, credential })
}

fn uris(services: &[Service]) -> Vec<PushServiceUri> {
    services.iter().map(|service| service.uri.clone()).collect()
}

fn not_written(failure: &dyn fmt::Display) -> String {
    format!("not written: {failure}")
}

fn note_unreadable(key: &[u8], error: Unreadable) {
    let kind = key.first();
    match error {
        Unreadable::Unknown => warn!(kind, "a record of a later version is kept, unless its place is needed"),
        Unreadable::Malformed => warn!(kind, "a malformed record is ignored"),
    }
}

/// What of the state was lost: found now, or at an earlier start after which nobody has removed the copy.
fn damage(found: Option<&Damage>, folder: &Path) -> Option<String> {
    let copies = file::damaged_copies(folder);
    let copies = copies.iter().map(|copy| copy.display().to_string()).collect::<Vec<_>>().join(" and ");
    match found {
        Some(damage) if copies.is_empty() => Some(damage.to_string()),
        Some(damage) => Some(format!("{damage}; when it was studied, remove {copies}")),
        None if copies.is_empty() => None,
        None => Some(format!(
            "an earlier start found damage, and what was lost is made anew; when it was studied, remove {copies}"
        )),
    }
}

fn record(device: &config::Device) -> DeviceRecord {
    let config::Device { id, link, channels, mtu, options } = device.clone();
    DeviceRecord { id, link: link.to_string(), channels, mtu, options }
}

fn stored(change: Change) -> store::Change {
    match change {
        Change::Put(record) => store::Change::Put { key: record.key().encode(), value: record.encode() },
        Change::Remove(key) => store::Change::Remove { key: key.encode() },
    }
}

impl StartError {
    /// The setting that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::PushService { key, .. } => key,
            Self::Store(_) => "state",
            Self::Control(..) => "control",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PushService { error, .. } => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Control(path, error) => {
                let hint = match error.kind() {
                    io::ErrorKind::AddrInUse => "another gateway listens there; stop it, or name another path",
                    io::ErrorKind::AlreadyExists => "there is a file that is no socket; name another path",
                    io::ErrorKind::NotFound => "its folder does not exist; make it, or name another path",
                    _ => "name a path where this user may make it",
                };
                write!(f, "the control socket {} cannot be made: {error}; {hint}", path.display())
            }
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Credential(error) => error.fmt(f),
            Self::Folder(folder, error) => {
                write!(f, "{} cannot be used: {error}; let this user write there", folder.display())
            }
        }
    }
}

impl std::error::Error for StartError {}
impl std::error::Error for ServiceError {}
