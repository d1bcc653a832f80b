//! To be written.

pub mod cobs;
pub mod frame;
mod id;
pub mod message;

pub use id::{ChannelId, DEVICE_ID_BYTES_MAX, DeviceId, InvalidDeviceId, MessageId};
pub use message::{Refusal, ToDevice, ToGateway};

/// The version that this crate speaks. Version 0 is a draft: its octets may change until version 1 is frozen.
pub const VERSION: u8 = 0;
