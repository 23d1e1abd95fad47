//! Reading the spool, also that of a running collector.

use std::path::Path;

use rusqlite::Connection;

use super::{FILE, MIGRATIONS, SpoolError};
use crate::db;

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

/// A connection that only reads.
pub struct Reader(pub(super) Connection);

impl Reader {
    /// Opens the spool in the directory `dir` for reading.
    ///
    /// # Errors
    /// If there is none, it cannot be opened, or it was written by a newer collector, or by an older one and not migrated yet.
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
}
