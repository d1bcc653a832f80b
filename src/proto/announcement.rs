//! Application servers that are told where to post: what they know, and what they are yet to hear.
//!
//! What is due follows from what the subscriptions are and from what was accepted last, which is kept on flash as a hash: so a newer fact takes the place of an older one, and a restart announces only what has changed or
//! was not accepted. It never waits for a device, and nothing waits for it.
//!
//! Source: RFC 8030 §2 (the push resource goes to the application server by another way), §8.3.

use std::collections::BTreeMap;

use ring::digest;

use super::backoff::Backoff;
use super::record::{ANNOUNCED_BYTES, Key, Record};
use super::subscription::{Role, Subscription};
use super::{Change, Gateway, Output, Subject};
use crate::limits::{ANNOUNCE_BACKOFF_MS_MAX, ANNOUNCE_BACKOFF_MS_MIN};
use crate::time::{Duration, Instant};
use crate::webpush::subscription::{PushSubscription, announcement};
use crate::wire::{ChannelId, DeviceId};

/// A device's channel.
pub type Channel = (DeviceId, ChannelId);

/// How an announcement went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The application server has it.
    Accepted,
    /// The application server does not want it, and waiting does not mend that.
    Rejected,
    /// It did not get there; with a wish how long to wait.
    Failed(Option<Duration>),
}

/// What was accepted for a channel, and how it stands with flash.
#[derive(Debug)]
struct Accepted {
    hash: [u8; ANNOUNCED_BYTES],
    is_behind: bool,
    /// Nothing is to be known any more; the record goes.
    is_over: bool,
}

/// One on its way.
#[derive(Debug)]
struct Sent {
    number: u64,
    channel: Channel,
    hash: [u8; ANNOUNCED_BYTES],
    is_removal: bool,
}

/// Everything about announcements.
#[derive(Debug)]
pub(super) struct Announcements {
    /// Where they go, as it counts for the hash; without one nothing is announced.
    target: Option<String>,
    /// At most as many as subscriptions ever were, less those whose end was accepted.
    accepted: BTreeMap<Channel, Accepted>,
    sent: Option<Sent>,
    /// Channels of which something is to be announced, in order.
    due: Vec<Channel>,
    next_number: u64,
    /// After a failure nothing is sent for a while: it is one place for all.
    not_before: Instant,
    backoff: Backoff,
    /// Channels whose announcement the application server does not want, and when it is asked again.
    rejected: BTreeMap<Channel, Instant>,
    /// The last one that was sent: the others come first.
    last: Option<Channel>,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            target: None,
            accepted: BTreeMap::new(),
            sent: None,
            due: Vec::new(),
            next_number: 0,
            not_before: Instant::ZERO,
            backoff: Backoff::new(ANNOUNCE_BACKOFF_MS_MIN, ANNOUNCE_BACKOFF_MS_MAX),
            rejected: BTreeMap::new(),
            last: None,
        }
    }
}

impl Gateway {
    /// Has subscriptions announced at a target, before anything else happens.
    pub fn announce_to(&mut self, target: String) {
        self.announcements.target = Some(target);
    }

    /// Takes up what an earlier run had accepted.
    pub(super) fn restore_announced(&mut self, channel: Channel, hash: [u8; ANNOUNCED_BYTES]) {
        self.announcements.accepted.insert(channel, Accepted { hash, is_behind: false, is_over: false });
    }

    /// Without a target nothing of it stays on flash.
    pub(super) fn settle_announced(&mut self) {
        if self.announcements.target.is_none() {
            self.forget_announced();
        }
    }

    /// Nobody is to be told anything any more.
    pub(super) fn forget_announced(&mut self) {
        self.announcements.target = None;
        self.announcements.due.clear();
        for accepted in self.announcements.accepted.values_mut() {
            (accepted.is_over, accepted.is_behind) = (true, true);
        }
    }

    /// What a channel's application server should know: none if that is a subscription yet to come.
    ///
    /// The inner one is none for a channel that is no more.
    fn to_know(&self, (device, channel): &Channel) -> Option<Option<PushSubscription>> {
        let mine = self.subscriptions.iter().filter(|it| it.device_id == *device && it.channel == *channel);
        let mine: Vec<&Subscription> = mine.collect();
        if mine.is_empty() {
            return Some(None);
        }
        let entry = mine.into_iter().find(|entry| entry.role == Role::Current)?;
        let granted = entry.active()?;
        let (public, auth) = (*entry.keys.public(), *entry.keys.auth());
        Some(Some(PushSubscription { endpoint: granted.send.clone(), public, auth }))
    }

    fn channels_to_announce(&self) -> Vec<Channel> {
        let active = self.subscriptions.iter().filter(|entry| entry.role == Role::Current && entry.active().is_some());
        let mut channels: Vec<Channel> = active.map(|entry| (entry.device_id.clone(), entry.channel)).collect();
        let known = self.announcements.accepted.iter().filter(|(_, accepted)| !accepted.is_over);
        channels.extend(known.map(|(channel, _)| channel.clone()));
        channels.sort_unstable();
        channels.dedup();
        channels
    }

    /// Looks again at what is due, after something that may have changed it.
    pub(super) fn look_at_announcements(&mut self) {
        if self.announcements.target.is_some() && self.is_started {
            let due = self.channels_to_announce().into_iter().filter(|channel| self.due(channel).is_some());
            self.announcements.due = due.collect();
            let all = &mut self.announcements;
            all.rejected.retain(|channel, _| all.due.contains(channel));
        }
    }

