//! What becomes of old events: whole parts go, then what only they referred to, then the pages.
//!
//! Everything is done in steps of some milliseconds (dropping a part: some tenths of a second) on the writer's thread,
//! between deliveries.

use rusqlite::{Connection, TransactionBehavior, params};

use super::FILE;
use super::parts::{Part, pages};
use super::writer::{Sweep, Writer};
use crate::clock::{self, ClockGuard};
use crate::config::Embedded;
use crate::sinks::SinkError;
use crate::sinks::days::DAY_MS;

/// Rows of a dictionary that one step looks at.
const SWEEP_ROWS: i64 = 20_000;

/// Pages that one step gives back to the file system: a megabyte.
const PAGES_GIVEN_BACK: u32 = 64;

/// Free pages are kept for what comes next unless they are more than this part of those in use, and more than so many.
const FREE_SHARE: i64 = 8;
const FREE_PAGES: i64 = 256;

/// About how many bytes an install takes: its row and its places in two indices.
const INSTALL_BYTES: u64 = 128;

/// The part of `retention_bytes` that installs may take whose events are gone.
const INSTALLS_SHARE: u64 = 4;

/// The dictionaries, in the order in which they are swept; installs are last and have a rule of their own.
const SWEPT: [&str; 4] = ["session", "user", "context", "word"];

impl Writer {
    /// [`Writer::upkeep`] now.
    pub(super) fn retain(&mut self) -> Result<bool, SinkError> {
        let now = self.time_of_retention();
        self.upkeep(now.map_err(|error| SinkError::retryable(format!("{FILE}: {error}")))?)
    }

    /// The time by which events are old: the clock's while it is believed, else what it would be if it had gone on.
    pub(super) fn time_of_retention(&mut self) -> rusqlite::Result<i64> {
        self.time_by(clock::now(), clock::monotonic())
    }

