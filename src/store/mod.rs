//! The facts that outlive power.

pub mod flash;
pub mod log;

mod block;
mod replay;
