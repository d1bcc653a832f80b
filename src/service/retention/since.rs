//! How old a stored message is, by a clock that can tell: also after a restart, and never by one that was not right.
//!
//! ```text
//! synchronised clock     wall time: compared with that of another clock that is synchronised
//! any other clock        time since the machine booted, suspended time included: compared within the same boot
//! neither                not known: the message is kept for as long as it was to be kept at first
//! ```

use super::model::Moment;
use crate::time::UnixTime;

/// Set in stored words that count from a boot. Earlier versions read a time in the far future there, and keep the message.
const OF_BOOT: u64 = 1 << 63;
/// Bits of the seconds since that boot; those of the boot's tag are between them and [`OF_BOOT`].
const UPTIME_BITS: u32 = 40;

/// Since when a message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A wall time, of a clock that was synchronised.
    Wall(UnixTime),
    /// Seconds since a boot, in which the clock was not synchronised.
    Boot {
        /// Its tag; none when boots cannot be told apart.
        boot: Option<u32>,
        /// Suspended time included.
        uptime_s: u64,
    },
}

impl Since {
    /// Now.
    pub fn now(now: Moment) -> Self {
        if now.is_synchronised {
            return Self::Wall(now.wall);
        }
        Self::Boot { boot: now.boot, uptime_s: now.uptime_s }
    }

    /// How long that is ago, in seconds, if a clock can tell.
    pub fn age_s(self, now: Moment) -> Option<u64> {
        match self {
            Self::Wall(wall) => now.is_synchronised.then(|| now.wall.0.saturating_sub(wall.0)),
            Self::Boot { boot, uptime_s } => {
                (boot.is_some() && boot == now.boot).then(|| now.uptime_s.saturating_sub(uptime_s))
            }
        }
    }

    /// Its wall time, by the clock of now, if a clock can tell.
    pub fn wall(self, now: Moment) -> Option<UnixTime> {
        match self {
            Self::Wall(wall) => Some(wall),
            Self::Boot { .. } => Some(UnixTime(now.wall.0.saturating_sub(self.age_s(now)?))),
        }
    }

    /// As it is stored.
    pub fn to_word(self) -> u64 {
        match self {
            Self::Wall(wall) => wall.0.min(OF_BOOT - 1),
            Self::Boot { boot, uptime_s } => {
                let boot = u64::from(boot.unwrap_or(0)) << UPTIME_BITS & (OF_BOOT - 1);
                OF_BOOT | boot | uptime_s.min((1 << UPTIME_BITS) - 1)
            }
        }
    }

    /// From what is stored.
    pub fn from_word(word: u64) -> Self {
        if word & OF_BOOT == 0 {
            return Self::Wall(UnixTime(word));
        }
        let boot = u32::try_from((word & (OF_BOOT - 1)) >> UPTIME_BITS).ok().filter(|boot| *boot > 0);
        Self::Boot { boot, uptime_s: word & ((1 << UPTIME_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
        for since in [
            Since::Wall(UnixTime(1_800_000_000)),
            Since::Boot { boot: Some(1), uptime_s: 0 },
            Since::Boot { boot: Some((1 << 23) - 1), uptime_s: (1 << 40) - 1 },
            Since::Boot { boot: None, uptime_s: 7 },
        ] {
            assert_eq!(Since::from_word(since.to_word()), since);
        }
        assert_eq!(Since::Wall(UnixTime(1_800_000_000)).to_word(), 1_800_000_000, "as earlier versions wrote it");
    }

    #[test]
    fn only_clocks_that_can_tell_are_asked() {
        let now = Moment { wall: UnixTime(5_000), uptime_s: 100, boot: Some(3), ..Moment::default() };
        let synchronised = Moment { is_synchronised: true, ..now };
        let wall = Since::Wall(UnixTime(4_000));
        assert_eq!((wall.age_s(now), wall.age_s(synchronised)), (None, Some(1_000)));
        let here = Since::Boot { boot: Some(3), uptime_s: 60 };
        assert_eq!((here.age_s(now), here.age_s(synchronised)), (Some(40), Some(40)));
        assert_eq!(here.wall(now), Some(UnixTime(4_960)));
        for boot in [None, Some(4)] {
            let other = Since::Boot { boot, uptime_s: 60 };
            assert_eq!((other.age_s(synchronised), other.wall(now)), (None, None));
        }
        let nameless = Moment { boot: None, ..now };
        assert_eq!(Since::now(nameless).age_s(nameless), None);
        assert_eq!(
            (Since::now(now), Since::now(synchronised)),
            (Since::Boot { boot: Some(3), uptime_s: 100 }, Since::Wall(now.wall))
        );
    }
}
