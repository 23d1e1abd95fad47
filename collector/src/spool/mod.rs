//! The durable log between the answer to the client and the stores.
//!
//! One SQLite database (`spool.db`, WAL, `synchronous=FULL`) holds everything that must change together: the log, what
//! was seen before, the clocks of the installs, the ledger, the cursors of the sinks. One thread writes it, in groups:
//! whatever waits while a commit is on its way to the disk goes into the next one.
//!
//! Every method blocks (on SQLite, or on the writer's commit). From async code call them inside `spawn_blocking`;
//! [`Spool::submit`] alone never blocks.
//!
//! Invariants, in every committed state:
//! * the positions of stored events are 1, 2, 3, .. without gaps, and the head is the number of events ever stored;
//! * received = stored + duplicate + all rejected;
//! * the backlogs of all apps add up to the bytes of JSON in the log;
//! * per sink, `delivered_to` only grows, and stored = delivered + dead + pending + expired until it is retired.

mod arrival;
mod backlog;
mod clocks;
mod cursor;
mod dedup;
mod error;
mod ledger;
mod letters;
mod parked;
mod positions;
mod progress;
mod read;
mod room;
mod sinks;
mod space;
mod tx;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use backlog::{Backlog, Full, SHARE};
pub use clocks::Point;
pub use cursor::{Cursor, Frozen};
pub use dedup::{Extent, FOLDER as DEDUP_FOLDER, Horizon, Horizons, Settings as DedupSettings};
pub use error::SpoolError;
pub use ledger::{Ledger, SinkLedger, SinkLine, Status};
pub use letters::DeadLetter;
pub use parked::{Group, GroupCap, Parked, ParkedRoom};
pub use progress::Passed;
pub use read::{Reader, Stored};
pub use sinks::{Ending, SinkState};
pub use tx::{Counters, Tx};
pub use writer::Write;

use crate::telemetry::Telemetry;
use writer::{Command, Shared, Writer};

/// The database's file name inside the data directory.
pub const FILE: &str = "spool.db";

pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_spool.sql"),
    include_str!("migrations/0002_poison.sql"),
    include_str!("migrations/0003_sinks.sql"),
    include_str!("migrations/0004_dedup.sql"),
    include_str!("migrations/0005_expired.sql"),
    include_str!("migrations/0006_backlog.sql"),
    include_str!("migrations/0007_letters.sql"),
    include_str!("migrations/0008_parked.sql"),
];

/// Reading connections that stay open when nobody reads: sinks and a scrape now and then. What reads beyond them closes its
/// own, so that a flood of questions leaves no files open.
const POOLED_READERS: usize = 8;

/// The spool's caps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Writes that may wait for the writer. Beyond it the collector says 503 rather than let answers grow old.
    pub queue: usize,
    /// Bytes of JSON that one commit may hold. Bounds the time and the memory of one transaction.
    pub commit_bytes: u64,
    /// Installs per app whose clocks are remembered.
    pub install_clocks: u64,
    /// Bytes that the dead letters of one sink may take; beyond it the oldest are dropped.
    pub dead_letter_bytes: u64,
    /// The dedup index's caps.
    pub dedup: DedupSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: 1024,
            commit_bytes: 16 * 1024 * 1024,
            install_clocks: 1_000_000,
            dead_letter_bytes: 1024 * 1024 * 1024,
            dedup: DedupSettings::default(),
        }
    }
}

/// A handle to the open spool; clones share it.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    sender: SyncSender<Command>,
    shared: Arc<Shared>,
    head: watch::Receiver<u64>,
    readers: Mutex<Vec<Reader>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The sinks that the log is kept for.
    active: Mutex<Vec<String>>,
    dead_letter_bytes: u64,
}

