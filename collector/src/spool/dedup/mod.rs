//! Dedup index: the event IDs that were seen, by app, as far back as the app's horizon.
//!
//! docs/adr/0008 has the reasons.
//!
//! # Limits
//!
//! [`DedupSettings`] bounds the IDs in memory, the memory of the filters, and the disk space that a merge leaves
//! free. [`Horizon`] bounds an app's index by age and by bytes.
//!
//! # Layout on disk
//!
//! New IDs are in the table `fresh` of `spool.db`, a blob per app and commit. Older ones are in parts: sorted files
//! in `dedup/` that never change, with one row each in the table `part`. `part` describes the file format.
//!
//! # Write
//!
//! A new ID is added to its app's set in memory and to `fresh`, in the transaction that stores its event. A large set
//! is sealed: a thread writes it to a part, the next transaction inserts the row of the part, and the rows of `fresh`
//! are deleted afterwards. Another thread merges parts.
//!
//! # Read
//!
//! A lookup searches the set in memory, then the parts from the newest to the oldest. A part's filter saves most
//! reads of its file.
//!
//! # Expiry
//!
//! Parts expire as a whole, the oldest of an app first. `forgotten_to` says up to when IDs may be missing.
//!
//! # Recovery
//!
//! The sets are loaded from `fresh`. Files without a row are removed. A damaged part is removed from the index and
//! counted as lost.
//!
//! # Invariants
//!
//! Each holds in every committed state:
//! * every ID seen after its app's `forgotten_to` is in a row of `fresh` or in a part that has a row;
//! * a part was complete on disk before the transaction that inserted its row.

mod expiry;
mod fault;
mod filter;
mod hash;
mod load;
mod maintenance;
mod migrate;
mod part;
mod partial_file;
mod plan;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};
use subway_protocol::Id;

use super::SpoolError;
use crate::clock::ClockGuard;
use hash::HashKey;
use part::{IdLookup, Part, PartMeta};
use worker::{IdSet, WorkerResult, Workers};

pub use load::DEDUP_FOLDER;
pub use plan::{Horizon, Horizons};

/// Part files that are open at once. Beyond this all are closed, and opened again when needed.
const MAX_OPEN_FILES: usize = 256;

/// Limits of the index.
#[derive(Clone, Debug)]
pub struct DedupSettings {
    /// IDs in memory, of all apps, before the largest sets are sealed.
    ///
    /// While those are being written, as many new ones can be added. Commits wait only at twice as many, all of which
    /// may then be written at once: four times as many in all on a slow disk. Writing takes 16 more bytes for each ID
    /// that is written.
    pub fresh_ids: u64,
    /// Bytes of filters in memory. A part whose filter does not fit is read from disk for every ID in its range.
    pub memory_bytes: u64,
    /// Bytes of the file system that a merge leaves free for everything else. A merge that would use them does not
    /// start.
    pub reserve_bytes: u64,
}

impl Default for DedupSettings {
    fn default() -> Self {
        // The largest set that fits in a table of 2^20 places, 17 MiB; while it is being sealed the next one fills.
        Self { fresh_ids: 900_000, memory_bytes: 256 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}

/// Size and reach of one app's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupExtent {
    /// Number of IDs.
    pub ids: u64,
    /// Bytes of the IDs on disk.
    pub bytes: u64,
    /// IDs seen at or before this time may be forgotten, milliseconds since the epoch. `None` if none was forgotten.
    pub forgotten_to: Option<i64>,
    /// Parts lost since the start because their files were missing or damaged.
    pub lost_parts: u64,
    /// Age up to which an ID is kept, milliseconds.
    pub age_ms: i64,
}

impl DedupExtent {
    /// Returns how far back the index reaches at `now`, milliseconds.
    #[must_use]
    pub fn horizon_ms(&self, now: i64) -> i64 {
        let complete = self.forgotten_to.map_or(i64::MAX, |forgotten| now.saturating_sub(forgotten).max(0));
        self.age_ms.min(complete)
    }
}

/// Set of IDs that is being written to a part.
struct Sealing {
    ids: Arc<IdSet>,
    meta: PartMeta,
    /// Number of the last row of `fresh` that it includes.
    last_row: u64,
    /// Whether writing failed and has to be retried.
    failed: bool,
}

/// Index of one app.
struct AppIndex {
    fresh: IdSet,
    /// Times at which the first and the last ID of `fresh` were seen.
    seen_span: Option<(i64, i64)>,
    /// IDs added by the current transaction, 16 bytes each.
    new: Vec<u8>,
    sealing: Option<Sealing>,
    /// Parts, the oldest first.
    parts: Vec<Part>,
    merging: bool,
    sealed_to: u64,
    forgotten_to: Option<i64>,
    lost_parts: u64,
}

impl AppIndex {
    fn new(key: HashKey) -> Self {
        Self {
            fresh: IdSet::with_hasher(key),
            seen_span: None,
            new: Vec::new(),
            sealing: None,
            parts: Vec::new(),
            merging: false,
            sealed_to: 0,
            forgotten_to: None,
            lost_parts: 0,
        }
    }

