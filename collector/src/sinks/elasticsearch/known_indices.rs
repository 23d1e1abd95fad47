//! Cache of the event indices that exist. Creating one takes the cluster long.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::EventIndex;
use super::server::Server;

/// Cached indices. Events have fewer days and years than this, unless `past_days` is raised.
const MAX_KNOWN_INDICES: usize = 10_000;

/// Indices that exist, or existed at the last refresh.
pub(super) struct KnownIndices {
    prefix: String,
    indices: Mutex<HashSet<EventIndex>>,
}

impl KnownIndices {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), indices: Mutex::default() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashSet<EventIndex>> {
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds indices that were written to.
    pub(super) fn insert(&self, indices: impl IntoIterator<Item = EventIndex>) {
        let mut known = self.known();
        if known.len() >= MAX_KNOWN_INDICES {
            known.clear();
        }
        known.extend(indices);
    }

    /// Removes indices that are about to be deleted.
    pub(super) fn remove(&self, names: &[String]) {
        let mut known = self.known();
        for index in names.iter().filter_map(|name| EventIndex::from_name(&self.prefix, name)) {
            known.remove(&index);
        }
    }

    /// Replaces the cache by the indices that the store lists.
    ///
    /// Without the right to list them the cache stays as it is. An index that is missing here only delays its first
    /// events.
    pub(super) async fn refresh(&self, server: &Server) {
        match server.index_names(&format!("{}-ods-*", self.prefix)).await {
            Ok(names) => {
                *self.known() = names.iter().filter_map(|name| EventIndex::from_name(&self.prefix, name)).collect()
            }
            Err(error) => tracing::info!(%error, "the store does not say which indices it has"),
        }
    }
}
