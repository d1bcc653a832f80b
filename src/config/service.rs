//! The configuration of the push service: TOML text in, choices out that are within bounds.
//!
//! Every key may be left out; what the command line says counts more.
//!
//! ```toml
//! listen = "[::]:8443"                       # default: every address, port 443
//! alternative = "webpush"                    # [HOST:]PORT or webpush, which is 1001; default: none
//! state = "/var/lib/fieldgate-push"          # here or with --state
//! name = "push.example.net"                  # default: the address listened on
//!
//! ttl_max_s = 2147483648                     # these are the defaults
//! set_members_max = 1024
//! messages_per_subscription_max = 4096
//! when_full = "refuse"                       # or "evict"
//! message_bytes_max = 4096
//! sends_per_minute = 60000
//! batch_s = 0
//! fresh_days = 1
//! unused_days = 90
//! receipt_subscriptions_per_connection = 1024
//! offer_sets = true
//! require_set = false
//!
//! attempts_max = 10                          # default: until a message expires
//! refused_in_a_row_max = 1000                # default: a subscription never ends for it
//! pushes_per_second = 5                      # default: no limit
//! redirect_to = "https://other.example.net/subscribe" # default: nowhere
//! subscribe_token_file = "/etc/fieldgate/subscribe-token" # default: everybody may subscribe
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use http::Uri;

use super::error::{ConfigError, Problem};
use super::reader::{Reader, Section};
use super::{absolute_path, parse_with, push_service_url};
use crate::limits::{
    PUSH_BODY_BYTES_MAX, SERVICE_ATTEMPTS_MAX, SERVICE_BATCH_S_MAX, SERVICE_BODY_BYTES_MAX, SERVICE_LIFE_DAYS_MAX,
    SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX, SERVICE_PUSHES_PER_SECOND_MAX,
    SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION_MAX, SERVICE_REFUSED_COUNT_MAX, SERVICE_SENDS_PER_MINUTE,
    SERVICE_SET_MEMBER_COUNT_MAX, TTL_S_MAX,
};
use crate::service::PORT;
use crate::service::alternative::Alternative;
use crate::service::gate::Rules;
use crate::service::retention::{Policy, WhenFull};
use crate::time::Duration;
use crate::webpush::headers::Ttl;

const DAY_S: u64 = 86_400;

const KEYS: &[&str] = &[
    "listen",
    "alternative",
    "state",
    "name",
    "ttl_max_s",
    "set_members_max",
    "messages_per_subscription_max",
    "when_full",
    "message_bytes_max",
    "attempts_max",
    "sends_per_minute",
    "refused_in_a_row_max",
    "pushes_per_second",
    "batch_s",
    "fresh_days",
    "unused_days",
    "receipt_subscriptions_per_connection",
    "offer_sets",
    "require_set",
    "redirect_to",
    "subscribe_token_file",
];

/// What a push service is told to do.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// Where it listens as well.
    pub alternative: Option<Alternative>,
    /// The folder of its state; absolute.
    pub state: Option<PathBuf>,
    /// The host name under which it is reached.
    pub name: Option<String>,
    /// What it allows.
    pub policy: Policy,
    /// What it asks of requests.
    pub rules: Rules,
    /// The file with the token for subscribing; absolute.
    pub subscribe_token_file: Option<PathBuf>,
}

impl ServiceConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text. A text that is no TOML has only those errors.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        parse_with(text, |reader, root| Some(read(reader, root)))
    }
}

/// Reads an address with or without a port.
///
/// # Errors
/// It is none.
pub fn address(text: &str) -> Result<SocketAddr, Problem> {
    let without_port = || text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    text.parse().or_else(|_| without_port()).map_err(|_| Problem::ListenAddress)
}

