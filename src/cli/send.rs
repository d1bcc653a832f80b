//! `fieldgate send`: sends one message as an application server does.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, stdin};
use std::path::{Path, PathBuf};

use super::{Failure, Outcome, block_on, complain, say};
use crate::limits::{PLAINTEXT_BYTES_MAX, SUBSCRIPTION_FILE_BYTES_MAX};
use crate::sender::signer::{Contact, Signer};
use crate::sender::{SendError, Sender};
use crate::store::file::{OTHERS, mode};
use crate::transport::properties::Trust;
use crate::webpush::exchange::PostError;
use crate::webpush::headers::{Ttl, Urgency};
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
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = ttl)]
    ttl: u64,
    /// Certification authority of the push service, in PEM; the system's if none is named
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Lists in PEM of certificates that are not to be trusted any more
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Pad the message to a multiple of so many octets, to hide its length
    #[arg(long, value_name = "OCTETS", value_parser = class)]
    pad: Option<usize>,
    /// File with the private key by which the sender identifies itself, made with: fieldgate vapid --new
    #[arg(long, value_name = "KEYFILE")]
    vapid: Option<PathBuf>,
    /// Where the operator of the push service reaches the sender's: mailto:… or https:…
    #[arg(long, value_name = "URI", requires = "vapid")]
    contact: Option<Contact>,
    /// How much it matters: very-low, low, normal or high; a device's gateway may ask for nothing below a level
    #[arg(long, value_name = "LEVEL", default_value_t = Urgency::default())]
    urgency: Urgency,
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
    let subscription = subscription(&args.to)?;
    let message = message(args.message)?;
    let signer = args.vapid.map(|file| Signer::read(&file, args.contact)).transpose();
    let signer = signer.map_err(|error| Failure::usage(format_args!("--vapid: {error}")))?;
    let trust = args.ca.map_or(Trust::System, Trust::File);
    block_on(async {
        let mut sender = Sender::with_revocations(&subscription, trust, args.crl).map_err(|error| {
            let option = if error.is_of_revocations() { "--crl" } else { "--ca" };
            Failure::usage(format_args!("{option}: {error}"))
        })?;
        sender.pad_to(args.pad.unwrap_or(0));
        sender.set_urgency(args.urgency);
        if let Some(signer) = signer {
            sender.identify_by(signer);
        }
        let sent = sender.send(&subscription, &message, Ttl::from_secs(args.ttl)).await.map_err(|error| {
            let again = match &error {
                SendError::Refused(PostError::Status(401)) => "; name the key of its application server with --vapid",
                SendError::Refused(PostError::Status(403)) => "; look at --vapid, and at the clock",
                _ if error.is_retryable() && !error.is_untrusted() => "; it may be sent again",
                _ => "",
            };
            Failure::failed(format_args!("not sent: {error}{again}"))
        })?;
        let keeps_for = sent.accepted.keeps_for.map_or(args.ttl, |keeps_for| keeps_for.as_secs());
        if args.json {
            say(serde_json::json!({ "accepted": true, "octets": message.len(), "keeps_for_s": keeps_for }))
        } else {
            say(format_args!("accepted {} octets, kept for up to {keeps_for} s", message.len()))
        }
    })
}

fn ttl(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a TTL is a whole number of seconds, such as 3600".to_owned())
}

fn class(text: &str) -> Result<usize, String> {
    let class = text.parse().ok().filter(|class| (1..=PLAINTEXT_BYTES_MAX).contains(class));
    class.ok_or_else(|| format!("a whole number of octets from 1 to {PLAINTEXT_BYTES_MAX}, such as 512"))
}

/// Reads the subscription to send to.
fn subscription(file: &Path) -> Result<PushSubscription, Failure> {
    const ADVICE: &str = "write the file with: fieldgate device show ID --json";
    // Whoever gives the subscription itself for the file must not see it again in a log.
    let name = file.to_string_lossy();
    let shown = if name.contains(['{', '"']) || name.contains("://") { "the argument" } else { &*name };
    let wrong = |error: &dyn fmt::Display| Failure::usage(format_args!("--to: {shown}: {error}; {ADVICE}"));
    let octets = read(&name, SUBSCRIPTION_FILE_BYTES_MAX).map_err(|error| wrong(&error))?;
    if name != "-" && mode(file).is_ok_and(|mode| mode & OTHERS != 0) {
        complain(format_args!("warning: --to: others may read {shown}, and it holds a secret; run: chmod 600 {shown}"));
    }
    let text = String::from_utf8(octets).map_err(|_| wrong(&"not text"))?;
    PushSubscription::from_json(&text).map_err(|error| wrong(&error))
}

/// The message that an argument stands for: itself, a file or standard input.
fn message(argument: String) -> Result<Vec<u8>, Failure> {
    let name = match argument.strip_prefix('@') {
        Some(file) => file,
        None if argument == "-" => "-",
        None => return Ok(argument.into_bytes()),
    };
    read(name, PLAINTEXT_BYTES_MAX).map_err(|error| {
        Failure::usage(format_args!("the message from {name}: {error}; it is TEXT, @FILE, or - for standard input"))
    })
}

/// Reads a file, or standard input for `-`, up to a bound.
fn read(name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let limit = bytes_max as u64 + 1;
    if name == "-" {
        stdin().lock().take(limit).read_to_end(&mut octets)?;
    } else {
        File::open(name)?.take(limit).read_to_end(&mut octets)?;
    }
    if octets.len() > bytes_max {
        return Err(io::Error::other(format!("more than {bytes_max} octets")));
    }
    Ok(octets)
}
