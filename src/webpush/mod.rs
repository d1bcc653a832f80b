//! To be written.

pub mod headers;
pub mod link;
mod scan;
