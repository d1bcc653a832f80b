//! The device side: one pump for each device, joining one device id to one link endpoint.
//!
//! It knows links, sessions and messages, and no push, channel or subscription. What it reports and what it is asked to
//! send names the device and the session, so that nothing meant for one session reaches another.
//!
//! ```text
//!   send(device, session, message) -> queue -> pump: Link <-> Connection <- Listener
//!   next() <------------------------- events <-- pump
//! ```
//!
//! Every queue is bounded. A device that does not read, does not answer or never stops talking holds up its own pump
//! alone.

mod pump;
mod queue;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::limits::{DEVICE_COUNT_MAX, DOWNSTREAM_EVENT_COUNT, LINK_MESSAGE_BYTES_MAX};
use crate::transport::endpoint::LinkEndpoint;
use crate::transport::listener::Listener;
use crate::wire::frame::Stream;
use crate::wire::{DeviceId, ToDevice, ToGateway};

use pump::{Pump, READ_BYTES};
use queue::{Queue, Queued};

/// One device and where its link lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The only id that may attach on this link.
    pub device: DeviceId,
    /// Where the link lives.
    pub endpoint: LinkEndpoint,
    /// Octets of the largest frame that the gateway accepts there.
    pub mtu: u16,
}

/// What happened on a link.
///
/// Each [`Up`](Self::Up) is followed by exactly one [`Silent`](Self::Silent) or [`Down`](Self::Down) of that session,
/// unless the device is detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device attached: messages can be sent in this session.
    Up {
        /// Whose link.
        device: DeviceId,
        /// The number of the session, never used before in this process.
        session: u32,
        /// The boot id that the device stated.
        boot_id: u32,
        /// Octets of the largest message that the device takes.
        message_bytes_max: u16,
        /// Messages that it may have without an answer.
        in_flight_max: usize,
    },
    /// The device said something.
    Message {
        /// Whose link.
        device: DeviceId,
        /// The number of the session.
        session: u32,
        /// What it said; never Attach.
        message: ToGateway,
    },
    /// The device stopped answering: the session is over.
    Silent {
        /// Whose link.
        device: DeviceId,
        /// The number of the session.
        session: u32,
    },
    /// The session is over for another reason.
    Down {
        /// Whose link.
        device: DeviceId,
        /// The number of the session.
        session: u32,
        /// Why.
        reason: DownReason,
    },
    /// A device attached that does not belong to this link; it was refused.
    AttachRefused {
        /// Whose link.
        device: DeviceId,
        /// The id it gave, if its first message was an Attach at all.
        claimed: Option<DeviceId>,
    },
    /// The link could not be opened and is tried again. Reported once for each change of the reason.
    Retrying {
        /// Whose link.
        device: DeviceId,
        /// For a person.
        reason: String,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The device started anew.
    Restarted,
    /// The device sent what can never be a message.
    Broken,
    /// A newer connection took the place of this one.
    Replaced,
    /// The port is gone or the device closed its connection.
    Closed,
    /// The port failed.
    Failed(std::io::ErrorKind),
}

/// Why a message was not taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The device has not taken what was sent before.
    Full,
    /// The device never takes a message of this size.
    TooLarge {
        /// Octets of the largest message.
        message_bytes_max: usize,
    },
    /// No such device is attached.
    UnknownDevice,
}

/// As many devices as the table holds are attached already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// All device links.
#[derive(Debug)]
pub struct Downstream {
    start: tokio::time::Instant,
    links: BTreeMap<DeviceId, Link>,
    session_count: Rc<Cell<u32>>,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
    /// What a pump has just read.
    input: Rc<RefCell<[u8; READ_BYTES]>>,
}

/// The near end of one pump, which stops when this is dropped.
#[derive(Debug)]
struct Link {
    queue: Rc<Queue>,
    session: Rc<Cell<Option<Open>>>,
    /// Sessions up to this number are not of this pump.
    sessions_before: u32,
    task: JoinHandle<()>,
}

/// What [`Downstream::send`] needs to know of the session that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    session: u32,
    message_bytes_max: usize,
}

