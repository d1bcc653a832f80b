//! The values of the retention machine: what goes in, what comes out, and the states in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use http::HeaderValue;

use crate::limits::SERVICE_DRAINS_IN_VAIN;
use crate::time::{Duration, Instant, UnixTime};
use crate::webpush::headers::{Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

use super::super::token::Token;
use super::since::Since;

/// Internal number of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// Internal number of a subscription set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(pub u64);

/// Internal number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One monitoring request: its connection and stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonitorId {
    /// The connection it came on.
    pub connection: ConnectionId,
    /// Its stream on that connection.
    pub stream: u32,
}

/// One attempt to push one message; a later attempt has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId {
    pub(super) monitor: MonitorId,
    pub(super) subscription: SubscriptionId,
    pub(super) sequence: u64,
    pub(super) attempt: u32,
}

#[cfg(test)]
impl DeliveryId {
    /// Some attempt on a monitor, for tests that need only its place.
    pub(in super::super) fn for_test(monitor: MonitorId) -> Self {
        Self { monitor, subscription: SubscriptionId(1), sequence: 1, attempt: 1 }
    }
}

/// The time, as both clocks show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time: every interval is measured with it.
    pub instant: Instant,
    /// Wall time: for dates in fields, and for lifetimes across a restart if it is synchronised.
    pub wall: UnixTime,
    /// Whether that may be compared with another one.
    pub is_synchronised: bool,
    /// Tells this boot of the machine from others: 1 to 2^23 - 1.
    pub boot: Option<u32>,
    /// Seconds since then, suspended time included.
    pub uptime_s: u64,
}

/// What a token names, as far as the choice of methods depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A subscription.
    Subscription,
    /// A push resource.
    Push,
    /// A subscription set.
    Set,
    /// A push message.
    Message,
}

/// A message as its sender wrote it: content and the two fields that describe content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The octets, unchanged.
    pub body: Bytes,
    /// `Content-Type`, if there was one.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding`, if there was one.
    pub content_encoding: Option<HeaderValue>,
}

impl Content {
    /// Octets this takes of [`SERVICE_MESSAGE_BYTES_MAX`](crate::limits::SERVICE_MESSAGE_BYTES_MAX).
    pub fn bytes(&self) -> usize {
        let field = |value: &Option<HeaderValue>| value.as_ref().map_or(0, HeaderValue::len);
        self.body.len() + field(&self.content_type) + field(&self.content_encoding)
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// A new subscription, in the set presented or a new one (RFC 8030 §4).
    Subscribe {
        /// The set presented.
        set: Option<Token>,
        /// The one application server that may send to it (RFC 8292 §4).
        restricted: Option<ApplicationServerKey>,
    },
    /// A message for a subscription (RFC 8030 §5).
    Send {
        /// The push resource.
        push: Token,
        /// How long to keep it.
        ttl: Ttl,
        /// How much it matters.
        urgency: Urgency,
        /// The message.
        content: Content,
    },
    /// The content of a message, which is no delivery.
    Read {
        /// The push message.
        message: Token,
    },
    /// The end of a message, which acknowledges it (RFC 8030 §6.2), of a subscription or of a set (§7.3).
    Remove {
        /// The resource.
        resource: Token,
    },
    /// The messages of a subscription or set, now and later (RFC 8030 §6).
    Monitor {
        /// The subscription or set.
        resource: Token,
        /// The request.
        monitor: MonitorId,
        /// The preference for an answer after so many seconds.
        wait_s: Option<u64>,
        /// The least that is wanted; what matters less is kept.
        urgency: Urgency,
    },
}

/// What to answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The subscription exists.
    Subscribed {
        /// Where its user agent reads.
        subscription: Token,
        /// Where application servers send.
        push: Token,
        /// The set it is in.
        set: Token,
    },
    /// The message was accepted.
    Accepted {
        /// The push message.
        message: Token,
        /// How long it is kept, never longer than was asked.
        ttl: Ttl,
    },
    /// The message asked for.
    Content {
        /// The message.
        content: Content,
        /// When it was accepted, if that is known.
        accepted: Option<UnixTime>,
        /// Seconds until it expires.
        max_age_s: u64,
    },
    /// The resource is no more.
    Removed,
    /// The request stays open; its end comes as [`Output::End`].
    Monitoring,
    /// There is no such resource, or none any more.
    Gone,
    /// The set presented is none.
    InvalidSet,
    /// A bound is reached; later it may work.
    Full,
}