/// Reads a name that a certificate can carry: without port, scheme or path.
///
/// # Errors
/// It is none.
pub fn host_name(text: &str) -> Result<String, Problem> {
    let is_label = |label: &str| {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    if is_name { Ok(text.to_ascii_lowercase()) } else { Err(Problem::HostName) }
}

fn read(reader: &mut Reader, root: &Section) -> ServiceConfig {
    reader.check_keys(root, KEYS);
    ServiceConfig {
        listen: reader.optional(root, "listen", address),
        alternative: reader.optional(root, "alternative", |text| text.parse().map_err(Problem::Alternative)),
        state: reader.optional(root, "state", absolute_path),
        name: reader.optional(root, "name", host_name),
        policy: read_policy(reader, root),
        rules: read_rules(reader, root),
        subscribe_token_file: reader.optional(root, "subscribe_token_file", absolute_path),
    }
}

fn read_policy(reader: &mut Reader, root: &Section) -> Policy {
    let default = Policy::default();
    let when_full = reader.optional(root, "when_full", when_full).unwrap_or_default();
    let mut number = |key, min, max| reader.number_in(root, key, min, max);
    let ttl_max_s = number("ttl_max_s", 1, TTL_S_MAX as u32);
    let set_members = number("set_members_max", 1, SERVICE_SET_MEMBER_COUNT_MAX as u32);
    let messages = number("messages_per_subscription_max", 1, SERVICE_MESSAGES_PER_SUBSCRIPTION_MAX as u32);
    let mut days = |key| number(key, 1, SERVICE_LIFE_DAYS_MAX).map(|days| Duration::from_secs(u64::from(days) * DAY_S));
    let (fresh, unused) = (days("fresh_days"), days("unused_days"));
    Policy {
        ttl_max: ttl_max_s.map_or(default.ttl_max, |ttl| Ttl::from_secs(ttl.into())),
        set_member_count_max: set_members.map_or(default.set_member_count_max, |count| count as usize),
        message_count_max: messages.map_or(default.message_count_max, |count| count as usize),
        when_full,
        attempt_count_max: number("attempts_max", 1, SERVICE_ATTEMPTS_MAX),
        sends_per_minute: number("sends_per_minute", 1, SERVICE_SENDS_PER_MINUTE).or(default.sends_per_minute),
        refused_count_max: number("refused_in_a_row_max", 1, SERVICE_REFUSED_COUNT_MAX),
        pushes_per_second: number("pushes_per_second", 1, SERVICE_PUSHES_PER_SECOND_MAX),
        batch: number("batch_s", 0, SERVICE_BATCH_S_MAX).map_or(default.batch, |s| Duration::from_secs(s.into())),
        fresh: fresh.unwrap_or(default.fresh),
        unused: unused.unwrap_or(default.unused),
    }
}

fn read_rules(reader: &mut Reader, root: &Section) -> Rules {
    let default = Rules::default();
    let offer_sets = reader.boolean(root, "offer_sets").unwrap_or(default.offer_sets);
    let require_set = reader.boolean(root, "require_set").unwrap_or(default.require_set);
    if require_set && !offer_sets {
        reader.refuse_in(root, "require_set", Problem::Either { other: "offer_sets = false" });
    }
    let redirect_to: Option<Uri> =
        reader.optional(root, "redirect_to", |text| push_service_url(text).map_err(Problem::Url));
    let receipts = ("receipt_subscriptions_per_connection", SERVICE_RECEIPT_SUBSCRIPTIONS_PER_CONNECTION_MAX);
    let receipts = reader.number_in(root, receipts.0, 1, receipts.1);
    // No service may refuse what is shorter (RFC 8030 §7.2).
    let (min, max) = (PUSH_BODY_BYTES_MAX as u32, SERVICE_BODY_BYTES_MAX as u32);
    let bytes = reader.number_in(root, "message_bytes_max", min, max);
    Rules {
        offer_sets,
        require_set,
        redirect_to,
        receipt_subscriptions_per_connection: receipts.unwrap_or(default.receipt_subscriptions_per_connection),
        message_bytes_max: bytes.map_or(default.message_bytes_max, |bytes| bytes as usize),
    }
}

fn when_full(text: &str) -> Result<WhenFull, Problem> {
    match text {
        "refuse" => Ok(WhenFull::Refuse),
        "evict" => Ok(WhenFull::Evict),
        _ => Err(Problem::OneOf(&["refuse", "evict"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_names() {
        for good in ["localhost", "push.example.net", "192.0.2.1", "a-b.c"] {
            assert_eq!(host_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "push.example.net:8443", "https://a", "::1", "a b", "*.example", "a.", "-a", "a..b"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    /// A-PS-02: without a port it is that of https.
    #[test]
    fn a_ps_02_addresses_without_a_port_get_443() {
        let at = |text| address(text).map(|address| address.to_string());
        assert_eq!(at("127.0.0.1"), Ok("127.0.0.1:443".to_owned()));
        assert_eq!(at("127.0.0.1:0"), Ok("127.0.0.1:0".to_owned()));
        assert_eq!(at("::1"), Ok("[::1]:443".to_owned()));
        assert_eq!(at("[::1]"), Ok("[::1]:443".to_owned()));
        assert_eq!(at("[::]:8443"), Ok("[::]:8443".to_owned()));
        assert!(address("localhost").is_err());
    }
}
