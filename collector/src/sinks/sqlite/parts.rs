//! Parts: events are stored in pairs of tables in the order of arrival, so that retention drops whole tables.
//!
//! `event_N` and `batch_N` belong to part N: the first has what metrics need of each event, the second every batch with
//! its events packed. The table `part` has a row for each part, oldest first. `part_app` says what each contains of
//! every app, so that a query reads only the parts that matter to it.
//!
//! A part without a `layout` is from before events were packed: `event_N` has a column for each of theirs, and the
//! index `metrics_N` what metrics need.

use std::collections::HashMap;

use rusqlite::{Connection, TransactionBehavior, params};

use super::columns;
use super::packed::CURRENT_LAYOUT;
use crate::sinks::days::DAY_MS;

/// Maximum events of a part. Dropping one takes some tenths of a second, and a store of a billion events has a few
/// hundred parts.
pub(super) const MAX_PART_EVENTS: i64 = 4_000_000;

/// Maximum days of arrival of a part, unless retention needs fewer.
const MAX_PART_DAYS: i64 = 31;

/// Number of parts in the span of retention. An event outlives its time by one of these at most.
const PARTS_PER_RETENTION: u64 = 32;

/// Limits of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartLimits {
    pub(super) events: i64,
    days: i64,
    /// Pages of the database; `None` for no limit.
    pages: Option<i64>,
}

impl PartLimits {
    /// Returns the limits for a retention; 0 is none.
    pub(super) fn of(days: u64, bytes: u64, page_bytes: u32) -> Self {
        let days =
            if days == 0 { MAX_PART_DAYS } else { i64::try_from(days / PARTS_PER_RETENTION).unwrap_or(MAX_PART_DAYS) };
        let pages = (bytes > 0)
            .then(|| i64::try_from(bytes / PARTS_PER_RETENTION / u64::from(page_bytes)).unwrap_or(i64::MAX).max(1));
        Self { events: MAX_PART_EVENTS, days: days.clamp(1, MAX_PART_DAYS), pages }
    }
}

/// Row of the table `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: i64,
    /// Position of its first event.
    pub(super) first: i64,
    /// Days since the epoch (UTC) on which its first and its latest event arrived.
    pub(super) first_day: i64,
    pub(super) last_day: i64,
    /// Pages of the database that were in use when it began.
    pages: i64,
}

/// Returns every part, oldest first.
pub(super) fn all(sql: &Connection) -> rusqlite::Result<Vec<Part>> {
    let mut statement = sql.prepare_cached("SELECT id, first, first_day, last_day, pages FROM part ORDER BY id")?;
    let parts = statement.query_map([], |row| {
        Ok(Part {
            id: row.get(0)?,
            first: row.get(1)?,
            first_day: row.get(2)?,
            last_day: row.get(3)?,
            pages: row.get(4)?,
        })
    })?;
    parts.collect()
}

/// Returns the parts that can contain events at the positions after `after`, oldest first.
pub(super) fn after(sql: &Connection, after: i64) -> rusqlite::Result<Vec<i64>> {
    let parts = all(sql)?;
    let begins = parts.partition_point(|part| part.first <= after.saturating_add(1)).saturating_sub(1);
    Ok(parts.into_iter().skip(begins).map(|part| part.id).collect())
}

/// Events of an app in a part, with their times in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppPart {
    pub(crate) part: i64,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
    is_packed: bool,
}

impl AppPart {
    /// Returns what metrics of the part are selected from. It is sorted by app and event time and needs no row lookups.
    pub(crate) fn metrics(&self) -> String {
        let part = self.part;
        if self.is_packed { format!("event_{part}") } else { format!("event_{part} INDEXED BY metrics_{part}") }
    }
}

/// Returns the parts with events of `app` at or after `from` and before `to`.
pub(crate) fn parts_of_app(sql: &Connection, app: i64, from: i64, to: i64) -> rusqlite::Result<Vec<AppPart>> {
    let query =
        "SELECT part, first_time, last_time, layout IS NOT NULL FROM part_app CROSS JOIN part ON part.id = part_app.part
        WHERE app = ?1 AND last_time >= ?2 AND first_time < ?3 ORDER BY part";
    let mut statement = sql.prepare_cached(query)?;
    let found = statement.query_map([app, from, to], |row| {
        Ok(AppPart { part: row.get(0)?, first_time: row.get(1)?, last_time: row.get(2)?, is_packed: row.get(3)? })
    })?;
    found.collect()
}

