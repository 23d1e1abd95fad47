//! Last known clock anchor of each install, for a limited number of installs per app.
//!
//! Anchors are kept in generations of half that number. A lookup reads the last two generations, a write goes to the
//! last one. When it is full a new one begins, and the anchors of the oldest are deleted, a few rows per transaction.
//! A lost anchor only removes a hint for ordering the next batch of that install.

use std::collections::{BTreeMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};
use subway_protocol::Id;

use super::SpoolError;

/// Rows of old generations that a transaction deletes. It deletes twice the rows that it adds if that is more, so
/// that old generations shrink faster than new ones grow.
const DELETE_CHUNK_ROWS: u64 = 64;

/// Reading of an install's clocks at its last known event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockAnchor {
    /// Sequence number of the event.
    pub seq: u64,
    /// Run of the monotonic clock.
    pub boot: String,
    /// Monotonic clock, milliseconds.
    pub mono: u64,
    /// Time that was stored for the event, milliseconds since the epoch.
    pub event_time: i64,
}

/// The newest generation of one app.
#[derive(Clone, Copy, Debug, Default)]
struct NewestGeneration {
    number: i64,
    installs: u64,
}

/// Clock anchors of all apps.
#[derive(Debug)]
pub(super) struct Clocks {
    /// Maximum number of installs per app.
    cap: u64,
    newest: BTreeMap<i64, NewestGeneration>,
    /// Apps that have rows of generations that are no longer read.
    apps_with_old: VecDeque<i64>,
    /// Rows added by this transaction.
    added_rows: u64,
    /// Anchors deleted since the last [`Clocks::take_evicted`].
    evicted: u64,
}

impl Clocks {
    pub(super) fn open(sql: &Connection, cap: u64) -> Result<Self, SpoolError> {
        let query =
            "SELECT app, generation, count(*) FROM install_clock GROUP BY app, generation ORDER BY app, generation";
        let mut statement = sql.prepare(query)?;
        let mut rows = statement.query([])?;
        let mut newest = BTreeMap::new();
        while let Some(row) = rows.next()? {
            newest.insert(row.get(0)?, NewestGeneration { number: row.get(1)?, installs: row.get(2)? });
        }
        let apps_with_old = newest.keys().copied().collect();
        Ok(Self { cap, newest, apps_with_old, added_rows: 0, evicted: 0 })
    }

    fn newest(&self, app: i64) -> NewestGeneration {
        self.newest.get(&app).copied().unwrap_or_default()
    }

    pub(super) fn clock_anchor(
        &self,
        sql: &Connection,
        app: i64,
        install: Id,
    ) -> Result<Option<ClockAnchor>, SpoolError> {
        let query =
            "SELECT seq, boot, mono, event_time FROM install_clock WHERE app = ?1 AND generation = ?2 AND id = ?3";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(ClockAnchor { seq: row.get(0)?, boot: row.get(1)?, mono: row.get(2)?, event_time: row.get(3)? })
        };
        let mut statement = sql.prepare_cached(query)?;
        let newest = self.newest(app).number;
        for generation in [newest, newest - 1] {
            let clock_anchor = statement.query_row(params![app, generation, install.as_bytes()], read).optional()?;
            if clock_anchor.is_some() || generation == 0 {
                return Ok(clock_anchor);
            }
        }
        Ok(None)
    }

    pub(super) fn set_clock_anchor(
        &mut self,
        sql: &Connection,
        app: i64,
        install: Id,
        clock_anchor: &ClockAnchor,
    ) -> Result<(), SpoolError> {
        let cap = self.cap;
        let newest = self.newest.entry(app).or_default();
        if newest.installs >= (cap / 2).max(1) {
            *newest = NewestGeneration { number: newest.number + 1, installs: 0 };
            self.apps_with_old.push_back(app);
        }
        let values = params![
            app,
            newest.number,
            install.as_bytes(),
            clock_anchor.seq,
            clock_anchor.boot,
            clock_anchor.mono,
            clock_anchor.event_time
        ];
        let update = "UPDATE install_clock SET seq = ?4, boot = ?5, mono = ?6, event_time = ?7
            WHERE app = ?1 AND generation = ?2 AND id = ?3";
        if sql.prepare_cached(update)?.execute(values)? == 0 {
            sql.prepare_cached("INSERT INTO install_clock VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(values)?;
            newest.installs += 1;
            self.added_rows += 1;
        }
        Ok(())
    }

    /// Deletes some rows of old generations. Called once per transaction.
    pub(super) fn evict_old(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        // Also where nothing is old: what earlier transactions added is no measure of what this one may delete.
        let added_rows = std::mem::take(&mut self.added_rows);
        let Some(app) = self.apps_with_old.front().copied() else { return Ok(()) };
        let rows = DELETE_CHUNK_ROWS.max(2 * added_rows);
        let query = "DELETE FROM install_clock WHERE app = ?1 AND (generation, id) IN
            (SELECT generation, id FROM install_clock WHERE app = ?1 AND generation < ?2 LIMIT ?3)";
        let deleted = sql.prepare_cached(query)?.execute(params![app, self.newest(app).number - 1, rows])? as u64;
        self.evicted += deleted;
        if deleted < rows {
            self.apps_with_old.pop_front();
        }
        Ok(())
    }

    /// Returns whether there are old rows to delete.
    pub(super) fn wants_transaction(&self) -> bool {
        !self.apps_with_old.is_empty()
    }

    /// Returns how many anchors were deleted since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{FILE, MIGRATIONS};

    #[test]
    fn a_generation_goes_in_steps_as_large_as_what_comes_however_many_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let sql = crate::db::open(&dir.path().join(FILE), MIGRATIONS).unwrap();
        // One transaction, so that the test takes no time; the steps are those of many.
        sql.execute_batch("BEGIN").unwrap();
        let mut clocks = Clocks::open(&sql, 2_000).unwrap();
        let clock_anchor = ClockAnchor { seq: 1, boot: "b".into(), mono: 7, event_time: 1 };
        let mut evicted = 0;
        for install in 0..5_000u128 {
            clocks.set_clock_anchor(&sql, 1, Id::from_bytes(install.to_be_bytes()), &clock_anchor).unwrap();
            if install % 50 == 49 {
                clocks.evict_old(&sql).unwrap();
                let gone = clocks.take_evicted();
                assert!(gone <= 100, "{gone} rows in the commit with install {install}, which adds 50");
                evicted += gone;
            }
        }
        while clocks.wants_transaction() {
            clocks.evict_old(&sql).unwrap();
            let gone = clocks.take_evicted();
            assert!(gone <= DELETE_CHUNK_ROWS, "{gone} rows in a commit that adds none");
            evicted += gone;
        }
        assert_eq!(evicted, 3_000, "the last two generations stay");
    }
}
