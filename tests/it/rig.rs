//! Service, gateway and sender in this process, over real sockets and TLS; devices are scripted.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use fieldgate::config::urgency::UrgencyPolicy;
use fieldgate::config::{self, Config};
use fieldgate::control::{self, Request};
use fieldgate::gateway;
use fieldgate::gateway::supervisor::{News, Order, Supervisor};
use fieldgate::proto::device::Options;
use fieldgate::sender::signer::Signer;
use fieldgate::sender::{SendError, Sender};
use fieldgate::service::alternative::Alternative;
use fieldgate::service::{Running, Service, ServiceOptions};
use fieldgate::store::Store;
use fieldgate::store::log::Capacity;
use fieldgate::transport::clock::WallClock;
use fieldgate::transport::endpoint::LinkEndpoint;
use fieldgate::transport::properties::Trust;
use fieldgate::webpush::headers::{Ttl, Urgency};
use fieldgate::webpush::resource::PushMessageUri;
use fieldgate::webpush::subscription::PushSubscription;
use fieldgate::wire::ChannelId;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::device::ScriptedDevice;
use crate::flash::SharedFlash;
use crate::push_service::PushService;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

type GatewayTask = JoinHandle<Result<(), gateway::StartError>>;

/// Waits until something in this process is true.
pub async fn await_true(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it comes true");
}

/// Passes orders on, and writes down what it is told.
struct Orders {
    orders: mpsc::Receiver<Order>,
    told: Rc<RefCell<Vec<String>>>,
}

impl Supervisor for Orders {
    async fn order(&mut self) -> Order {
        self.orders.recv().await.unwrap_or(Order::Stop)
    }

    fn tell(&mut self, news: News<'_>) {
        self.told.borrow_mut().push(match news {
            News::Status(line) => line.to_owned(),
            other => format!("{other:?}"),
        });
    }

    fn alive_interval(&self) -> Option<Duration> {
        None
    }
}

/// One of everything.
pub struct Rig {
    folder: tempfile::TempDir,
    /// Ours, unless it is a foreign one.
    service: Option<Running>,
    url: http::Uri,
    gateway: Option<(GatewayTask, mpsc::Sender<Order>)>,
    /// What a gateway that starts is configured with.
    pub config: Config,
    /// Its wall clock.
    pub clock: WallClock,
    /// What its state is on, unless that is a folder.
    pub flash: Option<SharedFlash>,
    told: Rc<RefCell<Vec<String>>>,
    sender: Option<Sender>,
}

impl Rig {
    /// Service and gateway run; the gateway has a device `d1` on a Unix socket.
    pub async fn start() -> Self {
        let mut rig = Self::with_authority(None).await;
        rig.start_gateway();
        rig
    }

    /// The service runs; the gateway is configured, with another certification authority if one is given.
    pub async fn with_authority(ca: Option<std::path::PathBuf>) -> Self {
        Self::with_service(ca, None).await
    }

    /// The service runs, at two places; the gateway is configured for the first one.
    pub async fn with_alternative(alternative: Alternative) -> Self {
        Self::with_service(None, Some(alternative)).await
    }

    async fn with_service(ca: Option<std::path::PathBuf>, alternative: Option<Alternative>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ServiceOptions::new(([127, 0, 0, 1], 0).into(), folder.path().join("service"));
        let options = ServiceOptions { alternative, ..options };
        let service = Service::start(options).await.expect("the service starts");
        let url: http::Uri = service.url.parse().expect("a URL");
        let ca = ca.unwrap_or_else(|| service.ca_file.clone());
        Self::configured(folder, url, ca, Some(service))
    }

    /// The gateway is configured for a push service that is not ours.
    pub async fn with_foreign(service: &PushService) -> Self {
        Self::with_service_at(&service.url, &service.ca_file)
    }

    /// The gateway is configured for a push service that vouches for itself in a file.
    pub fn with_service_at(url: &str, ca_file: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::configured(folder, url.parse().expect("a URL"), ca_file.to_owned(), None)
    }

