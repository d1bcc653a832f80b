//! How the gateway's shells perform what the machine decided.

use fieldgate::proto::connection::ConnectionId;
use fieldgate::proto::record::Record;
use fieldgate::proto::{self, Change, Input, Output, Reply};
use fieldgate::time::Instant;
use fieldgate::webpush::ece::{self, DecodeError};
use fieldgate::wire::message::{Age, Uplink};
use fieldgate::wire::{ChannelId, DeviceId, MessageId, Refusal, ToDevice};

use super::super::application::read;
use super::super::pump::NotTaken;
use super::super::upstream::{Upstream, connection_of, token};
use super::super::{Context, Event, Fault};
use super::{CONNECTION_COUNT_MAX, COVER_BYTES, Gateway, GatewayEvent, Write};

impl Gateway {
    pub(super) fn drain(&mut self, context: &mut Context) {
        while let Some(output) = self.core.as_mut().and_then(proto::Gateway::poll_output) {
            self.drained += 1;
            if !context.check.is_output_allowed(self.drained) {
                return;
            }
            self.perform(output, context);
        }
        let due = self.core.as_ref().and_then(proto::Gateway::poll_timeout);
        self.due = due.map(|(at, _)| self.epoch + at.as_millis());
    }

    fn perform(&mut self, output: Output, context: &mut Context) {
        context.trace(|| format!("gateway: {output:?}"));
        match output {
            Output::Connect { connection: id, .. } => {
                let connection = self.number(id);
                self.connection_count = self.connection_count.max(connection);
                self.upstreams.insert(connection, Upstream::connect(connection, id, context));
                context.check.bound("connections", self.upstreams.len(), CONNECTION_COUNT_MAX);
            }
            Output::Close { connection } | Output::Drop { connection } => self.close(connection, context),
            Output::Decode { slot, keys, body } => {
                let mut outcome = if self.is_decoder_real { ece::decode(&keys, body) } else { uncover(&body) };
                if context.fault == Some(Fault::ChangesOctets) && context.dice.percent(5) {
                    outcome.iter_mut().flatten().for_each(|octet| *octet ^= 1);
                }
                let (pause, life) = (context.dice.below(2), self.life);
                let input = Input::Decoded { slot, outcome };
                context.after(pause, Event::Gateway(GatewayEvent::Decoded { life, input }));
            }
            Output::Deliver { device, session, message, channel, body, until, .. } => {
                self.deliver(&device, session, (message, channel, &body), until, context);
            }
            Output::Reply { device, session, reply } => self.reply(&device, session, &reply, context),
            Output::Persist { ticket, change, also } => {
                if let Some(Change::Put(Record::Retired(stored))) = also.as_deref() {
                    context.check.replaced(self.index(&stored.device), stored.channel);
                }
                let changes = std::iter::once(change).chain(also.map(|also| *also)).map(|change| match change {
                    Change::Put(record) => (record.key().encode(), Some(record.encode().to_vec())),
                    Change::Remove(key) => (key.encode(), None),
                });
                self.writes.push_back(Write { ticket, changes: changes.collect() });
                let (pause, life) = (context.dice.between(1, 40), self.life);
                context.after(pause, Event::Gateway(GatewayEvent::Stored { life }));
            }
            Output::Admit { promise, .. } | Output::Refuse { promise } => {
                self.upstream_perform(connection_of(promise), output, context);
            }
            Output::Acknowledge { connection, ref message } => {
                context.check.acknowledging(token(message.as_str()));
                self.upstream_perform(self.number(connection), output, context);
            }
            Output::Announce { number, document, .. } => self.announce(number, &document, context),
            Output::Ping { connection }
            | Output::Monitor { connection, .. }
            | Output::Fetch { connection, .. }
            | Output::Subscribe { connection, .. }
            | Output::UnsubscribeSet { connection, .. }
            | Output::Unsubscribe { connection, .. } => {
                self.upstream_perform(self.number(connection), output, context);
            }
        }
    }

    fn announce(&mut self, number: u64, document: &str, context: &mut Context) {
        let is_stored = self.is_stored(document);
        let Some(application) = &mut self.application else { return };
        context.check.announcing(!application.is_asked, is_stored, document);
        let is_deaf = context.fault == Some(Fault::NeverAnnounces);
        let (pause, outcome) = application.take(document, context.is_healed, is_deaf);
        let event = GatewayEvent::Announced { life: self.life, input: Input::Announced { number, outcome } };
        context.after(pause, Event::Gateway(event));
    }

    /// Whether what is told is what a restart would find.
    fn is_stored(&self, document: &str) -> bool {
        let ((device, channel), endpoint) = read(document);
        let records = self.flash.iter().filter_map(|(key, value)| Record::decode(key, value).ok());
        let mut current = records.filter_map(|record| match record {
            Record::Subscription(stored) => Some(stored),
            _ => None,
        });
        let found = current.find(|stored| stored.device.as_str() == device && stored.channel.0 == channel);
        let found = found.filter(|stored| !stored.leaving).map(|stored| stored.granted.send.as_str().to_owned());
        found == endpoint
    }

