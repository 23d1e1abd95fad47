//! Dead letters: events that a sink refused for good, kept whole with the reason, until they are sent again.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::cursor::{load, save};
use super::{Reader, Spool, SpoolError, Tx};

/// An event that a sink refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which sink.
    pub sink: String,
    /// The event's position in the spool.
    pub position: u64,
    /// Its app; empty if the record cannot be read.
    pub app_key: String,
    /// Its identity; empty if the record cannot be read.
    pub event_id: String,
    /// What the store said.
    pub reason: String,
    /// When, milliseconds since the epoch.
    pub dead_at: i64,
    /// JSON of a [`crate::record::Record`] with this one event.
    pub record: String,
}

/// Letters dropped by one transaction, so that it never holds up the answers to clients for long.
const DROPPED_AT_ONCE: u64 = 500;

const COLUMNS: &str = "sink, position, app_key, event_id, reason, dead_at, record";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        sink: row.get(0)?,
        position: row.get(1)?,
        app_key: row.get(2)?,
        event_id: row.get(3)?,
        reason: row.get(4)?,
        dead_at: row.get(5)?,
        record: row.get(6)?,
    })
}

pub(super) fn insert(sql: &Connection, letter: &DeadLetter) -> Result<(), SpoolError> {
    let query = format!("INSERT INTO dead_letter ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    sql.prepare_cached(&query)?.execute(params![
        letter.sink,
        letter.position,
        letter.app_key,
        letter.event_id,
        letter.reason,
        letter.dead_at,
        letter.record
    ])?;
    Ok(())
}

/// The letters of a sink marked with `mode`.
fn marked(sql: &Connection, sink: &str, mode: u8) -> Result<Vec<DeadLetter>, SpoolError> {
    let query = format!("SELECT {COLUMNS} FROM dead_letter WHERE sink = ?1 AND replay = ?2 ORDER BY position");
    Ok(sql.prepare_cached(&query)?.query_map(params![sink, mode], read)?.collect::<rusqlite::Result<_>>()?)
}

/// To be sent again together, or each alone.
const TOGETHER: u8 = 1;
const ALONE: u8 = 2;

/// Marks the first letters of a sink after `after` to be sent again together; if some are marked already, those it is.
fn mark(tx: &mut Tx<'_>, sink: &str, after: u64, limit: u64) -> Result<(Vec<DeadLetter>, bool), SpoolError> {
    for (mode, alone) in [(TOGETHER, false), (ALONE, true)] {
        let earlier = marked(tx.sql, sink, mode)?;
        if !earlier.is_empty() {
            return Ok((earlier, alone));
        }
    }
    let mark = "UPDATE dead_letter SET replay = ?4 WHERE sink = ?1 AND position IN
        (SELECT position FROM dead_letter WHERE sink = ?1 AND position > ?2 ORDER BY position LIMIT ?3)";
    tx.sql.prepare_cached(mark)?.execute(params![sink, after, limit, TOGETHER])?;
    Ok((marked(tx.sql, sink, TOGETHER)?, false))
}

fn settle(tx: &mut Tx<'_>, sink: &str, taken: &[u64], refused: &[(u64, String)]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    for position in taken {
        let gone = tx
            .sql
            .prepare_cached("DELETE FROM dead_letter WHERE sink = ?1 AND position = ?2")?
            .execute(params![sink, position])?;
        cursor.dead = cursor.dead.saturating_sub(gone as u64);
    }
    let sql = "UPDATE dead_letter SET replay = 0, reason = ?3 WHERE sink = ?1 AND position = ?2";
    for (position, reason) in refused {
        tx.sql.prepare_cached(sql)?.execute(params![sink, position, reason])?;
    }
    save(tx.sql, sink, &cursor)
}

