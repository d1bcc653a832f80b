//! What the machine is told, and what it asks for.

use std::fmt;
use std::rc::Rc;

use super::announcement::Outcome;
use super::connection::{ConnectionId, Trouble};
use super::delivery::SlotId;
use super::monitor::MonitorId;
use super::record::{DeviceRecord, Key, Record};
use super::subscription::SubscriptionId;
use super::upstream::Context;
use crate::time::{ClockReading, Duration, Instant, UnixTime};
use crate::webpush::alt_svc::{Alternative, Announcement};
use crate::webpush::ece::{DecodeError, Keys};
use crate::webpush::exchange::{ContentError, Deletion, Granted, Next, SubscribeError, Target};
use crate::webpush::headers::Urgency;
use crate::webpush::resource::{PushMessageUri, PushServiceUri, PushUri, SetUri, SubscriptionUri};
use crate::webpush::vapid::ApplicationServerKey;
use crate::wire::message::Uplink;
use crate::wire::{ChannelId, DeviceId, MessageId};

/// Number of a promise, given by the shell that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromiseId(pub u64);

/// Something that happened.
pub enum Input {
    /// A stored fact was read; all of them come first.
    Restored(Record),
    /// Of what an earlier run has left something is lost, or of a later version: what fits nothing else may fit that.
    Incomplete,
    /// All stored facts and all configured devices were given.
    Started,
    /// A device is known, by configuration or by a person; `lasting` asks to store it.
    DeviceAdded {
        /// What it is and where.
        device: DeviceRecord,
        /// Whether it outlives the process.
        lasting: bool,
    },
    /// A device is known no longer.
    DeviceRemoved(DeviceId),
    /// A person asks for what waits at the service.
    FetchAsked(DeviceId),
    /// A person wants other URIs and keys for a device.
    RotationAsked {
        /// Whose.
        device: DeviceId,
        /// For this channel only.
        channel: Option<ChannelId>,
    },
    /// A person wants everything removed at the services and on flash.
    ResetAsked,
    /// An announcement was answered.
    Announced {
        /// The number of [`Output::Announce`].
        number: u64,
        /// How.
        outcome: Outcome,
    },
    /// The process is about to end.
    Stopping,
    /// Messages that matter less than this are not wanted now.
    UrgencyWanted(Urgency),

