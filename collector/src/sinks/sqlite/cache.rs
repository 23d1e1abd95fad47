//! What is known in memory of the texts of each app.

use std::collections::HashMap;

/// Hashed faster than the standard library does, because every event is looked up several times. The seed differs from run to
/// run, and a sender who made texts collide all the same would meet [`CACHE_ENTRIES`].
type Hashed<K, E> = HashMap<K, E, foldhash::fast::RandomState>;

/// Entries of one cache. At about 100 bytes each the caches together stay below 40 MB; beyond, the app that has most of
/// them begins anew.
const CACHE_ENTRIES: usize = 65_536;

/// Entries by app and text.
pub(super) struct Cache<E> {
    apps: Hashed<i64, Hashed<String, E>>,
    entries: usize,
}

impl<E> Default for Cache<E> {
    fn default() -> Self {
        Self { apps: Hashed::default(), entries: 0 }
    }
}

impl<E: Copy> Cache<E> {
    pub(super) fn get(&self, app: i64, text: &str) -> Option<E> {
        self.apps.get(&app)?.get(text).copied()
    }

    pub(super) fn put(&mut self, app: i64, text: &str, entry: E) {
        let known = self.apps.entry(app).or_default();
        if let Some(place) = known.get_mut(text) {
            *place = entry;
            return;
        }
        if self.entries >= CACHE_ENTRIES {
            // A flood of texts in one app does not cost the others what is known of theirs.
            if let Some(largest) = self.apps.values_mut().max_by_key(|known| known.len()) {
                self.entries -= largest.len();
                largest.clear();
            }
        }
        self.apps.entry(app).or_default().insert(text.to_owned(), entry);
        self.entries += 1;
    }
}
