//! The client's store on SQLite: one file, one writer, one process.
//!
//! # What survives what
//! The file is in WAL mode with `synchronous=NORMAL`. A commit is in the operating system's hands when [`Store::apply`]
//! returns, so it survives the death of the process (SIGKILL included). The loss of power is another matter:
//!
//! * Before a batch is sent, the upload thread synchronises the log with the medium ([`StoreControl::make_durable`]). The
//!   log is written in order, so this covers the batch, its events and everything before them: a batch is durable before
//!   it is first sent, and a sequence number that the collector has seen is never given a second time. The driver, whose
//!   next commits go on meanwhile, does not wait for it.
//! * A commit that withdraws consent is synchronised at once (`synchronous=FULL`), and the log that still holds the old
//!   text is emptied.
//! * Every other commit is left to the operating system. Losing it to a power cut costs events of the last seconds that
//!   were in no batch yet, or sends a batch once more, which the collector recognises. An fsync for every event would
//!   cost a phone's battery and flash more than those events are worth.
//!
//! # A full medium
//! A deletion writes too (the log), so a file of `reserve::BYTES` lies beside the database and is removed when a medium
//! is too full for one.
//!
//! # A damaged file, and one of a later version
//! What can be read of a damaged file is written into `subway.db.new`; only when that is whole, the file becomes
//! `subway.db.damaged` and the new one takes its place. Whatever ends this in the middle, the next attempt goes on. A file
//! that a later version of this SDK has written is left as it is, with everything beside it.
//!
//! `secure_delete` overwrites what is deleted: an event that was acknowledged or wiped is not left in free pages.

mod lock;
mod recover;
mod reserve;
mod table;
mod trouble;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode};
use subway_sdk_core::{Key, Store, StoreError, StoreWrite};

use lock::DirLock;
use reserve::Reserve;
use trouble::Trouble;

/// The database within the data directory.
const FILE: &str = "subway.db";

/// A [`Store`] in a directory of its own.
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    /// The file was closed to be replaced and could not be opened again yet; `connection` is none to it.
    detached: bool,
    full_sync: bool,
    control: StoreControl,
    reserve: Reserve,
    /// Held as long as the store lives; released by the operating system when the process dies.
    _lock: DirLock,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process, or another client in this one, uses the directory.
    #[error("the data directory {0} is in use by another client")]
    InUse(PathBuf),
    /// The directory or the file in it cannot be used at all.
    #[error("the data directory {path} cannot be used: {message}")]
    Unusable {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// A later version of the SDK has written the file. Nothing of it was changed.
    #[error(
        "the data directory {path} belongs to a later version of this SDK (its file has version {version}); nothing in it was changed"
    )]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// The version of the file.
        version: i64,
    },
    /// The medium is full, or a damaged file could not be replaced. What is there is kept; a later start may open it.
    #[error("the data directory {path} cannot be used now: {message}")]
    NotNow {
        /// Which directory.
        path: PathBuf,
        /// What is in the way.
        message: String,
    },
}

impl OpenStoreError {
    fn of(dir: &Path, trouble: Trouble) -> Self {
        let (path, message) = (dir.to_owned(), trouble.to_string());
        match trouble {
            Trouble::Newer(version) => Self::Newer { path, version },
            Trouble::Unmended(_) => Self::NotNow { path, message },
            _ if trouble.is_full() => Self::NotNow { path, message },
            _ => Self::Unusable { path, message },
        }
    }

    /// Whether a client should go on in memory, because what is in the directory is to be left alone.
    #[must_use]
    pub fn leaves_memory(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::NotNow { .. })
    }
}

/// What a driver and the store that its client owns tell each other.
#[derive(Clone, Debug, Default)]
pub struct StoreControl(Arc<ControlState>);

#[derive(Debug, Default)]
struct ControlState {
    /// The database's log; `None` for a store that is no file.
    log: Option<PathBuf>,
    wiping: AtomicBool,
    unmended: AtomicBool,
    recoveries: Mutex<Vec<String>>,
}

impl StoreControl {
    fn of(database: &Path) -> Self {
        let mut log = OsString::from(database);
        log.push("-wal");
        Self(Arc::new(ControlState { log: Some(log.into()), ..ControlState::default() }))
    }

