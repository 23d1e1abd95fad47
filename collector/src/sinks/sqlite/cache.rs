//! Caches dictionary entries of each app in memory.

use std::collections::HashMap;

/// Map with a faster hash than the standard library's, because every event is looked up several times. The seed differs
/// from run to run, and a sender who still caused collisions would be bounded by [`MAX_CACHE_BYTES`].
type FastMap<K, E> = HashMap<K, E, foldhash::fast::RandomState>;

/// Maximum bytes of one cache, so that all five stay below 40 MB. Beyond it, the entries of the largest app are
/// dropped.
const MAX_CACHE_BYTES: usize = 8_000_000;

/// Bytes of an entry beside its text: its slot in the table, which is half empty at worst, and the allocation.
const ENTRY_OVERHEAD_BYTES: usize = 100;

/// Entries by app and text.
pub(super) struct Cache<E> {
    apps: FastMap<i64, AppEntries<E>>,
    bytes: usize,
}

/// Entries of one app.
struct AppEntries<E> {
    entries: FastMap<String, E>,
    bytes: usize,
}

impl<E> Default for AppEntries<E> {
    fn default() -> Self {
        Self { entries: FastMap::default(), bytes: 0 }
    }
}

impl<E> Default for Cache<E> {
    fn default() -> Self {
        Self { apps: FastMap::default(), bytes: 0 }
    }
}

impl<E: Copy> Cache<E> {
    pub(super) fn get(&self, app: i64, text: &str) -> Option<E> {
        self.apps.get(&app)?.entries.get(text).copied()
    }

    pub(super) fn put(&mut self, app: i64, text: &str, entry: E) {
        if let Some(slot) = self.apps.get_mut(&app).and_then(|app_entries| app_entries.entries.get_mut(text)) {
            *slot = entry;
            return;
        }
        let bytes = text.len() + ENTRY_OVERHEAD_BYTES;
        if self.bytes + bytes > MAX_CACHE_BYTES {
            // A flood of texts in one app does not evict the entries of others.
            if let Some(largest) = self.apps.values_mut().max_by_key(|app_entries| app_entries.bytes) {
                self.bytes -= std::mem::take(largest).bytes;
            }
        }
        let app_entries = self.apps.entry(app).or_default();
        app_entries.entries.insert(text.to_owned(), entry);
        app_entries.bytes += bytes;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_bounded_by_their_bytes_and_cost_only_their_own_app() {
        let mut cache = Cache::default();
        cache.put(1, "known", 7);
        for number in 0..20_000 {
            cache.put(2, &format!("{number:0>2000}"), number);
            assert!(cache.bytes <= MAX_CACHE_BYTES);
        }
        let held: usize = cache
            .apps
            .values()
            .flat_map(|app_entries| app_entries.entries.keys())
            .map(|text| text.len() + ENTRY_OVERHEAD_BYTES)
            .sum();
        assert_eq!(held, cache.bytes);
        assert_eq!((cache.get(1, "known"), cache.get(2, &format!("{:0>2000}", 19_999))), (Some(7), Some(19_999)));
        assert_eq!(cache.get(2, &format!("{:0>2000}", 0)), None);
    }
}
