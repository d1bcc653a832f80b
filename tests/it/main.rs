//! Integration tests: one module a scenario, one binary, so that the crate is linked once.

#[path = "../common/flash.rs"]
mod flash;

mod config_commands;
mod config_text;
mod store_log;
mod store_writer;
