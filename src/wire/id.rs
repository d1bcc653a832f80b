//! The identifiers that travel on a link.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Octets of the longest device id.
pub const DEVICE_ID_BYTES_MAX: usize = 32;

/// The name of a device: 1 to 32 characters of `A-Z a-z 0-9 . _ -`.
///
/// Layout: as text on the wire, length first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "heapless::String<DEVICE_ID_BYTES_MAX>", into = "heapless::String<DEVICE_ID_BYTES_MAX>")]
pub struct DeviceId(heapless::String<DEVICE_ID_BYTES_MAX>);

/// The text is no device id: empty, too long, or with a character outside the alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDeviceId;

impl DeviceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDeviceId;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceId> {
        heapless::String::from_str(text).map_err(|_| InvalidDeviceId).and_then(Self::try_from)
    }
}

impl TryFrom<heapless::String<DEVICE_ID_BYTES_MAX>> for DeviceId {
    type Error = InvalidDeviceId;

    fn try_from(text: heapless::String<DEVICE_ID_BYTES_MAX>) -> Result<Self, InvalidDeviceId> {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-');
        if text.is_empty() || !text.bytes().all(allowed) { Err(InvalidDeviceId) } else { Ok(Self(text)) }
    }
}

impl From<DeviceId> for heapless::String<DEVICE_ID_BYTES_MAX> {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for InvalidDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a device id is 1 to {DEVICE_ID_BYTES_MAX} characters of A-Z a-z 0-9 . _ -")
    }
}

impl core::error::Error for InvalidDeviceId {}

/// A device's own label for one of its subscriptions, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Whether it is the label of a subscription: 0 stands for the device itself.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a push message, the same each time it is delivered.
///
/// Layout: the first 8 octets of SHA-256 over the length of the message URI (2 octets, big endian), its text, and the
/// body as received.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 8]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_are_short_and_of_one_alphabet() {
        for good in ["a", "meter-7", "A.b_9", "x".repeat(32).as_str()] {
            assert_eq!(good.parse::<DeviceId>().map(|id| id.as_str().len()), Ok(good.len()));
        }
        for bad in ["", "a b", "ä", "a/b", "x".repeat(33).as_str()] {
            assert_eq!(bad.parse::<DeviceId>(), Err(InvalidDeviceId));
        }
    }
}
