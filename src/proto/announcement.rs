//! Application servers that are told where to post: what they know, and what they are yet to hear.
//!
//! What is due follows from what the subscriptions are and from what was accepted last, which is kept on flash as a hash:
//! so a newer fact takes the place of an older one, and a restart announces only what has changed or was not accepted. It
//! never waits for a device, and nothing waits for it.
//!
//! ```text
//! due --that it may be known is on flash; one at a time, in turn--> sent --Accepted--> known; of an end: forgotten
//!  ^                                                                 |
//!  +------------------------ its own pause, which grows -------------+--Failed--
//!  +------------------------ an hour, or a newer fact ---------------+--Rejected--
//!  +------------------------ all wait, with a pause that grows ------+--Unavailable--
//! ```
//!
//! Source: RFC 8030 §2 (the push resource goes to the application server by another way), §8.3.

use std::collections::{BTreeMap, BTreeSet};

use ring::digest;

use super::backoff::Backoff;
use super::record::{ANNOUNCED_BYTES, Key, Record};
use super::subscription::{Life, Mark, Role, Subscription, SubscriptionId};
use super::{Change, Gateway, Output, Subject};
use crate::limits::{ANNOUNCE_BACKOFF_MS_MAX, ANNOUNCE_BACKOFF_MS_MIN, ANNOUNCED_COUNT_MAX};
use crate::time::{Duration, Instant};
use crate::webpush::subscription::{PushSubscription, announcement};
use crate::wire::{ChannelId, DeviceId};

/// A device's channel.
pub type Channel = (DeviceId, ChannelId);

/// The hash of what the application server may have from the moment on in which it is sent, whatever becomes of the answer
/// or of this process: should the channel end, it is told so.
const UNSURE: [u8; ANNOUNCED_BYTES] = [0; ANNOUNCED_BYTES];

/// How an announcement went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The application server has it.
    Accepted,
    /// The application server does not want it, and waiting does not mend that.
    Rejected,
    /// It failed, and others may not; with a wish how long to wait.
    Failed(Option<Duration>),
    /// It did not get there, and no other one would now; with a wish how long to wait.
    Unavailable(Option<Duration>),
}

/// Announcements at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Those that are yet to be accepted.
    pub due: usize,
    /// Subscriptions that the application server knows.
    pub accepted: usize,
    /// Those among the due ones that it does not want: a person is needed.
    pub rejected: usize,
    /// Ends that were never accepted and are announced no more, for want of room.
    pub forgotten: usize,
}

/// What the application server has of a channel, or may have, and how that stands with flash.
#[derive(Debug)]
struct Known {
    hash: [u8; ANNOUNCED_BYTES],
    is_behind: bool,
    /// There is a record of it, be it an older one.
    is_stored: bool,
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

/// One that was not accepted.
#[derive(Debug)]
struct Waiting {
    hash: [u8; ANNOUNCED_BYTES],
    until: Instant,
    backoff: Backoff,
    is_rejected: bool,
}

/// Everything about announcements.
#[derive(Debug)]
pub(super) struct Announcements {
    /// Where they go, as it counts for the hash; without one nothing is announced.
    target: Option<String>,
    /// At most [`ANNOUNCED_COUNT_MAX`] that are not over.
    known: BTreeMap<Channel, Known>,
    sent: Option<Sent>,
    /// Channels of which something is to be announced: of the subscriptions, and of what is known.
    due: BTreeSet<Channel>,
    /// Those of the due ones that were not accepted.
    waiting: BTreeMap<Channel, Waiting>,
    next_number: u64,
    /// Nothing is sent before that: it is one place for all.
    not_before: Instant,
    backoff: Backoff,
    /// The last one that was sent: the others come first.
    last: Option<Channel>,
    forgotten_count: usize,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            target: None,
            known: BTreeMap::new(),
            sent: None,
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_number: 0,
            not_before: Instant::ZERO,
            backoff: pauses(),
            last: None,
            forgotten_count: 0,
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
        let known = Known { hash, is_behind: false, is_stored: true, is_over: false };
        self.announcements.known.insert(channel, known);
    }

    /// All is known that an earlier run has left. Without a target nothing of it stays on flash.
    pub(super) fn settle_announced(&mut self) {
        if self.announcements.target.is_none() {
            return self.forget_announced();
        }
        self.keep_within_bound();
        let channels = self.subscriptions.iter().map(|entry| (entry.device_id.clone(), entry.channel));
        let channels: BTreeSet<Channel> = channels.chain(self.announcements.known.keys().cloned()).collect();
        channels.into_iter().for_each(|channel| self.look_at_announcement(channel));
    }

    /// Nobody is to be told anything any more.
    pub(super) fn forget_announced(&mut self) {
        let all = &mut self.announcements;
        all.target = None;
        all.due.clear();
        all.waiting.clear();
        all.known.values_mut().for_each(Known::end);
    }

    /// The channel of a subscription that there is.
    pub(super) fn channel_of(&self, id: SubscriptionId) -> Option<Channel> {
        self.subscriptions.get(id).map(|entry| (entry.device_id.clone(), entry.channel))
    }

