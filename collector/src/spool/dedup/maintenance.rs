//! Background work of the index: sealing, merging and expiring parts.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::migrate::insert_part_row;
use super::part::{Part, PartMeta};
use super::worker::{IdSet, MergeError, Task, WorkerResult};
use super::{AppIndex, Change, Dedup, Sealing, plan};
use crate::disk;
use crate::spool::SpoolError;

/// Rows of `fresh` that one transaction deletes. Bounds how long the answers to clients wait behind it.
const GARBAGE_CHUNK_ROWS: u64 = 64;

/// Delay before a failed write is retried.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Upper bound of the delay between merges, which doubles after each failure. A merge reads and writes much and is
/// not urgent.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5 * 60);

/// Times before which failed writes are not retried.
#[derive(Default)]
pub(super) struct RetryTimes {
    seal: Option<Instant>,
    pub(super) merge: Option<Instant>,
    /// Last delay of merges, if the last merge failed.
    pub(super) merge_pause: Option<Duration>,
}

impl RetryTimes {
    fn postpone_merge(&mut self) -> Duration {
        let merge_pause = self.merge_pause.map_or(RETRY_DELAY, |merge_pause| (2 * merge_pause).min(MAX_RETRY_DELAY));
        (self.merge, self.merge_pause) = (Some(Instant::now() + merge_pause), Some(merge_pause));
        merge_pause
    }
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_none_or(|at| at <= Instant::now())
}

fn remove(part: &Part) {
    if let Err(error) = std::fs::remove_file(part.path()) {
        tracing::warn!(file = %part.path().display(), %error, "a file of the dedup index cannot be removed; the next start tries again");
    }
}

pub(super) fn save_app(
    sql: &Connection,
    app: i64,
    sealed_to: u64,
    forgotten_to: Option<i64>,
) -> Result<(), SpoolError> {
    let query = "INSERT INTO dedup_app VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET sealed_to = excluded.sealed_to, forgotten_to = excluded.forgotten_to";
    sql.prepare_cached(query)?.execute(params![app, sealed_to, forgotten_to])?;
    Ok(())
}

pub(super) fn delete_part_row(sql: &Connection, no: u64) -> Result<(), SpoolError> {
    sql.prepare_cached("DELETE FROM part WHERE no = ?1")?.execute([no])?;
    Ok(())
}

impl Dedup {
    /// Waits until full sets are written to disk, so that memory stays bounded.
    ///
    /// # Errors
    /// If the sets cannot be written.
    pub(in crate::spool) fn wait_below_cap(&mut self) -> Result<(), SpoolError> {
        if self.fresh_ids < 2 * self.settings.fresh_ids {
            return Ok(());
        }
        self.retry.seal = None;
        self.begin_seals();
        while self.apps.values().any(|index| index.sealing.is_some()) && self.results.is_empty() {
            let gone = || SpoolError::Other("the threads of the dedup index have ended".into());
            let done = self.workers.done.recv().map_err(|_| gone())?;
            if let WorkerResult::Sealed { app, part: Err(error) } = done {
                self.seal_failed(app, &error);
                return Err(SpoolError::io("the dedup index cannot be written", error));
            }
            self.results.push_back(done);
        }
        Ok(())
    }

    /// Takes the results of the threads and submits new tasks. Called between transactions.
    pub(in crate::spool) fn run_maintenance(&mut self) {
        while let Ok(done) = self.workers.done.try_recv() {
            self.results.push_back(done);
        }
        self.begin_seals();
        self.begin_merges();
    }

    /// Returns whether a transaction has work to do without new events.
    pub(in crate::spool) fn wants_transaction(&self) -> bool {
        !self.results.is_empty() || !self.apps_with_garbage.is_empty() || (self.expiry_due && self.horizons.is_some())
    }

