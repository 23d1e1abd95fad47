//! The dedup index: which event IDs were seen, by app and as far back as the app's horizon.
//!
//! An ID that is new is in the set of its app in memory, and in a row of the table `fresh`, written in the transaction that
//! stores its event. A set that has become large is sealed: a thread writes it to a part, a sorted file that never
//! changes, and the next transaction names the part and ends the time of the rows. Another thread merges parts. Parts go as
//! a whole, the oldest of an app first. docs/adr/0008 has the reasons.
//!
//! Invariants, in every committed state:
//! * every ID seen after its app's `forgotten_to` is in a row of `fresh` or in a part that is named;
//! * a part that is named was on the disk, whole, before the transaction that names it.

mod expiry;
mod fault;
mod filter;
mod hash;
mod legacy;
mod load;
mod part;
mod plan;
mod unfinished;
mod upkeep;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};
use subway_protocol::Id;

use super::SpoolError;
use crate::clock::ClockGuard;
use hash::HashKey;
use part::{Meta, Part, Sought};
use worker::{Done, IdSet, Workers};

pub use load::FOLDER;
pub use plan::{Horizon, Horizons};

/// Files of parts that are open at once; beyond it all are closed and opened again when needed.
const OPEN_FILES: usize = 256;

/// The index's caps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// IDs in memory, of all apps, before the largest sets are written to parts. While they are, as many come together again;
    /// commits wait only at twice as many, and so many may then be written at once: four times as many in all where the disk
    /// is slow. Writing takes 16 bytes more for each that is written.
    pub fresh_ids: u64,
    /// Bytes of filters in memory. A part whose filter does not fit is read from disk for every ID that may be in it.
    pub memory_bytes: u64,
    /// Bytes of the file system that a merge of parts leaves free for everything else; one that would not does not begin.
    pub reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        // The largest set that fits in a table of 2^20 places, 17 MiB; while it is being sealed the next one fills.
        Self { fresh_ids: 900_000, memory_bytes: 256 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}

/// What the index of one app holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// IDs that it knows.
    pub ids: u64,
    /// Bytes that they take on disk.
    pub bytes: u64,
    /// IDs seen at or before this may have been forgotten, milliseconds since the epoch; `None` if none was.
    pub forgotten_to: Option<i64>,
    /// Parts lost since the start because their files were missing or damaged.
    pub lost_parts: u64,
    /// How long an ID is remembered at most, milliseconds.
    pub age_ms: i64,
}

impl Extent {
    /// How far back the index reaches at `now`, milliseconds.
    #[must_use]
    pub fn horizon_ms(&self, now: i64) -> i64 {
        let complete = self.forgotten_to.map_or(i64::MAX, |forgotten| now.saturating_sub(forgotten).max(0));
        self.age_ms.min(complete)
    }
}

/// A set that is being written to a part.
struct Sealing {
    ids: Arc<IdSet>,
    meta: Meta,
    /// The last row of `fresh` that is in it.
    upto: u64,
    /// It could not be written, and is to be tried again.
    failed: bool,
}

/// The index of one app.
struct AppIndex {
    fresh: IdSet,
    /// When the first and last ID of `fresh` were seen.
    span: Option<(i64, i64)>,
    /// The IDs that the current transaction adds, 16 bytes each.
    new: Vec<u8>,
    sealing: Option<Sealing>,
    /// Oldest first.
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
            span: None,
            new: Vec::new(),
            sealing: None,
            parts: Vec::new(),
            merging: false,
            sealed_to: 0,
            forgotten_to: None,
            lost_parts: 0,
        }
    }

    fn note_span(&mut self, from: i64, to: i64) {
        let (first, last) = self.span.unwrap_or((from, to));
        self.span = Some((first.min(from), last.max(to)));
    }

    /// IDs that are in no part yet.
    fn loose_ids(&self) -> u64 {
        (self.fresh.len() + self.sealing.as_ref().map_or(0, |sealing| sealing.ids.len())) as u64
    }

    fn extent(&self, age_ms: i64) -> Extent {
        let loose = self.loose_ids();
        Extent {
            ids: loose + self.parts.iter().map(|part| part.meta.ids).sum::<u64>(),
            bytes: loose * 16 + self.parts.iter().map(|part| part.meta.bytes()).sum::<u64>(),
            forgotten_to: self.forgotten_to,
            lost_parts: self.lost_parts,
            age_ms,
        }
    }
}

/// What the current transaction changes beside adding IDs; memory follows after the commit.
enum Change {
    Sealed { app: i64, part: Part },
    Merged { app: i64, sources: Vec<u64>, part: Part },
    Expired { app: i64, parts: Vec<u64>, forgotten_to: i64 },
    Dated { app: i64, parts: Vec<Meta>, forgotten_to: Option<i64> },
}

