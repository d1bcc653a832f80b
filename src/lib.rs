//! A field gateway for Web Push.
//!
//! The gateway keeps one HTTP/2 connection over TLS to a push service (RFC 8030), receives what the service pushes,
//! decrypts it (RFC 8291), relays it to small devices over serial and packet links, and acknowledges a message at the
//! service only when its device has acknowledged it.
//!
//! # Map
//!
//! ```text
//!              webpush service
//!                    |  HTTP/2 over TLS
//!   transport    upstream      one connection: performs Outputs, reports what happened
//!                    |
//!   proto         gateway --- store        the loop; proto decides, store remembers
//!                    |
//!   transport   downstream     one pump per device
//!                    |  frames
//!   wire, link    device                   the same code runs in firmware
//! ```
//!
//! - [`time`], [`limits`], [`wire`], [`link`] need neither heap nor operating system; with no features the crate is
//!   just these, and firmware depends on it.
//! - `webpush` and `proto` are pure: bytes, time and randomness are arguments, decisions are return values.
//! - `transport`, `upstream`, `downstream`, `store::file`, `gateway` and `service` are thin shells that perform what
//!   the pure parts decided.
//!
//! # Features
//!
//! `gateway` (default) brings the operating system and the binary; `service` (default) adds the push service, the
//! sender and the demonstration. A feature adds code and never changes what the rest does.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod limits;
pub mod link;
pub mod random;
pub mod time;
pub mod wire;

#[cfg(feature = "gateway")]
pub mod announce;
#[cfg(feature = "gateway")]
pub mod cli;
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod control;
#[cfg(feature = "gateway")]
pub mod downstream;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "gateway")]
pub mod kernel;
#[cfg(feature = "gateway")]
pub mod proto;
#[cfg(feature = "service")]
pub mod sender;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "gateway")]
pub mod store;
#[cfg(feature = "gateway")]
pub mod telemetry;
#[cfg(feature = "gateway")]
pub mod transport;
#[cfg(feature = "gateway")]
pub mod upstream;
#[cfg(feature = "gateway")]
pub mod webpush;
