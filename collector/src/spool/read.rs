//! Reading the spool, also that of a running collector.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use super::{Counters, Cursor, FILE, MIGRATIONS, SpoolError, cursor};
use crate::db;
use subway_protocol::RejectReason;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Position of its first event.
    pub first: u64,
    /// How many events it holds.
    pub events: u64,
    /// The JSON of a [`crate::record::Record`].
    pub json: String,
}

impl Stored {
    /// Bytes of JSON once what the events share has been copied to each of them, as most stores do.
    #[must_use]
    pub fn expanded(&self) -> u64 {
        let shared = crate::record::shared_bytes(&self.json).unwrap_or(0);
        (self.json.len() as u64).saturating_add(shared.saturating_mul(self.events.saturating_sub(1)))
    }
}

/// The ledger: where every event is that ever arrived in an accepted request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// How many arrived; stored + duplicate + all rejected.
    pub received: u64,
    /// How many are stored.
    pub stored: u64,
    /// How many had been seen before.
    pub duplicate: u64,
    /// How many were rejected, by reason; reasons that never occurred are absent.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Where the stored ones are, by sink.
    pub sinks: BTreeMap<String, SinkLedger>,
}

/// The stored events as one sink has them: delivered, dead, pending and expired add up to `stored`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkLedger {
    /// Delivered.
    pub delivered: u64,
    /// Refused by the store for good, or shed.
    pub dead: u64,
    /// Still to be delivered.
    pub pending: u64,
    /// Those of the dead that were given up because the spool was full; left out of the JSON if there are none.
    #[serde(skip_serializing_if = "none")]
    pub shed: u64,
    /// Gone, from the spool and from the embedded store, before they could be delivered; left out of the JSON if there are none.
    #[serde(skip_serializing_if = "none")]
    pub expired: u64,
}

/// Whether there are none.
fn none(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// Takes into account that `sink` says itself how far it is: every event up to `position` is in its store. The
    /// spool's own cursor may lag behind that, never the store behind what it has committed. `position` has to be asked
    /// for before the ledger, which then has every event that the store can have.
    #[must_use]
    pub fn reached(mut self, sink: &str, position: u64) -> Self {
        if let Some(sink) = self.sinks.get_mut(sink) {
            let lost = sink.dead + sink.expired;
            let done = (sink.delivered + lost).max(position.min(self.stored));
            (sink.delivered, sink.pending) = (done - lost, self.stored - done);
        }
        self
    }
}

/// A connection that only reads.
pub struct Reader(pub(super) Connection);

impl Reader {
    /// Opens the spool in the directory `dir` for reading.
    ///
    /// # Errors
    /// If there is none, it cannot be opened, or it was written by a newer collector.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        Ok(Self(db::open_reader(&dir.join(FILE), MIGRATIONS)?))
    }

    /// See [`super::Spool::read_after`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn read_after(&self, position: u64, max_events: u64, max_bytes: u64) -> Result<Vec<Stored>, SpoolError> {
        let sql = "SELECT first, events, json FROM record
            WHERE first >= (SELECT coalesce(max(first), 0) FROM record WHERE first <= ?1) ORDER BY first";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query([position + 1])?;
        let (mut out, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(row) = rows.next()? {
            let stored = Stored { first: row.get(0)?, events: row.get(1)?, json: row.get(2)? };
            if stored.first + stored.events <= position + 1 {
                continue;
            }
            events += stored.events;
            bytes += stored.expanded();
            if !out.is_empty() && (events > max_events || bytes > max_bytes) {
                break;
            }
            out.push(stored);
        }
        Ok(out)
    }

    /// When the oldest event arrived that a sink still has to deliver, milliseconds since the epoch; `None` if it has all,
    /// or the log no longer has that event.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn oldest_waiting(&self, sink: &str) -> Result<Option<i64>, SpoolError> {
        #[derive(serde::Deserialize)]
        struct Arrival {
            received_at: i64,
        }
        let next = cursor::load(&self.0, sink)?.delivered_to + 1;
        let sql = "SELECT json FROM record WHERE first = (SELECT max(first) FROM record WHERE first <= ?1) AND first + events > ?1";
        let json: Option<String> = self.0.prepare_cached(sql)?.query_row([next], |row| row.get(0)).optional()?;
        Ok(json.and_then(|json| serde_json::from_str::<Arrival>(&json).ok()).map(|arrival| arrival.received_at))
    }

    /// See [`super::Spool::token`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn token(&self, first: u64, last: u64) -> Result<String, SpoolError> {
        Ok(cursor::token(&cursor::identity(&self.0)?, first, last))
    }

    /// See [`super::Spool::cursor`].
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        cursor::load(&self.0, sink)
    }

    /// The ledger, from one committed state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        let snapshot = self.0.unchecked_transaction()?;
        let counters = Counters::load(&snapshot)?;
        let mut statement = snapshot.prepare_cached("SELECT sink FROM cursor")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut sinks = BTreeMap::new();
        for name in names {
            let cursor = cursor::load(&snapshot, &name)?;
            let Cursor { dead, shed, expired, .. } = cursor;
            let (delivered, pending) = (cursor.done() - dead - expired, counters.stored - cursor.done());
            sinks.insert(name, SinkLedger { delivered, dead, pending, shed, expired });
        }
        let rejected = RejectReason::ALL.iter().zip(counters.rejected);
        Ok(Ledger {
            received: counters.received,
            stored: counters.stored,
            duplicate: counters.duplicate,
            rejected: rejected.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)).collect(),
            sinks,
        })
    }
}
