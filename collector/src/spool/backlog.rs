//! Bytes of the log by app, and the share that an app is allowed: docs/adr/0009.
//!
//! The figures are counters in the database. They change in the transactions that append and delete records, so they
//! are exact after a crash and no read of the log is needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;

use super::{SpoolError, lock};
use crate::limit::dynamic_threshold;

/// Allows an app this many times the free space of the log.
///
/// A single app gets 8/9 of the log, two apps get 8/17 each: some of it is always left for others. A smaller number
/// leaves more of the log unused, a larger one leaves less to an app that starts later.
pub const FREE_SPACE_MULTIPLE: u64 = 8;

/// Number that stands for the app of a record whose JSON does not name one.
const UNKNOWN_APP: i64 = 0;

/// Prefix of an app's counter, before its number.
const COUNTER_PREFIX: &str = "backlog:";

/// SQL expression for the app number of a row of `record`. For rows older than the column `app` it reads the JSON.
pub(super) const RECORD_APP_SQL: &str = "coalesce(app, (SELECT no FROM app WHERE key = \
    CASE WHEN json_valid(json) THEN json_extract(json, '$.app_key') END), 0)";

/// Bytes of JSON in the log: of one app and of all apps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes of the app.
    pub own: u64,
    /// Bytes of all apps together.
    pub total: u64,
}

/// Reason why the log accepts no more of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacityExceeded {
    /// The whole log is full.
    Spool,
    /// The app has used its share.
    Share {
        /// Bytes that the app is allowed now.
        limit: u64,
        /// Bytes that the app has.
        got: u64,
    },
}

impl Backlog {
    /// Returns the bytes that one app is allowed in a spool of at most `cap` bytes. Grows and shrinks with the free
    /// space.
    #[must_use]
    pub fn share(self, cap: u64) -> u64 {
        dynamic_threshold(cap, self.total, FREE_SPACE_MULTIPLE)
    }

    /// Checks that the app is allowed to store more in a spool of at most `cap` bytes.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn check_capacity(self, cap: u64) -> Result<(), CapacityExceeded> {
        let limit = self.share(cap);
        if self.total > cap {
            Err(CapacityExceeded::Spool)
        } else if self.own > limit {
            Err(CapacityExceeded::Share { limit, got: self.own })
        } else {
            Ok(())
        }
    }
}

/// Bytes of JSON in the log by app number. Apps without bytes are absent.
pub(super) type BytesByApp = BTreeMap<i64, u64>;

/// Backlogs of all apps, with the changes of the transaction in progress.
#[derive(Default)]
pub(super) struct Backlogs {
    /// Committed values, shared with readers.
    committed: Arc<Mutex<BytesByApp>>,
    changed: BytesByApp,
}

impl Backlogs {
    pub(super) fn new(committed: Arc<Mutex<BytesByApp>>) -> Self {
        Self { committed, changed: BytesByApp::new() }
    }

    /// Loads the committed values from the database.
    pub(super) fn load(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let query = "SELECT CAST(substr(name, ?2) AS INTEGER), value FROM counter WHERE substr(name, 1, ?2 - 1) = ?1";
        let mut statement = sql.prepare_cached(query)?;
        let rows = statement
            .query_map(params![COUNTER_PREFIX, COUNTER_PREFIX.len() + 1], |row| Ok((row.get(0)?, row.get(1)?)))?;
        *lock(&self.committed) = rows.collect::<rusqlite::Result<_>>()?;
        self.changed.clear();
        Ok(())
    }

    /// Adds the bytes of a new record.
    pub(super) fn grow(&mut self, app: i64, bytes: u64) {
        self.changed.insert(app, self.of(app) + bytes);
    }

    /// Subtracts the bytes of deleted records.
    pub(super) fn shrink(&mut self, app: i64, bytes: u64) {
        self.changed.insert(app, self.of(app).saturating_sub(bytes));
    }

    /// Returns the app's bytes, with the changes of the transaction in progress.
    pub(super) fn of(&self, app: i64) -> u64 {
        let changed = self.changed.get(&app).copied();
        changed.unwrap_or_else(|| lock(&self.committed).get(&app).copied().unwrap_or(0))
    }

