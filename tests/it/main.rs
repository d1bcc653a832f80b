//! Integration tests: one module a scenario, one binary, so that the crate is linked once.

#[path = "../common/application_server.rs"]
mod application_server;
#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/device.rs"]
mod device;
#[path = "../common/flash.rs"]
mod flash;
#[path = "../common/places.rs"]
mod places;
#[path = "../common/push_service.rs"]
mod push_service;
#[path = "../common/relay.rs"]
mod relay;
#[path = "../common/tls_records.rs"]
mod tls_records;

mod alternatives;
mod announce;
mod announce_kill;
mod board_files;
mod command_line;
mod config_commands;
mod config_text;
mod device_process;

mod damage;
mod disk_faults;
mod downgrade;
mod end_to_end_content;
mod flash_faults;
mod flash_wear;
mod flood;
mod foreign_service;
mod fuzz_corpus;
mod hostile_link;
mod hotplug;
mod http2_messages;
mod http_faults;
mod identity;
mod kill;
mod kill_matrix;
mod link_faults;
mod link_ports;
mod link_pump;
mod link_tools;
mod link_walks;
mod long_life;
mod membership;
mod message_lengths;
mod moving;
mod no_clock;
mod preferences;
mod process;
mod raw_stage;
mod reload;
mod rig;
mod secrets;
mod service_manager;
mod simulate_process;
mod simulation;
mod store_log;
mod store_writer;
mod tls_on_the_wire;
mod trust_faults;
mod urgency;
mod vapid;
mod walks;
mod withdrawing;

#[path = "../common/raw_push_service.rs"]
mod raw_push_service;
#[path = "../common/raw_user_agent.rs"]
mod raw_user_agent;
#[path = "../common/service.rs"]
mod service;

mod service_agents;
mod service_alternative;
mod service_config;
mod service_kill;
mod service_push;
mod service_receipts;
mod service_requests;
mod service_rules;
mod service_state;