    /// The connection to the service can carry requests.
    ConnectionReady {
        /// Which.
        connection: ConnectionId,
        /// Requests that the service allows at once.
        streams_max: usize,
    },
    /// A verified service has answered.
    Dated {
        /// On which connection.
        connection: ConnectionId,
        /// What time it is there, if it says so.
        date: Option<UnixTime>,
        /// Until when its certificate is valid.
        not_after: UnixTime,
        /// The wall clock at that moment.
        clock: ClockReading,
    },
    /// The wall clock was looked at.
    ClockRead(ClockReading),
    /// A person wants the last known time to be forgotten.
    TimeForgotten,
    /// A connection could not be made, or ended.
    ConnectionClosed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        trouble: Trouble,
    },
    /// The service allows another number of requests at once from now on.
    RequestsMax {
        /// Where.
        connection: ConnectionId,
        /// How many.
        streams_max: usize,
    },
    /// The service takes no more requests on a connection.
    GoingAway {
        /// Which.
        connection: ConnectionId,
    },
    /// A test of a connection was answered.
    Pong {
        /// Which.
        connection: ConnectionId,
    },
    /// The service has said where else it can be reached.
    Alternatives {
        /// The connection it came on.
        connection: ConnectionId,
        /// What it said.
        announcement: Announcement,
    },
    /// What answers at an alternative does not serve the origin (RFC 9110 §15.5.20, 421).
    Misdirected {
        /// The connection to it.
        connection: ConnectionId,
    },
    /// The network is another one.
    PathChanged,
    /// A monitoring request ended.
    MonitorEnded {
        /// The connection it came on.
        connection: ConnectionId,
        /// Which.
        monitor: MonitorId,
        /// What follows.
        next: Next,
    },
    /// A request with `wait=0` ended, after its promises.
    FetchEnded {
        /// The connection it came on.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// Where it was asked.
        read: SubscriptionUri,
        /// What follows.
        next: Next,
    },
    /// The service promised a message; answered by [`Output::Admit`] or [`Output::Refuse`].
    Promised {
        /// The connection it came on.
        connection: ConnectionId,
        /// Which promise.
        promise: PromiseId,
        /// The target whose request it came on.
        target: Target,
        /// Its resource.
        message: PushMessageUri,
        /// The push link, if the promise has one.
        send: Option<PushUri>,
    },
    /// An admitted message arrived whole.
    Pushed {
        /// The connection it came on.
        connection: ConnectionId,
        /// Its slot.
        slot: SlotId,
        /// The push link of the response, if it has one.
        send: Option<PushUri>,
        /// Its content, encrypted.
        body: Vec<u8>,
        /// How much of its lifetime is left, if the service says so.
        max_age: Option<Duration>,
        /// How long it has been with the service, if that says so.
        age: Option<Duration>,
    },
    /// An admitted message did not arrive.
    PushFailed {
        /// The connection it came on.
        connection: ConnectionId,
        /// Its slot.
        slot: SlotId,
        /// Set when what arrived can never be delivered; otherwise the service offers it again.
        content: Option<ContentError>,
    },
    /// The content of a slot was decrypted, or could not be.
    Decoded {
        /// Its slot.
        slot: SlotId,
        /// The plaintext.
        outcome: Result<Vec<u8>, DecodeError>,
    },
    /// An acknowledgement was answered.
    Acknowledged {
        /// The connection it came on.
        connection: ConnectionId,
        /// Of which message.
        message: PushMessageUri,
        /// How.
        outcome: Deletion,
    },
    /// A subscribe request was answered; none: its outcome is unknown.
    Subscribed {
        /// The connection it came on.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// How.
        outcome: Option<Result<Granted, SubscribeError>>,
    },
    /// The removal of a set was answered.
    SetUnsubscribed {
        /// The connection it came on.
        connection: ConnectionId,
        /// Which.
        set: SetUri,
        /// How.
        outcome: Deletion,
    },
    /// The removal of a subscription was answered.
    Unsubscribed {
        /// The connection it came on.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// How.
        outcome: Deletion,
    },

    /// A change is on flash, or could not be written.
    Persisted {
        /// The ticket of [`Output::Persist`].
        ticket: u64,
        /// Whether it is there.
        stored: bool,
    },

    /// A device link is open.
    DeviceUp {
        /// Whose.
        device: DeviceId,
        /// Number of the link session.
        session: u32,
        /// Octets of the largest message it takes.
        message_bytes_max: u16,
        /// Messages that it may have without an answer.
        in_flight_max: usize,
    },
    /// A device hears nothing until it speaks again.
    DeviceAsleep {
        /// Whose.
        device: DeviceId,
        /// About how long, in seconds; 0 if it does not know.
        seconds: u32,
    },
    /// A device that slept hears again.
    DeviceAwake {
        /// Whose.
        device: DeviceId,
    },
    /// A device asks how the gateway is.
    StatusAsked {
        /// Whose.
        device: DeviceId,
    },
    /// A device link is no longer open.
    DeviceDown {
        /// Whose.
        device: DeviceId,
        /// Number of the link session.
        session: u32,
    },
    /// A device stopped answering on an open link.
    DeviceSilent {
        /// Whose.
        device: DeviceId,
        /// Number of the link session.
        session: u32,
    },
    /// A device has a message: the one event that leads to an acknowledgement.
    DeviceAck {
        /// Whose.
        device: DeviceId,
        /// Which message.
        message: MessageId,
    },
    /// A device will not take a message.
    DeviceRefused {
        /// Whose.
        device: DeviceId,
        /// Which message.
        message: MessageId,
        /// Whether it will take it later: it had no room.
        later: bool,
    },
    /// A device asks for a subscription.
    Subscribe {
        /// Whose.
        device: DeviceId,
        /// Its label.
        channel: ChannelId,
    },
    /// A device asks for a new subscription in place of one.
    Rotate {
        /// Whose.
        device: DeviceId,
        /// Its label.
        channel: ChannelId,
    },
    /// A device wants a subscription no longer.
    Unsubscribe {
        /// Whose.
        device: DeviceId,
        /// Its label.
        channel: ChannelId,
    },
}

