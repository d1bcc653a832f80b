//! What becomes of changes once they are stored, or cannot be.
//!
//! A message takes its place in memory at once and on the disk a little later. Until then it keeps what it replaced, which
//! is there again if the disk refuses.

use std::ops::Range;

use super::super::token::Token;
use super::model::Message;
use super::{Record, Resource, Retention, StoredMessage, SubscriptionId};

impl Retention {
    /// Hands over the record of a new message, and lets it keep what it replaced until that is stored.
    pub(super) fn record_message(&mut self, stored: StoredMessage, replaced: Option<Message>) {
        let Some(mut replaced) = replaced.filter(Message::is_durable) else {
            self.push_record(Record::Message(stored));
            return;
        };
        let (id, sequence) = (stored.subscription, stored.sequence);
        let number = self.push_record(Record::Replacement { message: stored, replaced: replaced.stored.sequence });
        let mut instead_of = std::mem::take(&mut replaced.instead_of);
        instead_of.push(replaced);
        self.expect_outcome(id, sequence, number, instead_of);
    }

    /// Hands over the record of a message's end, and of the end of what it replaced if its own record may yet turn out not
    /// to be stored: otherwise the disk would keep that.
    pub(super) fn record_end(&mut self, message: &Message) {
        for over in message.instead_of.iter().chain([message]).filter(|it| it.is_durable()) {
            let (subscription, sequence) = (over.stored.subscription, over.stored.sequence);
            self.push_record(Record::MessageEnded { subscription, sequence });
        }
    }

    /// Messages that have replaced another one only if they turn out to be stored.
    #[cfg(test)]
    pub(in super::super) fn undecided_count(&self) -> usize {
        self.unstored_replacements.len()
    }

    fn expect_outcome(&mut self, id: SubscriptionId, sequence: u64, number: u64, instead_of: Vec<Message>) {
        let Some(message) = self.message_mut(id, sequence) else { return };
        (message.instead_of, message.replacement) = (instead_of, Some(number));
        self.unstored_replacements.insert(number, (id, sequence));
    }

    /// What these records say is on the disk. So is all that ended before, for it is committed before anything later.
    pub(super) fn stored(&mut self, records: Range<u64>) {
        while let Some(entry) = self.unstored_receipts.first_entry().filter(|entry| *entry.key() < records.end) {
            let receipt = entry.remove();
            self.release_receipt(receipt);
        }
        for number in self.unstored_replacements.range(records).map(|(number, _)| *number).collect::<Vec<_>>() {
            let replacement = self.unstored_replacements.remove(&number);
            if let Some(message) = replacement.and_then(|(id, sequence)| self.message_mut(id, sequence)) {
                (message.instead_of, message.replacement) = (Vec::new(), None);
            }
        }
    }

    /// Takes back what could not be stored; a message that it should have replaced is there again.
    pub(super) fn not_stored(&mut self, token: Token) {
        match self.tokens.get(&token).copied() {
            Some(Resource::Subscription(id)) => self.remove_subscription(id),
            Some(Resource::Receipts(id)) => self.remove_receipts(id),
            Some(Resource::Message(id, sequence)) => {
                if let Some(message) = self.take_message(id, sequence) {
                    self.bring_back(message.instead_of);
                }
                self.offer(id);
            }
            // A push resource never stands alone, and an empty set gives way to others.
            Some(Resource::Push(_) | Resource::Set(_)) => {}
            None => self.forget_replaced(token),
        }
    }

    /// Brings the last of several messages back that replaced each other.
    fn bring_back(&mut self, mut messages: Vec<Message>) {
        let Some(last) = messages.pop() else { return };
        let (id, sequence) = (last.stored.subscription, last.stored.sequence);
        self.insert_message(last.stored, last.expires, true);
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            // A later attempt has another number.
            let counts = (last.attempt, last.drain_count);
            subscription.change(sequence, |message| (message.attempt, message.drain_count) = counts);
        }
        if let Some(number) = last.replacement {
            self.expect_outcome(id, sequence, number, messages);
        }
    }

    /// Forgets a message that could not be stored and was replaced meanwhile: it must not come back with its replacement.
    fn forget_replaced(&mut self, token: Token) {
        for (id, sequence) in self.unstored_replacements.values().copied().collect::<Vec<_>>() {
            if let Some(message) = self.message_mut(id, sequence) {
                message.instead_of.retain(|old| old.stored.token != token);
            }
        }
    }
}
