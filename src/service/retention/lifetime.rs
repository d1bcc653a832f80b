//! Resources that nobody uses end by themselves: a service cannot keep for ever what was forgotten.
//!
//! Uses are counted within one run of the service: after a restart each resource has its whole time again.
//!
//! Source: RFC 8030 §7.3 (a subscription may expire at any time), §7.3.1 (so may a set).

use crate::time::{Duration, Instant};

use super::model::{Life, Owner, Timer};
use super::{Moment, Record, Retention, SubscriptionId};

impl Retention {
    /// Starts the life of something that is not used yet.
    pub(super) fn begin_life(&mut self, owner: Owner, lasts: Duration, now: Moment) -> Life {
        let life = Life { unused_since: Some(now.instant), look_at: now.instant + lasts };
        self.timers.insert((life.look_at, Timer::Unused(owner)));
        life
    }

    pub(super) fn end_life(&mut self, owner: Owner, life: Life) {
        self.timers.remove(&(life.look_at, Timer::Unused(owner)));
    }

    /// Ends something if its time without use is over, or looks again when it may be.
    pub(super) fn look_at_use(&mut self, owner: Owner, now: Moment) {
        let Some(ends_at) = self.ends_at(owner, now) else { return };
        if ends_at <= now.instant {
            return self.expire_owner(owner);
        }
        if let Some(life) = self.life_mut(owner) {
            life.unused_since.get_or_insert(now.instant);
            life.look_at = ends_at;
            self.timers.insert((ends_at, Timer::Unused(owner)));
        }
    }

    /// When something ends that is not used from now on; later if it is used now.
    fn ends_at(&self, owner: Owner, now: Moment) -> Option<Instant> {
        let since = |is_used: bool, life: Life| life.unused_since.filter(|_| !is_used).unwrap_or(now.instant);
        Some(match owner {
            Owner::Subscription(id) => {
                let subscription = self.subscriptions.get(&id)?;
                let set = self.sets.get(&subscription.set)?;
                if !subscription.was_monitored {
                    return Some(since(false, subscription.life) + self.policy.fresh);
                }
                let alone = since(subscription.monitor.is_some(), subscription.life);
                alone.max(since(set.monitor.is_some(), set.life)) + self.policy.unused
            }
            Owner::Set(id) => {
                let set = self.sets.get(&id)?;
                since(set.monitor.is_some() || !set.members.is_empty(), set.life) + self.policy.unused
            }
            Owner::Receipts(id) => {
                let receipts = self.receipts.get(&id)?;
                since(receipts.monitor.is_some(), receipts.life) + self.policy.unused
            }
        })
    }

    /// Something was used just now, or is no longer.
    pub(super) fn used(&mut self, owner: Owner, now: Moment) {
        if let Some(life) = self.life_mut(owner) {
            life.unused_since = Some(now.instant);
        }
    }

    fn life_mut(&mut self, owner: Owner) -> Option<&mut Life> {
        match owner {
            Owner::Subscription(id) => self.subscriptions.get_mut(&id).map(|it| &mut it.life),
            Owner::Set(id) => self.sets.get_mut(&id).map(|it| &mut it.life),
            Owner::Receipts(id) => self.receipts.get_mut(&id).map(|it| &mut it.life),
        }
    }

    pub(super) fn expire_owner(&mut self, owner: Owner) {
        match owner {
            Owner::Subscription(id) => {
                self.remove_subscription(id);
                self.push_record(Record::SubscriptionEnded(id));
            }
            Owner::Set(id) => self.remove_set(id),
            Owner::Receipts(id) => self.remove_receipts(id),
        }
    }

    /// Remembers that somebody asked for the messages of a subscription.
    pub(super) fn mark_monitored(&mut self, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id).filter(|it| !it.was_monitored) else { return };
        subscription.was_monitored = true;
        let (set, token, push) = (subscription.set, subscription.token, subscription.push);
        let restricted = subscription.restricted.clone();
        self.push_record(Record::Subscription { id, set, token, push, was_monitored: true, restricted });
    }
}
