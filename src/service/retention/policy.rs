//! What the operator of a push service allows.

use crate::limits::{
    SERVICE_FRESH_S, SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX, SERVICE_SENDS_PER_MINUTE, SERVICE_SET_MEMBER_COUNT_MAX,
    SERVICE_UNUSED_S, TTL_S_MAX,
};
use crate::time::Duration;
use crate::webpush::headers::Ttl;

/// The choices that RFC 8030 leaves to a push service.
#[derive(Clone, Debug)]
pub struct Policy {
    /// No message is kept longer; senders learn the time their message really has (RFC 8030 §5.2).
    pub ttl_max: Ttl,
    /// Subscriptions of one set; a subscribe request beyond them gets a new set.
    pub set_member_count_max: usize,
    /// Messages that one subscription may have waiting.
    pub message_count_max: usize,
    /// What happens to a message for a subscription that has as many.
    pub when_full: WhenFull,
    /// Attempts to push a message before it is given up; none: until it expires (§6.2).
    pub attempt_count_max: Option<u32>,
    /// Messages a minute for one push resource; none: as many as come (§8.4).
    pub sends_per_minute: Option<u32>,
    /// Messages refused for that rate, with none accepted between them, after which the subscription ends; none: never.
    pub refused_count_max: Option<u32>,
    /// Messages a second for one user agent, as far as sets tell them apart; none: as many as it acknowledges.
    pub pushes_per_second: Option<u32>,
    /// How long messages wait for others to leave with them, those excepted that are urgent or expire before; zero: not at
    /// all.
    pub batch: Duration,
    /// How long a subscription lives that nobody ever asked for messages.
    pub fresh: Duration,
    /// How long a subscription, an empty set or a receipt subscription lives that nobody uses.
    pub unused: Duration,
}

/// What happens to a message for a subscription that has as many as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused; its sender may send it again later.
    #[default]
    Refuse,
    /// It is accepted if another one matters no more: the oldest of the least urgent ones is given up for it.
    Evict,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl_max: Ttl::from_secs(TTL_S_MAX),
            set_member_count_max: SERVICE_SET_MEMBER_COUNT_MAX,
            message_count_max: SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX,
            when_full: WhenFull::Refuse,
            attempt_count_max: None,
            sends_per_minute: Some(SERVICE_SENDS_PER_MINUTE),
            refused_count_max: None,
            pushes_per_second: None,
            batch: Duration::ZERO,
            fresh: Duration::from_secs(SERVICE_FRESH_S),
            unused: Duration::from_secs(SERVICE_UNUSED_S),
        }
    }
}
