//! The statements: how records lie in the table.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use subway_sdk_core::{Key, Write};

/// Numbered from 1; `user_version` says how many have run.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_records.sql")];
/// Somebody who only looks (a developer's sqlite3) is waited for so long.
const BUSY: Duration = Duration::from_secs(5);
/// The log is cut back to this many bytes after it was copied into the file. Twice of what SQLite lets it grow to before
/// that (1,000 pages), because a file that is cut and grows again makes commits wait for the file system's own journal.
const LOG_BYTES: i64 = 8 * 1024 * 1024;
/// Free pages beyond this many are given back to the file system when the store is opened.
const FREE_PAGES: i64 = 256;
const KIND_SHIFT: u32 = 60;
/// Prepared statements kept; there are four.
const STATEMENTS: usize = 8;

/// Opens or creates the file and brings its schema up to date.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Exclusive: no shared-memory file, which a full disk could turn into a SIGBUS.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    migrate(&mut connection)?;
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free > FREE_PAGES {
        connection.execute_batch("PRAGMA incremental_vacuum")?;
    }
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        // Written by a later version of the SDK: nothing here can read it.
        return Err(damage("the file is of a later version"));
    }
    for (at, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", at as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

fn damage(message: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(message.to_owned()))
}

fn kind(key: Key) -> u64 {
    match key {
        Key::State => 0,
        Key::Context(_) => 1,
        Key::Event(_) => 2,
        Key::Batch(_) => 3,
    }
}

/// The row of a key. Numbers of the core count events of one install; 2^60 of them are out of reach.
fn row_id(key: Key) -> i64 {
    let (_, number) = key.parts();
    ((kind(key) << KIND_SHIFT) | (number & ((1 << KIND_SHIFT) - 1))) as i64
}

fn key_of(id: i64) -> Option<Key> {
    let number = id as u64 & ((1 << KIND_SHIFT) - 1);
    match id >> KIND_SHIFT {
        0 if number == 0 => Some(Key::State),
        1 => Some(Key::Context(number)),
        2 => Some(Key::Event(number)),
        3 => Some(Key::Batch(number)),
        _ => None,
    }
}

pub(super) fn write(transaction: &Transaction<'_>, writes: &[Write<'_>]) -> rusqlite::Result<()> {
    let mut put = transaction
        .prepare_cached("INSERT INTO record (id, value) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET value = ?2")?;
    let mut delete = transaction.prepare_cached("DELETE FROM record WHERE id = ?1")?;
    for write in writes {
        match write.value {
            Some(value) => put.execute(params![row_id(write.key), value])?,
            None => delete.execute([row_id(write.key)])?,
        };
    }
    Ok(())
}

pub(super) fn get(connection: &Connection, key: Key) -> rusqlite::Result<Option<String>> {
    let mut get = connection.prepare_cached("SELECT id, value FROM record WHERE id = ?1")?;
    let found = get.query_row([row_id(key)], |row| Ok(record(row))).optional()?;
    Ok(found.flatten().map(|(_, value)| value))
}

/// One record; `None` if its bytes are no text any more or its key is none of ours.
fn record(row: &Row<'_>) -> Option<(Key, String)> {
    Some((key_of(row.get(0).ok()?)?, row.get(1).ok()?))
}

/// Every readable record, in order of keys.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Vec<(Key, String)>> {
    let mut records = Vec::new();
    read_into(connection, "SELECT id, value FROM record ORDER BY id", &mut records)?;
    Ok(records)
}

/// Appends records until the end or the first damaged page.
pub(super) fn read_into(connection: &Connection, sql: &str, out: &mut Vec<(Key, String)>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        out.extend(record(row));
    }
    Ok(())
}

/// Copies the log into the file and cuts it to nothing.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
