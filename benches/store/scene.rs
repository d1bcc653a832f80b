//! The real machine of the gateway, between a push service and devices that answer, on a clock that is computed: what it
//! has written, and when, is the same in every run.

use std::collections::BTreeMap;

use fieldgate::proto::connection::{ConnectionId, Trouble};
use fieldgate::proto::device::{Options, PendingAcks};
use fieldgate::proto::record::DeviceRecord;
use fieldgate::proto::{self, Gateway, Input, Output, PromiseId};
use fieldgate::random::SeededRandom;
use fieldgate::service::token::{TOKEN_BYTES, Token};
use fieldgate::store::Change;
use fieldgate::time::{BootId, ClockReading, Duration, Instant, UnixTime};
use fieldgate::webpush::exchange::{Deletion, Dialect, Granted, Next, Target};
use fieldgate::webpush::resource::{PushMessageUri, PushServiceUri, PushUri, SetUri, SubscriptionUri};
use fieldgate::wire::{ChannelId, DeviceId};

const AUTHORITY: &str = "https://push.example.net";
/// How long the service takes to answer, a device to acknowledge, and the medium to sync.
const ANSWER_MS: u64 = 50;
const DEVICE_MS: u64 = 20;
const SYNC_MS: u64 = 5;
const STREAMS_MAX: usize = 100;
const MINUTE_MS: u64 = 60_000;
/// What time it is at the service when the gateway starts.
const STARTED_S: u64 = 1_800_000_000;
const BOOT: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

/// Changes that are made safe together.
pub type Submission = Vec<Change>;

/// See the module.
pub struct Scene {
    core: Gateway,
    now_ms: u64,
    /// What is going to happen, when, and in which order.
    events: BTreeMap<(u64, u64), Input>,
    event_count: u64,
    token_count: u64,
    set: SetUri,
    connection: Option<ConnectionId>,
    /// The push resources of the subscriptions, as they were granted.
    sends: Vec<PushUri>,
    is_clock_synchronised: bool,
    written: Vec<Submission>,
}

impl Scene {
    /// A gateway that has just started, on a board whose clock nothing sets.
    pub fn new() -> Self {
        let service = PushServiceUri::parse(&format!("{AUTHORITY}/subscribe")).expect("a URI");
        let mut core = Gateway::new(service, Box::new(SeededRandom::new(1)), Instant::ZERO);
        core.booted(BootId::parse(BOOT));
        let set = SetUri::parse(&uri(0)).expect("a URI");
        let mut scene = Self {
            core,
            now_ms: 0,
            events: BTreeMap::new(),
            event_count: 0,
            token_count: 0,
            set,
            connection: None,
            sends: Vec::new(),
            is_clock_synchronised: false,
            written: Vec::new(),
        };
        scene.feed(Input::Started);
        scene
    }

    /// A gateway whose devices have their subscriptions, which it has written.
    pub fn serving(devices: usize, channels: u16, pending_acks: PendingAcks) -> Self {
        let mut scene = Self::new();
        for number in 0..devices {
            scene.add(number, channels, pending_acks);
        }
        scene.pass(Duration::from_secs(600));
        assert_eq!(scene.sends.len(), devices * usize::from(channels), "all are subscribed");
        scene
    }

    /// The clock of the board is set from now on.
    pub fn synchronise(&mut self) {
        self.is_clock_synchronised = true;
    }

    /// One device more is configured, and there.
    pub fn add(&mut self, number: usize, channels: u16, pending_acks: PendingAcks) {
        let record = DeviceRecord {
            id: device(number),
            link: format!("serial:/dev/ttyUSB{number}?baud=115200"),
            channels: (1..=channels).map(ChannelId).collect(),
            mtu: 256,
            options: Options { pending_acks, ..Options::default() },
        };
        self.feed(Input::DeviceAdded { device: record, lasting: false });
        self.feed(Input::DeviceUp { device: device(number), session: 1, message_bytes_max: 4096, in_flight_max: 8 });
    }

    /// A device is no longer configured.
    pub fn remove(&mut self, number: usize) {
        self.feed(Input::DeviceRemoved(device(number)));
    }

    /// A person wants other URIs and keys for a device.
    pub fn rotate(&mut self, number: usize) {
        self.feed(Input::RotationAsked { device: device(number), channel: None });
    }

    /// The service pushes a message for one of the subscriptions.
    pub fn push(&mut self, subscription: usize) {
        let connection = self.connection.expect("it is connected");
        let message = PushMessageUri::parse(&self.fresh_uri()).expect("a URI");
        let send = Some(self.sends[subscription % self.sends.len()].clone());
        let (promise, target) = (PromiseId(self.token_count), Target::Set(self.set.clone()));
        self.feed(Input::Promised { connection, promise, target, message, send });
    }