    /// Writes the changes of the transaction: one statement for each app that it changed.
    pub(super) fn save(&self, sql: &Connection) -> rusqlite::Result<()> {
        for (app, bytes) in &self.changed {
            let name = format!("{COUNTER_PREFIX}{app}");
            if *bytes == 0 {
                sql.prepare_cached("DELETE FROM counter WHERE name = ?1")?.execute([name])?;
            } else {
                let put = "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
                sql.prepare_cached(put)?.execute(params![name, bytes])?;
            }
        }
        Ok(())
    }

    /// Publishes the changes after the transaction was committed.
    pub(super) fn commit(&mut self) {
        let mut committed = lock(&self.committed);
        for (app, bytes) in std::mem::take(&mut self.changed) {
            if bytes == 0 {
                committed.remove(&app);
            } else {
                committed.insert(app, bytes);
            }
        }
    }
}

/// Finds the app of a record by its JSON. Queries the database once for each key.
#[derive(Default)]
pub(super) struct AppLookup(HashMap<String, i64>);

impl AppLookup {
    pub(super) fn of(&mut self, sql: &Connection, json: &str) -> Result<i64, SpoolError> {
        #[derive(Deserialize)]
        struct Owned {
            app_key: String,
        }
        let Ok(Owned { app_key }) = serde_json::from_str(json) else { return Ok(UNKNOWN_APP) };
        if let Some(known) = self.0.get(&app_key) {
            return Ok(*known);
        }
        let mut statement = sql.prepare_cached("SELECT no FROM app WHERE key = ?1")?;
        let app = statement.query_row([&app_key], |row| row.get(0)).optional()?.unwrap_or(UNKNOWN_APP);
        self.0.insert(app_key, app);
        Ok(app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what each app has after all of them sent records of `step` bytes in turn until each was refused.
    fn flood(cap: u64, step: u64, mut own: Vec<u64>) -> Vec<u64> {
        loop {
            let before = own.clone();
            for app in 0..own.len() {
                let backlog = Backlog { own: own[app], total: own.iter().sum() };
                own[app] += if backlog.check_capacity(cap).is_ok() { step } else { 0 };
            }
            if own == before {
                return own;
            }
        }
    }

    #[test]
    fn an_app_alone_gets_most_of_the_room_and_several_get_the_same() {
        for apps in [1, 2, 10, 100] {
            let got = flood(1_000_000, 10, vec![0; apps]);
            let due = 1_000_000 * FREE_SPACE_MULTIPLE / (1 + FREE_SPACE_MULTIPLE * apps as u64);
            assert!(got.iter().all(|bytes| bytes.abs_diff(due) <= 100), "{apps}: {due}, {got:?}");
        }
    }

    #[test]
    fn whoever_comes_late_finds_room_and_the_flood_makes_no_more() {
        let first = flood(1_000_000, 10, vec![0; 3]);
        let mut with_late = first.clone();
        with_late.push(0);
        let got = flood(1_000_000, 10, with_late);
        assert_eq!(&got[..3], first, "they have what they had");
        assert!(got[3] > 30_000, "{got:?}");
    }

    #[test]
    fn a_refusal_says_what_may_be_and_what_is() {
        let check_capacity = |own, total| Backlog { own, total }.check_capacity(900);
        assert_eq!(check_capacity(800, 800), Ok(()), "800 = 8 * (900 - 800)");
        assert_eq!(check_capacity(801, 801), Err(CapacityExceeded::Share { limit: 792, got: 801 }));
        assert_eq!(check_capacity(1, 900), Err(CapacityExceeded::Share { limit: 0, got: 1 }));
        assert_eq!(check_capacity(0, 900), Ok(()), "an app that has nothing is let in as long as there is room at all");
        assert_eq!(check_capacity(0, 901), Err(CapacityExceeded::Spool));
        assert_eq!(Backlog { own: 0, total: 0 }.check_capacity(u64::MAX), Ok(()));
    }
}
