//! Dead letters: events that a sink refused permanently, stored whole with the reason until they are replayed.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::cursor::{load, save};
use super::{Spool, SpoolError, SpoolReader, Tx};

/// Event that a sink refused permanently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Name of the sink.
    pub sink: String,
    /// The event's position in the spool.
    pub position: u64,
    /// Key of its app. Empty if the record is unreadable.
    pub app_key: String,
    /// ID of the event. Empty if the record is unreadable.
    pub event_id: String,
    /// Reason, in the store's words.
    pub reason: String,
    /// Time of the refusal, milliseconds since the epoch.
    pub dead_at: i64,
    /// JSON of a [`crate::record::Record`] with this one event.
    pub record: String,
}

/// Rows deleted by one transaction. Bounds how long the answers to clients wait behind it.
const DELETE_CHUNK_ROWS: u64 = 500;

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

/// Returns the dead letters of a sink that are marked for replay in `mode`.
fn marked(sql: &Connection, sink: &str, mode: ReplayMode) -> Result<Vec<DeadLetter>, SpoolError> {
    let query = format!("SELECT {COLUMNS} FROM dead_letter WHERE sink = ?1 AND replay = ?2 ORDER BY position");
    Ok(sql.prepare_cached(&query)?.query_map(params![sink, mode as u8], read)?.collect::<rusqlite::Result<_>>()?)
}

/// How marked dead letters are replayed. The number is the value of the column `replay`, where 0 means not marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayMode {
    /// All of them in one batch.
    Batch = 1,
    /// Each in a batch of its own, because the common batch was refused.
    Single = 2,
}

/// Marks the first dead letters of a sink after `after` for replay in one batch. If some are marked already, returns
/// those instead.
fn mark_for_replay(
    tx: &mut Tx<'_>,
    sink: &str,
    after: u64,
    limit: u64,
) -> Result<(Vec<DeadLetter>, ReplayMode), SpoolError> {
    for mode in [ReplayMode::Batch, ReplayMode::Single] {
        let earlier = marked(tx.sql, sink, mode)?;
        if !earlier.is_empty() {
            return Ok((earlier, mode));
        }
    }
    let mark = "UPDATE dead_letter SET replay = ?4 WHERE sink = ?1 AND position IN
        (SELECT position FROM dead_letter WHERE sink = ?1 AND position > ?2 ORDER BY position LIMIT ?3)";
    tx.sql.prepare_cached(mark)?.execute(params![sink, after, limit, ReplayMode::Batch as u8])?;
    Ok((marked(tx.sql, sink, ReplayMode::Batch)?, ReplayMode::Batch))
}

fn finish_replay(tx: &mut Tx<'_>, sink: &str, taken: &[u64], refused: &[(u64, String)]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    for position in taken {
        let gone = tx
            .sql
            .prepare_cached("DELETE FROM dead_letter WHERE sink = ?1 AND position = ?2")?
            .execute(params![sink, position])?;
        cursor.discarded = cursor.discarded.saturating_sub(gone as u64);
    }
    let sql = "UPDATE dead_letter SET replay = 0, reason = ?3 WHERE sink = ?1 AND position = ?2";
    for (position, reason) in refused {
        tx.sql.prepare_cached(sql)?.execute(params![sink, position, reason])?;
    }
    save(tx.sql, sink, &cursor)
}

/// Deletes some of the oldest dead letters of a sink if they take more than `max_bytes` in all. Returns how many.
///
/// Keeps those that are being replayed, because their outcome is not known yet. Deleted ones stay counted as
/// discarded.
pub(super) fn delete_oldest(tx: &Tx<'_>, sink: &str, max_bytes: u64) -> Result<u64, SpoolError> {
    let query = "SELECT bytes FROM letters WHERE sink = ?1";
    let bytes: Option<u64> = tx.sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?;
    let excess = bytes.unwrap_or(0).saturating_sub(max_bytes);
    if excess == 0 {
        return Ok(0);
    }
    let query = "SELECT position, bytes FROM dead_letter WHERE sink = ?1 AND replay = 0 ORDER BY position LIMIT ?2";
    let (mut last, mut count, mut gone) = (0, 0, 0);
    {
        let mut statement = tx.sql.prepare_cached(query)?;
        let mut rows = statement.query(params![sink, DELETE_CHUNK_ROWS])?;
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

/// Calls [`delete_oldest`] for each of `sinks`. Returns whether more remain to be deleted.
pub(super) fn trim_all(tx: &Tx<'_>, sinks: &[String], max_bytes: u64) -> Result<bool, SpoolError> {
    let mut more = false;
    for sink in sinks {
        let letters = delete_oldest(tx, sink, max_bytes)?;
        if letters > 0 {
            tracing::warn!(sink, letters, "the dead letters take too much room: the oldest are dropped");
        }
        more |= letters == DELETE_CHUNK_ROWS;
    }
    Ok(more)
}

/// Returns the bytes of each sink's dead letters, and how many were deleted for their size.
pub(super) fn totals(sql: &Connection) -> Result<BTreeMap<String, (u64, u64)>, SpoolError> {
    let mut statement = sql.prepare_cached("SELECT sink, bytes, dropped FROM letters")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl SpoolReader {
    /// Returns at most `limit` dead letters of one sink or of all, those after position `after`, by sink and position.
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

    /// Returns how many dead letters a sink has. Dropped events have none.
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_dead_letters(&self, sink: &str) -> Result<u64, SpoolError> {
        let sql = "SELECT count(*) FROM dead_letter WHERE sink = ?1";
        Ok(self.0.prepare_cached(sql)?.query_row([sink], |row| row.get(0))?)
    }
}

impl Spool {
    /// Returns dead letters by sink and position. See [`SpoolReader::dead_letters`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn dead_letters(&self, sink: Option<&str>, after: u64, limit: u64) -> Result<Vec<DeadLetter>, SpoolError> {
        self.read(|reader| reader.dead_letters(sink, after, limit))
    }

    /// Returns how many dead letters a sink has. See [`SpoolReader::count_dead_letters`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn count_dead_letters(&self, sink: &str) -> Result<u64, SpoolError> {
        self.read(|reader| reader.count_dead_letters(sink))
    }

    /// Marks at most `limit` dead letters of `sink` after position `after` for replay, and returns them with the mode.
    ///
    /// The marks stay until [`Spool::finish_replay`], also across crashes. Dead letters that were marked before come
    /// first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn mark_for_replay(
        &self,
        sink: &str,
        after: u64,
        limit: u64,
    ) -> Result<(Vec<DeadLetter>, ReplayMode), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| mark_for_replay(tx, &sink, after, limit))
    }

    /// Changes the marked dead letters to [`ReplayMode::Single`], because the common batch was refused.
    ///
    /// # Errors
    /// If the database fails.
    pub fn replay_singly(&self, sink: &str) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| {
            let sql = "UPDATE dead_letter SET replay = ?2 WHERE sink = ?1 AND replay > 0";
            tx.sql.prepare_cached(sql)?.execute(params![sink, ReplayMode::Single as u8])?;
            Ok(())
        })
    }

    /// Records the outcome of a replay. The `taken` are delivered and deleted here, the `refused` stay with the new
    /// reason.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn finish_replay(&self, sink: &str, taken: Vec<u64>, refused: Vec<(u64, String)>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| finish_replay(tx, &sink, &taken, &refused))
    }
}
