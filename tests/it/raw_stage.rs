//! A gateway with a device, at a push service that writes single frames.

use fieldgate::random::SeededRandom;
use fieldgate::webpush::ece;
use fieldgate::webpush::subscription::PushSubscription;
use fieldgate::wire::{MessageId, ToGateway};
use tokio::net::UnixStream;

use crate::device::ScriptedDevice;
use crate::raw_push_service::{Connection, GOOD_HEAD, RawPushService, Seen};
use crate::rig::Rig;

const PROTOCOL_ERROR: u32 = 1;
/// The gateway ends a connection.
const END: Seen = Seen::GoAway { code: PROTOCOL_ERROR };

/// Everything of it. The gateway knows another device, `d2`, that is not there.
pub struct Stage {
    pub service: RawPushService,
    pub connection: Connection,
    pub rig: Rig,
    pub device: ScriptedDevice<UnixStream>,
    pub subscription: PushSubscription,
    pub random: SeededRandom,
}

impl Stage {
    pub async fn set() -> Self {
        let service = RawPushService::start().await;
        let mut rig = Rig::with_service_at(&service.url, &service.ca_file);
        rig.config.devices.push(rig.device("d2"));
        rig.start_gateway();
        let mut connection = service.accept().await;
        connection.serve_until(Connection::is_monitored).await;
        let subscription = connection.serve(rig.subscription(1)).await;
        let device = connection.serve(rig.attach(7)).await;
        Self { service, connection, rig, device, subscription, random: SeededRandom::new(1) }
    }

    pub fn encrypted(&mut self, text: &str) -> Vec<u8> {
        encrypted(&self.subscription, text, &mut self.random)
    }

    /// Pushes a message, which gets to the device and is acknowledged.
    pub async fn deliver(&mut self, path: &str, text: &str) {
        let body = self.encrypted(text);
        self.connection.push(&self.subscription.endpoint, path, &GOOD_HEAD, &body).await;
        is_delivered(&mut self.connection, &mut self.device, text).await;
    }

    /// The device acknowledges a message, and the gateway does.
    pub async fn acknowledge(&mut self, message: MessageId) {
        acknowledge(&mut self.connection, &mut self.device, message).await;
    }

    /// A push ended as an error of its stream or of the connection; the next one is delivered, if need be on another
    /// connection, and nothing but it is acknowledged.
    pub async fn is_refused(&mut self, name: &str, stream: u32) {
        let reset = Seen::Reset { stream, code: PROTOCOL_ERROR };
        let deletes = self.connection.count(Seen::Delete);
        let refused = self.connection.serve_until(|it| it.count(reset) + it.count(END) > 0);
        self.device.tend(refused).await;
        assert_eq!(self.connection.count(Seen::Delete), deletes, "{name}");
        if self.connection.count(END) > 0 {
            self.connection = self.device.tend(self.service.accept()).await;
            self.device.tend(self.connection.serve_until(Connection::is_monitored)).await;
        }
        self.deliver(&format!("/good/{stream}"), name).await;
    }

    /// A push ended as an error of its stream; the next one is delivered, and nothing but it is acknowledged.
    pub async fn is_reset(&mut self, name: &str, stream: u32) {
        let reset = Seen::Reset { stream, code: PROTOCOL_ERROR };
        let deletes = self.connection.count(Seen::Delete);
        self.deliver(&format!("/good/{stream}"), name).await;
        assert_eq!(self.connection.count(reset), 1, "{name}: {:?}", self.connection.seen);
        assert_eq!(self.connection.count(Seen::Delete), deletes + 1, "{name}");
    }
}

pub fn encrypted(to: &PushSubscription, text: &str, random: &mut SeededRandom) -> Vec<u8> {
    ece::encode(&to.public, &to.auth, text.as_bytes(), 0, random).expect("it fits")
}

/// The next message at the device is this one, and its acknowledgement comes to the service.
pub async fn is_delivered(connection: &mut Connection, device: &mut ScriptedDevice<UnixStream>, text: &str) {
    let message = connection.serve(device.hear_push(text)).await;
    acknowledge(connection, device, message).await;
}

async fn acknowledge(connection: &mut Connection, device: &mut ScriptedDevice<UnixStream>, message: MessageId) {
    let before = connection.count(Seen::Delete);
    device.say(&ToGateway::Ack { message }).await;
    device.tend(connection.serve_until(|connection| connection.count(Seen::Delete) > before)).await;
}
