//! Frees space in the log: deletes records that every sink has passed, and drops a sink's oldest events when the log
//! is full.

use rusqlite::params;

use super::backlog::{BytesByApp, RECORD_APP_SQL};
use super::cursor::{load, save};
use super::{Spool, SpoolError, Tx, arrival, dead_letters, lock};
use crate::clock;

/// Rows deleted by one transaction of [`Spool::trim`]. Bounds how long the answers to clients wait behind it.
const TRIM_CHUNK_RECORDS: u64 = 1000;

/// Deletes some records that all of `sinks` have passed. Returns whether there may be more.
fn trim(tx: &mut Tx<'_>, sinks: &[String]) -> Result<bool, SpoolError> {
    let mut passed_to = tx.counters.stored;
    let mut pins = Vec::new();
    for sink in sinks {
        let cursor = load(tx.sql, sink)?;
        passed_to = passed_to.min(cursor.dropped_to.unwrap_or(cursor.delivered_to));
        if cursor.dropped_to.is_some() {
            pins.push((cursor.delivered_to + 1, cursor.pinned_to()));
        }
    }
    let pinned: String =
        pins.iter().map(|(from, to)| format!(" AND NOT (first <= {to} AND first + events - 1 >= {from})")).collect();
    let removable = format!("first + events - 1 <= ?1 AND first <= ?1{pinned}");
    let sql = format!(
        "SELECT first, {RECORD_APP_SQL}, octet_length(json) FROM record WHERE {removable} ORDER BY first LIMIT ?2"
    );
    let (mut last, mut count, mut freed) = (0, 0, BytesByApp::new());
    let mut statement = tx.sql.prepare_cached(&sql)?;
    let mut rows = statement.query(params![passed_to, TRIM_CHUNK_RECORDS])?;
    while let Some(row) = rows.next()? {
        (last, count) = (row.get(0)?, count + 1);
        *freed.entry(row.get(1)?).or_default() += row.get::<_, u64>(2)?;
    }
    if count > 0 {
        let sql = format!("DELETE FROM record WHERE {removable} AND first <= ?2");
        tx.sql.prepare_cached(&sql)?.execute([passed_to, last])?;
        freed.into_iter().for_each(|(app, bytes)| tx.shrink_backlog(app, bytes));
        arrival::forget(tx.sql, last)?;
    }
    Ok(count == TRIM_CHUNK_RECORDS)
}

/// Returns the position up to which the log must be dropped to leave at most `keep` bytes of it.
fn keep_boundary(tx: &Tx<'_>, keep: u64) -> Result<u64, SpoolError> {
    let mut statement =
        tx.sql.prepare_cached("SELECT first, events, octet_length(json) FROM record ORDER BY first DESC")?;
    let mut rows = statement.query([])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.get::<_, u64>(2)?;
        if bytes > keep {
            return Ok(row.get::<_, u64>(0)? + row.get::<_, u64>(1)? - 1);
        }
    }
    Ok(0)
}

fn drop_oldest(
    tx: &mut Tx<'_>,
    sink: &str,
    (keep, tracks_position): (u64, bool),
    others: &[String],
) -> Result<u64, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let pinned = cursor.pinned_to();
    let from = cursor.dropped_to.unwrap_or(pinned);
    let mut to = tx.counters.stored;
    for other in others {
        // What another sink waits for stays in the log anyway; giving it up here would win nothing.
        to = to.min(load(tx.sql, other)?.delivered_to);
    }
    // The log is searched only if something could be given up: this is asked again and again while nothing can.
    if to > from {
        to = to.min(keep_boundary(tx, keep)?);
    }
    if to <= from {
        return Ok(0);
    }
    let count = to - from;
    cursor.discarded += count;
    cursor.dropped_oldest += count;
    cursor.complete_from = cursor.complete_from.max(Some(clock::now()));
    if pinned > cursor.delivered_to || tracks_position {
        cursor.dropped_to = Some(to);
    } else {
        cursor.delivered_to = to;
    }
    save(tx.sql, sink, &cursor)?;
    Ok(count)
}

impl Spool {
    /// Deletes the records that every registered sink has passed, and the oldest dead letters of sinks over their
    /// limit. Deletes nothing while no sink is registered.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trim(&self) -> Result<(), SpoolError> {
        let sinks = lock(&self.inner.active).clone();
        if sinks.is_empty() {
            return Ok(());
        }
        let max_bytes = self.inner.dead_letter_bytes;
        loop {
            let sinks = sinks.clone();
            if !self.call(move |tx| Ok(trim(tx, &sinks)? | dead_letters::trim_all(tx, &sinks, max_bytes)?))? {
                return Ok(());
            }
        }
    }

    /// Drops the oldest events of `sink` until at most `keep` bytes of the log are left. Returns how many.
    ///
    /// Events that one of `others` still needs, and those of a batch that is being sent, are kept. Dropped events
    /// count as discarded. `tracks_position` says that the sink's store must skip the events before the cursor passes
    /// them. Call [`Spool::resume`] after that.
    ///
    /// # Errors
    /// If a sink is not registered, or the database fails.
    pub fn drop_oldest(
        &self,
        sink: &str,
        keep: u64,
        others: Vec<String>,
        tracks_position: bool,
    ) -> Result<u64, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| drop_oldest(tx, &sink, (keep, tracks_position), &others))
    }
}
