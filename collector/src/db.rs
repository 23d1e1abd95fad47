//! Opens SQLite databases: pragmas and numbered migrations, nothing else. Every database has one writer at a time.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Time for which a connection waits for the lock of another. Only checkpoints and migrations hold one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why a database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite failed: the disk is full, the file is damaged, or another process holds its lock.
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
    /// The database was written by an older collector, and a reader does not migrate it.
    #[error("{} has version {found}; start this collector on it once, which brings it to {known}", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The version that this collector reads.
        known: usize,
    },
    /// The file cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, std::io::Error),
    /// The database does not exist.
    #[error("{} does not exist; has a collector ever run on this data directory?", .0.display())]
    Absent(PathBuf),
}

/// Opens a database with the default layout of SQLite.
#[cfg(test)]
pub(crate) fn open(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    open_laid_out(path, migrations, Layout { page_bytes: 4096, gives_back: false })
}

/// Layout of a file. It has an effect only when the database is created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Size of a page, bytes.
    pub page_bytes: u32,
    /// Whether free pages can be returned to the file system in small steps (`incremental_vacuum`).
    pub gives_back: bool,
}

/// Opens or creates the database at `path` for writing, with a write-ahead log and every commit on disk before it
/// returns (`synchronous=FULL`).
///
/// `migrations[n]` is the SQL from version n to n + 1. Missing ones are applied, each in one transaction with its
/// version.
///
/// # Errors
/// If the file cannot be opened or brought to the newest version, or is newer than this collector.
pub(crate) fn open_laid_out(path: &Path, migrations: &[&str], layout: Layout) -> Result<Connection, DbError> {
    create_private(path);
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Checked before anything is changed, including the journal mode.
    let found = version(&connection)?;
    refuse_newer(path, found, migrations.len())?;
    connection.pragma_update(None, "page_size", layout.page_bytes)?;
    if layout.gives_back {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    for (at, sql) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", at + 1)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens the database at `path` for reading. Another process may write it.
///
/// # Errors
/// If it does not exist, cannot be opened, or has another version than `migrations` lead to.
pub(crate) fn open_reader(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    if !path.exists() {
        return Err(DbError::Absent(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    let (found, known) = (version(&connection)?, migrations.len());
    refuse_newer(path, found, known)?;
    if found < known { Err(DbError::Older { path: path.to_owned(), found, known }) } else { Ok(connection) }
}

/// Creates the file with mode 0600 if it does not exist.
///
/// SQLite would make it readable for all users of the directory. The files beside it (`-wal`, `-shm`) get the same
/// mode. An existing file is not opened, because closing it would release the locks of other connections of this
/// process. Errors are ignored, because SQLite reports them next.
fn create_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path));
}

/// Refuses the database at `path` if it is newer than version `known`, without changing it or a file beside it, as
/// SQLite would.
///
/// It must be called before this process opens the database: closing the file releases the locks of the process.
///
/// # Errors
/// [`DbError::Newer`], or the file cannot be read.
pub(crate) fn refuse_newer_file(path: &Path, known: usize) -> Result<(), DbError> {
    let unreadable = |error: std::io::Error| DbError::Unreadable(path.to_owned(), error);
    let mut version = match File::open(path) {
        Ok(mut file) => version_at(&mut file, VERSION_OFFSET).map_err(unreadable)?.unwrap_or(0),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    // If the path is a link, SQLite keeps the log beside the target.
    let mut log = std::fs::canonicalize(path).map_err(unreadable)?.into_os_string();
    log.push("-wal");
    // After a crash the first page, with the version, may still be in the log.
    if let Ok(mut log) = File::open(Path::new(&log)) {
        version = version_in_log(&mut log).map_err(unreadable)?.unwrap_or(version);
    }
    refuse_newer(path, usize::try_from(version).unwrap_or(usize::MAX), known)
}

/// Offset of the user version in the first page of a database, big-endian
/// (<https://www.sqlite.org/fileformat2.html>).
const VERSION_OFFSET: u64 = 60;
/// Bytes of the header of a write-ahead log, and of the header of each frame.
const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

fn version_at(file: &mut File, at: u64) -> std::io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the version in the last committed first page of a write-ahead log, if any. Frames of an earlier round of the
/// log have another salt.
fn version_in_log(log: &mut File) -> std::io::Result<Option<u32>> {
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let (mut header, mut frame) = ([0; WAL_HEADER_BYTES], [0; FRAME_HEADER_BYTES]);
    if log.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    let page_bytes = u64::from(number(&header, 8));
    let (mut at, mut found, mut committed) = (WAL_HEADER_BYTES as u64, None, None);
    loop {
        log.seek(SeekFrom::Start(at))?;
        if log.read_exact(&mut frame).is_err() || frame[8..16] != header[16..24] || page_bytes == 0 {
            return Ok(committed);
        }
        if number(&frame, 0) == 1 {
            found = version_at(log, at + FRAME_HEADER_BYTES as u64 + VERSION_OFFSET)?;
        }
        if number(&frame, 4) > 0 {
            committed = found;
        }
        at += FRAME_HEADER_BYTES as u64 + page_bytes;
    }
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
    fn an_older_database_is_refused_by_readers_and_they_say_what_brings_it_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        drop(open(&path, &[ONE]).unwrap());
        let refusal = open_reader(&path, &[ONE, TWO]).unwrap_err().to_string();
        assert!(
            refusal.ends_with("x.db has version 1; start this collector on it once, which brings it to 2"),
            "{refusal}"
        );
        drop(open(&path, &[ONE, TWO]).unwrap());
        open_reader(&path, &[ONE, TWO]).unwrap();
    }

    /// Every file of the directory with its bytes and the time of its last change.
    fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|file| {
                let path = file.unwrap().path();
                let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
                (path.clone(), std::fs::read(&path).unwrap(), changed)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_newer_database_is_found_without_touching_it_also_if_only_its_log_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        refuse_newer_file(&path, 0).unwrap();
        drop(open(&path, &[ONE]).unwrap());
        let connection = open(&path, &[ONE, TWO]).unwrap();
        connection.execute("INSERT INTO b VALUES (8)", []).unwrap();
        // What a killed process leaves: the log is not copied into the database yet.
        let copy = tempfile::tempdir().unwrap();
        for name in ["x.db", "x.db-wal", "x.db-shm"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut file = File::open(copy.path().join("x.db")).unwrap();
        assert_eq!(version_at(&mut file, VERSION_OFFSET).unwrap(), Some(1), "the log alone has the new version");
        drop(connection);
        for dir in [dir.path(), copy.path()] {
            let before = files(dir);
            let refused = refuse_newer_file(&dir.join("x.db"), 1);
            assert!(matches!(refused, Err(DbError::Newer { found: 2, known: 1, .. })), "{refused:?}");
            refuse_newer_file(&dir.join("x.db"), 2).unwrap();
            assert_eq!(files(dir), before);
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