    fn extend_seen_span(&mut self, from: i64, to: i64) {
        let (first, last) = self.seen_span.unwrap_or((from, to));
        self.seen_span = Some((first.min(from), last.max(to)));
    }

    /// Returns the number of IDs that are in no part yet.
    fn unsealed_ids(&self) -> u64 {
        (self.fresh.len() + self.sealing.as_ref().map_or(0, |sealing| sealing.ids.len())) as u64
    }

    fn extent(&self, age_ms: i64) -> DedupExtent {
        let unsealed = self.unsealed_ids();
        DedupExtent {
            ids: unsealed + self.parts.iter().map(|part| part.meta.ids).sum::<u64>(),
            bytes: unsealed * 16 + self.parts.iter().map(|part| part.meta.bytes()).sum::<u64>(),
            forgotten_to: self.forgotten_to,
            lost_parts: self.lost_parts,
            age_ms,
        }
    }
}

/// Changes of the current transaction besides new IDs. They are applied to memory after the commit.
enum Change {
    Sealed { app: i64, part: Part },
    Merged { app: i64, sources: Vec<u64>, part: Part },
    Expired { app: i64, parts: Vec<u64>, forgotten_to: i64 },
    Redated { app: i64, parts: Vec<PartMeta>, forgotten_to: Option<i64> },
}

/// Dedup index of all apps. The spool's writer owns it.
pub(super) struct Dedup {
    folder: PathBuf,
    key: HashKey,
    settings: DedupSettings,
    /// `None` until it is set. Until then no ID expires.
    horizons: Option<Horizons>,
    apps: BTreeMap<i64, AppIndex>,
    /// Number of IDs in the sets that are not being sealed.
    fresh_ids: u64,
    /// Numbers of the next row of `fresh` and of the next part.
    next_row: u64,
    next_part: u64,
    /// Apps to which the current transaction adds IDs.
    touched: Vec<i64>,
    changes: Vec<Change>,
    /// Apps whose extent has changed since it was last reported.
    extents_changed: BTreeSet<i64>,
    results: VecDeque<WorkerResult>,
    /// Apps that have rows of `fresh` to be deleted.
    apps_with_garbage: VecDeque<i64>,
    /// Whether the next transaction checks for expired parts.
    expiry_due: bool,
    workers: Workers,
    retry: maintenance::RetryTimes,
    clock_guard: ClockGuard,
    open_files: usize,
    lookups: Vec<IdLookup>,
    candidates: Vec<usize>,
}

impl Dedup {
    fn app(&mut self, app: i64) -> &mut AppIndex {
        let key = self.key;
        self.apps.entry(app).or_insert_with(|| AppIndex::new(key))
    }

