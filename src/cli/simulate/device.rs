//! The device itself: connects its place to a [`Device`] until told to end.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::SystemTime;

use tokio::time::sleep_until;

use super::journal::Journal;
use super::place::{Place, Site};
use super::report::Report;
use crate::limits::{
    LINK_MTU_BYTES_MAX, LINK_REOPEN_MS_MAX, LINK_REOPEN_MS_MIN, SIMULATE_LINGER_MS_MAX, SIMULATE_SEEN_COUNT,
    SIMULATE_TX_BYTES, SIMULATE_WINDOW_BYTES,
};
use crate::link::device::{Device, Event, Received};
use crate::link::memory::DeviceMemory;
use crate::link::{Config, Role};
use crate::random::{self, SeededRandom, SystemRandom};
use crate::time::{Duration, Instant};
use crate::transport::stack::{ByteStream, Outgoing, Ready, ready};
use crate::wire::cobs::DELIMITER;
use crate::wire::{ChannelId, DeviceId, MessageId, ToDevice};

/// Everything that a device can be: the largest frames and messages, and an urgent stream.
type Memory = DeviceMemory<LINK_MTU_BYTES_MAX, SIMULATE_WINDOW_BYTES, SIMULATE_WINDOW_BYTES, SIMULATE_TX_BYTES>;
type SimulatedDevice = Device<Memory, SIMULATE_SEEN_COUNT>;

/// Octets read at once.
const READ_BYTES: usize = 1024;

/// What a simulated device is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub place: Place,
    /// Who it is.
    pub id: DeviceId,
    /// Its journal.
    pub state: Option<PathBuf>,
    /// Channels it asks a subscription for each time it is up.
    pub subscribe: Vec<ChannelId>,
    /// Octets of the largest frame it takes.
    pub mtu: usize,
    /// How many of a hundred frames are lost, in each direction.
    pub loss_percent: u8,
    /// Decides which.
    pub seed: u64,
    /// After how many messages it ends.
    pub count: Option<u64>,
}

/// Why a simulated device ended.
#[derive(Debug)]
pub enum Failed {
    /// Its place cannot be made.
    Place(Place, io::Error),
    /// Its journal cannot be read or written.
    State(PathBuf, io::Error),
    /// What happened could not be reported.
    Report(io::Error),
}

/// Runs a device until `shutdown` is done or `count` messages are received; returns how many were.
///
/// `report` is called for everything that happens. The device ack of a message is sent only after `report` has
/// returned for it, so what `report` returned is what the application has. With a journal, each message waits for its
/// sync on the calling thread.
///
/// # Errors
/// See [`Failed`]. A gateway that is away is no error: the device connects again.
pub async fn device(
    options: Options,
    report: impl FnMut(&Report<'_>) -> io::Result<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<u64, Failed> {
    let mut site = Site::new(options.place.clone()).map_err(|error| Failed::Place(options.place.clone(), error))?;
    let mut application = Application::open(&options, report)?;
    let place = site.to_string();
    application.tell(&Report::Link { place: &place })?;
    let mut shutdown = pin!(shutdown);
    let mut pause = Duration::from_millis(LINK_REOPEN_MS_MIN);
    loop {
        let connected = tokio::select! {
            connected = site.connect() => connected,
            () = &mut shutdown => return Ok(application.received),
        };
        let lost = match connected {
            Ok(mut connection) => application.serve(connection.as_mut(), shutdown.as_mut()).await?,
            Err(error) => Some(error),
        };
        let Some(error) = lost else { return Ok(application.received) };
        pause = application.retrying(&place, &error, pause)?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut shutdown => return Ok(application.received),
        }
    }
}

/// The device and what stands above it.
struct Application<R> {
    report: R,
    device: Box<SimulatedDevice>,
    journal: Option<(PathBuf, Journal)>,
    subscribe: Vec<ChannelId>,
    loss: Loss,
    start: tokio::time::Instant,
    was_up: bool,
    retry_reason: Option<String>,
    received: u64,
    count: Option<u64>,
}

