//! Store on SQLite: one file, one writer, one process.
//!
//! # Durability
//! The file is in WAL mode with `synchronous=NORMAL`. When [`Store::apply`] returns, the operating system has the
//! commit, so it survives the death of the process (SIGKILL included). A loss of power is different:
//!
//! * Before a batch is sent, the upload thread syncs the log to the medium ([`StoreHandle::make_durable`]). The log is
//!   written in order, so this covers the batch, its events and everything before them. A batch is durable before it is
//!   first sent, and a sequence number that the collector has seen is never reused. The driver continues to commit and
//!   does not wait for the sync.
//! * A commit that withdraws consent is synced at once (`synchronous=FULL`), and the log, which still holds the old
//!   text, is emptied.
//! * Every other commit is left to the operating system. A power cut that loses it costs events of the last seconds
//!   that were in no batch yet, or sends a batch again, which the collector recognises. An fsync for every event would
//!   cost a phone's battery and flash more than those events are worth.
//!
//! # Full medium
//! A deletion writes too (the log). So a file of `reserve::BYTES` lies beside the database and is removed when the
//! medium is too full for a deletion.
//!
//! # Damaged files and newer versions
//! The readable records of a damaged file are written into `subway.db.new`. Only when that is complete, the damaged
//! file becomes `subway.db.damaged` and the new one takes its place. An interrupted recovery is continued by the next
//! attempt. A file written by a later version of this SDK is left unchanged, with everything beside it.
//!
//! `secure_delete` overwrites deleted records: an acknowledged or wiped event does not remain in free pages.

mod file_error;
mod lock;
mod recover;
mod reserve;
mod table;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode};
use subway_sdk_core::{Key, Store, StoreError, StoreWrite};

use file_error::FileError;
use lock::DirLock;
use reserve::Reserve;

/// Name of the database in the data directory.
const FILE: &str = "subway.db";

/// A [`Store`] in a directory of its own.
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    /// The file was closed to be replaced and is not open again yet; `connection` does not refer to it.
    detached: bool,
    full_sync: bool,
    handle: StoreHandle,
    reserve: Reserve,
    /// Held for the lifetime of the store; released by the operating system when the process dies.
    _lock: DirLock,
}

/// Error when opening the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process, or another client in this one, uses the directory.
    #[error("the data directory {0} is in use by another client")]
    InUse(PathBuf),
    /// The directory or the file in it cannot be used at all.
    #[error("the data directory {path} cannot be used: {source}")]
    Unusable {
        /// Path of the directory.
        path: PathBuf,
        /// Error of the system.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A later version of the SDK wrote the file. It was not changed.
    #[error(
        "the data directory {path} belongs to a later version of this SDK (its file has version {version}); nothing in it was changed"
    )]
    Newer {
        /// Path of the directory.
        path: PathBuf,
        /// Version of the file.
        version: i64,
    },
    /// The medium is full, or a damaged file could not be replaced. The files are kept; a later start may be able to
    /// open them.
    #[error("the data directory {path} cannot be used now: {source}")]
    Unavailable {
        /// Path of the directory.
        path: PathBuf,
        /// Error of the medium.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenStoreError {
    fn of(dir: &Path, error: FileError) -> Self {
        let path = dir.to_owned();
        match error {
            FileError::Newer(version) => Self::Newer { path, version },
            FileError::ReplaceFailed(_) => Self::Unavailable { path, source: error.into() },
            _ if error.is_full() => Self::Unavailable { path, source: error.into() },
            _ => Self::Unusable { path, source: error.into() },
        }
    }

    /// Returns whether a client should continue in memory, because the files must be left unchanged.
    #[must_use]
    pub fn falls_back_to_memory(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Unavailable { .. })
    }
}

/// Handle of a store that a client owns: requests to it and reports from it.
#[derive(Clone, Debug, Default)]
pub struct StoreHandle(Arc<HandleState>);

#[derive(Debug, Default)]
struct HandleState {
    /// Log of the database; `None` for a store without a file.
    log: Option<PathBuf>,
    wiping: AtomicBool,
    replacement_failed: AtomicBool,
    recoveries: Mutex<Vec<String>>,
}

impl StoreHandle {
    fn of(database: &Path) -> Self {
        let mut log = OsString::from(database);
        log.push("-wal");
        Self(Arc::new(HandleState { log: Some(log.into()), ..HandleState::default() }))
    }