    /// Returns whether a thread is working on something that needs a transaction when it is done.
    pub(in crate::spool) fn is_busy(&self) -> bool {
        self.wants_transaction() || self.apps.values().any(|index| index.sealing.is_some() || index.merging)
    }

    /// Makes the next transaction check for expired parts.
    pub(in crate::spool) fn schedule_expiry(&mut self) {
        self.expiry_due = true;
    }

    fn begin_seals(&mut self) {
        if is_due(self.retry.seal) {
            for sealing in self.apps.values_mut().filter_map(|index| index.sealing.as_mut()).filter(|s| s.failed) {
                sealing.failed = false;
                self.workers.submit(Task::Seal { meta: sealing.meta, ids: Arc::clone(&sealing.ids) });
            }
        }
        let cap = self.settings.fresh_ids;
        let too_many = self.fresh_ids >= cap;
        let large = |dedup: &Self, app: i64, index: &AppIndex| {
            super::part::bytes(index.fresh.len() as u64) >= dedup.horizon(app).part_bytes()
        };
        let mut ready: Vec<(usize, i64)> = self
            .apps
            .iter()
            .filter(|(app, index)| {
                index.sealing.is_none() && !index.fresh.is_empty() && (too_many || large(self, **app, index))
            })
            .map(|(app, index)| (index.fresh.len(), *app))
            .collect();
        ready.sort_unstable();
        for (_, app) in ready.into_iter().rev() {
            let own = self.apps.get(&app).is_some_and(|index| large(self, app, index));
            if own || (too_many && self.fresh_ids > cap / 2) {
                self.begin_seal(app);
            }
        }
    }

    fn begin_seal(&mut self, app: i64) {
        let (no, last_row) = (self.next_part, self.next_row - 1);
        let empty = IdSet::with_hasher(self.key);
        let Some(index) = self.apps.get_mut(&app) else { return };
        let Some((from, to)) = index.seen_span.take() else { return };
        self.next_part += 1;
        let ids = Arc::new(std::mem::replace(&mut index.fresh, empty));
        self.fresh_ids -= ids.len() as u64;
        let meta = PartMeta { no, app, ids: ids.len() as u64, from, to };
        self.workers.submit(Task::Seal { meta, ids: Arc::clone(&ids) });
        index.sealing = Some(Sealing { ids, meta, last_row, failed: false });
    }

    fn begin_merges(&mut self) {
        if !is_due(self.retry.merge) {
            return;
        }
        let horizons = self.horizons.clone().unwrap_or_default();
        let (mut free, mut refused) = (None, None);
        for (app, index) in self.apps.iter_mut().filter(|(_, index)| !index.merging && index.parts.len() > 1) {
            let metas: Vec<PartMeta> = index.parts.iter().map(|part| part.meta).collect();
            let Some(run) = plan::plan_merge(&metas, horizons.of(*app)) else { continue };
            let sources = metas[run].to_vec();
            let meta = PartMeta {
                no: self.next_part,
                app: *app,
                ids: sources.iter().map(|part| part.ids).sum(),
                from: sources.iter().map(|part| part.from).min().unwrap_or(0),
                to: sources.iter().map(|part| part.to).max().unwrap_or(0),
            };
            // Both are on the disk until the old ones go, and spool and stores need room meanwhile.
            let needed = meta.bytes().saturating_add(self.settings.reserve_bytes);
            let free = *free.get_or_insert_with(|| disk::free_bytes(&self.folder).unwrap_or(u64::MAX));
            if free < needed {
                refused = Some((*app, needed, free));
                continue;
            }
            self.next_part += 1;
            index.merging = true;
            self.workers.submit(Task::Merge { meta, sources });
        }
        if let Some((app, needed, free)) = refused {
            let merge_pause = self.retry.postpone_merge();
            tracing::warn!(
                app,
                needed,
                free,
                pause = ?merge_pause,
                "parts of the dedup index are not merged: the disk has too little room"
            );
        }
    }