/// Something to do.
pub enum Output {
    /// Connect to the push service; answered by [`Input::ConnectionReady`] or [`Input::ConnectionClosed`].
    Connect {
        /// Number of the connection.
        connection: ConnectionId,
        /// Where to.
        service: PushServiceUri,
        /// Whose trust counts, and what it may be shared with.
        context: Context,
        /// The alternative to go to instead, which still has to prove that it is the service.
        alternative: Option<Alternative>,
    },
    /// Test whether a connection still carries anything; answered by [`Input::Pong`].
    Ping {
        /// Which.
        connection: ConnectionId,
    },
    /// End a connection in order: GOAWAY, then close. Its end is reported.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Let go of a connection that is dead.
    Drop {
        /// Which.
        connection: ConnectionId,
    },
    /// Ask for a subscription.
    Subscribe {
        /// The connection to use.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// Where it is asked for.
        service: PushServiceUri,
        /// The set to present.
        set: Option<SetUri>,
        /// The application server that alone may send to it.
        restricted_to: Option<ApplicationServerKey>,
    },
    /// Remove a set with all its subscriptions.
    UnsubscribeSet {
        /// The connection to use.
        connection: ConnectionId,
        /// Which.
        set: SetUri,
    },
    /// Remove a subscription.
    Unsubscribe {
        /// The connection to use.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// Where.
        read: SubscriptionUri,
    },
    /// Open a monitoring request.
    Monitor {
        /// The connection to use.
        connection: ConnectionId,
        /// Which.
        monitor: MonitorId,
        /// What it reads.
        target: Target,
        /// What matters less is not wanted.
        urgency: Urgency,
    },
    /// Ask for what is stored for one subscription.
    Fetch {
        /// The connection to use.
        connection: ConnectionId,
        /// Whose.
        subscription: SubscriptionId,
        /// Where.
        read: SubscriptionUri,
        /// What matters less is not wanted.
        urgency: Urgency,
    },
    /// Take in a promised message.
    Admit {
        /// The promise.
        promise: PromiseId,
        /// Its slot.
        slot: SlotId,
        /// Whether the response must tell the subscription, since the promise did not.
        unrouted: bool,
    },
    /// Reset a promise; the service keeps the message.
    Refuse {
        /// The promise.
        promise: PromiseId,
    },
    /// Decrypt a body.
    Decode {
        /// Its slot.
        slot: SlotId,
        /// With these keys.
        keys: Rc<Keys>,
        /// The body.
        body: Vec<u8>,
    },
    /// Hand a message to its device.
    Deliver {
        /// Which device.
        device: DeviceId,
        /// On this link session only.
        session: u32,
        /// Identity of the message.
        message: MessageId,
        /// The device's label of the subscription.
        channel: ChannelId,
        /// The plaintext.
        body: Rc<Vec<u8>>,
        /// When it is too late: it is given up then, and must not reach the device any more.
        until: Instant,
        /// How long ago it was sent, if the service says so.
        age: Option<Duration>,
        /// Whether it overtakes others.
        is_urgent: bool,
    },
    /// Acknowledge a message at the service.
    Acknowledge {
        /// The connection to use.
        connection: ConnectionId,
        /// Its resource.
        message: PushMessageUri,
    },
    /// Tell a device about a subscription.
    Reply {
        /// Which device.
        device: DeviceId,
        /// On this link session only.
        session: u32,
        /// What.
        reply: Reply,
    },
    /// Tell the application server where to post; answered by [`Input::Announced`].
    Announce {
        /// Number of the announcement.
        number: u64,
        /// Whose subscription it is.
        device: DeviceId,
        /// The device's label of it.
        channel: ChannelId,
        /// What to tell, in JSON.
        document: String,
    },
    /// Write a change to flash; answered by [`Input::Persisted`].
    Persist {
        /// Number of the change.
        ticket: u64,
        /// The change.
        change: Change,
        /// One that belongs to it: both are stored, or none.
        also: Option<Box<Change>>,
    },
}

