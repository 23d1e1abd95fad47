//! Gives the pages of a spool that has become empty back to the file system.

use rusqlite::Connection;

use super::SpoolError;

/// Free pages that stay for the next records, 16 MiB: what comes and goes in normal traffic moves no pages.
const SLACK_PAGES: u64 = 1024;

/// Pages that one transaction gives back beside its own work, and when nobody writes.
const BUSY_PAGES: u64 = 16;
const IDLE_PAGES: u64 = 256;

/// The value of SQLite's `auto_vacuum` by which pages go back when asked for.
const INCREMENTAL: i64 = 2;

/// The most that a database made without giving back may hold to be written anew at the start: a second's work, not an
/// outage. A larger one is written anew at a later start, when it is smaller.
const REWRITE_BYTES: u64 = 256 * 1024 * 1024;

/// The write-ahead log is cut to this size when it begins anew, bytes. It grows beyond while a reader stays in it.
const WAL_BYTES: i64 = 32 * 1024 * 1024;

fn number(sql: &Connection, pragma: &str) -> Result<u64, SpoolError> {
    Ok(sql.pragma_query_value(None, pragma, |row| row.get(0))?)
}

/// Bounds the write-ahead log. For every connection of the writer.
pub(super) fn limit_log(sql: &Connection) -> Result<(), SpoolError> {
    Ok(sql.pragma_update(None, "journal_size_limit", WAL_BYTES)?)
}

/// Writes a database anew, if that is quick, that was made before pages were given back. Once, at the start: it takes as much
/// disk again, and whatever speaks against it is no reason not to collect.
pub(super) fn rewrite(sql: &Connection) {
    if let Err(error) = try_rewrite(sql) {
        tracing::warn!(%error, "the spool could not be written anew and gives no pages back yet; the next start tries again");
    }
}

fn try_rewrite(sql: &Connection) -> Result<(), SpoolError> {
    let mode: i64 = sql.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    let used = number(sql, "page_count")?.saturating_sub(number(sql, "freelist_count")?) * number(sql, "page_size")?;
    if used > REWRITE_BYTES {
        tracing::warn!(
            bytes = used,
            most = REWRITE_BYTES,
            "the spool gives no pages back yet: too much is in it to write it anew now; the next start tries again"
        );
        return Ok(());
    }
    sql.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    sql.execute_batch("VACUUM")?;
    Ok(())
}

/// Whether there is something to give back.
pub(super) fn has_spare(sql: &Connection) -> bool {
    number(sql, "freelist_count").is_ok_and(|free| free > SLACK_PAGES)
        && sql.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).is_ok_and(|mode| mode == INCREMENTAL)
}

/// Gives some pages back, inside a transaction. `idle`: nobody waits for it.
pub(super) fn give_back(sql: &Connection, idle: bool) -> Result<(), SpoolError> {
    let spare = number(sql, "freelist_count")?.saturating_sub(SLACK_PAGES);
    let pages = spare.min(if idle { IDLE_PAGES } else { BUSY_PAGES });
    if pages > 0 {
        // One row for each page; the pragma stops where its rows are no longer asked for.
        let mut statement = sql.prepare_cached(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Copies the write-ahead log into the database as far as no reader is in the way; that shortens the file.
pub(super) fn settle(sql: &Connection) {
    // Whatever is in the way now, the next commits do it.
    let _ = sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}
