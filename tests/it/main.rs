//! Integration tests: one module a scenario, one binary, so that the crate is linked once.

#[path = "../common/raw_user_agent.rs"]
mod raw_user_agent;
#[path = "../common/service.rs"]
mod service;

mod service_push;
mod service_requests;
mod service_state;
