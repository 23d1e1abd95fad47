//! Makes room: forgets what every sink has passed, and lets a sink give up its oldest events when the log is full.

use rusqlite::params;

use super::backlog::{ByApp, OWNER};
use super::cursor::{load, save};
use super::{Spool, SpoolError, Tx, arrival, letters, lock};
use crate::clock;

/// Rows deleted by one transaction of [`Spool::trim`], so that it never holds up the answers to clients for long.
const TRIM_RECORDS: u64 = 1000;

/// Deletes some records that all of `sinks` have passed. `false` if there are no more.
fn trim(tx: &mut Tx<'_>, sinks: &[String]) -> Result<bool, SpoolError> {
    let mut passed = tx.counters.stored;
    let mut pins = Vec::new();
    for sink in sinks {
        let cursor = load(tx.sql, sink)?;
        passed = passed.min(cursor.shed_to.unwrap_or(cursor.delivered_to));
        if cursor.shed_to.is_some() {
            pins.push((cursor.delivered_to + 1, cursor.pinned_to()));
        }
    }
    let pinned: String =
        pins.iter().map(|(from, to)| format!(" AND NOT (first <= {to} AND first + events - 1 >= {from})")).collect();
    let free = format!("first + events - 1 <= ?1 AND first <= ?1{pinned}");
    let sql = format!("SELECT first, {OWNER}, octet_length(json) FROM record WHERE {free} ORDER BY first LIMIT ?2");
    let (mut last, mut count, mut gone) = (0, 0, ByApp::new());
    let mut statement = tx.sql.prepare_cached(&sql)?;
    let mut rows = statement.query(params![passed, TRIM_RECORDS])?;
    while let Some(row) = rows.next()? {
        (last, count) = (row.get(0)?, count + 1);
        *gone.entry(row.get(1)?).or_default() += row.get::<_, u64>(2)?;
    }
    if count > 0 {
        let sql = format!("DELETE FROM record WHERE {free} AND first <= ?2");
        tx.sql.prepare_cached(&sql)?.execute([passed, last])?;
        gone.into_iter().for_each(|(app, bytes)| tx.shrink(app, bytes));
        arrival::forget(tx.sql, last)?;
    }
    Ok(count == TRIM_RECORDS)
}

/// The position up to which the log has to be given up so that at most `keep` bytes of it are left.
fn boundary(tx: &Tx<'_>, keep: u64) -> Result<u64, SpoolError> {
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

fn shed(tx: &mut Tx<'_>, sink: &str, (keep, remembers): (u64, bool), others: &[String]) -> Result<u64, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let pinned = cursor.pinned_to();
    let from = cursor.shed_to.unwrap_or(pinned);
    let mut to = tx.counters.stored;
    for other in others {
        // What another sink waits for stays in the log anyway; giving it up here would win nothing.
        to = to.min(load(tx.sql, other)?.delivered_to);
    }
    // The log is searched only if something could be given up: this is asked again and again while nothing can.
    if to > from {
        to = to.min(boundary(tx, keep)?);
    }
    if to <= from {
        return Ok(0);
    }
    let count = to - from;
    cursor.dead += count;
    cursor.shed += count;
    cursor.complete_from = cursor.complete_from.max(Some(clock::now()));
    if pinned > cursor.delivered_to || remembers {
        cursor.shed_to = Some(to);
    } else {
        cursor.delivered_to = to;
    }
    save(tx.sql, sink, &cursor)?;
    Ok(count)
}

impl Spool {
    /// Deletes the records that every registered sink has passed, and the oldest dead letters of sinks that have too many.
    /// With no sink registered nothing is deleted.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trim(&self) -> Result<(), SpoolError> {
        let sinks = lock(&self.inner.active).clone();
        if sinks.is_empty() {
            return Ok(());
        }
        let most = self.inner.dead_letter_bytes;
        loop {
            let sinks = sinks.clone();
            if !self.call(move |tx| Ok(trim(tx, &sinks)? | letters::shrink(tx, &sinks, most)?))? {
                return Ok(());
            }
        }
    }

    /// Lets `sink` give up its oldest events until at most `keep` bytes of the log are left, but none that one of
    /// `others` waits for, and none of a batch that is on its way. They are counted as dead and as shed. Returns how many.
    /// `remembers`: the sink's store has to be told before its cursor may pass them; then comes [`Spool::resume`].
    ///
    /// # Errors
    /// If a sink is not registered, or the database fails.
    pub fn shed(&self, sink: &str, keep: u64, others: Vec<String>, remembers: bool) -> Result<u64, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| shed(tx, &sink, (keep, remembers), &others))
    }
}
