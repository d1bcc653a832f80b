//! One pump: it opens the endpoint of one device again and again, and carries octets between the connection and a
//! [`Link`].
//!
//! It holds no decisions about messages. Reading and writing wait together: a device that does not read is still heard.
//! Messages are taken from the queue only while the link has room for the largest one.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::session::{Heard, Session};
use super::{DownReason, Event, Open};
use crate::limits::{
    DELIVERY_PER_DEVICE_MAX, LINK_CLAIM_MS, LINK_MESSAGE_BYTES_MAX, LINK_REOPEN_MS_MAX, LINK_REOPEN_MS_MIN,
    LINK_WINDOW_BYTES_MAX,
};
use crate::link::elastic::GatewayMemory;
use crate::link::{self, Config, Link, Role};
use crate::random::{self, SystemRandom};
use crate::time::{Duration, Instant};
use crate::transport::listener::Listener;
use crate::transport::stack::{LinkConnection, Outgoing, Ready, ready};
use crate::wire::message::Profile;
use crate::wire::{ChannelId, DeviceId, Refusal, ToDevice, ToGateway};

type GatewayLink = Link<GatewayMemory>;

/// Octets read at once.
const READ_BYTES: usize = 256;

/// A message and the session it is meant for.
#[derive(Debug)]
pub(super) struct Queued {
    pub session: u32,
    pub octets: Box<[u8]>,
    /// When it is too late to begin with it.
    pub until: Option<Instant>,
}

/// The task of one device.
pub(super) struct Pump {
    pub device: DeviceId,
    pub mtu: u16,
    pub listener: Listener,
    pub queued: mpsc::Receiver<Queued>,
    pub urgent: mpsc::Receiver<Queued>,
    pub report: mpsc::Sender<Event>,
    pub session: Rc<Cell<Option<Open>>>,
    pub session_count: Rc<Cell<u32>>,
    pub start: tokio::time::Instant,
}

/// How a connection ended.
enum End {
    Lost(DownReason),
    Replaced(LinkConnection),
    /// Nobody is left to report to.
    Detached,
}

impl Pump {
    /// Runs until the task is aborted or nobody listens to its events.
    pub async fn run(mut self) {
        let mut retry = Retry::new();
        let mut replacement = None;
        loop {
            let connection = match replacement.take() {
                Some(connection) => connection,
                None => match self.listener.accept().await {
                    Ok(connection) => connection,
                    Err(error) => {
                        self.retrying(&mut retry, error.to_string()).await;
                        retry.pause().await;
                        continue;
                    }
                },
            };
            let mut carrier = Carrier::new(&mut self, connection);
            let end = carrier.carry(&mut retry).await;
            let was_up = carrier.was_up;
            match end {
                End::Detached => return,
                End::Replaced(connection) => replacement = Some(connection),
                End::Lost(_) if self.listener.yields_more() => {}
                End::Lost(reason) => {
                    if !was_up {
                        let reason = format!("{}: {reason}", self.listener);
                        self.retrying(&mut retry, reason).await;
                    }
                    retry.pause().await;
                }
            }
        }
    }

    /// Reports why the link is not open, once for each change.
    async fn retrying(&self, retry: &mut Retry, reason: String) {
        if retry.reason.as_ref() != Some(&reason) {
            retry.reason = Some(reason.clone());
            self.tell(Event::Retrying { device: self.device.clone(), reason }).await;
        }
    }

    /// Waits for room. That nobody listens any more is noticed where the queue ends.
    async fn tell(&self, event: Event) {
        if self.report.send(event).await.is_err() {
            tracing::trace!(device = %self.device, "nobody listens to this link");
        }
    }

    fn now(&self) -> Instant {
        let since = tokio::time::Instant::now().saturating_duration_since(self.start);
        Instant::ZERO + since
    }
}

/// When to open again, and what was said about it last.
struct Retry {
    pause_ms: u64,
    reason: Option<String>,
}

impl Retry {
    fn new() -> Self {
        Self { pause_ms: LINK_REOPEN_MS_MIN, reason: None }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(LINK_REOPEN_MS_MAX);
    }
}

/// One connection and its link.
struct Carrier<'p> {
    pump: &'p mut Pump,
    connection: LinkConnection,
    link: Box<GatewayLink>,
    session: Session,
    was_up: bool,
    output: Outgoing,
    claimant: Option<Claimant>,
    urgent_window: u16,
}

/// Another connection that claims to be the device.
struct Claimant {
    connection: LinkConnection,
    /// Until when the one that is there may show that it still is.
    until: tokio::time::Instant,
    /// Frames that had come of that one before.
    frames_before: u32,
}

