//! The one thread that writes the spool, in groups.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::watch;

use super::{Counters, FILE, MIGRATIONS, Settings, SpoolError, Tx, arrival, lock};
use crate::telemetry::{Count, Telemetry};
use crate::{clock, db};

/// How often a writer that could not commit tries whether it can again, when nobody writes.
const PROBE: Duration = Duration::from_millis(500);

/// SQLite's page cache of the writer, KiB. The index of seen IDs is looked up for every event.
const CACHE_KIB: i64 = 64 * 1024;

/// SQLite's page size of the spool, bytes. Records are tens of kilobytes and go over many pages, each of which costs
/// system calls; the index of seen IDs is appended to nearly in order, so that larger pages do not cost it more.
const PAGE_BYTES: u32 = 16 * 1024;

/// Pages in the write-ahead log before it is copied into the database: 16 MiB, so that a busy collector copies a page of
/// the index once for many commits.
const CHECKPOINT_PAGES: i64 = 1024;

/// Something to be done in a transaction of the writer.
pub trait Write: Send {
    /// Does it. Must not fail for any reason but the database: one failure undoes the whole group.
    ///
    /// # Errors
    /// If the database fails.
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError>;

    /// Called once, after the commit is on disk, or with the reason why there is none.
    fn done(self: Box<Self>, result: Result<(), &SpoolError>);

    /// About how many bytes it adds to the transaction.
    fn bytes(&self) -> u64;
}

pub(super) enum Command {
    Write(Box<dyn Write>),
    Close,
}

/// A call whose result is sent back after the commit.
pub(super) struct Call<F, T> {
    pub(super) action: Option<F>,
    pub(super) result: Option<Result<T, SpoolError>>,
    pub(super) reply: Sender<Result<T, SpoolError>>,
}

impl<T: Send, F: FnOnce(&mut Tx<'_>) -> Result<T, SpoolError> + Send> Write for Call<F, T> {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        match self.action.take().map(|action| action(tx)) {
            Some(Err(error)) if error.aborts() => Err(error),
            other => {
                self.result = other;
                Ok(())
            }
        }
    }

    fn done(self: Box<Self>, result: Result<(), &SpoolError>) {
        let answer = match result {
            Ok(()) => self.result.unwrap_or(Err(SpoolError::Closed)),
            Err(error) => Err(SpoolError::Commit(error.to_string())),
        };
        // Nobody waits any more: the caller has gone.
        let _ = self.reply.send(answer);
    }

    fn bytes(&self) -> u64 {
        0
    }
}

/// What the writer tells everybody.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) backlog: AtomicU64,
    pub(super) trouble: Mutex<Option<String>>,
}

pub(super) struct Writer {
    path: PathBuf,
    /// None after a failure: the next transaction begins with a fresh connection.
    connection: Option<Connection>,
    counters: Counters,
    /// When an arrival was last noted, milliseconds since the epoch.
    noted: Option<i64>,
    commit_bytes: u64,
    group_writes: usize,
    receiver: Receiver<Command>,
    head: watch::Sender<u64>,
    shared: Arc<Shared>,
    telemetry: Arc<Telemetry>,
}

/// Says so if the writer ends for any reason but being told to.
struct Obituary(Arc<Shared>, bool);

impl Drop for Obituary {
    fn drop(&mut self) {
        let why = if self.1 { "the spool is closed" } else { "the spool's writer has ended unexpectedly" };
        *lock(&self.0.trouble) = Some(why.into());
    }
}

impl Writer {
    pub(super) fn open(
        dir: &Path,
        settings: &Settings,
        receiver: Receiver<Command>,
        head: watch::Sender<u64>,
        shared: Arc<Shared>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, SpoolError> {
        let path = dir.join(FILE);
        let mut writer = Self {
            path,
            connection: None,
            counters: Counters::default(),
            noted: None,
            commit_bytes: settings.commit_bytes,
            group_writes: settings.queue,
            receiver,
            head,
            shared,
            telemetry,
        };
        writer.connect()?;
        Ok(writer)
    }

    fn connect(&mut self) -> Result<(), SpoolError> {
        if self.connection.is_none() {
            let connection = db::open_paged(&self.path, MIGRATIONS, PAGE_BYTES)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            self.counters = Counters::load(&connection)?;
            self.connection = Some(connection);
            self.publish();
        }
        Ok(())
    }

    fn publish(&self) {
        self.shared.backlog.store(self.counters.backlog, Ordering::Relaxed);
        let stored = self.counters.stored;
        self.head.send_if_modified(|head| std::mem::replace(head, stored) != stored);
    }

    /// Serves until told to close.
    pub(super) fn run(mut self) {
        let mut obituary = Obituary(Arc::clone(&self.shared), false);
        let mut group = Vec::new();
        while self.collect(&mut group) {
            self.commit_and_answer(&mut group);
        }
        if !group.is_empty() {
            self.commit_and_answer(&mut group);
        }
        obituary.1 = true;
    }

    /// Waits for a write and takes along whatever else waits. `false` if this is the last group.
    fn collect(&mut self, group: &mut Vec<Box<dyn Write>>) -> bool {
        let first = if lock(&self.shared.trouble).is_some() {
            self.receiver.recv_timeout(PROBE)
        } else {
            self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let mut bytes = 0;
        let mut next = match first {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(command) = next {
            match command {
                Command::Close => return false,
                Command::Write(write) => {
                    bytes += write.bytes();
                    group.push(write);
                }
            }
            let room = bytes < self.commit_bytes && group.len() < self.group_writes;
            next = if room { self.receiver.try_recv().ok() } else { None };
        }
        true
    }

    /// Commits the group (an empty one is a probe) and tells everybody in it.
    fn commit_and_answer(&mut self, group: &mut Vec<Box<dyn Write>>) {
        let began = Instant::now();
        let result = self.commit(group);
        match &result {
            Ok(()) => {
                self.publish();
                if !group.is_empty() {
                    self.telemetry.add(Count::Commits, 1);
                    self.telemetry.commit_seconds.observe(began.elapsed());
                }
                if lock(&self.shared.trouble).take().is_some() {
                    tracing::info!("the spool stores again");
                }
            }
            Err(error) => {
                self.connection = None;
                self.telemetry.add(Count::CommitFailures, u64::from(!group.is_empty()));
                if lock(&self.shared.trouble).replace(error.to_string()).is_none() {
                    tracing::error!(%error, writes = group.len(), "a commit failed; nothing of it is kept");
                }
            }
        }
        for write in group.drain(..) {
            write.done(result.as_ref().map(|_| ()));
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Write>]) -> Result<(), SpoolError> {
        self.connect()?;
        let Some(connection) = &mut self.connection else { return Err(SpoolError::Closed) };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut counters = self.counters.clone();
        let mut tx = Tx { sql: &transaction, counters: &mut counters };
        for write in group.iter_mut() {
            write.apply(&mut tx)?;
        }
        if group.is_empty() {
            transaction.prepare_cached("INSERT OR REPLACE INTO counter VALUES ('probe', 0)")?.execute([])?;
        }
        let mut noted = self.noted;
        if counters.stored > self.counters.stored {
            noted = arrival::note(&transaction, noted, self.counters.stored + 1, clock::now())?;
        }
        counters.save(&self.counters, &transaction)?;
        transaction.commit()?;
        (self.counters, self.noted) = (counters, noted);
        Ok(())
    }
}
