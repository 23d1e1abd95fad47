//! Operations inside one transaction of the writer.

use rusqlite::{Connection, params};
use subway_protocol::{Id, RejectReason};

use super::SpoolError;
use super::backlog::{Backlog, Backlogs};
use super::clocks::{ClockAnchor, Clocks};
use super::dedup::Dedup;

/// Counters that change with every commit: the ledger's counts of requests, and the bytes in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounters {
    /// Events that arrived in accepted requests.
    pub received: u64,
    /// Events stored, which is also the head.
    pub stored: u64,
    /// Events whose ID was seen before.
    pub duplicate: u64,
    /// Stored events that were first sent before the horizon of the dedup index, so that a duplicate would not be
    /// found.
    pub unverified: u64,
    /// Events rejected, in the order of [`RejectReason::ALL`].
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Bytes of JSON in the log.
    pub backlog: u64,
}

impl SpoolCounters {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut counters = Self::default();
        let mut statement = connection.prepare_cached("SELECT name, value FROM counter")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, value) = (row.get_ref(0)?.as_str()?, row.get::<_, u64>(1)?);
            if let Some(field_mut) = counters.field_mut(name) {
                *field_mut = value;
            }
        }
        Ok(counters)
    }

    fn field_mut(&mut self, name: &str) -> Option<&mut u64> {
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

    /// Writes the counters that differ from `before`.
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

/// Transaction of the writer. All of it is committed together, or none.
pub struct Tx<'c> {
    pub(super) sql: &'c Connection,
    /// Counters with the changes of this transaction.
    pub counters: &'c mut SpoolCounters,
    pub(super) backlogs: &'c mut Backlogs,
    pub(super) dedup: &'c mut Dedup,
    pub(super) clocks: &'c mut Clocks,
    /// Start of the transaction, milliseconds since the epoch.
    pub(super) now: i64,
}

impl Tx<'_> {
    /// Returns the backlog of the app, with the changes of this transaction.
    #[must_use]
    pub fn backlog(&self, app: i64) -> Backlog {
        Backlog { own: self.backlogs.of(app), total: self.counters.backlog }
    }

    /// Adds the bytes of a new record.
    pub(super) fn grow_backlog(&mut self, app: i64, bytes: u64) {
        self.counters.backlog += bytes;
        self.backlogs.grow(app, bytes);
    }

    /// Subtracts the bytes of deleted records.
    pub(super) fn shrink_backlog(&mut self, app: i64, bytes: u64) {
        self.counters.backlog = self.counters.backlog.saturating_sub(bytes);
        self.backlogs.shrink(app, bytes);
    }

    pub(super) fn app_number(&mut self, key: &str) -> Result<i64, SpoolError> {
        self.sql.prepare_cached("INSERT OR IGNORE INTO app (key) VALUES (?1)")?.execute([key])?;
        Ok(self.sql.prepare_cached("SELECT no FROM app WHERE key = ?1")?.query_row([key], |row| row.get(0))?)
    }

    /// Records a signature. Returns `false` if it was recorded before.
    ///
    /// Deletes signatures older than `forget_before` (milliseconds since the epoch), which are refused for their age.
    ///
    /// # Errors
    /// If the database fails.
    pub fn record_signature(
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

    /// Adds new event IDs to the dedup index. Calls `found` with the index of each ID and whether it is new.
    ///
    /// # Errors
    /// If the database fails.
    pub fn insert_new_ids(
        &mut self,
        app: i64,
        ids: impl Iterator<Item = Id>,
        found: impl FnMut(usize, bool),
    ) -> Result<(), SpoolError> {
        self.dedup.insert_new_ids(self.sql, app, ids, found)
    }

    /// Returns how far back the dedup index of `app` reaches, milliseconds. IDs that were first sent earlier may be
    /// forgotten.
    #[must_use]
    pub fn horizon_ms(&self, app: i64) -> i64 {
        self.dedup.horizon_ms(app, self.now)
    }

    /// Returns the last clock anchor of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn clock_anchor(&mut self, app: i64, install: Id) -> Result<Option<ClockAnchor>, SpoolError> {
        self.clocks.clock_anchor(self.sql, app, install)
    }

    /// Replaces the clock anchor of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_clock_anchor(&mut self, app: i64, install: Id, clock_anchor: &ClockAnchor) -> Result<(), SpoolError> {
        self.clocks.set_clock_anchor(self.sql, app, install, clock_anchor)
    }

    /// Appends a record of `events` events of `app`, as JSON of [`crate::record::Record`]. Returns the position of its
    /// first event.
    ///
    /// # Errors
    /// If the database fails.
    pub fn append(&mut self, app: i64, json: &str, events: u64) -> Result<u64, SpoolError> {
        let first = self.counters.stored + 1;
        let insert = "INSERT INTO record (first, events, json, app) VALUES (?1, ?2, ?3, ?4)";
        self.sql.prepare_cached(insert)?.execute(params![first, events, json, app])?;
        self.counters.stored += events;
        self.grow_backlog(app, json.len() as u64);
        Ok(first)
    }
}
