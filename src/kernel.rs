//! What the kernel says of time: a thin shell that decides nothing.
//!
//! Here alone stands code that the compiler cannot check: one call without a safe counterpart in any library in use.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::time::{BootId, ClockReading};

/// Where the kernel names the boot that it is in.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The wall clock now, and whether the kernel was told that it is right.
#[allow(clippy::disallowed_methods, reason = "the one place where the gateway reads the wall clock")]
pub fn clock() -> ClockReading {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ClockReading {
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        is_synchronised: adjustment().is_some_and(|status| status & libc::STA_UNSYNC == 0),
    }
}

/// The status of the kernel's clock discipline; none where it may not be asked.
///
/// Source: adjtimex(2).
#[allow(unsafe_code, reason = "no library in use offers this call")]
fn adjustment() -> Option<i32> {
    // SAFETY: all of its fields are numbers, for which zero is a value; with `modes` zero nothing is set.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it is a place for a whole `timex` that nobody else has.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status)
}

/// How long the machine has been suspended since it booted: what monotonic clocks do not count.
pub fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    // In this order it is never more than that; where the two are interrupted it is a little less, so whoever needs a time
    // that never goes back keeps the latest.
    let boot = read(ClockId::CLOCK_BOOTTIME);
    boot.saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

/// How long ago the machine booted, suspended time included.
pub fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The boot that this process runs in.
pub fn boot_id() -> Option<BootId> {
    BootId::parse(std::fs::read_to_string(BOOT_ID_FILE).ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        assert!(clock().wall_ms > 0);
        assert!(adjustment().is_some(), "reading it needs no privilege");
        assert!(boot_id().is_some() && boot_id() == boot_id());
        assert!(uptime() > Duration::ZERO && uptime() >= suspended());
        assert!(suspended() <= suspended() + Duration::from_millis(1));
    }
}
