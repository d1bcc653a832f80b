//! To be written.

pub mod endpoint;