    pub(super) fn time_by(&mut self, now: i64, monotonic: i64) -> rusqlite::Result<i64> {
        let mut guard = match self.guard.take() {
            Some(guard) => guard,
            None => {
                // The store knows on which day something last arrived; one that is new says 0.
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

    /// Does one step of what retention asks for at `now`, milliseconds since the epoch. `false`: nothing is left to do.
    pub(super) fn upkeep(&mut self, now: i64) -> Result<bool, SinkError> {
        let done = self.step(now);
        if let Err(error) = &done {
            self.reconnect_after(error);
        }
        done.map_err(|error| SinkError::retryable(format!("{FILE}: {error}")))
    }

    fn step(&mut self, now: i64) -> rusqlite::Result<bool> {
        if self.drop_old(now)? || self.sweep()? || self.give_back()? {
            return Ok(true);
        }
        self.tell()?;
        Ok(false)
    }

    /// Drops the oldest part if it is too old, or the store too large.
    pub(super) fn drop_old(&mut self, now: i64) -> rusqlite::Result<bool> {
        let Embedded { retention_days, retention_bytes, .. } = self.settings;
        if retention_days == 0 && retention_bytes == 0 {
            return Ok(false);
        }
        let all = super::parts::all(&self.connection)?;
        let Some(oldest) = all.first() else { return Ok(false) };
        let today = now.div_euclid(DAY_MS);
        let kept_days = i64::try_from(retention_days).unwrap_or(i64::MAX);
        // Days that are still to come say nothing, as the clock was wrong then or is now: such a part is as old as the next one
        // that is believed.
        let to_come = |part: &Part| part.first_day > today + 1;
        let since = if to_come(oldest) {
            all.iter().find(|part| !to_come(part)).map(|part| part.first_day)
        } else {
            Some(oldest.last_day)
        };
        let is_old = retention_days > 0 && since.is_some_and(|day| day.saturating_add(kept_days) < today);
        let is_old = is_old && !self.parts()?.is_empty();
        let goes = is_old || (all.len() > 1 && self.is_too_large()?);
        if !goes {
            return Ok(false);
        }
        let position = i64::try_from(self.position).unwrap_or(i64::MAX) + 1;
        let mut parts = self.take_parts()?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if parts.is_alone() {
            parts.begin(&transaction, position, today)?;
        }
        parts.drop_oldest(&transaction)?;
        transaction.commit()?;
        tracing::info!(part = oldest.id, days = kept_days, is_old, "the oldest part of the embedded store was deleted");
        self.put_parts(parts);
        self.sweep = Some(Sweep::default());
        self.tell()?;
        Ok(true)
    }

    fn is_too_large(&self) -> rusqlite::Result<bool> {
        let most = self.settings.retention_bytes;
        Ok(most > 0 && self.used_bytes()? > most)
    }

    /// Bytes of the database in use.
    pub(super) fn used_bytes(&self) -> rusqlite::Result<u64> {
        let page_bytes: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        Ok(pages(&self.connection)?.0.saturating_mul(page_bytes).unsigned_abs())
    }

    /// Deletes some rows of dictionaries that no part refers to any more.
    fn sweep(&mut self) -> rusqlite::Result<bool> {
        let Some(Sweep { table, row }) = self.sweep else { return Ok(false) };
        let (_, oldest) = self.parts()?.numbers();
        let next = |sql: &Connection, name: &str| {
            let query = format!("SELECT min(id) FROM {name} WHERE id > ?1");
            sql.prepare_cached(&query)?.query_row([row], |row| row.get::<_, Option<i64>>(0))
        };
        let name = SWEPT.get(table).copied().unwrap_or("install");
        let Some(first) = next(&self.connection, name)? else {
            self.sweep = (table < SWEPT.len()).then_some(Sweep { table: table + 1, row: 0 });
            return Ok(self.sweep.is_some());
        };
        let last = first + SWEEP_ROWS - 1;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut gone = 0;
        if table < SWEPT.len() {
            let query = format!("DELETE FROM {name} WHERE id BETWEEN ?1 AND ?2 AND part < ?3");
            gone = transaction.prepare_cached(&query)?.execute([first, last, oldest])?;
        } else {
            forget_installs(&transaction, (first, last), oldest, &self.settings)?;
        }
        transaction.commit()?;
        if gone > 0 && matches!(name, "word" | "context") {
            self.dictionary.recount();
        }
        self.sweep = Some(Sweep { table, row: last });
        Ok(true)
    }

    /// Gives some free pages back to the file system if there are many.
    fn give_back(&mut self) -> rusqlite::Result<bool> {
        let (used, free) = pages(&self.connection)?;
        if free <= FREE_PAGES.max(used / FREE_SHARE) || !self.gives_back {
            return Ok(false);
        }
        // Every step of the statement frees a page.
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(pages(&self.connection)?.1 < free)
    }
}

/// Forgets installs with these numbers whose events are gone, of apps that have too many of them. Those first stored go
/// first.
fn forget_installs(
    sql: &Connection,
    (first, last): (i64, i64),
    oldest: i64,
    settings: &Embedded,
) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached("SELECT id, installs FROM app")?;
    let apps = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let apps: Vec<(i64, i64)> = apps.collect::<rusqlite::Result<_>>()?;
    let mut most = settings.remembered_installs;
    if settings.retention_bytes > 0 {
        let share = settings.retention_bytes / INSTALLS_SHARE / INSTALL_BYTES / (apps.len() as u64).max(1);
        most = most.min(share);
    }
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    for (app, installs) in apps.into_iter().filter(|(_, installs)| *installs > most) {
        let query = "DELETE FROM install WHERE id IN (SELECT id FROM install WHERE id BETWEEN ?1 AND ?2 AND app = ?3
            AND part < ?4 ORDER BY id LIMIT ?5) RETURNING first_time";
        let mut statement = sql.prepare_cached(query)?;
        let gone = statement.query_map([first, last, app, oldest, installs - most], |row| row.get::<_, i64>(0))?;
        let gone: Vec<i64> = gone.collect::<rusqlite::Result<_>>()?;
        let Some(latest) = gone.iter().max() else { continue };
        let query = "UPDATE app SET installs = installs - ?2, forgotten_installs = forgotten_installs + ?2,
            installs_complete_from = max(coalesce(installs_complete_from, ?3), ?3) WHERE id = ?1";
        sql.prepare_cached(query)?.execute(params![app, gone.len(), latest + 1])?;
    }
    Ok(())
}
