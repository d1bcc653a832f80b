//! Time as the pure modules see it: handed in as an argument, never read.
//!
//! [`Instant`] counts milliseconds since some start that only the shell knows (monotonic within one run);
//! [`UnixTime`] counts seconds of wall time, which a board without a battery-backed clock may not know.

pub use core::time::Duration;

/// A point in monotonic time: milliseconds since a start that the shell chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start itself.
    pub const ZERO: Self = Self(0);

    /// The point `ms` milliseconds after the start.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }
}

impl core::ops::Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, before: Duration) -> Self {
        let ms = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(ms))
    }
}

/// Wall time in whole seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct UnixTime(pub u64);

/// A wall clock as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// What it shows, in milliseconds since 1970-01-01T00:00:00Z.
    pub wall_ms: u64,
    /// Somebody who knows the time keeps it right; otherwise it may show anything.
    pub is_synchronised: bool,
}

impl ClockReading {
    /// What it shows, in whole seconds.
    pub const fn wall(self) -> UnixTime {
        UnixTime(self.wall_ms / 1_000)
    }
}

/// The time at which certificates are judged.
///
/// With a synchronised clock that is its time. Without one it is the latest of those that are known to have passed: when
/// the program was `built`, what was `stored`, and since when the peer's chain is valid (`not_before`). What the clock
/// shows then counts for nothing: it may as well be in the future.
pub fn judged_at(
    clock: ClockReading,
    built: UnixTime,
    stored: Option<UnixTime>,
    not_before: Option<UnixTime>,
) -> UnixTime {
    if clock.is_synchronised {
        return clock.wall();
    }
    built.max(stored.unwrap_or_default()).max(not_before.unwrap_or_default())
}

/// Tells one boot of a machine from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BootId([u8; 16]);

impl BootId {
    /// Reads one in the kernel's form: hexadecimal digits, with hyphens between them.
    ///
    /// Source: random(4), `/proc/sys/kernel/random/boot_id`.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut octets, mut count) = ([0; 16], 0);
        for character in text.chars().filter(|character| *character != '-') {
            let digit = u8::try_from(character.to_digit(16)?).ok()?;
            let octet = octets.get_mut(count / 2)?;
            *octet = *octet << 4 | digit;
            count += 1;
        }
        (count == 32).then_some(Self(octets))
    }

    /// A number that is hardly that of another boot: 1 to 2^23 - 1. The first octets are random.
    pub fn tag(self) -> u32 {
        let [first, second, third, ..] = self.0;
        (u32::from_be_bytes([0, first, second, third]) >> 1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_judged_at_the_latest_time_that_is_known_to_have_passed() {
        let (built, stored, begun) = (UnixTime(1_700), UnixTime(1_800), UnixTime(1_900));
        for wall_ms in [0, 1_750_000, 4_000_000] {
            let clock = ClockReading { wall_ms, is_synchronised: false };
            assert_eq!(judged_at(clock, built, None, None), built);
            assert_eq!(judged_at(clock, built, Some(stored), None), stored);
            assert_eq!(judged_at(clock, built, Some(stored), Some(begun)), begun);
            assert_eq!(judged_at(clock, built, Some(begun), Some(stored)), begun);
            assert_eq!(judged_at(clock, begun, Some(stored), Some(built)), begun);
            let clock = ClockReading { is_synchronised: true, ..clock };
            assert_eq!(judged_at(clock, built, Some(stored), Some(begun)), clock.wall());
        }
    }

    #[test]
    fn boot_ids_are_read_as_the_kernel_writes_them() {
        let read = BootId::parse("01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(read, Some(BootId([1, 35, 69, 103, 137, 171, 205, 239, 1, 35, 69, 103, 137, 171, 205, 239])));
        assert_eq!(read.map(BootId::tag), Some(0x01_2345 >> 1));
        assert_eq!(BootId::parse(&"00".repeat(16)).map(BootId::tag), Some(1));
        assert_eq!(BootId::parse(&"ff".repeat(16)).map(BootId::tag), Some((1 << 23) - 1));
        for wrong in ["", "0123", "01234567-89ab-cdef-0123-456789abcdeg", "01234567-89ab-cdef-0123-456789abcdef0"] {
            assert_eq!(BootId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn instants_saturate_instead_of_wrapping() {
        let end = Instant::from_millis(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Instant::ZERO.since(end), Duration::ZERO);
        assert_eq!(Instant::from_millis(999) - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::from_millis(1_001) - Duration::from_secs(1), Instant::from_millis(1));
    }
}