    /// Applies the results of the threads to the database, and expires parts if that is due.
    pub(in crate::spool) fn apply_results(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        while let Some(done) = self.results.pop_front() {
            match done {
                WorkerResult::Sealed { app, part: Ok(part) } => self.install_sealed(sql, app, part)?,
                WorkerResult::Sealed { app, part: Err(error) } => self.seal_failed(app, &error),
                WorkerResult::Merged { app, sources, part: Ok(part) } => {
                    self.install_merged(sql, app, sources, part)?
                }
                WorkerResult::Merged { app, part: Err(error), .. } => self.merge_failed(sql, app, &error)?,
            }
        }
        if self.changes.is_empty() && std::mem::take(&mut self.expiry_due) {
            self.expire(sql, now)?;
        }
        self.delete_garbage(sql)
    }

    fn install_sealed(&mut self, sql: &Connection, app: i64, part: Part) -> Result<(), SpoolError> {
        let index = self.app(app);
        let last_row = index.sealing.as_ref().map_or(index.sealed_to, |sealing| sealing.last_row);
        insert_part_row(sql, &part)?;
        save_app(sql, app, last_row, index.forgotten_to)?;
        self.changes.push(Change::Sealed { app, part });
        Ok(())
    }

    fn seal_failed(&mut self, app: i64, error: &io::Error) {
        tracing::error!(app, why = %error, "a part of the dedup index cannot be written; its IDs stay in memory and in the log");
        if let Some(sealing) = &mut self.app(app).sealing {
            sealing.failed = true;
        }
        self.retry.seal = Some(Instant::now() + RETRY_DELAY);
    }

    fn install_merged(&mut self, sql: &Connection, app: i64, sources: Vec<u64>, part: Part) -> Result<(), SpoolError> {
        let index = self.app(app);
        if !sources.iter().all(|no| index.parts.iter().any(|part| part.meta.no == *no)) {
            // One of them has expired or is lost meanwhile.
            index.merging = false;
            remove(&part);
            return Ok(());
        }
        sources.iter().try_for_each(|no| delete_part_row(sql, *no))?;
        insert_part_row(sql, &part)?;
        self.retry.merge_pause = None;
        self.changes.push(Change::Merged { app, sources, part });
        Ok(())
    }

    fn merge_failed(&mut self, sql: &Connection, app: i64, error: &MergeError) -> Result<(), SpoolError> {
        self.app(app).merging = false;
        let merge_pause = self.retry.postpone_merge();
        match error.damaged_part {
            Some(no) => self.drop_damaged(sql, app, no, &error.error.to_string()),
            None => {
                tracing::warn!(
                    app,
                    why = %error.error,
                    pause = ?merge_pause,
                    "parts of the dedup index cannot be merged; they stay as they are"
                );
                Ok(())
            }
        }
    }

    /// Removes a part whose file is damaged from the index, which reports it as lost from then on.
    pub(super) fn drop_damaged(&mut self, sql: &Connection, app: i64, no: u64, why: &str) -> Result<(), SpoolError> {
        let index = self.app(app);
        let Some(at) = index.parts.iter().position(|part| part.meta.no == no) else { return Ok(()) };
        let part = index.parts.remove(at);
        self.record_lost(sql, part.meta, why)
    }

    pub(super) fn record_lost(&mut self, sql: &Connection, meta: PartMeta, why: &str) -> Result<(), SpoolError> {
        tracing::error!(
            part = %super::part::path(&self.folder, meta.no).display(), app = meta.app, ids = meta.ids, seen_to = meta.to, why,
            "a part of the dedup index is lost: what was seen up to then may be stored again if it is sent again"
        );
        self.extents_changed.insert(meta.app);
        let index = self.app(meta.app);
        index.lost_parts += 1;
        index.forgotten_to = index.forgotten_to.max(Some(meta.to));
        delete_part_row(sql, meta.no)?;
        save_app(sql, meta.app, index.sealed_to, index.forgotten_to)
    }

