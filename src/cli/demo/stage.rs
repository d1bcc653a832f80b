//! The parts of the demonstration, started as their commands start them.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::simulate::{self, Options, Place, Quality, Report};
use crate::config::urgency::UrgencyPolicy;
use crate::config::{self, Config};
use crate::control::{self, Request};
use crate::gateway;
use crate::limits::{DEMO_EVENT_COUNT, DEMO_LOSS_PERCENT, DEMO_WAIT_MS_MAX, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN};
use crate::proto::device::Options as DeviceOptions;
use crate::random::{SystemRandom, array};
use crate::sender::Sender;
use crate::service::{Running, Service, ServiceOptions};
use crate::transport::endpoint::LinkEndpoint;
use crate::transport::properties::Trust;
use crate::webpush::headers::Ttl;
use crate::webpush::resource::PushMessageUri;
use crate::webpush::subscription::PushSubscription;
use crate::wire::{ChannelId, DeviceId};

/// How often something that is on its way is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const TTL_S: u64 = 600;

/// Everything that runs.
pub struct Stage {
    folder: Folder,
    service: Running,
    gateway: Part<Result<(), gateway::StartError>>,
    parts: Vec<Part<Result<u64, simulate::Failed>>>,
    devices: Vec<Device>,
    events: mpsc::Receiver<Received>,
    sender: Sender,
    watcher: Sender,
}

/// A message that the push service accepted.
pub struct Posted {
    /// The device that it is for.
    pub device: String,
    /// Its resource.
    pub message: PushMessageUri,
    /// When the last octet of the request was handed over.
    pub posted_at: Instant,
    /// When its answer came.
    pub accepted_at: Instant,
}

/// A message that an application has.
pub struct Received {
    /// Its device.
    pub device: String,
    /// Its number, if it is one of the demonstration's.
    pub number: Option<usize>,
    /// When.
    pub at: Instant,
}

struct Device {
    id: DeviceId,
    link: String,
    note: &'static str,
    subscription: PushSubscription,
}

/// A task with the way to end it.
struct Part<T> {
    task: JoinHandle<T>,
    stop: oneshot::Sender<()>,
}

impl<T: 'static> Part<T> {
    fn spawn<F: Future<Output = T> + 'static>(start: impl FnOnce(Shutdown) -> F) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { task: tokio::task::spawn_local(start(Shutdown(stopped))), stop }
    }

    async fn stop(self) -> Option<T> {
        if self.stop.send(()).is_err() {
            tracing::debug!("a part of the demonstration ended by itself");
        }
        self.task.await.ok()
    }
}

struct Shutdown(oneshot::Receiver<()>);

impl Shutdown {
    async fn wait(self) {
        if self.0.await.is_err() {
            tracing::debug!("the demonstration ended before its parts");
        }
    }
}

/// A folder that goes with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let name = u64::from_le_bytes(array(&mut SystemRandom::default()));
        let path = std::env::temp_dir().join(format!("fieldgate-demo-{name:016x}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} stays: {error}", self.0.display());
        }
    }
}

impl Stage {
    /// Starts service, gateway and devices, and waits until each device has a subscription.
    ///
    /// # Errors
    /// Which part did not start, and why.
    pub async fn start(device_count: usize) -> Result<Self, String> {
        let folder = Folder::new().map_err(|error| format!("no temporary folder: {error}"))?;
        let options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), folder.path("service"));
        let service = Service::start(options).await.map_err(|error| format!("push service: {error}"))?;

        let (report, events) = mpsc::channel(DEMO_EVENT_COUNT);
        let mut parts = Vec::new();
        let mut configured = Vec::new();
        for number in 0..device_count {
            let (device, place) = describe(number, &folder)?;
            parts.push(spawn_device(&device, place, number, report.clone()));
            configured.push(device);
        }
        let config = Config {
            more_push_services: Vec::new(),
            announce: None,
            flash_bytes_per_day: crate::limits::FLASH_BYTES_PER_DAY,
            urgency: UrgencyPolicy::default(),
            state: folder.path("gateway"),
            control: folder.path("control.sock"),
            push_service: config::PushService {
                name: None,
                url: service.url.parse().map_err(|error| format!("push service: {error}"))?,
                ca_file: Some(service.ca_file.clone()),
                crl_file: None,
                credential_file: None,
            },
            devices: configured.clone(),
        };
        await_ports(&configured).await?;
        let gateway = Part::spawn(|shutdown| gateway::run(config, Box::pin(shutdown.wait())));
        let mut devices = Vec::new();
        for (number, device) in configured.into_iter().enumerate() {
            let subscription = await_subscription(&folder.path("control.sock"), &device.id).await?;
            devices.push(Device { id: device.id, link: device.link.to_string(), note: note(number), subscription });
        }
        await_devices(&folder.path("control.sock")).await?;
        let trust = || Trust::File(service.ca_file.clone());
        let first = &devices.first().ok_or("no device")?.subscription;
        let sender = Sender::new(first, trust()).map_err(|error| error.to_string())?;
        let watcher = Sender::new(first, trust()).map_err(|error| error.to_string())?;
        Ok(Self { folder, service, gateway, parts, devices, events, sender, watcher })
    }

    /// What runs, for a person.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!("push service  {}", self.service.url)];
        let device = |device: &Device| format!("device        {:<10} {}, {}", device.id, device.link, device.note);
        lines.extend(self.devices.iter().map(device));
        lines
    }

    /// Sends the message of a number to the device whose turn it is.
    ///
    /// # Errors
    /// The push service did not accept it.
    pub async fn post(&mut self, number: usize) -> Result<Posted, String> {
        let device = &self.devices[number % self.devices.len()];
        let text = format!("message {number}");
        let sent = self.sender.send(&device.subscription, text.as_bytes(), Ttl::from_secs(TTL_S)).await;
        let sent = sent.map_err(|error| format!("message {number} was not accepted: {error}"))?;
        let (message, posted_at) = (sent.accepted.message, sent.posted_at);
        Ok(Posted { device: device.id.to_string(), message, posted_at, accepted_at: Instant::now() })
    }

    /// Waits for the next message at an application; for ever if none comes.
    ///
    /// Cancel safety: no message is lost.
    pub async fn received(&mut self) -> Received {
        match self.events.recv().await {
            Some(received) => received,
            None => std::future::pending().await,
        }
    }

    /// Whether a message is gone at the push service.
    ///
    /// # Errors
    /// The push service did not answer.
    pub async fn is_gone(&mut self, message: &PushMessageUri) -> Result<bool, String> {
        self.watcher.holds(message).await.map(|holds| !holds).map_err(|error| error.to_string())
    }

    /// What the gateway counted.
    pub async fn counters(&self) -> Value {
        let status = control::ask(&self.folder.path("control.sock"), &Request::Status).await;
        status.map_or_else(|error| json!({ "error": error }), |mut status| status["counters"].take())
    }

    /// Ends every part in order.
    pub async fn stop(self) {
        if let Some(Err(error)) = self.gateway.stop().await {
            tracing::error!("gateway: {error}");
        }
        for part in self.parts {
            if let Some(Err(error)) = part.stop().await {
                tracing::error!("device: {error}");
            }
        }
        self.service.stop().await;
    }
}

