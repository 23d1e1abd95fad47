//! Thread that writes the spool and commits in groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::watch;

use super::backlog::{Backlogs, BytesByApp};
use super::clocks::Clocks;
use super::dedup::{Dedup, DedupExtent, Horizons};
use super::{FILE, MIGRATIONS, SpoolCounters, SpoolError, SpoolSettings, Tx, arrival, lock, vacuum};
use crate::clock;
use crate::db::{self, Layout};
use crate::telemetry::{self, Telemetry};

/// Interval at which a writer probes whether it can commit again after a failure, while no task is queued.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Interval at which an idle writer checks for finished parts and for pages to release.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);

/// Interval at which it checks for expired parts.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// SQLite's page cache of the writer, KiB. Records and IDs are appended; only clock anchors are looked up.
const CACHE_KIB: i64 = 64 * 1024;

/// SQLite's page size of the spool, bytes. Records have tens of kilobytes and span many pages, each of which costs
/// system calls.
const LAYOUT: Layout = Layout { page_bytes: 16 * 1024, gives_back: true };

/// Pages in the write-ahead log before it is copied into the database: 16 MiB. A busy collector then copies a page
/// once for many commits.
const CHECKPOINT_PAGES: i64 = 1024;

/// Task that runs in a transaction of the writer.
pub trait SpoolTask: Send {
    /// Runs the task. It must only fail if the database fails, because one failure rolls back the whole group.
    ///
    /// # Errors
    /// If the database fails.
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError>;

    /// Reports the result. Called once, after the commit is on disk or has failed.
    fn done(self: Box<Self>, result: Result<(), &SpoolError>);

    /// Returns about how many bytes the task adds to the transaction.
    fn bytes(&self) -> u64;
}

pub(super) enum Command {
    SpoolTask(Box<dyn SpoolTask>),
    Close,
}

/// Task of [`super::Spool::call`]: sends its result back after the commit.
pub(super) struct Call<F, T> {
    pub(super) action: Option<F>,
    pub(super) result: Option<Result<T, SpoolError>>,
    pub(super) reply: Sender<Result<T, SpoolError>>,
}

