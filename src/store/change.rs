//! What is asked of a log, and how it refuses.

use std::fmt;

use zeroize::Zeroizing;

use super::block::VERSION;
use super::flash::FlashError;
use crate::limits::{STORE_BATCH_BYTES_MAX, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};

/// One change of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on the key has this value.
    Put {
        /// The kind of the fact, then what tells it from others of its kind.
        key: Vec<u8>,
        /// The new value; it may be a secret.
        value: Zeroizing<Vec<u8>>,
    },
    /// From now on the key has no value.
    Remove {
        /// The key as it was put.
        key: Vec<u8>,
    },
}

impl Change {
    /// Makes a [`Change::Put`].
    pub fn put(key: &[u8], value: &[u8]) -> Self {
        Self::Put { key: key.to_vec(), value: value.to_vec().into() }
    }

    /// Makes a [`Change::Remove`].
    pub fn remove(key: &[u8]) -> Self {
        Self::Remove { key: key.to_vec() }
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Option<Zeroizing<Vec<u8>>>) {
        match self {
            Self::Put { key, value } => (key, Some(value)),
            Self::Remove { key } => (key, None),
        }
    }

    pub(super) fn parts(&self) -> (&[u8], Option<&[u8]>) {
        match self {
            Self::Put { key, value } => (key, Some(value)),
            Self::Remove { key } => (key, None),
        }
    }
}

/// Why a log was not opened, or a change not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// Another version of the format wrote it. Nothing was changed.
    Version(u16),
    /// A key that is empty or too long, a value or a batch that is too long.
    TooLarge,
    /// The facts would be more than the log may hold.
    Full,
    /// The medium failed.
    Flash(FlashError),
}

impl LogError {
    /// The same call may succeed later without a change of the program.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Full | Self::Flash(_) => true,
            Self::Version(_) | Self::TooLarge => false,
        }
    }
}

impl From<FlashError> for LogError {
    fn from(error: FlashError) -> Self {
        Self::Flash(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "the state was written in format {version}, this program knows format {}; install the version that wrote \
                 it, or move the state away",
                VERSION
            ),
            Self::TooLarge => write!(
                f,
                "a key is 1 to {STORE_KEY_BYTES_MAX} octets, a value at most {STORE_VALUE_BYTES_MAX}, a batch at most \
                 {STORE_BATCH_BYTES_MAX}"
            ),
            Self::Full => f.write_str("the state holds as many facts as it may; remove some"),
            Self::Flash(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {}
