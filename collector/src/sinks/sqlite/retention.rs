//! Retention: drops whole parts, then dictionary rows that only they referred to, then free pages.
//!
//! It works in steps of some milliseconds (dropping a part: some tenths of a second) on the writer's thread, between
//! deliveries.

use rusqlite::{Connection, TransactionBehavior, params};

use super::FILE;
use super::parts::{Part, pages};
use super::writer::{SweepCursor, Writer};
use crate::clock::{self, ClockGuard};
use crate::config::Embedded;
use crate::sinks::SinkError;
use crate::sinks::days::DAY_MS;

/// Rows of a dictionary that one step checks.
const SWEEP_ROWS_PER_STEP: i64 = 20_000;

/// Pages that one step returns to the file system: a megabyte.
const VACUUM_PAGES_PER_STEP: u32 = 64;

/// Free pages are kept for new events unless they are more than this fraction of those in use, and more than the
/// minimum.
const FREE_PAGES_DIVISOR: i64 = 8;
const MIN_FREE_PAGES: i64 = 256;

/// Approximate bytes of an install: its row and its entries in two indices.
const INSTALL_BYTES: u64 = 128;

/// Fraction of `retention_bytes` for installs whose events are deleted.
const INSTALLS_DIVISOR: u64 = 4;

/// Dictionaries in the order in which they are swept. Installs come last and have a rule of their own.
const SWEPT_TABLES: [&str; 4] = ["session", "user", "context", "word"];

impl Writer {
    /// Runs one step of retention.
    pub(super) fn run_retention_step(&mut self) -> Result<bool, SinkError> {
        let now = self.retention_time();
        self.run_retention_step_at(now.map_err(|error| SinkError::retryable(format!("{FILE}: {error}")))?)
    }

    /// Returns the time by which events expire: the clock's while it is plausible, else an extrapolation of the last
    /// plausible time.
    pub(super) fn retention_time(&mut self) -> rusqlite::Result<i64> {
        self.retention_time_at(clock::now(), clock::monotonic())
    }

    pub(super) fn retention_time_at(&mut self, now: i64, monotonic: i64) -> rusqlite::Result<i64> {
        let mut guard = match self.guard.take() {
            Some(guard) => guard,
            None => {
                // The parts have the day of the latest arrival; a new store has 0.
                let days = super::parts::all(&self.connection)?.into_iter().map(|part| part.last_day);
                let newest = days.filter(|day| *day > 0).max();
                let newest = newest.map_or(now, |day| day.saturating_add(1).saturating_mul(DAY_MS));
                ClockGuard::new(newest.min(now), monotonic)
            }
        };
        let doubted = guard.doubts();
        let believed = guard.believes(now, monotonic);
        let time = if believed { now } else { guard.reckoned(monotonic) };
        if !believed && !doubted {
            tracing::warn!(
                now,
                time,
                "the clock is weeks from where it was: retention goes by the time that has passed since"
            );
        }
        self.guard = Some(guard);
        Ok(time)
    }

    /// Runs one step of retention at `now`, milliseconds since the epoch. `false`: nothing is left to do.
    pub(super) fn run_retention_step_at(&mut self, now: i64) -> Result<bool, SinkError> {
        let done = self.step(now);
        if let Err(error) = &done {
            self.reconnect_after(error);
        }
        done.map_err(|error| SinkError::retryable(format!("{FILE}: {error}")))
    }

    fn step(&mut self, now: i64) -> rusqlite::Result<bool> {
        if self.drop_expired_part(now)? || self.sweep()? || self.release_free_pages()? {
            return Ok(true);
        }
        self.report_metrics()?;
        Ok(false)
    }

    /// Drops the oldest part if it has expired or the store is too large.
    pub(super) fn drop_expired_part(&mut self, now: i64) -> rusqlite::Result<bool> {
        let Embedded { retention_days, retention_bytes, .. } = self.settings;
        if retention_days == 0 && retention_bytes == 0 {
            return Ok(false);
        }
        let all = super::parts::all(&self.connection)?;
        let Some(oldest) = all.first() else { return Ok(false) };
        let today = now.div_euclid(DAY_MS);
        let kept_days = i64::try_from(retention_days).unwrap_or(i64::MAX);
        // A day in the future proves nothing, because the clock was wrong then or is now. Such a part is as old as the
        // next plausible one.
        let is_in_future = |part: &Part| part.first_day > today + 1;
        let since = if is_in_future(oldest) {
            all.iter().find(|part| !is_in_future(part)).map(|part| part.first_day)
        } else {
            Some(oldest.last_day)
        };
        let is_old = retention_days > 0 && since.is_some_and(|day| day.saturating_add(kept_days) < today);
        let is_old = is_old && !self.parts()?.is_empty();
        let is_dropped = is_old || (all.len() > 1 && self.is_too_large()?);
        if !is_dropped {
            return Ok(false);
        }
        let position = i64::try_from(self.position).unwrap_or(i64::MAX) + 1;
        let mut parts = self.take_parts()?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if parts.is_only_part() {
            parts.begin_next(&transaction, position, today)?;
        }
        parts.drop_oldest(&transaction)?;
        transaction.commit()?;
        tracing::info!(part = oldest.id, days = kept_days, is_old, "the oldest part of the embedded store was deleted");
        self.put_parts(parts);
        self.sweep = Some(SweepCursor::default());
        self.report_metrics()?;
        Ok(true)
    }