impl Downstream {
    /// No links yet; `start` is the zero of the time that links see.
    pub fn new(start: tokio::time::Instant) -> Self {
        let (report, events) = mpsc::channel(DOWNSTREAM_EVENT_COUNT);
        Self {
            start,
            links: BTreeMap::new(),
            session_count: Rc::default(),
            events,
            report,
            input: Rc::new(RefCell::new([0; READ_BYTES])),
        }
    }

    /// Starts the pump of a device; one that runs for this device is stopped. Needs a `LocalRuntime`.
    ///
    /// # Errors
    /// [`Full`] when [`DEVICE_COUNT_MAX`] devices are attached.
    pub fn attach(&mut self, entry: Entry) -> Result<(), Full> {
        self.attach_listener(entry.device, entry.mtu, Listener::new(entry.endpoint))
    }

    /// Starts the pump of a device on a listener that is there already; see [`attach`](Self::attach).
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_listener(&mut self, device: DeviceId, mtu: u16, listener: Listener) -> Result<(), Full> {
        self.detach(&device);
        if self.links.len() >= DEVICE_COUNT_MAX {
            return Err(Full);
        }
        let (queue, session) = (Rc::<Queue>::default(), Rc::default());
        let sessions_before = self.session_count.get();
        let mut pump = Pump {
            device: device.clone(),
            mtu,
            listener,
            queue: Rc::clone(&queue),
            input: Rc::clone(&self.input),
            report: self.report.clone(),
            session: Rc::clone(&session),
            session_count: Rc::clone(&self.session_count),
            start: self.start,
        };
        let task = tokio::task::spawn_local(async move { pump.run().await });
        self.links.insert(device, Link { queue, session, sessions_before, task });
        Ok(())
    }

    /// Stops the pump of a device. Events it reported before may still come, but no [`Event::Up`].
    pub fn detach(&mut self, device: &DeviceId) {
        self.links.remove(device);
    }

    /// Queues a message for a device. One that is meant for a session that is over is dropped.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, device: &DeviceId, session: u32, message: &ToDevice<'_>) -> Result<(), SendError> {
        self.send_until(device, session, message, None, false)
    }

    /// Queues a message that is dropped unless it can be begun with before a time; an urgent one overtakes others.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_until(
        &self,
        device: &DeviceId,
        session: u32,
        message: &ToDevice<'_>,
        until: Option<crate::time::Instant>,
        is_urgent: bool,
    ) -> Result<(), SendError> {
        let link = self.links.get(device).ok_or(SendError::UnknownDevice)?;
        let Some(Open { message_bytes_max, .. }) = link.session.get().filter(|open| open.session == session) else {
            return Ok(());
        };
        let stream = if is_urgent { Stream::Urgent } else { Stream::Ordered };
        if !link.queue.has_room(stream) {
            return Err(SendError::Full);
        }
        let mut octets = [0; LINK_MESSAGE_BYTES_MAX];
        match message.emit(&mut octets) {
            Ok(bytes) if bytes <= message_bytes_max => {
                let queued = Queued { session, octets: octets[..bytes].into(), until };
                link.queue.push(stream, queued).map_err(|queue::Full| SendError::Full)
            }
            Ok(_) | Err(_) => Err(SendError::TooLarge { message_bytes_max }),
        }
    }

    /// Waits for the next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            let event = self.events.recv().await.expect("a sender is kept here, so the channel does not close");
            if !self.is_over(&event) {
                return event;
            }
        }
    }

    /// Whether an event opens a session whose pump was stopped meanwhile: its end would never be reported.
    fn is_over(&self, event: &Event) -> bool {
        let Event::Up { device, session, .. } = event else { return false };
        self.links.get(device).is_none_or(|link| *session <= link.sessions_before)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarted => f.write_str("the device started anew"),
            Self::Broken => f.write_str("the device broke the rules of the link protocol"),
            Self::Replaced => f.write_str("a newer connection took its place"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Failed(kind) => write!(f, "the connection failed: {kind}"),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the device has not taken what was sent before"),
            Self::TooLarge { message_bytes_max } => write!(f, "the device takes at most {message_bytes_max} octets"),
            Self::UnknownDevice => f.write_str("no such device is attached"),
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {DEVICE_COUNT_MAX} devices can be attached")
    }
}

impl std::error::Error for Full {}
