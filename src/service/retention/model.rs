//! The values of the retention machine: what goes in, what comes out, and the states in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use crate::limits::SERVICE_DRAINS_IN_VAIN;
use crate::time::{Duration, Instant, UnixTime};
use crate::webpush::headers::{Topic, Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

use super::super::token::Token;
use super::rate::{Bucket, Window};
use super::ready::Ready;
use super::since::Since;

/// Internal number of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// Internal number of a subscription set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(pub u64);

/// Internal number of a receipt subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptsId(pub u64);

/// One receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptId {
    pub(super) receipts: ReceiptsId,
    pub(super) number: u64,
}

impl ReceiptId {
    /// As it is stored: the numbers of its receipt subscription, and its own.
    pub const fn key(self) -> (u64, u64) {
        (self.receipts.0, self.number)
    }

    /// From what is stored.
    pub const fn from_key((receipts, number): (u64, u64)) -> Self {
        Self { receipts: ReceiptsId(receipts), number }
    }
}

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
    /// A receipt subscription.
    Receipts,
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

/// Whether a sender wants to know of the end of its message, and where.
///
/// Source: RFC 8030 §5.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiptWish {
    /// It does not.
    #[default]
    None,
    /// On a receipt subscription that it does not have yet.
    New,
    /// On the receipt subscription presented.
    In(Token),
}

/// A message for a subscription, as its sender posted it.
///
/// Source: RFC 8030 §5.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The push resource.
    pub push: Token,
    /// How long to keep it.
    pub ttl: Ttl,
    /// How much it matters.
    pub urgency: Urgency,
    /// What it replaces: the message of the same topic.
    pub topic: Option<Topic>,
    /// Where its receipt goes.
    pub receipts: ReceiptWish,
    /// The message.
    pub content: Content,
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
    Send(Posted),
    /// The content of a message, which is no delivery.
    Read {
        /// The push message.
        message: Token,
    },
    /// The end of a message, which acknowledges it (RFC 8030 §6.2), of a subscription, a set or a receipt subscription
    /// (§7.3).
    Remove {
        /// The resource.
        resource: Token,
    },
    /// The messages of a subscription or set (RFC 8030 §6) or the receipts of a receipt subscription (§6.3), now and
    /// later.
    Monitor {
        /// The subscription, set or receipt subscription.
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
        /// The receipt subscription, if a receipt was asked for.
        receipts: Option<Token>,
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
    /// The receipt subscription presented is none.
    InvalidReceipts,
    /// The sender is over its rate for this push resource.
    TooMany {
        /// Seconds until it may send again.
        wait_s: u64,
    },
    /// A bound is reached; later it may work.
    Full,
}

/// What became of things the shell did or watches.
#[derive(Clone, Debug)]
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
    /// The receipt was not sent, for its request was reset before.
    Unsent(ReceiptId),
    /// The receiver has got all frames up to this receipt.
    Received(ReceiptId),
    /// These records are stored, by their numbers; what depends on them may be told.
    Stored(Range<u64>),
    /// The record that made this resource could not be stored, so there is no such resource.
    NotStored(Token),
    /// An operator ends this resource.
    Expire(Token),
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
    /// Promise and send a receipt.
    Receipt(Receipt),
    /// Answer a monitoring request, which ends it.
    End(MonitorId, Ending),
}

/// A receipt to push.
///
/// Source: RFC 8030 §6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Names it in [`Input::Received`].
    pub id: ReceiptId,
    /// The monitoring request it is promised on.
    pub monitor: MonitorId,
    /// The push message it is about.
    pub message: Token,
    /// What became of that.
    pub outcome: Outcome,
}

/// What became of a message, as its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 204: it was acknowledged.
    Acknowledged,
    /// 410: it was given up.
    GivenUp,
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
        /// Whether anybody ever asked for its messages.
        was_monitored: bool,
        /// The one application server that may send to it.
        restricted: Option<ApplicationServerKey>,
    },
    /// A subscription ended, and its messages with it.
    SubscriptionEnded(SubscriptionId),
    /// A message was accepted.
    Message(StoredMessage),
    /// A message was accepted in place of another one of its subscription.
    Replacement {
        /// The new one.
        message: StoredMessage,
        /// The number of the old one.
        replaced: u64,
    },
    /// A message was acknowledged, withdrawn or expired.
    MessageEnded {
        /// Its subscription.
        subscription: SubscriptionId,
        /// Its number.
        sequence: u64,
    },
    /// A receipt subscription exists.
    Receipts {
        /// Its number.
        id: ReceiptsId,
        /// Its token.
        token: Token,
    },
    /// A receipt subscription ended, and its receipts with it.
    ReceiptsEnded(ReceiptsId),
    /// A receipt waits for who monitors its receipt subscription.
    Receipt {
        /// The receipt.
        id: ReceiptId,
        /// The message it is about.
        message: Token,
        /// What became of that.
        outcome: Outcome,
    },
    /// A receipt was received, or gave way to others.
    ReceiptEnded(ReceiptId),
}