    /// Looks again at what is to be announced of a channel, after something that may have changed it.
    pub(super) fn look_at_announcement(&mut self, channel: Channel) {
        let due = self.is_started.then(|| self.due(&channel)).flatten();
        let all = &mut self.announcements;
        // What is newer does not wait for what was not accepted before.
        if all.waiting.get(&channel).is_some_and(|waiting| due.as_ref().is_none_or(|due| due.hash != waiting.hash)) {
            all.waiting.remove(&channel);
        }
        if due.is_some() {
            all.due.insert(channel);
        } else {
            all.due.remove(&channel);
        }
    }

    /// What is to be announced of a channel, if it is not known.
    fn due(&self, channel: &Channel) -> Option<Document> {
        let target = self.announcements.target.as_deref()?;
        let subscription = self.to_know(channel)?;
        let text = announcement(channel.0.as_str(), channel.1.0, subscription.as_ref());
        let hash = hash(target, &text);
        let known = self.announcements.known.get(channel).filter(|known| !known.is_over);
        let is_known = known.is_some_and(|known| known.hash == hash);
        // Nobody needs to hear of the end of what was never announced.
        let is_needed = subscription.is_some() || known.is_some();
        (!is_known && is_needed).then_some(Document { text, hash, is_removal: subscription.is_none() })
    }

    /// What a channel's application server should know: none while that is a subscription yet to come.
    ///
    /// The inner one is none for a channel that has ended for good, whether the push service knows that already or not.
    fn to_know(&self, (device, channel): &Channel) -> Option<Option<PushSubscription>> {
        let mine = || self.subscriptions.iter().filter(|it| it.device_id == *device && it.channel == *channel);
        if mine().all(is_over) {
            return Some(None);
        }
        let entry = mine().find(|entry| entry.role == Role::Current)?;
        let granted = entry.active()?;
        let (public, auth) = (*entry.keys.public(), *entry.keys.auth());
        Some(Some(PushSubscription { endpoint: granted.send.clone(), public, auth }))
    }

    /// The next announcement, one at a time; of several the one after the last one.
    pub(super) fn announce_output(&mut self) -> Option<Output> {
        loop {
            let channel = self.next_to_announce()?;
            let Some(Document { text: document, hash, is_removal }) = self.due(&channel) else {
                // It has changed since, and is looked at again when that is done.
                self.look_at_announcement(channel);
                continue;
            };
            let all = &mut self.announcements;
            if all.known.get(&channel).is_none_or(|known| known.is_over) {
                let known = Known { hash: UNSURE, is_behind: true, is_stored: false, is_over: false };
                all.known.insert(channel, known);
                self.keep_within_bound();
                continue;
            }
            let number = all.next_number;
            all.next_number += 1;
            all.last = Some(channel.clone());
            all.sent = Some(Sent { number, channel: channel.clone(), hash, is_removal });
            let (device, channel) = channel;
            return Some(Output::Announce { number, device, channel, document });
        }
    }

    fn next_to_announce(&self) -> Option<Channel> {
        let all = &self.announcements;
        if all.sent.is_some() || all.not_before > self.now {
            return None;
        }
        let is_allowed = |channel: &&Channel| all.allowed_at(channel) <= self.now && !all.is_being_stored(channel);
        let mut allowed = all.due.iter().filter(is_allowed).peekable();
        let first = *allowed.peek()?;
        let after = allowed.find(|channel| all.last.as_ref().is_none_or(|last| *channel > last));
        Some(after.unwrap_or(first).clone())
    }

    /// When the next one is due.
    pub(super) fn announcement_due(&self) -> Option<Instant> {
        let all = &self.announcements;
        if all.sent.is_some() {
            return None;
        }
        all.due.iter().map(|channel| all.allowed_at(channel).max(all.not_before)).min()
    }

    /// An announcement was answered.
    pub(super) fn announced(&mut self, number: u64, outcome: Outcome) {
        let (now, random) = (self.now, &mut *self.random);
        let all = &mut self.announcements;
        let Some(Sent { channel, hash, is_removal, .. }) = all.sent.take_if(|sent| sent.number == number) else {
            return;
        };
        // A reset has forgotten all about it.
        if all.target.is_none() {
            return;
        }
        let longest = Duration::from_millis(ANNOUNCE_BACKOFF_MS_MAX);
        let bounded = |asked: Option<Duration>| asked.map(|asked| asked.min(longest));
        if let Outcome::Unavailable(asked) = outcome {
            all.not_before = now + all.backoff.fail(bounded(asked), random);
            return;
        }
        all.backoff.reset();
        match outcome {
            Outcome::Accepted => {
                all.waiting.remove(&channel);
                if let Some(known) = all.known.get_mut(&channel) {
                    (known.hash, known.is_behind, known.is_over) = (hash, true, is_removal);
                }
            }
            Outcome::Rejected => {
                let waiting = Waiting { hash, until: now + longest, backoff: pauses(), is_rejected: true };
                all.waiting.insert(channel.clone(), waiting);
            }
            Outcome::Failed(asked) => {
                let waiting = Waiting { hash, until: now, backoff: pauses(), is_rejected: false };
                let waiting = all.waiting.entry(channel.clone()).or_insert(waiting);
                waiting.until = now + waiting.backoff.fail(bounded(asked), random);
                (waiting.hash, waiting.is_rejected) = (hash, false);
            }
            Outcome::Unavailable(_) => {}
        }
        self.look_at_announcement(channel);
    }

