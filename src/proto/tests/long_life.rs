//! A month of messages with all that goes wrong in one, in simulated time.
//!
//! `FIELDGATE_LONG_MESSAGES=1000000 cargo test --release --lib long_life -- --nocapture` takes its time;
//! `FIELDGATE_LONG_REAL=1` encrypts and decrypts each message.

use super::*;
use crate::random::between_ms;
use crate::webpush::ece;
use crate::webpush::headers::Urgency;

const MONTH_MS: u64 = 30 * 86_400_000;
const MESSAGE_COUNT: u64 = 20_000;
const DEVICES: [&str; 4] = ["a", "b", "c", "d"];
/// All that the machine may remember in this run.
const ENTRIES_MAX: usize = DELIVERY_SLOT_COUNT
    + ACKED_COUNT_MAX
    + FREED_URI_RING
    + UNDELIVERABLE_URI_COUNT_MAX
    + FLOOD_SEEN_COUNT
    + STORE_QUEUE_COUNT
    + DEVICES.len() * (CHANNELS_PER_DEVICE_MAX * (2 + DELIVERY_PER_DEVICE_MAX) + 2)
    + ROTATION_COUNT_MAX * (2 + DELIVERY_PER_DEVICE_MAX);

struct Life {
    rig: Rig,
    dice: SeededRandom,
    is_real: bool,
    connections: Vec<ConnectionId>,
    grants: usize,
    messages: u64,
    delivered: u64,
    acknowledged: u64,
    /// Device acks that come later.
    late: Vec<(DeviceId, MessageId)>,
    entries_max: usize,
}

impl Life {
    fn new() -> Self {
        let mut rig = Rig::new();
        rig.gateway.announce_to("https://app.example/".to_owned());
        for device in DEVICES {
            let options = Options { flood_per_minute: Some(FLOOD_PER_MINUTE_MAX), ..Options::default() };
            rig.add_device_with(device, &[1, 2], options);
        }
        rig.feed(Input::Started);
        let is_real = std::env::var("FIELDGATE_LONG_REAL").is_ok();
        let dice = SeededRandom::new(7);
        let mut life = Self {
            rig,
            dice,
            is_real,
            connections: Vec::new(),
            grants: 0,
            messages: 0,
            delivered: 0,
            acknowledged: 0,
            late: Vec::new(),
            entries_max: 0,
        };
        life.settle();
        for (session, device) in (1..).zip(DEVICES) {
            life.feed(Input::DeviceUp {
                device: id(device),
                session,
                message_bytes_max: 4096,
                in_flight_max: DELIVERY_PER_DEVICE_MAX,
            });
        }
        life
    }

    fn below(&mut self, count: u64) -> u64 {
        between_ms(&mut self.dice, 0, count - 1)
    }

    fn feed(&mut self, input: Input) {
        self.rig.feed(input);
        self.settle();
    }

