//! `fieldgate link`: tools for the line between a gateway and a device.
//!
//! They use the frames of [`wire`](crate::wire) and hold no session of their own.

mod decode;
mod ear;
mod figures;
mod measure;
mod monitor;
mod place;
mod probe;
mod reassembly;
mod show;
mod tap;

use clap::Subcommand;

use super::Outcome;

/// Arguments of `fieldgate link`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate link probe serial:/dev/ttyUSB0\n  \
    fieldgate link probe 'serial:/dev/ttyUSB0?baud=115200' --json\n  \
    fieldgate link monitor 'serial:/dev/ttyUSB1?baud=115200'\n  \
    fieldgate link monitor - < captured.bin\n  \
    fieldgate link monitor --between pty:/tmp/meter-7 'serial:/dev/ttyUSB0?baud=115200'")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Find a line's speed, and measure how well and how fast frames pass
    Probe(probe::Args),
    /// Show the frames and messages on a line
    Monitor(monitor::Args),
}

/// Runs the command.
///
/// # Errors
/// The line cannot be used, nothing answers, or standard output is closed.
pub fn run(args: Args) -> Outcome {
    match args.action {
        Action::Probe(args) => probe::run(args),
        Action::Monitor(args) => monitor::run(args),
    }
}
