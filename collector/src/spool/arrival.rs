//! Arrival times of events, noted about once a second in a table of their own, so that the age of an event is known
//! without reading its record.

use rusqlite::{Connection, OptionalExtension, params};

/// Milliseconds between two notes, which is also the precision of an event's arrival time.
const STEP_MS: u64 = 1000;

/// Notes the arrival of the events from the position `first` on, unless this second has a note already.
///
/// `arrival_noted` is the time of the last note. Returns the time of the last note after the call.
pub(super) fn note(
    sql: &Connection,
    arrival_noted: Option<i64>,
    first: u64,
    now: i64,
) -> rusqlite::Result<Option<i64>> {
    // A clock that was set back is noted too.
    if arrival_noted.is_some_and(|arrival_noted| arrival_noted.abs_diff(now) < STEP_MS) {
        return Ok(arrival_noted);
    }
    sql.prepare_cached("INSERT OR REPLACE INTO arrival VALUES (?1, ?2)")?.execute(params![first, now])?;
    Ok(Some(now))
}

/// Returns about when the event at `position` arrived, milliseconds since the epoch.
///
/// The time is that of the event or earlier, unless its note has been deleted. `None` means that the spool never
/// stored an event.
pub(super) fn of(sql: &Connection, position: u64) -> rusqlite::Result<Option<i64>> {
    let before = "SELECT at FROM arrival WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
    if let Some(at) = sql.prepare_cached(before)?.query_row([position], |row| row.get(0)).optional()? {
        return Ok(Some(at));
    }
    sql.prepare_cached("SELECT at FROM arrival ORDER BY first LIMIT 1")?.query_row([], |row| row.get(0)).optional()
}

/// Deletes the notes that concern only events up to `position`.
pub(super) fn forget(sql: &Connection, position: u64) -> rusqlite::Result<()> {
    let query = "DELETE FROM arrival WHERE first < (SELECT max(first) FROM arrival WHERE first <= ?1)";
    sql.prepare_cached(query)?.execute([position + 1])?;
    Ok(())
}
