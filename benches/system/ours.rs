//! The product as processes: a push service, a gateway, and devices on pseudo-terminals.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as sync;
use std::thread;
use std::time::{Duration, Instant};

use fieldgate::webpush::subscription::PushSubscription;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::peer::signal;
use crate::poster::{Parcel, Poster};
use crate::process::{PATIENCE, Process, Site, await_true, now};
use crate::proxy::Proxy;

/// Received messages that wait to be looked at.
pub const RECEIVED_COUNT: usize = 65_536;

/// Devices and the subscriptions of each.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub devices: usize,
    pub channels: usize,
    /// Whether a proxy counts what goes between gateway and service.
    pub counted: bool,
}

/// Everything that runs.
pub struct Ours {
    pub gateway: Process,
    pub poster: Poster,
    pub subscriptions: Vec<PushSubscription>,
    pub site: Site,
    pub proxy: Option<Proxy>,
    pub service: Process,
    received: mpsc::Receiver<(usize, Instant)>,
    sender: mpsc::Sender<(usize, Instant)>,
    devices: Vec<Device>,
}

/// A process that is a device; it prints a line for each message that its application receives.
pub struct Device(Child);

impl Ours {
    pub async fn start(shape: Shape) -> Self {
        let (site, service) = Site::with_service();
        let address = site.authority().parse().expect("an address and a port");
        let proxy = shape.counted.then(|| Proxy::to(address));
        let authority = proxy.as_ref().map_or(site.authority().to_owned(), |proxy| proxy.address.to_string());
        configure(&site, &authority, shape);
        let (sender, received) = mpsc::channel(RECEIVED_COUNT);
        let devices = (0..shape.devices).map(|index| Device::start(&site, index, &[], sender.clone())).collect();
        let gateway = site.start_gateway();
        await_true("a gateway", || site.command(&["status"]).status.success());
        let all = (0..shape.devices).flat_map(|index| (1..=shape.channels).map(move |channel| (id(index), channel)));
        let subscriptions: Vec<_> = all.map(|(id, channel)| subscription(&site, &id, channel)).collect();
        let poster = Poster::connect(site.authority(), &site.ca).await;
        let mut ours = Self { gateway, poster, subscriptions, site, proxy, service, received, sender, devices };
        ours.warm_up().await;
        ours
    }

    /// A message for each subscription.
    pub fn parcels(&self, octets: usize) -> Vec<Parcel> {
        self.subscriptions.iter().map(|subscription| Parcel::new(subscription, octets)).collect()
    }

    /// When the next message is received by an application.
    pub async fn next_received(&mut self) -> Instant {
        self.next_received_by().await.1
    }

    /// The same, with the number of the device.
    pub async fn next_received_by(&mut self) -> (usize, Instant) {
        timeout(PATIENCE, self.received.recv()).await.expect("it comes in time").expect("the devices run")
    }

    /// How many more messages are received until none comes for a while.
    pub async fn received_until_quiet(&mut self, quiet: Duration) -> usize {
        let mut count = 0;
        while let Ok(Some(_)) = timeout(quiet, self.received.recv()).await {
            count += 1;
        }
        count
    }

    /// Connects the sender anew.
    pub async fn reconnect(&mut self) {
        self.poster = Poster::connect(self.site.authority(), &self.site.ca).await;
    }

    /// A device stands still, or goes on.
    pub fn signal_device(&self, index: usize, name: &str) {
        signal(self.devices[index].0.id(), name);
    }

    /// A device dies, and starts again with what it remembers.
    pub fn restart_device(&mut self, index: usize, arguments: &[&str]) {
        let device = &mut self.devices[index];
        device.0.kill().expect("it is ours");
        device.0.wait().expect("it was killed");
        self.devices[index] = Device::start(&self.site, index, arguments, self.sender.clone());
    }

    /// When the last one of so many messages is received.
    pub async fn last_received(&mut self, count: usize) -> Instant {
        for _ in 1..count {
            self.next_received().await;
        }
        self.next_received().await
    }

    /// Messages that the gateway acknowledged at the service, as it says itself.
    pub fn counter(&self, name: &str) -> u64 {
        let shown = self.site.command(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        status["counters"][name].as_u64().expect("a counter")
    }

    /// One message to each subscription: every device is there, and tables are filled.
    async fn warm_up(&mut self) {
        let parcels = self.parcels(200);
        self.poster.post_all(&parcels, parcels.len()).await;
        self.last_received(parcels.len()).await;
    }
}

impl Device {
    fn start(site: &Site, index: usize, arguments: &[&str], received: mpsc::Sender<(usize, Instant)>) -> Self {
        let id = &id(index);
        let place = format!("pty:{}", site.path(&format!("{id}.tty")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
        command
            .args(["simulate", &place, "--id", id, "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (is_ready, ready) = sync::sync_channel(1);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.contains("\"event\":\"received\"") {
                    // After the run nobody looks any more.
                    received.blocking_send((index, now())).ok();
                } else if line.contains("\"event\":\"link\"") {
                    is_ready.send(()).ok();
                }
            }
        });
        ready.recv_timeout(PATIENCE).expect("its port is there in time");
        Self(child)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it was killed");
    }
}

fn id(index: usize) -> String {
    format!("d{index}")
}

fn configure(site: &Site, authority: &str, shape: Shape) {
    let channels: Vec<String> = (1..=shape.channels).map(|channel| channel.to_string()).collect();
    let devices = (0..shape.devices).map(|index| {
        let (id, channels) = (id(index), channels.join(", "));
        format!("[[device]]\nid = \"{id}\"\nlink = \"{}\"\nchannels = [{channels}]\n", site.device_link(&id))
    });
    let text = format!(
        "state = \"{}\"\n[push_service]\nurl = \"https://{authority}/subscribe\"\nca_file = \"{}\"\n{}",
        site.path("gateway"),
        site.ca.display(),
        devices.collect::<String>()
    );
    std::fs::write(site.path("fieldgate.toml"), text).expect("written");
}

fn subscription(site: &Site, id: &str, channel: usize) -> PushSubscription {
    let channel = channel.to_string();
    let shown = site.command(&["device", "show", id, "--channel", &channel, "--json", "--wait", "30"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    PushSubscription::from_json(&String::from_utf8_lossy(&shown.stdout)).expect("a subscription")
}

/// Lets everything that is under way come to its end.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