    /// Waits until everything that was committed before is on the medium. May be called from any thread.
    ///
    /// The log may be opened a second time, because SQLite keeps its locks on the database file alone. What is no longer
    /// in the log was synchronised when it was copied into the database.
    ///
    /// # Errors
    /// What the system says; then nothing is certain.
    pub fn make_durable(&self) -> io::Result<()> {
        let Some(log) = &self.0.log else { return Ok(()) };
        match File::open(log) {
            Ok(log) => log.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next commit wipes what is known about a person: it is made durable at once, and older copies are erased.
    pub fn wipe_next(&self) {
        self.0.wiping.store(true, Ordering::SeqCst);
    }

    /// What was damaged since the last call: one English sentence for each file that had to be moved aside.
    #[must_use]
    pub fn take_recoveries(&self) -> Vec<String> {
        std::mem::take(&mut *self.recoveries())
    }

    fn recoveries(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.recoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something with the recoveries.
    pub(crate) fn report(&self, text: String) {
        self.recoveries().push(text);
    }

    /// Whether a damaged file was found and could not be replaced yet.
    pub(crate) fn is_unmended(&self) -> bool {
        self.0.unmended.load(Ordering::SeqCst)
    }

    fn is_wiping(&self) -> bool {
        self.0.wiping.load(Ordering::SeqCst)
    }

    fn wiped(&self) {
        self.0.wiping.store(false, Ordering::SeqCst);
    }
}

impl SqliteStore {
    /// Opens or creates the store in `dir`, which is created if need be. A damaged file is moved aside (see
    /// [`StoreControl::take_recoveries`]); what can still be read of it is kept.
    ///
    /// # Errors
    /// If the directory is in use by another client, or cannot be read or written.
    pub fn open(dir: &Path) -> Result<Self, OpenStoreError> {
        create_dir(dir).map_err(|error| OpenStoreError::of(dir, error.into()))?;
        let lock = DirLock::take(dir)?;
        let path = dir.join(FILE);
        let control = StoreControl::of(&path);
        let connection = open_file(&path, &control).map_err(|trouble| OpenStoreError::of(dir, trouble))?;
        let reserve = Reserve::take(dir);
        Ok(Self { path, connection, detached: false, full_sync: false, control, reserve, _lock: lock })
    }

    /// The line to this store once a client owns it.
    #[must_use]
    pub fn control(&self) -> StoreControl {
        self.control.clone()
    }

    /// Does `work`; if the file turns out to be damaged, replaces it by what can be read of it and tries once more.
    fn healing<T>(&mut self, work: impl Fn(&mut Self) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.detached {
            self.attach()?;
        }
        match work(self) {
            Err(error) if is_damage(&error) => {
                self.recover().map_err(|trouble| {
                    self.control.0.unmended.store(true, Ordering::SeqCst);
                    let message = format!("{error}; then {trouble}");
                    if trouble.is_full() { StoreError::full(message) } else { StoreError::failed(message) }
                })?;
                work(self).map_err(|error| Trouble::from(error).into())
            }
            done => done.map_err(|error| Trouble::from(error).into()),
        }
    }

    /// As long as the new file is not whole, the store stays on the damaged one, so that a recovery that fails can be tried
    /// again.
    fn recover(&mut self) -> Result<(), Trouble> {
        let records = recover::save(Some(&self.connection), &self.path)?;
        // Not every system moves files that are open.
        let broken = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        self.detached = true;
        table::keep_log(&broken, true)?;
        drop(broken);
        recover::set_aside(&self.path)?;
        self.control.report(recover::report(&self.path, Some(records)));
        self.attach()
    }

    fn attach(&mut self) -> Result<(), Trouble> {
        self.connection = open_file(&self.path, &self.control)?;
        self.detached = false;
        self.full_sync = false;
        self.control.0.unmended.store(false, Ordering::SeqCst);
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
        let wiping = self.control.is_wiping();
        self.set_full_sync(wiping)?;
        let transaction = self.connection.transaction()?;
        table::write(&transaction, writes)?;
        transaction.commit()?;
        if wiping {
            table::empty_log(&self.connection)?;
            recover::erase_damaged(&self.path);
            self.control.wiped();
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let done = self.healing(|store| store.apply_once(writes));
        match &done {
            Err(error) if error.is_full() && reserve::makes_room(writes) && self.reserve.give_up() => {
                self.healing(|store| store.apply_once(writes))
            }
            Ok(()) => {
                self.reserve.renew();
                done
            }
            Err(_) => done,
        }
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        self.healing(|store| table::get(&store.connection, key))
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        // Read whole before anything is shown, because a damaged page may be met in the middle.
        let records = self.healing(|store| table::read_all(&store.connection))?;
        for (key, value) in &records {
            visit(*key, value);
        }
        Ok(())
    }
}

/// Opens or creates the file; one that is damaged is replaced by what can be read of it.
fn open_file(path: &Path, control: &StoreControl) -> Result<Connection, Trouble> {
    if recover::finish(path)? {
        control.report(recover::report(path, None));
    }
    match table::open(path) {
        Err(Trouble::Sqlite(error)) if is_damage(&error) || says_read_only(&error, path) => {
            let records = recover::run(path).map_err(|trouble| Trouble::Unmended(Box::new(trouble)))?;
            control.report(recover::report(path, Some(records)));
            table::open(path)
        }
        opened => {
            // Not before it is known that the file is ours: what lies beside a later version's file is that version's.
            let connection = opened?;
            recover::tidy(path);
            Ok(connection)
        }
    }
}

/// Creates the directory and its parents, where they are missing, for this user's eyes only.
fn create_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Whether the file itself is broken, as opposed to being busy, full or forbidden.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            // Our statements are right, so what SQLite has no code of its own for is the file's: a format that it does not know.
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || failure.extended_code == rusqlite::ffi::SQLITE_ERROR
        }
        // The table is not there or not as it should be, although the file says it is.
        rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

/// Whether the file says that nobody may write to it, while the system lets us: a byte of its head was changed.
fn says_read_only(error: &rusqlite::Error, path: &Path) -> bool {
    let read_only = error.sqlite_error_code() == Some(ErrorCode::ReadOnly);
    read_only && File::options().write(true).open(path).is_ok()
}

#[cfg(test)]
mod tests;