    /// The number in the network of a connection of this life.
    fn number(&self, id: ConnectionId) -> u64 {
        self.connection_base + id.0 + 1
    }

    fn upstream_perform(&mut self, connection: u64, output: Output, context: &mut Context) {
        if let Some(upstream) = self.upstreams.get_mut(&connection) {
            upstream.perform(output, context);
        }
    }

    /// Ends a connection; what is on its way there is lost.
    fn close(&mut self, id: ConnectionId, context: &mut Context) {
        let connection = self.number(id);
        if self.upstreams.contains_key(&connection) {
            context.network.cut(connection);
            let delay = context.network.one_way_ms(&context.weather, &mut context.dice);
            context.after(delay, Event::ServiceLeft { connection });
            context.after(0, Event::Gateway(GatewayEvent::Left { connection }));
        }
    }

    fn deliver(
        &mut self,
        device: &DeviceId,
        session: u32,
        (message, channel, body): (MessageId, ChannelId, &[u8]),
        until: Instant,
        context: &mut Context,
    ) {
        let index = self.index(device);
        context.check.relayed(index, message);
        let line = context.lines[index];
        let push = ToDevice::Push { message, channel, age: Age::UNKNOWN, body };
        let taken = self.pumps.get_mut(&index).map(|pump| pump.send(session, &push, Some(until), line, context));
        let later = match taken {
            Some(Ok(())) => None,
            Some(Err(NotTaken::Full)) | None => Some(true),
            Some(Err(NotTaken::TooLarge)) => Some(false),
        };
        if let Some(later) = later {
            self.feed(Input::DeviceRefused { device: device.clone(), message, later }, context);
        } else if context.fault == Some(Fault::AcknowledgesUnasked) && context.dice.percent(3) {
            self.feed(Input::DeviceAck { device: device.clone(), message }, context);
        }
    }

    fn reply(&mut self, device: &DeviceId, session: u32, reply: &Reply, context: &mut Context) {
        let message = match reply {
            Reply::Subscribed { channel, send, public, auth } => {
                ToDevice::Subscribed { channel: *channel, push: send.as_str(), p256dh: public, auth }
            }
            Reply::Full { channel } => ToDevice::Refused { channel: *channel, reason: Refusal::Full },
            Reply::Unknown { channel } => ToDevice::Refused { channel: *channel, reason: Refusal::UnknownChannel },
            Reply::Status { uplink, waiting } => {
                let waiting = u8::try_from(*waiting).unwrap_or(u8::MAX);
                ToDevice::Status { uplink: *uplink, waiting, time: context.now }
            }
            Reply::Unsubscribed { channel } => ToDevice::Unsubscribed { channel: *channel },
        };
        let index = self.index(device);
        let message = match message {
            ToDevice::Status { waiting: 0, .. } if context.fault == Some(Fault::WithholdsStatus) => return,
            ToDevice::Status { uplink, time, .. } if context.fault == Some(Fault::HidesWaiting) => {
                ToDevice::Status { uplink, waiting: 0, time }
            }
            _ => message,
        };
        if let ToDevice::Status { uplink: Uplink::Connected, waiting: 0, .. } = message
            && self.is_calm
        {
            context.check.nothing_waits(index, context.now);
        }
        let line = context.lines[index];
        if let Some(pump) = self.pumps.get_mut(&index)
            && pump.send(session, &message, None, line, context).is_err()
        {
            context.trace(|| format!("gateway: no room for a reply to {device}"));
        }
    }

    fn index(&self, device: &DeviceId) -> usize {
        self.ids.iter().position(|id| id == device).expect("one of the devices")
    }

    pub(super) fn stored(&mut self, context: &mut Context) {
        let fails = context.dice.permille(context.weather.store_fails);
        let lies = context.fault == Some(Fault::FlashLies) && context.dice.percent(30);
        let ticket = if fails || lies { self.writes.pop_front().map(|write| write.ticket) } else { self.write_next() };
        if let Some(ticket) = ticket {
            self.feed(Input::Persisted { ticket, stored: !fails }, context);
        }
    }

    pub(super) fn write_next(&mut self) -> Option<u64> {
        let Write { ticket, changes } = self.writes.pop_front()?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.flash.insert(key, value)),
                None => drop(self.flash.remove(&key)),
            }
        }
        Some(ticket)
    }
}

/// The cheap decoder: takes the cover away that the cheap encoder put around the plaintext.
fn uncover(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (before, behind) = COVER_BYTES;
    let end = body.len().checked_sub(behind).filter(|end| *end >= before).ok_or(DecodeError::Length)?;
    Ok(body[before..end].to_vec())
}
