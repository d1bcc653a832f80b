//! Integration tests: one module a scenario, one binary, so that the crate is linked once.

#[path = "../common/device.rs"]
mod device;
#[path = "../common/flash.rs"]
mod flash;

mod link_pump;
mod store_log;
mod store_writer;
