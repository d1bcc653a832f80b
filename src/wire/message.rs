//! Messages: what gateway and device say to each other once a link is open.
//!
//! The encoding is postcard; its octets are written out in the parent module. New variants are added at the end only.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{ChannelId, DeviceId, MessageId};
use crate::limits::{GATEWAY_LINK_RX_BYTES, LINK_MESSAGE_BYTES_MAX, LINK_MESSAGE_BYTES_MIN, PLAINTEXT_BYTES_MAX};
use crate::time::Duration;

/// Octets of the largest [`ToGateway`]: an Attach with the longest device id and three numbers, and its traits.
pub const TO_GATEWAY_BYTES_MAX: usize = 1 + 1 + super::DEVICE_ID_BYTES_MAX + 3 * 3 + 1;
/// Octets that a Push adds to its body at most: tag, message id, channel, age, length.
pub const PUSH_OVERHEAD_BYTES_MAX: usize = 1 + 8 + 3 + 5 + 2;
/// Octets of an uncompressed P-256 public key.
pub const P256DH_BYTES: usize = 65;
/// Octets of an authentication secret.
pub const AUTH_BYTES: usize = 16;

// Five of the largest fit the window of the gateway, each behind its length.
const _: () = assert!(5 * (TO_GATEWAY_BYTES_MAX + 1) <= GATEWAY_LINK_RX_BYTES);
const _: () = assert!(PLAINTEXT_BYTES_MAX + PUSH_OVERHEAD_BYTES_MAX <= LINK_MESSAGE_BYTES_MAX);

/// What a gateway says to a device.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDevice<'a> {
    /// The answer to Attach and Ask, and the last word to a device that woke.
    Status {
        /// Whether the gateway reaches its push service.
        uplink: Uplink,
        /// Messages that wait for this device, 255 for that and more.
        waiting: u8,
        /// Milliseconds since 1970 in UTC; 0 if the gateway does not know it.
        time: u64,
    },
    /// A push message for one of the device's channels.
    Push {
        /// The same each time this message is delivered.
        message: MessageId,
        /// The channel it was pushed to.
        channel: ChannelId,
        /// How old it is.
        age: Age,
        /// The content, decrypted.
        body: &'a [u8],
    },
    /// The answer to Subscribe: where an application server pushes, and with which keys it encrypts.
    Subscribed {
        /// The channel that was asked for.
        channel: ChannelId,
        /// URI of the push resource.
        push: &'a str,
        /// Public key of the subscription, uncompressed: [`P256DH_BYTES`] octets.
        p256dh: &'a [u8],
        /// Authentication secret of the subscription: [`AUTH_BYTES`] octets.
        auth: &'a [u8],
    },
    /// The answer to Attach, Subscribe or Unsubscribe that could not be met.
    Refused {
        /// The channel that was asked for; 0 for Attach.
        channel: ChannelId,
        /// Why.
        reason: Refusal,
    },
    /// The answer to Unsubscribe, or word that a subscription ended.
    Unsubscribed {
        /// The channel without a subscription.
        channel: ChannelId,
    },
}

/// Without contents, keys and capabilities.
impl fmt::Debug for ToDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { uplink, waiting, .. } => write!(f, "Status({uplink:?}, {waiting} waiting)"),
            Self::Push { message, channel, body, .. } => write!(f, "Push({message}, {channel}, {} octets)", body.len()),
            Self::Subscribed { channel, .. } => write!(f, "Subscribed({channel})"),
            Self::Refused { channel, reason } => write!(f, "Refused({channel}, {reason})"),
            Self::Unsubscribed { channel } => write!(f, "Unsubscribed({channel})"),
        }
    }
}

