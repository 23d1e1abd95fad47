//! What can be done inside one transaction of the writer.

use rusqlite::{Connection, OptionalExtension, params};
use subway_protocol::{Id, RejectReason};

use super::SpoolError;

/// The figures that change with every commit: the ledger's left side, and the bytes in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that arrived in accepted requests.
    pub received: u64,
    /// Events stored; also the head.
    pub stored: u64,
    /// Events seen before.
    pub duplicate: u64,
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
        put("backlog", before.backlog, self.backlog)?;
        for (reason, (old, new)) in RejectReason::ALL.iter().zip(before.rejected.iter().zip(self.rejected)) {
            if *old != new {
                put(&format!("rejected:{}", reason.as_str()), *old, new)?;
            }
        }
        Ok(())
    }
}

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

/// A transaction of the writer. Everything done in it is committed together or not at all.
pub struct Tx<'c> {
    pub(super) sql: &'c Connection,
    /// The ledger's left side as this transaction leaves it.
    pub counters: &'c mut Counters,
}

impl Tx<'_> {
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
        mut found: impl FnMut(usize, bool),
    ) -> Result<(), SpoolError> {
        let mut statement = self.sql.prepare_cached("INSERT OR IGNORE INTO seen VALUES (?1, ?2)")?;
        for (at, id) in ids.enumerate() {
            found(at, statement.execute(params![app, id.as_bytes()])? == 1);
        }
        Ok(())
    }

    /// The last known point of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn point(&mut self, app: i64, install: Id) -> Result<Option<Point>, SpoolError> {
        let sql = "SELECT seq, boot, mono, event_time FROM install WHERE app = ?1 AND id = ?2";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Point { seq: row.get(0)?, boot: row.get(1)?, mono: row.get(2)?, event_time: row.get(3)? })
        };
        Ok(self.sql.prepare_cached(sql)?.query_row(params![app, install.as_bytes()], read).optional()?)
    }

    /// Replaces the last known point of an install.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_point(&mut self, app: i64, install: Id, point: &Point) -> Result<(), SpoolError> {
        let sql = "INSERT INTO install VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE
            SET seq = excluded.seq, boot = excluded.boot, mono = excluded.mono, event_time = excluded.event_time";
        let values = params![app, install.as_bytes(), point.seq, point.boot, point.mono, point.event_time];
        self.sql.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// Appends a record of `events` events, as JSON of [`crate::record::Record`]. Returns the position of its first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn append(&mut self, json: &str, events: u64) -> Result<u64, SpoolError> {
        let first = self.counters.stored + 1;
        self.sql.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3)")?.execute(params![first, events, json])?;
        self.counters.stored += events;
        self.counters.backlog += json.len() as u64;
        Ok(first)
    }
}
