//! Opens SQLite databases: pragmas, numbered migrations, and nothing else. Every database has one writer at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long a connection waits for another's lock. Only checkpoints and migrations hold one for long.
const BUSY: Duration = Duration::from_secs(5);

/// SQLite's own default, bytes.
const PAGE_BYTES: u32 = 4096;

/// Why a database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite says no: the disk is full, the file is damaged, another process holds it.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The database was written by a newer collector.
    #[error("{} has version {found}, written by a newer collector; this one knows versions up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version this collector knows.
        known: usize,
    },
    /// There is no such database.
    #[error("{} does not exist; has a collector ever run on this data directory?", .0.display())]
    Absent(PathBuf),
}

/// Opens (or creates) the database at `path` for writing: WAL, every commit on disk before it returns
/// (`synchronous=FULL`). `migrations[n]` is the SQL that leads from version n to n + 1; those missing are applied, each
/// in one transaction with the version that it reaches.
///
/// # Errors
/// If the file cannot be opened or brought to the newest version, or is newer than this collector.
pub fn open(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    open_paged(path, migrations, PAGE_BYTES)
}

/// [`open`] with another page size than 4 KiB, which counts only when the database is made.
///
/// # Errors
/// As [`open`].
pub fn open_paged(path: &Path, migrations: &[&str], page_bytes: u32) -> Result<Connection, DbError> {
    open_with(path, migrations, page_bytes, "NONE")
}

/// [`open_paged`] of a database that can give its free pages back to the file system (`PRAGMA incremental_vacuum`), which
/// counts only when the database is made.
///
/// # Errors
/// As [`open`].
pub fn open_shrinking(path: &Path, migrations: &[&str], page_bytes: u32) -> Result<Connection, DbError> {
    open_with(path, migrations, page_bytes, "INCREMENTAL")
}

fn open_with(path: &Path, migrations: &[&str], page_bytes: u32, vacuum: &str) -> Result<Connection, DbError> {
    create_private(path);
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "page_size", page_bytes)?;
    connection.pragma_update(None, "auto_vacuum", vacuum)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    let found = version(&connection)?;
    refuse_newer(path, found, migrations.len())?;
    for (at, sql) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", at + 1)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens the database at `path` for reading only, also while another process writes it.
///
/// # Errors
/// If it does not exist, cannot be opened, or has another version than `migrations` lead to.
pub fn open_reader(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    if !path.exists() {
        return Err(DbError::Absent(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    refuse_newer(path, version(&connection)?, migrations.len())?;
    Ok(connection)
}

/// Makes the file if it is not there, for its owner alone: SQLite would let everyone read it who may enter the directory.
/// The files beside it (`-wal`, `-shm`) get the same mode. One that is there is not opened, because closing it again
/// would take the locks of this process's other connections away. If it fails, SQLite says why.
fn create_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path));
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map(|v| usize::try_from(v).unwrap_or(0))
}

fn refuse_newer(path: &Path, found: usize, known: usize) -> Result<(), DbError> {
    if found > known { Err(DbError::Newer { path: path.to_owned(), found, known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE a(x INTEGER)";
    const TWO: &str = "CREATE TABLE b(x INTEGER); INSERT INTO b VALUES (7)";

    #[test]
    fn migrations_are_applied_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        drop(open(&path, &[ONE]).unwrap());
        for _ in 0..2 {
            let connection = open(&path, &[ONE, TWO]).unwrap();
            assert_eq!(connection.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        }
    }

    #[test]
    fn a_newer_database_is_refused_by_writers_and_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        drop(open(&path, &[ONE, TWO]).unwrap());
        for result in [open(&path, &[ONE]), open_reader(&path, &[ONE])] {
            assert!(matches!(result, Err(DbError::Newer { found: 2, known: 1, .. })));
        }
    }

    #[test]
    fn a_failed_migration_leaves_the_version_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        assert!(open(&path, &[ONE, "CREATE TABLE b(x INTEGER); nonsense"]).is_err());
        drop(open(&path, &[ONE, TWO]).unwrap());
    }

    #[test]
    fn a_reader_never_creates_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        assert!(matches!(open_reader(&path, &[ONE]), Err(DbError::Absent(_))));
        assert!(!path.exists());
    }
}
