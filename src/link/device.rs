//! The device's part above the link: it attaches, removes copies, and acknowledges what the application has.
//!
//! Firmware may use it as it is. It keeps the rules of the module doc of [`wire`](crate::wire): Attach comes first in
//! each session, a copy of a message is dropped and acknowledged again, and the device ack is sent only for what the
//! application said it has.
//!
//! ```text
//!   feed -> Event::Message -> poll_message() -> New: the application keeps it -> accept(id) -> Ack
//!                                            -> Copy ------------------------------------> Ack again
//! ```

use heapless::Deque;

use crate::limits::LINK_MESSAGE_BYTES_MAX;
use crate::time::Instant;
use crate::wire::message::{Profile, TO_GATEWAY_BYTES_MAX};
use crate::wire::{ChannelId, DeviceId, MessageId, Refusal, ToDevice, ToGateway};

use super::memory::{Memory, Storage};
use super::{Config, FrameCounts, Link, SendError, Stream};

/// What happened at the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is open and Attach is on its way.
    Up {
        /// Octets of the largest frame that is sent in this session.
        mtu: usize,
    },
    /// The session is over; the next one is being opened.
    Down,
    /// Something arrived: [`Device::poll_message`].
    Message,
    /// The gateway speaks this version only.
    VersionRefused(u8),
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Something new.
    New(ToDevice<'a>),
    /// A copy of a message that the application has; it is acknowledged again.
    Copy(MessageId),
}

/// A message that the application has.
struct Seen {
    message: MessageId,
    ack_due: bool,
}

/// A device: a [`Link`] and the ids of the last `SEEN` messages.
///
/// Layout: the link, and 9 octets a remembered id.
pub struct Device<M: Memory, const SEEN: usize> {
    link: Link<M>,
    id: DeviceId,
    keeps_over_reset: bool,
    seen: Deque<Seen, SEEN>,
    /// The stream of the message that was handed out last.
    handed_out: Option<Stream>,
}

impl<M: Memory, const SEEN: usize> Device<M, SEEN> {
    /// A device that has seen nothing yet. With fewer than [`DEVICE_SEEN_COUNT`](crate::limits::DEVICE_SEEN_COUNT) ids, fewer messages are in flight to it.
    pub fn new(id: DeviceId, config: Config, now: Instant) -> Self {
        const { assert!(SEEN > 0 && <M::Send as Storage>::BYTES_MAX > TO_GATEWAY_BYTES_MAX) };
        Self { link: Link::new(config, now), id, keeps_over_reset: false, seen: Deque::new(), handed_out: None }
    }

    /// The ids survive a reset of this device: what it [remembers](Self::remember) at its start, it kept.
    pub fn keep_over_reset(&mut self) {
        self.keeps_over_reset = true;
    }

    /// Remembers a message that the application had before this start.
    pub fn remember(&mut self, message: MessageId) {
        self.keep(Seen { message, ack_due: false });
    }

    /// Takes octets up to the end of one frame; see [`Link::feed`].
    pub fn feed(&mut self, octets: &[u8], now: Instant) -> (usize, Option<Event>) {
        let (taken, event) = self.link.feed(octets, now);
        (taken, event.and_then(|event| self.take_event(event)))
    }