    /// Adds new IDs to the index. Calls `found` with the index of each ID and whether it is new.
    pub(super) fn insert_new_ids(
        &mut self,
        sql: &Connection,
        app: i64,
        ids: impl Iterator<Item = Id>,
        mut found: impl FnMut(usize, bool),
    ) -> Result<(), SpoolError> {
        let key = self.key;
        let index = self.apps.entry(app).or_insert_with(|| AppIndex::new(key));
        self.lookups.clear();
        for (at, id) in ids.enumerate() {
            let id = u128::from_be_bytes(*id.as_bytes());
            let sealing = index.sealing.as_ref().is_some_and(|sealing| sealing.ids.contains(&id));
            if sealing || !index.fresh.insert(id) {
                found(at, false);
            } else {
                self.lookups.push(IdLookup { id, hash: key.hash(id), at, found: false });
            }
        }
        let mut lost = Vec::new();
        for part in index.parts.iter_mut().rev() {
            let was_open = part.is_open();
            if let Err(error) = part.search(&mut self.lookups, &mut self.candidates) {
                if fault::is_transient(&error) {
                    return Err(SpoolError::io(part.path().display().to_string(), error));
                }
                lost.push((part.meta.no, error.to_string()));
            }
            self.open_files += usize::from(part.is_open() && !was_open);
        }
        if index.new.is_empty() {
            self.touched.push(app);
        }
        for one in &self.lookups {
            if one.found {
                index.fresh.remove(&one.id);
            } else {
                index.new.extend(one.id.to_be_bytes());
            }
            found(one.at, !one.found);
        }
        if self.open_files > MAX_OPEN_FILES {
            self.close_files();
        }
        lost.into_iter().try_for_each(|(no, why)| self.drop_damaged(sql, app, no, &why))
    }

    fn close_files(&mut self) {
        for part in self.apps.values_mut().flat_map(|index| &mut index.parts) {
            part.close();
        }
        self.open_files = 0;
    }

    /// Returns how far back the index of `app` reaches at `now`, milliseconds.
    pub(super) fn horizon_ms(&self, app: i64, now: i64) -> i64 {
        self.extent(app).horizon_ms(now)
    }

    fn horizon(&self, app: i64) -> Horizon {
        self.horizons.as_ref().map(|horizons| horizons.of(app)).unwrap_or_default()
    }

    /// Sets how far back the indexes reach.
    pub(super) fn set_horizons(&mut self, horizons: Horizons) {
        for app in horizons.apps.keys() {
            self.app(*app);
        }
        self.horizons = Some(horizons);
        self.expiry_due = true;
        self.extents_changed.extend(self.apps.keys());
    }

    /// Returns the extent of each app's index.
    pub(super) fn extents(&self) -> BTreeMap<i64, DedupExtent> {
        self.apps.keys().map(|app| (*app, self.extent(*app))).collect()
    }

    /// Inserts the IDs that the transaction adds into `fresh`.
    pub(super) fn flush(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        for app in &self.touched {
            let Some(index) = self.apps.get(app).filter(|index| !index.new.is_empty()) else { continue };
            let values = params![app, self.next_row, now, index.new];
            sql.prepare_cached("INSERT INTO fresh VALUES (?1, ?2, ?3, ?4)")?.execute(values)?;
            self.next_row += 1;
        }
        Ok(())
    }

    /// Updates memory after the transaction was committed. Returns the extents that it changed.
    pub(super) fn committed(&mut self, now: i64) -> Vec<(i64, DedupExtent)> {
        for app in std::mem::take(&mut self.touched) {
            self.extents_changed.insert(app);
            let Some(index) = self.apps.get_mut(&app) else { continue };
            if !index.new.is_empty() {
                self.fresh_ids += (index.new.len() / 16) as u64;
                index.extend_seen_span(now, now);
                index.new.clear();
            }
        }
        self.apply_changes();
        let extents_changed = std::mem::take(&mut self.extents_changed);
        extents_changed.into_iter().map(|app| (app, self.extent(app))).collect()
    }

    fn extent(&self, app: i64) -> DedupExtent {
        let age_ms = self.horizon(app).age_ms;
        self.apps.get(&app).map_or(DedupExtent { age_ms, ..DedupExtent::default() }, |index| index.extent(age_ms))
    }

    /// Returns the horizons that were set.
    pub(super) fn horizons(&self) -> Option<Horizons> {
        self.horizons.clone()
    }
}

#[cfg(test)]
mod tests;