    /// Waits until everything that was committed before is on the medium. Can be called from any thread.
    ///
    /// Opening the log a second time is safe, because SQLite locks only the database file. Commits that are no longer
    /// in the log were synced when they were copied into the database.
    ///
    /// # Errors
    /// The error of the system; then no commit is known to be durable.
    pub fn make_durable(&self) -> io::Result<()> {
        let Some(log) = &self.0.log else { return Ok(()) };
        match File::open(log) {
            Ok(log) => log.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the next commit durable at once and erases older copies, because it wipes personal data.
    pub fn request_secure_wipe(&self) {
        self.0.wiping.store(true, Ordering::SeqCst);
    }

    /// Removes and returns the reports of recoveries: one English sentence for each damaged file that was replaced.
    #[must_use]
    pub fn take_recovery_reports(&self) -> Vec<String> {
        std::mem::take(&mut *self.recoveries())
    }

    fn recoveries(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.recoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a report.
    pub(crate) fn report(&self, text: String) {
        self.recoveries().push(text);
    }

    /// Returns whether a damaged file was found and could not be replaced yet.
    pub(crate) fn replacement_failed(&self) -> bool {
        self.0.replacement_failed.load(Ordering::SeqCst)
    }

    fn is_wiping(&self) -> bool {
        self.0.wiping.load(Ordering::SeqCst)
    }

    fn wiped(&self) {
        self.0.wiping.store(false, Ordering::SeqCst);
    }
}

impl SqliteStore {
    /// Opens or creates the store in `dir`, which is created if necessary. A damaged file is replaced (see
    /// [`StoreHandle::take_recovery_reports`]); its readable records are kept.
    ///
    /// # Errors
    /// If the directory is in use by another client, or cannot be read or written.
    pub fn open(dir: &Path) -> Result<Self, OpenStoreError> {
        create_dir(dir).map_err(|error| OpenStoreError::of(dir, error.into()))?;
        let lock = DirLock::take(dir)?;
        let path = dir.join(FILE);
        let handle = StoreHandle::of(&path);
        let connection = open_file(&path, &handle).map_err(|error| OpenStoreError::of(dir, error))?;
        let reserve = Reserve::acquire(dir);
        Ok(Self { path, connection, detached: false, full_sync: false, handle, reserve, _lock: lock })
    }

    /// Returns a handle that stays usable when a client owns the store.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Runs `work`. If the file turns out to be damaged, replaces it by its readable records and runs `work` again.
    fn with_recovery<T>(&mut self, work: impl Fn(&mut Self) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.detached {
            self.reopen()?;
        }
        match work(self) {
            Err(error) if is_damage(&error) => {
                self.recover().map_err(|error| {
                    self.handle.0.replacement_failed.store(true, Ordering::SeqCst);
                    let message = format!("{error}; then {error}");
                    if error.is_full() { StoreError::full(message) } else { StoreError::failed(message) }
                })?;
                work(self).map_err(|error| FileError::from(error).into())
            }
            done => done.map_err(|error| FileError::from(error).into()),
        }
    }

    /// Replaces the damaged file. The store stays on it until the new file is complete, so that a failed recovery can
    /// be repeated.
    fn recover(&mut self) -> Result<(), FileError> {
        let records = recover::write_replacement(Some(&self.connection), &self.path)?;
        // Some systems cannot rename open files.
        let broken = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        self.detached = true;
        table::keep_log(&broken, true)?;
        drop(broken);
        recover::quarantine(&self.path)?;
        self.handle.report(recover::report(&self.path, Some(records)));
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), FileError> {
        self.connection = open_file(&self.path, &self.handle)?;
        self.detached = false;
        self.full_sync = false;
        self.handle.0.replacement_failed.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn set_full_sync(&mut self, full: bool) -> rusqlite::Result<()> {
        if self.full_sync != full {
            self.connection.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
            self.full_sync = full;
        }
        Ok(())
    }

    fn apply_once(&mut self, writes: &[StoreWrite<'_>]) -> rusqlite::Result<()> {
        let wiping = self.handle.is_wiping();
        self.set_full_sync(wiping)?;
        let transaction = self.connection.transaction()?;
        table::write(&transaction, writes)?;
        transaction.commit()?;
        if wiping {
            table::truncate_log(&self.connection)?;
            recover::erase_damaged(&self.path);
            self.handle.wiped();
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let done = self.with_recovery(|store| store.apply_once(writes));
        match &done {
            Err(error) if error.is_full() && reserve::frees_space(writes) && self.reserve.release() => {
                self.with_recovery(|store| store.apply_once(writes))
            }
            Ok(()) => {
                self.reserve.reacquire();
                done
            }
            Err(_) => done,
        }
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        self.with_recovery(|store| table::get(&store.connection, key))
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        // Reads everything before the first visit, because a damaged page can be found in the middle.
        let records = self.with_recovery(|store| table::read_all(&store.connection))?;
        for (key, value) in &records {
            visit(*key, value);
        }
        Ok(())
    }
}

/// Opens or creates the file. A damaged one is replaced by its readable records.
fn open_file(path: &Path, handle: &StoreHandle) -> Result<Connection, FileError> {
    if recover::finish_interrupted(path)? {
        handle.report(recover::report(path, None));
    }
    match table::open(path) {
        Err(FileError::Sqlite(error)) if is_damage(&error) || is_marked_read_only(&error, path) => {
            let records = recover::rebuild(path).map_err(|error| FileError::ReplaceFailed(Box::new(error)))?;
            handle.report(recover::report(path, Some(records)));
            table::open(path)
        }
        opened => {
            // Only after the version is checked: files beside a later version's file belong to that version.
            let connection = opened?;
            recover::remove_incomplete(path);
            Ok(connection)
        }
    }
}

/// Creates the directory and its missing parents, readable only by this user.
fn create_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Returns whether the file itself is damaged, as opposed to busy, full or forbidden.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            // Our statements are valid, so the generic error code means a format of the file that SQLite does not know.
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || failure.extended_code == rusqlite::ffi::SQLITE_ERROR
        }
        // The table is missing or differs, although the file's version includes it.
        rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

/// Returns whether the file says it is read-only although the system allows writing: a byte of its header was changed.
fn is_marked_read_only(error: &rusqlite::Error, path: &Path) -> bool {
    let read_only = error.sqlite_error_code() == Some(ErrorCode::ReadOnly);
    read_only && File::options().write(true).open(path).is_ok()
}

#[cfg(test)]
mod tests;
