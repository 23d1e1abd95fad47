//! How far each sink is, what it is sending, and what it refused.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Spool, SpoolError, Tx, lock};

/// Rows deleted by one transaction of [`Spool::trim`], so that it never holds up the answers to clients for long.
const TRIM_RECORDS: u64 = 1000;

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Every event up to this position is delivered or dead.
    pub delivered_to: u64,
    /// How many of those are dead.
    pub dead: u64,
    /// The batch being sent, if any.
    pub frozen: Option<Frozen>,
}

/// A sink batch whose bounds are fixed until it is delivered, over crashes too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Position of its first event.
    pub first: u64,
    /// Position of its last event.
    pub last: u64,
    /// Names it for the store: the same for the same events of the same data directory, never for others.
    pub token: String,
}

/// An event that a sink refused for good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetter {
    /// Which sink.
    pub sink: String,
    /// The event's position in the spool.
    pub position: u64,
    /// Its app.
    pub app_key: String,
    /// Its identity.
    pub event_id: String,
    /// What the store said.
    pub reason: String,
    /// When, milliseconds since the epoch.
    pub dead_at: i64,
    /// The event as it was to be stored, one JSON object.
    pub event: String,
}

pub(super) fn load(sql: &Connection, sink: &str) -> Result<Cursor, SpoolError> {
    let query = "SELECT delivered_to, dead, frozen_first, frozen_last, (SELECT token FROM identity) FROM cursor WHERE sink = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let frozen = match (row.get(2)?, row.get(3)?) {
            (Some(first), Some(last)) => {
                let identity: String = row.get(4)?;
                Some(Frozen { first, last, token: format!("{identity}-{first}-{last}") })
            }
            _ => None,
        };
        Ok(Cursor { delivered_to: row.get(0)?, dead: row.get(1)?, frozen })
    };
    sql.prepare_cached(query)?
        .query_row([sink], read)
        .optional()?
        .ok_or_else(|| SpoolError::UnknownSink(sink.to_owned()))
}

fn bad(sink: &str, verb: &'static str, (first, last): (u64, u64), why: String) -> SpoolError {
    SpoolError::BadRange { sink: sink.to_owned(), verb, first, last, why }
}

fn register(tx: &mut Tx<'_>, sinks: &[String]) -> Result<(), SpoolError> {
    let oldest: Option<u64> = tx.sql.query_row("SELECT min(first) FROM record", [], |row| row.get(0))?;
    let complete = tx.counters.stored == 0 || oldest == Some(1);
    for sink in sinks {
        match load(tx.sql, sink) {
            Err(SpoolError::UnknownSink(_)) if complete => {
                tx.sql.execute("INSERT INTO cursor (sink) VALUES (?1)", [sink])?;
            }
            Err(SpoolError::UnknownSink(_)) => return Err(SpoolError::TooLate(sink.clone())),
            other => drop(other?),
        }
    }
    Ok(())
}

fn freeze(tx: &mut Tx<'_>, sink: &str, first: u64, last: u64) -> Result<Frozen, SpoolError> {
    let cursor = load(tx.sql, sink)?;
    if let Some(frozen) = cursor.frozen {
        let why = format!("{}..={} is frozen already", frozen.first, frozen.last);
        return Err(bad(sink, "freeze", (first, last), why));
    }
    if first != cursor.delivered_to + 1 || last < first || last > tx.counters.stored {
        let why = format!("the cursor is at {}, the head at {}", cursor.delivered_to, tx.counters.stored);
        return Err(bad(sink, "freeze", (first, last), why));
    }
    let sql = "UPDATE cursor SET frozen_first = ?2, frozen_last = ?3 WHERE sink = ?1";
    tx.sql.prepare_cached(sql)?.execute(params![sink, first, last])?;
    load(tx.sql, sink)?.frozen.ok_or_else(|| SpoolError::UnknownSink(sink.to_owned()))
}

