//! `fieldgate send`: sends one message as an application server does.

use std::io::{Read as _, stdin};
use std::path::PathBuf;

use super::{Failure, Outcome, block_on};
use crate::limits::{PLAINTEXT_BYTES_MAX, SUBSCRIPTION_FILE_BYTES_MAX};
use crate::sender::Sender;
use crate::transport::properties::Trust;
use crate::webpush::headers::Ttl;
use crate::webpush::subscription::PushSubscription;

/// Arguments of `fieldgate send`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate send --to meter-7.json --ttl 3600 'open valve 3'\n  \
    fieldgate device show meter-7 --json | fieldgate send --to - --ttl 60 --ca ca.pem @config.bin")]
pub struct Args {
    /// File with the PushSubscription in JSON, or - for standard input; never an argument, since others see those
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Seconds for which the push service keeps the message for a device that is away
    #[arg(long, value_name = "SECONDS")]
    ttl: u64,
    /// Certification authority of the push service, in PEM; the system's if none is named
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The message: text, @FILE, or - for standard input
    #[arg(value_name = "TEXT|@FILE|-")]
    message: String,
}

/// Runs the command.
///
/// # Errors
/// The subscription or the message cannot be read, or the push service did not accept it.
pub fn run(args: Args) -> Outcome {
    if args.to.as_os_str() == "-" && args.message == "-" {
        return Err(Failure::usage("--to and the message cannot both come from standard input"));
    }
    let to = read(&args.to.to_string_lossy(), SUBSCRIPTION_FILE_BYTES_MAX)?;
    let to = String::from_utf8(to).map_err(|_| Failure::usage("--to: not text"))?;
    let subscription =
        PushSubscription::from_json(&to).map_err(|error| Failure::usage(format_args!("--to: {error}")))?;
    let message = match args.message.strip_prefix('@') {
        Some(file) => read(file, PLAINTEXT_BYTES_MAX)?,
        None if args.message == "-" => read("-", PLAINTEXT_BYTES_MAX)?,
        None => args.message.into_bytes(),
    };
    let trust = args.ca.map_or(Trust::System, Trust::File);
    block_on(async {
        let mut sender = Sender::new(&subscription, trust).map_err(Failure::usage)?;
        let sent = sender.send(&subscription, &message, Ttl::from_secs(args.ttl)).await.map_err(|error| {
            let again = match &error {
                _ if error.is_untrusted() => "; name the service's certification authority with --ca",
                _ if error.is_retryable() => "; it may be sent again",
                _ => "",
            };
            Failure::failed(format_args!("not sent: {error}{again}"))
        })?;
        let keeps_for = sent.accepted.keeps_for.map_or(args.ttl, |keeps_for| keeps_for.as_secs());
        if args.json {
            println!("{}", serde_json::json!({ "accepted": true, "octets": message.len(), "keeps_for_s": keeps_for }));
        } else {
            println!("accepted {} octets, kept for up to {keeps_for} s", message.len());
        }
        Ok(())
    })
}

/// Reads a file, or standard input for `-`, up to a bound.
fn read(name: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::usage(format_args!("{name}: {error}"));
    let mut octets = Vec::new();
    let limit = bytes_max as u64 + 1;
    if name == "-" {
        stdin().lock().take(limit).read_to_end(&mut octets).map_err(failed)?;
    } else {
        std::fs::File::open(name).map_err(failed)?.take(limit).read_to_end(&mut octets).map_err(failed)?;
    }
    if octets.len() > bytes_max {
        return Err(Failure::usage(format_args!("{name}: more than {bytes_max} octets")));
    }
    Ok(octets)
}
