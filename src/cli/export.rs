//! `fieldgate export`: the identity of a gateway in one file, for another board.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::passphrase::Source;
use super::{Failure, Outcome, check, say, state};
use crate::proto::record::Record;
use crate::random::SystemRandom;
use crate::store::export::{self, Cost};
use crate::store::file;

const FILE_MODE: u32 = 0o600;

/// Arguments of `fieldgate export`.
#[derive(clap::Args)]
#[command(
    after_help = "The gateway must be stopped: while it runs, what was exported would be out of date at once. Messages wait \
    at the push service meanwhile.\n\nThe file holds all subscriptions with their keys, encrypted. Whoever has it and its \
    passphrase can read what is sent to the devices. Of two gateways with one identity only one may run.\n\n\
    Examples:\n  systemctl stop fieldgate\n  fieldgate export --to gateway.export\n  \
    fieldgate export --to gateway.export --passphrase-file /root/passphrase"
)]
pub struct Args {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE", default_value_os_t = check::config_file())]
    config: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    passphrase: Source,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// The file exists, the gateway runs, there is nothing to export, or the file system says no.
pub fn run(args: Args) -> Outcome {
    let folder = check::load(&args.config)?.state;
    if !args.force && args.to.symlink_metadata().is_ok() {
        return Err(exists(&args.to));
    }
    let nothing = || {
        let folder = folder.display();
        Failure::failed(format_args!(
            "{folder} holds nothing to export; name the configuration of the gateway with --config"
        ))
    };
    if !file::is_state(&folder) {
        return Err(nothing());
    }
    let log = state::open(&folder)?;
    let facts = || log.facts().filter(|(key, _)| Record::is_of_identity(key));
    let count = facts().count();
    if count == 0 {
        return Err(nothing());
    }
    let passphrase = args.passphrase.chosen()?;
    let octets = export::seal(facts(), passphrase.as_bytes(), Cost::default(), &mut SystemRandom::default())
        .map_err(Failure::failed)?;
    write(&args.to, &octets, args.force)?;
    let file = args.to.display();
    let records = if count == 1 { "record" } else { "records" };
    say(format_args!("wrote {file}: {count} {records}"))?;
    say(format_args!("next: on the other board, with the same configuration, run: fieldgate import --from {file}"))?;
    say("do not start this gateway again once the other one has it: two with one identity displace each other")
}

fn exists(path: &Path) -> Failure {
    Failure::failed(format_args!("{} exists; overwrite it with --force, or name another with --to", path.display()))
}

/// Writes the whole file or nothing, for its owner alone: beside its place first, and only what is safe goes there.
fn write(path: &Path, octets: &[u8], replace: bool) -> Outcome {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists if !replace => exists(path),
        _ => Failure::failed(format_args!("cannot write {}: {error}; name another file with --to", path.display())),
    };
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(".new");
    let written = write_beside(&beside, octets).and_then(|()| put_in_place(&beside, path, replace));
    // It is gone when all went well.
    fs::remove_file(&beside).ok();
    written.map_err(failed)
}

fn write_beside(path: &Path, octets: &[u8]) -> io::Result<()> {
    // What an earlier attempt left may be open to others, or lead elsewhere.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

fn put_in_place(beside: &Path, path: &Path, replace: bool) -> io::Result<()> {
    if replace {
        fs::rename(beside, path)?;
    } else {
        // A second name, unlike a new one, takes the place of nothing.
        match fs::hard_link(beside, path) {
            Ok(()) => fs::remove_file(beside)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
            // A file system without second names, as those on memory sticks.
            Err(_) if path.symlink_metadata().is_ok() => return Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(beside, path)?,
        }
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    file::sync_folder(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_as_a_whole_and_over_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, beside) = (folder.path().join("x"), folder.path().join("x.new"));
        // What lies there is not used, wherever it leads and whoever may read it.
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &beside).expect("made");
        write(&path, b"first", false).expect("written");
        assert_eq!(file::mode(&path).expect("it is there"), 0o600);
        let refused = write(&path, b"second", false).expect_err("it is there").message;
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(fs::read(&path).expect("readable"), b"first");
        write(&path, b"second", true).expect("written");
        assert_eq!(fs::read(&path).expect("readable"), b"second");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing else is left");
        let refused = write(&folder.path().join("no/where"), b"x", false).expect_err("no folder").message;
        assert!(refused.contains("--to"), "{refused}");
    }
}
