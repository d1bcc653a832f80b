//! The half of the machine that tells senders what became of their messages.
//!
//! ```text
//!                 its record is stored           pushed              everything up to it was received
//!  message over -----------------------> Waiting ------> Sent ------------------------------------> gone
//!                                           ^              |
//!                                           +-- connection lost
//! ```
//!
//! A receipt is never acknowledged by a request, so it is over once its receiver has answered something that was sent
//! after it. One that is pushed again on another connection names the same message: whoever gets two knows.
//!
//! Source: RFC 8030 §5.1, §6.3.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{
    SERVICE_RECEIPT_COUNT_MAX, SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX, SERVICE_RECEIPTS_PER_SUBSCRIPTION_MAX,
    SERVICE_RECEIPTS_UNCONFIRMED_MAX,
};
use crate::random::Random;

use super::super::token::Token;
use super::model::{Life, Owner};
use super::{
    ConnectionId, Ending, Moment, MonitorId, Outcome, Receipt, ReceiptId, ReceiptWish, ReceiptsId, Record, Reply,
    Resource, Retention,
};

/// Why there is no receipt subscription for a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoReceipts {
    /// The one presented is none.
    Invalid,
    /// There are as many as there may be.
    Full,
}

impl From<NoReceipts> for Reply {
    fn from(reason: NoReceipts) -> Self {
        match reason {
            NoReceipts::Invalid => Self::InvalidReceipts,
            NoReceipts::Full => Self::Full,
        }
    }
}

/// A receipt subscription.
#[derive(Debug)]
pub(super) struct Receipts {
    pub(super) token: Token,
    pub(super) monitor: Option<MonitorId>,
    pub(super) life: Life,
    /// Messages that are not over, of which it will be told.
    pub(super) expected_count: usize,
    /// Receipts that are not over, in the order of what they tell.
    held: BTreeMap<u64, (Token, Outcome)>,
    waiting: BTreeSet<u64>,
    sent: BTreeMap<u64, ConnectionId>,
}

impl Receipts {
    /// What it holds and may come to hold.
    fn count(&self) -> usize {
        self.expected_count + self.held.len()
    }

    /// What it has to tell.
    #[cfg(test)]
    pub(super) fn held(&self) -> impl Iterator<Item = (Token, Outcome)> {
        self.held.values().copied()
    }

    /// Whether there is a receipt to push, now or once others have arrived.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Retention {
    /// The receipt subscription for a message, made if it has to be; the message is not counted there yet.
    pub(super) fn receipts_for(
        &mut self,
        wish: ReceiptWish,
        now: Moment,
        random: &mut dyn Random,
    ) -> Result<Option<ReceiptsId>, NoReceipts> {
        let presented = match wish {
            ReceiptWish::None => return Ok(None),
            ReceiptWish::New => None,
            ReceiptWish::In(token) => match self.tokens.get(&token) {
                Some(Resource::Receipts(id)) => Some(*id),
                _ => return Err(NoReceipts::Invalid),
            },
        };
        if let Some(id) = presented {
            self.used(Owner::Receipts(id), now);
            if self.receipts[&id].count() < SERVICE_RECEIPTS_PER_SUBSCRIPTION_MAX {
                return Ok(presented);
            }
        }
        if self.receipts.len() >= SERVICE_RECEIPT_SUBSCRIPTION_COUNT_MAX {
            self.remove_idle_receipts()?;
        }
        let (id, token) = (ReceiptsId(self.number()), Token::random(random));
        self.insert_receipts(id, token, now);
        self.push_record(Record::Receipts { id, token });
        Ok(Some(id))
    }

    /// Ends the oldest receipt subscription that holds nothing, expects nothing, and that nobody monitors.
    fn remove_idle_receipts(&mut self) -> Result<(), NoReceipts> {
        let is_idle = |receipts: &Receipts| receipts.count() == 0 && receipts.monitor.is_none();
        let idle = self.receipts.iter().find(|(_, receipts)| is_idle(receipts)).map(|(id, _)| *id);
        self.remove_receipts(idle.ok_or(NoReceipts::Full)?);
        Ok(())
    }

    pub(super) fn insert_receipts(&mut self, id: ReceiptsId, token: Token, now: Moment) {
        self.next_number = self.next_number.max(id.0 + 1);
        let life = self.begin_life(Owner::Receipts(id), self.policy.unused, now);
        self.tokens.insert(token, Resource::Receipts(id));
        let receipts = Receipts {
            token,
            monitor: None,
            life,
            expected_count: 0,
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            sent: BTreeMap::new(),
        };
        self.receipts.insert(id, receipts);
    }

    /// Tells a receipt subscription what became of a message. It is pushed once that is stored.
    pub(super) fn tell(&mut self, id: ReceiptsId, message: Token, outcome: Outcome) {
        if !self.receipts.contains_key(&id) {
            return;
        }
        let number = self.number();
        let receipt = ReceiptId { receipts: id, number };
        self.hold_receipt(receipt, message, outcome);
        let record = self.push_record(Record::Receipt { id: receipt, message, outcome });
        self.unstored_receipts.insert(record, receipt);
    }

