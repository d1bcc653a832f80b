//! One pump: it opens the endpoint of one device again and again, and carries octets between the connection and a
//! [`Link`].
//!
//! It holds no decisions about messages. Reading and writing wait together: a device that does not read is still heard.
//! Messages are taken from the queue only while the link has room for the largest one, and octets from the line only when
//! what they brought before is reported.
//!
//! A gateway has many of these, and most wait. So all that a pump does it does in one loop, which waits in one place.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::queue::{Queue, Queued};
use super::session::{Heard, Session};
use super::{DownReason, Event, Open};
use crate::limits::{
    DELIVERY_PER_DEVICE_MAX, LINE_AHEAD_MS, LINE_STILL_MS, LINK_CLAIM_MS, LINK_MESSAGE_BYTES_MAX, LINK_REOPEN_MS_MAX,
    LINK_REOPEN_MS_MIN, LINK_WINDOW_BYTES_MAX,
};
use crate::link::elastic::GatewayMemory;
use crate::link::{self, Config, Link, Role};
use crate::random::{self, SystemRandom};
use crate::time::{Duration, Instant};
use crate::transport::listener::{EstablishmentError, Listener};
use crate::transport::stack::{LinkConnection, Outgoing, Ready, ready_in};
use crate::wire::frame::Stream;
use crate::wire::message::Profile;
use crate::wire::{ChannelId, DeviceId, Refusal, ToDevice, ToGateway};

type GatewayLink = Link<GatewayMemory>;

/// Octets read at once. What they and a full window of messages of two octets bring is the most that waits to be reported.
pub(super) const READ_BYTES: usize = 256;

/// The task of one device.
pub(super) struct Pump {
    pub device: DeviceId,
    pub mtu: u16,
    pub listener: Listener,
    pub queue: Rc<Queue>,
    /// What was read last, of all pumps: nobody waits between reading and feeding.
    pub input: Rc<RefCell<[u8; READ_BYTES]>>,
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
    pub async fn run(&mut self) {
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
            let mut carrier = Carrier::new(self, connection);
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
        if let Some(reason) = retry.news(reason) {
            self.tell(Event::Retrying { device: self.device.clone(), reason }).await;
        }
    }

