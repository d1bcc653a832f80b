//! What reaches a block device, as the kernel counts it.
//!
//! Source: Documentation/block/stat.rst of the Linux kernel.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR_BYTES: u64 = 512;
/// Fields of the counters.
const SECTORS_WRITTEN: usize = 6;
const FLUSHES: usize = 15;

/// A block device with a file system that is ours alone.
pub struct Disk {
    folder: PathBuf,
    counters: PathBuf,
}

/// Octets written to it, and how often it was made to keep them.
#[derive(Clone, Copy)]
pub struct Written {
    pub octets: u64,
    pub flushes: u64,
}

impl Written {
    pub fn since(self, before: Self) -> Self {
        Self { octets: self.octets - before.octets, flushes: self.flushes - before.flushes }
    }
}

impl Disk {
    pub fn new(folder: PathBuf, device: &str) -> Self {
        Self { folder, counters: Path::new("/sys/block").join(device).join("stat") }
    }

    /// Has the file system write all that it put off.
    pub fn settle(&self) {
        let synced = Command::new("sync").arg("-f").arg(&self.folder).status().expect("coreutils are there");
        assert!(synced.success(), "it is written");
    }

    pub fn written(&self) -> Written {
        let text = fs::read_to_string(&self.counters).expect("a block device has counters");
        let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().expect("a number")).collect();
        Written { octets: fields[SECTORS_WRITTEN] * SECTOR_BYTES, flushes: fields[FLUSHES] }
    }
}

/// Octets that the files of a folder take.
pub fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").blocks() * SECTOR_BYTES).sum()
}
