//! Store in memory, for tests and for hosts without storage.

use std::collections::BTreeMap;

use super::{Key, Store, StoreError, StoreWrite};

/// Keeps records in memory. A clone is an independent copy, like an image of a disk.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    records: BTreeMap<Key, String>,
    /// Bytes of all values.
    bytes: usize,
    /// Most bytes of all values.
    max_bytes: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_max_bytes(usize::MAX)
    }
}

impl MemoryStore {
    /// Creates a store that is full at this many bytes of values.
    #[must_use]
    pub fn with_max_bytes(bytes: usize) -> Self {
        Self { records: BTreeMap::new(), bytes: 0, max_bytes: bytes }
    }

    /// Returns the bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the limit. Existing records stay.
    pub fn set_max_bytes(&mut self, bytes: usize) {
        self.max_bytes = bytes;
    }

    /// Returns the size after these changes.
    fn size_after(&self, writes: &[StoreWrite<'_>]) -> usize {
        let mut changed: BTreeMap<Key, usize> = BTreeMap::new();
        let mut bytes = self.bytes;
        for write in writes {
            let old = changed.get(&write.key).copied();
            bytes -= old.unwrap_or_else(|| self.records.get(&write.key).map_or(0, String::len));
            let new = write.value.map_or(0, str::len);
            bytes += new;
            changed.insert(write.key, new);
        }
        bytes
    }
}

impl Store for MemoryStore {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let after = if self.max_bytes == usize::MAX { 0 } else { self.size_after(writes) };
        if after > self.max_bytes && after > self.bytes {
            return Err(StoreError::full("the bound is reached"));
        }
        for write in writes {
            let old = match write.value {
                Some(value) => self.records.insert(write.key, value.to_owned()),
                None => self.records.remove(&write.key),
            };
            self.bytes += write.value.map_or(0, str::len);
            self.bytes -= old.map_or(0, |old| old.len());
        }
        Ok(())
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        Ok(self.records.get(&key).cloned())
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        for (key, value) in &self.records {
            visit(*key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::store_suite;

    #[test]
    fn it_passes_the_suite() {
        store_suite::run(MemoryStore::default, |store| store);
    }

    #[test]
    fn it_passes_the_suite_of_full_stores() {
        store_suite::run_full(MemoryStore::default(), |store| store.set_max_bytes(store.bytes()));
    }
}
