//! `fieldgate time`: what a running gateway knows of the time.

use clap::Subcommand;
use serde_json::Value;

use super::control::Socket;
use super::{Outcome, say};
use crate::control::Request;

/// Arguments of `fieldgate time`.
#[derive(clap::Args)]
#[command(
    after_help = "Without a synchronised clock certificates are judged at the latest of three times: when the program was \
    built, the stored time, and since when they are valid. Their chain, their name and their end are checked always.\n\n\
    Examples:\n  fieldgate time\n  fieldgate time --json | jq .synchronised\n  fieldgate time reset"
)]
pub struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Forget the stored time: it was learned from a push service whose clock was wrong
    Reset,
}

/// Runs the command.
///
/// # Errors
/// The gateway cannot be asked.
pub fn run(args: Args) -> Outcome {
    let request = match args.action {
        None => Request::Time,
        Some(Action::Reset) => Request::TimeReset,
    };
    let time = args.socket.ask(&request)?;
    if args.json {
        return say(time);
    }
    let is_synchronised = time["synchronised"] == true;
    let kernel = if is_synchronised { "synchronised" } else { "not synchronised" };
    say(format_args!("kernel        {} ({kernel})", date(&time["kernel"])))?;
    let boot = match time["stored_in_this_boot"].as_bool() {
        Some(true) => " (learned in this boot)",
        Some(false) => " (learned in an earlier boot)",
        None => "",
    };
    say(format_args!("stored        {}{boot}", date(&time["stored"])))?;
    say(format_args!("built         {}", date(&time["built"])))?;
    let how = if is_synchronised { "by the clock" } else { "or since when they are valid, if that is later" };
    say(format_args!("certificates  are judged at {}, {how}", date(&time["certificates"])))
}

/// A time as a person reads it.
pub(super) fn date(time: &Value) -> &str {
    time["date"].as_str().unwrap_or("not known")
}
