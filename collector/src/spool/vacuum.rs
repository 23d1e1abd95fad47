//! Returns free pages of the spool's database to the file system.

use rusqlite::Connection;

use super::SpoolError;

/// Free pages that stay for the next records, 16 MiB. Ordinary traffic moves no pages within them.
const RESERVED_FREE_PAGES: u64 = 1024;

/// Pages that one transaction releases besides its tasks, and without tasks.
const BUSY_PAGES: u64 = 16;
const IDLE_PAGES: u64 = 256;

/// Value of SQLite's `auto_vacuum` with which pages are released on request.
const INCREMENTAL: i64 = 2;

/// Size up to which a database without incremental vacuum is rewritten at the start: about a second of work. A larger
/// one is rewritten at a later start, when it is smaller.
const MAX_REWRITE_BYTES: u64 = 256 * 1024 * 1024;

/// Size to which the write-ahead log is truncated when it restarts, bytes. It grows beyond while a reader uses it.
const WAL_BYTES: i64 = 32 * 1024 * 1024;

fn number(sql: &Connection, pragma: &str) -> Result<u64, SpoolError> {
    Ok(sql.pragma_query_value(None, pragma, |row| row.get(0))?)
}

/// Bounds the write-ahead log. Call it for every connection of the writer.
pub(super) fn limit_wal(sql: &Connection) -> Result<(), SpoolError> {
    Ok(sql.pragma_update(None, "journal_size_limit", WAL_BYTES)?)
}

/// Rewrites a database that was created without incremental vacuum, if that is quick. Called once, at the start.
///
/// A rewrite takes as much disk space again. If it fails the collector starts all the same.
pub(super) fn enable_vacuum(sql: &Connection) {
    if let Err(error) = try_enable_vacuum(sql) {
        tracing::warn!(%error, "the spool could not be written anew and gives no pages back yet; the next start tries again");
    }
}

fn try_enable_vacuum(sql: &Connection) -> Result<(), SpoolError> {
    let mode: i64 = sql.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    let used = number(sql, "page_count")?.saturating_sub(number(sql, "freelist_count")?) * number(sql, "page_size")?;
    if used > MAX_REWRITE_BYTES {
        tracing::warn!(
            bytes = used,
            max_bytes = MAX_REWRITE_BYTES,
            "the spool gives no pages back yet: too much is in it to write it anew now; the next start tries again"
        );
        return Ok(());
    }
    sql.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    sql.execute_batch("VACUUM")?;
    Ok(())
}

/// Returns whether there are pages to release.
pub(super) fn has_free_pages(sql: &Connection) -> bool {
    number(sql, "freelist_count").is_ok_and(|free| free > RESERVED_FREE_PAGES)
        && sql.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).is_ok_and(|mode| mode == INCREMENTAL)
}

/// Releases some pages inside a transaction, more of them if it is `idle`.
pub(super) fn release_pages(sql: &Connection, idle: bool) -> Result<(), SpoolError> {
    let spare = number(sql, "freelist_count")?.saturating_sub(RESERVED_FREE_PAGES);
    let pages = spare.min(if idle { IDLE_PAGES } else { BUSY_PAGES });
    if pages > 0 {
        // One row for each page; the pragma stops where its rows are no longer asked for.
        let mut statement = sql.prepare_cached(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Copies the write-ahead log into the database as far as readers allow, which shortens the file.
pub(super) fn checkpoint(sql: &Connection) {
    // Whatever is in the way now, the next commits do it.
    let _ = sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}
