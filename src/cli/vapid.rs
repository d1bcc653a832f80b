//! `fieldgate vapid`: the key by which an application server identifies itself.

use std::path::PathBuf;

use super::{Failure, Outcome, say};
use crate::sender::signer::Signer;

/// Arguments of `fieldgate vapid`.
#[derive(clap::Args)]
#[command(
    after_help = "Prints the public key: the application_server_key of the devices that it alone may send to.\n\n\
    Examples:\n  \
    fieldgate vapid --new vapid.pem\n  \
    fieldgate send --to meter-7.json --ttl 3600 --vapid vapid.pem 'open valve 3'"
)]
pub struct Args {
    /// Make the key first; one that is there stays
    #[arg(long)]
    new: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// File with the private key, in PEM (PKCS#8)
    #[arg(value_name = "KEYFILE")]
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The key cannot be made or read.
pub fn run(args: Args) -> Outcome {
    if args.new {
        Signer::create(&args.file).map_err(Failure::failed)?;
    }
    let signer = Signer::read(&args.file, None).map_err(Failure::usage)?;
    let key = signer.key().as_str();
    if args.json { say(serde_json::json!({ "application_server_key": key })) } else { say(key) }
}
