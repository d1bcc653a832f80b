//! The log's medium on an ordinary file system: a folder that one process owns, with two files of fixed length.
//!
//! ```text
//! state/            0700, made if missing
//!   lock            held while a process uses the folder
//!   log.a, log.b    0600, one region each
//!   log.a.damaged   0600, copy of a region in which damage was found; a person removes it
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::StoreError;
use super::flash::{Flash, FlashError, Region};
use crate::limits::STORE_BLOCK_BYTES;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The permission bits that must not be set: those of everybody but the owner.
pub const OTHERS: u32 = 0o077;

/// A state folder, locked.
#[derive(Debug)]
pub struct FileFlash {
    folder: PathBuf,
    regions: [RegionFile; 2],
    _lock: Lock,
}

/// The file of a region.
#[derive(Debug)]
struct RegionFile {
    path: PathBuf,
    file: File,
    /// The file system was read-only when it was opened.
    is_read_only: bool,
}

impl RegionFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let (file, is_read_only) = open_as_it_may(&path)?;
        Ok(Self { path, file, is_read_only })
    }

    /// The file for writing: it may be that by now.
    fn writable(&mut self) -> io::Result<&File> {
        if self.is_read_only {
            (self.file, self.is_read_only) = (open_private(&self.path)?, false);
        }
        Ok(&self.file)
    }
}

/// A lock on a file. When the process ends, however it does, the kernel takes it away.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// A child that is being started has a copy of the open file until it is another program: closing ours would leave it
    /// locked until then.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            warn!("the state folder stays locked for a moment: {error}");
        }
    }
}

impl FileFlash {
    /// Makes the folder and its files as needed, and locks it.
    ///
    /// # Errors
    /// Another process uses the folder, others may read it, or the file system says no.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::Folder { folder: folder.to_owned(), kind: error.kind() };
        create_folder(folder).map_err(failed)?;
        let mode = mode(folder).map_err(failed)?;
        if mode & OTHERS != 0 {
            if !may_close(folder).map_err(failed)? {
                return Err(StoreError::Exposed { folder: folder.to_owned(), mode });
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE)).map_err(failed)?;
        }
        let (lock, _) = open_as_it_may(&folder.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse { folder: folder.to_owned() },
            TryLockError::Error(error) => failed(error),
        })?;
        let [a, b] = Region::BOTH.map(|region| RegionFile::open(folder.join(file_name(region))));
        let regions = [a.map_err(failed)?, b.map_err(failed)?];
        sync_folder(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), regions, _lock: Lock(lock) })
    }

    /// Why nothing can be written at present, if that is known already: what is there can be read.
    pub fn takes_no_writes(&self) -> Option<FlashError> {
        self.regions.iter().any(|region| region.is_read_only).then_some(FlashError::ReadOnly)
    }

    fn region(&mut self, region: Region) -> &mut RegionFile {
        match region {
            Region::A => &mut self.regions[0],
            Region::B => &mut self.regions[1],
        }
    }

    fn copy(&self, region: Region) -> io::Result<()> {
        let mut copy = open_private(&damaged_copy(&self.folder, region))?;
        copy.set_len(0)?;
        io::copy(&mut File::open(self.folder.join(file_name(region)))?, &mut copy)?;
        copy.sync_all()?;
        sync_folder(&self.folder)
    }
}

/// Makes a folder that only its owner may use, with the folders above it; one that exists is left as it is.
///
/// # Errors
/// What the file system says.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let made: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    // Each name in the folder above it, or a power loss takes the state with one of them.
    made.into_iter()
        .filter_map(Path::parent)
        .try_for_each(|parent| sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }))
}

/// Whether opening a folder may take it from others: it is empty, or was a state folder before. Closing any other,
/// `/var/lib` for one, would close it for the whole system.
///
/// # Errors
/// What the file system says.
pub fn may_close(folder: &Path) -> io::Result<bool> {
    Ok(is_state(folder) || fs::read_dir(folder)?.next().is_none())
}

/// Whether a folder holds a state.
pub fn is_state(folder: &Path) -> bool {
    folder.join(file_name(Region::A)).exists()
}

/// The copies of regions in which damage was found, which a person has not removed yet.
pub fn damaged_copies(folder: &Path) -> Vec<PathBuf> {
    Region::BOTH.map(|region| damaged_copy(folder, region)).into_iter().filter(|copy| copy.exists()).collect()
}

fn damaged_copy(folder: &Path, region: Region) -> PathBuf {
    folder.join(format!("{}.damaged", file_name(region)))
}

/// The permission bits of a file or folder.
///
/// # Errors
/// What the file system says.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

/// Returns when the names in a folder are safe from power loss.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & OTHERS != 0 {
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Opens a file for reading and writing, or for reading where the file system takes no writes; then it is not made.
fn open_as_it_may(path: &Path) -> io::Result<(File, bool)> {
    match open_private(path) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            File::open(path).map(|file| (file, true)).map_err(|_| error)
        }
        opened => opened.map(|file| (file, false)),
    }
}

const fn file_name(region: Region) -> &'static str {
    match region {
        Region::A => "log.a",
        Region::B => "log.b",
    }
}

fn flash_error(error: &io::Error) -> FlashError {
    error.kind().into()
}

impl Flash for FileFlash {
    fn size(&mut self, region: Region) -> Result<usize, FlashError> {
        let bytes = self.region(region).file.metadata().map_err(|error| flash_error(&error))?.len();
        usize::try_from(bytes).map_err(|_| FlashError::Io(ErrorKind::FileTooLarge))
    }

    fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError> {
        self.region(region).file.read_exact_at(into, offset as u64).map_err(|error| flash_error(&error))
    }

    fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError> {
        let file = self.region(region).writable().map_err(|error| flash_error(&error))?;
        file.write_all_at(octets, offset as u64).map_err(|error| flash_error(&error))
    }

    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
        // Real zeros: later commits then find their blocks allocated, and cannot meet a full disk.
        for offset in (self.size(region)?..bytes).step_by(STORE_BLOCK_BYTES) {
            let zeros = [0; STORE_BLOCK_BYTES];
            self.write(region, offset, &zeros[..STORE_BLOCK_BYTES.min(bytes - offset)])?;
        }
        Ok(())
    }

    fn sync(&mut self, region: Region) -> Result<(), FlashError> {
        self.region(region).file.sync_data().map_err(|error| flash_error(&error))
    }

    fn set_aside(&mut self, region: Region) -> Result<(), FlashError> {
        self.copy(region).map_err(|error| flash_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a child holds that is not yet another program does not keep the folder locked.
    #[test]
    fn a_folder_that_was_left_is_free_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let flash = FileFlash::open(folder.path()).expect("it opens");
        let of_a_child = flash._lock.0.try_clone().expect("a copy");
        assert!(matches!(FileFlash::open(folder.path()), Err(StoreError::InUse { .. })));
        drop(flash);
        FileFlash::open(folder.path()).expect("it is free");
        drop(of_a_child);
    }
}