    fn is_too_large(&self) -> rusqlite::Result<bool> {
        let max_bytes = self.settings.retention_bytes;
        Ok(max_bytes > 0 && self.used_bytes()? > max_bytes)
    }

    /// Returns the bytes of the database in use.
    pub(super) fn used_bytes(&self) -> rusqlite::Result<u64> {
        let page_bytes: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        Ok(pages(&self.connection)?.0.saturating_mul(page_bytes).unsigned_abs())
    }

    /// Deletes some dictionary rows that no part refers to.
    fn sweep(&mut self) -> rusqlite::Result<bool> {
        let Some(SweepCursor { table, row }) = self.sweep else { return Ok(false) };
        let (_, oldest) = self.parts()?.ids();
        let next = |sql: &Connection, name: &str| {
            let query = format!("SELECT min(id) FROM {name} WHERE id > ?1");
            sql.prepare_cached(&query)?.query_row([row], |row| row.get::<_, Option<i64>>(0))
        };
        let name = SWEPT_TABLES.get(table).copied().unwrap_or("install");
        let Some(first) = next(&self.connection, name)? else {
            self.sweep = (table < SWEPT_TABLES.len()).then_some(SweepCursor { table: table + 1, row: 0 });
            return Ok(self.sweep.is_some());
        };
        let last = first + SWEEP_ROWS_PER_STEP - 1;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = 0;
        if table < SWEPT_TABLES.len() {
            let query = format!("DELETE FROM {name} WHERE id BETWEEN ?1 AND ?2 AND part < ?3");
            deleted = transaction.prepare_cached(&query)?.execute([first, last, oldest])?;
        } else {
            evict_installs(&transaction, (first, last), oldest, &self.settings)?;
        }
        transaction.commit()?;
        if deleted > 0 && matches!(name, "word" | "context") {
            self.dictionary.reset_counts();
        }
        self.sweep = Some(SweepCursor { table, row: last });
        Ok(true)
    }

    /// Returns some free pages to the file system if there are many.
    fn release_free_pages(&mut self) -> rusqlite::Result<bool> {
        let (used, free) = pages(&self.connection)?;
        if free <= MIN_FREE_PAGES.max(used / FREE_PAGES_DIVISOR) || !self.can_shrink {
            return Ok(false);
        }
        // Every step of the statement frees a page.
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES_PER_STEP})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(pages(&self.connection)?.1 < free)
    }
}

/// Deletes installs in a range of IDs whose events are deleted, of apps that have too many of them. Those first stored
/// go first.
fn evict_installs(
    sql: &Connection,
    (first, last): (i64, i64),
    oldest: i64,
    settings: &Embedded,
) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached("SELECT id, installs FROM app")?;
    let apps = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let apps: Vec<(i64, i64)> = apps.collect::<rusqlite::Result<_>>()?;
    let mut max_installs = settings.remembered_installs;
    if settings.retention_bytes > 0 {
        let share = settings.retention_bytes / INSTALLS_DIVISOR / INSTALL_BYTES / (apps.len() as u64).max(1);
        max_installs = max_installs.min(share);
    }
    let max_installs = i64::try_from(max_installs).unwrap_or(i64::MAX);
    for (app, installs) in apps.into_iter().filter(|(_, installs)| *installs > max_installs) {
        let query = "DELETE FROM install WHERE id IN (SELECT id FROM install WHERE id BETWEEN ?1 AND ?2 AND app = ?3
            AND part < ?4 ORDER BY id LIMIT ?5) RETURNING first_time";
        let mut statement = sql.prepare_cached(query)?;
        let deleted =
            statement.query_map([first, last, app, oldest, installs - max_installs], |row| row.get::<_, i64>(0))?;
        let deleted: Vec<i64> = deleted.collect::<rusqlite::Result<_>>()?;
        let Some(latest) = deleted.iter().max() else { continue };
        let query = "UPDATE app SET installs = installs - ?2, forgotten_installs = forgotten_installs + ?2,
            installs_complete_from = max(coalesce(installs_complete_from, ?3), ?3) WHERE id = ?1";
        sql.prepare_cached(query)?.execute(params![app, deleted.len(), latest + 1])?;
    }
    Ok(())
}
