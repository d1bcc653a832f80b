//! The journal of a simulated device: the lines of `--json` for what it received, each synced before the device ack.
//!
//! A torn last line, as a killed device or lost power leaves it, is dropped when the journal is opened. At
//! [`SIMULATE_JOURNAL_BYTES_MAX`] octets the newest half is kept: it is written beside and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::limits::SIMULATE_JOURNAL_BYTES_MAX;
use crate::wire::MessageId;

/// An open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    bytes: usize,
    bytes_max: usize,
}

impl Journal {
    /// Opens or creates the journal, readable by this user alone; returns the messages in it, oldest first.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<MessageId>)> {
        Self::open_bounded(path, SIMULATE_JOURNAL_BYTES_MAX)
    }

    fn open_bounded(path: &Path, bytes_max: usize) -> io::Result<(Self, Vec<MessageId>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() > 2 * bytes_max as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large for a journal of a device"));
        }
        let octets = fs::read(path)?;
        let (messages, bytes) = whole_lines(&octets);
        if bytes == 0 && !octets.is_empty() && octets.contains(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no journal of a device"));
        }
        file.set_len(bytes as u64)?;
        file.seek(SeekFrom::End(0))?;
        file.sync_all()?;
        sync_folder(path)?;
        Ok((Self { path: path.to_owned(), file, bytes, bytes_max }, messages))
    }

    /// Adds a line and waits until it is on the medium.
    pub fn append(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        if self.bytes + line.len() > self.bytes_max {
            self.compact()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.bytes += line.len();
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        let octets = fs::read(&self.path)?;
        let surplus = octets.len().saturating_sub(self.bytes_max / 2);
        let from =
            octets[surplus..].iter().position(|octet| *octet == b'\n').map_or(octets.len(), |at| surplus + at + 1);
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&octets[from..])?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        sync_folder(&self.path)?;
        (self.file, self.bytes) = (file, octets.len() - from);
        Ok(())
    }
}

/// The messages of all whole lines, and the octets up to the end of the last one.
fn whole_lines(octets: &[u8]) -> (Vec<MessageId>, usize) {
    let (mut messages, mut bytes, mut end) = (Vec::new(), 0, 0);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        end += line.len();
        if let Some(message) = line.strip_suffix(b"\n").and_then(message_of) {
            messages.push(message);
            bytes = end;
        }
    }
    (messages, bytes)
}

fn message_of(line: &[u8]) -> Option<MessageId> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let digits = value["message"].as_str().filter(|digits| digits.len() == 16 && digits.is_ascii())?;
    u64::from_str_radix(digits, 16).ok().map(|id| MessageId(id.to_be_bytes()))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_appended_is_there_after_opening_again_wherever_the_tail_was_torn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, known) = Journal::open(&path).expect("created");
        assert_eq!(known, []);
        for number in 1..=3 {
            journal.append(&line(number)).expect("appended");
        }
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let whole = fs::read(&path).expect("readable");
        let two = whole_lines(&whole).1 / 3 * 2;
        for end in two..=whole.len() {
            fs::write(&path, &whole[..end]).expect("torn");
            let (mut journal, known) = Journal::open(&path).expect("opened");
            assert_eq!(known.len(), if end == whole.len() { 3 } else { 2 }, "{end}");
            journal.append(&line(4)).expect("appended");
            let (_, known) = Journal::open(&path).expect("opened");
            assert_eq!(known.last(), Some(&id(4)));
        }
    }

    #[test]
    fn at_its_bound_the_newest_half_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open_bounded(&path, 1000).expect("created");
        for number in 0..500 {
            journal.append(&line(number)).expect("appended");
            assert!(fs::metadata(&path).expect("there").len() <= 1000);
        }
        let (_, known) = Journal::open_bounded(&path, 1000).expect("opened");
        assert!(known.len() >= 8, "{}", known.len());
        assert_eq!(known.last(), Some(&id(499)));
        assert!(known.is_sorted());
    }

    #[test]
    fn another_file_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes");
        fs::write(&path, "dear diary\nand so on\n").expect("written");
        assert!(Journal::open(&path).is_err());
        assert_eq!(fs::read(&path).expect("there"), b"dear diary\nand so on\n");
    }

    fn line(number: u64) -> Value {
        json!({ "event": "received", "message": id(number).to_string(), "text": "x" })
    }

    fn id(number: u64) -> MessageId {
        MessageId(number.to_be_bytes())
    }
}
