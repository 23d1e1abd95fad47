//! Whole events out of the store.

use std::path::Path;

use rusqlite::{Connection, params};

use super::{FILE, MIGRATIONS, columns, parts};
use crate::db::{self, DbError};
use crate::row::Row;

pub(crate) use columns::select;

/// One result of [`select`]: its position and the event.
pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, Row<'static>)> {
    let position = row.get::<_, i64>(0)?.unsigned_abs();
    Ok((position, Row::read(&mut columns::Result::new(row))?))
}

/// The store's events in the order of their positions, for `export`. Blocks; works beside a running collector.
pub struct StoredRows {
    connection: Connection,
}

impl StoredRows {
    /// Opens the store in the data directory `dir`.
    ///
    /// # Errors
    /// [`DbError::Absent`] if there is none yet; or it cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, DbError> {
        Ok(Self { connection: db::open_reader(&dir.join(FILE), MIGRATIONS)? })
    }

    /// The time zones last noted for the apps, `(key, IANA name)`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn timezones(&self) -> Result<Vec<(String, String)>, DbError> {
        let mut statement = self.connection.prepare("SELECT key, timezone FROM app WHERE timezone <> ''")?;
        let apps = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(apps.collect::<rusqlite::Result<_>>()?)
    }

    /// Up to which position the store has the events.
    ///
    /// # Errors
    /// If the database fails.
    pub fn position(&self) -> Result<u64, DbError> {
        let position: i64 = self.connection.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
        Ok(position.unsigned_abs())
    }

    /// How many events with positions after `after` and up to `to` were deleted by retention, or never taken.
    ///
    /// # Errors
    /// If the database fails.
    pub fn missing(&self, after: u64, to: u64) -> Result<u64, DbError> {
        let query = "SELECT coalesce(sum(min(last, ?2) - max(first, ?1 + 1) + 1), 0) FROM missing WHERE last > ?1 AND first <= ?2";
        Ok(self.connection.query_row(query, [after, to], |row| row.get(0))?)
    }

    /// Gives the events at the positions after `position`, at most `limit`, to `visit`; returns the position up to which
    /// the store has now been read.
    ///
    /// Stored events never change and positions only grow, so a walk in such steps sees every event once, without
    /// holding one long transaction that would keep a running collector's write-ahead log from being reset.
    ///
    /// # Errors
    /// If the database fails, or the first error of `visit`.
    pub fn after<E: From<DbError>>(
        &self,
        position: u64,
        limit: u64,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let sql = |error: rusqlite::Error| E::from(DbError::from(error));
        let snapshot = self.connection.unchecked_transaction().map_err(sql)?;
        let cursor: i64 = snapshot.query_row("SELECT position FROM cursor", [], |row| row.get(0)).map_err(sql)?;
        let (mut left, mut last) = (limit, position);
        for part in parts::after(&snapshot, position.cast_signed()).map_err(sql)? {
            let source = format!("SELECT position FROM event_{part} WHERE position > ?1 ORDER BY position LIMIT ?2");
            let mut statement = snapshot.prepare_cached(&select(part, &source, "p.position")).map_err(sql)?;
            let mut rows = statement.query(params![position.cast_signed(), left.cast_signed()]).map_err(sql)?;
            while let Some(row) = rows.next().map_err(sql)? {
                let (at, row) = read(row).map_err(sql)?;
                visit(&row)?;
                (left, last) = (left - 1, at);
            }
            if left == 0 {
                return Ok(last);
            }
        }
        // Fewer than asked for: the store has nothing more up to its cursor.
        Ok(last.max(cursor.unsigned_abs()))
    }
}
