//! The wall clock as connections use it: what the kernel shows, and what is known where that shows anything.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel;
use crate::limits::CLOCK_SET_UNIX_S;
use crate::time::{ClockReading, UnixTime, judged_at};

/// When this program was built.
pub const BUILT: UnixTime = UnixTime(digits(env!("FIELDGATE_BUILT_UNIX_S")));

/// How a clock is read.
type Read = dyn Fn() -> ClockReading + Send + Sync;

/// A wall clock, and the last time that is known to have passed; its clones share both.
#[derive(Clone)]
pub struct WallClock {
    read: Arc<Read>,
    /// Zero when nothing is known.
    stored_s: Arc<AtomicU64>,
}

impl WallClock {
    /// A clock that is read so.
    pub fn new(read: impl Fn() -> ClockReading + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), stored_s: Arc::default() }
    }

    /// What the kernel shows now.
    pub fn reading(&self) -> ClockReading {
        (self.read)()
    }

    /// The last time that is known to have passed, from now on.
    pub fn set_stored(&self, time: Option<UnixTime>) {
        self.stored_s.store(time.unwrap_or_default().0, Ordering::Relaxed);
    }

    /// The last time that is known to have passed.
    pub fn stored(&self) -> Option<UnixTime> {
        Some(UnixTime(self.stored_s.load(Ordering::Relaxed))).filter(|time| time.0 > 0)
    }

    /// The time at which a chain is judged that is valid since `not_before`.
    pub fn judged_at(&self, not_before: Option<UnixTime>) -> UnixTime {
        judged_at(self.reading(), BUILT, self.stored(), not_before)
    }

    /// The time for what says itself no better one; never before one that has passed.
    pub fn now(&self) -> UnixTime {
        let clock = self.reading();
        if clock.is_synchronised { clock.wall() } else { clock.wall().max(self.judged_at(None)) }
    }

    /// Milliseconds of wall time; none while the clock is behind what is known to have passed, as on a board that has
    /// just booted.
    pub fn known_ms(&self) -> Option<u64> {
        let clock = self.reading();
        let floor = self.judged_at(None).max(UnixTime(CLOCK_SET_UNIX_S));
        (clock.is_synchronised || clock.wall() >= floor).then_some(clock.wall_ms)
    }
}

/// The kernel's clock.
impl Default for WallClock {
    fn default() -> Self {
        Self::new(kernel::clock)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").field("reading", &self.reading()).field("stored", &self.stored()).finish()
    }
}

const fn digits(text: &str) -> u64 {
    let (octets, mut at, mut number) = (text.as_bytes(), 0, 0);
    while at < octets.len() {
        number = number * 10 + (octets[at] - b'0') as u64;
        at += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(wall_ms: u64, is_synchronised: bool) -> WallClock {
        WallClock::new(move || ClockReading { wall_ms, is_synchronised })
    }

    #[test]
    fn a_clock_that_is_behind_what_has_passed_is_not_told() {
        let behind = clock(12_000, false);
        assert_eq!((behind.known_ms(), behind.now()), (None, BUILT));
        let later = UnixTime(BUILT.0 + 86_400);
        behind.set_stored(Some(later));
        assert_eq!(behind.now(), later);
        assert_eq!(behind.clone().stored(), Some(later));
        behind.set_stored(None);
        assert_eq!((behind.now(), behind.stored()), (BUILT, None));

        let right = clock((BUILT.0 + 1) * 1_000, false);
        assert_eq!(right.known_ms(), Some((BUILT.0 + 1) * 1_000));
        right.set_stored(Some(later));
        assert_eq!(right.known_ms(), None);
        let synchronised = clock(CLOCK_SET_UNIX_S * 1_000, true);
        synchronised.set_stored(Some(later));
        assert_eq!(synchronised.now(), UnixTime(CLOCK_SET_UNIX_S));
        assert_eq!(synchronised.known_ms(), Some(CLOCK_SET_UNIX_S * 1_000));
    }
}
