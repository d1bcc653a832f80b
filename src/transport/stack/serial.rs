//! Serial ports, and pseudo-terminals that stand in for them: raw, 8 data bits, no parity, 1 stop bit.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::ByteStream;
use crate::time::Duration;
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

/// Opens a port for this process alone.
///
/// # Errors
/// The port is not there, is in use, may not be opened, or refuses the settings.
pub fn open(path: &Path, baud: u32) -> io::Result<SerialStream> {
    let name = path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8"))?;
    let mut port = tokio_serial::new(name, baud).open_native_async()?;
    // Opening locks the file and sets the terminal exclusive. A process that is killed while another one holds the same
    // pseudo-terminal would leave it exclusive for ever; the lock alone keeps others out and ends with the process.
    port.set_exclusive(false)?;
    Ok(port)
}

impl ByteStream for SerialStream {
    /// Ten bits an octet, of those that the driver still holds. A pseudo-terminal holds none.
    fn busy_for(&self) -> Duration {
        let (held, baud) = (self.bytes_to_write().unwrap_or(0), self.baud_rate().unwrap_or(0));
        Duration::from_micros((u64::from(held) * 10_000_000).checked_div(baud.into()).unwrap_or(0))
    }
}

/// A pseudo-terminal: the near end is used like a port, the far end has a path that others open.
///
/// The far end is held open as well, so that the near end sees no hang-up when the other side closes it.
#[derive(Debug)]
pub struct Pty {
    near: SerialStream,
    _far: SerialStream,
    path: PathBuf,
    link: Option<PathBuf>,
}

impl Pty {
    /// Makes a pair; `link` becomes a symbolic link to its far end and replaces an earlier one.
    ///
    /// # Errors
    /// No pseudo-terminal is left, or `link` exists and is no symbolic link, or cannot be made.
    pub fn new(link: Option<&Path>) -> io::Result<Self> {
        let (near, far) = SerialStream::pair()?;
        let path = far.name().map(PathBuf::from).ok_or_else(|| io::Error::other("the pseudo-terminal has no name"))?;
        if let Some(link) = link {
            replace_symlink(&path, link)?;
        }
        Ok(Self { near, _far: far, path, link: link.map(Path::to_owned) })
    }

    /// The path of the far end.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The near end.
    pub fn near(&mut self) -> &mut SerialStream {
        &mut self.near
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let Some(link) = &self.link else { return };
        let is_ours = fs::read_link(link).is_ok_and(|target| target == self.path);
        if is_ours && let Err(error) = fs::remove_file(link) {
            tracing::debug!(link = %link.display(), %error, "cannot remove the link to a pseudo-terminal");
        }
    }
}

/// Puts the link in place by renaming, so that a reader of `link` sees the old target or the new one.
fn replace_symlink(target: &Path, link: &Path) -> io::Result<()> {
    match fs::symlink_metadata(link) {
        Ok(found) if !found.is_symlink() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no symbolic link"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut fresh = link.as_os_str().to_owned();
    fresh.push(".new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    symlink(target, &fresh)?;
    fs::rename(&fresh, link)
}
