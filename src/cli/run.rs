//! `fieldgate run`: the gateway.

use std::path::PathBuf;

use super::manager::Manager;
use super::{Failure, Outcome, block_on, check};
use crate::gateway::{self, StartError};

/// Arguments of `fieldgate run`.
#[derive(clap::Args)]
#[command(after_help = "SIGHUP makes it read its configuration again.\n\n\
    Examples:\n  fieldgate run --config /etc/fieldgate/fieldgate.toml")]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value_os_t = check::config_file())]
    config: PathBuf,
}

/// Runs the gateway until it is told to end.
///
/// # Errors
/// The configuration is wrong, or something it names cannot be used.
pub fn run(args: Args) -> Outcome {
    let config = check::load(&args.config)?;
    block_on(async move {
        gateway::run(config, Manager::new(args.config.clone())?).await.map_err(|error| {
            let message = format!("{}: {error}", check::place(&args.config, error.key()));
            match error {
                StartError::PushService { .. } => Failure::usage(message),
                StartError::Store(_) | StartError::Control(..) => Failure::failed(message),
            }
        })
    })
}
