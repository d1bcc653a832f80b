//! A scripted device at the far end of a link: it does what a test says, and nothing by itself but keep its link.

use std::collections::VecDeque;
use std::time::Duration;

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::memory::DeviceMemory;
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::Instant;
use fieldgate::wire::message::{Profile, Uplink};
use fieldgate::wire::{DeviceId, MessageId, ToDevice, ToGateway};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

/// What a device gives up waiting after; paused clocks pass it at once.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct ScriptedDevice<S> {
    stream: S,
    link: Box<Link<DeviceMemory<LINK_MTU_BYTES_MAX, 4098, 4098, 1024>>>,
    /// What it says about itself.
    pub profile: Profile,
    start: tokio::time::Instant,
    heard: VecDeque<Vec<u8>>,
    /// Uplink, waiting and time of each Status so far.
    pub statuses: Vec<(Uplink, u8, u64)>,
    /// The first message of all.
    pub first: Option<Heard>,
    is_open: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ScriptedDevice<S> {
    pub fn new(stream: S, boot_id: u32, mtu: usize) -> Self {
        let link = Box::new(Link::new(Config { role: Role::Device, boot_id, mtu }, Instant::ZERO));
        let start = tokio::time::Instant::now();
        let profile = Profile { message_bytes_max: 4096, urgent_window: 4098, memory: 16, traits: 0 };
        Self { stream, link, profile, start, heard: VecDeque::new(), statuses: Vec::new(), first: None, is_open: false }
    }

    /// A device that has attached under `id`.
    pub async fn attached(stream: S, boot_id: u32, id: &str) -> Self {
        let mut device = Self::new(stream, boot_id, 256);
        device.attach(id).await;
        device
    }

    /// Waits for a session and attaches.
    pub async fn attach(&mut self, id: &str) {
        self.run_until(|device| device.is_open).await;
        let device: DeviceId = id.parse().expect("an id");
        let profile = self.profile;
        self.say(&ToGateway::Attach { device, profile }).await;
    }

    pub async fn say(&mut self, message: &ToGateway) {
        let mut octets = [0; 64];
        let bytes = message.emit(&mut octets).expect("it fits");
        self.say_octets(&octets[..bytes]).await;
    }

    pub async fn say_octets(&mut self, octets: &[u8]) {
        self.run_until(|device| device.is_open && device.link.room() >= octets.len()).await;
        self.link.send(octets).expect("there is room in an open session");
        self.flush().await;
    }

    /// Waits for the next message.
    pub async fn hear(&mut self) -> Heard {
        self.run_until(|device| !device.heard.is_empty()).await;
        Heard(self.heard.pop_front().expect("one is there"))
    }

    /// Waits until word of how the gateway is has come so often; gives the last one.
    pub async fn hear_status(&mut self, count: usize) -> (Uplink, u8, u64) {
        self.run_until(|device| device.statuses.len() >= count).await;
        *self.statuses.last().expect("one came")
    }

    /// Keeps the link for a while; returns what was heard.
    pub async fn idle(&mut self, time: Duration) -> Vec<Heard> {
        let step = self.run_until(|_| false);
        assert!(timeout(time, step).await.is_err(), "it waits for nothing");
        self.heard.drain(..).map(Heard).collect()
    }

    /// Keeps the link for ever.
    pub async fn keep(&mut self) {
        loop {
            self.idle(PATIENCE / 2).await;
        }
    }

    /// Keeps the link while something else is waited for.
    pub async fn tend<T>(&mut self, wait: impl Future<Output = T>) -> T {
        tokio::select! {
            done = wait => done,
            () = self.keep() => unreachable!("it keeps its link for ever"),
        }
    }

    /// Waits for word of a subscription; gives its push URI.
    pub async fn hear_subscribed(&mut self, channel: u16) -> String {
        loop {
            let heard = self.hear().await;
            match heard.message() {
                ToDevice::Subscribed { channel: of, push, .. } if of.0 == channel => return push.to_owned(),
                ToDevice::Subscribed { .. } => {}
                other => panic!("{other:?} instead of a subscription"),
            }
        }
    }

    /// Waits for a message of the push service: it has this text.
    pub async fn hear_push(&mut self, text: &str) -> MessageId {
        let heard = self.hear().await;
        let ToDevice::Push { message, body, .. } = heard.message() else { panic!("{heard:?} is no push") };
        assert_eq!(String::from_utf8_lossy(body), text);
        message
    }

    pub fn into_stream(self) -> S {
        self.stream
    }

    async fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let mut input = [0; 512];
        let end = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            self.flush().await;
            let due = self.link.poll_timeout().map_or(end, |at| self.start + Duration::from_millis(at.as_millis()));
            tokio::select! {
                read = self.stream.read(&mut input) => {
                    let bytes = read.expect("the gateway keeps the connection");
                    assert!(bytes > 0, "the gateway keeps the connection");
                    self.feed(&input[..bytes]);
                }
                () = sleep_until(due.min(end)) => {
                    assert!(tokio::time::Instant::now() < end, "the device waited in vain");
                    let event = self.link.handle_timeout(self.now());
                    self.note(event);
                }
            }
        }
        self.flush().await;
    }

    fn feed(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let (taken, event) = self.link.feed(octets, self.now());
            octets = &octets[taken..];
            self.note(event);
        }
    }

    fn note(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Opened { .. }) => self.is_open = true,
            Some(Event::Restarted | Event::Silent | Event::Broken) => self.is_open = false,
            Some(Event::Message) => self.take_messages(),
            Some(Event::VersionRefused(_) | Event::ProbeAnswered(_)) | None => {}
        }
    }

    /// Word of how the gateway is comes whenever it likes, and is kept apart.
    fn take_messages(&mut self) {
        while let Some((stream, message)) = self.link.message() {
            let heard = Heard(message.to_vec());
            self.link.release(stream);
            self.first.get_or_insert_with(|| Heard(heard.0.clone()));
            match heard.message() {
                ToDevice::Status { uplink, waiting, time } => self.statuses.push((uplink, waiting, time)),
                _ => self.heard.push_back(heard.0),
            }
        }
    }

    async fn flush(&mut self) {
        let mut output = [0; LINK_MTU_BYTES_MAX];
        while let Some(bytes) = self.link.poll_transmit(self.now(), &mut output) {
            self.stream.write_all(&output[..bytes]).await.expect("the gateway keeps the connection");
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

impl<S> ScriptedDevice<S> {
    /// Its connection, for octets that are none of its link's.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The device with what it knows, on another connection; it has to attach there.
    pub fn moved_to<T>(self, stream: T) -> ScriptedDevice<T> {
        let Self { link, profile, start, heard, statuses, first, .. } = self;
        ScriptedDevice { stream, link, profile, start, heard, statuses, first, is_open: false }
    }
}

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard(pub Vec<u8>);

impl Heard {
    pub fn message(&self) -> ToDevice<'_> {
        ToDevice::parse(&self.0).expect("a message to a device")
    }
}