impl<'p> Carrier<'p> {
    fn new(pump: &'p mut Pump, connection: LinkConnection) -> Self {
        let boot_id = u32::from_le_bytes(random::array(&mut SystemRandom::default()));
        let config = Config { role: Role::Gateway, boot_id, mtu: pump.mtu.into() };
        let link = Box::new(GatewayLink::new(config, pump.now()));
        Self {
            pump,
            connection,
            link,
            session: Session::Closed,
            was_up: false,
            output: Outgoing::new(),
            claimant: None,
            urgent_window: 0,
        }
    }

    async fn carry(&mut self, retry: &mut Retry) -> End {
        let end = self.pump_octets(retry).await;
        let reason = match &end {
            End::Lost(reason) => *reason,
            End::Replaced(_) => DownReason::Replaced,
            End::Detached => DownReason::Closed,
        };
        self.end_session(reason).await;
        tracing::debug!(device = %self.pump.device, counts = ?self.link.counts(), %reason, "link connection ended");
        match (end, self.claimant.take()) {
            // The device was cut off and is back before that was noticed.
            (End::Lost(_), Some(claimant)) => End::Replaced(claimant.connection),
            (end, _) => end,
        }
    }

    async fn pump_octets(&mut self, retry: &mut Retry) -> End {
        let mut input = [0; READ_BYTES];
        let mut is_listening = self.pump.listener.yields_more();
        loop {
            self.refill();
            let deadline = self.link.poll_timeout().map(|at| self.pump.start + Duration::from_millis(at.as_millis()));
            let is_up = self.session.number().is_some();
            let takes = !is_up || self.link.room() >= LINK_MESSAGE_BYTES_MAX;
            let takes_urgent = !is_up || self.link.urgent_room() >= LINK_MESSAGE_BYTES_MAX;
            let claim = self.claimant.as_ref().map(|claimant| claimant.until);
            tokio::select! {
                ready = ready(&mut self.connection, &mut input, self.output.rest()) => match ready {
                    Ready::Read(Ok(0)) => return End::Lost(DownReason::Closed),
                    Ready::Read(Ok(bytes)) => self.feed(&input[..bytes], retry).await,
                    Ready::Wrote(Ok(bytes)) if bytes > 0 => self.output.wrote(bytes),
                    Ready::Wrote(Ok(_)) => return End::Lost(DownReason::Closed),
                    Ready::Read(Err(error)) | Ready::Wrote(Err(error)) => {
                        return End::Lost(DownReason::Failed(error.kind()));
                    }
                },
                () = sleep_until(deadline.unwrap_or(self.pump.start)), if deadline.is_some() => {
                    let event = self.link.handle_timeout(self.pump.now());
                    self.take(event, retry).await;
                }
                queued = self.pump.urgent.recv(), if takes_urgent => match queued {
                    Some(queued) => self.send_urgent(&queued),
                    None => return End::Detached,
                },
                queued = self.pump.queued.recv(), if takes => match queued {
                    Some(queued) => self.send(&queued),
                    None => return End::Detached,
                },
                () = sleep_until(claim.unwrap_or(self.pump.start)), if claim.is_some() => {
                    if let Some(connection) = self.claim_over() {
                        return End::Replaced(connection);
                    }
                }
                newer = self.pump.listener.accept(), if is_listening && claim.is_none() => match newer {
                    // A device that is there and hears may show that it still is.
                    Ok(connection) if is_up && !self.link.is_asleep() => self.claimed(connection),
                    Ok(connection) => return End::Replaced(connection),
                    // Asked again once this connection has ended, so that a listener that fails is no spin.
                    Err(_) => is_listening = false,
                },
            }
        }
    }

    /// Fetches the next frame once the last one is written.
    fn refill(&mut self) {
        if self.output.rest().is_empty() {
            let now = self.pump.now();
            self.output.fill(|octets| self.link.poll_transmit(now, octets));
        }
    }

    async fn feed(&mut self, mut octets: &[u8], retry: &mut Retry) {
        let now = self.pump.now();
        while !octets.is_empty() {
            let (taken, event) = self.link.feed(octets, now);
            octets = &octets[taken..];
            self.take(event, retry).await;
        }
    }

    fn send(&mut self, queued: &Queued) {
        if self.is_meant_now(queued)
            && let Err(error) = self.link.send(&queued.octets)
        {
            tracing::debug!(device = %self.pump.device, %error, "message dropped");
        }
    }

    /// What does not fit the urgent stream of the device goes with the others.
    fn send_urgent(&mut self, queued: &Queued) {
        if !self.is_meant_now(queued) {
            return;
        }
        let sent = self.link.send_urgent(&queued.octets, self.urgent_window);
        if let Err(error) = sent.or_else(|_| self.link.send(&queued.octets)) {
            tracing::debug!(device = %self.pump.device, %error, "urgent message dropped");
        }
    }

    fn is_meant_now(&self, queued: &Queued) -> bool {
        let is_late = queued.until.is_some_and(|until| self.pump.now() >= until);
        !is_late && self.session.number() == Some(queued.session)
    }

