//! What the embedded store tells of itself.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::head;

/// Figures of the embedded store. All but the size count since the store was made.
#[derive(Debug, Default)]
pub struct Store {
    open: AtomicBool,
    bytes: AtomicU64,
    deleted_events: AtomicU64,
    forgotten_installs: AtomicU64,
    codes_in_rows: AtomicU64,
    contexts_in_rows: AtomicU64,
}

/// One figure: its name, its type, its help, and where it is.
type Figure = (&'static str, &'static str, &'static str, fn(&Store) -> &AtomicU64);

const FIGURES: [Figure; 5] = [
    ("subway_store_bytes", "gauge", "Bytes of the embedded store that are in use.", |store| &store.bytes),
    (
        "subway_store_deleted_events_total",
        "counter",
        "Events that retention deleted from the embedded store, since it was made.",
        |store| &store.deleted_events,
    ),
    (
        "subway_store_forgotten_installs_total",
        "counter",
        "Installs whose first time the embedded store forgot, because their app has too many without events; since it was made.",
        |store| &store.forgotten_installs,
    ),
    (
        "subway_store_codes_in_rows_total",
        "counter",
        "Events that keep their code in the row, because their app has too many codes; since the embedded store was made.",
        |store| &store.codes_in_rows,
    ),
    (
        "subway_store_contexts_in_rows_total",
        "counter",
        "Batches that keep their context in the row, because their app has too many contexts; since the embedded store was made.",
        |store| &store.contexts_in_rows,
    ),
];

impl Store {
    /// Takes over what the store itself says: deleted events, forgotten installs, codes and contexts in rows.
    pub fn set(&self, [deleted, forgotten, codes, contexts]: [u64; 4]) {
        self.open.store(true, Ordering::Relaxed);
        self.deleted_events.store(deleted, Ordering::Relaxed);
        self.forgotten_installs.store(forgotten, Ordering::Relaxed);
        self.codes_in_rows.store(codes, Ordering::Relaxed);
        self.contexts_in_rows.store(contexts, Ordering::Relaxed);
    }

    /// The size of the database, bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many codes and contexts stayed in rows.
    pub fn kept_in_rows(&self, (codes, contexts): (u64, u64)) {
        self.codes_in_rows.fetch_add(codes, Ordering::Relaxed);
        self.contexts_in_rows.fetch_add(contexts, Ordering::Relaxed);
    }

    /// Bytes of the database that are in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Events that keep their code, and batches that keep their context, in the row.
    #[must_use]
    pub fn in_rows(&self) -> (u64, u64) {
        (self.codes_in_rows.load(Ordering::Relaxed), self.contexts_in_rows.load(Ordering::Relaxed))
    }

    /// Nothing, if there is no embedded store.
    pub(super) fn write(&self, out: &mut String) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut family = "";
        for (name, kind, help, figure) in FIGURES {
            head(out, &mut family, name, help, kind);
            let _ = writeln!(out, "{name} {}", figure(self).load(Ordering::Relaxed));
        }
    }
}