    /// The next thing that arrived, until there is none. The one before it is not needed any more.
    ///
    /// Whoever does not ask is sent no more than its window holds.
    pub fn poll_message(&mut self) -> Option<Received<'_>> {
        if let Some(stream) = self.handed_out.take() {
            self.link.release(stream);
        }
        loop {
            let (stream, octets) = self.link.message()?;
            match ToDevice::parse(octets) {
                Ok(ToDevice::Push { message, .. }) if acknowledge_again(&mut self.seen, message) => {
                    self.link.release(stream);
                    return Some(Received::Copy(message));
                }
                Ok(_) => {
                    self.handed_out = Some(stream);
                    break;
                }
                // Nothing of this version: the length said where the next one begins.
                Err(_) => self.link.release(stream),
            }
        }
        let (_, octets) = self.link.message()?;
        ToDevice::parse(octets).ok().map(Received::New)
    }

    /// The application has this message for good: it is remembered and its device ack is sent.
    pub fn accept(&mut self, message: MessageId) {
        self.keep(Seen { message, ack_due: true });
    }

    /// Says something to the gateway, behind the device acks of all that was accepted before: none of them may follow a
    /// [`Sleep`](ToGateway::Sleep).
    ///
    /// # Errors
    /// See [`SendError`]. A message comes again if nothing was said about it.
    pub fn send(&mut self, message: &ToGateway) -> Result<(), SendError> {
        self.send_acks();
        if self.link.message_bytes_max().is_some() && self.seen.iter().any(|seen| seen.ack_due) {
            return Err(SendError::Full);
        }
        self.send_now(message)
    }

    fn send_now(&mut self, message: &ToGateway) -> Result<(), SendError> {
        let mut out = [0; TO_GATEWAY_BYTES_MAX];
        let bytes = message.emit(&mut out).expect("the buffer holds the largest message to a gateway");
        self.link.send(&out[..bytes])
    }

    /// The application has no use for this message.
    ///
    /// # Errors
    /// See [`send`](Self::send).
    pub fn refuse(&mut self, message: MessageId, reason: Refusal) -> Result<(), SendError> {
        self.send(&ToGateway::Refuse { message, reason })
    }

    /// Asks for a subscription.
    ///
    /// # Errors
    /// See [`send`](Self::send).
    pub fn subscribe(&mut self, channel: ChannelId) -> Result<(), SendError> {
        self.send(&ToGateway::Subscribe { channel })
    }

    /// Gives a subscription up.
    ///
    /// # Errors
    /// See [`send`](Self::send).
    pub fn unsubscribe(&mut self, channel: ChannelId) -> Result<(), SendError> {
        self.send(&ToGateway::Unsubscribe { channel })
    }

    /// Writes the frame that is due; see [`Link::poll_transmit`].
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.send_acks();
        self.link.poll_transmit(now, out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// Lets timers run out. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        self.link.handle_timeout(now).and_then(|event| self.take_event(event))
    }

    /// Whether the link of the gateway has everything that this session has to say, or no session is open.
    pub fn is_idle(&self) -> bool {
        self.link.message_bytes_max().is_none() || (self.link.is_idle() && !self.seen.iter().any(|seen| seen.ack_due))
    }

    /// Frames since the device was made.
    pub fn counts(&self) -> FrameCounts {
        self.link.counts()
    }

    fn take_event(&mut self, event: super::Event) -> Option<Event> {
        match event {
            super::Event::Opened { mtu, .. } => {
                self.handed_out = None;
                let attach = ToGateway::Attach { device: self.id.clone(), profile: self.profile() };
                self.send_now(&attach)
                    .expect("a session begins with room, and HELLO of a gateway with less was dropped");
                Some(Event::Up { mtu })
            }
            super::Event::Restarted | super::Event::Silent | super::Event::Broken => {
                self.handed_out = None;
                Some(Event::Down)
            }
            super::Event::VersionRefused(version) => Some(Event::VersionRefused(version)),
            super::Event::Message => Some(Event::Message),
            // Whoever probes asks its own link.
            super::Event::ProbeAnswered(_) => None,
        }
    }

    fn profile(&self) -> Profile {
        let window = <M::Receive as Storage>::BYTES_MAX;
        // Buffers are smaller than 32768 octets.
        Profile {
            message_bytes_max: (window - 2).min(LINK_MESSAGE_BYTES_MAX) as u16,
            urgent_window: <M::ReceiveUrgent as Storage>::BYTES_MAX as u16,
            memory: SEEN.min(u16::MAX.into()) as u16,
            traits: if self.keeps_over_reset { Profile::KEEPS_OVER_RESET } else { 0 },
        }
    }

    fn keep(&mut self, seen: Seen) {
        if self.seen.is_full() {
            self.seen.pop_front();
        }
        if self.seen.push_back(seen).is_err() {
            unreachable!("one was taken out if it was full");
        }
    }

    fn send_acks(&mut self) {
        for seen in self.seen.iter_mut().filter(|seen| seen.ack_due) {
            let mut out = [0; TO_GATEWAY_BYTES_MAX];
            let ack = ToGateway::Ack { message: seen.message };
            let bytes = ack.emit(&mut out).expect("the buffer holds the largest message to a gateway");
            if self.link.send(&out[..bytes]).is_err() {
                return;
            }
            seen.ack_due = false;
        }
    }
}

