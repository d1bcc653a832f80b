//! The facts that outlive power: keys with values, and nothing about what they mean.
//!
//! # What is promised
//!
//! 1. A submission that was reported safe is there after a power loss at any later moment.
//! 2. A submission is there as a whole or not at all; so are the submissions that were synced together.
//! 3. After a power loss at any moment, and after any number of them, the next start succeeds. What was under way when
//!    the power went is there or not; nobody was told yet.
//! 4. After a failed write (no space, read-only, input or output error) the facts are as they were, and a later
//!    submission can succeed. Space is taken when the store is made: a disk that fills up later stops no commit. One that
//!    takes no writes is read, also from the start on, and is written again as soon as it may be.
//! 5. A block that rots costs the facts in it. That is noticed, reported, and the file is copied for a person to study;
//!    everything else is used. The copy stays until that person removes it.
//! 6. Two processes never use one folder. Another version of the format is refused and left untouched.
//! 7. Facts are kept whatever their kind and value, also those of a later program: format and facts have versions of their
//!    own (the pages of [`log`] and of `proto::record`), and that of the program is no part of either.
//!
//! # What is not promised
//!
//! - The newest commit that rots looks like one that was torn by a power loss: it is dropped without a report.
//! - A medium that says a sync is done and forgets it later can lose commits. Those in front of newer ones are noticed.
//! - What failed may be there after a restart, if nothing succeeded after it.
//! - A removed fact stays in the files until compaction writes over it. The files are for their owner alone (0600 in a
//!   folder with 0700), and what a fact opens must be revoked where it is honoured.
//!
//! # How
//!
//! The log lives in one of two regions and appends to it; when that is full, the facts that still count move to the
//! other one, and a new header there makes it the active one ([`log`] has the bytes). Each commit has blocks of 4096
//! octets to itself, the page size of the media in question, so that an interrupted write hurts nothing that was safe
//! before. All that waits while a sync runs becomes the next commit: one sync for all of it.
//!
//! ```text
//! submit -> queue (bounded) -> thread "store": append, append, sync -> next
//!                                                 |
//!                              log: what to write where       (pure)
//!                              flash: read, write, sync       (trait; files, or memory in tests)
//! ```
//!
//! # What was rejected
//!
//! - *A file replaced by rename at each change*: writes all facts for one, and needs space just when a disk is full.
//! - *Compaction into a new file that is renamed*: the same at a lower rate; zeros for each new file cost as many
//!   writes as the commits it will hold, and after a failed sync of the folder nobody knows which file the name means.
//! - *Growing the file with each commit*: each sync then also writes the file system's own records.
//! - *Several commits in one block*: fewer blocks, but each write would touch octets that were safe.
//! - *A database*: larger than all of this, and written for another kind of machine.
//! - *The runtime's pool for blocking calls*: a name look-up that hangs must not stop a sync.

pub mod export;
pub mod file;
pub mod flash;
pub mod log;

mod block;
mod change;
mod replay;
mod writer;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

pub use change::{Change, LogError};
pub use flash::FlashError;
pub use log::{Damage, Wear};
pub use writer::{Full, Persisted, Store, Written};

use zeroize::Zeroizing;

use crate::limits::STORE_CLOSE_MS_MAX;

/// A key and its value, which may be a secret.
pub type Fact = (Vec<u8>, Zeroizing<Vec<u8>>);

/// What a store held when it was opened.
#[derive(Debug)]
pub struct Replay {
    /// All facts, in the order of their keys.
    pub records: Vec<Fact>,
    /// Something that was safe is lost; a person should know.
    pub damage: Option<Damage>,
    /// It could be opened for reading only: nothing becomes safe until that has changed.
    pub takes_no_writes: Option<FlashError>,
    /// What opening it cost.
    pub wear: Wear,
}

/// Why a store was not opened, or a submission not made safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another process uses the folder.
    InUse {
        /// The state folder.
        folder: PathBuf,
    },
    /// Others may enter the folder.
    Exposed {
        /// The state folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder or a file in it cannot be made or opened.
    Folder {
        /// The state folder.
        folder: PathBuf,
        /// What the operating system says.
        kind: ErrorKind,
    },
    /// The operating system gives no thread.
    Thread(ErrorKind),
    /// The last sync did not end in time.
    Slow,
    /// The log says no.
    Log(LogError),
}

impl StoreError {
    /// The same call may succeed later without anybody changing anything here.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Log(error) => error.is_retryable(),
            Self::InUse { .. } | Self::Thread(_) => true,
            Self::Exposed { .. } | Self::Folder { .. } | Self::Slow => false,
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { folder } => write!(
                f,
                "the state folder {} is used by another process; stop it, or name another folder",
                folder.display()
            ),
            Self::Exposed { folder, mode } => write!(
                f,
                "the state folder {} has mode {mode:04o}, and it holds secrets; run: chmod 700 {}",
                folder.display(),
                folder.display()
            ),
            Self::Folder { folder, kind } => write!(
                f,
                "the state folder {} cannot be used: {kind}; it must be a folder that this user may write",
                folder.display()
            ),
            Self::Thread(kind) => write!(f, "no thread for the store: {kind}"),
            Self::Slow => write!(f, "the last sync took longer than {STORE_CLOSE_MS_MAX} ms"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}
