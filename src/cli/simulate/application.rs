//! What stands above the device: it keeps messages, refuses them, sleeps, and says what happens.
//!
//! It reads no monotonic clock and no connection: octets and time are arguments.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::device::{Failed, Options};
use super::intake::{Intake, Taking, Verdict};
use super::journal::Journal;
use super::life::{Act, Life};
use super::report::Report;
use crate::limits::{LINK_MTU_BYTES_MAX, SIMULATE_SEEN_COUNT, SIMULATE_TX_BYTES, SIMULATE_WINDOW_BYTES};
use crate::link::device::{Device, Event, Received};
use crate::link::memory::DeviceMemory;
use crate::link::{Config, Role};
use crate::random::{self, SystemRandom};
use crate::time::Instant;
use crate::wire::{ChannelId, DeviceId, Refusal, ToDevice, ToGateway};

/// Everything that a device can be: the largest frames and messages, and an urgent stream.
type Memory = DeviceMemory<LINK_MTU_BYTES_MAX, SIMULATE_WINDOW_BYTES, SIMULATE_WINDOW_BYTES, SIMULATE_TX_BYTES>;
type SimulatedDevice = Device<Memory, SIMULATE_SEEN_COUNT>;

/// A device with what stands above it.
pub(super) struct Application<R> {
    report: R,
    id: DeviceId,
    mtu: usize,
    device: Box<SimulatedDevice>,
    journal: Option<(PathBuf, Journal)>,
    subscribe: Vec<ChannelId>,
    intake: Intake,
    life: Life,
    was_up: bool,
    received: u64,
    count: Option<u64>,
}

