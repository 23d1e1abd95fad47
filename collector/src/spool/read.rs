//! Read access to the spool, also to that of a running collector.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::{FILE, MIGRATIONS, SpoolError};
use crate::db;

/// Record of the log: the stored events of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolRecord {
    /// Position of its first event.
    pub first: u64,
    /// Number of its events.
    pub events: u64,
    /// JSON of a [`crate::record::Record`].
    pub json: String,
}

impl SpoolRecord {
    /// Returns the bytes of JSON after copying what the events share to each of them, as most stores do.
    #[must_use]
    pub fn expanded(&self) -> u64 {
        let shared = crate::record::shared_bytes(&self.json).unwrap_or(0);
        (self.json.len() as u64).saturating_add(shared.saturating_mul(self.events.saturating_sub(1)))
    }
}

/// Returns the text of a record.
///
/// Bytes that are not UTF-8, which only damage causes, become a text that is no JSON: the record counts as unreadable and
/// costs its own events, where an error would stop every reader at it.
pub(super) fn json_text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(column)?.as_bytes()?;
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{}{}", char::REPLACEMENT_CHARACTER, String::from_utf8_lossy(bytes)),
    })
}

/// Read-only connection to the spool.
pub struct SpoolReader(pub(super) Connection);

impl SpoolReader {
    /// Opens the spool in the directory `dir` for reading.
    ///
    /// # Errors
    /// If the spool does not exist, cannot be opened, was written by a newer collector, or by an older one and is not
    /// migrated yet.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        Ok(Self(db::open_reader(&dir.join(FILE), MIGRATIONS)?))
    }

    /// See [`super::Spool::read_after`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn read_after(&self, position: u64, max_events: u64, max_bytes: u64) -> Result<Vec<SpoolRecord>, SpoolError> {
        let sql = "SELECT first, events, json FROM record
            WHERE first >= (SELECT coalesce(max(first), 0) FROM record WHERE first <= ?1) ORDER BY first";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query([position + 1])?;
        let (mut out, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(row) = rows.next()? {
            let stored = SpoolRecord { first: row.get(0)?, events: row.get(1)?, json: json_text(row, 2)? };
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
