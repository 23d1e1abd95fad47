//! Backfill from the embedded store: a new sink gets from here what the spool has deleted.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::{FILE, MIGRATIONS, parts, rows};
use crate::db;
use crate::sinks::{BackfillSource, StoredRecord};

/// Reads `store.db`, also beside the collector that writes it.
pub(crate) struct StoreBackfill(PathBuf);

impl StoreBackfill {
    /// Creates a source for the data directory `dir`.
    #[must_use]
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    fn connect(&self) -> Result<Connection, String> {
        // Backfill is rare, so keeping a connection is not worth it.
        db::open_reader(&self.0, MIGRATIONS).map_err(|error| error.to_string())
    }
}

impl BackfillSource for StoreBackfill {
    fn records(&self, after: u64, to: u64, events: u64, bytes: u64) -> Result<Vec<StoredRecord>, String> {
        read(&self.connect()?, (after, to), events, bytes).map_err(|error| format!("{FILE}: {error}"))
    }

    fn missing(&self, after: u64) -> Result<Option<u64>, String> {
        let query = "SELECT last FROM missing WHERE first <= ?1 AND last >= ?1 ORDER BY last DESC LIMIT 1";
        let found = self.connect()?.query_row(query, [after + 1], |row| row.get(0)).optional();
        found.map_err(|error| format!("{FILE}: {error}"))
    }
}

fn read(sql: &Connection, (after, to): (u64, u64), events: u64, bytes: u64) -> rusqlite::Result<Vec<StoredRecord>> {
    let snapshot = sql.unchecked_transaction()?;
    let limit = i64::try_from(events).unwrap_or(i64::MAX);
    let (mut out, mut size) = (Vec::new(), 0);
    for part in parts::after(&snapshot, i64::try_from(after).unwrap_or(i64::MAX))? {
        let mut is_whole = true;
        rows::for_each_row(&snapshot, part, (after.cast_signed(), to.cast_signed(), limit), |first, row| {
            let json = serde_json::to_string(&row.into_record())
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            size += json.len() as u64;
            // A gap ends the read, because a sink skips it before it takes what follows.
            let follows = out.last().map_or(after, |record: &StoredRecord| record.first) + 1;
            if first != follows || (!out.is_empty() && size > bytes) || out.len() as u64 >= events {
                is_whole = false;
                return Ok(ControlFlow::Break(()));
            }
            out.push(StoredRecord { first, json });
            Ok(ControlFlow::Continue(()))
        })?;
        if !is_whole {
            break;
        }
    }
    Ok(out)
}
