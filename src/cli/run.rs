//! `fieldgate run`: the gateway.

use std::path::PathBuf;

use super::{Failure, Outcome, block_on, check, terminated};
use crate::gateway::{self, StartError};

/// Arguments of `fieldgate run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  fieldgate run --config /etc/fieldgate/fieldgate.toml")]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = check::CONFIG_FILE)]
    config: PathBuf,
}

/// Runs the gateway until it is told to end.
///
/// # Errors
/// The configuration is wrong, or something it names cannot be used.
pub fn run(args: Args) -> Outcome {
    let config = check::load(&args.config)?;
    let devices = config.devices.len();
    let service = config.push_service.url.authority().map(ToString::to_string).unwrap_or_default();
    block_on(async move {
        let ready = || {
            tracing::info!(devices, %service, "ready");
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::debug!("the service manager was not told: {error}");
            }
        };
        gateway::run(config, ready, terminated()?).await.map_err(|error| match error {
            StartError::Service(_) | StartError::Trust(_) => Failure::usage(error),
            StartError::Store(_) | StartError::Control(..) => Failure::failed(error),
        })
    })
}
