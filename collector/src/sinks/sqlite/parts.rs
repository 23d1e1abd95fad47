//! Parts: events are kept in pairs of tables in the order of arrival, so that what is too old goes as whole tables.
//!
//! `event_N` and `batch_N` belong to part N, and the index `metrics_N`. The table `part` has a row for each, oldest first;
//! `part_app` says what each holds of every app, so that a question touches only the parts that matter to it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::columns;
use crate::sinks::days::DAY_MS;

/// Events after which a part ends. Dropping one takes some tenths of a second, and a store of a billion events has a few
/// hundred parts.
pub(super) const PART_EVENTS: i64 = 4_000_000;

/// Days of arrival after which a part ends where retention does not ask for less.
const PART_DAYS: i64 = 31;

/// Parts that a span of retention is cut into: an event outlives its time by one of these at most.
const SHARES: u64 = 32;

/// When a part ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) events: i64,
    days: i64,
    /// Pages of the database; `None`: any number.
    pages: Option<i64>,
}

impl Ends {
    /// For these retentions; 0 is none.
    pub(super) fn of(days: u64, bytes: u64, page_bytes: u32) -> Self {
        let days = if days == 0 { PART_DAYS } else { i64::try_from(days / SHARES).unwrap_or(PART_DAYS) };
        let pages =
            (bytes > 0).then(|| i64::try_from(bytes / SHARES / u64::from(page_bytes)).unwrap_or(i64::MAX).max(1));
        Self { events: PART_EVENTS, days: days.clamp(1, PART_DAYS), pages }
    }
}

/// One part.
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

/// Every part, oldest first.
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

/// The parts that can hold events at the positions after `after`, oldest first.
pub(super) fn after(sql: &Connection, after: i64) -> rusqlite::Result<Vec<i64>> {
    let parts = all(sql)?;
    let begins = parts.partition_point(|part| part.first <= after.saturating_add(1)).saturating_sub(1);
    Ok(parts.into_iter().skip(begins).map(|part| part.id).collect())
}

/// What a part holds of an app: its event times, milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) part: i64,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
}

/// The parts with events of `app` at or after `from` and before `to`.
pub(crate) fn holding(sql: &Connection, app: i64, from: i64, to: i64) -> rusqlite::Result<Vec<Holding>> {
    let query =
        "SELECT part, first_time, last_time FROM part_app WHERE app = ?1 AND last_time >= ?2 AND first_time < ?3
        ORDER BY part";
    let mut statement = sql.prepare_cached(query)?;
    let found = statement.query_map([app, from, to], |row| {
        Ok(Holding { part: row.get(0)?, first_time: row.get(1)?, last_time: row.get(2)? })
    })?;
    found.collect()
}

/// Pages of the database in use, and pages that are free.
pub(super) fn pages(sql: &Connection) -> rusqlite::Result<(i64, i64)> {
    let pragma = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = pragma("freelist_count")?;
    Ok((pragma("page_count")? - free, free))
}

/// Gives every part the columns that were declared since it was made.
pub(super) fn complete(sql: &Connection) -> rusqlite::Result<()> {
    for part in all(sql)?.into_iter().rev() {
        let mut added = 0;
        for (table, columns) in [("event", columns::declared_of_event()), ("batch", columns::declared_of_batch())] {
            for (name, definition) in columns {
                let query = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2";
                let table = format!("{table}_{}", part.id);
                if sql.prepare_cached(query)?.query_row(params![table, name], |_| Ok(())).optional()?.is_none() {
                    sql.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {definition}"))?;
                    added += 1;
                }
            }
        }
        // Parts are made with the columns of the one before: if the newest has all, all have.
        if added == 0 {
            break;
        }
    }
    Ok(())
}

/// What was put into the current part of one app and is not noted yet.
#[derive(Clone, Copy, Debug)]
struct Tally {
    events: i64,
    first_time: i64,
    last_time: i64,
}

/// The part that is written, as the writer knows it. What it learnt in a transaction that did not commit is wrong.
pub(super) struct Parts {
    ends: Ends,
    current: Part,
    events: i64,
    oldest: i64,
    tallies: HashMap<i64, Tally>,
    last_day_noted: i64,
    insert_event: String,
    insert_batch: String,
}

impl Parts {
    pub(super) fn load(sql: &Connection, ends: Ends) -> rusqlite::Result<Self> {
        let parts = all(sql)?;
        let (Some(oldest), Some(current)) = (parts.first(), parts.last()) else {
            return Err(rusqlite::Error::QueryReturnedNoRows);
        };
        let query = "SELECT coalesce(sum(events), 0) FROM part_app WHERE part = ?1";
        let events = sql.query_row(query, [current.id], |row| row.get(0))?;
        Ok(Self {
            ends,
            current: *current,
            events,
            oldest: oldest.id,
            tallies: HashMap::new(),
            last_day_noted: current.last_day,
            insert_event: columns::insert_event(current.id),
            insert_batch: columns::insert_batch(current.id),
        })
    }