/// What a device says to its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGateway {
    /// Who the device is: the first message of each session.
    Attach {
        /// The id of the device.
        device: DeviceId,
        /// What it is like.
        profile: Profile,
    },
    /// The device ack: the message reached its final recipient.
    Ack {
        /// The message.
        message: MessageId,
    },
    /// The device has no use for the message, now or ever.
    Refuse {
        /// The message.
        message: MessageId,
        /// Why.
        reason: Refusal,
    },
    /// Asks for a subscription.
    Subscribe {
        /// The device's own label for it.
        channel: ChannelId,
    },
    /// Gives a subscription up.
    Unsubscribe {
        /// The label.
        channel: ChannelId,
    },
    /// Asks for a new subscription in place of one.
    Rotate {
        /// The label.
        channel: ChannelId,
    },
    /// The device hears nothing until it speaks again.
    Sleep {
        /// For about how long, in seconds; 0 if it does not know.
        seconds: u32,
    },
    /// The device slept and hears again.
    Awake,
    /// Asks for a Status.
    Ask,
}

/// What a device says about itself when it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Octets of the largest message that it takes.
    pub message_bytes_max: u16,
    /// Octets of the window of its urgent stream; 0 if it wants none.
    pub urgent_window: u16,
    /// How many ids of messages it keeps.
    pub memory: u16,
    /// Bits; see [`KEEPS_OVER_RESET`](Self::KEEPS_OVER_RESET).
    pub traits: u8,
}

impl Profile {
    /// The trait of a device that keeps the ids over its own reset.
    pub const KEEPS_OVER_RESET: u8 = 0x01;

    /// Whether the ids survive a reset of the device.
    pub const fn keeps_over_reset(&self) -> bool {
        self.traits & Self::KEEPS_OVER_RESET != 0
    }
}

/// Whether the gateway reaches its push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Uplink {
    /// Not now; waiting helps.
    Down,
    /// Yes.
    Connected,
    /// Not until somebody looks after the gateway.
    NeedsPerson,
}

/// How long ago the application server sent a message, as far as it is known.
///
/// Layout: 0 for unknown, else one more than the seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age(u32);

impl Age {
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(0);

    /// In whole seconds.
    pub fn new(age: Option<Duration>) -> Self {
        Self(age.map_or(0, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX - 1).saturating_add(1)))
    }

    /// In seconds.
    pub fn seconds(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no room now; asking again later may help.
    Full,
    /// No device of this id belongs to this link.
    UnknownDevice,
    /// No such channel.
    UnknownChannel,
    /// It can never be done.
    NotPossible,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::UnknownDevice => "unknown device",
            Self::UnknownChannel => "unknown channel",
            Self::NotPossible => "not possible",
        })
    }
}

/// The octets are no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMessage;

/// The message is larger than the buffer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl<'a> ToDevice<'a> {
    /// Parses a message; its texts and octets stay borrowed.
    ///
    /// # Errors
    /// [`InvalidMessage`] for an unknown variant, a wrong length, a channel 0 that is none, or octets left over.
    pub fn parse(octets: &'a [u8]) -> Result<Self, InvalidMessage> {
        let message = parse(octets)?;
        let is_valid = match message {
            Self::Subscribed { channel, p256dh, auth, .. } => {
                channel.is_valid() && p256dh.len() == P256DH_BYTES && auth.len() == AUTH_BYTES
            }
            Self::Push { channel, .. } | Self::Unsubscribed { channel } => channel.is_valid(),
            Self::Refused { .. } | Self::Status { .. } => true,
        };
        if is_valid { Ok(message) } else { Err(InvalidMessage) }
    }

    /// Emits the message to the start of `out`; returns the octets written.
    ///
    /// # Errors
    /// [`TooLong`] when `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, TooLong> {
        emit(self, out)
    }
}

impl ToGateway {
    /// Parses a message.
    ///
    /// # Errors
    /// [`InvalidMessage`] for an unknown variant, a device id that is none, channel 0, a largest message below
    /// [`LINK_MESSAGE_BYTES_MIN`], or octets left over.
    pub fn parse(octets: &[u8]) -> Result<Self, InvalidMessage> {
        let message = parse(octets)?;
        let is_valid = match message {
            Self::Attach { profile, .. } => usize::from(profile.message_bytes_max) >= LINK_MESSAGE_BYTES_MIN,
            Self::Subscribe { channel } | Self::Unsubscribe { channel } | Self::Rotate { channel } => {
                channel.is_valid()
            }
            Self::Ack { .. } | Self::Refuse { .. } | Self::Sleep { .. } | Self::Awake | Self::Ask => true,
        };
        if is_valid { Ok(message) } else { Err(InvalidMessage) }
    }