impl Record {
    /// Whether it says what is so in memory whether it can be stored or not: ends, and what follows from them.
    pub const fn is_owed(&self) -> bool {
        match self {
            Self::SetEnded(_)
            | Self::SubscriptionEnded(_)
            | Self::MessageEnded { .. }
            | Self::ReceiptsEnded(_)
            | Self::Receipt { .. }
            | Self::ReceiptEnded(_) => true,
            Self::Set { .. }
            | Self::Subscription { .. }
            | Self::Message(_)
            | Self::Replacement { .. }
            | Self::Receipts { .. } => false,
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
    /// What it replaces, and is replaced by.
    pub topic: Option<Topic>,
    /// Where its receipt goes.
    pub receipts: Option<ReceiptsId>,
    /// The message.
    pub content: Content,
}

/// A subscription set: as far as the service can tell, one user agent.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) token: Token,
    pub(super) members: BTreeSet<SubscriptionId>,
    pub(super) monitor: Option<MonitorId>,
    pub(super) life: Life,
    /// When messages were pushed lately, as far as their rate is limited.
    pub(super) pushed: Window,
    /// Until when nothing more is pushed, for as many as may be were pushed within a second.
    pub(super) paced_until: Option<Instant>,
    /// Messages that wait for others to leave with them, and until when.
    pub(super) batch: Option<Batch>,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) until: Instant,
    pub(super) held: BTreeSet<(SubscriptionId, u64)>,
}

/// Since when a resource is not used, and when that is looked at next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// None when it came to be unused some time after it was looked at.
    pub(super) unused_since: Option<Instant>,
    pub(super) look_at: Instant,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) token: Token,
    pub(super) push: Token,
    pub(super) set: SetId,
    /// The one application server that may send to it.
    pub(super) restricted: Option<ApplicationServerKey>,
    pub(super) messages: BTreeMap<u64, Message>,
    pub(super) ready: Ready,
    pub(super) in_flight_count: usize,
    /// The monitoring request on the subscription itself.
    pub(super) monitor: Option<MonitorId>,
    /// The monitor in whose line this subscription stands.
    pub(super) queued_on: Option<MonitorId>,
    pub(super) paused_until: Option<Instant>,
    /// Pauses since the last acknowledgement or monitoring request. While there are any, one message at a time probes.
    pub(super) pause_count: u32,
    pub(super) life: Life,
    /// Whether anybody ever asked for its messages.
    pub(super) was_monitored: bool,
    /// The outstanding message of each topic.
    pub(super) topics: BTreeMap<Topic, u64>,
    /// What its senders may still send.
    pub(super) allowance: Bucket,
    /// Messages refused for their rate since one was accepted.
    pub(super) refused_count: u32,
}

impl Subscription {
    pub(super) fn new((token, push): (Token, Token), set: SetId, was_monitored: bool, life: Life) -> Self {
        Self {
            token,
            push,
            set,
            restricted: None,
            messages: BTreeMap::new(),
            ready: Ready::default(),
            in_flight_count: 0,
            monitor: None,
            queued_on: None,
            paused_until: None,
            pause_count: 0,
            life,
            was_monitored,
            topics: BTreeMap::new(),
            allowance: Bucket::default(),
            refused_count: 0,
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
    /// Whether it waits for others to leave with it.
    pub(super) is_held: bool,
    /// What it replaces, oldest first, until its own record is stored: what cannot be stored has replaced nothing.
    pub(super) instead_of: Vec<Message>,
    /// The number of that record.
    pub(super) replacement: Option<u64>,
}

impl Message {
    pub(super) fn new(stored: StoredMessage, expires: Instant, was_stored: bool) -> Self {
        Self {
            stored,
            expires,
            was_stored,
            delivery: Delivery::Waiting,
            attempt: 0,
            drain_count: 0,
            is_held: false,
            instead_of: Vec::new(),
            replacement: None,
        }
    }

    /// Whether it may be pushed as far as it is concerned.
    pub(super) fn is_ready(&self) -> bool {
        self.delivery == Delivery::Waiting && !self.is_held
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
    Receipts(ReceiptsId),
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
    Unused(Owner),
    Pace(SetId),
    Batch(SetId),
}

impl From<Monitored> for Owner {
    fn from(monitored: Monitored) -> Self {
        match monitored {
            Monitored::Subscription(id) => Self::Subscription(id),
            Monitored::Set(id) => Self::Set(id),
            Monitored::Receipts(id) => Self::Receipts(id),
        }
    }
}

/// What has a life of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Subscription(SubscriptionId),
    Set(SetId),
    Receipts(ReceiptsId),
}
