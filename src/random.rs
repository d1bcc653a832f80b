//! Randomness as the pure modules see it: handed in, so that a test can repeat a run.

/// A source of random octets.
pub trait Random {
    /// Fills `octets` with values nobody can guess.
    fn fill(&mut self, octets: &mut [u8]);
}

/// Random octets as an array.
pub fn array<const N: usize>(random: &mut dyn Random) -> [u8; N] {
    let mut octets = [0; N];
    random.fill(&mut octets);
    octets
}

/// A duration in milliseconds drawn evenly from `low..=high`; `low` when the range is empty.
pub fn between_ms(random: &mut dyn Random, low: u64, high: u64) -> u64 {
    let span = high.saturating_sub(low).saturating_add(1);
    low + u64::from_le_bytes(array(random)) % span
}

/// The operating system's source.
#[cfg(feature = "gateway")]
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

#[cfg(feature = "gateway")]
impl Default for SystemRandom {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

#[cfg(feature = "gateway")]
impl Random for SystemRandom {
    fn fill(&mut self, octets: &mut [u8]) {
        use ring::rand::SecureRandom as _;
        self.0.fill(octets).expect("the operating system always has randomness once it has booted");
    }
}

/// A repeatable source for tests and simulations; never for keys.
#[derive(Clone, Debug)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// A source that yields the same octets for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (SplitMix64).
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_ranges_hold() {
        let (mut one, mut other) = (SeededRandom::new(7), SeededRandom::new(7));
        assert_eq!(array::<21>(&mut one), array::<21>(&mut other));
        for _ in 0..1_000 {
            assert!((5..=9).contains(&between_ms(&mut one, 5, 9)));
        }
        assert_eq!(between_ms(&mut one, 9, 5), 9);
    }
}
