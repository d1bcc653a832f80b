//! The command line: one file a subcommand, each an `Args` and a `run`.
//!
//! Exit codes: 0 done; 1 it failed, the reason is on standard error; 2 the command line or the configuration is wrong.

use std::fmt;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::SignalKind;
use tracing::level_filters::LevelFilter;

use crate::telemetry;

pub mod check;
pub mod control;
#[cfg(feature = "service")]
pub mod demo;
pub mod device;
pub mod export;
pub mod import;
pub mod init;
pub mod link;
pub mod manager;
pub mod passphrase;
pub mod reset;
pub mod run;
#[cfg(feature = "service")]
pub mod send;
#[cfg(feature = "service")]
pub mod service;
pub mod simulate;
pub mod state;
pub mod status;
pub mod time;
#[cfg(feature = "service")]
pub mod vapid;

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
    /// Show the whole path on this machine: service, gateway, devices and sender
    #[cfg(feature = "service")]
    Demo(demo::Args),
    /// Write a configuration to start from
    Init(init::Args),
    /// Say what is wrong with a configuration
    Check(check::Args),
    /// Run the gateway
    Run(run::Args),
    /// Add, list, show and remove the devices of a running gateway
    Device(device::Args),
    /// Show what a running gateway does
    Status(status::Args),
    /// Show the connections of a running gateway
    #[command(after_help = "Examples:\n  fieldgate connections\n  fieldgate connections --json")]
    Connections(status::Args),
    /// Show what a running gateway knows of the time, and at which one it judges certificates
    Time(time::Args),
    /// Remove everything, at the push services and on flash
    Reset(reset::Args),
    /// Write the identity of a gateway to a file, to move it to another board
    Export(export::Args),
    /// Take up the identity of a gateway from another board
    Import(import::Args),
    /// Measure a line between gateway and device, and show what passes on it
    Link(link::Args),
    /// Be a device at the far end of a link
    Simulate(simulate::Args),
    /// Run a push service
    #[cfg(feature = "service")]
    Service(service::Args),
    /// Send one message as an application server does
    #[cfg(feature = "service")]
    Send(send::Args),
    /// Make or show the key by which an application server identifies itself
    #[cfg(feature = "service")]
    Vapid(vapid::Args),
}

/// Parses the command line, runs the command, prints its failure.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = telemetry::init(command.log_level()).map_err(Failure::usage).and_then(|()| run(command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(format_args!("fieldgate: {}", failure.message));
            ExitCode::from(failure.code)
        }
    }
}

/// Prints a line on standard output.
///
/// # Errors
/// Standard output is closed or full: whoever reads it must not take a part for the whole.
pub fn say(line: impl fmt::Display) -> Outcome {
    write_out(&format!("{line}\n")).map_err(|error| Failure::failed(format_args!("standard output: {error}")))
}

/// Writes a text to standard output and has it leave the process.
///
/// # Errors
/// Standard output is closed or full.
fn write_out(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Prints a line on standard error. Where that is closed or full, there is nowhere left to say so.
fn complain(line: impl fmt::Display) {
    io::stderr().write_all(format!("{line}\n").as_bytes()).ok();
}

impl Command {
    /// What is worth a line: a process that runs for months says what it does, a command only what is wrong.
    fn log_level(&self) -> LevelFilter {
        match self {
            Self::Run(_) => LevelFilter::INFO,
            #[cfg(feature = "service")]
            Self::Service(_) => LevelFilter::INFO,
            _ => LevelFilter::WARN,
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        #[cfg(feature = "service")]
        Command::Demo(args) => demo::run(args),
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Run(args) => run::run(args),
        Command::Device(args) => device::run(args),
        Command::Status(args) => status::run(args),
        Command::Connections(args) => status::connections(args),
        Command::Time(args) => time::run(args),
        Command::Reset(args) => reset::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Link(args) => link::run(args),
        Command::Simulate(args) => simulate::run(args),
        #[cfg(feature = "service")]
        Command::Service(args) => service::run(args),
        #[cfg(feature = "service")]
        Command::Send(args) => send::run(args),
        #[cfg(feature = "service")]
        Command::Vapid(args) => vapid::run(args),
    }
}

/// Waits for SIGTERM or SIGINT; from now on they no longer end the process by themselves.
///
/// # Errors
/// The operating system refused the handlers.
pub fn terminated() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = manager::handle(SignalKind::terminate())?;
    let mut interrupt = manager::handle(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Runs a future on a fresh single-threaded runtime, on which tasks need not be `Send`.
///
/// # Errors
/// What the future returns, or that the operating system refused a runtime.
pub fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // What the store's thread woke goes on together, and so does what that wakes: answers and pushes of one commit leave
        // in few records.
        .global_queue_interval(1)
        .max_blocking_threads(2)
        .build_local(Default::default())
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    runtime.block_on(future)
}
