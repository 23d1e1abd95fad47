//! How much of the log each app has, and how much it may have: the room is shared by the rule of docs/adr/0009.
//!
//! The figures are counters of the database that change in the transactions that append and forget records, so they are
//! exact after any crash and nobody has to look at the log for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;

use super::{SpoolError, lock};
use crate::limit::dynamic_threshold;

/// An app may have this many times what is free. One that is alone gets 8/9 of the room, two get 8/17 each: a part is always
/// left for the others. A smaller number would leave more of the room unused, a larger one less to an app that comes late.
pub const SHARE: u64 = 8;

/// Stands for the app of a record whose JSON does not say it.
const NOBODY: i64 = 0;

/// What the counter of an app is called, before its number.
const COUNTER: &str = "backlog:";

/// SQL for the number of the app that a row of `record` belongs to; rows from before the column `app` are asked for it.
pub(super) const OWNER: &str = "coalesce(app, (SELECT no FROM app WHERE key = \
    CASE WHEN json_valid(json) THEN json_extract(json, '$.app_key') END), 0)";

/// How much of the log is one app's, and how much there is in all, bytes of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The app's.
    pub own: u64,
    /// Of all apps together.
    pub total: u64,
}

/// Why there is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All of it is taken.
    Spool,
    /// The app has what it may have.
    Share {
        /// What it may have now, bytes.
        limit: u64,
        /// What it has, bytes.
        got: u64,
    },
}

impl Backlog {
    /// What one app may have of a spool with room for `cap` bytes; it grows and shrinks with what is free.
    #[must_use]
    pub fn share(self, cap: u64) -> u64 {
        dynamic_threshold(cap, self.total, SHARE)
    }

    /// Whether the app may store more in a spool with room for `cap` bytes.
    ///
    /// # Errors
    /// Why not.
    pub fn room(self, cap: u64) -> Result<(), Full> {
        let limit = self.share(cap);
        if self.total > cap {
            Err(Full::Spool)
        } else if self.own > limit {
            Err(Full::Share { limit, got: self.own })
        } else {
            Ok(())
        }
    }
}

/// Bytes of JSON in the log by the number of their app; an app with none is absent.
pub(super) type ByApp = BTreeMap<i64, u64>;

/// The figures of all apps, and those that the transaction in progress changes.
#[derive(Default)]
pub(super) struct Backlogs {
    /// As committed; everybody may read it.
    committed: Arc<Mutex<ByApp>>,
    changed: ByApp,
}

impl Backlogs {
    pub(super) fn new(committed: Arc<Mutex<ByApp>>) -> Self {
        Self { committed, changed: ByApp::new() }
    }

    /// Brings memory to what the database says.
    pub(super) fn load(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let query = "SELECT CAST(substr(name, ?2) AS INTEGER), value FROM counter WHERE substr(name, 1, ?2 - 1) = ?1";
        let mut statement = sql.prepare_cached(query)?;
        let rows = statement.query_map(params![COUNTER, COUNTER.len() + 1], |row| Ok((row.get(0)?, row.get(1)?)))?;
        *lock(&self.committed) = rows.collect::<rusqlite::Result<_>>()?;
        self.changed.clear();
        Ok(())
    }

    /// A record of so many bytes has come.
    pub(super) fn grow(&mut self, app: i64, bytes: u64) {
        self.changed.insert(app, self.of(app) + bytes);
    }

    /// Records of so many bytes have gone.
    pub(super) fn shrink(&mut self, app: i64, bytes: u64) {
        self.changed.insert(app, self.of(app).saturating_sub(bytes));
    }

    /// What the app has, as the transaction in progress leaves it.
    pub(super) fn of(&self, app: i64) -> u64 {
        let changed = self.changed.get(&app).copied();
        changed.unwrap_or_else(|| lock(&self.committed).get(&app).copied().unwrap_or(0))
    }

    /// Writes what the transaction changed: one statement for each app that it touched.
    pub(super) fn save(&self, sql: &Connection) -> rusqlite::Result<()> {
        for (app, bytes) in &self.changed {
            let name = format!("{COUNTER}{app}");
            if *bytes == 0 {
                sql.prepare_cached("DELETE FROM counter WHERE name = ?1")?.execute([name])?;
            } else {
                let put = "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
                sql.prepare_cached(put)?.execute(params![name, bytes])?;
            }
        }
        Ok(())
    }

    /// The transaction is on disk.
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

/// Finds the apps of records by their JSON. Asks the database once for each key.
#[derive(Default)]
pub(super) struct Owners(HashMap<String, i64>);

impl Owners {
    pub(super) fn of(&mut self, sql: &Connection, json: &str) -> Result<i64, SpoolError> {
        #[derive(Deserialize)]
        struct Owned {
            app_key: String,
        }
        let Ok(Owned { app_key }) = serde_json::from_str(json) else { return Ok(NOBODY) };
        if let Some(known) = self.0.get(&app_key) {
            return Ok(*known);
        }
        let mut statement = sql.prepare_cached("SELECT no FROM app WHERE key = ?1")?;
        let app = statement.query_row([&app_key], |row| row.get(0)).optional()?.unwrap_or(NOBODY);
        self.0.insert(app_key, app);
        Ok(app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of the apps has once all of them send until they are refused, one record of `step` bytes after the other.
    fn flood(cap: u64, step: u64, mut own: Vec<u64>) -> Vec<u64> {
        loop {
            let before = own.clone();
            for app in 0..own.len() {
                let backlog = Backlog { own: own[app], total: own.iter().sum() };
                own[app] += if backlog.room(cap).is_ok() { step } else { 0 };
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
            let due = 1_000_000 * SHARE / (1 + SHARE * apps as u64);
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
        let room = |own, total| Backlog { own, total }.room(900);
        assert_eq!(room(800, 800), Ok(()), "800 = 8 * (900 - 800)");
        assert_eq!(room(801, 801), Err(Full::Share { limit: 792, got: 801 }));
        assert_eq!(room(1, 900), Err(Full::Share { limit: 0, got: 1 }));
        assert_eq!(room(0, 900), Ok(()), "an app that has nothing is let in as long as there is room at all");
        assert_eq!(room(0, 901), Err(Full::Spool));
        assert_eq!(Backlog { own: 0, total: 0 }.room(u64::MAX), Ok(()));
    }
}