    /// The number of the part that is written, and of the oldest.
    pub(super) fn numbers(&self) -> (i64, i64) {
        (self.current.id, self.oldest)
    }

    pub(super) fn insert_event(&self) -> &str {
        &self.insert_event
    }

    pub(super) fn insert_batch(&self) -> &str {
        &self.insert_batch
    }

    /// Begins a new part if the current one has ended. `position` and `received_at` are those of the next event.
    pub(super) fn make_room(&mut self, sql: &Connection, position: i64, received_at: i64) -> rusqlite::Result<()> {
        let day = received_at.div_euclid(DAY_MS);
        if self.events == 0 {
            self.current = Part { first: position, first_day: day, last_day: day, ..self.current };
            let query = "UPDATE part SET first = ?2, first_day = ?3, last_day = ?3 WHERE id = ?1";
            sql.prepare_cached(query)?.execute([self.current.id, position, day])?;
            self.last_day_noted = day;
            return Ok(());
        }
        // A clock that jumped begins a part, too: whatever it says, its events go when their turn comes.
        if self.events >= self.ends.events || (day - self.current.first_day).abs() >= self.ends.days {
            return self.begin(sql, position, day);
        }
        self.current.last_day = self.current.last_day.max(day);
        Ok(())
    }

    /// Ends the current part if it has taken its share of the bytes. Asked once for each transaction.
    pub(super) fn weigh(&mut self, sql: &Connection, position: i64, received_at: i64) -> rusqlite::Result<()> {
        let Some(most) = self.ends.pages else { return Ok(()) };
        if self.events > 0 && pages(sql)?.0 - self.current.pages >= most {
            self.begin(sql, position, received_at.div_euclid(DAY_MS))?;
        }
        Ok(())
    }

    /// Makes the tables of the next part, like those of the current one.
    pub(super) fn begin(&mut self, sql: &Connection, position: i64, day: i64) -> rusqlite::Result<()> {
        self.flush(sql)?;
        let (before, id) = (self.current.id, self.current.id + 1);
        for table in ["event", "batch"] {
            let query = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
            let made: String = sql.query_row(query, [format!("{table}_{before}")], |row| row.get(0))?;
            let columns = made.split_once('(').map_or("", |(_, columns)| columns);
            sql.execute_batch(&format!("CREATE TABLE {table}_{id} ({columns}"))?;
        }
        sql.execute_batch(&format!(
            "CREATE INDEX metrics_{id} ON event_{id} (app, event_time, theme, code, install, user, session)"
        ))?;
        let pages = pages(sql)?.0;
        sql.execute("INSERT INTO part VALUES (?1, ?2, ?3, ?3, ?4)", [id, position, day, pages])?;
        self.current = Part { id, first: position, first_day: day, last_day: day, pages };
        (self.events, self.last_day_noted) = (0, day);
        (self.insert_event, self.insert_batch) = (columns::insert_event(id), columns::insert_batch(id));
        Ok(())
    }

    /// Notes events of one app that were put into the current part, the earliest and the latest at these times.
    pub(super) fn note(&mut self, app: i64, events: usize, first_time: i64, last_time: i64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.events += events;
        let tally = self.tallies.entry(app).or_insert(Tally { events: 0, first_time, last_time });
        tally.events += events;
        tally.first_time = tally.first_time.min(first_time);
        tally.last_time = tally.last_time.max(last_time);
    }

    /// Writes down what was noted; before the commit.
    pub(super) fn flush(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let query = "INSERT INTO part_app (app, part, events, first_time, last_time) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET events = events + excluded.events, first_time = min(first_time, excluded.first_time),
            last_time = max(last_time, excluded.last_time)";
        let mut statement = sql.prepare_cached(query)?;
        for (app, tally) in self.tallies.drain() {
            statement.execute([app, self.current.id, tally.events, tally.first_time, tally.last_time])?;
        }
        if self.current.last_day > self.last_day_noted {
            let query = "UPDATE part SET last_day = ?2 WHERE id = ?1";
            sql.prepare_cached(query)?.execute([self.current.id, self.current.last_day])?;
            self.last_day_noted = self.current.last_day;
        }
        Ok(())
    }

    /// Drops the oldest part, which must not be the current one, with everything that says what it held.
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
        // What the drop has freed must not hide what the current part has taken.
        let freed = before - pages(sql)?.0;
        self.current.pages -= freed;
        sql.execute("UPDATE part SET pages = ?2 WHERE id = ?1", [self.current.id, self.current.pages])?;
        self.oldest = next.id;
        Ok(())
    }

    /// Whether the store has no events.
    pub(super) fn is_empty(&self) -> bool {
        self.is_alone() && self.events == 0
    }

    /// Whether the current part is the only one.
    pub(super) fn is_alone(&self) -> bool {
        self.oldest == self.current.id
    }
}