    /// Beyond the bound, ends that nobody accepts are forgotten: first those that are not wanted.
    fn keep_within_bound(&mut self) {
        let is_there = |known: &Known| !known.is_over;
        let count = self.announcements.known.values().filter(|known| is_there(known)).count();
        for _ in ANNOUNCED_COUNT_MAX..count {
            let (all, subscriptions) = (&self.announcements, &self.subscriptions);
            let known = all.known.iter().filter(|(_, known)| is_there(known)).map(|(channel, _)| channel);
            let mut gone = known.filter(|channel| {
                !subscriptions.iter().any(|entry| entry.device_id == channel.0 && entry.channel == channel.1)
            });
            let is_rejected = |channel: &&Channel| all.waiting.get(*channel).is_some_and(|it| it.is_rejected);
            let Some(channel) = gone.clone().find(is_rejected).or_else(|| gone.next()).cloned() else { return };
            self.announcements.known.get_mut(&channel).into_iter().for_each(Known::end);
            self.announcements.forgotten_count += 1;
            self.look_at_announcement(channel);
        }
    }

    /// Whether what was accepted waits to be written.
    pub(super) fn wants_announced_written(&self) -> bool {
        self.announcements.known.values().any(|known| known.is_behind)
    }

    pub(super) fn announced_change(&mut self) -> Option<(Subject, Change, Option<Change>)> {
        let persisting = &self.persisting;
        // One write of a channel at a time, so that what is said of it afterwards is of the last one.
        let is_writing = |channel: &Channel| {
            persisting.iter().any(|(_, subject)| matches!(subject, Subject::Announced(other, _) if other == channel))
        };
        let mut behind = self.announcements.known.iter_mut().filter(|(_, known)| known.is_behind);
        let (channel, known) = behind.find(|(channel, _)| !is_writing(channel))?;
        known.is_behind = false;
        let ((device, channel), subject) = (channel.clone(), Subject::Announced(channel.clone(), known.is_over));
        let change = if known.is_over {
            Change::Remove(Key::Announced(device, channel))
        } else {
            Change::Put(Record::Announced(device, channel, known.hash))
        };
        Some((subject, change, None))
    }

    /// What is known is on flash, or is not; what is over is forgotten then.
    pub(super) fn announced_persisted(&mut self, channel: &Channel, was_over: bool, stored: bool) {
        let Some(known) = self.announcements.known.get_mut(channel) else { return };
        if !stored {
            known.is_behind = true;
        } else if !was_over {
            known.is_stored = true;
        } else if known.is_over && !known.is_behind {
            self.announcements.known.remove(channel);
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
        all.known.len() + all.due.len() + all.waiting.len()
    }

    /// Announcements at a glance.
    pub(super) fn announcement_counts(&self) -> Counts {
        let all = &self.announcements;
        Counts {
            due: all.due.len(),
            accepted: all.known.values().filter(|known| !known.is_over && known.hash != UNSURE).count(),
            rejected: all.waiting.values().filter(|waiting| waiting.is_rejected).count(),
            forgotten: all.forgotten_count,
        }
    }
}

impl Known {
    fn end(&mut self) {
        (self.is_over, self.is_behind) = (true, true);
    }
}

impl Announcements {
    /// Whether it is not yet on flash that a channel may be known.
    fn is_being_stored(&self, channel: &Channel) -> bool {
        self.known.get(channel).is_some_and(|known| !known.is_over && !known.is_stored)
    }

    /// When a due one may be sent, as far as it is up to that one.
    fn allowed_at(&self, channel: &Channel) -> Instant {
        self.waiting.get(channel).map_or(Instant::ZERO, |waiting| waiting.until)
    }
}

/// What is told of a channel.
struct Document {
    text: String,
    hash: [u8; ANNOUNCED_BYTES],
    is_removal: bool,
}

fn pauses() -> Backoff {
    Backoff::new(ANNOUNCE_BACKOFF_MS_MIN, ANNOUNCE_BACKOFF_MS_MAX)
}

/// Whether a subscription is about to go for good, and a restart knows it.
fn is_over(entry: &Subscription) -> bool {
    let is_sure = matches!(entry.life, Life::Leaving { mark: Mark::Stored | Mark::WithSet, .. } | Life::Erasing { .. });
    is_sure && entry.successor.is_none()
}

fn hash(target: &str, document: &str) -> [u8; ANNOUNCED_BYTES] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(target.as_bytes());
    hash.update(&[0]);
    hash.update(document.as_bytes());
    *hash.finish().as_ref().first_chunk().expect("a SHA-256 has 32 octets")
}