fn advance(tx: &mut Tx<'_>, sink: &str, last: u64, dead: &[DeadLetter]) -> Result<(), SpoolError> {
    let cursor = load(tx.sql, sink)?;
    let first = cursor.delivered_to + 1;
    let why = match &cursor.frozen {
        Some(frozen) if frozen.last != last => format!("{}..={} is frozen", frozen.first, frozen.last),
        _ if last < first || last > tx.counters.stored => format!("the head is at {}", tx.counters.stored),
        _ if dead.iter().any(|letter| letter.sink != sink || !(first..=last).contains(&letter.position)) => {
            "a dead letter is of another sink or range".into()
        }
        _ => String::new(),
    };
    if !why.is_empty() {
        return Err(bad(sink, "advance", (first, last), why));
    }
    let sql = "INSERT INTO dead_letter VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = tx.sql.prepare_cached(sql)?;
    for letter in dead {
        insert.execute(params![
            sink,
            letter.position,
            letter.app_key,
            letter.event_id,
            letter.reason,
            letter.dead_at,
            letter.event
        ])?;
    }
    let sql = "UPDATE cursor SET delivered_to = ?2, dead = dead + ?3, frozen_first = NULL, frozen_last = NULL WHERE sink = ?1";
    tx.sql.prepare_cached(sql)?.execute(params![sink, last, dead.len()])?;
    Ok(())
}

/// Deletes some records that all of `sinks` have passed. `false` if there are no more.
fn trim(tx: &mut Tx<'_>, sinks: &[String]) -> Result<bool, SpoolError> {
    let mut passed = tx.counters.stored;
    for sink in sinks {
        passed = passed.min(load(tx.sql, sink)?.delivered_to);
    }
    let sql = "SELECT coalesce(max(first), 0), coalesce(sum(octet_length(json)), 0), count(*) FROM
        (SELECT first, json FROM record WHERE first + events - 1 <= ?1 AND first <= ?1 ORDER BY first LIMIT ?2)";
    let (last, bytes, rows): (u64, u64, u64) = tx
        .sql
        .prepare_cached(sql)?
        .query_row(params![passed, TRIM_RECORDS], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if rows > 0 {
        tx.sql.prepare_cached("DELETE FROM record WHERE first <= ?1")?.execute([last])?;
        tx.counters.backlog = tx.counters.backlog.saturating_sub(bytes);
    }
    Ok(rows == TRIM_RECORDS)
}

impl Spool {
    /// Says which sinks the log is kept for. New ones begin at its beginning.
    ///
    /// # Errors
    /// [`SpoolError::TooLate`] for a new sink when early records have been trimmed; or the database fails.
    pub fn register(&self, sinks: &[&str]) -> Result<(), SpoolError> {
        let sinks: Vec<String> = sinks.iter().map(|&sink| sink.to_owned()).collect();
        let names = sinks.clone();
        self.call(move |tx| register(tx, &names))?;
        *lock(&self.inner.active) = sinks;
        Ok(())
    }

    /// How far a sink is.
    ///
    /// # Errors
    /// If it is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        self.read(|reader| reader.cursor(sink))
    }

    /// Fixes the bounds of the next batch of a sink: it begins right after the cursor. Returns it after the commit.
    ///
    /// # Errors
    /// If the range does not follow the cursor, passes the head or another batch is frozen; or the database fails.
    pub fn freeze(&self, sink: &str, first: u64, last: u64) -> Result<Frozen, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| freeze(tx, &sink, first, last))
    }

    /// Moves the cursor of a sink to `last` and keeps the dead letters of the range, in one commit. If a batch is frozen
    /// it must end at `last`; it is frozen no longer afterwards.
    ///
    /// # Errors
    /// If `last` is not the end of the frozen batch, lies before the cursor or after the head; or the database fails.
    pub fn advance(&self, sink: &str, last: u64, dead_letters: Vec<DeadLetter>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| advance(tx, &sink, last, &dead_letters))
    }

    /// Deletes the records that every registered sink has passed. With no sink registered nothing is deleted.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trim(&self) -> Result<(), SpoolError> {
        let sinks = lock(&self.inner.active).clone();
        if sinks.is_empty() {
            return Ok(());
        }
        loop {
            let sinks = sinks.clone();
            if !self.call(move |tx| trim(tx, &sinks))? {
                return Ok(());
            }
        }
    }
}
