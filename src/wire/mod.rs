//! To be written.

mod id;

pub use id::{ChannelId, DEVICE_ID_BYTES_MAX, DeviceId, InvalidDeviceId, MessageId};