    /// Holds a receipt; the oldest of all gives way when there are too many.
    fn hold_receipt(&mut self, id: ReceiptId, message: Token, outcome: Outcome) {
        if self.receipt_order.len() >= SERVICE_RECEIPT_COUNT_MAX
            && let Some((&number, &receipts)) = self.receipt_order.first_key_value()
        {
            self.end_receipt(ReceiptId { receipts, number });
        }
        if let Some(receipts) = self.receipts.get_mut(&id.receipts) {
            receipts.held.insert(id.number, (message, outcome));
            self.receipt_order.insert(id.number, id.receipts);
        }
    }

    /// Takes a receipt out of every table it is in.
    pub(super) fn end_receipt(&mut self, id: ReceiptId) {
        let Some(receipts) = self.receipts.get_mut(&id.receipts) else { return };
        if receipts.held.remove(&id.number).is_none() {
            return;
        }
        receipts.waiting.remove(&id.number);
        if let Some(connection) = receipts.sent.remove(&id.number) {
            self.carried_receipts.remove(&(connection, id.receipts, id.number));
            self.woken.insert(connection);
        }
        self.receipt_order.remove(&id.number);
        self.push_record(Record::ReceiptEnded(id));
    }

    /// Takes back a stored receipt; one of no receipt subscription is ended.
    pub(super) fn restore_receipt(&mut self, id: ReceiptId, message: Token, outcome: Outcome) {
        self.next_number = self.next_number.max(id.number + 1);
        if !self.receipts.contains_key(&id.receipts) {
            self.push_record(Record::ReceiptEnded(id));
            return;
        }
        self.hold_receipt(id, message, outcome);
        self.release_receipt(id);
    }

    /// Lets a receipt be pushed.
    pub(super) fn release_receipt(&mut self, id: ReceiptId) {
        let Some(receipts) = self.receipts.get_mut(&id.receipts) else { return };
        if !receipts.held.contains_key(&id.number) {
            return;
        }
        receipts.waiting.insert(id.number);
        if let Some(monitor) = receipts.monitor {
            self.woken.insert(monitor.connection);
        }
    }

    pub(super) fn next_receipt(&mut self, id: ReceiptsId, monitor: MonitorId) -> Option<Receipt> {
        let receipts = self.receipts.get_mut(&id).filter(|it| it.monitor == Some(monitor))?;
        if receipts.sent.len() >= SERVICE_RECEIPTS_UNCONFIRMED_MAX {
            return None;
        }
        if self.monitors.get(&monitor)?.ending.is_some() {
            return None;
        }
        let number = receipts.waiting.pop_first()?;
        let (message, outcome) = *receipts.held.get(&number)?;
        receipts.sent.insert(number, monitor.connection);
        self.carried_receipts.insert((monitor.connection, id, number));
        self.monitors.get_mut(&monitor)?.has_pushed = true;
        Some(Receipt { id: ReceiptId { receipts: id, number }, monitor, message, outcome })
    }

    /// The receiver has answered something that was sent after a receipt.
    pub(super) fn received(&mut self, id: ReceiptId) {
        if self.receipts.get(&id.receipts).is_some_and(|it| it.sent.contains_key(&id.number)) {
            self.end_receipt(id);
        }
    }

    /// What a lost connection may not have delivered waits again.
    pub(super) fn give_back_receipts(&mut self, connection: ConnectionId) {
        let first = (connection, ReceiptsId(0), 0);
        let last = (connection, ReceiptsId(u64::MAX), u64::MAX);
        for (_, receipts, number) in self.carried_receipts.range(first..=last).copied().collect::<Vec<_>>() {
            self.give_back_receipt(ReceiptId { receipts, number });
        }
    }

    /// A receipt that may not have arrived waits again.
    pub(super) fn give_back_receipt(&mut self, id: ReceiptId) {
        let sent = self.receipts.get_mut(&id.receipts).and_then(|it| it.sent.remove(&id.number));
        if let Some(connection) = sent {
            self.carried_receipts.remove(&(connection, id.receipts, id.number));
            self.release_receipt(id);
        }
    }

    /// Ends a receipt subscription. Messages that name it are delivered on; nobody is told of them.
    pub(super) fn remove_receipts(&mut self, id: ReceiptsId) {
        let Some(receipts) = self.receipts.remove(&id) else { return };
        self.tokens.remove(&receipts.token);
        self.end_life(Owner::Receipts(id), receipts.life);
        for number in receipts.held.keys() {
            self.receipt_order.remove(number);
        }
        for (number, connection) in receipts.sent {
            self.carried_receipts.remove(&(connection, id, number));
        }
        self.push_record(Record::ReceiptsEnded(id));
        self.end_monitor(receipts.monitor, Ending::Gone);
    }
}
