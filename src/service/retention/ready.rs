//! Which message of a subscription goes next, found without a look at those that may not go.

use std::collections::BTreeSet;

use crate::webpush::headers::Urgency;

use super::model::{Message, Subscription};

/// The messages of a subscription that may be pushed as far as they are concerned.
#[derive(Debug, Default)]
pub(super) struct Ready([BTreeSet<Rank>; Urgency::ALL.len()]);

/// The order among those of one urgency: attempts of those that were pushed in vain, zero of others; then age.
type Rank = (u32, u64);

impl Ready {
    /// The oldest of those that are wanted; those that were pushed in vain let all others go first, and take turns.
    pub(super) fn first(&self, least: Urgency) -> Option<u64> {
        let wanted = Urgency::ALL.iter().zip(&self.0).filter(|(urgency, _)| **urgency >= least);
        wanted.filter_map(|(_, ranks)| ranks.first()).min().map(|(_, sequence)| *sequence)
    }

    /// Takes a message in, if it is ready.
    pub(super) fn add(&mut self, message: &Message) {
        if message.is_ready() {
            self.of(message).insert(rank(message));
        }
    }

    /// Takes a message out, if it is there.
    pub(super) fn remove(&mut self, message: &Message) {
        self.of(message).remove(&rank(message));
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }

    fn of(&mut self, message: &Message) -> &mut BTreeSet<Rank> {
        let index = Urgency::ALL.iter().position(|urgency| *urgency == message.stored.urgency);
        &mut self.0[index.expect("all are there")]
    }
}

fn rank(message: &Message) -> Rank {
    (if message.is_in_vain() { message.attempt } else { 0 }, message.stored.sequence)
}

impl Subscription {
    /// Changes a message, and with it its place among those that are ready.
    pub(super) fn change<T>(&mut self, sequence: u64, change: impl FnOnce(&mut Message) -> T) -> Option<T> {
        let message = self.messages.get_mut(&sequence)?;
        self.ready.remove(message);
        let changed = change(message);
        self.ready.add(message);
        Some(changed)
    }
}
