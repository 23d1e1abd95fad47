//! Durable log between the answer to the client and the stores.
//!
//! # Limits
//!
//! Each limit is a field of [`SpoolSettings`]: tasks in the writer's queue, bytes of one commit, installs whose
//! clocks are kept, bytes of a sink's dead letters. `spool_max_bytes` of the configuration bounds the log: its share by
//! app is checked by [`Backlog`], before a batch is stored. Parked events have limits of their own.
//!
//! # Layout on disk
//!
//! One SQLite database, `spool.db` (WAL, `synchronous=FULL`), holds everything that changes together: the log
//! (`record`, one row of JSON per batch and install), new event IDs, clock anchors, counters, cursors, dead
//! letters and parked events. Older event IDs are in files beside it, see `dedup`.
//!
//! # Write
//!
//! One thread writes. It commits in groups: the tasks that are queued while a commit is being synced form the next
//! group. A client is answered after its group is on disk.
//!
//! # Read
//!
//! Readers have connections of their own and see one committed state. Each sink reads the records after its cursor. A
//! record is deleted when every registered sink has passed it.
//!
//! # Recovery
//!
//! SQLite rolls back what was not committed, and the writer loads counters and sets from the tables. A frozen batch
//! is sent again with the same bounds and the same dedup token.
//!
//! # Blocking
//!
//! Every method blocks, on SQLite or on the writer's commit, except [`Spool::submit`]. From async code call them
//! inside `spawn_blocking`.
//!
//! # Invariants
//!
//! Each holds in every committed state:
//! * the positions of stored events are 1, 2, 3, .. without gaps, and the head is the number of events ever stored;
//! * received = stored + duplicate + all rejected;
//! * the backlogs of all apps add up to the bytes of JSON in the log;
//! * per sink, `delivered_to` only grows, and stored = delivered + discarded + pending + expired until it is retired.

mod arrival;
mod backlog;
mod clocks;
mod cursor;
mod dead_letters;
mod dedup;
mod error;
mod ledger;
mod parked;
mod positions;
mod progress;
mod read;
mod sinks;
mod trim;
mod tx;
mod vacuum;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use backlog::{Backlog, CapacityExceeded, FREE_SPACE_MULTIPLE};
pub use clocks::ClockAnchor;
pub use cursor::{Cursor, FrozenBatch};
pub use dead_letters::{DeadLetter, ReplayMode};
pub use dedup::{DEDUP_FOLDER, DedupExtent, DedupSettings, Horizon, Horizons};
pub use error::{SpoolError, SpoolUnhealthy};
pub use ledger::{Ledger, SinkLedger, SinkListEntry, SpoolStatus};
pub use parked::{Parked, ParkedGroup, ParkedGroupLimits, ParkedQuota};
pub use progress::Undelivered;
pub use read::{SpoolReader, SpoolRecord};
pub use sinks::{SinkRemoval, SinkState};
pub use tx::{SpoolCounters, Tx};
pub use writer::SpoolTask;

use crate::telemetry::Telemetry;
use writer::{Command, Writer, WriterStatus};

/// Name of the database file inside the data directory.
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

/// Reading connections that stay open while idle: enough for the sinks and an occasional scrape. A reader beyond them
/// closes its connection, so that a burst of queries leaves no files open.
const POOLED_READERS: usize = 8;

/// Limits of the spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Tasks queued for the writer. Beyond this the collector answers 503, because later answers would take too long.
    pub queue: usize,
    /// Bytes of JSON in one commit. Bounds the time and the memory of a transaction.
    pub commit_bytes: u64,
    /// Installs per app whose clock anchors are kept.
    pub install_clocks: u64,
    /// Bytes of one sink's dead letters. Beyond this the oldest are deleted.
    pub dead_letter_bytes: u64,
    /// Limits of the dedup index.
    pub dedup: DedupSettings,
}

impl Default for SpoolSettings {
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

/// Handle to the open spool. Clones share it.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    sender: SyncSender<Command>,
    shared: Arc<WriterStatus>,
    head: watch::Receiver<u64>,
    readers: Mutex<Vec<SpoolReader>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Sinks that the log is kept for.
    active: Mutex<Vec<String>>,
    dead_letter_bytes: u64,
}