/// A poisoned lock guards plain values here, which are whole at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens (or makes) the spool in the directory `dir` and starts its writer.
    ///
    /// # Errors
    /// If the database cannot be opened or migrated, or a thread cannot be started.
    pub fn open(dir: &Path, settings: &Settings, telemetry: Arc<Telemetry>) -> Result<Self, SpoolError> {
        let (sender, receiver) = sync_channel(settings.queue);
        let (head_sender, head) = watch::channel(0);
        let shared = Arc::new(Shared::default());
        let writer = Writer::open(dir, settings, receiver, head_sender, Arc::clone(&shared), telemetry)?;
        let thread = std::thread::Builder::new()
            .name("spool-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| SpoolError::Io(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                sender,
                shared,
                head,
                readers: Mutex::default(),
                thread: Mutex::new(Some(thread)),
                active: Mutex::default(),
                dead_letter_bytes: settings.dead_letter_bytes,
            }),
        })
    }

    /// Hands a write to the writer, without waiting for it. Its `done` is called after the commit.
    ///
    /// # Errors
    /// The write itself, if the queue is full or the writer has ended; nothing happens to it then.
    pub fn submit(&self, write: Box<dyn Write>) -> Result<(), (Box<dyn Write>, SpoolError)> {
        match self.inner.sender.try_send(Command::Write(write)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Command::Write(write))) => Err((write, SpoolError::Busy)),
            Err(TrySendError::Disconnected(Command::Write(write))) => Err((write, SpoolError::Closed)),
            Err(TrySendError::Full(Command::Close) | TrySendError::Disconnected(Command::Close)) => Ok(()),
        }
    }

    /// Runs `action` in the writer's next transaction and returns its result after the commit.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Tx<'_>) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let (reply, answer) = std::sync::mpsc::channel();
        let call = writer::Call { action: Some(action), result: None, reply };
        self.inner.sender.send(Command::Write(Box::new(call))).map_err(|_| SpoolError::Closed)?;
        answer.recv().unwrap_or(Err(SpoolError::Closed))
    }

    /// The position of the newest event on disk; 0 if there is none.
    #[must_use]
    pub fn head(&self) -> u64 {
        *self.inner.head.borrow()
    }

    /// The head, to be awaited: changes after every commit that appends.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.inner.head.clone()
    }

    /// Resolves when the writer has ended, which without [`Spool::close`] is a defect.
    pub async fn ended(&self) {
        let mut head = self.inner.head.clone();
        while head.changed().await.is_ok() {}
    }

    /// Bytes of JSON in the log that some sink still needs (as of the last trim).
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.inner.shared.backlog.load(Ordering::Relaxed)
    }

    /// How much of the log is the app's, and how much there is in all (as of the last commit).
    #[must_use]
    pub fn backlog(&self, app: i64) -> Backlog {
        let own = lock(&self.inner.shared.backlogs).get(&app).copied().unwrap_or(0);
        Backlog { own, total: self.backlog_bytes() }
    }

    /// Bytes of JSON in the log by the number of their app; an app with none is absent.
    #[must_use]
    pub fn backlogs(&self) -> BTreeMap<i64, u64> {
        lock(&self.inner.shared.backlogs).clone()
    }

    /// Whether the spool can store right now.
    ///
    /// # Errors
    /// Why not, as a sentence: the last commit failed and no probe has succeeded since, or the writer has ended.
    pub fn health(&self) -> Result<(), String> {
        match &*lock(&self.inner.shared.trouble) {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(()),
        }
    }

    /// Numbers for these app keys, the same for ever.
    ///
    /// # Errors
    /// If the database fails.
    pub fn app_numbers(&self, keys: Vec<String>) -> Result<HashMap<String, i64>, SpoolError> {
        self.call(move |tx| keys.into_iter().map(|key| Ok((key.clone(), tx.app_number(&key)?))).collect())
    }

    /// Says how far back each app's dedup index reaches. Until told nothing is forgotten.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_horizons(&self, horizons: Horizons) -> Result<(), SpoolError> {
        self.call(move |tx| {
            tx.dedup.set_horizons(horizons);
            Ok(())
        })
    }

    /// What the dedup index of each app holds, by the app's number, as of the last look.
    #[must_use]
    pub fn dedup_extents(&self) -> BTreeMap<i64, Extent> {
        lock(&self.inner.shared.extents).clone()
    }

    /// Runs `action` on a reading connection. Readers never wait for the writer, nor the writer for them.
    fn read<T>(&self, action: impl FnOnce(&Reader) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let pooled = lock(&self.inner.readers).pop();
        let reader = match pooled {
            Some(reader) => reader,
            None => Reader::open(&self.inner.dir)?,
        };
        let result = action(&reader);
        let mut pooled = lock(&self.inner.readers);
        if result.is_ok() && pooled.len() < POOLED_READERS {
            pooled.push(reader);
        }
        result
    }

    /// The records that hold the events after `position`, in order: whole records, at least one if there is any, then as
    /// many as fit in `max_events` and `max_bytes` of JSON ([`Stored::expanded`]). Only the first can begin at or before `position`; its
    /// reader skips the events up to there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn read_after(&self, position: u64, max_events: u64, max_bytes: u64) -> Result<Vec<Stored>, SpoolError> {
        self.read(|reader| reader.read_after(position, max_events, max_bytes))
    }

    /// The ledger of docs/protocol.md section 8, from one committed state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        self.read(Reader::ledger)
    }

    /// The ledger, and how long what each active sink lacks has waited. See [`Reader::status`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn status(&self, sink: &str, position: u64) -> Result<Status, SpoolError> {
        self.read(|reader| reader.status(sink, position))
    }

    /// Commits what waits, closes the database and ends the writer. Later writes are refused. Doing it twice is fine.
    pub fn close(&self) {
        let thread = lock(&self.inner.thread).take();
        lock(&self.inner.readers).clear();
        if let Some(thread) = thread {
            // Both fail only if the writer has ended already.
            let _ = self.inner.sender.send(Command::Close);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod backlog_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod parked_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