    fn delete_garbage(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        let Some(app) = self.apps_with_garbage.front().copied() else { return Ok(()) };
        let sealed_to = self.app(app).sealed_to;
        let query = "DELETE FROM fresh WHERE app = ?1 AND no IN
            (SELECT no FROM fresh WHERE app = ?1 AND no <= ?2 ORDER BY no LIMIT ?3)";
        let deleted = sql.prepare_cached(query)?.execute(params![app, sealed_to, GARBAGE_CHUNK_ROWS])?;
        if (deleted as u64) < GARBAGE_CHUNK_ROWS {
            self.apps_with_garbage.pop_front();
        }
        Ok(())
    }

    /// Applies the committed changes to the state in memory.
    pub(super) fn apply_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Sealed { app, part } => {
                    self.extents_changed.insert(app);
                    let index = self.app(app);
                    if let Some(sealing) = index.sealing.take() {
                        index.sealed_to = sealing.last_row;
                    }
                    index.parts.push(part);
                    self.apps_with_garbage.push_back(app);
                    self.expiry_due = true;
                }
                Change::Merged { app, sources, part } => self.replace(app, &sources, Some(part)),
                Change::Redated { app, parts, forgotten_to } => {
                    let index = self.app(app);
                    index.forgotten_to = forgotten_to;
                    for part in &mut index.parts {
                        part.meta = parts.iter().find(|meta| meta.no == part.meta.no).copied().unwrap_or(part.meta);
                    }
                    self.extents_changed.insert(app);
                }
                Change::Expired { app, parts, forgotten_to } => {
                    let ids: u64 = self.count_ids(app, &parts);
                    tracing::info!(app, ids, forgotten_to, "the dedup index forgets its oldest parts");
                    self.replace(app, &parts, None);
                    self.app(app).forgotten_to = Some(forgotten_to);
                }
            }
        }
        self.enforce_filter_budget();
    }

    fn count_ids(&mut self, app: i64, parts: &[u64]) -> u64 {
        self.app(app).parts.iter().filter(|part| parts.contains(&part.meta.no)).map(|part| part.meta.ids).sum()
    }

    /// Replaces the parts `old` by `part`, if any, and removes their files.
    fn replace(&mut self, app: i64, old: &[u64], part: Option<Part>) {
        self.extents_changed.insert(app);
        let index = self.app(app);
        let at = index.parts.iter().position(|part| old.contains(&part.meta.no)).unwrap_or(0);
        let mut closed = 0;
        index.parts.retain_mut(|part| {
            let stays = !old.contains(&part.meta.no);
            if !stays {
                closed += usize::from(part.close());
                remove(part);
            }
            stays
        });
        if let Some(part) = part {
            index.parts.insert(at, part);
            index.merging = false;
        }
        self.open_files = self.open_files.saturating_sub(closed);
    }

    /// Drops filters that exceed their budget, the largest first, because each saves the same number of reads.
    fn enforce_filter_budget(&mut self) {
        let mut parts: Vec<&mut Part> = self.apps.values_mut().flat_map(|index| &mut index.parts).collect();
        let mut bytes: u64 = parts.iter().map(|part| part.filter_bytes()).sum();
        parts.sort_by_key(|part| part.filter_bytes());
        while bytes > self.settings.memory_bytes {
            let Some(part) = parts.pop() else { return };
            bytes -= part.filter_bytes();
            part.drop_filter();
        }
    }

    /// Schedules the work of a transaction again that was rolled back.
    pub(super) fn roll_back_changes(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Sealed { app, .. } => {
                    if let Some(sealing) = &mut self.app(app).sealing {
                        sealing.failed = true;
                    }
                }
                Change::Merged { app, part, .. } => {
                    self.app(app).merging = false;
                    remove(&part);
                }
                Change::Expired { .. } | Change::Redated { .. } => self.expiry_due = true,
            }
        }
    }
}