    /// Waits for room. That nobody listens any more is noticed where the queue ends.
    async fn tell(&self, event: Event) {
        match self.report.reserve().await {
            Ok(place) => place.send(event),
            Err(_) => tracing::trace!(device = %self.device, "nobody listens to this link"),
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

    /// The reason, if it is another one than before.
    fn news(&mut self, reason: String) -> Option<String> {
        let is_news = self.reason.as_ref() != Some(&reason);
        self.reason = Some(reason.clone());
        is_news.then_some(reason)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(LINK_REOPEN_MS_MAX);
    }
}

/// How often a busy line is looked at. What drivers say of it is not always right, and a port may stand still.
#[derive(Default)]
struct Line {
    busy_for: Duration,
    pause: Duration,
}

impl Line {
    /// How long to wait before it is looked at again; not at all if it is free soon.
    fn busy_until(&mut self, busy_for: Duration) -> Option<Duration> {
        let ahead = Duration::from_millis(LINE_AHEAD_MS);
        let stands_still = busy_for >= self.busy_for && !self.pause.is_zero();
        self.busy_for = busy_for;
        if busy_for <= ahead {
            self.pause = Duration::ZERO;
            return None;
        }
        self.pause = if stands_still {
            (self.pause * 2).min(Duration::from_millis(LINE_STILL_MS))
        } else {
            (busy_for - ahead).clamp(ahead / 2, ahead)
        };
        Some(self.pause)
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
    /// When the line, which is busy, is looked at again.
    free_at: Option<tokio::time::Instant>,
    line: Line,
    /// What is to be reported.
    reports: VecDeque<Event>,
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
            free_at: None,
            line: Line::default(),
            reports: VecDeque::new(),
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
        self.end_session(reason);
        while !self.reports.is_empty() && tell_next(&mut self.reports, &self.pump.report).await {}
        tracing::debug!(device = %self.pump.device, counts = ?self.link.counts(), %reason, "link connection ended");
        match (end, self.claimant.take()) {
            // The device was cut off and is back before that was noticed.
            (End::Lost(_), Some(claimant)) => End::Replaced(claimant.connection),
            (end, _) => end,
        }
    }

    async fn pump_octets(&mut self, retry: &mut Retry) -> End {
        let input = Rc::clone(&self.pump.input);
        let mut is_listening = self.pump.listener.yields_more();
        loop {
            self.take_queued();
            self.refill();
            let deadline = self.deadline();
            let has_reports = !self.reports.is_empty();
            tokio::select! {
                is_told = tell_next(&mut self.reports, &self.pump.report), if has_reports => {
                    if !is_told {
                        return End::Detached;
                    }
                }
                ready = ready_in(&mut *self.connection, &input, self.output.rest()), if !has_reports => match ready {
                    Ready::Read(Ok(0)) => return End::Lost(DownReason::Closed),
                    Ready::Read(Ok(bytes)) => self.feed(&input.borrow()[..bytes], retry),
                    Ready::Wrote(Ok(bytes)) if bytes > 0 => self.output.wrote(bytes),
                    Ready::Wrote(Ok(_)) => return End::Lost(DownReason::Closed),
                    Ready::Read(Err(error)) | Ready::Wrote(Err(error)) => {
                        return End::Lost(DownReason::Failed(error.kind()));
                    }
                },
                () = sleep_until(deadline.unwrap_or(self.pump.start)), if deadline.is_some() => {
                    if let Some(connection) = self.claim_over() {
                        return End::Replaced(connection);
                    }
                    let event = self.link.handle_timeout(self.pump.now());
                    self.take(event, retry);
                }
                () = self.pump.queue.arrived() => {}
                newer = accept(&mut self.pump.listener), if is_listening && self.claimant.is_none() => match newer {
                    // A device that is there and hears may show that it still is.
                    Ok(connection) if self.session.number().is_some() && !self.link.is_asleep() => self.claimed(connection),
                    Ok(connection) => return End::Replaced(connection),
                    // Asked again once this connection has ended, so that a listener that fails is no spin.
                    Err(_) => is_listening = false,
                },
            }
        }
    }

    /// When the link has something to do, the line is free, or whoever claims to be the device takes over.
    fn deadline(&self) -> Option<tokio::time::Instant> {
        let link = self.link.poll_timeout().map(|at| self.pump.start + Duration::from_millis(at.as_millis()));
        let claim = self.claimant.as_ref().map(|claimant| claimant.until);
        link.into_iter().chain(claim).chain(self.free_at).min()
    }

    /// Hands messages to the link while it has room for them. Without a session there is no need of any. For a device that
    /// sleeps they wait, but what was right when it fell asleep is no word for who wakes.
    fn take_queued(&mut self) {
        if self.link.is_asleep() {
            return self.pump.queue.drop_where(|octets| matches!(ToDevice::parse(octets), Ok(ToDevice::Status { .. })));
        }
        while self.has_room_for_urgent()
            && let Some(queued) = self.pump.queue.pop(Stream::Urgent)
        {
            self.send_urgent(&queued);
        }
        while (self.session.number().is_none() || self.link.room() >= LINK_MESSAGE_BYTES_MAX)
            && let Some(queued) = self.pump.queue.pop(Stream::Ordered)
        {
            self.send(&queued);
        }
    }

    /// Whether the next urgent message can be handed to the link: to the urgent stream, or to the other if it never fits that.
    fn has_room_for_urgent(&self) -> bool {
        let Some(bytes) = self.pump.queue.next_bytes(Stream::Urgent) else { return false };
        let fits = bytes + 2 <= usize::from(self.urgent_window);
        let room = if fits { self.link.urgent_room() } else { self.link.room() };
        self.session.number().is_none() || room >= LINK_MESSAGE_BYTES_MAX
    }

    /// Fetches the next frame once the last one is written and has nearly left: what the driver holds is not overtaken.
    fn refill(&mut self) {
        let at = tokio::time::Instant::now();
        if !self.output.rest().is_empty() || self.free_at.is_some_and(|free_at| free_at > at) {
            return;
        }
        self.free_at = self.line.busy_until(self.connection.busy_for()).map(|pause| at + pause);
        if self.free_at.is_some() {
            return;
        }
        let now = self.pump.now();
        self.output.fill(|octets| self.link.poll_transmit(now, octets));
    }

    fn feed(&mut self, mut octets: &[u8], retry: &mut Retry) {
        let now = self.pump.now();
        while !octets.is_empty() {
            let (taken, event) = self.link.feed(octets, now);
            octets = &octets[taken..];
            self.take(event, retry);
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

    /// Once the time to answer is over: the connection that takes over, unless this one was heard. The question goes unanswered
    /// when other frames follow it, but then those are.
    fn claim_over(&mut self) -> Option<LinkConnection> {
        let now = tokio::time::Instant::now();
        self.claimant.as_ref().filter(|claimant| claimant.until <= now)?;
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

    fn take(&mut self, event: Option<link::Event>, retry: &mut Retry) {
        match event {
            None => {}
            Some(link::Event::Opened { boot_id, .. }) => {
                self.end_session(DownReason::Restarted);
                self.session = Session::Unnamed { boot_id };
            }
            Some(link::Event::Message) => self.hear_all(retry),
            Some(link::Event::Restarted) => self.end_session(DownReason::Restarted),
            Some(link::Event::Broken) => self.end_session(DownReason::Broken),
            Some(link::Event::ProbeAnswered(_)) => self.claim_refused(),
            Some(link::Event::Silent) => self.silent(),
            Some(link::Event::VersionRefused(version)) => {
                let reason =
                    format!("{}: the device speaks version {version} of the link protocol", self.pump.listener);
                if let Some(reason) = retry.news(reason) {
                    self.reports.push_back(Event::Retrying { device: self.pump.device.clone(), reason });
                }
            }
        }
    }

    /// Takes every message that is there.
    fn hear_all(&mut self, retry: &mut Retry) {
        while let Some((stream, octets)) = self.link.message() {
            let heard = self.session.hear(octets, &self.pump.device);
            self.link.release(stream);
            self.hear(heard, retry);
        }
    }

    fn hear(&mut self, heard: Heard, retry: &mut Retry) {
        let device = self.pump.device.clone();
        match heard {
            Heard::Attached { boot_id, profile } => {
                *retry = Retry::new();
                self.up(boot_id, profile);
            }
            Heard::Stranger(claimed) => {
                self.refuse();
                self.reports.push_back(Event::AttachRefused { device, claimed });
            }
            Heard::Message { session, message } => {
                if let ToGateway::Sleep { .. } = message {
                    self.link.sleep();
                }
                self.reports.push_back(Event::Message { device, session, message });
            }
            Heard::Nothing => {}
        }
    }

    fn up(&mut self, boot_id: u32, profile: Profile) {
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
        self.reports.push_back(Event::Up { device, session, boot_id, message_bytes_max, in_flight_max });
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

    fn silent(&mut self) {
        if let Some(session) = self.leave() {
            self.reports.push_back(Event::Silent { device: self.pump.device.clone(), session });
        }
    }

    fn end_session(&mut self, reason: DownReason) {
        if let Some(session) = self.leave() {
            self.reports.push_back(Event::Down { device: self.pump.device.clone(), session, reason });
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

/// Its memory is there only while a connection can come: a serial port has one.
async fn accept(listener: &mut Listener) -> Result<LinkConnection, EstablishmentError> {
    Box::pin(listener.accept()).await
}

/// Reports the oldest event once there is room. False when nobody listens any more. Cancel safe.
async fn tell_next(events: &mut VecDeque<Event>, report: &mpsc::Sender<Event>) -> bool {
    let Ok(place) = report.reserve().await else { return false };
    if let Some(event) = events.pop_front() {
        place.send(event);
    }
    if events.is_empty() {
        *events = VecDeque::new();
    }
    true
}

#[cfg(test)]
mod tests;