    /// Emits the message to the start of `out`; returns the octets written.
    ///
    /// # Errors
    /// [`TooLong`] when `out` is too small; [`TO_GATEWAY_BYTES_MAX`] octets always suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, TooLong> {
        emit(self, out)
    }
}

fn parse<'a, M: Deserialize<'a>>(octets: &'a [u8]) -> Result<M, InvalidMessage> {
    match postcard::take_from_bytes(octets) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(InvalidMessage),
    }
}

fn emit<M: Serialize>(message: &M, out: &mut [u8]) -> Result<usize, TooLong> {
    postcard::to_slice(message, out).map(|written| written.len()).map_err(|_| TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn the_stated_bounds_are_reached_and_not_exceeded() {
        let device = "x".repeat(32).parse().expect("an id");
        let profile =
            Profile { message_bytes_max: u16::MAX, urgent_window: u16::MAX, memory: u16::MAX, traits: u8::MAX };
        let mut out = [0; TO_GATEWAY_BYTES_MAX];
        assert_eq!(ToGateway::Attach { device, profile }.emit(&mut out), Ok(TO_GATEWAY_BYTES_MAX));

        let body = vec![0; PLAINTEXT_BYTES_MAX];
        let push = ToDevice::Push {
            message: MessageId([0xff; 8]),
            channel: ChannelId(u16::MAX),
            age: Age::new(Some(Duration::MAX)),
            body: &body,
        };
        let mut out = vec![0; PLAINTEXT_BYTES_MAX + PUSH_OVERHEAD_BYTES_MAX];
        assert_eq!(push.emit(&mut out), Ok(out.len()));
        assert_eq!(push.emit(&mut out[1..]), Err(TooLong));
    }

    #[test]
    fn keys_of_another_length_and_octets_left_over_are_refused() {
        let (p256dh, auth) = ([4; P256DH_BYTES], [5; AUTH_BYTES]);
        let channel = ChannelId(1);
        let mut out = [0; 200];
        for (p256dh, auth, good) in
            [(&p256dh[..], &auth[..], true), (&p256dh[1..], &auth, false), (&p256dh, &auth[1..], false)]
        {
            let message = ToDevice::Subscribed { channel, push: "https://push.example/p", p256dh, auth };
            let bytes = message.emit(&mut out).expect("it fits");
            assert_eq!(ToDevice::parse(&out[..bytes]).is_ok(), good);
            assert_eq!(ToDevice::parse(&out[..bytes + 1]), Err(InvalidMessage));
        }
    }

    #[test]
    fn channel_0_is_no_channel() {
        let push = ToDevice::Push { message: MessageId([1; 8]), channel: ChannelId(0), age: Age::UNKNOWN, body: b"" };
        let (p256dh, auth) = ([4; P256DH_BYTES], [5; AUTH_BYTES]);
        let subscribed = ToDevice::Subscribed { channel: ChannelId(0), push: "/p", p256dh: &p256dh, auth: &auth };
        let mut out = [0; 200];
        for message in [push, subscribed, ToDevice::Unsubscribed { channel: ChannelId(0) }] {
            let bytes = message.emit(&mut out).expect("it fits");
            assert_eq!(ToDevice::parse(&out[..bytes]), Err(InvalidMessage));
        }
        for tag in [3, 4, 5] {
            assert_eq!(ToGateway::parse(&[tag, 0]), Err(InvalidMessage));
        }
        assert!(ToDevice::parse(&[3, 0, 1]).is_ok(), "the device itself is refused");
    }

    proptest! {
        /// C-66: arbitrary octets never panic.
        #[test]
        fn c_66_hostile_messages_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = [0; 200];
            if let Ok(message) = ToDevice::parse(&octets) {
                prop_assert!(message.emit(&mut out).is_ok());
            }
            if let Ok(message) = ToGateway::parse(&octets) {
                prop_assert!(message.emit(&mut out).is_ok());
            }
        }
    }
}
