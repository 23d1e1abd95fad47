//! One keyed hash of an event ID, for the set in memory and for the filters.

use std::hash::{BuildHasher, Hasher};

/// The key of a data directory. Random, so that a sender cannot choose IDs that fall into one place of a filter or set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HashKey {
    low: u64,
    high: u64,
}

/// The finaliser of MurmurHash3: every bit of the result depends on every bit of `x`, and no two `x` give the same.
fn finished(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x = (x ^ (x >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^ (x >> 33)
}

impl HashKey {
    pub(super) fn new(bytes: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(bytes);
        Self { low: key as u64, high: (key >> 64) as u64 }
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        (u128::from(self.low) | u128::from(self.high) << 64).to_le_bytes()
    }

    pub(super) fn hash(self, id: u128) -> u64 {
        finished(finished(id as u64 ^ self.low) ^ (id >> 64) as u64 ^ self.high)
    }
}

impl BuildHasher for HashKey {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { key: *self, hash: 0 }
    }
}

/// Hashes one `u128`; other input is not given to it, and is mixed in all the same.
pub(super) struct IdHasher {
    key: HashKey,
    hash: u64,
}

impl Hasher for IdHasher {
    fn write_u128(&mut self, id: u128) {
        self.hash = self.key.hash(id);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = finished(self.hash ^ u64::from(*byte) ^ self.key.low);
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
