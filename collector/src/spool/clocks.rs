//! The last known point of each install's clocks, for a bounded number of installs an app.
//!
//! They are kept in generations of half that number: a point is looked for in the last two, and written to the last. When
//! that is full a new one begins, and what was not written since is forgotten, some rows a transaction. What is
//! lost with a point is help in ordering the next batch of an install, nothing else.

use std::collections::{BTreeMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};
use subway_protocol::Id;

use super::SpoolError;

/// Rows of old generations that a transaction deletes at least if there are any; twice what it adds if that is more, so that
/// they cannot grow faster than they go.
const DELETE_ROWS: u64 = 64;

/// The last known point of an install's clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Number of the event.
    pub seq: u64,
    /// Run of the monotonic clock.
    pub boot: String,
    /// Monotonic clock, milliseconds.
    pub mono: u64,
    /// The time that was stored for the event, milliseconds since the epoch.
    pub event_time: i64,
}

/// The newest generation of one app.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    number: i64,
    installs: u64,
}

/// The points of all apps.
#[derive(Debug)]
pub(super) struct Clocks {
    /// Installs an app.
    cap: u64,
    newest: BTreeMap<i64, Newest>,
    /// Apps that have rows of generations whose time is over.
    old: VecDeque<i64>,
    /// Rows that this transaction adds.
    added: u64,
    /// Points forgotten since it was last asked.
    forgotten: u64,
}

impl Clocks {
    pub(super) fn open(sql: &Connection, cap: u64) -> Result<Self, SpoolError> {
        let query =
            "SELECT app, generation, count(*) FROM install_clock GROUP BY app, generation ORDER BY app, generation";
        let mut statement = sql.prepare(query)?;
        let mut rows = statement.query([])?;
        let mut newest = BTreeMap::new();
        while let Some(row) = rows.next()? {
            newest.insert(row.get(0)?, Newest { number: row.get(1)?, installs: row.get(2)? });
        }
        let old = newest.keys().copied().collect();
        Ok(Self { cap, newest, old, added: 0, forgotten: 0 })
    }

    fn newest(&self, app: i64) -> Newest {
        self.newest.get(&app).copied().unwrap_or_default()
    }

    pub(super) fn point(&self, sql: &Connection, app: i64, install: Id) -> Result<Option<Point>, SpoolError> {
        let query =
            "SELECT seq, boot, mono, event_time FROM install_clock WHERE app = ?1 AND generation = ?2 AND id = ?3";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Point { seq: row.get(0)?, boot: row.get(1)?, mono: row.get(2)?, event_time: row.get(3)? })
        };
        let mut statement = sql.prepare_cached(query)?;
        let newest = self.newest(app).number;
        for generation in [newest, newest - 1] {
            let point = statement.query_row(params![app, generation, install.as_bytes()], read).optional()?;
            if point.is_some() || generation == 0 {
                return Ok(point);
            }
        }
        Ok(None)
    }

    pub(super) fn set_point(
        &mut self,
        sql: &Connection,
        app: i64,
        install: Id,
        point: &Point,
    ) -> Result<(), SpoolError> {
        let cap = self.cap;
        let newest = self.newest.entry(app).or_default();
        if newest.installs >= (cap / 2).max(1) {
            *newest = Newest { number: newest.number + 1, installs: 0 };
            self.old.push_back(app);
        }
        let values =
            params![app, newest.number, install.as_bytes(), point.seq, point.boot, point.mono, point.event_time];
        let update = "UPDATE install_clock SET seq = ?4, boot = ?5, mono = ?6, event_time = ?7
            WHERE app = ?1 AND generation = ?2 AND id = ?3";
        if sql.prepare_cached(update)?.execute(values)? == 0 {
            sql.prepare_cached("INSERT INTO install_clock VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(values)?;
            newest.installs += 1;
            self.added += 1;
        }
        Ok(())
    }

    /// Deletes some rows of old generations. Called once a transaction.
    pub(super) fn forget(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        // Also where nothing is old: what earlier transactions added is no measure of what this one may delete.
        let added = std::mem::take(&mut self.added);
        let Some(app) = self.old.front().copied() else { return Ok(()) };
        let rows = DELETE_ROWS.max(2 * added);
        let query = "DELETE FROM install_clock WHERE app = ?1 AND (generation, id) IN
            (SELECT generation, id FROM install_clock WHERE app = ?1 AND generation < ?2 LIMIT ?3)";
        let deleted = sql.prepare_cached(query)?.execute(params![app, self.newest(app).number - 1, rows])? as u64;
        self.forgotten += deleted;
        if deleted < rows {
            self.old.pop_front();
        }
        Ok(())
    }

    /// Whether old rows wait to be deleted.
    pub(super) fn wants_transaction(&self) -> bool {
        !self.old.is_empty()
    }

    /// How many points were forgotten since the last call.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
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
        let point = Point { seq: 1, boot: "b".into(), mono: 7, event_time: 1 };
        let mut forgotten = 0;
        for install in 0..5_000u128 {
            clocks.set_point(&sql, 1, Id::from_bytes(install.to_be_bytes()), &point).unwrap();
            if install % 50 == 49 {
                clocks.forget(&sql).unwrap();
                let gone = clocks.take_forgotten();
                assert!(gone <= 100, "{gone} rows in the commit with install {install}, which adds 50");
                forgotten += gone;
            }
        }
        while clocks.wants_transaction() {
            clocks.forget(&sql).unwrap();
            let gone = clocks.take_forgotten();
            assert!(gone <= DELETE_ROWS, "{gone} rows in a commit that adds none");
            forgotten += gone;
        }
        assert_eq!(forgotten, 3_000, "the last two generations stay");
    }
}
