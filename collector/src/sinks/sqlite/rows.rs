//! Reads whole events from the store.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Connection;

use super::packed::{BlobLayout, BlobReader};
use super::{FILE, MIGRATIONS, columns, parts};
use crate::db::{self, DbError};
use crate::record::{Column, ColumnScope, ColumnSource, OwnedValue};
use crate::row::Row;

/// Calls `visit` for the events of one part at the positions after `after` and up to `to`, at most `limit`, in order,
/// until it breaks.
pub(crate) fn for_each_row(
    sql: &Connection,
    part: i64,
    (after, to, limit): (i64, i64, i64),
    mut visit: impl FnMut(u64, Row<'static>) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    let layout = sql.prepare_cached("SELECT layout FROM part WHERE id = ?1")?.query_row([part], |row| row.get(0));
    let layout: Option<String> = layout?;
    if let Some(layout) = layout {
        return for_each_packed_row(sql, (part, &BlobLayout::parse(&layout)?), (after, to, limit), visit);
    }
    let mut statement = sql.prepare_cached(&columns::select_events(part))?;
    let mut rows = statement.query([after, to, limit])?;
    while let Some(row) = rows.next()? {
        let position = row.get::<_, i64>(0)?.unsigned_abs();
        if visit(position, Row::read(&mut columns::RowColumns::after(row, 1))?)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// [`for_each_row`] of a part with packed events.
fn for_each_packed_row(
    sql: &Connection,
    (part, layout): (i64, &BlobLayout),
    (after, to, limit): (i64, i64, i64),
    mut visit: impl FnMut(u64, Row<'static>) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached(&columns::select_batches(part))?;
    let mut rows = statement.query([after, to])?;
    let mut left = limit;
    while let Some(row) = rows.next()? {
        let first: i64 = row.get(0)?;
        let blob = row.get_ref(1)?.as_blob()?;
        let mut events = BlobReader::new(layout, blob);
        for position in first..=to {
            if left == 0 {
                return Ok(());
            }
            if !events.next()? {
                break;
            }
            if position <= after {
                continue;
            }
            left -= 1;
            let mut source = PackedRow { event: &events, at: 0, batch: columns::RowColumns::after(row, 2) };
            if visit(position.unsigned_abs(), Row::read(&mut source)?)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Packed event with the row of its batch.
struct PackedRow<'a> {
    event: &'a BlobReader<'a>,
    at: usize,
    batch: columns::RowColumns<'a>,
}

impl ColumnSource for PackedRow<'_> {
    type Error = rusqlite::Error;

    fn next(&mut self, column: &'static Column) -> rusqlite::Result<OwnedValue> {
        if column.of != ColumnScope::Event {
            return self.batch.next(column);
        }
        self.at += 1;
        self.event.get(self.at - 1, column)
    }
}

/// Reads the store's events in the order of their positions, for `export`. Blocks; works beside a running collector.
pub(crate) struct StoredRows {
    connection: Connection,
}

impl StoredRows {
    /// Opens the store in the data directory `dir`.
    ///
    /// # Errors
    /// [`DbError::Absent`] if there is none yet, or if it cannot be opened.
    pub(crate) fn open(dir: &Path) -> Result<Self, DbError> {
        Ok(Self { connection: db::open_reader(&dir.join(FILE), MIGRATIONS)? })
    }

    /// Returns the last stored time zones of the apps, `(key, IANA name)`.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn timezones(&self) -> Result<Vec<(String, String)>, DbError> {
        let mut statement = self.connection.prepare("SELECT key, timezone FROM app WHERE timezone <> ''")?;
        let apps = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(apps.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the position up to which the store has the events.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn position(&self) -> Result<u64, DbError> {
        let position: i64 = self.connection.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
        Ok(position.unsigned_abs())
    }

    /// Returns how many events after `after` and up to `to` were deleted by retention or never stored.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn missing(&self, after: u64, to: u64) -> Result<u64, DbError> {
        let query = "SELECT coalesce(sum(min(last, ?2) - max(first, ?1 + 1) + 1), 0) FROM missing WHERE last > ?1 AND first <= ?2";
        Ok(self.connection.query_row(query, [after, to], |row| row.get(0))?)
    }

    /// Calls `visit` for the events after `position`, at most `limit`, and returns the position up to which the store
    /// has now been read.
    ///
    /// Stored events never change and positions only grow, so reading in such steps visits every event once. It avoids
    /// a long transaction, which would keep a running collector's write-ahead log from being reset.
    ///
    /// # Errors
    /// If the database fails, or the first error of `visit`.
    pub(crate) fn read_after<E: From<DbError>>(
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
            let range = (position.cast_signed(), i64::MAX, left.cast_signed());
            let mut stopped = None;
            let done = for_each_row(&snapshot, part, range, |at, row| {
                if let Err(error) = visit(&row) {
                    stopped = Some(error);
                    return Ok(ControlFlow::Break(()));
                }
                (left, last) = (left - 1, at);
                Ok(ControlFlow::Continue(()))
            });
            done.map_err(sql)?;
            if let Some(error) = stopped {
                return Err(error);
            }
            if left == 0 {
                return Ok(last);
            }
        }
        // Fewer events than `limit` mean that the store has no more up to its cursor.
        Ok(last.max(cursor.unsigned_abs()))
    }
}
