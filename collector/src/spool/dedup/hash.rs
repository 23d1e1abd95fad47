//! Keyed hash of an event ID, for the sets in memory and for the filters.

use std::hash::{BuildHasher, Hasher};

/// Hash key of a data directory. It is random, so that a sender cannot choose IDs that collide in a filter or set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HashKey {
    low: u64,
    high: u64,
}

/// Applies the finaliser of MurmurHash3: every bit of the result depends on every bit of `x`, and the mapping is one
/// to one.
fn finalize(mut x: u64) -> u64 {
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
        finalize(finalize(id as u64 ^ self.low) ^ (id >> 64) as u64 ^ self.high)
    }
}

impl BuildHasher for HashKey {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { key: *self, hash: 0 }
    }
}

/// Hasher of one `u128`. Other input does not occur, and is mixed in as well.
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
            self.hash = finalize(self.hash ^ u64::from(*byte) ^ self.key.low);
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
