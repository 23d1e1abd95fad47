//! Blocked Bloom filter: an ID uses one cache line, and one bit in each of its eight words.

use std::io::{self, Write};

/// Bits per ID. At 12 about one absent ID in 250 is a false positive, which costs one read of a page.
const BITS_PER_ID: u64 = 12;

/// Bits of a block: one cache line.
const BLOCK_BITS: u64 = 512;

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;

/// Multiplier that mixes a hash again, so that the bits within a block are independent of the block's index.
const BLOCK_HASH_MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Block([u64; 8]);

/// Filter of ID hashes with false positives but without false negatives.
pub(super) struct Filter {
    blocks: Vec<Block>,
}

/// Returns the number of blocks of a filter of `ids` IDs.
fn blocks(ids: u64) -> u64 {
    (ids * BITS_PER_ID).div_ceil(BLOCK_BITS).max(1)
}

/// Returns the bytes of a filter of `ids` IDs, in memory and on disk.
pub(super) fn bytes(ids: u64) -> u64 {
    blocks(ids) * BLOCK_BYTES as u64
}

impl Filter {
    /// Creates an empty filter for `ids` IDs.
    pub(super) fn with_capacity(ids: u64) -> Self {
        Self { blocks: vec![Block::default(); usize::try_from(blocks(ids)).unwrap_or(usize::MAX)] }
    }

    fn locate(&self, hash: u64) -> (usize, u64) {
        let at = (u128::from(hash) * self.blocks.len() as u128) >> 64;
        (at as usize, hash.wrapping_mul(BLOCK_HASH_MULTIPLIER) >> 16)
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let (at, mut bits) = self.locate(hash);
        if let Some(block) = self.blocks.get_mut(at) {
            for word in &mut block.0 {
                *word |= 1 << (bits & 63);
                bits >>= 6;
            }
        }
    }

    /// Reads the first word of the block that contains the hash, to load its cache line.
    ///
    /// Call it for many hashes before calling [`Filter::may_contain`] for them: the step is so short that the
    /// processor loads many blocks at once.
    pub(super) fn prefetch(&self, hash: u64) -> u64 {
        self.blocks.get(self.locate(hash).0).map_or(0, |block| block.0[0])
    }

    /// Returns whether the hash may have been inserted. Never `false` for one that was.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let (at, mut bits) = self.locate(hash);
        let Some(block) = self.blocks.get(at) else { return true };
        let mut all = 1;
        for word in block.0 {
            all &= word >> (bits & 63);
            bits >>= 6;
        }
        all & 1 == 1
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK_BYTES) as u64
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.blocks.iter().flat_map(|block| block.0).try_for_each(|word| out.write_all(&word.to_le_bytes()))
    }

    /// Reads a filter that [`Filter::write`] wrote.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let block = |bytes: &[u8]| {
            let mut block = Block::default();
            for (word, bytes) in block.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            block
        };
        Self { blocks: bytes.chunks_exact(BLOCK_BYTES).map(block).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::HashKey;
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_little_else() {
        let key = HashKey::new([7; 16]);
        let mut filter = Filter::with_capacity(100_000);
        (0..100_000).for_each(|id| filter.insert(key.hash(id)));
        let mut bytes = Vec::new();
        filter.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, super::bytes(100_000));
        for filter in [filter, Filter::read(&bytes)] {
            assert!((0..100_000).all(|id| filter.may_contain(key.hash(id))));
            let wrong = (100_000..1_100_000).filter(|id| filter.may_contain(key.hash(*id))).count();
            assert!((1..6_000).contains(&wrong), "{wrong} of 1,000,000");
        }
    }
}