impl<R: FnMut(&Report<'_>) -> io::Result<()>> Application<R> {
    fn open(options: &Options, report: R) -> Result<Self, Failed> {
        let boot_id = u32::from_le_bytes(random::array(&mut SystemRandom::default()));
        let config = Config { role: Role::Device, boot_id, mtu: options.mtu };
        let mut device = Box::new(SimulatedDevice::new(options.id.clone(), config, Instant::ZERO));
        let mut journal = None;
        if let Some(path) = &options.state {
            let (opened, known) = Journal::open(path).map_err(|error| Failed::State(path.clone(), error))?;
            known.into_iter().for_each(|message| device.remember(message));
            device.keep_over_reset();
            journal = Some((path.clone(), opened));
        }
        Ok(Self {
            report,
            device,
            journal,
            subscribe: options.subscribe.clone(),
            loss: Loss::new(options.loss_percent, options.seed),
            start: tokio::time::Instant::now(),
            was_up: false,
            retry_reason: None,
            received: 0,
            count: options.count,
        })
    }

    /// Carries octets until the connection is lost, with the reason, or the device is done.
    async fn serve(
        &mut self,
        connection: &mut (dyn ByteStream + '_),
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<io::Error>, Failed> {
        let (mut input, mut output) = ([0; READ_BYTES], Outgoing::new());
        let mut end = None;
        loop {
            self.refill(&mut output);
            if end.is_none() && self.is_done() {
                end = Some(self.linger());
            }
            if end.is_some_and(|end| end <= tokio::time::Instant::now() || self.is_quiet(&output)) {
                return Ok(None);
            }
            let wake = self.device.poll_timeout().map(|at| self.start + Duration::from_millis(at.as_millis()));
            let wake = wake.into_iter().chain(end).min();
            tokio::select! {
                ready = ready(connection, &mut input, output.rest()) => match ready {
                    Ready::Read(Ok(0)) | Ready::Wrote(Ok(0)) => {
                        return Ok(end.is_none().then(|| io::ErrorKind::UnexpectedEof.into()));
                    }
                    Ready::Read(Ok(bytes)) => self.feed(&mut input[..bytes])?,
                    Ready::Wrote(Ok(bytes)) => output.wrote(bytes),
                    Ready::Read(Err(error)) | Ready::Wrote(Err(error)) => return Ok(end.is_none().then_some(error)),
                },
                () = sleep_until(wake.unwrap_or(self.start)), if wake.is_some() => {
                    let event = self.device.handle_timeout(self.now());
                    self.take(event)?;
                }
                () = shutdown.as_mut(), if end.is_none() => end = Some(self.linger()),
            }
        }
    }

    fn is_done(&self) -> bool {
        self.count.is_some_and(|count| self.received >= count)
    }

    fn linger(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_millis(SIMULATE_LINGER_MS_MAX)
    }

    fn is_quiet(&self, output: &Outgoing) -> bool {
        self.device.is_idle() && output.rest().is_empty()
    }

    /// Fetches frames until one is not lost.
    fn refill(&mut self, output: &mut Outgoing) {
        let now = self.now();
        while output.rest().is_empty() {
            let (device, loss) = (&mut self.device, &mut self.loss);
            let mut is_lost = false;
            output.fill(|octets| {
                let bytes = device.poll_transmit(now, octets)?;
                is_lost = loss.strikes();
                (!is_lost).then_some(bytes)
            });
            if !is_lost {
                return;
            }
        }
    }

    fn feed(&mut self, octets: &mut [u8]) -> Result<(), Failed> {
        let left = self.loss.thin(octets);
        let mut octets = &octets[..left];
        while !octets.is_empty() {
            let (taken, event) = self.device.feed(octets, self.now());
            octets = &octets[taken..];
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Option<Event>) -> Result<(), Failed> {
        match event {
            None => Ok(()),
            Some(Event::Up { mtu }) => self.up(mtu),
            Some(Event::Down) => self.tell(&Report::Down),
            Some(Event::VersionRefused(version)) => self.tell(&Report::VersionRefused { version }),
            Some(Event::Message) => self.hear_all(),
        }
    }

    /// Takes what is there. What comes after the last message that was asked for is left to a later device.
    fn hear_all(&mut self) -> Result<(), Failed> {
        while !self.is_done() {
            match self.hear()? {
                Heard::Nothing => break,
                Heard::Push(message) => {
                    self.device.accept(message);
                    self.received += 1;
                }
                Heard::Other => {}
            }
        }
        Ok(())
    }

    fn up(&mut self, mtu: usize) -> Result<(), Failed> {
        self.was_up = true;
        self.retry_reason = None;
        for channel in &self.subscribe {
            if let Err(error) = self.device.subscribe(*channel) {
                tracing::debug!(%channel, %error, "cannot ask for a subscription");
            }
        }
        self.tell(&Report::Up { mtu })
    }

    /// Keeps, then reports what is next. Only a push that comes back here is acknowledged.
    fn hear(&mut self) -> Result<Heard, Failed> {
        let Some(received) = self.device.poll_message() else { return Ok(Heard::Nothing) };
        let report = report_of(received);
        let mut heard = Heard::Other;
        if let Report::Received { message, .. } = report {
            heard = Heard::Push(message);
            if let Some((path, journal)) = &mut self.journal {
                journal.append(&report.to_json()).map_err(|error| Failed::State(path.clone(), error))?;
            }
        }
        (self.report)(&report).map_err(Failed::Report)?;
        Ok(heard)
    }

    /// Reports why the connection is not there, once for each change; returns the next pause.
    fn retrying(&mut self, place: &str, error: &io::Error, pause: Duration) -> Result<Duration, Failed> {
        let reason = format!("{place}: {error}");
        if self.retry_reason.as_ref() != Some(&reason) {
            self.tell(&Report::Retrying { reason: &reason })?;
            self.retry_reason = Some(reason);
        }
        let (min, max) = (Duration::from_millis(LINK_REOPEN_MS_MIN), Duration::from_millis(LINK_REOPEN_MS_MAX));
        Ok(if std::mem::take(&mut self.was_up) { min } else { (pause * 2).min(max) })
    }

    fn tell(&mut self, report: &Report<'_>) -> Result<(), Failed> {
        (self.report)(report).map_err(Failed::Report)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

/// What came next.
enum Heard {
    Nothing,
    Push(MessageId),
    Other,
}

fn report_of(received: Received<'_>) -> Report<'_> {
    match received {
        Received::Copy(message) => Report::Duplicate { message },
        Received::New(ToDevice::Push { message, channel, age, body }) => {
            Report::Received { message, channel, age_s: age.seconds(), body, at_unix_ms: unix_ms() }
        }
        Received::New(ToDevice::Status { uplink, waiting, time }) => Report::Status { uplink, waiting, time },
        Received::New(ToDevice::Subscribed { channel, push, p256dh, auth }) => {
            Report::Subscribed { channel, push, p256dh, auth }
        }
        Received::New(ToDevice::Refused { channel, reason }) => Report::Refused { channel, reason },
        Received::New(ToDevice::Unsubscribed { channel }) => Report::Unsubscribed { channel },
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place where a simulated device reads the wall clock")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A line that loses whole frames.
struct Loss {
    percent: u64,
    random: SeededRandom,
    /// Whether the frame whose octets are arriving is lost; none between frames.
    current: Option<bool>,
}

impl Loss {
    fn new(percent: u8, seed: u64) -> Self {
        Self { percent: percent.into(), random: SeededRandom::new(seed), current: None }
    }

    fn strikes(&mut self) -> bool {
        self.percent > 0 && self.random.next_u64() % 100 < self.percent
    }

    /// Moves the octets of frames that are not lost to the front; returns how many they are.
    fn thin(&mut self, octets: &mut [u8]) -> usize {
        let mut left = 0;
        for index in 0..octets.len() {
            let is_lost = match self.current {
                Some(is_lost) => is_lost,
                None => self.strikes(),
            };
            let octet = octets[index];
            self.current = (octet != DELIMITER).then_some(is_lost);
            if !is_lost {
                octets[left] = octet;
                left += 1;
            }
        }
        left
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place, error) => write!(f, "cannot be at {place}: {error}"),
            Self::State(path, error) => write!(f, "state file {}: {error}", path.display()),
            Self::Report(error) => write!(f, "cannot write what happened: {error}"),
        }
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_lost_whatever_the_chunks() {
        let stream: Vec<u8> = (1..=200u8).flat_map(|number| [number, number, DELIMITER]).collect();
        let kept = |chunk: usize| {
            let mut loss = Loss::new(30, 5);
            let mut kept = Vec::new();
            for octets in stream.chunks(chunk) {
                let mut octets = octets.to_vec();
                let left = loss.thin(&mut octets);
                kept.extend_from_slice(&octets[..left]);
            }
            kept
        };
        assert_eq!(kept(1), kept(1000));
        assert_eq!(kept(2), kept(7));
        assert!(kept(1).chunks(3).all(|frame| frame[0] == frame[1] && frame[2] == DELIMITER));
        assert!((350..500).contains(&kept(1).len()), "{}", kept(1).len());
    }

    #[test]
    fn nothing_is_lost_without_loss_and_everything_with_all_of_it() {
        let mut octets = *b"ab\0cd\0";
        assert_eq!(Loss::new(0, 1).thin(&mut octets), 6);
        assert_eq!(Loss::new(100, 1).thin(&mut octets), 0);
    }
}