/// Returns the pages of the database in use, and the free pages.
pub(super) fn pages(sql: &Connection) -> rusqlite::Result<(i64, i64)> {
    let pragma = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = pragma("freelist_count")?;
    Ok((pragma("page_count")? - free, free))
}

/// Adds to every part the columns that were declared after it was created, and begins a part if the current one packs
/// events differently.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut layout = None;
    let parts = all(&sql)?;
    for part in &parts {
        let query = "SELECT layout FROM part WHERE id = ?1";
        layout = sql.prepare_cached(query)?.query_row([part.id], |row| row.get::<_, Option<String>>(0))?;
        add_columns(&sql, &format!("batch_{}", part.id), columns::batch_column_definitions())?;
        if layout.is_none() {
            add_columns(&sql, &format!("event_{}", part.id), columns::event_column_definitions())?;
        }
    }
    if let Some(last) = parts.last().filter(|_| layout.as_ref() != Some(&*CURRENT_LAYOUT)) {
        let query = format!("SELECT EXISTS (SELECT 1 FROM event_{})", last.id);
        if sql.query_row(&query, [], |row| row.get(0))? {
            let position: i64 = sql.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
            create_part(&sql, last.id + 1, position + 1, last.last_day)?;
        } else {
            sql.execute_batch(&format!("DROP TABLE event_{0}; DROP TABLE batch_{0}", last.id))?;
            sql.execute("DELETE FROM part WHERE id = ?1", [last.id])?;
            create_part(&sql, last.id, last.first, last.last_day)?;
        }
    }
    sql.commit()
}

fn add_columns(sql: &Connection, table: &str, declared: Vec<(&str, &str)>) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for (name, definition) in declared.into_iter().filter(|(name, _)| !names.iter().any(|known| known == name)) {
        sql.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {definition}"))?;
    }
    Ok(())
}

/// Creates a part without events.
fn create_part(sql: &Connection, id: i64, first: i64, day: i64) -> rusqlite::Result<Part> {
    sql.execute_batch(&columns::create_tables(id))?;
    let pages = pages(sql)?.0;
    let query = "INSERT INTO part (id, first, first_day, last_day, pages, layout) VALUES (?1, ?2, ?3, ?3, ?4, ?5)";
    sql.execute(query, params![id, first, day, pages, *CURRENT_LAYOUT])?;
    Ok(Part { id, first, first_day: day, last_day: day, pages })
}

/// Events of one app in the current part that `part_app` does not count yet.
#[derive(Clone, Copy, Debug)]
struct AppTotals {
    events: i64,
    first_time: i64,
    last_time: i64,
}

/// State of the part that is written. It is invalid after a transaction that did not commit.
pub(super) struct PartWriter {
    limits: PartLimits,
    current: Part,
    events: i64,
    oldest: i64,
    pending_totals: HashMap<i64, AppTotals>,
    last_day_noted: i64,
    insert_event: String,
    insert_batch: String,
}

impl PartWriter {
    pub(super) fn load(sql: &Connection, limits: PartLimits) -> rusqlite::Result<Self> {
        let parts = all(sql)?;
        let (Some(oldest), Some(current)) = (parts.first(), parts.last()) else {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        };
        let query = "SELECT coalesce(sum(events), 0) FROM part_app WHERE part = ?1";
        let events = sql.query_row(query, [current.id], |row| row.get(0))?;
        Ok(Self {
            limits,
            current: *current,
            events,
            oldest: oldest.id,
            pending_totals: HashMap::new(),
            last_day_noted: current.last_day,
            insert_event: columns::insert_event(current.id),
            insert_batch: columns::insert_batch(current.id),
        })
    }

    /// Returns the ID of the part that is written, and of the oldest.
    pub(super) fn ids(&self) -> (i64, i64) {
        (self.current.id, self.oldest)
    }

    pub(super) fn insert_event(&self) -> &str {
        &self.insert_event
    }

    pub(super) fn insert_batch(&self) -> &str {
        &self.insert_batch
    }

