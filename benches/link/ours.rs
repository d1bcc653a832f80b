//! The link of the crate as an end.

use fieldgate::limits::{LINK_MESSAGE_BYTES_MAX, LINK_MTU_BYTES_MAX};
use fieldgate::link::elastic::GatewayMemory;
use fieldgate::link::memory::{DeviceMemory, Fixed, Memory};
use fieldgate::link::{Config, Event, Link, Role};
use fieldgate::time::Instant;
use fieldgate::wire::cobs::Deframer;

use super::application::Application;
use super::world::End;

/// A device with room for one of the largest messages.
pub type Device = DeviceMemory<LINK_MTU_BYTES_MAX, 4098, 0, 4098>;

/// As much as is of use, both ways: all numbers in flight with the largest frames.
pub struct Wide;

impl Memory for Wide {
    type Send = Fixed<20_000>;
    type SendUrgent = Fixed<0>;
    type Receive = Fixed<20_000>;
    type ReceiveUrgent = Fixed<0>;
    type Frame = Deframer<LINK_MTU_BYTES_MAX>;
}

/// A link and its application.
pub struct Ours<M: Memory> {
    link: Box<Link<M>>,
    application: Application,
    /// What there must be room for before a message is taken.
    room_min: usize,
    is_open: bool,
}

/// The gateway's end takes messages from its queue while there is room for the largest, as its pump does.
pub fn gateway(mtu: usize, application: Application) -> Ours<GatewayMemory> {
    Ours::new(Role::Gateway, mtu, application, LINK_MESSAGE_BYTES_MAX)
}

pub fn device(mtu: usize, application: Application) -> Ours<Device> {
    Ours::new(Role::Device, mtu, application, 0)
}

pub fn wide(role: Role, mtu: usize, application: Application) -> Ours<Wide> {
    Ours::new(role, mtu, application, LINK_MESSAGE_BYTES_MAX)
}

impl<M: Memory> Ours<M> {
    fn new(role: Role, mtu: usize, application: Application, room_min: usize) -> Self {
        let boot_id = if role == Role::Gateway { 0x1122_3344 } else { 0x5566_7788 };
        let link = Box::new(Link::new(Config { role, boot_id, mtu }, Instant::ZERO));
        Self { link, application, room_min, is_open: false }
    }

    fn note(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Opened { .. }) => self.is_open = true,
            Some(Event::Message) => {
                while let Some((stream, message)) = self.link.message() {
                    self.application.take(message);
                    self.link.release(stream);
                }
            }
            None => {}
            Some(event) => panic!("{event:?} on a line that only loses"),
        }
    }
}

impl<M: Memory> End for Ours<M> {
    fn application(&mut self) -> &mut Application {
        &mut self.application
    }

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        while self.is_open
            && self.link.room() >= self.room_min
            && let Some(message) = self.application.next()
            && self.link.send(message).is_ok()
        {
            self.application.sent();
        }
        self.link.poll_transmit(now, out)
    }

    fn receive(&mut self, mut octets: &[u8], now: Instant) {
        while !octets.is_empty() {
            let (taken, event) = self.link.feed(octets, now);
            octets = &octets[taken..];
            self.note(event);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let event = self.link.handle_timeout(now);
        self.note(event);
    }

    fn counts(&self) -> String {
        format!("{:?}", self.link.counts())
    }
}
