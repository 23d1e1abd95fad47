//! Metrics of the embedded store.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntGauge, Registry};

use super::family::{counter, gauge};

/// Metrics of the embedded store. All but the size count since the store was created. They are shown when it is open.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    registry: Registry,
    families: OnceLock<Families>,
}

#[derive(Debug)]
struct Families {
    bytes: IntGauge,
    deleted_events: IntCounter,
    forgotten_installs: IntCounter,
    codes_in_rows: IntCounter,
    contexts_in_rows: IntCounter,
}

impl Families {
    fn register(registry: &Registry) -> Self {
        let counter = |name, help| counter(registry, name, help);
        Self {
            bytes: gauge(registry, "subway_store_bytes", "Bytes of the embedded store that are in use."),
            deleted_events: counter(
                "subway_store_deleted_events_total",
                "Events that retention deleted from the embedded store, since it was created.",
            ),
            forgotten_installs: counter(
                "subway_store_forgotten_installs_total",
                "Installs whose first time the embedded store forgot, because their app has too many without events; since it was created.",
            ),
            codes_in_rows: counter(
                "subway_store_codes_in_rows_total",
                "Events that keep their code in the row, because their app has too many codes; since the store was created.",
            ),
            contexts_in_rows: counter(
                "subway_store_contexts_in_rows_total",
                "Batches that keep their context in the row, because their app has too many contexts; since the store was created.",
            ),
        }
    }
}

impl StoreMetrics {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, families: OnceLock::new() }
    }

    fn families(&self) -> &Families {
        self.families.get_or_init(|| Families::register(&self.registry))
    }

    /// Sets the totals of the store: deleted events, forgotten installs, codes and contexts in rows.
    pub(crate) fn set(&self, [deleted, forgotten, codes, contexts]: [u64; 4]) {
        let families = self.families();
        let totals = [
            (&families.deleted_events, deleted),
            (&families.forgotten_installs, forgotten),
            (&families.codes_in_rows, codes),
            (&families.contexts_in_rows, contexts),
        ];
        for (counter, total) in totals {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Sets the size of the database, bytes.
    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.families().bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts codes and contexts that stayed in rows.
    pub(crate) fn kept_in_rows(&self, (codes, contexts): (u64, u64)) {
        self.families().codes_in_rows.inc_by(codes);
        self.families().contexts_in_rows.inc_by(contexts);
    }

    /// Returns the bytes of the database that are in use.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.families().bytes.get().unsigned_abs()
    }

    /// Returns how many events keep their code, and how many batches their context, in the row.
    #[cfg(test)]
    pub(crate) fn in_rows(&self) -> (u64, u64) {
        (self.families().codes_in_rows.get(), self.families().contexts_in_rows.get())
    }
}
