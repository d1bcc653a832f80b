//! `fieldgate service`.

use super::Outcome;

/// Arguments of `fieldgate service`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// None yet.
pub fn run(_args: Args) -> Outcome {
    Ok(())
}