/// Drops some of the oldest letters of a sink if all of them take more than `most` bytes, but none that is being sent again: what
/// becomes of those is not known yet. They stay counted as dead. Returns how many.
pub(super) fn drop_oldest(tx: &Tx<'_>, sink: &str, most: u64) -> Result<u64, SpoolError> {
    let query = "SELECT bytes FROM letters WHERE sink = ?1";
    let bytes: Option<u64> = tx.sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?;
    let excess = bytes.unwrap_or(0).saturating_sub(most);
    if excess == 0 {
        return Ok(0);
    }
    let query = "SELECT position, bytes FROM dead_letter WHERE sink = ?1 AND replay = 0 ORDER BY position LIMIT ?2";
    let (mut last, mut count, mut gone) = (0, 0, 0);
    {
        let mut statement = tx.sql.prepare_cached(query)?;
        let mut rows = statement.query(params![sink, DROPPED_AT_ONCE])?;
        while let Some(row) = rows.next()?.filter(|_| gone < excess) {
            (last, count, gone) = (row.get::<_, u64>(0)?, count + 1, gone + row.get::<_, u64>(1)?);
        }
    }
    let delete = "DELETE FROM dead_letter WHERE sink = ?1 AND replay = 0 AND position <= ?2";
    tx.sql.prepare_cached(delete)?.execute(params![sink, last])?;
    tx.sql
        .prepare_cached("UPDATE letters SET dropped = dropped + ?2 WHERE sink = ?1")?
        .execute(params![sink, count])?;
    Ok(count)
}

/// [`drop_oldest`] for each of `sinks`. `false` if there is nothing more to drop.
pub(super) fn shrink(tx: &Tx<'_>, sinks: &[String], most: u64) -> Result<bool, SpoolError> {
    let mut more = false;
    for sink in sinks {
        let letters = drop_oldest(tx, sink, most)?;
        if letters > 0 {
            tracing::warn!(sink, letters, "the dead letters take too much room: the oldest are dropped");
        }
        more |= letters == DROPPED_AT_ONCE;
    }
    Ok(more)
}

/// Bytes that the letters of each sink take, and how many were dropped.
pub(super) fn totals(sql: &Connection) -> Result<BTreeMap<String, (u64, u64)>, SpoolError> {
    let mut statement = sql.prepare_cached("SELECT sink, bytes, dropped FROM letters")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Reader {
    /// Dead letters of one sink or of all, by sink and position: at most `limit`, those after position `after`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn dead_letters(&self, sink: Option<&str>, after: u64, limit: u64) -> Result<Vec<DeadLetter>, SpoolError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM dead_letter WHERE (?1 IS NULL OR sink = ?1) AND position > ?2 ORDER BY sink, position LIMIT ?3"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_map(params![sink, after, limit], read)?.collect::<rusqlite::Result<_>>()?)
    }

    /// How many dead letters a sink has; what was shed left none.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_dead_letters(&self, sink: &str) -> Result<u64, SpoolError> {
        let sql = "SELECT count(*) FROM dead_letter WHERE sink = ?1";
        Ok(self.0.prepare_cached(sql)?.query_row([sink], |row| row.get(0))?)
    }
}

impl Spool {
    /// Dead letters, by sink and position. See [`Reader::dead_letters`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn dead_letters(&self, sink: Option<&str>, after: u64, limit: u64) -> Result<Vec<DeadLetter>, SpoolError> {
        self.read(|reader| reader.dead_letters(sink, after, limit))
    }

    /// How many dead letters a sink has. See [`Reader::count_dead_letters`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_dead_letters(&self, sink: &str) -> Result<u64, SpoolError> {
        self.read(|reader| reader.count_dead_letters(sink))
    }

    /// The next dead letters of `sink` after position `after` to be sent again together, at most `limit`. They stay
    /// marked, also over a crash, until [`Spool::settle`]: what was marked before comes first. `true`: each alone.
    ///
    /// # Errors
    /// If the database fails.
    pub fn mark_for_replay(&self, sink: &str, after: u64, limit: u64) -> Result<(Vec<DeadLetter>, bool), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| mark(tx, &sink, after, limit))
    }

    /// The marked letters are to be sent each alone from now on: together they were refused.
    ///
    /// # Errors
    /// If the database fails.
    pub fn replay_alone(&self, sink: &str) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| {
            let sql = "UPDATE dead_letter SET replay = ?2 WHERE sink = ?1 AND replay > 0";
            tx.sql.prepare_cached(sql)?.execute(params![sink, ALONE])?;
            Ok(())
        })
    }

    /// What became of marked dead letters: the `taken` are delivered now and letters no longer, the `refused` stay, with
    /// what the store says now.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn settle(&self, sink: &str, taken: Vec<u64>, refused: Vec<(u64, String)>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| settle(tx, &sink, &taken, &refused))
    }
}
