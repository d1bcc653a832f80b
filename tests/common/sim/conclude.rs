//! The last look at a run: what must have come to its end once all was well for long.

use fieldgate::webpush::headers::Urgency;
use std::collections::BTreeMap;

use fieldgate::proto::status::Status;
use fieldgate::service::token::Token;
use fieldgate::wire::ChannelId;

use super::super::device::Told;
use super::super::invariant::{Invariant, Stock};
use super::super::plan::{Climate, Plan};
use super::Check;

/// Octets that a push adds on the link.
const PUSH_OVERHEAD_BYTES: usize = 19;

impl Check {
    /// Looks at everything once more, after all was well for long.
    pub fn conclude(
        &mut self,
        now: u64,
        plan: &Plan,
        wanted: &[(usize, ChannelId, Option<&Told>)],
        posted_at: impl Fn(usize, ChannelId) -> Option<String>,
        is_kept: impl Fn(Token) -> bool,
        status: Option<&Status>,
    ) {
        let climate = plan.climate;
        self.report.climate = Some(climate);
        self.report.is_steady = plan.is_steady();
        let in_flight = status.map(|status| status.in_flight);
        self.expect(in_flight == Some(0), Invariant::SlotsReturn, || format!("{in_flight:?} messages in flight"));
        for (device, channel, told) in wanted {
            let (told, at) = (told.map(|told| told.push.clone()), posted_at(*device, *channel));
            self.expect(told.is_some() && told == at, Invariant::Subscribed, || {
                format!("device {device} was told {told:?} for channel {channel}, which is {at:?}")
            });
        }
        for number in self.messages.keys().copied().collect::<Vec<_>>() {
            self.conclude_message(number, now, climate, &is_kept);
        }
        self.conclude_order();
        // A message that expired while its device was slow was promised as rightly as one that was delivered.
        let is_over = |it: &&super::Message| it.kept_order.is_some() || (it.promises > 0 && it.expires() <= now);
        let over = self.messages.values().filter(is_over).count() as u64;
        let promises = self.report.promises;
        // What comes for a device that sleeps is promised again when it wakes, of all its channels at once.
        let halves = match (plan.is_steady(), plan.has_sleepers) {
            (true, _) => 2,
            (false, false) => 5,
            (false, true) => 8,
        };
        let percent = self.bounds.promises_percent * halves / 2;
        let is_wasteful = climate == Climate::Calm && promises * 100 > over * percent;
        self.expect(!is_wasteful, Invariant::Promises, || format!("{promises} promises for {over} messages"));
    }

    /// What a device was told last of what waits for it.
    pub fn conclude_status(&mut self, device: &str, waiting: Option<u8>) {
        let is_told = waiting.is_none_or(|waiting| waiting == 0);
        self.expect(is_told, Invariant::Status, || format!("{device} was told last that {waiting:?} wait"));
    }

    /// Forgets the messages that were over at that time.
    pub fn forget_over(&mut self, then: u64) {
        self.conclude_order();
        let is_over = |message: &super::Message| message.deleted_at.unwrap_or(message.expires()) < then;
        let over: Vec<usize> = self.messages.iter().filter(|(_, it)| is_over(it)).map(|(number, _)| *number).collect();
        for message in over.iter().filter_map(|number| self.messages.remove(number)) {
            self.by_token.remove(&message.token);
            self.by_id.remove(&message.id);
            for (index, device) in self.devices.iter_mut().enumerate() {
                device.may_repeat.remove(&message.id);
                self.acked.remove(&(index, message.id));
            }
        }
    }

    /// What there is after some tenths of the run.
    pub fn stock(&mut self, tenths: u32, stock: Stock) {
        if let Some(place) = self.report.stock.get_mut(tenths as usize - 1) {
            *place = stock;
        }
    }

    fn conclude_message(&mut self, number: usize, now: u64, climate: Climate, is_kept: &impl Fn(Token) -> bool) {
        let message = &self.messages[&number];
        let Some(subscription) = self.subscriptions.get(&message.push) else { return };
        let bytes_max = self.devices[subscription.device].traits.message_bytes_max;
        let is_deliverable = message.is_decodable && message.plaintext.len() + PUSH_OVERHEAD_BYTES <= bytes_max;
        // When nothing goes wrong, a lifetime of minutes is enough.
        let has_slept = self.devices[subscription.device].slept(message.sent_at, message.expires().min(now));
        let is_due = message.expires() > now || (climate == Climate::Calm && message.ttl_s >= 100 && !has_slept);
        if !message.is_accepted || !subscription.is_wanted || !is_deliverable || !is_due {
            return;
        }
        let (is_here, is_there) = (message.kept_order.is_some(), is_kept(message.token));
        let text = self.describe(number);
        self.expect(is_here, Invariant::Delivered, || format!("message {text} was accepted and is not delivered"));
        self.expect(!is_there, Invariant::Acknowledged, || format!("message {text} is delivered and still kept"));
    }

    /// Of two messages of one urgency that were pushed on the same connection and relayed once, the earlier one comes first.
    /// What comes on the connection before this one may be later.
    pub(super) fn conclude_order(&mut self) {
        let mut last: BTreeMap<(Token, Urgency, u64), (&usize, u64)> = BTreeMap::new();
        let straight = |message: &&super::Message| message.promises == 1 && message.relays == 1;
        let mut wrong = None;
        for (number, message) in self.messages.iter().filter(|(_, message)| straight(message)) {
            let Some(order) = message.kept_order else { continue };
            if let Some((before, other)) =
                last.insert((message.push, message.urgency, message.promised_on), (number, order))
                && other > order
            {
                wrong = wrong.or(Some(format!("message {number} overtook {before}")));
            }
        }
        if let Some(text) = wrong {
            self.fail(Invariant::Order, text);
        }
    }
}
