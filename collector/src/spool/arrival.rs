//! When events arrived, noted about once a second beside the log, so that nothing has to be read to know how old it is.

use rusqlite::{Connection, OptionalExtension, params};

/// Milliseconds between two notes. What is said of an event's arrival is exact to it.
const STEP_MS: u64 = 1000;

/// Notes the arrival of the events from the position `first` on, unless there is a note of this second. `noted`: when the
/// last one was made; returns when it is now.
pub(super) fn note(sql: &Connection, noted: Option<i64>, first: u64, now: i64) -> rusqlite::Result<Option<i64>> {
    // A clock that was set back is noted too.
    if noted.is_some_and(|noted| noted.abs_diff(now) < STEP_MS) {
        return Ok(noted);
    }
    sql.prepare_cached("INSERT OR REPLACE INTO arrival VALUES (?1, ?2)")?.execute(params![first, now])?;
    Ok(Some(now))
}

/// About when the event at `position` arrived, milliseconds since the epoch: at or before it really did, unless its time
/// has been forgotten. `None`: nothing ever arrived.
pub(super) fn of(sql: &Connection, position: u64) -> rusqlite::Result<Option<i64>> {
    let before = "SELECT at FROM arrival WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
    if let Some(at) = sql.prepare_cached(before)?.query_row([position], |row| row.get(0)).optional()? {
        return Ok(Some(at));
    }
    sql.prepare_cached("SELECT at FROM arrival ORDER BY first LIMIT 1")?.query_row([], |row| row.get(0)).optional()
}

/// Forgets what only says something of the events up to `position`.
pub(super) fn forget(sql: &Connection, position: u64) -> rusqlite::Result<()> {
    let query = "DELETE FROM arrival WHERE first < (SELECT max(first) FROM arrival WHERE first <= ?1)";
    sql.prepare_cached(query)?.execute([position + 1])?;
    Ok(())
}
