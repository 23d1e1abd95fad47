//! A store that lives as long as the process: for tests, and for hosts without any storage.

use std::collections::BTreeMap;

use super::{Key, Store, StoreError, Write};

/// Keeps records in memory. A clone is an independent copy: what a disk would hold at that moment.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Key, String>,
}

impl Store for MemoryStore {
    fn apply(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        for write in writes {
            match write.value {
                Some(value) => self.records.insert(write.key, value.to_owned()),
                None => self.records.remove(&write.key),
            };
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

    #[test]
    fn it_passes_the_suite() {
        crate::testing::store_suite::run(MemoryStore::default, |store| store);
    }
}