    fn configured(folder: tempfile::TempDir, url: http::Uri, ca: std::path::PathBuf, service: Option<Running>) -> Self {
        let device = device(&folder, "d1");
        let push_service = config::PushService {
            name: None,
            url: url.clone(),
            ca_file: Some(ca),
            crl_file: None,
            credential_file: None,
        };
        let (state, control) = (folder.path().join("gateway"), folder.path().join("control.sock"));
        let config = Config {
            state,
            control,
            push_service,
            more_push_services: vec![],
            announce: None,
            flash_bytes_per_day: fieldgate::limits::FLASH_BYTES_PER_DAY,
            urgency: UrgencyPolicy::default(),
            devices: vec![device],
        };
        Self {
            folder,
            service,
            url,
            gateway: None,
            config,
            clock: WallClock::default(),
            flash: None,
            told: Rc::default(),
            sender: None,
        }
    }

    /// The gateway has a bearer token for its push service.
    pub fn give_credential(&mut self, token: &str) {
        let path = self.folder.path().join("token");
        std::fs::write(&path, token).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
        self.config.push_service.credential_file = Some(path);
    }

    /// Where the service is as well.
    pub fn alternative(&self) -> SocketAddr {
        self.service.as_ref().and_then(|service| service.alternative).expect("it runs at two places")
    }