/// Whether the application has this message; if so its device ack is due again.
fn acknowledge_again<const SEEN: usize>(seen: &mut Deque<Seen, SEEN>, message: MessageId) -> bool {
    seen.iter_mut().find(|seen| seen.message == message).map(|seen| seen.ack_due = true).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DEVICE_SEEN_COUNT, LINK_MTU_BYTES_MAX};
    use crate::link::Role;
    use crate::link::elastic::GatewayMemory;
    use crate::link::memory::DeviceMemory;
    use crate::wire::message::Age;
    use std::vec::Vec;

    type Gateway = Link<GatewayMemory>;
    type TestDevice = Device<DeviceMemory<64, 512, 0, 256>, DEVICE_SEEN_COUNT>;

    const NOW: Instant = Instant::ZERO;
    const CHANNEL: ChannelId = ChannelId(1);

    #[test]
    fn attach_is_the_first_message_of_each_session() {
        let (mut device, mut gateway) = pair();
        assert!(device.subscribe(CHANNEL).is_err(), "not before a session is open");
        let (events, heard) = run(&mut device, &mut gateway);
        assert_eq!((events, heard), (Vec::from([Event::Up { mtu: 64 }]), Vec::from([attach()])));

        device.subscribe(CHANNEL).expect("room");
        let mut restarted = Gateway::new(Config { role: Role::Gateway, boot_id: 9, mtu: 64 }, NOW);
        let (events, heard) = run(&mut device, &mut restarted);
        assert_eq!(events, [Event::Down, Event::Up { mtu: 64 }]);
        assert_eq!(heard, [attach()], "what was asked in another session is not asked here");
    }

    /// A-UA-25: nothing is acknowledged before the application has it. A-UA-26: a copy is dropped and acknowledged
    /// again.
    #[test]
    fn a_ua_26_a_copy_is_dropped_and_acknowledged_again() {
        let (mut device, mut gateway) = pair();
        run(&mut device, &mut gateway);
        push(&mut gateway, 1);
        assert_eq!(run(&mut device, &mut gateway), ([Event::Message].into(), [].into()));
        let Some(Received::New(ToDevice::Push { message, channel: CHANNEL, body: b"hello", .. })) =
            device.poll_message()
        else {
            panic!("a push")
        };
        device.accept(message);
        assert_eq!(run(&mut device, &mut gateway).1, [ack(1)]);
        for _ in 0..3 {
            push(&mut gateway, 1);
            run(&mut device, &mut gateway);
            assert_eq!(device.poll_message(), Some(Received::Copy(id(1))));
            assert_eq!(run(&mut device, &mut gateway).1, [ack(1)]);
        }
    }

    #[test]
    fn a_message_remembered_from_before_is_a_copy() {
        let (mut device, mut gateway) = pair();
        device.remember(id(1));
        assert_eq!(run(&mut device, &mut gateway).1, [attach()], "it is not acknowledged by itself");
        push(&mut gateway, 1);
        run(&mut device, &mut gateway);
        assert_eq!(device.poll_message(), Some(Received::Copy(id(1))));
        assert_eq!(run(&mut device, &mut gateway).1, [ack(1)]);
    }

    #[test]
    fn as_many_ids_are_remembered_as_stated_and_the_oldest_goes_first() {
        let (mut device, mut gateway) = pair();
        (0..=DEVICE_SEEN_COUNT as u8).for_each(|number| device.remember(id(number)));
        run(&mut device, &mut gateway);
        push(&mut gateway, 1);
        push(&mut gateway, 0);
        run(&mut device, &mut gateway);
        assert_eq!(device.poll_message(), Some(Received::Copy(id(1))));
        assert!(matches!(device.poll_message(), Some(Received::New(_))));
        assert_eq!(device.poll_message(), None);
    }

    #[test]
    fn device_acks_that_find_no_room_are_sent_later() {
        let (mut device, mut gateway) = pair();
        run(&mut device, &mut gateway);
        while device.unsubscribe(CHANNEL).is_ok() {}
        device.accept(id(7));
        let (_, heard) = run(&mut device, &mut gateway);
        assert_eq!(heard.last(), Some(&ack(7)));
    }

    /// What is accepted before the device falls asleep does not wake it at the gateway.
    #[test]
    fn device_acks_go_before_what_is_said_behind_them() {
        let (mut device, mut gateway) = pair();
        device.accept(id(1));
        let (_, heard) = run(&mut device, &mut gateway);
        assert_eq!(heard, [attach(), ack(1)], "nothing goes before Attach");
        let sleep = ToGateway::Sleep { seconds: 600 };
        device.accept(id(2));
        device.send(&sleep).expect("room");
        assert_eq!(run(&mut device, &mut gateway).1, [ack(2), sleep.clone()]);
        while device.unsubscribe(CHANNEL).is_ok() {}
        device.accept(id(3));
        assert_eq!(device.send(&sleep), Err(SendError::Full), "no room for both");
        assert_eq!(run(&mut device, &mut gateway).1.last(), Some(&ack(3)));
    }

    #[test]
    fn what_is_no_message_is_dropped() {
        let (mut device, mut gateway) = pair();
        run(&mut device, &mut gateway);
        gateway.send(&[0xee, 1, 2]).expect("room");
        push(&mut gateway, 2);
        run(&mut device, &mut gateway);
        assert!(
            matches!(device.poll_message(), Some(Received::New(ToDevice::Push { message, .. })) if message == id(2))
        );
        assert_eq!(device.poll_message(), None);
    }

    /// A HELLO of a gateway whose window has no room for every Attach opens nothing.
    #[test]
    fn a_gateway_without_room_for_an_attach_is_none() {
        use crate::wire::frame::{Frame, Hello};
        let name = "d23456789-123456789-123456789-12";
        let mut device =
            TestDevice::new(name.parse().expect("an id"), Config { role: Role::Device, boot_id: 1, mtu: 64 }, NOW);
        let mut out = [0; LINK_MTU_BYTES_MAX];
        for (window, is_up) in [(34, false), (63, false), (64, true)] {
            let hello = Hello { ask: false, boot_id: 2, echo: 1, mtu: 64, window };
            let bytes = Frame::Hello(hello).emit(Role::Gateway, None, &mut out).expect("it fits");
            let (_, event) = device.feed(&out[..bytes], NOW);
            assert_eq!(matches!(event, Some(Event::Up { .. })), is_up, "{window}");
        }
    }

    /// "Random, or a counter kept over power loss", and "add 1 to my boot id" when a session is left.
    #[test]
    fn a_counter_that_counts_starts_is_a_good_boot_id() {
        let (mut device, mut gateway) = pair();
        run(&mut device, &mut gateway);
        // The gateway restarts once: the device adds 1 to its boot id, as it must, and both agree on a session.
        gateway = Gateway::new(Config { role: Role::Gateway, boot_id: 9, mtu: 64 }, NOW);
        run(&mut device, &mut gateway);
        device.subscribe(CHANNEL).expect("room");
        run(&mut device, &mut gateway);
        // The device is reset, and counts its starts.
        let config = Config { role: Role::Device, boot_id: 2, mtu: 64 };
        let mut device = TestDevice::new("d".parse().expect("an id"), config, NOW);
        let (_, heard) = run(&mut device, &mut gateway);
        assert_eq!(heard, [attach()], "the gateway learns that the device was reset");
        device.subscribe(CHANNEL).expect("room");
        let (_, heard) = run(&mut device, &mut gateway);
        assert_eq!(heard, [ToGateway::Subscribe { channel: CHANNEL }]);
    }

    fn pair() -> (TestDevice, Gateway) {
        let device =
            TestDevice::new("d".parse().expect("an id"), Config { role: Role::Device, boot_id: 1, mtu: 64 }, NOW);
        (device, Gateway::new(Config { role: Role::Gateway, boot_id: 2, mtu: 256 }, NOW))
    }

    fn id(number: u8) -> MessageId {
        MessageId([number; 8])
    }

    fn attach() -> ToGateway {
        let profile = Profile { message_bytes_max: 510, urgent_window: 0, memory: DEVICE_SEEN_COUNT as u16, traits: 0 };
        ToGateway::Attach { device: "d".parse().expect("an id"), profile }
    }

    fn ack(number: u8) -> ToGateway {
        ToGateway::Ack { message: id(number) }
    }

    fn push(gateway: &mut Gateway, number: u8) {
        let mut out = [0; 64];
        let push = ToDevice::Push { message: id(number), channel: CHANNEL, age: Age::UNKNOWN, body: b"hello" };
        let bytes = push.emit(&mut out).expect("it fits");
        gateway.send(&out[..bytes]).expect("room");
    }

    /// Carries frames until both are quiet; returns what the device reported and what the gateway heard.
    fn run(device: &mut TestDevice, gateway: &mut Gateway) -> (Vec<Event>, Vec<ToGateway>) {
        let (mut events, mut heard, mut out) = (Vec::new(), Vec::new(), [0; LINK_MTU_BYTES_MAX]);
        loop {
            let mut quiet = true;
            while let Some(bytes) = device.poll_transmit(NOW, &mut out) {
                quiet = false;
                gateway.feed(&out[..bytes], NOW);
                while let Some((stream, message)) = gateway.message() {
                    heard.push(ToGateway::parse(message).expect("a message"));
                    gateway.release(stream);
                }
            }
            while let Some(bytes) = gateway.poll_transmit(NOW, &mut out) {
                quiet = false;
                events.extend(device.feed(&out[..bytes], NOW).1);
            }
            if quiet {
                return (events, heard);
            }
        }
    }
}
