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
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

    use super::*;
    use crate::link::device::{Device, Received};
    use crate::link::memory::DeviceMemory;
    use crate::transport::stack::{ByteStream, memory};
    use crate::wire::MessageId;
    use crate::wire::message::Age;

    const OCTETS_PER_MS: u64 = 11;

    /// A port with a large buffer and a slow line behind it.
    struct Port {
        stream: DuplexStream,
        busy_until: tokio::time::Instant,
    }

    impl ByteStream for Port {
        fn busy_for(&self) -> Duration {
            self.busy_until.saturating_duration_since(tokio::time::Instant::now())
        }
    }

    impl AsyncRead for Port {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, out)
        }
    }

    impl AsyncWrite for Port {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            let wrote = Pin::new(&mut self.stream).poll_write(context, octets);
            if let Poll::Ready(Ok(bytes)) = &wrote {
                let from = self.busy_until.max(tokio::time::Instant::now());
                self.busy_until = from + Duration::from_micros(*bytes as u64 * 1_000 / OCTETS_PER_MS);
            }
            wrote
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    type Meter = Device<DeviceMemory<256, 4_098, 4_098, 512>, 16>;

    /// The device at the far end of the line, and how many octets came.
    struct Far {
        device: Meter,
        stream: DuplexStream,
        bytes: u64,
        start: tokio::time::Instant,
    }

    impl Far {
        /// A millisecond passes; returns the lengths of the messages that came.
        async fn pass(&mut self) -> Vec<usize> {
            let (mut octets, mut came) = ([0; 256], Vec::new());
            let until = tokio::time::Instant::now() + Duration::from_millis(1);
            loop {
                let now = Instant::ZERO + self.start.elapsed();
                while let Some(bytes) = self.device.poll_transmit(now, &mut octets) {
                    self.stream.write_all(&octets[..bytes]).await.expect("it is open");
                }
                let Ok(read) = tokio::time::timeout_at(until, self.stream.read(&mut octets)).await else { return came };
                let bytes = read.expect("it is open");
                self.bytes += bytes as u64;
                let mut rest = &octets[..bytes];
                while !rest.is_empty() {
                    let (fed, _) = self.device.feed(rest, now);
                    rest = &rest[fed..];
                    while let Some(Received::New(message)) = self.device.poll_message() {
                        let ToDevice::Push { body, .. } = message else { continue };
                        came.push(body.len());
                    }
                }
            }
        }
    }

    fn push(queue: &Queue, stream: Stream, session: u32, bytes: usize) {
        let (message, body) = (MessageId([bytes as u8; 8]), &vec![7; bytes][..]);
        let push = ToDevice::Push { message, channel: ChannelId(1), age: Age::UNKNOWN, body };
        let mut octets = [0; LINK_MESSAGE_BYTES_MAX];
        let bytes = push.emit(&mut octets).expect("it fits");
        queue.push(stream, Queued { session, octets: octets[..bytes].into(), until: None }).expect("room");
    }

    /// C-33: what the driver holds cannot be overtaken, so it never holds more than what keeps the line busy.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn c_33_an_urgent_message_waits_for_milliseconds_of_others() {
        let start = tokio::time::Instant::now();
        let (near, stream) = tokio::io::duplex(65_536);
        let (report, mut events) = mpsc::channel(8);
        let (queue, id) = (Rc::<Queue>::default(), "meter".parse::<DeviceId>().expect("an id"));
        let (_plug, socket) = memory::pair();
        let mut pump = Pump {
            device: id.clone(),
            mtu: 256,
            listener: Listener::memory(socket),
            queue: Rc::clone(&queue),
            input: Rc::new(RefCell::new([0; READ_BYTES])),
            report,
            session: Rc::default(),
            session_count: Rc::default(),
            start,
        };
        tokio::task::spawn_local(async move {
            let port = Box::new(Port { stream: near, busy_until: start });
            Carrier::new(&mut pump, port).carry(&mut Retry::new()).await;
        });
        let config = Config { role: Role::Device, boot_id: 7, mtu: 256 };
        let mut far = Far { device: Meter::new(id, config, Instant::ZERO), stream, bytes: 0, start };
        let session = loop {
            far.pass().await;
            if let Ok(Event::Up { session, .. }) = events.try_recv() {
                break session;
            }
        };
        push(&queue, Stream::Ordered, session, 3_900);
        let before = far.bytes;
        for _ in 0..100 {
            assert_eq!(far.pass().await, [0; 0]);
        }
        let sent = far.bytes - before;
        assert!(sent <= (100 + LINE_AHEAD_MS) * OCTETS_PER_MS + 2 * 256, "{sent} octets in 100 ms");
        assert!(sent >= 95 * OCTETS_PER_MS, "the line is busy throughout: {sent} octets in 100 ms");
        push(&queue, Stream::Urgent, session, 20);
        let mut waited_ms = 0;
        while far.pass().await != [20] {
            waited_ms += 1;
            assert!(waited_ms <= LINE_AHEAD_MS + 2 * 256 / OCTETS_PER_MS, "it waits for {waited_ms} ms");
        }
    }

    /// Review.
    struct Bench {
        plug: memory::Plug,
        events: mpsc::Receiver<Event>,
        queue: Rc<Queue>,
        start: tokio::time::Instant,
    }

    fn bench() -> Bench {
        let start = tokio::time::Instant::now();
        let (report, events) = mpsc::channel(64);
        let (queue, id) = (Rc::<Queue>::default(), "meter".parse::<DeviceId>().expect("an id"));
        let (plug, socket) = memory::pair();
        let mut pump = Pump {
            device: id,
            mtu: 256,
            listener: Listener::memory(socket),
            queue: Rc::clone(&queue),
            input: Rc::new(RefCell::new([0; READ_BYTES])),
            report,
            session: Rc::default(),
            session_count: Rc::default(),
            start,
        };
        tokio::task::spawn_local(async move { pump.run().await });
        Bench { plug, events, queue, start }
    }

    fn far(bench: &Bench, boot_id: u32) -> Far {
        let config = Config { role: Role::Device, boot_id, mtu: 256 };
        let device = Meter::new("meter".parse().expect("an id"), config, Instant::ZERO);
        let stream = bench.plug.connect(65_536).expect("it listens");
        Far { device, stream, bytes: 0, start: bench.start }
    }

    async fn session_of(bench: &mut Bench, far: &mut Far) -> u32 {
        for _ in 0..5_000 {
            far.pass().await;
            if let Ok(Event::Up { session, .. }) = bench.events.try_recv() {
                return session;
            }
        }
        panic!("no session")
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r9_the_newer_connection_takes_over_when_the_older_one_ends() {
        let mut bench = bench();
        let mut first = far(&bench, 7);
        session_of(&mut bench, &mut first).await;
        let mut second = far(&bench, 8);
        // Neither says anything for 100 ms, and then the older one is gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(first);
        let mut octets = [0; 256];
        let read = tokio::time::timeout(Duration::from_secs(5), second.stream.read(&mut octets)).await;
        assert!(!matches!(read, Ok(Ok(0))), "the newer connection was closed, and no other one is there");
    }

    /// The device is there and answers each message, but the one PROBE frame was lost, or overtaken before it was
    /// answered (which the specification allows).
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r10_a_device_that_acknowledges_messages_is_not_replaced() {
        let mut bench = bench();
        let mut first = far(&bench, 7);
        let session = session_of(&mut bench, &mut first).await;
        let _second = far(&bench, 8);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut acks = 0;
        for number in 1..400 {
            // A message each 10 ms; the device looks at its port each 10 ms.
            push(&bench.queue, Stream::Ordered, session, 20 + number % 50);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let ended = tokio::time::timeout(Duration::ZERO, first.pass_and_accept()).await;
            while let Ok(event) = bench.events.try_recv() {
                acks += usize::from(matches!(event, Event::Message { message: ToGateway::Ack { .. }, .. }));
                assert!(!matches!(event, Event::Down { .. }), "after {acks} messages acknowledged: {event:?}");
            }
            assert!(!matches!(ended, Ok(Err(_))), "closed after {acks} messages acknowledged");
        }
        assert!(acks > 300);
    }

    /// A channel that is urgent by configuration, and a device without an urgent stream.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r11_an_urgent_message_that_does_not_fit_the_urgent_stream_waits_for_room_in_the_other() {
        let mut bench = bench();
        let config = Config { role: Role::Device, boot_id: 7, mtu: 256 };
        type Plain = Device<DeviceMemory<256, 4_098, 0, 512>, 16>;
        let mut device = Plain::new("meter".parse().expect("an id"), config, Instant::ZERO);
        let mut stream = bench.plug.connect(65_536).expect("it listens");
        let (mut octets, mut came, mut session, mut is_pushed) = ([0; 256], Vec::new(), None, false);
        for _ in 0..2_000 {
            let now = Instant::ZERO + bench.start.elapsed();
            while let Some(bytes) = device.poll_transmit(now, &mut octets) {
                stream.write_all(&octets[..bytes]).await.expect("it is open");
            }
            if let Ok(Ok(bytes)) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut octets)).await {
                let mut rest = &octets[..bytes];
                while !rest.is_empty() {
                    let (fed, _) = device.feed(rest, now);
                    rest = &rest[fed..];
                    while let Some(Received::New(message)) = device.poll_message() {
                        if let ToDevice::Push { body, .. } = message {
                            came.push(body.len());
                        }
                    }
                }
            }
            if let Ok(Event::Up { session: number, .. }) = bench.events.try_recv() {
                session = Some(number);
            }
            if let (Some(session), false) = (session, is_pushed) {
                is_pushed = true;
                push(&bench.queue, Stream::Ordered, session, 3_900);
                push(&bench.queue, Stream::Ordered, session, 3_901);
                // It comes a moment later, as it does when another channel is busy.
                tokio::time::sleep(Duration::from_millis(1)).await;
                push(&bench.queue, Stream::Urgent, session, 1_000);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        came.sort_unstable();
        assert_eq!(came, [1_000, 3_900, 3_901]);
    }

    impl Far {
        /// Reads all that is there, feeds it, and only then sends: a loop that is not always at its port.
        async fn pass_and_accept(&mut self) -> std::io::Result<()> {
            let mut octets = [0; 4096];
            let now = Instant::ZERO + self.start.elapsed();
            let read = tokio::time::timeout(Duration::from_millis(1), self.stream.read(&mut octets)).await;
            if let Ok(Ok(bytes)) = read {
                let mut rest = &octets[..bytes];
                while !rest.is_empty() {
                    let (fed, _) = self.device.feed(rest, now);
                    rest = &rest[fed..];
                    let mut ids = Vec::new();
                    while let Some(received) = self.device.poll_message() {
                        if let Received::New(ToDevice::Push { message, .. }) = received {
                            ids.push(message);
                        }
                    }
                    ids.into_iter().for_each(|id| self.device.accept(id));
                }
            }
            while let Some(bytes) = self.device.poll_transmit(now, &mut octets) {
                self.stream.write_all(&octets[..bytes]).await?;
            }
            Ok(())
        }
    }

    /// The driver of USB CDC-ACM devices (Linux, cdc-acm.c): a write is gone within a millisecond, and until then
    /// TIOCOUTQ says 20 packets of 64 octets, "inaccurate (overcounts), but it works".
    struct Acm {
        stream: DuplexStream,
        wrote_at: tokio::time::Instant,
        held: u64,
        looks: Rc<Cell<u32>>,
    }

    impl ByteStream for Acm {
        fn busy_for(&self) -> Duration {
            self.looks.set(self.looks.get() + 1);
            let is_busy = self.wrote_at.elapsed() < Duration::from_millis(1);
            Duration::from_micros(if is_busy { self.held * 10_000_000 / 115_200 } else { 0 })
        }
    }

    impl AsyncRead for Acm {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, out)
        }
    }

    impl AsyncWrite for Acm {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.wrote_at = tokio::time::Instant::now();
            Pin::new(&mut self.stream).poll_write(context, octets)
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn acm_ms(held: u64) -> u128 {
        let start = tokio::time::Instant::now();
        let (near, stream) = tokio::io::duplex(65_536);
        let (report, mut events) = mpsc::channel(8);
        let (queue, id) = (Rc::<Queue>::default(), "meter".parse::<DeviceId>().expect("an id"));
        let (_plug, socket) = memory::pair();
        let mut pump = Pump {
            device: id.clone(),
            mtu: 256,
            listener: Listener::memory(socket),
            queue: Rc::clone(&queue),
            input: Rc::new(RefCell::new([0; READ_BYTES])),
            report,
            session: Rc::default(),
            session_count: Rc::default(),
            start,
        };
        tokio::task::spawn_local(async move {
            let port = Box::new(Acm { stream: near, wrote_at: start, held, looks: Rc::default() });
            Carrier::new(&mut pump, port).carry(&mut Retry::new()).await;
        });
        let config = Config { role: Role::Device, boot_id: 7, mtu: 256 };
        let mut far = Far { device: Meter::new(id, config, Instant::ZERO), stream, bytes: 0, start };
        let session = loop {
            far.pass().await;
            if let Ok(Event::Up { session, .. }) = events.try_recv() {
                break session;
            }
        };
        push(&queue, Stream::Ordered, session, 3_900);
        let from = tokio::time::Instant::now();
        while far.pass().await != [3_900] {}
        from.elapsed().as_millis()
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r12_a_usb_device_is_not_slowed_down_by_a_driver_that_overcounts() {
        let good = acm_ms(0).await;
        let full_speed = acm_ms(20 * 64).await;
        let high_speed = acm_ms(20 * 512).await;
        assert!(
            full_speed <= 400 && high_speed <= 400,
            "3900 octets in {full_speed} ms at full speed, {high_speed} ms at high speed; {good} ms if the driver counts; \
             a real line of 115200 baud takes 340 ms"
        );
    }

    /// A device that hangs: its driver holds 104 octets for ever, 9 ms of the line.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r13_a_port_that_stands_still_costs_little() {
        let start = tokio::time::Instant::now();
        let (near, _stream) = tokio::io::duplex(65_536);
        let (report, _events) = mpsc::channel(8);
        let (_plug, socket) = memory::pair();
        let looks = Rc::new(Cell::new(0));
        let mut pump = Pump {
            device: "meter".parse().expect("an id"),
            mtu: 256,
            listener: Listener::memory(socket),
            queue: Rc::default(),
            input: Rc::new(RefCell::new([0; READ_BYTES])),
            report,
            session: Rc::default(),
            session_count: Rc::default(),
            start,
        };
        let wrote_at = start + Duration::from_secs(3_600);
        let port = Box::new(Acm { stream: near, wrote_at, held: 104, looks: Rc::clone(&looks) });
        struct Stuck(Box<Acm>);
        impl ByteStream for Stuck {
            fn busy_for(&self) -> Duration {
                self.0.looks.set(self.0.looks.get() + 1);
                Duration::from_millis(9)
            }
        }
        impl AsyncRead for Stuck {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                out: &mut ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                Pin::new(&mut self.0.stream).poll_read(context, out)
            }
        }
        impl AsyncWrite for Stuck {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
                Poll::Ready(Ok(1))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        tokio::task::spawn_local(async move {
            Carrier::new(&mut pump, Box::new(Stuck(port))).carry(&mut Retry::new()).await;
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(looks.get() < 600, "{} looks in a minute", looks.get());
    }

    /// A device acknowledges its last push and sleeps, in one go. The gateway's machine answers the Ack with Status 0, as
    /// "one with 0 follows as soon as nothing waits" says, and Awake with a Status of that moment.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r15_what_a_device_hears_first_when_it_wakes_is_not_hours_old() {
        use crate::wire::message::Uplink;
        let mut bench = bench();
        let mut far = far(&bench, 7);
        let session = session_of(&mut bench, &mut far).await;
        let say = |waiting, time| {
            let status = ToDevice::Status { uplink: Uplink::Connected, waiting, time };
            let mut octets = [0; 32];
            let bytes = status.emit(&mut octets).expect("it fits");
            Queued { session, octets: octets[..bytes].into(), until: None }
        };
        far.device.send(&ToGateway::Ack { message: MessageId([1; 8]) }).expect("room");
        far.device.send(&ToGateway::Sleep { seconds: 3_600 }).expect("room");
        for _ in 0..20 {
            far.pass().await;
            if let Ok(Event::Message { message: ToGateway::Ack { .. }, .. }) = bench.events.try_recv() {
                bench.queue.push(Stream::Ordered, say(0, 1_800_000_000_000)).expect("room");
            }
        }
        assert!(far.device.is_idle(), "the device may switch off");
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        far.device.send(&ToGateway::Awake).expect("room");
        let mut octets = [0; 256];
        let mut heard = Vec::new();
        for _ in 0..50 {
            let now = Instant::ZERO + bench.start.elapsed();
            while let Some(bytes) = far.device.poll_transmit(now, &mut octets) {
                far.stream.write_all(&octets[..bytes]).await.expect("it is open");
            }
            if let Ok(Ok(bytes)) = tokio::time::timeout(Duration::from_millis(1), far.stream.read(&mut octets)).await {
                let mut rest = &octets[..bytes];
                while !rest.is_empty() {
                    let (fed, _) = far.device.feed(rest, now);
                    rest = &rest[fed..];
                    while let Some(Received::New(message)) = far.device.poll_message() {
                        if let ToDevice::Status { waiting, time, .. } = message {
                            heard.push((waiting, time));
                        }
                    }
                }
            }
            if let Ok(Event::Message { message: ToGateway::Awake, .. }) = bench.events.try_recv() {
                bench.queue.push(Stream::Ordered, say(2, 1_800_003_600_000)).expect("room");
            }
        }
        assert_eq!(heard.first(), Some(&(2, 1_800_003_600_000)), "all it heard: {heard:?}");
    }

    /// A push is handed over in the moment in which its device falls asleep, and is of use for five seconds more.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn r16_a_push_that_expired_while_its_device_slept_does_not_reach_it() {
        let mut bench = bench();
        let mut far = far(&bench, 7);
        let session = session_of(&mut bench, &mut far).await;
        far.device.send(&ToGateway::Sleep { seconds: 3_600 }).expect("room");
        for _ in 0..20 {
            far.pass().await;
            if let Ok(Event::Message { message: ToGateway::Sleep { .. }, .. }) = bench.events.try_recv() {
                let push = ToDevice::Push {
                    message: MessageId([9; 8]),
                    channel: ChannelId(1),
                    age: Age::UNKNOWN,
                    body: b"open the door",
                };
                let mut octets = [0; 64];
                let bytes = push.emit(&mut octets).expect("it fits");
                let until = Some(Instant::ZERO + bench.start.elapsed() + Duration::from_secs(5));
                bench
                    .queue
                    .push(Stream::Ordered, Queued { session, octets: octets[..bytes].into(), until })
                    .expect("room");
            }
        }
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        far.device.send(&ToGateway::Awake).expect("room");
        for _ in 0..50 {
            assert_eq!(far.pass().await, [0; 0], "an hour late");
        }
    }
}