    /// Another connection came: the one that is there stays while it answers.
    fn claimed(&mut self, connection: LinkConnection) {
        let until = tokio::time::Instant::now() + Duration::from_millis(LINK_CLAIM_MS);
        self.claimant = Some(Claimant { connection, until, frames_before: self.link.counts().received });
        self.link.probe(0);
    }

    /// The time to answer is over; the connection that takes over, unless this one was heard. The question goes unanswered
    /// when other frames follow it, but then those are.
    fn claim_over(&mut self) -> Option<LinkConnection> {
        let received = self.link.counts().received;
        let silent = self.claimant.take_if(|claimant| claimant.frames_before == received);
        self.claim_refused();
        silent.map(|claimant| claimant.connection)
    }

    fn claim_refused(&mut self) {
        if self.claimant.take().is_some() {
            tracing::warn!(device = %self.pump.device, "a second link claims this device: refused, the first one answers");
        }
    }

    async fn take(&mut self, event: Option<link::Event>, retry: &mut Retry) {
        match event {
            None => {}
            Some(link::Event::Opened { boot_id, .. }) => {
                self.end_session(DownReason::Restarted).await;
                self.session = Session::Unnamed { boot_id };
            }
            Some(link::Event::Message) => self.hear_all(retry).await,
            Some(link::Event::Restarted) => self.end_session(DownReason::Restarted).await,
            Some(link::Event::Broken) => self.end_session(DownReason::Broken).await,
            Some(link::Event::ProbeAnswered(_)) => self.claim_refused(),
            Some(link::Event::Silent) => self.silent().await,
            Some(link::Event::VersionRefused(version)) => {
                let reason =
                    format!("{}: the device speaks version {version} of the link protocol", self.pump.listener);
                self.pump.retrying(retry, reason).await;
            }
        }
    }

    /// Takes every message that is there.
    async fn hear_all(&mut self, retry: &mut Retry) {
        while let Some((stream, octets)) = self.link.message() {
            let heard = self.session.hear(octets, &self.pump.device);
            self.link.release(stream);
            self.hear(heard, retry).await;
        }
    }

    async fn hear(&mut self, heard: Heard, retry: &mut Retry) {
        let device = self.pump.device.clone();
        match heard {
            Heard::Attached { boot_id, profile } => {
                *retry = Retry::new();
                self.up(boot_id, profile).await;
            }
            Heard::Stranger(claimed) => {
                self.refuse();
                self.pump.tell(Event::AttachRefused { device, claimed }).await;
            }
            Heard::Message { session, message } => {
                if let ToGateway::Sleep { .. } = message {
                    self.link.sleep();
                }
                self.pump.tell(Event::Message { device, session, message }).await;
            }
            Heard::Nothing => {}
        }
    }

    async fn up(&mut self, boot_id: u32, profile: Profile) {
        let message_bytes_max =
            self.link.message_bytes_max().map_or(0, |fits| fits.min(profile.message_bytes_max.into()));
        self.urgent_window = profile.urgent_window.min(LINK_WINDOW_BYTES_MAX as u16);
        self.link.set_urgent_window(self.urgent_window);
        let session = self.pump.session_count.get().wrapping_add(1);
        self.pump.session_count.set(session);
        self.pump.session.set(Some(Open { session, message_bytes_max }));
        self.session = Session::Up { session };
        self.was_up = true;
        let message_bytes_max = u16::try_from(message_bytes_max).unwrap_or(u16::MAX);
        // A device that may get a message twice must still know both that are on their way.
        let in_flight_max = usize::from(profile.memory / 2).clamp(1, DELIVERY_PER_DEVICE_MAX);
        let device = self.pump.device.clone();
        self.pump.tell(Event::Up { device, session, boot_id, message_bytes_max, in_flight_max }).await;
    }

    fn refuse(&mut self) {
        self.session = Session::Refused;
        let refused = ToDevice::Refused { channel: ChannelId(0), reason: Refusal::UnknownDevice };
        let mut octets = [0; 8];
        let bytes = refused.emit(&mut octets).expect("a refusal is three octets");
        if let Err(error) = self.link.send(&octets[..bytes]) {
            tracing::debug!(device = %self.pump.device, %error, "the stranger cannot be told");
        }
    }

    async fn silent(&mut self) {
        if let Some(session) = self.leave() {
            self.pump.tell(Event::Silent { device: self.pump.device.clone(), session }).await;
        }
    }

    async fn end_session(&mut self, reason: DownReason) {
        if let Some(session) = self.leave() {
            self.pump.tell(Event::Down { device: self.pump.device.clone(), session, reason }).await;
        }
    }

    /// Closes the session; its number, if the device was there.
    fn leave(&mut self) -> Option<u32> {
        let session = self.session.number();
        self.session = Session::Closed;
        self.pump.session.set(None);
        session
    }
}
