//! A passphrase: from a terminal that does not show it, or from a file of its owner; never from the command line, which
//! every process may read.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::Failure;
use crate::limits::{PASSPHRASE_BYTES_MAX, PASSPHRASE_CHARACTERS_MIN};
use crate::store::file::OTHERS;

const TERMINAL: &str = "/dev/tty";
/// What ctrl-C sends.
const INTERRUPT: u8 = 3;

/// Where a passphrase comes from.
#[derive(clap::Args)]
pub struct Source {
    /// Take the passphrase from a file with mode 0600, instead of the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// A passphrase.
pub type Passphrase = Zeroizing<String>;

impl Source {
    /// One that something was made with.
    ///
    /// # Errors
    /// There is neither terminal nor file, or it cannot be used.
    pub fn known(&self) -> Result<Passphrase, Failure> {
        match &self.passphrase_file {
            Some(path) => read_file(path),
            None => Terminal::open()?.ask("Passphrase: "),
        }
    }

    /// One that something is to be made with: at a terminal it is typed twice.
    ///
    /// # Errors
    /// As [`Source::known`]; it is too short, or was not typed twice alike.
    pub fn chosen(&self) -> Result<Passphrase, Failure> {
        let passphrase = match &self.passphrase_file {
            Some(path) => read_file(path)?,
            None => {
                let mut terminal = Terminal::open()?;
                let passphrase = terminal.ask("New passphrase: ")?;
                check_length(&passphrase)?;
                if *terminal.ask("The same again: ")? != *passphrase {
                    return Err(Failure::usage("these were two different passphrases; try again"));
                }
                passphrase
            }
        };
        check_length(&passphrase)?;
        Ok(passphrase)
    }
}

fn check_length(passphrase: &str) -> Result<(), Failure> {
    if passphrase.chars().count() < PASSPHRASE_CHARACTERS_MIN {
        return Err(Failure::usage(format_args!(
            "a passphrase has {PASSPHRASE_CHARACTERS_MIN} characters at least: whoever finds the file can try as many as \
             they like; take four random words"
        )));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Passphrase, Failure> {
    let place = path.display();
    let unreadable = |error: io::Error| {
        Failure::usage(format_args!("--passphrase-file: {place} cannot be read: {error}; let this user read it"))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(Failure::usage(format_args!(
            "--passphrase-file: {place} has mode {mode:04o} and holds a secret; run: chmod 600 {place}"
        )));
    }
    let line = read_line(&mut file, |_| Ok(())).map_err(unreadable)?;
    let mut rest = [0];
    if file.read(&mut rest).map_err(unreadable)? > 0 {
        return Err(Failure::usage(format_args!(
            "--passphrase-file: {place} holds more than one line of {PASSPHRASE_BYTES_MAX} octets"
        )));
    }
    text(line).map_err(|problem| Failure::usage(format_args!("--passphrase-file: {place}: {problem}")))
}

/// Reads up to the end of the line, which does not belong to it; one octet at a time, so that nothing stays behind in a
/// buffer.
fn read_line(source: &mut File, mut seen: impl FnMut(u8) -> io::Result<()>) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 1));
    let mut octet = Zeroizing::new([0]);
    while line.len() <= PASSPHRASE_BYTES_MAX {
        match source.read(&mut *octet) {
            Ok(0) => break,
            Ok(_) if octet[0] == b'\n' => break,
            Ok(_) => {
                seen(octet[0])?;
                line.push(octet[0]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn text(mut line: Zeroizing<Vec<u8>>) -> Result<Passphrase, &'static str> {
    if line.is_empty() {
        return Err("there is no passphrase");
    }
    if line.len() > PASSPHRASE_BYTES_MAX {
        return Err("the passphrase is too long");
    }
    String::from_utf8(std::mem::take(&mut *line)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        "the passphrase is not UTF-8"
    })
}

/// The terminal of this process, which shows nothing until this is dropped.
struct Terminal {
    terminal: File,
    before: Termios,
}

impl Terminal {
    fn open() -> Result<Self, Failure> {
        let terminal = OpenOptions::new().read(true).write(true).open(TERMINAL).map_err(|_| {
            Failure::usage("there is no terminal to ask for the passphrase; name a file with --passphrase-file")
        })?;
        let before = tcgetattr(&terminal).map_err(|error| unusable(&error.into()))?;
        let mut silent = before.clone();
        // An interrupt would end the process and leave the terminal like this: it ends the line instead.
        silent.local_flags -= LocalFlags::ECHO | LocalFlags::ISIG;
        silent.local_flags |= LocalFlags::ECHONL | LocalFlags::ICANON;
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(|error| unusable(&error.into()))?;
        Ok(Self { terminal, before })
    }

    fn ask(&mut self, prompt: &str) -> Result<Passphrase, Failure> {
        self.terminal.write_all(prompt.as_bytes()).map_err(|error| unusable(&error))?;
        let interrupted = |octet| if octet == INTERRUPT { Err(ErrorKind::Interrupted.into()) } else { Ok(()) };
        let line = read_line(&mut self.terminal, interrupted).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => Failure::failed("interrupted; nothing was changed"),
            _ => unusable(&error),
        })?;
        text(line).map_err(Failure::usage)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without its terminal there is nobody who would notice.
        tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before).ok();
    }
}

fn unusable(error: &io::Error) -> Failure {
    Failure::failed(format_args!("the terminal: {error}; name a file with --passphrase-file"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<Passphrase, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("passphrase");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        let source = Source { passphrase_file: Some(path) };
        assert!(source.known().is_err() || source.chosen().is_ok() || content.len() < 16);
        source.known().map_err(|failure| failure.message)
    }

    #[test]
    fn a_passphrase_is_one_line_in_a_file_of_its_owner() {
        for end in ["", "\n", "\r\n"] {
            let content = format!(" four random words {end}");
            assert_eq!(read(content.as_bytes(), 0o600).expect("a passphrase").as_str(), " four random words ");
        }
        assert!(read(b"four random words", 0o400).is_ok());
        for mode in [0o640, 0o604] {
            let refused = read(b"four random words", mode).expect_err("others may read it");
            assert!(refused.contains(&format!("{mode:04o}")) && refused.contains("chmod 600"), "{refused}");
        }
        for wrong in [&b""[..], b"\n", b"one\ntwo", b"four random words\n\n", b"caf\xe9 and other words"] {
            assert!(read(wrong, 0o600).is_err(), "{wrong:?}");
        }
        let longest = vec![b'x'; PASSPHRASE_BYTES_MAX];
        assert!(read(&longest, 0o600).is_ok() && read(&[&longest[..], b"\n"].concat(), 0o600).is_ok());
        assert!(read(&[&longest[..], b"x"].concat(), 0o600).is_err());
    }

    #[test]
    fn a_passphrase_to_be_is_not_short() {
        let shortest = "ü".repeat(PASSPHRASE_CHARACTERS_MIN);
        assert!(check_length(&shortest).is_ok());
        let refused = check_length(&shortest[2..]).expect_err("too short").message;
        assert!(refused.contains("12 characters") && !refused.contains('ü'), "{refused}");
    }
}