/// What a device is told about a subscription.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// It exists and is stored.
    Subscribed {
        /// The device's label.
        channel: ChannelId,
        /// Where messages for it are posted.
        send: PushUri,
        /// The public key for its messages.
        public: [u8; 65],
        /// The authentication secret for its messages.
        auth: [u8; 16],
    },
    /// There is no room for it.
    Full {
        /// The device's label.
        channel: ChannelId,
    },
    /// There is no such channel.
    Unknown {
        /// The device's label.
        channel: ChannelId,
    },
    /// How the gateway is.
    Status {
        /// Whether it reaches its push service.
        uplink: Uplink,
        /// Messages that wait for the device.
        waiting: usize,
    },
    /// It is gone.
    Unsubscribed {
        /// The device's label.
        channel: ChannelId,
    },
}

/// A change of the stored facts.
#[derive(Debug)]
pub enum Change {
    /// Store a fact.
    Put(Record),
    /// Remove a fact.
    Remove(Key),
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next attempt to connect.
    Connect,
    /// The next monitoring request.
    Monitor,
    /// A subscribe or unsubscribe request.
    Subscription,
    /// A message can no longer be handed to its device.
    Hold,
    /// An acknowledgement is repeated.
    Acknowledge,
    /// What waits at the service is asked for.
    Fetch,
    /// A failed write is repeated.
    Persist,
    /// The application server is told again.
    Announce,
    /// A connection is tested, replaced or closed.
    Connection,
}

impl Input {
    /// The connection that it came on, if it came on one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::ConnectionReady { connection, .. }
            | Self::Dated { connection, .. }
            | Self::ConnectionClosed { connection, .. }
            | Self::RequestsMax { connection, .. }
            | Self::GoingAway { connection }
            | Self::Pong { connection }
            | Self::Alternatives { connection, .. }
            | Self::Misdirected { connection }
            | Self::MonitorEnded { connection, .. }
            | Self::FetchEnded { connection, .. }
            | Self::Promised { connection, .. }
            | Self::Pushed { connection, .. }
            | Self::PushFailed { connection, .. }
            | Self::Acknowledged { connection, .. }
            | Self::Subscribed { connection, .. }
            | Self::SetUnsubscribed { connection, .. }
            | Self::Unsubscribed { connection, .. } => Some(*connection),
            _ => None,
        }
    }

    /// The device that says it, so that it is awake.
    pub(super) fn speaker(&self) -> Option<&DeviceId> {
        match self {
            Self::DeviceAwake { device }
            | Self::DeviceAck { device, .. }
            | Self::DeviceRefused { device, .. }
            | Self::Subscribe { device, .. }
            | Self::Unsubscribe { device, .. }
            | Self::Rotate { device, .. }
            | Self::StatusAsked { device } => Some(device),
            _ => None,
        }
    }

    /// Whether it shows that the service still answers; none when that is not known.
    pub(super) fn is_answer(&self) -> Option<bool> {
        match self {
            Self::Promised { .. } | Self::Pushed { .. } => Some(true),
            Self::MonitorEnded { next, .. } | Self::FetchEnded { next, .. } => {
                (*next != Next::Backoff(None)).then_some(true)
            }
            Self::Acknowledged { outcome, .. }
            | Self::Unsubscribed { outcome, .. }
            | Self::SetUnsubscribed { outcome, .. } => Some(*outcome != Deletion::Retry(None)),
            Self::Subscribed { outcome, .. } => Some(outcome.is_some()),
            _ => None,
        }
    }
}