    /// The certification authority of the service.
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("service/ca.pem")
    }

    pub fn start_gateway(&mut self) {
        let (order, orders) = mpsc::channel(1);
        let supervisor = Orders { orders, told: Rc::clone(&self.told) };
        let flash = self.flash.clone();
        let open = |folder: &Path| match flash {
            Some(flash) => Store::open_on(flash, Capacity::default()),
            None => Store::open(folder),
        };
        let running = gateway::run_with(self.config.clone(), supervisor, self.clock.clone(), open);
        let task = tokio::task::spawn_local(async {
            // Who waits for it waits in vain, and should know why.
            running.await.inspect_err(|error| eprintln!("the gateway did not start: {error}"))
        });
        self.gateway = Some((task, order));
    }

    /// Has the gateway take up a configuration, and waits until it has, or has not.
    pub async fn reload(&self, config: Result<Config, String>) {
        let ready_count = || self.told.borrow().iter().filter(|told| *told == "Ready").count();
        await_true(|| ready_count() > 0).await;
        let before = ready_count();
        let (_, order) = self.gateway.as_ref().expect("it runs");
        order.send(Order::Reload(config.map(Box::new))).await.expect("it runs");
        await_true(|| ready_count() > before).await;
    }

    /// What the gateway told its supervisor.
    pub fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
    }

    /// A device of the gateway, on a Unix socket of its own.
    pub fn device(&self, id: &str) -> config::Device {
        device(&self.folder, id)
    }

    pub async fn stop_gateway(&mut self) {
        let (task, order) = self.gateway.take().expect("it runs");
        order.send(Order::Stop).await.expect("it runs");
        task.await.expect("no panic").expect("it ran");
    }

    /// Waits until the gateway has ended by itself.
    pub async fn ended_gateway(&mut self) {
        let (task, _order) = self.gateway.take().expect("it runs");
        task.await.expect("no panic").expect("it ran");
    }

    /// Stops the service and starts it again, where it was and with what it kept.
    pub async fn restart_service(&mut self) {
        self.service.take().expect("it runs").stop().await;
        let address = self.url.authority().expect("an authority").as_str().parse().expect("an address");
        let options = ServiceOptions::new(address, self.folder.path().join("service"));
        self.service = Some(Service::start(options).await.expect("the service starts again"));
    }

    /// A device on the link of `d1`.
    pub async fn attach(&self, boot_id: u32) -> ScriptedDevice<UnixStream> {
        self.attach_at("d1", "d1", boot_id).await
    }

    /// A device on the link that [`device`](Self::device) gives to `place`.
    pub async fn attach_at(&self, place: &str, id: &str, boot_id: u32) -> ScriptedDevice<UnixStream> {
        ScriptedDevice::attached(self.connect(place).await, boot_id, id).await
    }

    /// A connection to the link of `place` on which nothing was said.
    pub async fn connect(&self, place: &str) -> UnixStream {
        let path = socket(&self.folder, place);
        let connect = async {
            loop {
                match UnixStream::connect(&path).await {
                    Ok(stream) => return stream,
                    Err(_) => sleep(LOOK_INTERVAL).await,
                }
            }
        };
        timeout(PATIENCE, connect).await.expect("the gateway listens")
    }

    pub async fn ask(&self, request: &Request) -> Result<Value, String> {
        control::ask(&self.config.control, request).await
    }

    /// The subscription of a channel of `d1`, as soon as there is one.
    pub async fn subscription(&self, channel: u16) -> PushSubscription {
        self.subscription_of("d1", channel).await
    }

    /// The subscription of a device's channel, as soon as there is one.
    pub async fn subscription_of(&self, id: &str, channel: u16) -> PushSubscription {
        let request = Request::DeviceShow { id: id.to_owned(), channel: Some(channel) };
        let wait = async {
            loop {
                let shown = self.ask(&request).await.unwrap_or(Value::Null);
                match PushSubscription::from_json(&shown.to_string()) {
                    Ok(subscription) => return subscription,
                    Err(_) => sleep(LOOK_INTERVAL).await,
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("a subscription")
    }

    /// Sends a message; it is accepted.
    pub async fn send(&mut self, subscription: &PushSubscription, text: &str) -> PushMessageUri {
        self.try_send(subscription, text).await.expect("accepted")
    }

    /// Sends a message.
    pub async fn try_send(&mut self, subscription: &PushSubscription, text: &str) -> Result<PushMessageUri, SendError> {
        let sent = self.sender(subscription).send(subscription, text.as_bytes(), Ttl::from_secs(600)).await?;
        Ok(sent.accepted.message)
    }

    /// From now on messages to the service of a subscription matter so much.
    pub fn set_urgency(&mut self, subscription: &PushSubscription, urgency: Urgency) {
        self.sender(subscription).set_urgency(urgency);
    }

    /// From now on messages to the service of a subscription say who sends them.
    pub fn identify_by(&mut self, subscription: &PushSubscription, signer: Signer) {
        self.sender(subscription).identify_by(signer);
    }

    /// Whether the service still holds a message.
    pub async fn holds(&mut self, message: &PushMessageUri) -> bool {
        self.sender.as_mut().expect("something was sent").holds(message).await.expect("an answer")
    }

    /// Waits until a message is gone at the service.
    pub async fn await_gone(&mut self, message: &PushMessageUri) {
        let wait = async {
            while self.holds(message).await {
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it is acknowledged");
    }

    /// Waits until the gateway says something.
    pub async fn await_status(&self, what: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                match self.ask(&Request::Status).await {
                    Ok(status) if what(&status) => return status,
                    _ => sleep(LOOK_INTERVAL).await,
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the gateway says so")
    }

    fn sender(&mut self, subscription: &PushSubscription) -> &mut Sender {
        let ca = self.ca_file();
        self.sender.get_or_insert_with(|| Sender::new(subscription, Trust::File(ca)).expect("the authority is there"))
    }
}

fn device(folder: &tempfile::TempDir, id: &str) -> config::Device {
    let link = LinkEndpoint::Unix { path: socket(folder, id) };
    config::Device {
        id: id.parse().expect("an id"),
        link,
        channels: vec![ChannelId(1)],
        mtu: 256,
        options: Options::default(),
    }
}

fn socket(folder: &tempfile::TempDir, place: &str) -> std::path::PathBuf {
    folder.path().join(format!("{place}.sock"))
}