impl<T: Send, F: FnOnce(&mut Tx<'_>) -> Result<T, SpoolError> + Send> SpoolTask for Call<F, T> {
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

/// State that the writer shares with the handles.
#[derive(Default)]
pub(super) struct WriterStatus {
    pub(super) backlog: AtomicU64,
    pub(super) backlogs: Arc<Mutex<BytesByApp>>,
    pub(super) last_error: Mutex<Option<String>>,
    pub(super) extents: Mutex<BTreeMap<i64, DedupExtent>>,
}

/// Writer's state in memory besides the connection.
struct WriterState {
    dedup: Dedup,
    clocks: Clocks,
}

pub(super) struct Writer {
    dir: PathBuf,
    /// `None` after a failure: the next transaction opens a new connection.
    connection: Option<Connection>,
    /// `None` before the database was opened, and after reopening it failed.
    state: Option<WriterState>,
    /// Last horizons that were set. Kept here because `state` may be lost and loaded again.
    horizons: Option<Horizons>,
    counters: SpoolCounters,
    backlogs: Backlogs,
    settings: SpoolSettings,
    expiry_checked_at: Instant,
    /// Time of the last arrival note, milliseconds since the epoch.
    arrival_noted: Option<i64>,
    receiver: Receiver<Command>,
    head: watch::Sender<u64>,
    shared: Arc<WriterStatus>,
    telemetry: Arc<Telemetry>,
}

/// Drop guard: marks the spool unhealthy if the writer thread exits without a close command.
struct ExitReporter(Arc<WriterStatus>, bool);

impl Drop for ExitReporter {
    fn drop(&mut self) {
        let why = if self.1 { "the spool is closed" } else { "the spool's writer has ended unexpectedly" };
        *lock(&self.0.last_error) = Some(why.into());
    }
}

impl Writer {
    pub(super) fn open(
        dir: &Path,
        settings: &SpoolSettings,
        receiver: Receiver<Command>,
        head: watch::Sender<u64>,
        shared: Arc<WriterStatus>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, SpoolError> {
        let mut writer = Self {
            dir: dir.to_owned(),
            connection: None,
            state: None,
            horizons: None,
            counters: SpoolCounters::default(),
            backlogs: Backlogs::new(Arc::clone(&shared.backlogs)),
            settings: settings.clone(),
            expiry_checked_at: Instant::now(),
            arrival_noted: None,
            receiver,
            head,
            shared,
            telemetry,
        };
        writer.connect()?;
        if let Some(connection) = &writer.connection {
            vacuum::enable_vacuum(connection);
        }
        Ok(writer)
    }

    fn connect(&mut self) -> Result<(), SpoolError> {
        if self.connection.is_none() {
            let mut connection = db::open_laid_out(&self.dir.join(FILE), MIGRATIONS, LAYOUT)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            self.load(&mut connection)?;
            vacuum::limit_wal(&connection)?;
            self.counters = SpoolCounters::load(&connection)?;
            self.backlogs.load(&connection)?;
            self.connection = Some(connection);
            self.publish();
            self.publish_extents();
        }
        Ok(())
    }

    /// Loads the state in memory from the database.
    fn load(&mut self, connection: &mut Connection) -> Result<(), SpoolError> {
        if let Some(mut state) = self.state.take() {
            self.horizons = state.dedup.horizons().or(self.horizons.take());
            if state.dedup.reload(connection)? {
                state.clocks = Clocks::open(connection, self.settings.install_clocks)?;
                self.state = Some(state);
                return Ok(());
            }
            // Here its threads end, before others begin in the same folder.
        }
        let mut dedup = Dedup::open(&self.dir, &self.settings.dedup, connection, clock::now())?;
        if let Some(horizons) = self.horizons.clone() {
            dedup.set_horizons(horizons);
        }
        self.state = Some(WriterState { dedup, clocks: Clocks::open(connection, self.settings.install_clocks)? });
        Ok(())
    }

    fn publish_extents(&self) {
        if let Some(state) = &self.state {
            *lock(&self.shared.extents) = state.dedup.extents();
        }
    }

    fn publish(&self) {
        self.shared.backlog.store(self.counters.backlog, Ordering::Relaxed);
        let stored = self.counters.stored;
        self.head.send_if_modified(|head| std::mem::replace(head, stored) != stored);
    }

    /// Commits groups until the close command.
    pub(super) fn run(mut self) {
        let mut exit_reporter = ExitReporter(Arc::clone(&self.shared), false);
        let mut group = Vec::new();
        while self.collect_group(&mut group) {
            self.commit_and_answer(&mut group);
        }
        if !group.is_empty() {
            self.commit_and_answer(&mut group);
        }
        exit_reporter.1 = true;
    }

    /// Returns how long to wait for a task before doing maintenance.
    fn idle_timeout(&self) -> Duration {
        let busy = self.state.as_ref().is_some_and(|state| state.dedup.is_busy() || state.clocks.wants_transaction());
        if lock(&self.shared.last_error).is_some() {
            PROBE_INTERVAL
        } else if busy || self.connection.as_ref().is_some_and(vacuum::has_free_pages) {
            BUSY_INTERVAL
        } else {
            EXPIRY_INTERVAL
        }
    }

    /// Waits for a task and takes all that are queued. Returns `false` if this is the last group.
    fn collect_group(&mut self, group: &mut Vec<Box<dyn SpoolTask>>) -> bool {
        let mut bytes = 0;
        let first = match self.receiver.try_recv() {
            Ok(command) => Ok(command),
            Err(TryRecvError::Disconnected) => return false,
            Err(TryRecvError::Empty) => self.receiver.recv_timeout(self.idle_timeout()),
        };
        let mut next = match first {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(command) = next {
            match command {
                Command::Close => return false,
                Command::SpoolTask(task) => {
                    bytes += task.bytes();
                    group.push(task);
                }
            }
            let has_capacity = bytes < self.settings.commit_bytes && group.len() < self.settings.queue;
            next = if has_capacity { self.receiver.try_recv().ok() } else { None };
        }
        true
    }

    /// Returns whether an empty group has work to do.
    fn wants_transaction(&mut self) -> bool {
        if self.expiry_checked_at.elapsed() >= EXPIRY_INTERVAL {
            self.expiry_checked_at = Instant::now();
            if let Some(state) = &mut self.state {
                state.dedup.schedule_expiry();
            }
        }
        let wants = |state: &WriterState| state.dedup.wants_transaction() || state.clocks.wants_transaction();
        lock(&self.shared.last_error).is_some()
            || self.state.as_ref().is_none_or(wants)
            || self.connection.as_ref().is_some_and(vacuum::has_free_pages)
    }

    /// Commits the group and reports the result to each task. An empty group probes after a failure, or does due
    /// maintenance.
    fn commit_and_answer(&mut self, group: &mut Vec<Box<dyn SpoolTask>>) {
        if let Some(state) = &mut self.state {
            state.dedup.run_maintenance();
        }
        if group.is_empty() && !self.wants_transaction() {
            return;
        }
        let began = Instant::now();
        let result = self.commit(group);
        match &result {
            Ok(()) => {
                self.publish();
                if !group.is_empty() {
                    self.telemetry.commits.inc();
                    telemetry::observe(&self.telemetry.commit_duration, began.elapsed());
                }
                if lock(&self.shared.last_error).take().is_some() {
                    tracing::info!("the spool stores again");
                }
            }
            Err(error) => {
                self.connection = None;
                self.telemetry.commit_failures.inc_by(u64::from(!group.is_empty()));
                if lock(&self.shared.last_error).replace(error.to_string()).is_none() {
                    tracing::error!(%error, writes = group.len(), "a commit failed; nothing of it is kept");
                }
            }
        }
        for task in group.drain(..) {
            task.done(result.as_ref().map(|_| ()));
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn SpoolTask>]) -> Result<(), SpoolError> {
        self.connect()?;
        let (Some(connection), Some(WriterState { dedup, clocks })) = (&mut self.connection, &mut self.state) else {
            return Err(SpoolError::Closed);
        };
        dedup.wait_below_cap()?;
        let now = clock::now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut counters = self.counters.clone();
        dedup.apply_results(&transaction, now)?;
        let backlogs = &mut self.backlogs;
        let mut tx = Tx { sql: &transaction, counters: &mut counters, backlogs, dedup, clocks, now };
        for task in group.iter_mut() {
            task.apply(&mut tx)?;
        }
        if group.is_empty() {
            transaction.prepare_cached("INSERT OR REPLACE INTO counter VALUES ('probe', 0)")?.execute([])?;
        }
        dedup.flush(&transaction, now)?;
        clocks.evict_old(&transaction)?;
        vacuum::release_pages(&transaction, group.is_empty())?;
        let mut arrival_noted = self.arrival_noted;
        if counters.stored > self.counters.stored {
            arrival_noted = arrival::note(&transaction, arrival_noted, self.counters.stored + 1, now)?;
        }
        counters.save(&self.counters, &transaction)?;
        self.backlogs.save(&transaction)?;
        transaction.commit()?;
        self.backlogs.commit();
        (self.counters, self.arrival_noted) = (counters, arrival_noted);
        lock(&self.shared.extents).extend(dedup.committed(now));
        self.telemetry.install_clocks_evicted.inc_by(clocks.take_evicted());
        if group.is_empty() && !vacuum::has_free_pages(connection) {
            vacuum::checkpoint(connection);
        }
        Ok(())
    }
}
