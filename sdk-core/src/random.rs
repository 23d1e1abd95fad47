//! Pseudo-random numbers, seeded with entropy from the host.
//!
//! xoshiro256++ (Blackman and Vigna, <https://prng.di.unimi.it/>). Identifiers are not secrets, but no two installs,
//! boots or clones may generate the same ones. So the seed mixes the host's entropy, both clocks, and a salt that is
//! replaced in the store at every start. A host without a source of randomness still never repeats itself, and a cloned
//! image differs by its clocks. The seed fills all 256 bits of the state: chaining 32 bytes of entropy through one
//! 64-bit word would lose most of it.

use crate::Now;

/// Pseudo-random generator; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// Rounds after seeding, until each bit of the state depends on each bit of the seed.
const MIXING_ROUNDS: usize = 16;

impl Random {
    /// Seeds from any number of bytes of host entropy, the clocks and the stored salt.
    #[must_use]
    pub(crate) fn new(entropy: &[u8], now: Now, salt: u64) -> Self {
        let mut random = Self { state: [1, 2, 3, 4] };
        for (lane, word) in [salt, now.wall as u64, now.mono, entropy.len() as u64].into_iter().enumerate() {
            random.absorb(lane, word);
        }
        for (lane, chunk) in entropy.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            random.absorb(lane, u64::from_le_bytes(word));
        }
        for _ in 0..MIXING_ROUNDS {
            random.next_u64();
        }
        random
    }

    /// Mixes a word into one of the four lanes. For a given state this is a bijection of the word, and so is each round
    /// after it: seeds that differ in one lane give different states.
    fn absorb(&mut self, lane: usize, word: u64) {
        let state = &mut self.state[lane & 3];
        *state = split_mix(*state ^ word);
    }

    /// Returns 64 random bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number from 0 to `max`, both included. The bias of the remainder is irrelevant for delays.
    pub(crate) fn gen_inclusive(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(range) => self.next_u64() % range,
            None => self.next_u64(),
        }
    }

    /// Generates a version 7 identifier for the time `wall`, milliseconds since the epoch.
    pub(crate) fn id(&mut self, wall: i64) -> crate::Id {
        let (a, b) = (self.next_u64().to_le_bytes(), self.next_u64().to_le_bytes());
        crate::Id::v7(wall, [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1]])
    }
}

/// SplitMix64: one step and its output. A bijection.
fn split_mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: Now = Now { wall: 1, mono: 2 };

    #[test]
    fn any_difference_in_the_seed_gives_other_numbers() {
        let mut seen = BTreeSet::new();
        for (entropy, now, salt) in [
            (&b""[..], NOW, 0),
            (b"\0", NOW, 0),
            (b"x", NOW, 0),
            (b"x", NOW, 1),
            (b"x", Now { wall: 2, ..NOW }, 0),
            (b"x", Now { mono: 3, ..NOW }, 0),
        ] {
            assert!(seen.insert(Random::new(entropy, now, salt).next_u64()));
        }
    }

    #[test]
    fn each_bit_of_the_entropy_changes_about_half_of_the_state() {
        let entropy = [0x5a_u8; 32];
        let plain = Random::new(&entropy, NOW, 7).state;
        for bit in 0..256 {
            let mut other = entropy;
            other[bit / 8] ^= 1 << (bit % 8);
            let state = Random::new(&other, NOW, 7).state;
            for (a, b) in plain.iter().zip(state) {
                assert!((12..=52).contains(&(a ^ b).count_ones()), "bit {bit}: {plain:?} {state:?}");
            }
        }
    }

    #[test]
    fn entropy_is_not_squeezed_through_one_word() {
        // Two seeds that collide once they are chained through 64 bits: mix(mix(0 ^ a) ^ b).
        let chained = |a: u64, b: u64| split_mix(split_mix(a) ^ b);
        let (a, b, other) = (1, 2, 3);
        let twin = split_mix(a) ^ b ^ split_mix(other);
        assert_eq!(chained(a, b), chained(other, twin));
        let seed = |a: u64, b: u64| {
            let bytes: Vec<u8> = [a, b].into_iter().flat_map(u64::to_le_bytes).collect();
            Random::new(&bytes, NOW, 0).next_u64()
        };
        assert_ne!(seed(a, b), seed(other, twin));
    }

    #[test]
    fn delays_stay_within_their_range() {
        let mut random = Random::new(b"delays", NOW, 0);
        let drawn: BTreeSet<u64> = (0..1000).map(|_| random.gen_inclusive(9)).collect();
        assert_eq!(drawn, (0..10).collect());
    }
}
