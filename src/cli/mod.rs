//! The command line: one file a subcommand, each an `Args` and a `run`.
//!
//! Exit codes: 0 done; 1 it failed, the reason is on standard error; 2 the command line or the configuration is wrong.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod check;
pub mod init;
#[cfg(feature = "service")]
pub mod service;
pub mod simulate;

/// Why a command ended without success: what is printed, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the process, never 0.
    pub code: u8,
    /// One or more lines for a person: what is wrong, where, and what to do.
    pub message: String,
}

impl Failure {
    /// The work failed (exit code 1).
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// The command line or the configuration is wrong (exit code 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }
}

/// What every subcommand returns.
pub type Outcome = Result<(), Failure>;

#[derive(Parser)]
#[command(name = "fieldgate", version, about = "A field gateway for Web Push", propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a configuration to start from
    Init(init::Args),
    /// Say what is wrong with a configuration
    Check(check::Args),
    /// Run the push service
    #[cfg(feature = "service")]
    Service(service::Args),
    /// Be a device at the far end of a link
    Simulate(simulate::Args),
}

/// Parses the command line, runs the command, prints its failure.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        #[cfg(feature = "service")]
        Command::Service(args) => service::run(args),
        Command::Simulate(args) => simulate::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fieldgate: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a future on a fresh single-threaded runtime, on which tasks need not be `Send`.
///
/// # Errors
/// What the future returns, or that the operating system refused a runtime.
pub fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build_local(Default::default())
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    runtime.block_on(future)
}
