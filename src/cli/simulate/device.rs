//! The device itself: connects its place to an [`Application`] until told to end.
//!
//! It performs what others decide: the line what becomes of octets, the application what is done with messages.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};

use tokio::time::sleep_until;

use super::application::Application;
use super::intake::Manners;
use super::life::Habits;
use super::line::{Line, Quality};
use super::place::{Place, Site};
use super::report::Report;
use crate::limits::{LINK_REOPEN_MS_MAX, LINK_REOPEN_MS_MIN, SIMULATE_LINGER_MS_MAX};
use crate::time::{Duration, Instant};
use crate::transport::stack::{ByteStream, Outgoing, Ready, ready};
use crate::wire::{ChannelId, DeviceId};

/// Octets read at once.
const READ_BYTES: usize = 1024;
/// Makes the two directions of a line suffer differently.
const SEED_OF_ARRIVING: u64 = 0x6172_7269_7665;

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
    /// What its line is like.
    pub line: Quality,
    /// Decides which frames suffer.
    pub seed: u64,
    /// How it takes messages.
    pub manners: Manners,
    /// What it does by itself.
    pub habits: Habits,
    /// After how many messages it ends.
    pub count: Option<u64>,
}

impl Options {
    /// A device that does what it should, on a perfect line.
    pub fn new(place: Place, id: DeviceId) -> Self {
        Self {
            place,
            id,
            state: None,
            subscribe: Vec::new(),
            mtu: super::MTU_DEFAULT,
            line: Quality::default(),
            seed: 0,
            manners: Manners::default(),
            habits: Habits::default(),
            count: None,
        }
    }
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
    let place = site.to_string();
    let mut carrier = Carrier::new(&options, Application::open(&options, report, Instant::ZERO)?);
    carrier.application.tell(&Report::Link { place: &place })?;
    let mut shutdown = pin!(shutdown);
    let mut pause = Duration::from_millis(LINK_REOPEN_MS_MIN);
    loop {
        let connected = tokio::select! {
            connected = site.connect() => connected,
            () = &mut shutdown => return Ok(carrier.application.received()),
        };
        let lost = match connected {
            Ok(mut connection) => carrier.serve(connection.as_mut(), shutdown.as_mut()).await?,
            Err(error) => Some(error),
        };
        let Some(error) = lost else { return Ok(carrier.application.received()) };
        pause = carrier.retrying(&place, &error, pause)?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut shutdown => return Ok(carrier.application.received()),
        }
    }
}

/// A device and its line.
struct Carrier<R> {
    application: Application<R>,
    leaving: Line,
    arriving: Line,
    start: tokio::time::Instant,
    retry_reason: Option<String>,
}

impl<R: FnMut(&Report<'_>) -> io::Result<()>> Carrier<R> {
    fn new(options: &Options, application: Application<R>) -> Self {
        Self {
            application,
            leaving: Line::new(options.line, options.seed),
            arriving: Line::new(options.line, options.seed ^ SEED_OF_ARRIVING),
            start: tokio::time::Instant::now(),
            retry_reason: None,
        }
    }

    /// Carries octets until the connection is lost, with the reason, or the device is done.
    async fn serve(
        &mut self,
        connection: &mut (dyn ByteStream + '_),
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<io::Error>, Failed> {
        let (mut input, mut output) = ([0; READ_BYTES], Outgoing::new());
        let mut end = None;
        self.leaving.cut();
        self.arriving.cut();
        loop {
            self.turn(&mut output)?;
            if end.is_none() && self.application.is_done() {
                end = Some(self.linger());
            }
            if end.is_some_and(|end| end <= tokio::time::Instant::now() || self.is_quiet(&output)) {
                return Ok(None);
            }
            let wake = self.wake(&output).into_iter().chain(end).min();
            tokio::select! {
                ready = ready(connection, &mut input, output.rest()) => match ready {
                    Ready::Read(Ok(0)) | Ready::Wrote(Ok(0)) => {
                        return Ok(end.is_none().then(|| io::ErrorKind::UnexpectedEof.into()));
                    }
                    Ready::Read(Ok(bytes)) => self.arriving.put(&input[..bytes], self.now()),
                    Ready::Wrote(Ok(bytes)) => output.wrote(bytes),
                    Ready::Read(Err(error)) | Ready::Wrote(Err(error)) => return Ok(end.is_none().then_some(error)),
                },
                () = sleep_until(wake.unwrap_or(self.start)), if wake.is_some() => {}
                () = shutdown.as_mut(), if end.is_none() => end = Some(self.linger()),
            }
        }
    }

    /// Does everything that is due: what has arrived, what time brings, and what is to be sent.
    fn turn(&mut self, output: &mut Outgoing) -> Result<(), Failed> {
        let now = self.now();
        while let Some(octets) = self.arriving.take(now) {
            self.application.feed(&octets, now)?;
        }
        self.application.handle_timeout(now)?;
        self.refill(output, now);
        if self.application.live(self.is_quiet(output), now)? {
            // Half a frame may have left: what follows must not be taken for its end.
            *output = Outgoing::new();
        }
        self.refill(output, now);
        Ok(())
    }

    /// Sends what has passed the line; a frame enters it when the one before has left.
    fn refill(&mut self, output: &mut Outgoing, now: Instant) {
        while output.rest().is_empty() {
            if let Some(octets) = self.leaving.take(now) {
                output.fill(|frame| {
                    frame[..octets.len()].copy_from_slice(&octets);
                    Some(octets.len())
                });
                return;
            }
            let Some(frame) = self.leaving.is_free(now).then(|| self.application.poll_transmit(now)).flatten() else {
                return;
            };
            self.leaving.put(&frame, now);
        }
    }

    fn is_quiet(&self, output: &Outgoing) -> bool {
        self.application.is_idle() && output.rest().is_empty() && self.leaving.is_empty()
    }

    /// When there is something to do by time alone.
    fn wake(&self, output: &Outgoing) -> Option<tokio::time::Instant> {
        let now = self.now();
        let line = self.arriving.poll_timeout(now).into_iter();
        // What waits for the connection is written before what is behind it.
        let line = line.chain(self.leaving.poll_timeout(now).filter(|_| output.rest().is_empty()));
        let wake = line.chain(self.application.poll_timeout(self.is_quiet(output))).min();
        wake.map(|at| self.start + Duration::from_millis(at.as_millis()))
    }

    fn linger(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_millis(SIMULATE_LINGER_MS_MAX)
    }

    /// Reports why the connection is not there, once for each change; returns the next pause.
    fn retrying(&mut self, place: &str, error: &io::Error, pause: Duration) -> Result<Duration, Failed> {
        let was_up = self.application.take_was_up();
        let reason = format!("{place}: {error}");
        if was_up || self.retry_reason.as_ref() != Some(&reason) {
            self.application.tell(&Report::Retrying { reason: &reason })?;
            self.retry_reason = Some(reason);
        }
        let (min, max) = (Duration::from_millis(LINK_REOPEN_MS_MIN), Duration::from_millis(LINK_REOPEN_MS_MAX));
        Ok(if was_up { min } else { (pause * 2).min(max) })
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
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
