//! Integration tests: one module a scenario, one binary, so that the crate is linked once.

#[path = "../common/device.rs"]
mod device;
#[path = "../common/flash.rs"]
mod flash;

mod config_commands;
mod config_text;

mod kill;
mod link_ports;
mod link_pump;
mod process;
mod simulate_process;
mod store_log;
mod store_writer;
