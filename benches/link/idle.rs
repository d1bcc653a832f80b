//! What an idle device costs the gateway: its end of the link, and all that the pump of a serial port holds, counted by
//! the allocator, with 64 devices on pseudo-terminals.

use std::time::Duration;

use cap::Cap;
use fieldgate::downstream::{Downstream, Entry, Event};
use fieldgate::limits::{DEVICE_COUNT_MAX, DEVICE_SEEN_COUNT, LINK_MTU_BYTES_MAX, PLAINTEXT_BYTES_MAX};
use fieldgate::link::device::{Device, Received};
use fieldgate::link::elastic::GatewayMemory;
use fieldgate::link::memory::DeviceMemory;
use fieldgate::link::{Config, Link, Role};
use fieldgate::time::Instant;
use fieldgate::transport::endpoint::LinkEndpoint;
use fieldgate::transport::stack::serial::Pty;
use fieldgate::transport::stack::{Ready, ready};
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, ToDevice, ToGateway};
use tokio::time::timeout;

use super::table::{Goal, Row, Table};

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const MTU: u16 = 256;
const BAUD: u32 = 115_200;
/// How long anything here may take.
const WAIT: Duration = Duration::from_secs(10);

/// A device of the bench, made before anything is counted.
struct Meter {
    id: DeviceId,
    pty: Pty,
    device: Box<Device<DeviceMemory<{ MTU as usize }, 4098, 0, 512>, DEVICE_SEEN_COUNT>>,
    input: [u8; 256],
}

pub fn measure(table: &mut Table) {
    table.section("idle");
    let link = size_of::<Link<GatewayMemory>>() as f64;
    table.row(Row::new("the gateway's end of a link", "B", link).goal(Goal::Most(1_024.0)).bound(1_024.0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let (attached, used) = runtime.expect("a runtime").block_on(async {
        let mut links = Downstream::new(tokio::time::Instant::now());
        let mut meters: Vec<Meter> = (0..DEVICE_COUNT_MAX).map(Meter::new).collect();
        let before = ALLOCATOR.allocated();
        let mut sessions = Vec::with_capacity(DEVICE_COUNT_MAX);
        for meter in &mut meters {
            sessions.push(meter.attach(&mut links).await);
        }
        let attached = per_device(before);
        for (meter, session) in meters.iter_mut().zip(sessions) {
            meter.push(&mut links, session).await;
        }
        (attached, per_device(before))
    });
    table.row(Row::new("a serial device, attached and idle", "B", attached).goal(Goal::Most(2_048.0)));
    table.row(Row::new("the same after a message of 3,993 octets", "B", used).goal(Goal::Most(2_048.0)));
}

fn per_device(before: usize) -> f64 {
    ALLOCATOR.allocated().saturating_sub(before) as f64 / DEVICE_COUNT_MAX as f64
}

impl Meter {
    fn new(number: usize) -> Self {
        let id: DeviceId = format!("meter-{number}").parse().expect("an id");
        let config = Config { role: Role::Device, boot_id: 1 + number as u32, mtu: MTU.into() };
        let device = Box::new(Device::new(id.clone(), config, Instant::ZERO));
        Self { id, pty: Pty::new(None).expect("a pseudo-terminal"), device, input: [0; 256] }
    }

    /// Attaches to a gateway that begins to serve this port; returns the session.
    async fn attach(&mut self, links: &mut Downstream) -> u32 {
        let endpoint = LinkEndpoint::Serial { path: self.pty.path().to_owned(), baud: BAUD };
        links.attach(Entry { device: self.id.clone(), endpoint, mtu: MTU }).expect("a place");
        loop {
            if let Event::Up { session, .. } = self.run_until_event(links).await {
                self.calm().await;
                return session;
            }
        }
    }

    /// Gets a message and acknowledges it.
    async fn push(&mut self, links: &mut Downstream, session: u32) {
        let body = &[7; PLAINTEXT_BYTES_MAX];
        let push = ToDevice::Push { message: MessageId([1; 8]), channel: ChannelId(1), age: Age::UNKNOWN, body };
        links.send(&self.id, session, &push).expect("room");
        loop {
            if let Event::Message { message: ToGateway::Ack { .. }, .. } = self.run_until_event(links).await {
                self.calm().await;
                return;
            }
        }
    }

    async fn run_until_event(&mut self, links: &mut Downstream) -> Event {
        let event = async {
            tokio::select! {
                event = links.next() => event,
                () = self.run() => unreachable!("a device runs for ever"),
            }
        };
        timeout(WAIT, event).await.expect("the gateway hears of the device")
    }

    /// Until both ends have nothing more to say.
    async fn calm(&mut self) {
        while timeout(Duration::from_millis(5), self.run()).await.is_ok() || !self.device.is_idle() {}
    }

    /// Its clock stands still: nothing is lost here.
    async fn run(&mut self) {
        loop {
            let mut frame = [0; LINK_MTU_BYTES_MAX];
            let bytes = self.device.poll_transmit(Instant::ZERO, &mut frame).unwrap_or(0);
            let mut output = &frame[..bytes];
            loop {
                match ready(self.pty.near(), &mut self.input, output).await {
                    Ready::Wrote(wrote) => output = &output[wrote.expect("the port is there")..],
                    Ready::Read(read) => self.hear(read.expect("the port is there")),
                }
                if output.is_empty() {
                    break;
                }
            }
        }
    }

    fn hear(&mut self, bytes: usize) {
        let mut octets = &self.input[..bytes];
        while !octets.is_empty() {
            let (taken, _) = self.device.feed(octets, Instant::ZERO);
            octets = &octets[taken..];
            while let Some(received) = self.device.poll_message() {
                if let Received::New(ToDevice::Push { message, .. }) = received {
                    self.device.accept(message);
                }
            }
        }
    }
}
