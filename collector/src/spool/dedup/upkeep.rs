//! What the index does beside answering: sealing, merging, forgetting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::legacy::name;
use super::part::{Meta, Part};
use super::worker::{Done, IdSet, MergeError, Task};
use super::{AppIndex, Change, Dedup, Sealing, plan};
use crate::disk;
use crate::spool::SpoolError;

/// Rows of `fresh` that one transaction deletes, so that it never holds up the answers to clients for long.
const GARBAGE_ROWS: u64 = 64;

/// How long to wait before something that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A merge that fails again and again waits twice as long each time, up to this: it reads and writes a lot, and can wait.
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);

/// When what could not be written is tried again.
#[derive(Default)]
pub(super) struct Retry {
    seal: Option<Instant>,
    pub(super) merge: Option<Instant>,
    /// The last pause of merges, if the last one failed.
    pub(super) pause: Option<Duration>,
}

impl Retry {
    fn merge_later(&mut self) -> Duration {
        let pause = self.pause.map_or(RETRY, |pause| (2 * pause).min(LONGEST_RETRY));
        (self.merge, self.pause) = (Some(Instant::now() + pause), Some(pause));
        pause
    }
}

fn due(at: Option<Instant>) -> bool {
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

pub(super) fn unname(sql: &Connection, no: u64) -> Result<(), SpoolError> {
    sql.prepare_cached("DELETE FROM part WHERE no = ?1")?.execute([no])?;
    Ok(())
}

impl Dedup {
    /// Waits for the disk if memory is full, so that it stays bounded.
    ///
    /// # Errors
    /// If what is in memory cannot be written.
    pub(in crate::spool) fn make_room(&mut self) -> Result<(), SpoolError> {
        if self.fresh_ids < 2 * self.settings.fresh_ids {
            return Ok(());
        }
        self.retry.seal = None;
        self.begin_seals();
        while self.apps.values().any(|index| index.sealing.is_some()) && self.results.is_empty() {
            let gone = || SpoolError::Io("the threads of the dedup index have ended".into());
            let done = self.workers.done.recv().map_err(|_| gone())?;
            if let Done::Sealed { app, part: Err(why) } = done {
                self.seal_failed(app, &why);
                return Err(SpoolError::Io(format!("the dedup index cannot be written: {why}")));
            }
            self.results.push_back(done);
        }
        Ok(())
    }

    /// Takes what the threads have done and gives them more. Between transactions.
    pub(in crate::spool) fn upkeep(&mut self) {
        while let Ok(done) = self.workers.done.try_recv() {
            self.results.push_back(done);
        }
        self.begin_seals();
        self.begin_merges();
    }

    /// Whether a transaction has something to do although nobody writes.
    pub(in crate::spool) fn wants_transaction(&self) -> bool {
        !self.results.is_empty() || !self.garbage.is_empty() || (self.expiry_due && self.horizons.is_some())
    }

    /// Whether something is on its way that will soon want a transaction.
    pub(in crate::spool) fn is_busy(&self) -> bool {
        self.wants_transaction() || self.apps.values().any(|index| index.sealing.is_some() || index.merging)
    }

    /// Some time has passed.
    pub(in crate::spool) fn look_for_expired(&mut self) {
        self.expiry_due = true;
    }

    fn begin_seals(&mut self) {
        if due(self.retry.seal) {
            for sealing in self.apps.values_mut().filter_map(|index| index.sealing.as_mut()).filter(|s| s.failed) {
                sealing.failed = false;
                self.workers.begin(Task::Seal { meta: sealing.meta, ids: Arc::clone(&sealing.ids) });
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
        let (no, upto) = (self.next_part, self.next_row - 1);
        let empty = IdSet::with_hasher(self.key);
        let Some(index) = self.apps.get_mut(&app) else { return };
        let Some((from, to)) = index.span.take() else { return };
        self.next_part += 1;
        let ids = Arc::new(std::mem::replace(&mut index.fresh, empty));
        self.fresh_ids -= ids.len() as u64;
        let meta = Meta { no, app, ids: ids.len() as u64, from, to };
        self.workers.begin(Task::Seal { meta, ids: Arc::clone(&ids) });
        index.sealing = Some(Sealing { ids, meta, upto, failed: false });
    }

    fn begin_merges(&mut self) {
        if !due(self.retry.merge) {
            return;
        }
        let horizons = self.horizons.clone().unwrap_or_default();
        let (mut free, mut refused) = (None, None);
        for (app, index) in self.apps.iter_mut().filter(|(_, index)| !index.merging && index.parts.len() > 1) {
            let metas: Vec<Meta> = index.parts.iter().map(|part| part.meta).collect();
            let Some(run) = plan::merge(&metas, horizons.of(*app)) else { continue };
            let sources = metas[run].to_vec();
            let meta = Meta {
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
            self.workers.begin(Task::Merge { meta, sources });
        }
        if let Some((app, needed, free)) = refused {
            let pause = self.retry.merge_later();
            tracing::warn!(
                app,
                needed,
                free,
                ?pause,
                "parts of the dedup index are not merged: the disk has too little room"
            );
        }
    }

    /// Does in the database what the threads have prepared, and what is due.
    pub(in crate::spool) fn install(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        while let Some(done) = self.results.pop_front() {
            match done {
                Done::Sealed { app, part: Ok(part) } => self.install_sealed(sql, app, part)?,
                Done::Sealed { app, part: Err(why) } => self.seal_failed(app, &why),
                Done::Merged { app, sources, part: Ok(part) } => self.install_merged(sql, app, sources, part)?,
                Done::Merged { app, part: Err(error), .. } => self.merge_failed(sql, app, &error)?,
            }
        }
        if self.changes.is_empty() && std::mem::take(&mut self.expiry_due) {
            self.expire(sql, now)?;
        }
        self.delete_garbage(sql)
    }

    fn install_sealed(&mut self, sql: &Connection, app: i64, part: Part) -> Result<(), SpoolError> {
        let index = self.app(app);
        let upto = index.sealing.as_ref().map_or(index.sealed_to, |sealing| sealing.upto);
        name(sql, &part)?;
        save_app(sql, app, upto, index.forgotten_to)?;
        self.changes.push(Change::Sealed { app, part });
        Ok(())
    }

    fn seal_failed(&mut self, app: i64, why: &str) {
        tracing::error!(app, why, "a part of the dedup index cannot be written; its IDs stay in memory and in the log");
        if let Some(sealing) = &mut self.app(app).sealing {
            sealing.failed = true;
        }
        self.retry.seal = Some(Instant::now() + RETRY);
    }

    fn install_merged(&mut self, sql: &Connection, app: i64, sources: Vec<u64>, part: Part) -> Result<(), SpoolError> {
        let index = self.app(app);
        if !sources.iter().all(|no| index.parts.iter().any(|part| part.meta.no == *no)) {
            // One of them has expired or is lost meanwhile.
            index.merging = false;
            remove(&part);
            return Ok(());
        }
        sources.iter().try_for_each(|no| unname(sql, *no))?;
        name(sql, &part)?;
        self.retry.pause = None;
        self.changes.push(Change::Merged { app, sources, part });
        Ok(())
    }

    fn merge_failed(&mut self, sql: &Connection, app: i64, error: &MergeError) -> Result<(), SpoolError> {
        self.app(app).merging = false;
        let pause = self.retry.merge_later();
        match error.source {
            Some(no) => self.lose(sql, app, no, &error.why),
            None => {
                tracing::warn!(
                    app,
                    why = error.why,
                    ?pause,
                    "parts of the dedup index cannot be merged; they stay as they are"
                );
                Ok(())
            }
        }
    }

    /// A part cannot be read: it is taken out of the index, which says so from then on.
    pub(super) fn lose(&mut self, sql: &Connection, app: i64, no: u64, why: &str) -> Result<(), SpoolError> {
        let index = self.app(app);
        let Some(at) = index.parts.iter().position(|part| part.meta.no == no) else { return Ok(()) };
        let part = index.parts.remove(at);
        self.forget_lost(sql, part.meta, why)
    }

    pub(super) fn forget_lost(&mut self, sql: &Connection, meta: Meta, why: &str) -> Result<(), SpoolError> {
        tracing::error!(
            part = %super::part::path(&self.folder, meta.no).display(), app = meta.app, ids = meta.ids, seen_to = meta.to, why,
            "a part of the dedup index is lost: what was seen up to then may be stored again if it is sent again"
        );
        self.changed.insert(meta.app);
        let index = self.app(meta.app);
        index.lost_parts += 1;
        index.forgotten_to = index.forgotten_to.max(Some(meta.to));
        unname(sql, meta.no)?;
        save_app(sql, meta.app, index.sealed_to, index.forgotten_to)
    }

    fn delete_garbage(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        let Some(app) = self.garbage.front().copied() else { return Ok(()) };
        let sealed_to = self.app(app).sealed_to;
        let query = "DELETE FROM fresh WHERE app = ?1 AND no IN
            (SELECT no FROM fresh WHERE app = ?1 AND no <= ?2 ORDER BY no LIMIT ?3)";
        let deleted = sql.prepare_cached(query)?.execute(params![app, sealed_to, GARBAGE_ROWS])?;
        if (deleted as u64) < GARBAGE_ROWS {
            self.garbage.pop_front();
        }
        Ok(())
    }

    /// Memory follows the database.
    pub(super) fn apply_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Sealed { app, part } => {
                    self.changed.insert(app);
                    let index = self.app(app);
                    if let Some(sealing) = index.sealing.take() {
                        index.sealed_to = sealing.upto;
                    }
                    index.parts.push(part);
                    self.garbage.push_back(app);
                    self.expiry_due = true;
                }
                Change::Merged { app, sources, part } => self.replace(app, &sources, Some(part)),
                Change::Dated { app, parts, forgotten_to } => {
                    let index = self.app(app);
                    index.forgotten_to = forgotten_to;
                    for part in &mut index.parts {
                        part.meta = parts.iter().find(|meta| meta.no == part.meta.no).copied().unwrap_or(part.meta);
                    }
                    self.changed.insert(app);
                }
                Change::Expired { app, parts, forgotten_to } => {
                    let ids: u64 = self.replace_count(app, &parts);
                    tracing::info!(app, ids, forgotten_to, "the dedup index forgets its oldest parts");
                    self.replace(app, &parts, None);
                    self.app(app).forgotten_to = Some(forgotten_to);
                }
            }
        }
        self.fit_filters();
    }

    fn replace_count(&mut self, app: i64, parts: &[u64]) -> u64 {
        self.app(app).parts.iter().filter(|part| parts.contains(&part.meta.no)).map(|part| part.meta.ids).sum()
    }

    /// Puts `part`, if any, in the place of the parts `old`, whose files go.
    fn replace(&mut self, app: i64, old: &[u64], part: Option<Part>) {
        self.changed.insert(app);
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

    /// Keeps the filters within their budget: the largest go first, because each saves the same.
    fn fit_filters(&mut self) {
        let mut parts: Vec<&mut Part> = self.apps.values_mut().flat_map(|index| &mut index.parts).collect();
        let mut bytes: u64 = parts.iter().map(|part| part.filter_bytes()).sum();
        parts.sort_by_key(|part| part.filter_bytes());
        while bytes > self.settings.memory_bytes {
            let Some(part) = parts.pop() else { return };
            bytes -= part.filter_bytes();
            part.drop_filter();
        }
    }

    /// The transaction did not come about: what the threads prepared for it is done again.
    pub(super) fn discard_changes(&mut self) {
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
                Change::Expired { .. } | Change::Dated { .. } => self.expiry_due = true,
            }
        }
    }
}
