//! The embedded store as the memory of the data directory: what the spool has forgotten, a new sink gets from here.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::{FILE, MIGRATIONS, rows};
use crate::db;
use crate::sinks::{History, StoredRecord};

/// Reads `store.db`; also beside the collector that writes it.
pub struct StoreHistory(PathBuf);

impl StoreHistory {
    /// The history in the data directory `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }
}

impl History for StoreHistory {
    fn records(&self, after: u64, to: u64, events: u64, bytes: u64) -> Result<Vec<StoredRecord>, String> {
        // A new sink catches up once in its life; keeping a connection for that is not worth it.
        let connection = db::open_reader(&self.0, MIGRATIONS).map_err(|error| error.to_string())?;
        read(&connection, (after, to), events, bytes).map_err(|error| format!("{FILE}: {error}"))
    }
}

fn read(sql: &Connection, (after, to): (u64, u64), events: u64, bytes: u64) -> rusqlite::Result<Vec<StoredRecord>> {
    let source = "SELECT position FROM event WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3";
    let mut statement = sql.prepare(&rows::select(source, "p.position"))?;
    let limit = i64::try_from(events).unwrap_or(i64::MAX);
    let mut found = statement.query(params![after, to, limit])?;
    let (mut out, mut size) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let (first, row) = rows::read(row)?;
        let json = serde_json::to_string(&row.into_record())
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        size += json.len() as u64;
        if !out.is_empty() && size > bytes {
            break;
        }
        out.push(StoredRecord { first, json });
    }
    Ok(out)
}