    /// Begins a new part if the current one is full. `position` and `received_at` are those of the next event.
    pub(super) fn begin_next_if_full(
        &mut self,
        sql: &Connection,
        position: i64,
        received_at: i64,
    ) -> rusqlite::Result<()> {
        let day = received_at.div_euclid(DAY_MS);
        if self.events == 0 {
            self.current = Part { first: position, first_day: day, last_day: day, ..self.current };
            let query = "UPDATE part SET first = ?2, first_day = ?3, last_day = ?3 WHERE id = ?1";
            sql.prepare_cached(query)?.execute([self.current.id, position, day])?;
            self.last_day_noted = day;
            return Ok(());
        }
        // A jump of the clock also begins a part, so that its events expire in their turn.
        if self.events >= self.limits.events || (day - self.current.first_day).abs() >= self.limits.days {
            return self.begin_next(sql, position, day);
        }
        self.current.last_day = self.current.last_day.max(day);
        Ok(())
    }

    /// Begins a new part if the current one has used its share of the bytes. Called once for each transaction.
    pub(super) fn begin_next_if_large(
        &mut self,
        sql: &Connection,
        position: i64,
        received_at: i64,
    ) -> rusqlite::Result<()> {
        let Some(max_pages) = self.limits.pages else { return Ok(()) };
        if self.events > 0 && pages(sql)?.0 - self.current.pages >= max_pages {
            self.begin_next(sql, position, received_at.div_euclid(DAY_MS))?;
        }
        Ok(())
    }

    /// Begins the next part.
    pub(super) fn begin_next(&mut self, sql: &Connection, position: i64, day: i64) -> rusqlite::Result<()> {
        self.flush(sql)?;
        self.current = create_part(sql, self.current.id + 1, position, day)?;
        (self.events, self.last_day_noted) = (0, day);
        let id = self.current.id;
        (self.insert_event, self.insert_batch) = (columns::insert_event(id), columns::insert_batch(id));
        Ok(())
    }

    /// Counts events of one app that were stored in the current part, the earliest and the latest at these times.
    pub(super) fn add_events(&mut self, app: i64, events: usize, first_time: i64, last_time: i64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.events += events;
        let totals = self.pending_totals.entry(app).or_insert(AppTotals { events: 0, first_time, last_time });
        totals.events += events;
        totals.first_time = totals.first_time.min(first_time);
        totals.last_time = totals.last_time.max(last_time);
    }

    /// Writes the pending totals. Call it before the commit.
    pub(super) fn flush(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let query = "INSERT INTO part_app (app, part, events, first_time, last_time) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET events = events + excluded.events, first_time = min(first_time, excluded.first_time),
            last_time = max(last_time, excluded.last_time)";
        let mut statement = sql.prepare_cached(query)?;
        for (app, totals) in self.pending_totals.drain() {
            statement.execute([app, self.current.id, totals.events, totals.first_time, totals.last_time])?;
        }
        if self.current.last_day > self.last_day_noted {
            let query = "UPDATE part SET last_day = ?2 WHERE id = ?1";
            sql.prepare_cached(query)?.execute([self.current.id, self.current.last_day])?;
            self.last_day_noted = self.current.last_day;
        }
        Ok(())
    }

    /// Drops the oldest part, which must not be the current one, with the rows that describe it.
    pub(super) fn drop_oldest(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let parts = all(sql)?;
        let [oldest, next, ..] = parts[..] else { return Ok(()) };
        let before = pages(sql)?.0;
        sql.execute(
            "UPDATE app SET deleted_events = deleted_events + gone.events,
                complete_from = max(coalesce(complete_from, gone.last_time + 1), gone.last_time + 1)
            FROM part_app AS gone WHERE gone.part = ?1 AND gone.app = app.id",
            [oldest.id],
        )?;
        sql.execute("DELETE FROM part_app WHERE part = ?1", [oldest.id])?;
        sql.execute("DELETE FROM part WHERE id = ?1", [oldest.id])?;
        sql.execute_batch(&format!("DROP TABLE event_{0}; DROP TABLE batch_{0}", oldest.id))?;
        sql.execute("DELETE FROM missing WHERE first < ?1", [next.first])?;
        sql.execute("INSERT INTO missing VALUES (1, ?1)", [next.first - 1])?;
        // Pages freed by the drop must not hide the growth of the current part.
        let freed = before - pages(sql)?.0;
        self.current.pages -= freed;
        sql.execute("UPDATE part SET pages = ?2 WHERE id = ?1", [self.current.id, self.current.pages])?;
        self.oldest = next.id;
        Ok(())
    }

    /// Returns whether the store has no events.
    pub(super) fn is_empty(&self) -> bool {
        self.is_only_part() && self.events == 0
    }

    /// Returns whether the current part is the only one.
    pub(super) fn is_only_part(&self) -> bool {
        self.oldest == self.current.id
    }
}
