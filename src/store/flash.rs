//! What the log needs of a medium: two regions of octets that survive power.
//!
//! The trait promises little, as real media do. A write may be lost, cut short at any octet, or overtake another one
//! until [`Flash::sync`] of its region has returned `Ok`. Octets outside a write are never changed by it.

use std::fmt;
use std::io::ErrorKind;

/// One of the two regions: the log lives in one and moves to the other to shed what is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// The first region.
    A,
    /// The second region.
    B,
}

impl Region {
    /// Both regions, in the order in which they are looked at.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The region that is not this one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Why the medium did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// No space is left on it.
    NoSpace,
    /// It takes no writes.
    ReadOnly,
    /// Anything else the operating system says.
    Io(ErrorKind),
}

impl From<ErrorKind> for FlashError {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            other => Self::Io(other),
        }
    }
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space is left on the medium; free some"),
            Self::ReadOnly => f.write_str("the file system is read-only; remount it, and look for disk errors"),
            Self::Io(kind) => write!(f, "the medium failed: {kind}; look for disk errors"),
        }
    }
}

impl std::error::Error for FlashError {}

/// A medium with two regions.
///
/// Units: offsets and sizes in octets.
pub trait Flash {
    /// The size of a region, 0 when it was never used.
    ///
    /// # Errors
    /// The medium failed.
    fn size(&mut self, region: Region) -> Result<usize, FlashError>;

    /// Fills `into` from `offset` on; the range lies within the region.
    ///
    /// # Errors
    /// The medium failed; `into` then holds anything.
    fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError>;

    /// Writes `octets` at `offset`; the range lies within the region.
    ///
    /// # Errors
    /// The medium failed; any part of the write may have happened.
    fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError>;

    /// Makes a region `bytes` large, with zeros in what is new; the space is really taken, not only promised.
    ///
    /// # Errors
    /// The medium failed; the region has any size between the old and the new one.
    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError>;

    /// Returns when everything written to the region is safe from power loss.
    ///
    /// # Errors
    /// The medium failed; what was written since the last success may be there or not.
    fn sync(&mut self, region: Region) -> Result<(), FlashError>;

    /// Keeps a copy of the region for a person to study; a later copy replaces it.
    ///
    /// # Errors
    /// The medium failed; there is no usable copy.
    fn set_aside(&mut self, region: Region) -> Result<(), FlashError>;
}
