//! The reference model: what application servers sent and devices have, and what must hold of it.
//!
//! It hears from the shells what passes through them and never looks into a machine. The first thing that does not hold
//! ends the run.

#[path = "conclude.rs"]
mod conclude;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldgate::limits::{HOLD_MS, LINK_SILENCE_MS, SERVICE_TTL_ZERO_MS};
use fieldgate::service::token::Token;
use fieldgate::webpush::headers::Urgency;
use fieldgate::wire::{ChannelId, MessageId};
use ring::digest;

use super::device::Traits;
use super::gateway::COVER_BYTES;
use super::invariant::{Bounds, Invariant, Report, Violation};
use super::upstream::{ORIGIN, token};

/// A promise may be on its way that long, and lifetimes of stored messages are whole seconds.
const LATE_MS_MAX: u64 = 3_000;
/// How long a promise and what follows may be on their way.
const PROMISED_MS_MAX: u64 = 2_000;
/// Messages that were relayed, of which one is taken for another.
const RELAYED_COUNT: usize = 64;

struct Message {
    token: Token,
    push: Token,
    id: MessageId,
    plaintext: Vec<u8>,
    is_decodable: bool,
    sent_at: u64,
    urgency: Urgency,
    ttl_s: u64,
    is_accepted: bool,
    deleted_at: Option<u64>,
    promises: u32,
    /// The connection of its last promise.
    promised_on: u64,
    /// When it was promised last.
    promised_at: Option<u64>,
    relays: u32,
    /// When its device first had it, counted over all messages.
    kept_order: Option<u64>,
}

struct Subscription {
    device: usize,
    channel: ChannelId,
    /// Whether the device still wants it.
    is_wanted: bool,
}

struct DeviceModel {
    traits: Traits,
    /// Ids it remembers.
    seen: VecDeque<MessageId>,
    /// Messages it had and does not remember, unacknowledged when it forgot them.
    may_repeat: BTreeSet<MessageId>,
    /// Subscriptions that were granted when it was last removed: what it is told of them later is of no use.
    granted_before: usize,
    /// When it slept, and until when.
    naps: Vec<(u64, u64)>,
}

impl DeviceModel {
    /// Whether it slept in a span of time.
    fn slept(&self, from: u64, to: u64) -> bool {
        self.naps.iter().any(|(begin, end)| *begin <= to && from <= *end)
    }
}

/// The reference model.
pub(super) struct Check {
    bounds: Bounds,
    violation: Option<Violation>,
    report: Report,
    /// By their number; those that are long over are forgotten.
    messages: BTreeMap<usize, Message>,
    message_count: usize,
    by_token: BTreeMap<Token, usize>,
    by_id: BTreeMap<MessageId, usize>,
    subscriptions: BTreeMap<Token, Subscription>,
    /// Push resources that the service made.
    /// In the order in which they were granted.
    granted: Vec<Token>,
    /// Those that it lost since; the gateway may not know that yet.
    lost: BTreeSet<Token>,
    /// Channels that their device gave up at least once.
    given_up: BTreeSet<(usize, ChannelId)>,
    devices: Vec<DeviceModel>,
    /// Device acks that this run of the gateway heard.
    acked: BTreeSet<(usize, MessageId)>,
    /// The last ones.
    relayed: VecDeque<(usize, MessageId)>,
    kept_count: u64,
}

impl Check {
    pub fn new(bounds: Bounds, devices: Vec<Traits>) -> Self {
        let model = |traits| DeviceModel {
            traits,
            seen: VecDeque::new(),
            may_repeat: BTreeSet::new(),
            granted_before: 0,
            naps: Vec::new(),
        };
        Self {
            bounds,
            violation: None,
            report: Report::default(),
            messages: BTreeMap::new(),
            message_count: 0,
            by_token: BTreeMap::new(),
            by_id: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            granted: Vec::new(),
            lost: BTreeSet::new(),
            given_up: BTreeSet::new(),
            devices: devices.into_iter().map(model).collect(),
            acked: BTreeSet::new(),
            relayed: VecDeque::new(),
            kept_count: 0,
        }
    }

    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub fn outcome(&self) -> Result<Report, Box<Violation>> {
        self.violation.clone().map_or(Ok(self.report), |violation| Err(Box::new(violation)))
    }

