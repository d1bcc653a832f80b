//! The gateway's end of a line: its link, the queue of messages for it, and who is at the other end.

use std::collections::VecDeque;

use fieldgate::limits::{DELIVERY_PER_DEVICE_MAX, LINK_MESSAGE_BYTES_MAX, LINK_QUEUE_COUNT};
use fieldgate::link::elastic::GatewayMemory;
use fieldgate::link::{Config, Event, Link};
use fieldgate::time::Instant;
use fieldgate::wire::{DeviceId, MessageId, Role, ToDevice, ToGateway};

use super::line::{Lane, Line};
use super::{Context, Fault};

type GatewayLink = Link<GatewayMemory>;

/// A message that waits for room, for the session it is meant for.
struct Queued {
    session: u32,
    octets: Vec<u8>,
    until: Option<Instant>,
    message: Option<MessageId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Closed,
    Unnamed,
    Up { session: u32, message_bytes_max: usize },
    Refused,
}

/// What a pump reports.
pub(super) enum Heard {
    Up { session: u32, message_bytes_max: u16, in_flight_max: usize },
    Down { session: u32 },
    Silent { session: u32 },
    Message(ToGateway),
}

/// Why a message is not taken.
pub(super) enum NotTaken {
    Full,
    TooLarge,
}

pub(super) struct Pump {
    index: usize,
    device: DeviceId,
    link: Option<Box<GatewayLink>>,
    session: Session,
    queue: VecDeque<Queued>,
    lane: Lane,
    epoch: u64,
}

impl Pump {
    pub fn new(index: usize, device: DeviceId, epoch: u64) -> Self {
        let (link, session, queue) = (None, Session::Closed, VecDeque::new());
        Self { index, device, link, session, queue, lane: Lane::default(), epoch }
    }

    /// The line is there.
    pub fn plugged(&mut self, line: Line, context: &mut Context) {
        let boot_id = context.dice.below(u64::from(u32::MAX)) as u32;
        let config = Config { role: Role::Gateway, boot_id, mtu: line.mtu };
        self.link = Some(Box::new(GatewayLink::new(config, self.now(context))));
        self.lane = Lane::default();
        self.transmit(line, context);
    }

    /// The line is gone.
    pub fn unplugged(&mut self) -> Option<Heard> {
        self.link = None;
        self.leave().map(|session| Heard::Down { session })
    }

    pub fn wake(&self) -> Option<u64> {
        Some(self.epoch + self.link.as_ref()?.poll_timeout()?.as_millis())
    }

    pub fn handle_timeout(&mut self, line: Line, context: &mut Context) -> Option<Heard> {
        let now = self.now(context);
        let event = self.link.as_mut().and_then(|link| link.handle_timeout(now));
        let heard = event.and_then(|event| self.take(event));
        self.transmit(line, context);
        heard
    }

    pub fn line_free(&mut self, line: Line, context: &mut Context) {
        self.lane.freed();
        self.transmit(line, context);
    }

    /// Takes octets; tells what they brought.
    pub fn feed(&mut self, mut octets: &[u8], line: Line, sessions: &mut u32, context: &mut Context) -> Vec<Heard> {
        let now = self.now(context);
        let mut heard = Vec::new();
        while !octets.is_empty() {
            let Some(link) = &mut self.link else { break };
            let (taken, event) = link.feed(octets, now);
            octets = &octets[taken..];
            heard.extend(event.and_then(|event| self.take(event)));
            heard.extend(self.messages(sessions));
        }
        self.transmit(line, context);
        heard
    }

    /// Queues a message; one for a session that is over is dropped.
    pub fn send(
        &mut self,
        session: u32,
        message: &ToDevice<'_>,
        until: Option<Instant>,
        line: Line,
        context: &mut Context,
    ) -> Result<(), NotTaken> {
        let Session::Up { session: open, message_bytes_max } = self.session else { return Ok(()) };
        if open != session {
            return Ok(());
        }
        if self.queue.len() >= LINK_QUEUE_COUNT {
            return Err(NotTaken::Full);
        }
        let mut octets = [0; LINK_MESSAGE_BYTES_MAX];
        let bytes = message.emit(&mut octets).ok().filter(|bytes| *bytes <= message_bytes_max);
        let octets = octets[..bytes.ok_or(NotTaken::TooLarge)?].to_vec();
        let message = if let ToDevice::Push { message, .. } = message { Some(*message) } else { None };
        self.queue.push_back(Queued { session, octets, until, message });
        self.transmit(line, context);
        Ok(())
    }

