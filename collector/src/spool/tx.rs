//! What can be done inside one transaction of the writer.

use rusqlite::{Connection, params};
use subway_protocol::{Id, RejectReason};

use super::SpoolError;
use super::backlog::{Backlog, Backlogs};
use super::clocks::{Clocks, Point};
use super::dedup::Dedup;

/// The figures that change with every commit: the ledger's left side, and the bytes in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that arrived in accepted requests.
    pub received: u64,
    /// Events stored; also the head.
    pub stored: u64,
    /// Events seen before.
    pub duplicate: u64,
    /// Those of the stored that came so late that the dedup index no longer reaches back to when they were first sent.
    pub unverified: u64,
    /// Events rejected, in the order of [`RejectReason::ALL`].
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Bytes of JSON in the log.
    pub backlog: u64,
}

impl Counters {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut counters = Self::default();
        let mut statement = connection.prepare_cached("SELECT name, value FROM counter")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, value) = (row.get_ref(0)?.as_str()?, row.get::<_, u64>(1)?);
            if let Some(place) = counters.place(name) {
                *place = value;
            }
        }
        Ok(counters)
    }

    fn place(&mut self, name: &str) -> Option<&mut u64> {
        match name {
            "received" => Some(&mut self.received),
            "stored" => Some(&mut self.stored),
            "duplicate" => Some(&mut self.duplicate),
            "unverified" => Some(&mut self.unverified),
            "backlog" => Some(&mut self.backlog),
            _ => {
                let reason = RejectReason::parse(name.strip_prefix("rejected:")?)?;
                self.rejected.get_mut(reason as usize)
            }
        }
    }

    /// Writes what differs from `before`.
    pub(super) fn save(&self, before: &Self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        let mut statement = connection.prepare_cached(sql)?;
        let mut put = |name: &str, old: u64, new: u64| {
            if old == new { Ok(0) } else { statement.execute(params![name, new]) }
        };
        put("received", before.received, self.received)?;
        put("stored", before.stored, self.stored)?;
        put("duplicate", before.duplicate, self.duplicate)?;
        put("unverified", before.unverified, self.unverified)?;
        put("backlog", before.backlog, self.backlog)?;
        for (reason, (old, new)) in RejectReason::ALL.iter().zip(before.rejected.iter().zip(self.rejected)) {
            if *old != new {
                put(&format!("rejected:{}", reason.as_str()), *old, new)?;
            }
        }
        Ok(())
    }
}

/// A transaction of the writer. Everything done in it is committed together or not at all.
pub struct Tx<'c> {
    pub(super) sql: &'c Connection,
    /// The ledger's left side as this transaction leaves it.
    pub counters: &'c mut Counters,
    pub(super) backlogs: &'c mut Backlogs,
    pub(super) dedup: &'c mut Dedup,
    pub(super) clocks: &'c mut Clocks,
    /// When the transaction began, milliseconds since the epoch.
    pub(super) now: i64,
}

impl Tx<'_> {
    /// How much of the log is the app's, as this transaction leaves it.
    #[must_use]
    pub fn backlog(&self, app: i64) -> Backlog {
        Backlog { own: self.backlogs.of(app), total: self.counters.backlog }
    }

    /// A record of so many bytes has come.
    pub(super) fn grow(&mut self, app: i64, bytes: u64) {
        self.counters.backlog += bytes;
        self.backlogs.grow(app, bytes);
    }

    /// Records of so many bytes have gone.
    pub(super) fn shrink(&mut self, app: i64, bytes: u64) {
        self.counters.backlog = self.counters.backlog.saturating_sub(bytes);
        self.backlogs.shrink(app, bytes);
    }

    pub(super) fn app_number(&mut self, key: &str) -> Result<i64, SpoolError> {
        self.sql.prepare_cached("INSERT OR IGNORE INTO app (key) VALUES (?1)")?.execute([key])?;
        Ok(self.sql.prepare_cached("SELECT no FROM app WHERE key = ?1")?.query_row([key], |row| row.get(0))?)
    }

    /// Notes a signature as used. `false` if it had been used before. Forgets those signed before `forget_before`
    /// (milliseconds since the epoch), which would be refused for their age.
    ///
    /// # Errors
    /// If the database fails.
    pub fn use_signature(
        &mut self,
        app: i64,
        mac: &[u8],
        signed_at: i64,
        forget_before: i64,
    ) -> Result<bool, SpoolError> {
        self.sql.prepare_cached("DELETE FROM signature WHERE signed_at < ?1")?.execute([forget_before])?;
        let new = self
            .sql
            .prepare_cached("INSERT OR IGNORE INTO signature VALUES (?1, ?2, ?3)")?
            .execute(params![app, mac, signed_at])?;
        Ok(new == 1)
    }

    /// Notes event IDs as seen. Calls `found` with each one's index and whether it is new.
    ///
    /// # Errors
    /// If the database fails.
    pub fn see(
        &mut self,
        app: i64,
        ids: impl Iterator<Item = Id>,
        found: impl FnMut(usize, bool),
    ) -> Result<(), SpoolError> {
        self.dedup.see(self.sql, app, ids, found)
    }

    /// How far back the dedup index of `app` reaches, milliseconds: what was first sent longer ago may have been forgotten.
    #[must_use]
    pub fn horizon_ms(&self, app: i64) -> i64 {
        self.dedup.horizon_ms(app, self.now)
    }

    /// The last known point of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn point(&mut self, app: i64, install: Id) -> Result<Option<Point>, SpoolError> {
        self.clocks.point(self.sql, app, install)
    }

    /// Replaces the last known point of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_point(&mut self, app: i64, install: Id, point: &Point) -> Result<(), SpoolError> {
        self.clocks.set_point(self.sql, app, install, point)
    }

    /// Appends a record of `events` events of `app`, as JSON of [`crate::record::Record`]. Returns the position of its first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn append(&mut self, app: i64, json: &str, events: u64) -> Result<u64, SpoolError> {
        let first = self.counters.stored + 1;
        let insert = "INSERT INTO record (first, events, json, app) VALUES (?1, ?2, ?3, ?4)";
        self.sql.prepare_cached(insert)?.execute(params![first, events, json, app])?;
        self.counters.stored += events;
        self.grow(app, json.len() as u64);
        Ok(first)
    }
}