    pub fn fail(&mut self, invariant: Invariant, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, text });
        }
    }

    fn expect(&mut self, holds: bool, invariant: Invariant, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, text());
        }
    }

    /// A count stays within its bound.
    pub fn bound(&mut self, what: &str, count: usize, max: usize) {
        let max = max * self.bounds.memory_percent / 100;
        self.expect(count <= max, Invariant::Memory, || format!("{count} {what}, {max} at most"));
    }

    /// Whether one more output may come in this turn.
    pub fn is_output_allowed(&mut self, count: u32) -> bool {
        let max = self.bounds.outputs_max;
        self.expect(count <= max, Invariant::OutputsEnd, || format!("more than {max} outputs in one turn"));
        count <= max
    }

    /// An announcement is made.
    pub fn announcing(&mut self, is_alone: bool, is_stored: bool, document: &str) {
        self.expect(is_alone, Invariant::Announced, || format!("two at a time: {document}"));
        self.expect(is_stored, Invariant::Announced, || format!("told before it is stored: {document}"));
    }

    /// What an application server knows in the end.
    pub fn conclude_announced(
        &mut self,
        known: &BTreeMap<(String, u16), String>,
        posted_at: &BTreeMap<(String, u16), String>,
    ) {
        self.expect(known == posted_at, Invariant::Announced, || format!("{known:?} is known of {posted_at:?}"));
    }

    fn message(&mut self, number: usize) -> &mut Message {
        self.messages.get_mut(&number).expect("what is not over is not forgotten")
    }

    // What application servers and the service do.

    /// The service made a subscription.
    pub fn granted(&mut self, push: Token) {
        self.granted.push(push);
    }

    /// The service took a message; gives its number.
    pub fn sent(
        &mut self,
        push: Token,
        message: Token,
        plaintext: Vec<u8>,
        body: &[u8],
        (ttl_s, urgency): (u64, Urgency),
        now: u64,
    ) -> usize {
        let number = self.message_count;
        self.message_count += 1;
        let id = message_id(message, body);
        self.by_token.insert(message, number);
        self.by_id.insert(id, number);
        let is_decodable = body.len() == plaintext.len() + COVER_BYTES.0 + COVER_BYTES.1;
        let sent = Message {
            token: message,
            push,
            id,
            plaintext,
            is_decodable,
            sent_at: now,
            ttl_s,
            urgency,
            is_accepted: false,
            deleted_at: None,
            promises: 0,
            promised_on: 0,
            promised_at: None,
            relays: 0,
            kept_order: None,
        };
        self.messages.insert(number, sent);
        number
    }

    /// What a message is, for a person.
    pub fn describe(&self, number: usize) -> String {
        let message = &self.messages[&number];
        let place = self.subscriptions.get(&message.push).map(|it| (it.device, it.channel.0, it.is_wanted));
        let (bytes, ttl_s, id) = (message.plaintext.len(), message.ttl_s, message.id);
        let (promises, relays) = (message.promises, message.relays);
        format!("{number} (to {place:?}, {id}, {bytes} octets for {ttl_s} s, promised {promises}x, relayed {relays}x)")
    }

    /// The application server was told so.
    pub fn accepted(&mut self, number: usize) {
        self.message(number).is_accepted = true;
        self.report.accepted += 1;
    }

    /// The service promised it.
    pub fn promised(&mut self, message: Token, connection: u64, now: u64) -> usize {
        let number = self.by_token.get(&message).copied();
        let Some(number) = number else {
            self.fail(Invariant::Intact, "a message that nobody sent is promised".to_owned());
            return 0;
        };
        let promised = self.message(number);
        promised.promises += 1;
        (promised.promised_on, promised.promised_at) = (connection, Some(now));
        self.report.promises += 1;
        number
    }

    /// A message is promised on a request that wants this much.
    pub fn wanted(&mut self, message: Token, least: Urgency) {
        let Some(number) = self.by_token.get(&message).copied() else { return };
        let urgency = self.messages[&number].urgency;
        self.expect(urgency >= least, Invariant::Wanted, || {
            format!("message {number} of urgency {urgency} is promised where {least} is wanted")
        });
    }

    /// DELETE reached the service.
    pub fn deleting(&mut self, message: Token) {
        let number = self.by_token[&message];
        let is_kept = self.messages[&number].kept_order.is_some();
        self.expect(is_kept, Invariant::AcknowledgedByDevice, || {
            format!("DELETE of message {number}, which its device does not have")
        });
    }

    /// The end of it is on the service's disk.
    pub fn deleted(&mut self, resource: Token, now: u64) {
        if let Some(number) = self.by_token.get(&resource).copied() {
            self.message(number).deleted_at = Some(now);
        }
    }

    /// The service lost everything.
    pub fn wiped(&mut self) {
        self.subscriptions.values_mut().for_each(|subscription| subscription.is_wanted = false);
        self.lost.extend(self.granted.iter().copied());
    }

    // What the gateway does.

    pub fn gateway_started(&mut self) {
        self.relayed.clear();
    }

    /// The gateway relays a message.
    pub fn relayed(&mut self, device: usize, message: MessageId) {
        let Some(number) = self.by_id.get(&message).copied() else {
            return self.fail(Invariant::Intact, format!("{message} is relayed, which is no message"));
        };
        self.message(number).relays += 1;
        if self.relayed.len() == RELAYED_COUNT {
            self.relayed.pop_front();
        }
        self.relayed.push_back((device, message));
    }

    /// Another message that was relayed to the same device.
    pub fn another_relayed(&self, device: usize, message: MessageId) -> Option<MessageId> {
        let mut relayed = self.relayed.iter().rev();
        relayed.find(|(to, id)| *to == device && *id != message).map(|(_, id)| *id)
    }

    /// A pump handed a message to its link.
    pub fn handed(&mut self, message: MessageId, now: u64) {
        let Some(number) = self.by_id.get(&message).copied() else { return };
        let end = self.messages[&number].expires() + HOLD_MS + LATE_MS_MAX;
        self.expect(now <= end, Invariant::InTime, || {
            format!("message {number} is handed over {} ms after its lifetime", now - end + HOLD_MS)
        });
    }

    /// The gateway heard a device ack.
    pub fn device_acked(&mut self, device: usize, message: MessageId) {
        self.acked.insert((device, message));
    }

    /// The gateway acknowledges a message.
    pub fn acknowledging(&mut self, message: Token) {
        let Some(number) = self.by_token.get(&message).copied() else {
            return self.fail(Invariant::AcknowledgedByDevice, "DELETE of no message".to_owned());
        };
        let id = self.messages[&number].id;
        let device = self.subscriptions.get(&self.messages[&number].push).map(|subscription| subscription.device);
        let is_acked = device.is_some_and(|device| self.acked.contains(&(device, id)));
        self.expect(is_acked, Invariant::AcknowledgedByDevice, || {
            format!("DELETE of message {number} without a device ack for it")
        });
    }

    pub fn refused_visibly(&mut self) {
        self.report.refused_visibly += 1;
    }

    // What devices do.

    /// A device was told of a subscription.
    pub fn told(&mut self, device: usize, channel: ChannelId, push: &str) {
        let told = token(push);
        let mine = |(push, it): (&Token, &Subscription)| {
            it.device == device && it.channel == channel && it.is_wanted && *push != told
        };
        let is_replaced = !self.given_up.contains(&(device, channel)) && self.subscriptions.iter().any(mine);
        self.expect(!is_replaced, Invariant::Subscribed, || {
            format!("the subscription of device {device}, channel {channel} is another one, and nobody gave it up")
        });
        self.end_subscriptions(device, channel);
        let before = &self.granted[..self.devices[device].granted_before];
        let is_wanted = !self.lost.contains(&told) && !before.contains(&told);
        self.subscriptions.insert(told, Subscription { device, channel, is_wanted });
    }

    /// The gateway replaces a subscription by another one.
    pub fn replaced(&mut self, device: usize, channel: ChannelId) {
        self.left(device, channel);
    }

    /// A device gave a subscription up. What it is told from now on may be older than that.
    pub fn left(&mut self, device: usize, channel: ChannelId) {
        self.given_up.insert((device, channel));
        self.end_subscriptions(device, channel);
    }

    fn end_subscriptions(&mut self, device: usize, channel: ChannelId) {
        let mine = |it: &&mut Subscription| it.device == device && it.channel == channel;
        self.subscriptions.values_mut().filter(mine).for_each(|it| it.is_wanted = false);
    }

    /// A device was taken away from the gateway.
    pub fn device_removed(&mut self, device: usize) {
        let mine = |it: &&mut Subscription| it.device == device;
        self.subscriptions.values_mut().filter(mine).for_each(|it| it.is_wanted = false);
        self.devices[device].granted_before = self.granted.len();
    }

    /// A message reached a device.
    pub fn received(&mut self, device: usize, message: MessageId, channel: ChannelId, body: &[u8], now: u64) {
        let Some(number) = self.by_id.get(&message).copied() else {
            return self.fail(Invariant::Intact, format!("a device has {message}, which is no message"));
        };
        let sent = &self.messages[&number];
        let is_intact = sent.plaintext == body
            && self.subscriptions.get(&sent.push).is_some_and(|it| it.device == device && it.channel == channel);
        // What was handed to the link when its device fell asleep goes on when that wakes.
        let has_slept = self.devices[device].slept(sent.sent_at, now);
        let late = if has_slept { 0 } else { now.saturating_sub(sent.expires()) };
        self.report.late_ms_max = self.report.late_ms_max.max(late);
        self.expect(is_intact, Invariant::Intact, || format!("message {number} is not what was sent, or not there"));
        // The link repeats what it began with until its peer counts as silent.
        self.expect(late <= HOLD_MS + LATE_MS_MAX + 2 * LINK_SILENCE_MS, Invariant::InTime, || {
            format!("message {number} arrives {late} ms after its lifetime")
        });
    }

    /// A device falls asleep.
    pub fn nap_began(&mut self, device: usize, now: u64) {
        self.devices[device].naps.push((now, u64::MAX));
        self.report.naps += 1;
    }

    /// It hears again.
    pub fn nap_ended(&mut self, device: usize, now: u64) {
        if let Some((_, end)) = self.devices[device].naps.last_mut() {
            *end = now;
        }
    }

    /// A device is told that nothing waits for it, where nothing goes wrong. The gateway cannot know of what the service
    /// holds back until it hears of acknowledgements.
    pub fn nothing_waits(&mut self, device: usize, now: u64) {
        let waits = |message: &Message| {
            let is_its = self.subscriptions.get(&message.push).is_some_and(|it| it.device == device && it.is_wanted);
            let is_known = message.promised_at.is_some_and(|at| at + PROMISED_MS_MAX <= now) && now < message.expires();
            is_its && is_known && message.is_accepted && message.is_decodable && message.kept_order.is_none()
        };
        let left = self.messages.iter().find(|(_, message)| waits(message)).map(|(number, _)| *number);
        if let Some(number) = left {
            let text = self.describe(number);
            self.fail(
                Invariant::Status,
                format!("device {device} is told that nothing waits, and message {text} does"),
            );
        }
    }

    pub fn refused_by_device(&mut self) {
        self.report.refused_by_device += 1;
    }

    /// An application has a message.
    pub fn kept(&mut self, device: usize, id: MessageId) -> Option<usize> {
        let number = self.by_id.get(&id).copied()?;
        self.kept_count += 1;
        if self.messages[&number].kept_order.is_some() {
            self.kept_again(device, id, number);
        } else {
            let order = self.kept_count;
            self.message(number).kept_order = Some(order);
            self.report.delivered += 1;
        }
        let model = &mut self.devices[device];
        if model.seen.len() == model.traits.seen_count
            && let Some(forgotten) = model.seen.pop_front()
        {
            self.forget(device, forgotten);
        }
        self.devices[device].seen.push_back(id);
        Some(number)
    }

    fn kept_again(&mut self, device: usize, id: MessageId, number: usize) {
        self.report.copies += 1;
        let model = &mut self.devices[device];
        let may_repeat = model.may_repeat.remove(&id);
        self.expect(may_repeat, Invariant::Once, || format!("the application of device {device} has {number} twice"));
    }

    /// A device lost its memory.
    pub fn forgot(&mut self, device: usize) {
        for id in std::mem::take(&mut self.devices[device].seen) {
            self.forget(device, id);
        }
    }

    fn forget(&mut self, device: usize, id: MessageId) {
        // One that is forgotten here is long over.
        let is_deleted = self.by_id.get(&id).is_none_or(|number| self.messages[number].deleted_at.is_some());
        if !is_deleted && !self.devices[device].traits.keeps_ids {
            self.devices[device].may_repeat.insert(id);
        }
    }
}

impl Message {
    fn expires(&self) -> u64 {
        self.sent_at + (self.ttl_s * 1_000).max(SERVICE_TTL_ZERO_MS)
    }
}

/// See [`MessageId`].
fn message_id(message: Token, body: &[u8]) -> MessageId {
    let uri = format!("{ORIGIN}{}", message.path());
    let octets = [&(uri.len() as u16).to_be_bytes(), uri.as_bytes(), body].concat();
    let hash = digest::digest(&digest::SHA256, &octets);
    MessageId(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 octets"))
}
