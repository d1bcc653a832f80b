//! `fieldgate simulate`.

use super::Outcome;

/// Arguments of `fieldgate simulate`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// None yet.
pub fn run(_args: Args) -> Outcome {
    Ok(())
}
