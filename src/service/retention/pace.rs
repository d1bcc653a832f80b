//! How fast messages come in and go out, where the operator limits it.
//!
//! Source: RFC 8030 §5.2 (delivery may be delayed to save a radio), §8.4 (rates).

use std::collections::BTreeSet;

use crate::time::Duration;
use crate::webpush::headers::Urgency;

use super::model::{Batch, Message, Timer};
use super::{Moment, Record, Reply, Retention, SetId, SubscriptionId};

impl Retention {
    /// The answer to a message over the rate of its push resource; none if it may come.
    pub(super) fn refuse_rate(&mut self, id: SubscriptionId, now: Moment) -> Option<Reply> {
        let per_minute = self.policy.sends_per_minute?;
        let refused_max = self.policy.refused_count_max;
        let subscription = self.subscriptions.get_mut(&id)?;
        let Err(wait) = subscription.allowance.take(per_minute, now.instant) else {
            subscription.refused_count = 0;
            return None;
        };
        subscription.refused_count = subscription.refused_count.saturating_add(1);
        if refused_max.is_some_and(|max| subscription.refused_count > max) {
            self.remove_subscription(id);
            self.push_record(Record::SubscriptionEnded(id));
            return Some(Reply::Gone);
        }
        Some(Reply::TooMany { wait_s: wait.as_millis().div_ceil(1_000) as u64 })
    }

    /// Counts a push for a user agent. When it has had as many as may be within a second, the next ones wait.
    pub(super) fn count_push(&mut self, set: SetId, now: Moment) {
        let (Some(per_second), Some(entry)) = (self.policy.pushes_per_second, self.sets.get_mut(&set)) else { return };
        entry.pushed.add(now.instant);
        if let Some(until) = entry.pushed.next_at(per_second).filter(|next| *next > now.instant) {
            entry.paced_until = Some(until);
            self.timers.insert((until, Timer::Pace(set)));
        }
    }

    pub(super) fn end_pace(&mut self, set: SetId) {
        if let Some(entry) = self.sets.get_mut(&set) {
            entry.paced_until = None;
            self.offer_members(set);
        }
    }

    /// Lets a message wait for others to leave with it, unless it is urgent, would expire, or nobody is there anyway.
    pub(super) fn hold(&mut self, id: SubscriptionId, sequence: u64, now: Moment) {
        let batch = self.policy.batch;
        if batch == Duration::ZERO || !self.can_push(id) {
            return;
        }
        let set = self.subscriptions[&id].set;
        let until = self.sets[&set].batch.as_ref().map_or(now.instant + batch, |batch| batch.until);
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let may_wait = |it: &Message| it.stored.urgency < Urgency::High && it.expires > until;
        if !subscription.messages.get(&sequence).is_some_and(may_wait) {
            return;
        }
        subscription.change(sequence, |message| (message.is_held, message.was_stored) = (true, true));
        self.timers.insert((until, Timer::Batch(set)));
        if let Some(entry) = self.sets.get_mut(&set) {
            entry.batch.get_or_insert_with(|| Batch { until, held: BTreeSet::new() }).held.insert((id, sequence));
        }
    }

    /// Lets all leave that waited for each other.
    pub(super) fn release_batch(&mut self, set: SetId) {
        let Some(batch) = self.sets.get_mut(&set).and_then(|entry| entry.batch.take()) else { return };
        self.timers.remove(&(batch.until, Timer::Batch(set)));
        for (id, sequence) in batch.held {
            if let Some(subscription) = self.subscriptions.get_mut(&id) {
                subscription.change(sequence, |message| message.is_held = false);
            }
            self.offer(id);
        }
    }

    /// Forgets what a set waits for, as it ends.
    pub(super) fn stop_pacing(&mut self, set: SetId) {
        let Some(entry) = self.sets.get_mut(&set) else { return };
        if let Some(until) = entry.paced_until.take() {
            self.timers.remove(&(until, Timer::Pace(set)));
        }
        if let Some(batch) = entry.batch.take() {
            self.timers.remove(&(batch.until, Timer::Batch(set)));
        }
    }

    fn offer_members(&mut self, set: SetId) {
        let members = self.sets.get(&set).map(|entry| entry.members.clone()).unwrap_or_default();
        members.into_iter().for_each(|member| self.offer(member));
    }
}
