//! SQL statements and the layout of records in the table.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};
use subway_sdk_core::{Key, StoreWrite};

use super::FileError;

/// Numbered from 1; `user_version` is the number of the last that has run.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_records.sql")];
/// Time to wait for another reader, such as a developer's sqlite3.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Size to which the log is truncated after a checkpoint, bytes. Twice the size at which SQLite makes one (1,000
/// pages), because a file that is truncated and grows again makes commits wait for the file system's own journal.
const LOG_BYTES: i64 = 8 * 1024 * 1024;
/// Free pages beyond this number are returned to the file system when the store is opened.
const FREE_PAGES: i64 = 256;
/// First bytes of a database, offset of `user_version` in its header, and how much of the header is read for it.
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSION_AT: usize = 60;
const HEAD_BYTES: u64 = 64;
const KIND_SHIFT: u32 = 60;
/// Prepared statements kept; there are four.
const MAX_CACHED_STATEMENTS: usize = 8;

/// Opens or creates the file and migrates its schema. A file of a later version is not changed.
pub(super) fn open(path: &Path) -> Result<Connection, FileError> {
    refuse_newer(path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(MAX_CACHED_STATEMENTS);
    // Exclusive mode needs no shared-memory file, which a full disk could turn into a SIGBUS.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // The version may be in the log alone. Until it is known, closing the file must not copy the log into it.
    keep_log(&connection, true)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > MIGRATIONS.len() as i64 {
        return Err(FileError::Newer(version));
    }
    keep_log(&connection, false)?;
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

/// Opens a damaged file for reading; closing it changes nothing.
pub(super) fn open_damaged(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    keep_log(&connection, true)?;
    Ok(connection)
}

/// Creates a durable file with these records. Has no journal, which would need space; the caller renames the file only
/// when it is complete.
pub(super) fn create(path: &Path, records: &BTreeMap<Key, String>) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    #[cfg(test)]
    if let Some(pages) = super::tests::ROOM.get() {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    migrate(&mut connection)?;
    let writes: Vec<StoreWrite<'_>> =
        records.iter().map(|(key, value)| StoreWrite { key: *key, value: Some(value) }).collect();
    let transaction = connection.transaction()?;
    write(&transaction, &writes)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}

/// Sets whether closing this connection leaves the log as it is.
pub(super) fn keep_log(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(|_| ())
}

/// Returns an error if the header of the file has the number of a later version. Reads the header without SQLite, which
/// would create a log beside a file that has none.
pub(super) fn refuse_newer(path: &Path) -> Result<(), FileError> {
    let mut head = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(HEAD_BYTES).read_to_end(&mut head)?,
        // The following open for writing reports the error.
        Err(_) => return Ok(()),
    };
    match head.strip_prefix(MAGIC).and_then(|rest| rest.get(VERSION_AT - MAGIC.len()..)?.first_chunk()) {
        Some(version) if i32::from_be_bytes(*version) > MIGRATIONS.len() as i32 => {
            Err(FileError::Newer(i32::from_be_bytes(*version).into()))
        }
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // A negative number was never written by any version, so the file is damaged.
    let done = usize::try_from(version).map_err(|_| damage("the version of the file is negative"))?;
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

/// Returns the row ID of a key. Numbers of the core count events of one install; 2^60 of them are out of reach.
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

pub(super) fn write(transaction: &Transaction<'_>, writes: &[StoreWrite<'_>]) -> rusqlite::Result<()> {
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

/// Decodes one record; `None` if its bytes are not text or its key is unknown, because of damage.
fn record(row: &Row<'_>) -> Option<(Key, String)> {
    Some((key_of(row.get(0).ok()?)?, row.get(1).ok()?))
}

/// Returns every readable record, in order of keys.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Vec<(Key, String)>> {
    let mut records = Vec::new();
    read_into(connection, Order::Ascending, &mut records)?;
    Ok(records)
}

/// Order in which records are read.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// Appends records until the end or the first damage: a page that SQLite cannot read, or rows out of order.
///
/// SQLite reads rows whose IDs were changed without an error, but no longer finds what is written among them. Both rows
/// of a wrong pair are left out, because either can have the wrong ID.
pub(super) fn read_into(connection: &Connection, order: Order, out: &mut Vec<(Key, String)>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(match order {
        Order::Ascending => "SELECT id, value FROM record ORDER BY id",
        Order::Descending => "SELECT id, value FROM record ORDER BY id DESC",
    })?;
    let mut rows = statement.query([])?;
    let mut last: Option<(i64, usize)> = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let follows = |last: i64| match order {
            Order::Ascending => id > last,
            Order::Descending => id < last,
        };
        if let Some((_, before)) = last.filter(|(last, _)| !follows(*last)) {
            out.truncate(before);
            return Err(damage("the rows are out of order"));
        }
        last = Some((id, out.len()));
        out.extend(record(row));
    }
    Ok(())
}

/// Copies the log into the file and truncates it to zero.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