/// The name alone: the rest holds capabilities, keys and messages.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored(..) => "Restored",
            Self::Incomplete => "Incomplete",
            Self::Started => "Started",
            Self::DeviceAdded { .. } => "DeviceAdded { .. }",
            Self::DeviceRemoved(..) => "DeviceRemoved",
            Self::FetchAsked(..) => "FetchAsked",
            Self::RotationAsked { .. } => "RotationAsked { .. }",
            Self::ResetAsked => "ResetAsked",
            Self::Announced { .. } => "Announced { .. }",
            Self::Stopping => "Stopping",
            Self::UrgencyWanted(..) => "UrgencyWanted",
            Self::SetUnsubscribed { .. } => "SetUnsubscribed { .. }",
            Self::ConnectionReady { .. } => "ConnectionReady { .. }",
            Self::Dated { .. } => "Dated { .. }",
            Self::ClockRead(..) => "ClockRead",
            Self::TimeForgotten => "TimeForgotten",
            Self::ConnectionClosed { .. } => "ConnectionClosed { .. }",
            Self::RequestsMax { .. } => "RequestsMax { .. }",
            Self::GoingAway { .. } => "GoingAway { .. }",
            Self::Pong { .. } => "Pong { .. }",
            Self::Alternatives { .. } => "Alternatives { .. }",
            Self::Misdirected { .. } => "Misdirected { .. }",
            Self::PathChanged => "PathChanged",
            Self::MonitorEnded { .. } => "MonitorEnded { .. }",
            Self::FetchEnded { .. } => "FetchEnded { .. }",
            Self::Promised { .. } => "Promised { .. }",
            Self::Pushed { .. } => "Pushed { .. }",
            Self::PushFailed { .. } => "PushFailed { .. }",
            Self::Decoded { .. } => "Decoded { .. }",
            Self::Acknowledged { .. } => "Acknowledged { .. }",
            Self::Subscribed { .. } => "Subscribed { .. }",
            Self::Unsubscribed { .. } => "Unsubscribed { .. }",
            Self::Persisted { .. } => "Persisted { .. }",
            Self::DeviceUp { .. } => "DeviceUp { .. }",
            Self::DeviceDown { .. } => "DeviceDown { .. }",
            Self::DeviceAsleep { .. } => "DeviceAsleep { .. }",
            Self::DeviceAwake { .. } => "DeviceAwake { .. }",
            Self::StatusAsked { .. } => "StatusAsked { .. }",
            Self::Rotate { .. } => "Rotate { .. }",
            Self::DeviceSilent { .. } => "DeviceSilent { .. }",
            Self::DeviceAck { .. } => "DeviceAck { .. }",
            Self::DeviceRefused { .. } => "DeviceRefused { .. }",
            Self::Subscribe { .. } => "Subscribe { .. }",
            Self::Unsubscribe { .. } => "Unsubscribe { .. }",
        })
    }
}

/// The name alone: the rest holds capabilities, keys and messages.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect { .. } => "Connect { .. }",
            Self::Ping { .. } => "Ping { .. }",
            Self::Close { .. } => "Close { .. }",
            Self::Drop { .. } => "Drop { .. }",
            Self::Subscribe { .. } => "Subscribe { .. }",
            Self::UnsubscribeSet { .. } => "UnsubscribeSet { .. }",
            Self::Unsubscribe { .. } => "Unsubscribe { .. }",
            Self::Monitor { .. } => "Monitor { .. }",
            Self::Fetch { .. } => "Fetch { .. }",
            Self::Admit { .. } => "Admit { .. }",
            Self::Refuse { .. } => "Refuse { .. }",
            Self::Decode { .. } => "Decode { .. }",
            Self::Deliver { .. } => "Deliver { .. }",
            Self::Acknowledge { .. } => "Acknowledge { .. }",
            Self::Reply { .. } => "Reply { .. }",
            Self::Announce { .. } => "Announce { .. }",
            Self::Persist { .. } => "Persist { .. }",
        })
    }
}

/// The name alone: the rest holds capabilities, keys and messages.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscribed { .. } => "Subscribed { .. }",
            Self::Full { .. } => "Full { .. }",
            Self::Unsubscribed { .. } => "Unsubscribed { .. }",
            Self::Unknown { .. } => "Unknown { .. }",
            Self::Status { .. } => "Status { .. }",
        })
    }
}