    fn take(&mut self, event: Event) -> Option<Heard> {
        match event {
            Event::Opened { .. } => {
                let left = self.leave();
                self.session = Session::Unnamed;
                left.map(|session| Heard::Down { session })
            }
            Event::Message | Event::ProbeAnswered(_) => None,
            Event::Restarted | Event::Broken => self.leave().map(|session| Heard::Down { session }),
            Event::Silent => self.leave().map(|session| Heard::Silent { session }),
            Event::VersionRefused(_) => None,
        }
    }

    fn messages(&mut self, sessions: &mut u32) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(link) = &mut self.link
            && let Some((stream, octets)) = link.message()
        {
            let message = ToGateway::parse(octets).ok();
            link.release(stream);
            if let Some(ToGateway::Sleep { .. }) = message {
                link.sleep();
            }
            heard.extend(self.message(message, sessions));
        }
        heard
    }

    fn message(&mut self, message: Option<ToGateway>, sessions: &mut u32) -> Option<Heard> {
        match (self.session, message) {
            (Session::Unnamed, Some(ToGateway::Attach { device, profile })) if device == self.device => {
                *sessions += 1;
                let fits = self.link.as_ref().and_then(|link| link.message_bytes_max()).unwrap_or(0);
                let message_bytes_max = fits.min(profile.message_bytes_max.into());
                self.session = Session::Up { session: *sessions, message_bytes_max };
                let message_bytes_max = u16::try_from(message_bytes_max).unwrap_or(u16::MAX);
                let in_flight_max = usize::from(profile.memory / 2).clamp(1, DELIVERY_PER_DEVICE_MAX);
                Some(Heard::Up { session: *sessions, message_bytes_max, in_flight_max })
            }
            (Session::Unnamed, _) => {
                self.session = Session::Refused;
                None
            }
            (Session::Up { .. }, Some(ToGateway::Attach { .. }) | None) => None,
            (Session::Up { .. }, Some(message)) => Some(Heard::Message(message)),
            (Session::Closed | Session::Refused, _) => None,
        }
    }

    fn leave(&mut self) -> Option<u32> {
        match std::mem::replace(&mut self.session, Session::Closed) {
            Session::Up { session, .. } => Some(session),
            _ => None,
        }
    }

    fn transmit(&mut self, line: Line, context: &mut Context) {
        let now = self.now(context);
        self.refill(now, context);
        let Some(link) = &mut self.link else { return };
        self.lane.transmit(self.index, Role::Device, line, context, |frame| link.poll_transmit(now, frame));
    }

    /// Hands queued messages to the link while it has room for the largest.
    fn refill(&mut self, now: Instant, context: &mut Context) {
        let ignores = context.fault == Some(Fault::IgnoresDeadline);
        let is_push = self.queue.front().is_some_and(|queued| queued.message.is_some());
        if ignores && is_push && context.now % 40_000 < 25_000 {
            return;
        }
        let Some(link) = &mut self.link else { return };
        let session = match self.session {
            Session::Up { session, .. } => Some(session),
            _ => None,
        };
        while session.is_none() || link.room() >= LINK_MESSAGE_BYTES_MAX {
            let newest = context.fault == Some(Fault::TakesNewestFirst);
            let queued = if newest { self.queue.pop_back() } else { self.queue.pop_front() };
            let Some(queued) = queued else { return };
            let is_late = !ignores && queued.until.is_some_and(|until| now >= until);
            if is_late || session != Some(queued.session) {
                continue;
            }
            if link.send(&queued.octets).is_ok()
                && let Some(message) = queued.message
            {
                context.check.handed(message, context.now);
            }
        }
    }

    fn now(&self, context: &Context) -> Instant {
        Instant::from_millis(context.now - self.epoch)
    }
}
