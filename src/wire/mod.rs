//! The link protocol: every octet between a gateway and a device.
//!
//! This module parses and emits; [`link`](crate::link) is the machine of a session, [`device`](crate::link::device) a device.
//! Messages are postcard encodings of [`ToGateway`] and [`ToDevice`]. The numbers of the protocol are in
//! [`limits`](crate::limits). What follows is the page `boards/firmware/PROTOCOL.md`.
//!
#![doc = include_str!("../../boards/firmware/PROTOCOL.md")]

pub mod cobs;
pub mod frame;
mod id;
pub mod message;

pub use frame::Role;
pub use id::{ChannelId, DEVICE_ID_BYTES_MAX, DeviceId, InvalidDeviceId, MessageId};
pub use message::{Refusal, ToDevice, ToGateway};

/// The version that this crate speaks.
pub const VERSION: u8 = 1;