impl<R: FnMut(&Report<'_>) -> io::Result<()>> Application<R> {
    pub fn open(options: &Options, report: R, now: Instant) -> Result<Self, Failed> {
        let (device, journal) = boot(&options.id, options.mtu, options.state.as_ref(), now)?;
        Ok(Self {
            report,
            id: options.id.clone(),
            mtu: options.mtu,
            device,
            journal,
            subscribe: options.subscribe.clone(),
            intake: Intake::new(options.manners),
            life: Life::new(&options.habits, &options.subscribe, now),
            was_up: false,
            received: 0,
            count: options.count,
        })
    }

    /// How many messages were received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether it has all the messages that were asked for.
    pub fn is_done(&self) -> bool {
        self.count.is_some_and(|count| self.received >= count)
    }

    /// Whether a session was open since this was asked last.
    pub fn take_was_up(&mut self) -> bool {
        std::mem::take(&mut self.was_up)
    }

    /// Takes octets; who sleeps hears nothing.
    pub fn feed(&mut self, mut octets: &[u8], now: Instant) -> Result<(), Failed> {
        while !octets.is_empty() && !self.life.is_asleep() {
            let (taken, event) = self.device.feed(octets, now);
            octets = &octets[taken..];
            self.take(event, now)?;
        }
        Ok(())
    }

    /// Lets timers run out.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Failed> {
        if self.life.is_asleep() {
            return Ok(());
        }
        let event = self.device.handle_timeout(now);
        self.take(event, now)?;
        self.hear_all(now)
    }

    /// The frame that is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.life.is_asleep() {
            return None;
        }
        let mut frame = [0; LINK_MTU_BYTES_MAX];
        self.device.poll_transmit(now, &mut frame).map(|bytes| frame[..bytes].to_vec())
    }

    /// When there is something to do by time alone. `is_quiet`: nothing is on its way.
    pub fn poll_timeout(&self, is_quiet: bool) -> Option<Instant> {
        let life = self.life.poll_timeout(is_quiet);
        if self.life.is_asleep() {
            return life;
        }
        life.into_iter().chain(self.device.poll_timeout()).chain(self.intake.poll_timeout()).min()
    }

    /// Whether everything that came is handled, and everything that was said has arrived.
    pub fn is_idle(&self) -> bool {
        self.device.is_idle() && !self.intake.is_busy()
    }

    /// Lives on: sleeps, wakes, starts anew; returns whether it did the last. `is_quiet`: nothing is on its way.
    pub fn live(&mut self, is_quiet: bool, now: Instant) -> Result<bool, Failed> {
        // What one step says is on its way before the next one.
        match self.life.poll(is_quiet && self.is_idle(), now) {
            None => Ok(false),
            Some(Act::Say(message)) => self.say(&message).map(|()| false),
            Some(Act::FallAsleep) => self.tell(&Report::Asleep).map(|()| false),
            Some(Act::Reset) => self.reset(now).map(|()| true),
        }
    }

    /// Reports something.
    pub fn tell(&mut self, report: &Report<'_>) -> Result<(), Failed> {
        (self.report)(report).map_err(Failed::Report)
    }

    fn say(&mut self, message: &ToGateway) -> Result<(), Failed> {
        if let Err(error) = self.device.send(message) {
            tracing::debug!(?message, %error, "cannot be said");
        }
        match message {
            ToGateway::Awake => self.tell(&Report::Awake),
            ToGateway::Rotate { channel } => self.tell(&Report::Rotating { channel: *channel }),
            // Reported once it sleeps.
            _ => Ok(()),
        }
    }

    fn reset(&mut self, now: Instant) -> Result<(), Failed> {
        let state = self.journal.take().map(|(path, _)| path);
        (self.device, self.journal) = boot(&self.id, self.mtu, state.as_ref(), now)?;
        self.intake.reset();
        self.tell(&Report::Reset)
    }

    fn take(&mut self, event: Option<Event>, now: Instant) -> Result<(), Failed> {
        match event {
            None => Ok(()),
            Some(Event::Up { mtu }) => self.up(mtu, now),
            Some(Event::Down) => {
                self.life.down();
                self.tell(&Report::Down)
            }
            Some(Event::VersionRefused(version)) => self.tell(&Report::VersionRefused { version }),
            Some(Event::Message) => self.hear_all(now),
        }
    }

    fn up(&mut self, mtu: usize, now: Instant) -> Result<(), Failed> {
        self.was_up = true;
        for channel in &self.subscribe {
            if let Err(error) = self.device.subscribe(*channel) {
                tracing::debug!(%channel, %error, "cannot ask for a subscription");
            }
        }
        self.life.up(self.subscribe.len(), now);
        self.tell(&Report::Up { mtu })
    }

    /// Takes what is there. What comes after the last message that was asked for is left to a later device; while the
    /// application is busy, what comes stays where it is.
    fn hear_all(&mut self, now: Instant) -> Result<(), Failed> {
        loop {
            self.finish(now)?;
            if self.is_done() || self.intake.is_busy() || !self.hear(now)? {
                return Ok(());
            }
        }
    }

    /// Takes the next message that is there; whether there was one.
    fn hear(&mut self, now: Instant) -> Result<bool, Failed> {
        let Some(received) = self.device.poll_message() else { return Ok(false) };
        self.life.heard(now);
        let report = match received {
            Received::New(ToDevice::Push { message, channel, age, body }) => {
                self.intake.begin(Taking { message, channel, age, body: body.to_vec() }, now);
                return Ok(true);
            }
            Received::Copy(message) => Report::Duplicate { message },
            Received::New(ToDevice::Status { uplink, waiting, time }) => {
                self.life.told(waiting);
                Report::Status { uplink, waiting, time }
            }
            Received::New(ToDevice::Subscribed { channel, push, p256dh, auth }) => {
                self.life.answered(channel);
                Report::Subscribed { channel, push, p256dh, auth }
            }
            Received::New(ToDevice::Refused { channel, reason }) => {
                self.life.answered(channel);
                Report::Refused { channel, reason }
            }
            Received::New(ToDevice::Unsubscribed { channel }) => Report::Unsubscribed { channel },
        };
        (self.report)(&report).map_err(Failed::Report)?;
        Ok(true)
    }

    /// What the application is done with is kept, then reported, then acknowledged; or refused.
    fn finish(&mut self, now: Instant) -> Result<(), Failed> {
        match self.intake.finish(now) {
            None => Ok(()),
            Some((taken, Verdict::Keep)) => self.keep(&taken),
            Some((taken, Verdict::Refuse(reason))) => self.refuse(&taken, reason),
        }
    }

    fn keep(&mut self, taken: &Taking) -> Result<(), Failed> {
        let &Taking { message, channel, age, ref body } = taken;
        let report = Report::Received { message, channel, age_s: age.seconds(), body, at_unix_ms: unix_ms() };
        if let Some((path, journal)) = &mut self.journal {
            journal.append(&report.to_json()).map_err(|error| Failed::State(path.clone(), error))?;
        }
        (self.report)(&report).map_err(Failed::Report)?;
        self.device.accept(message);
        self.received += 1;
        Ok(())
    }

    fn refuse(&mut self, taken: &Taking, reason: Refusal) -> Result<(), Failed> {
        let &Taking { message, channel, .. } = taken;
        if let Err(error) = self.device.refuse(message, reason) {
            tracing::debug!(%message, %error, "cannot be refused, it comes again");
            self.intake.not_refused();
            return Ok(());
        }
        self.tell(&Report::MessageRefused { message, channel, reason })
    }
}

/// A device that has just started, and its journal: another boot id, and the ids that it kept.
#[allow(clippy::type_complexity, reason = "a device, and a journal with its path")]
fn boot(
    id: &DeviceId,
    mtu: usize,
    state: Option<&PathBuf>,
    now: Instant,
) -> Result<(Box<SimulatedDevice>, Option<(PathBuf, Journal)>), Failed> {
    let boot_id = u32::from_le_bytes(random::array(&mut SystemRandom::default()));
    let mut device = Box::new(SimulatedDevice::new(id.clone(), Config { role: Role::Device, boot_id, mtu }, now));
    let Some(path) = state else { return Ok((device, None)) };
    let (journal, known) = Journal::open(path).map_err(|error| Failed::State(path.clone(), error))?;
    known.into_iter().for_each(|message| device.remember(message));
    device.keep_over_reset();
    Ok((device, Some((path.clone(), journal))))
}

#[allow(clippy::disallowed_methods, reason = "the one place where a simulated device reads the wall clock")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
