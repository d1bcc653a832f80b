//! The service's store: writes that wait are committed together, and answers wait for their write.

use fieldgate::service::retention::{Input, Record, Reply, SubscriptionId};

use super::super::network::Down;
use super::super::{Context, Event, Fault};
use super::{Asker, Service, ServiceEvent, Write};

impl Service {
    pub(super) fn write(&mut self, write: Write, context: &mut Context) {
        self.waiting.push(write);
        self.begin_commit(context);
    }

    /// What waits is committed together.
    fn begin_commit(&mut self, context: &mut Context) {
        if self.committing.is_empty() && !self.waiting.is_empty() {
            self.committing = std::mem::take(&mut self.waiting);
            let (pause, life) = (context.dice.between(1, 25), self.life);
            context.after(pause, Event::Service(ServiceEvent::Committed { life }));
        }
    }

    pub(super) fn committed(&mut self, context: &mut Context) {
        let fails = context.dice.permille(context.weather.commit_fails);
        for mut write in std::mem::take(&mut self.committing) {
            if fails {
                self.not_stored(write, context);
                continue;
            }
            let mut records = std::mem::take(&mut write.records);
            if context.fault == Some(Fault::LosesStored) {
                records.retain(|record| !matches!(record, Record::Message(_)));
            }
            self.apply(records);
            self.answer(write, context);
        }
        self.begin_commit(context);
    }

    fn not_stored(&mut self, write: Write, context: &mut Context) {
        context.trace(|| "service cannot store".to_owned());
        let Some((asker, reply)) = write.answer else { return };
        match reply {
            Reply::Subscribed { subscription, .. } => self.input(Input::NotStored(subscription), context),
            Reply::Accepted { message, .. } => self.input(Input::NotStored(message), context),
            _ => {}
        }
        if let Asker::Stream(connection, stream) = asker {
            context.send_down(connection, Down::Answer { stream, reply: None });
        }
    }

    pub(super) fn answer(&mut self, write: Write, context: &mut Context) {
        self.tell_limit(context);
        let Some((asker, reply)) = write.answer else { return };
        if let (Some(removed), Reply::Removed) = (write.removed, &reply) {
            context.check.deleted(removed, context.now);
        }
        match asker {
            Asker::Application(number) => context.check.accepted(number),
            Asker::Stream(connection, stream) => {
                context.send_down(connection, Down::Answer { stream, reply: Some(reply) });
            }
        }
    }

    /// Does what the store does.
    pub(super) fn apply(&mut self, records: Vec<Record>) {
        let disk = &mut self.disk;
        for record in records {
            match record {
                Record::SetEnded(ended) => disk.retain(|it| !matches!(it, Record::Set { id, .. } if *id == ended)),
                Record::SubscriptionEnded(ended) => disk.retain(|it| match it {
                    Record::Subscription { id, .. } => *id != ended,
                    Record::Message(stored) => stored.subscription != ended,
                    _ => true,
                }),
                Record::MessageEnded { subscription, sequence } => {
                    disk.retain(|it| !is_message(it, subscription, sequence));
                }
                Record::Subscription { id, .. } => {
                    disk.retain(|it| !matches!(it, Record::Subscription { id: other, .. } if *other == id));
                    disk.push(record);
                }
                Record::Message(stored) => {
                    disk.retain(|it| !is_message(it, stored.subscription, stored.sequence));
                    disk.push(Record::Message(stored));
                }
                record => disk.push(record),
            }
        }
    }
}

/// Whether a record is filed under this key.
fn is_message(record: &Record, subscription: SubscriptionId, sequence: u64) -> bool {
    matches!(record, Record::Message(stored) if (stored.subscription, stored.sequence) == (subscription, sequence))
}