    /// Answers everything that is asked for, until nothing is.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.rig.outputs.is_empty() {
                self.rig.stored.clear();
                self.entries_max = self.entries_max.max(self.rig.gateway.entries());
                return;
            }
            for output in std::mem::take(&mut self.rig.outputs) {
                self.answer(output);
            }
        }
        panic!("outputs never end");
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::Connect { connection, .. } => {
                self.connections.push(connection);
                self.rig.on = connection;
                self.rig.ready(100);
            }
            Output::Close { connection } | Output::Drop { connection } => self.close(connection),
            Output::Subscribe { connection, subscription, .. } => {
                self.grants += 1;
                let outcome = match self.below(50) {
                    0 => None,
                    1 => Some(Err(SubscribeError::Busy(None))),
                    _ => Some(Ok(granted(self.grants))),
                };
                self.rig.feed(Input::Subscribed { connection, subscription, outcome });
            }
            Output::Unsubscribe { connection, subscription, .. } => {
                self.rig.feed(Input::Unsubscribed { connection, subscription, outcome: Deletion::Done });
            }
            Output::UnsubscribeSet { connection, set } => {
                self.rig.feed(Input::SetUnsubscribed { connection, set, outcome: Deletion::Done });
            }
            Output::Fetch { connection, subscription, read, .. } => {
                self.rig.feed(Input::FetchEnded { connection, subscription, read, next: Next::Again });
            }
            Output::Decode { slot, keys, body } => {
                let outcome = if self.is_real { ece::decode(&keys, body) } else { Ok(body) };
                self.rig.feed(Input::Decoded { slot, outcome });
            }
            Output::Deliver { device, message, .. } => self.deliver(device, message),
            Output::Acknowledge { connection, message } => {
                let outcome = if self.below(50) == 0 { Deletion::Retry(None) } else { Deletion::Done };
                self.acknowledged += u64::from(outcome == Deletion::Done);
                self.rig.feed(Input::Acknowledged { connection, message, outcome });
            }
            Output::Persist { ticket, change, also } => {
                let stored = self.below(100) > 0;
                for change in std::iter::once(change).chain(also.map(|also| *also)).filter(|_| stored) {
                    self.rig.write(change);
                }
                self.rig.feed(Input::Persisted { ticket, stored });
            }
            Output::Announce { number, .. } => {
                let outcome = if self.below(3) == 0 {
                    announcement::Outcome::Failed(None)
                } else {
                    announcement::Outcome::Accepted
                };
                self.rig.feed(Input::Announced { number, outcome });
            }
            Output::Ping { connection } => self.rig.feed(Input::Pong { connection }),
            Output::Monitor { .. } | Output::Reply { .. } | Output::Admit { .. } | Output::Refuse { .. } => {}
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.connections.retain(|other| *other != connection);
        self.rig.feed(Input::ConnectionClosed { connection, trouble: Trouble::Ended });
    }

    fn deliver(&mut self, device: DeviceId, message: MessageId) {
        self.delivered += 1;
        match self.below(100) {
            0..3 => self.rig.feed(Input::DeviceRefused { device, message, later: false }),
            3..6 => self.rig.feed(Input::DeviceRefused { device, message, later: true }),
            6..10 => self.late.push((device, message)),
            _ => self.rig.feed(Input::DeviceAck { device, message }),
        }
    }

    /// A message is promised; what becomes of it depends.
    fn send(&mut self) {
        self.messages += 1;
        let device = DEVICES[self.below(4) as usize];
        let channel = ChannelId(1 + self.below(2) as u16);
        let known = self.rig.gateway.push_subscription(&id(device), Some(channel));
        let Some(known) = known.filter(|_| !self.connections.is_empty()) else { return };
        let name = if self.below(50) == 0 { self.messages / 2 } else { self.messages };
        let send = if self.below(200) == 0 { granted(1_000_000).send } else { known.endpoint.clone() };
        let connection = *self.connections.last().expect("there is one");
        let target = Target::Set(granted(1).set.expect("a set"));
        let (promise, message) = (PromiseId(self.messages), message(&format!("{name}")));
        self.rig.feed(Input::Promised { connection, promise, target, message, send: Some(send) });
        let answers = self.rig.take(|output| matches!(output, Output::Admit { .. } | Output::Refuse { .. }));
        let [Output::Admit { slot, .. }] = answers[..] else { return self.settle() };
        match self.below(100) {
            0..2 => self.feed(Input::PushFailed { connection, slot, content: None }),
            2 => self.feed(Input::PushFailed { connection, slot, content: Some(ContentError::NotEncrypted) }),
            _ => {
                let body = if self.is_real {
                    ece::encode(&known.public, &known.auth, &[7; 200], 0, &mut self.dice).expect("it fits")
                } else {
                    vec![7; 200]
                };
                let age = Some(Duration::ZERO);
                self.feed(Input::Pushed { connection, slot, send: None, body, max_age: None, age });
            }
        }
    }

    /// What goes wrong, now and then.
    fn trouble(&mut self) {
        let device = id(DEVICES[self.below(4) as usize]);
        match self.below(2_000) {
            0..4 => {
                if let Some(connection) = self.connections.last().copied() {
                    self.close(connection);
                    self.settle();
                }
            }
            4..8 => {
                if let Some(connection) = self.connections.last().copied() {
                    self.feed(Input::GoingAway { connection });
                }
            }
            8..10 => self.feed(Input::PathChanged),
            10..12 => {
                let urgency = Urgency::ALL[self.below(4) as usize];
                self.feed(Input::UrgencyWanted(urgency));
            }
            12..32 => {
                let session = self.messages as u32 + 10;
                self.feed(Input::DeviceUp {
                    device,
                    session,
                    message_bytes_max: 4096,
                    in_flight_max: DELIVERY_PER_DEVICE_MAX,
                });
            }
            32 => self.feed(Input::RotationAsked { device, channel: None }),
            33 => self.feed(Input::Unsubscribe { device, channel: ChannelId(2) }),
            34..40 => self.feed(Input::Subscribe { device, channel: ChannelId(2) }),
            _ => {}
        }
    }
}

impl Gateway {
    /// Everything that it remembers, counted.
    fn entries(&self) -> usize {
        let missed: usize = self.subscriptions.iter().map(|entry| 1 + entry.fetch.missed.len()).sum();
        self.delivery.iter().count()
            + self.delivery.freed().count()
            + self.delivery.undeliverable_count()
            + missed
            + self.devices.iter().count()
            + self.departures.iter().count()
            + self.abandoned.len()
            + self.closing.len()
            + self.persisting.len()
            + self.behind.devices.len()
            + self.behind.ended.len()
            + self.stopped.len()
            + self.seen.count()
            + self.restored_acks.len()
            + self.announcement_entries()
            + self.upstreams.iter().count()
    }
}

/// Whatever happens, the machine remembers no more than its bounds, and forgets what is over.
#[test]
fn a_month_of_messages_keeps_memory_flat() {
    let count = std::env::var("FIELDGATE_LONG_MESSAGES").ok().and_then(|count| count.parse().ok());
    let count: u64 = count.unwrap_or(MESSAGE_COUNT);
    let mut life = Life::new();
    let mut tenths = Vec::new();
    for number in 0..count {
        life.rig.wait(MONTH_MS / count);
        life.settle();
        let late = std::mem::take(&mut life.late);
        for (device, message) in late {
            life.feed(Input::DeviceAck { device, message });
        }
        life.trouble();
        life.send();
        assert!(life.entries_max <= ENTRIES_MAX, "{} of {ENTRIES_MAX} after {number}", life.entries_max);
        if (number + 1) % (count / 10) == 0 {
            tenths.push(std::mem::take(&mut life.entries_max));
        }
    }
    let counters = life.rig.gateway.status().counters;
    println!(
        "{count} messages: {} delivered, {} acknowledged; at most {tenths:?} entries",
        life.delivered, life.acknowledged
    );
    println!("{counters:?}, {} subscriptions made, {} records on flash", life.grants, life.rig.flash.len());
    assert!(life.delivered > count * 8 / 10 && life.acknowledged > count * 7 / 10, "{counters:?}");
    assert!(counters.connections > 10 && life.grants > 10 && counters.refused > 0 && counters.given_up > 0);
    // The rings are full by then, and nothing else may grow.
    assert!(tenths[9] <= tenths[7].max(tenths[8]) * 11 / 10 + 20, "{tenths:?}");
    assert!(life.rig.flash.len() <= 4 * DEVICES.len() * 2 + 40, "{:?}", life.rig.flash.keys());
}
