//! What holds for octets from outside, whatever they are: one property a module, each a function `check`.
//!
//! The fuzz targets in `tests/fuzz` search for octets that break one; the test `fuzz_corpus` runs them over the octets
//! that were found worth keeping. Each property compares the crate with a second, simpler implementation of what its
//! documentation says, or with what was put in.

pub mod config;
pub mod ece;
pub mod export;
pub mod frames;
pub mod headers;
pub mod hello;
mod input;
pub mod line;
pub mod log;
mod memory;
pub mod record;
pub mod requests;
pub mod session;
pub mod streams;

/// A property of all octets.
pub type Check = fn(&[u8]);

/// Every property under the name of its target.
#[allow(dead_code, reason = "the fuzz targets name theirs")]
pub const ALL: &[(&str, Check)] = &[
    ("config", config::check),
    ("ece", ece::check),
    ("export", export::check),
    ("frames", frames::check),
    ("headers", headers::check),
    ("hello", hello::check),
    ("log", log::check),
    ("record", record::check),
    ("requests", requests::check),
    ("session", session::check),
    ("streams", streams::check),
];