/// The index. One thread has it: the spool's writer.
pub(super) struct Dedup {
    folder: PathBuf,
    key: HashKey,
    settings: Settings,
    /// `None` until told: before, nothing is forgotten.
    horizons: Option<Horizons>,
    apps: BTreeMap<i64, AppIndex>,
    /// IDs in the sets that are not being sealed.
    fresh_ids: u64,
    /// The number of the next row of `fresh`, and of the next part.
    next_row: u64,
    next_part: u64,
    /// Apps to which the current transaction adds IDs.
    touched: Vec<i64>,
    changes: Vec<Change>,
    /// Apps whose extent has changed since it was last told.
    changed: BTreeSet<i64>,
    results: VecDeque<Done>,
    /// Apps that have rows of `fresh` whose time is over.
    garbage: VecDeque<i64>,
    /// Whether it is to be looked whether parts have expired.
    expiry_due: bool,
    workers: Workers,
    retry: upkeep::Retry,
    guard: ClockGuard,
    open_files: usize,
    sought: Vec<Sought>,
    hits: Vec<usize>,
}

impl Dedup {
    fn app(&mut self, app: i64) -> &mut AppIndex {
        let key = self.key;
        self.apps.entry(app).or_insert_with(|| AppIndex::new(key))
    }

    /// Notes IDs as seen. Calls `found` with each one's index and whether it is new.
    pub(super) fn see(
        &mut self,
        sql: &Connection,
        app: i64,
        ids: impl Iterator<Item = Id>,
        mut found: impl FnMut(usize, bool),
    ) -> Result<(), SpoolError> {
        let key = self.key;
        let index = self.apps.entry(app).or_insert_with(|| AppIndex::new(key));
        self.sought.clear();
        for (at, id) in ids.enumerate() {
            let id = u128::from_be_bytes(*id.as_bytes());
            let sealing = index.sealing.as_ref().is_some_and(|sealing| sealing.ids.contains(&id));
            if sealing || !index.fresh.insert(id) {
                found(at, false);
            } else {
                self.sought.push(Sought { id, hash: key.hash(id), at, found: false });
            }
        }
        let mut lost = Vec::new();
        for part in index.parts.iter_mut().rev() {
            let was_open = part.is_open();
            if let Err(error) = part.search(&mut self.sought, &mut self.hits) {
                if fault::may_pass(&error) {
                    return Err(SpoolError::Io(format!("{}: {error}", part.path().display())));
                }
                lost.push((part.meta.no, error.to_string()));
            }
            self.open_files += usize::from(part.is_open() && !was_open);
        }
        if index.new.is_empty() {
            self.touched.push(app);
        }
        for one in &self.sought {
            if one.found {
                index.fresh.remove(&one.id);
            } else {
                index.new.extend(one.id.to_be_bytes());
            }
            found(one.at, !one.found);
        }
        if self.open_files > OPEN_FILES {
            self.close_files();
        }
        lost.into_iter().try_for_each(|(no, why)| self.lose(sql, app, no, &why))
    }

    fn close_files(&mut self) {
        for part in self.apps.values_mut().flat_map(|index| &mut index.parts) {
            part.close();
        }
        self.open_files = 0;
    }

    /// How far back the index of `app` reaches at `now`, milliseconds.
    pub(super) fn horizon_ms(&self, app: i64, now: i64) -> i64 {
        self.extent(app).horizon_ms(now)
    }

    fn horizon(&self, app: i64) -> Horizon {
        self.horizons.as_ref().map(|horizons| horizons.of(app)).unwrap_or_default()
    }

    /// Says how far back to reach from now on.
    pub(super) fn set_horizons(&mut self, horizons: Horizons) {
        for app in horizons.apps.keys() {
            self.app(*app);
        }
        self.horizons = Some(horizons);
        self.expiry_due = true;
        self.changed.extend(self.apps.keys());
    }

    /// What each app's index holds.
    pub(super) fn extents(&self) -> BTreeMap<i64, Extent> {
        self.apps.keys().map(|app| (*app, self.extent(*app))).collect()
    }

    /// Writes the IDs that the transaction adds.
    pub(super) fn flush(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        for app in &self.touched {
            let Some(index) = self.apps.get(app).filter(|index| !index.new.is_empty()) else { continue };
            let values = params![app, self.next_row, now, index.new];
            sql.prepare_cached("INSERT INTO fresh VALUES (?1, ?2, ?3, ?4)")?.execute(values)?;
            self.next_row += 1;
        }
        Ok(())
    }

    /// The transaction is on the disk. Gives what the indexes hold that it changed.
    pub(super) fn committed(&mut self, now: i64) -> Vec<(i64, Extent)> {
        for app in std::mem::take(&mut self.touched) {
            self.changed.insert(app);
            let Some(index) = self.apps.get_mut(&app) else { continue };
            if !index.new.is_empty() {
                self.fresh_ids += (index.new.len() / 16) as u64;
                index.note_span(now, now);
                index.new.clear();
            }
        }
        self.apply_changes();
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|app| (app, self.extent(app))).collect()
    }

    fn extent(&self, app: i64) -> Extent {
        let age_ms = self.horizon(app).age_ms;
        self.apps.get(&app).map_or(Extent { age_ms, ..Extent::default() }, |index| index.extent(age_ms))
    }

    /// What was set.
    pub(super) fn horizons(&self) -> Option<Horizons> {
        self.horizons.clone()
    }
}

#[cfg(test)]
mod tests;
