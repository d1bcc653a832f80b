//! `fieldgate import`: the identity of a gateway from another board.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::passphrase::Source;
use super::{Failure, Outcome, check, say, state};
use crate::config::Config;
use crate::proto::record::Record;
use crate::store::export::{EXPORT_BYTES_MAX, Sealed};
use crate::store::file::FileFlash;
use crate::store::log::Log;
use crate::store::{Change, LogError};
use crate::webpush::resource::PushServiceUri;

/// Arguments of `fieldgate import`.
#[derive(clap::Args)]
#[command(
    after_help = "The gateway must be stopped, and so must the one whose identity this is. Copy the configuration of that one \
    first: a gateway ends the subscriptions of devices that it does not know.\n\n\
    Examples:\n  fieldgate import --from gateway.export && systemctl start fieldgate"
)]
pub struct Args {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE", default_value_os_t = check::config_file())]
    config: PathBuf,
    /// File that fieldgate export wrote
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    passphrase: Source,
    /// Forget what the gateway holds already; its own subscriptions stay at the push services
    #[arg(long)]
    replace: bool,
}

/// Runs the command. All of the state is there afterwards, or nothing was changed.
///
/// # Errors
/// The file or the passphrase cannot be used, the gateway runs, or it has a state already.
pub fn run(args: Args) -> Outcome {
    let config = check::load(&args.config)?;
    let unusable =
        |problem: &dyn std::fmt::Display| Failure::failed(format_args!("--from: {}: {problem}", args.from.display()));
    let octets = check::read_bounded(&args.from, EXPORT_BYTES_MAX)
        .map_err(|error| unusable(&format_args!("{error}; name a file that fieldgate export wrote")))?;
    let sealed = Sealed::parse(&octets).map_err(|error| unusable(&error))?;
    let passphrase = args.passphrase.known()?;
    let changes = sealed.open(passphrase.as_bytes()).map_err(|error| unusable(&error))?;
    check_configuration(&config, &changes)?;
    let mut log = state::open(&config.state)?;
    let folder = config.state.display();
    if !args.replace && log.facts().next().is_some() {
        return Err(Failure::failed(format_args!(
            "{folder} holds a state already; remove it with fieldgate reset --yes, or forget it with --replace"
        )));
    }
    let count = changes.len();
    take_over(&mut log, changes)
        .map_err(|error| Failure::failed(format_args!("{folder}: {error}; {}", outcome(error))))?;
    let are = if count == 1 { "record is" } else { "records are" };
    say(format_args!("{count} {are} in {folder}"))?;
    say("next: see that the other gateway is off, and start this one: fieldgate run, or systemctl start fieldgate")
}

/// What a failure leaves behind.
const fn outcome(error: LogError) -> &'static str {
    match error {
        // What a medium did not confirm it may have all the same, all of it or nothing.
        LogError::Flash(_) => {
            "import it again with --replace before a gateway starts: all of it may be there, or nothing"
        }
        LogError::Full | LogError::TooLarge | LogError::Version(_) => "nothing was changed",
    }
}

/// With one sync: a power loss leaves what was there, or all that is new.
fn take_over(log: &mut Log<FileFlash>, changes: Vec<Change>) -> Result<(), LogError> {
    let old: Vec<Change> = log.facts().map(|(key, _)| Change::remove(key)).collect();
    for change in old.into_iter().chain(changes) {
        log.append(vec![change])?;
    }
    log.sync()
}

/// A gateway ends the subscriptions of devices that it does not serve, and forgets those of push services that it does not
/// know: with another configuration the identity would be lost.
fn check_configuration(config: &Config, changes: &[Change]) -> Outcome {
    let configured = config.devices.iter().map(|device| device.id.as_str().to_owned());
    let (mut served, mut subscribed) = (BTreeSet::from_iter(configured), BTreeSet::new());
    let known = config.push_services().filter_map(|service| PushServiceUri::new(&service.url).ok());
    let known = BTreeSet::from_iter(known.map(|service| service.authority().to_owned()));
    let (mut used, mut is_readable) = (BTreeSet::new(), true);
    for change in changes {
        let Change::Put { key, value } = change else { continue };
        match Record::decode(key, value) {
            Ok(Record::Device(device)) => drop(served.insert(device.id.as_str().to_owned())),
            Ok(Record::Subscription(stored)) if !stored.leaving => {
                used.insert(stored.via.unwrap_or_else(|| stored.granted.read.authority().to_owned()));
                subscribed.insert(stored.device.as_str().to_owned());
            }
            Ok(_) => {}
            Err(_) => is_readable = false,
        }
    }
    refuse_lacking("push services", "forget", &used, &known)?;
    // Where not everything can be read, nothing is ended for want of a device.
    if is_readable { refuse_lacking("devices", "end", &subscribed, &served) } else { Ok(()) }
}

fn refuse_lacking(what: &str, fate: &str, needed: &BTreeSet<String>, there: &BTreeSet<String>) -> Outcome {
    let missing: Vec<&str> = needed.difference(there).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format_args!(
        "the configuration lacks {what} that have subscriptions, which the gateway would {fate}: {}; copy the configuration of \
         the other board, or add them",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STORE_LIVE_BYTES_MAX;
    use crate::store::log::Capacity;

    /// As much as a state can be takes the place of as much, and a fact more is refused: then everything is as it was.
    #[test]
    fn the_largest_state_takes_the_place_of_another_one() {
        const BYTES: usize = 4_096;
        const COUNT: usize = STORE_LIVE_BYTES_MAX / BYTES;
        // A fact takes seven octets beside its key and its value.
        let state = |kind: u8| -> Vec<Change> {
            (0..COUNT as u16)
                .map(|n| Change::put(&[&[kind][..], &n.to_be_bytes()].concat(), &[kind; BYTES - 10]))
                .collect()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let open =
            || Log::open(FileFlash::open(folder.path()).expect("it is ours"), Capacity::default()).expect("it opens").0;
        let kinds = |log: &Log<FileFlash>| log.facts().map(|(key, _)| key[0]).collect::<Vec<_>>();
        let mut log = open();
        take_over(&mut log, state(1)).expect("it fits");
        take_over(&mut log, state(2)).expect("it takes its place");
        let too_large = [state(3), vec![Change::put(b"\xff", b"")]].concat();
        assert_eq!(take_over(&mut log, too_large), Err(LogError::Full));
        assert_eq!(kinds(&log), [2; COUNT]);
        drop(log);
        assert_eq!(kinds(&open()), [2; COUNT]);
    }
}
