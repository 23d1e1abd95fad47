//! A store that lives as long as the process: for tests, and for hosts without any storage.

use std::collections::BTreeMap;

use super::{Key, Store, StoreError, Write};

/// Keeps records in memory. A clone is an independent copy: what a disk would hold at that moment.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    records: BTreeMap<Key, String>,
    /// Bytes of all values.
    bytes: usize,
    /// Most bytes of all values.
    most: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::bounded(usize::MAX)
    }
}

impl MemoryStore {
    /// A store that is full at so many bytes of values.
    #[must_use]
    pub fn bounded(bytes: usize) -> Self {
        Self { records: BTreeMap::new(), bytes: 0, most: bytes }
    }

    /// Bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it full at so many bytes from now on; what it holds already stays.
    pub fn set_bound(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// Its size after these changes.
    fn size_after(&self, writes: &[Write<'_>]) -> usize {
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
    fn apply(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let after = if self.most == usize::MAX { 0 } else { self.size_after(writes) };
        if after > self.most && after > self.bytes {
            return Err(StoreError { full: true, message: String::from("the bound is reached") });
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
        store_suite::run_full(MemoryStore::default(), |store| store.set_bound(store.bytes()));
    }
}