    /// What is to be announced of a channel, if it is not known.
    fn due(&self, channel: &Channel) -> Option<Document> {
        let target = self.announcements.target.as_deref()?;
        let subscription = self.to_know(channel)?;
        let text = announcement(channel.0.as_str(), channel.1.0, subscription.as_ref());
        let hash = hash(target, &text);
        let known = self.announcements.accepted.get(channel).filter(|accepted| !accepted.is_over);
        let is_known = known.is_some_and(|accepted| accepted.hash == hash);
        // Nobody needs to hear of the end of what was never announced.
        let is_needed = subscription.is_some() || known.is_some();
        (!is_known && is_needed).then_some(Document { text, hash, is_removal: subscription.is_none() })
    }

    /// The next announcement, one at a time; of several the one after the last one.
    pub(super) fn announce_output(&mut self) -> Option<Output> {
        let all = &self.announcements;
        if all.sent.is_some() || all.due.is_empty() || all.not_before > self.now {
            return None;
        }
        let is_allowed = |channel: &&Channel| all.rejected.get(*channel).is_none_or(|at| *at <= self.now);
        let allowed: Vec<&Channel> = all.due.iter().filter(is_allowed).collect();
        let after = allowed.iter().position(|channel| all.last.as_ref().is_none_or(|last| **channel > *last));
        let channel = (*allowed.get(after.unwrap_or(0))?).clone();
        let document = self.due(&channel);
        let all = &mut self.announcements;
        let Some(Document { text: document, hash, is_removal }) = document else {
            // It has changed since, and is looked at again when that is done.
            all.due.retain(|other| *other != channel);
            return self.announce_output();
        };
        let number = all.next_number;
        all.next_number += 1;
        all.last = Some(channel.clone());
        all.sent = Some(Sent { number, channel: channel.clone(), hash, is_removal });
        let (device, channel) = channel;
        Some(Output::Announce { number, device, channel, document })
    }

    /// When the next one is due after a failure.
    pub(super) fn announcement_due(&self) -> Option<Instant> {
        let all = &self.announcements;
        if all.sent.is_some() {
            return None;
        }
        let at = |channel: &Channel| all.rejected.get(channel).copied().unwrap_or_default().max(all.not_before);
        all.due.iter().map(at).min()
    }

    /// An announcement was answered.
    pub(super) fn announced(&mut self, number: u64, outcome: Outcome) {
        let now = self.now;
        let all = &mut self.announcements;
        let Some(sent) = all.sent.take_if(|sent| sent.number == number) else { return };
        let longest = Duration::from_millis(ANNOUNCE_BACKOFF_MS_MAX);
        match outcome {
            Outcome::Accepted => {
                all.backoff.reset();
                all.rejected.remove(&sent.channel);
                if all.target.is_some() {
                    let accepted = Accepted { hash: sent.hash, is_behind: true, is_over: sent.is_removal };
                    all.accepted.insert(sent.channel, accepted);
                }
            }
            Outcome::Rejected => drop(all.rejected.insert(sent.channel, now + longest)),
            Outcome::Failed(asked) => {
                let asked = asked.map(|asked| asked.min(longest));
                all.not_before = now + all.backoff.fail(asked, &mut *self.random);
            }
        }
    }

    /// Whether what was accepted waits to be written.
    pub(super) fn wants_announced_written(&self) -> bool {
        self.announcements.accepted.values().any(|accepted| accepted.is_behind)
    }

    pub(super) fn announced_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let (channel, accepted) = self.announcements.accepted.iter_mut().find(|(_, accepted)| accepted.is_behind)?;
        accepted.is_behind = false;
        let ((device, channel), subject) = (channel.clone(), Subject::Announced(channel.clone()));
        let change = if accepted.is_over {
            Change::Remove(Key::Announced(device, channel))
        } else {
            Change::Put(Record::Announced(device, channel, accepted.hash))
        };
        Some((subject, change, None))
    }

    /// What was accepted is on flash, or is not; what is over is forgotten then.
    pub(super) fn announced_persisted(&mut self, channel: &Channel, stored: bool) {
        let accepted = &mut self.announcements.accepted;
        if !stored {
            accepted.get_mut(channel).into_iter().for_each(|accepted| accepted.is_behind = true);
        } else if accepted.get(channel).is_some_and(|accepted| accepted.is_over && !accepted.is_behind) {
            accepted.remove(channel);
        }
    }

    /// What is to be known of all channels of a device that have a subscription.
    pub fn announcements_of(&self, device: &DeviceId) -> Vec<String> {
        let mine = self.subscriptions.iter().filter(|it| it.device_id == *device && it.role == Role::Current);
        let document = |channel: ChannelId| {
            let subscription = self.to_know(&(device.clone(), channel)).flatten()?;
            Some(announcement(device.as_str(), channel.0, Some(&subscription)))
        };
        mine.filter_map(|entry| document(entry.channel)).collect()
    }

    #[cfg(test)]
    pub(super) fn announcement_entries(&self) -> usize {
        let all = &self.announcements;
        all.accepted.len() + all.due.len() + all.rejected.len()
    }

    /// How many are yet to be accepted, how many are, and how many nobody wants.
    pub(super) fn announcement_counts(&self) -> (usize, usize, usize) {
        let all = &self.announcements;
        let accepted = all.accepted.values().filter(|accepted| !accepted.is_over).count();
        let rejected = all.due.iter().filter(|channel| all.rejected.contains_key(*channel)).count();
        (all.due.len(), accepted, rejected)
    }
}

/// What is told of a channel.
struct Document {
    text: String,
    hash: [u8; ANNOUNCED_BYTES],
    is_removal: bool,
}

fn hash(target: &str, document: &str) -> [u8; ANNOUNCED_BYTES] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(target.as_bytes());
    hash.update(&[0]);
    hash.update(document.as_bytes());
    *hash.finish().as_ref().first_chunk().expect("a SHA-256 has 32 octets")
}