fn note(number: usize) -> &'static str {
    match number {
        0 => "a pseudo-terminal",
        1 => "packets of 20 octets, 5 of 100 lost in each direction",
        _ => "a Unix socket",
    }
}

/// The device of a number as the gateway is told, and where it is.
fn describe(number: usize, folder: &Folder) -> Result<(config::Device, Place), String> {
    let id = format!("device-{}", number + 1);
    let path = folder.path(&id);
    let (place, link) = if number == 0 {
        (format!("pty:{}", path.display()), LinkEndpoint::Serial { path, baud: 115_200 })
    } else {
        (format!("unix:{}", path.display()), LinkEndpoint::Unix { path })
    };
    let place = place.parse().map_err(|error| format!("{place}: {error}"))?;
    let mtu = if number == 1 { LINK_MTU_BYTES_MIN } else { LINK_MTU_BYTES_MAX };
    let id = id.parse().map_err(|error| format!("{id}: {error}"))?;
    Ok((
        config::Device { id, link, channels: vec![ChannelId(1)], mtu: mtu as u16, options: DeviceOptions::default() },
        place,
    ))
}

fn spawn_device(
    device: &config::Device,
    place: Place,
    number: usize,
    events: mpsc::Sender<Received>,
) -> Part<Result<u64, simulate::Failed>> {
    let loss_percent = if number == 1 { DEMO_LOSS_PERCENT } else { 0 };
    let options = Options {
        mtu: usize::from(device.mtu),
        line: Quality { loss_percent, ..Quality::default() },
        seed: number as u64,
        ..Options::new(place, device.id.clone())
    };
    let id = device.id.to_string();
    let report = move |report: &Report<'_>| match report {
        Report::Received { body, .. } => {
            let number = std::str::from_utf8(body).ok().and_then(|text| text.strip_prefix("message ")?.parse().ok());
            let received = Received { device: id.clone(), number, at: Instant::now() };
            // A message that cannot be shown is not received: it is not acknowledged.
            events.try_send(received).map_err(|_| io::ErrorKind::WouldBlock.into())
        }
        _ => Ok(()),
    };
    Part::spawn(|shutdown| simulate::device(options, report, shutdown.wait()))
}

/// Waits until the pseudo-terminals are there.
async fn await_ports(devices: &[config::Device]) -> Result<(), String> {
    let there = |device: &config::Device| match &device.link {
        LinkEndpoint::Serial { path, .. } => path.exists(),
        LinkEndpoint::Unix { .. } | LinkEndpoint::Tcp(_) => true,
    };
    let all = async {
        while !devices.iter().all(there) {
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(Duration::from_millis(DEMO_WAIT_MS_MAX), all).await.map_err(|_| "no pseudo-terminal".to_owned())
}

/// Waits until every device has attached.
async fn await_devices(control: &Path) -> Result<(), String> {
    let attached = |status: &Value| {
        let devices = status["devices"].as_array();
        devices.is_some_and(|devices| devices.iter().all(|device| device["presence"] == "ready"))
    };
    let wait = async {
        while !control::ask(control, &Request::Status).await.is_ok_and(|status| attached(&status)) {
            sleep(LOOK_INTERVAL).await;
        }
    };
    let waited = timeout(Duration::from_millis(DEMO_WAIT_MS_MAX), wait).await;
    waited.map_err(|_| "a device did not attach; FIELDGATE_LOG=debug shows more".to_owned())
}

async fn await_subscription(control: &Path, id: &DeviceId) -> Result<PushSubscription, String> {
    let request = Request::DeviceShow { id: id.to_string(), channel: None };
    let wait = async {
        loop {
            // Until the gateway listens and the push service has answered there is nothing to show.
            if let Ok(shown) = control::ask(control, &request).await
                && let Ok(subscription) = PushSubscription::from_json(&shown.to_string())
            {
                return subscription;
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    let waited = timeout(Duration::from_millis(DEMO_WAIT_MS_MAX), wait).await;
    waited.map_err(|_| format!("{id} got no subscription; FIELDGATE_LOG=debug shows more"))
}