/// What became of things the shell did or watches.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// The message was written whole.
    Delivered(DeliveryId),
    /// The receiver reset the pushed stream, before its end or after.
    Refused(DeliveryId),
    /// The connection gave it up before its end, because it was no longer live.
    Dropped(DeliveryId),
    /// The client reset its monitoring request.
    MonitorClosed(MonitorId),
    /// The connection is gone, and with it everything on it.
    ConnectionClosed(ConnectionId),
    /// The record that made this resource could not be stored, so there is no such resource.
    NotStored(Token),
    /// The service stops: monitors end, nothing is pushed any more.
    Stop,
}

/// Where a connection has room for a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Nowhere.
    None,
    /// On the request that monitors on this stream.
    On(u32),
    /// On any request.
    Any,
}

impl Room {
    pub(super) fn is_for(self, monitor: MonitorId) -> bool {
        match self {
            Self::None => false,
            Self::On(stream) => monitor.stream == stream,
            Self::Any => true,
        }
    }
}

/// What a connection has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Promise and send a message.
    Push(Box<Push>),
    /// Answer a monitoring request, which ends it.
    End(MonitorId, Ending),
}

/// A message to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Names this attempt in the [`Input`] that reports on it.
    pub delivery: DeliveryId,
    /// The monitoring request it is promised on.
    pub monitor: MonitorId,
    /// The push message.
    pub message: Token,
    /// The push resource it was sent to.
    pub push: Token,
    /// The message.
    pub content: Content,
    /// When it was accepted, if that is known and it had to wait since.
    pub last_modified: Option<UnixTime>,
    /// Seconds until it expires.
    pub max_age_s: u64,
}

/// How a monitoring request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// 200: its pushes are promised.
    Pushed,
    /// 200: its pushes are promised, and a newer request on the same resource serves now.
    Replaced,
    /// 204: it asked for what there is, and there was nothing.
    Nothing,
    /// 404: the resource ended.
    Gone,
}

/// A fact that outlives power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A set exists.
    Set {
        /// Its number.
        id: SetId,
        /// Its token.
        token: Token,
    },
    /// A set ended; each member has its own record.
    SetEnded(SetId),
    /// A subscription exists.
    Subscription {
        /// Its number.
        id: SubscriptionId,
        /// The set it is in.
        set: SetId,
        /// Its token.
        token: Token,
        /// The token of its push resource.
        push: Token,
        /// The one application server that may send to it.
        restricted: Option<ApplicationServerKey>,
    },
    /// A subscription ended, and its messages with it.
    SubscriptionEnded(SubscriptionId),
    /// A message was accepted.
    Message(StoredMessage),
    /// A message was acknowledged, withdrawn or expired.
    MessageEnded {
        /// Its subscription.
        subscription: SubscriptionId,
        /// Its number.
        sequence: u64,
    },
}

impl Record {
    /// Whether it says that something is no more.
    pub const fn is_end(&self) -> bool {
        match self {
            Self::SetEnded(_) | Self::SubscriptionEnded(_) | Self::MessageEnded { .. } => true,
            Self::Set { .. } | Self::Subscription { .. } | Self::Message(_) => false,
        }
    }
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// Its number: the order of acceptance.
    pub sequence: u64,
    /// Its token.
    pub token: Token,
    /// Since when it is there.
    pub since: Since,
    /// How long it is kept.
    pub ttl: Ttl,
    /// How much it matters.
    pub urgency: Urgency,
    /// The message.
    pub content: Content,
}

