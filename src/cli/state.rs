//! The state folder of a gateway that does not run, for commands that work on it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::Uid;

use super::{Failure, complain};
use crate::store::StoreError;
use crate::store::file::FileFlash;
use crate::store::log::{Capacity, Log};

/// Opens the state in a folder, which no gateway can use until this is dropped.
///
/// # Errors
/// A gateway uses it, or it cannot be read.
pub fn open(folder: &Path) -> Result<Log<FileFlash>, Failure> {
    if let Some(owner) = other_owner(folder) {
        return Err(Failure::failed(format_args!(
            "the state folder {} belongs to the user {owner}, who could not read what another one writes there; run this \
             as that user, as in: runuser -u fieldgate -- fieldgate …",
            folder.display()
        )));
    }
    let flash = FileFlash::open(folder).map_err(|error| match error {
        StoreError::InUse { folder } => Failure::failed(format_args!(
            "the gateway is running with the state folder {}; stop it first, as with: systemctl stop fieldgate",
            folder.display()
        )),
        other => Failure::failed(other),
    })?;
    let (log, damage) = Log::open(flash, Capacity::default()).map_err(Failure::failed)?;
    if let Some(damage) = damage {
        complain(format_args!("warning: the state was damaged: {damage}"));
    }
    Ok(log)
}

/// The owner of a folder, if that is somebody else.
fn other_owner(folder: &Path) -> Option<u32> {
    let owner = fs::metadata(folder).ok()?.uid();
    (owner != Uid::effective().as_raw()).then_some(owner)
}