/// Ignores mutex poisoning: the guarded values are consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens or creates the spool in the directory `dir` and starts its writer.
    ///
    /// # Errors
    /// If the database cannot be opened or migrated, or a thread cannot be started.
    pub fn open(dir: &Path, settings: &SpoolSettings, telemetry: Arc<Telemetry>) -> Result<Self, SpoolError> {
        let (sender, receiver) = sync_channel(settings.queue);
        let (head_sender, head) = watch::channel(0);
        let shared = Arc::new(WriterStatus::default());
        let writer = Writer::open(dir, settings, receiver, head_sender, Arc::clone(&shared), telemetry)?;
        let thread = std::thread::Builder::new()
            .name("spool-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| SpoolError::io("the writer cannot be started", error))?;
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

    /// Queues a task for the writer without waiting. Its `done` is called after the commit.
    ///
    /// # Errors
    /// Returns the task unchanged if the queue is full or the writer has ended.
    pub fn submit(&self, write: Box<dyn SpoolTask>) -> Result<(), (Box<dyn SpoolTask>, SpoolError)> {
        match self.inner.sender.try_send(Command::SpoolTask(write)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Command::SpoolTask(write))) => Err((write, SpoolError::Busy)),
            Err(TrySendError::Disconnected(Command::SpoolTask(write))) => Err((write, SpoolError::Closed)),
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
        self.inner.sender.send(Command::SpoolTask(Box::new(call))).map_err(|_| SpoolError::Closed)?;
        answer.recv().unwrap_or(Err(SpoolError::Closed))
    }

    /// Returns the position of the newest event on disk, or 0 if there is none.
    #[must_use]
    pub fn head(&self) -> u64 {
        *self.inner.head.borrow()
    }

    /// Returns a receiver of the head. It changes after every commit that appends events.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.inner.head.clone()
    }

    /// Resolves when the writer has ended. Without [`Spool::close`] that is a defect.
    pub async fn ended(&self) {
        let mut head = self.inner.head.clone();
        while head.changed().await.is_ok() {}
    }

    /// Returns the bytes of JSON in the log that some sink still needs, as of the last trim.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.inner.shared.backlog.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the app and of all apps in the log, as of the last commit.
    #[must_use]
    pub fn backlog(&self, app: i64) -> Backlog {
        let own = lock(&self.inner.shared.backlogs).get(&app).copied().unwrap_or(0);
        Backlog { own, total: self.backlog_bytes() }
    }

    /// Returns the bytes of JSON in the log by app number. Apps without bytes are absent.
    #[must_use]
    pub fn backlogs(&self) -> BTreeMap<i64, u64> {
        lock(&self.inner.shared.backlogs).clone()
    }

    /// Checks that the spool can store events now.
    ///
    /// # Errors
    /// The last commit failed and no probe has succeeded since, or the writer has ended.
    pub fn health(&self) -> Result<(), SpoolUnhealthy> {
        match &*lock(&self.inner.shared.last_error) {
            Some(last_error) => Err(SpoolUnhealthy(last_error.clone())),
            None => Ok(()),
        }
    }

    /// Returns the numbers of these app keys, assigning new ones. A number never changes.
    ///
    /// # Errors
    /// If the database fails.
    pub fn app_numbers(&self, keys: Vec<String>) -> Result<HashMap<String, i64>, SpoolError> {
        self.call(move |tx| keys.into_iter().map(|key| Ok((key.clone(), tx.app_number(&key)?))).collect())
    }

    /// Sets how far back each app's dedup index reaches. Until the first call no event ID is forgotten.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_horizons(&self, horizons: Horizons) -> Result<(), SpoolError> {
        self.call(move |tx| {
            tx.dedup.set_horizons(horizons);
            Ok(())
        })
    }

    /// Returns the extent of each app's dedup index by app number, as of its last change.
    #[must_use]
    pub fn dedup_extents(&self) -> BTreeMap<i64, DedupExtent> {
        lock(&self.inner.shared.extents).clone()
    }

    /// Runs `action` on a reading connection. Readers and the writer do not wait for each other.
    fn read<T>(&self, action: impl FnOnce(&SpoolReader) -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let pooled = lock(&self.inner.readers).pop();
        let reader = match pooled {
            Some(reader) => reader,
            None => SpoolReader::open(&self.inner.dir)?,
        };
        let result = action(&reader);
        let mut pooled = lock(&self.inner.readers);
        if result.is_ok() && pooled.len() < POOLED_READERS {
            pooled.push(reader);
        }
        result
    }

    /// Reads whole records with the events after `position`, in order: at least one if there is any, and at most
    /// `max_events` and `max_bytes` of JSON ([`SpoolRecord::expanded`]) beyond the first.
    ///
    /// Only the first record can begin at or before `position`. The caller skips its events up to there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn read_after(&self, position: u64, max_events: u64, max_bytes: u64) -> Result<Vec<SpoolRecord>, SpoolError> {
        self.read(|reader| reader.read_after(position, max_events, max_bytes))
    }

    /// Reads the ledger of docs/protocol.md section 8 from one committed state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        self.read(SpoolReader::ledger)
    }

    /// Reads the ledger and the age of each active sink's oldest pending event. See [`SpoolReader::status`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn status(&self, sink: &str, position: u64) -> Result<SpoolStatus, SpoolError> {
        self.read(|reader| reader.status(sink, position))
    }

    /// Commits the queued tasks, closes the database and ends the writer. Later tasks are refused. A second call has
    /// no effect.
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