#[derive(Debug)]
pub(super) struct Set {
    pub(super) token: Token,
    pub(super) members: BTreeSet<SubscriptionId>,
    pub(super) monitor: Option<MonitorId>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) token: Token,
    pub(super) push: Token,
    pub(super) set: SetId,
    /// The one application server that may send to it.
    pub(super) restricted: Option<ApplicationServerKey>,
    pub(super) messages: BTreeMap<u64, Message>,
    pub(super) waiting_count: usize,
    pub(super) in_flight_count: usize,
    /// The monitoring request on the subscription itself.
    pub(super) monitor: Option<MonitorId>,
    /// The monitor in whose line this subscription stands.
    pub(super) queued_on: Option<MonitorId>,
    pub(super) paused_until: Option<Instant>,
    /// Pauses since the last acknowledgement or monitoring request. While there are any, one message at a time probes.
    pub(super) pause_count: u32,
}

impl Subscription {
    pub(super) fn new(token: Token, push: Token, set: SetId, restricted: Option<ApplicationServerKey>) -> Self {
        Self {
            token,
            push,
            set,
            restricted,
            messages: BTreeMap::new(),
            waiting_count: 0,
            in_flight_count: 0,
            monitor: None,
            queued_on: None,
            paused_until: None,
            pause_count: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) stored: StoredMessage,
    pub(super) expires: Instant,
    /// Whether it waited before it was pushed.
    pub(super) was_stored: bool,
    pub(super) delivery: Delivery,
    pub(super) attempt: u32,
    /// Requests for everything stored that it was pushed on.
    pub(super) drain_count: u32,
}

impl Message {
    pub(super) fn new(stored: StoredMessage, expires: Instant, was_stored: bool) -> Self {
        Self { stored, expires, was_stored, delivery: Delivery::Waiting, attempt: 0, drain_count: 0 }
    }

    /// Messages with a time to live of zero are pushed once and never stored.
    pub(super) fn is_durable(&self) -> bool {
        self.stored.ttl.as_secs() > 0
    }

    /// Whether its receiver asked again and again for what is stored, got this, and did not acknowledge it.
    pub(super) fn is_in_vain(&self) -> bool {
        self.drain_count >= SERVICE_DRAINS_IN_VAIN
    }

    /// Whole seconds until it expires; the moments between acceptance and push do not count as one.
    pub(super) fn rest_s(&self, now: Moment) -> u64 {
        let rest = self.expires.since(now.instant) + Duration::from_millis(250);
        rest.as_secs().min(self.stored.ttl.as_secs())
    }
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Waiting,
    Promised { connection: ConnectionId },
    Unacknowledged { connection: ConnectionId, retry_at: Instant },
}

#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) resource: Monitored,
    pub(super) mode: Mode,
    /// The least that is wanted on it.
    pub(super) urgency: Urgency,
    /// Subscriptions that have something to push here, each at most once.
    pub(super) ready: VecDeque<SubscriptionId>,
    /// Promises whose message is not yet written.
    pub(super) unended: BTreeSet<DeliveryId>,
    pub(super) has_pushed: bool,
    pub(super) ending: Option<Ending>,
}

impl Monitor {
    pub(super) fn new(resource: Monitored, mode: Mode, urgency: Urgency) -> Self {
        Self {
            resource,
            mode,
            urgency,
            ready: VecDeque::new(),
            unended: BTreeSet::new(),
            has_pushed: false,
            ending: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Monitored {
    Subscription(SubscriptionId),
    Set(SetId),
}

/// How long a monitor stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until something ends it.
    Open,
    /// `wait=n`: until then.
    Until(Instant),
    /// `wait=0`: until everything is promised, or no acknowledgement released more by then.
    Drain(Instant),
}

/// What a point in time is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Expire(SubscriptionId, u64),
    Retry(SubscriptionId, u64),
    Resume(SubscriptionId),
    End(MonitorId),
}