    /// The connection to the service is lost.
    pub fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.feed(Input::ConnectionClosed { connection, trouble: Trouble::Network });
        }
    }

    /// Lets time pass; each minute the clock is looked at, and the service says what time it is.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now_ms + u64::try_from(time.as_millis()).expect("not that long");
        while self.now_ms < end {
            let minute = (self.now_ms / MINUTE_MS + 1) * MINUTE_MS;
            self.pass_until(minute.min(end));
            self.feed(Input::ClockRead(self.clock()));
            self.tell_date();
        }
    }

    /// What was written since the last call, in order; each entry is one submission to the store.
    pub fn take_written(&mut self) -> Vec<Submission> {
        std::mem::take(&mut self.written)
    }

    /// Messages that were acknowledged at the service so far.
    pub fn acknowledged(&self) -> u64 {
        self.core.status().counters.acknowledged
    }

    fn pass_until(&mut self, end: u64) {
        loop {
            let due = self.core.poll_timeout().map(|(at, _)| at.as_millis().max(self.now_ms));
            let event = self.events.keys().next().copied();
            let Some(next) = due.into_iter().chain(event.map(|(at, _)| at)).min().filter(|next| *next <= end) else {
                self.now_ms = end;
                return;
            };
            self.now_ms = next;
            match event.filter(|(at, _)| *at == next).and_then(|key| self.events.remove(&key)) {
                Some(input) => self.feed(input),
                None => self.time_out(),
            }
        }
    }

    fn time_out(&mut self) {
        self.core.handle_timeout(self.now());
        self.drain();
        let due = self.core.poll_timeout().map(|(at, _)| at);
        if due.is_some_and(|due| due <= self.now()) {
            self.now_ms += 1; // What is due already waits for something else.
        }
    }

    fn feed(&mut self, input: Input) {
        if let Input::ConnectionReady { connection, .. } = input {
            self.connection = Some(connection);
        }
        self.core.handle_input(input, self.now());
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        let done = Deletion::Done;
        let (pause, input) = match output {
            Output::Connect { connection, .. } => {
                (ANSWER_MS, Input::ConnectionReady { connection, streams_max: STREAMS_MAX })
            }
            Output::Ping { connection } => (ANSWER_MS, Input::Pong { connection }),
            Output::Close { connection } | Output::Drop { connection } => {
                self.connection = self.connection.filter(|current| *current != connection);
                (0, Input::ConnectionClosed { connection, trouble: Trouble::Ended })
            }
            Output::Subscribe { connection, subscription, .. } => {
                let granted = self.grant();
                (ANSWER_MS, Input::Subscribed { connection, subscription, outcome: Some(Ok(granted)) })
            }
            Output::Unsubscribe { connection, subscription, .. } => {
                (ANSWER_MS, Input::Unsubscribed { connection, subscription, outcome: done })
            }
            Output::UnsubscribeSet { connection, set } => {
                (ANSWER_MS, Input::SetUnsubscribed { connection, set, outcome: done })
            }
            Output::Fetch { connection, subscription, read, .. } => {
                (ANSWER_MS, Input::FetchEnded { connection, subscription, read, next: Next::Again })
            }
            Output::Admit { slot, .. } => {
                let connection = self.connection.expect("it came on one");
                let body = vec![0; 303];
                (ANSWER_MS, Input::Pushed { connection, slot, send: None, body, max_age: None, age: None })
            }
            Output::Decode { slot, .. } => (0, Input::Decoded { slot, outcome: Ok(vec![0; 200]) }),
            Output::Deliver { device, message, .. } => (DEVICE_MS, Input::DeviceAck { device, message }),
            Output::Acknowledge { connection, message } => {
                (ANSWER_MS, Input::Acknowledged { connection, message, outcome: done })
            }
            Output::Persist { ticket, change, also } => {
                let changes = std::iter::once(change).chain(also.map(|also| *also));
                self.written.push(changes.map(stored).collect());
                (SYNC_MS, Input::Persisted { ticket, stored: true })
            }
            Output::Monitor { .. } | Output::Refuse { .. } | Output::Reply { .. } | Output::Announce { .. } => return,
        };
        self.event_count += 1;
        self.events.insert((self.now_ms + pause, self.event_count), input);
    }

    /// A subscription as the service of this package grants it.
    fn grant(&mut self) -> Granted {
        let read = SubscriptionUri::parse(&self.fresh_uri()).expect("a URI");
        let send = PushUri::parse(&self.fresh_uri()).expect("a URI");
        self.sends.push(send.clone());
        Granted { dialect: Dialect::Rfc8030, read, send, set: Some(self.set.clone()), keeps_for: None }
    }

    fn fresh_uri(&mut self) -> String {
        self.token_count += 1;
        uri(self.token_count)
    }

    fn tell_date(&mut self) {
        let Some(connection) = self.connection else { return };
        let date = Some(UnixTime(STARTED_S + self.now_ms / 1_000));
        self.feed(Input::Dated { connection, date, not_after: UnixTime(u64::MAX), clock: self.clock() });
    }

    /// A clock that nothing has set begins in 1970.
    fn clock(&self) -> ClockReading {
        let start_s = if self.is_clock_synchronised { STARTED_S } else { 0 };
        ClockReading { wall_ms: start_s * 1_000 + self.now_ms, is_synchronised: self.is_clock_synchronised }
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.now_ms)
    }
}

fn device(number: usize) -> DeviceId {
    format!("meter-{number}").parse().expect("an id")
}

/// A capability URI, as long as those of the service of this package.
fn uri(number: u64) -> String {
    let mut octets = [0x5a; TOKEN_BYTES];
    octets[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    format!("{AUTHORITY}{}", Token::from_bytes(octets).path())
}

/// A change as the event loop of the gateway hands it to the store.
fn stored(change: proto::Change) -> Change {
    match change {
        proto::Change::Put(record) => Change::put(&record.key().encode(), &record.encode()),
        proto::Change::Remove(key) => Change::remove(&key.encode()),
    }
}
