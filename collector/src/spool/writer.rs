//! The one thread that writes the spool, in groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::watch;

use super::backlog::{Backlogs, ByApp};
use super::clocks::Clocks;
use super::dedup::{Dedup, Extent, Horizons};
use super::{Counters, FILE, MIGRATIONS, Settings, SpoolError, Tx, arrival, lock, space};
use crate::clock;
use crate::db::{self, Layout};
use crate::telemetry::{self, Telemetry};

/// How often a writer that could not commit tries whether it can again, when nobody writes.
const PROBE: Duration = Duration::from_millis(500);

/// How often a writer that nobody writes to looks after what is on its way: a part, or pages to give back.
const SOON: Duration = Duration::from_millis(20);

/// How often it looks whether something has expired.
const SELDOM: Duration = Duration::from_secs(60);

/// SQLite's page cache of the writer, KiB. Records and IDs are appended; what is looked up are the clocks of installs.
const CACHE_KIB: i64 = 64 * 1024;

/// SQLite's page size of the spool, bytes. Records are tens of kilobytes and go over many pages, each of which costs
/// system calls.
const LAYOUT: Layout = Layout { page_bytes: 16 * 1024, gives_back: true };

/// Pages in the write-ahead log before it is copied into the database: 16 MiB, so that a busy collector copies a page
/// once for many commits.
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
    pub(super) backlogs: Arc<Mutex<ByApp>>,
    pub(super) trouble: Mutex<Option<String>>,
    pub(super) extents: Mutex<BTreeMap<i64, Extent>>,
}

/// What the writer keeps in memory beside the connection.
struct State {
    dedup: Dedup,
    clocks: Clocks,
}

pub(super) struct Writer {
    dir: PathBuf,
    /// None after a failure: the next transaction begins with a fresh connection.
    connection: Option<Connection>,
    /// None only until the database has been opened for the first time, and if it could not be opened again.
    state: Option<State>,
    /// How far back the dedup index reaches, as last told; kept here because `state` may be lost and be made anew.
    horizons: Option<Horizons>,
    counters: Counters,
    backlogs: Backlogs,
    settings: Settings,
    looked_at: Instant,
    /// When an arrival was last noted, milliseconds since the epoch.
    noted: Option<i64>,
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
        let mut writer = Self {
            dir: dir.to_owned(),
            connection: None,
            state: None,
            horizons: None,
            counters: Counters::default(),
            backlogs: Backlogs::new(Arc::clone(&shared.backlogs)),
            settings: settings.clone(),
            looked_at: Instant::now(),
            noted: None,
            receiver,
            head,
            shared,
            telemetry,
        };
        writer.connect()?;
        if let Some(connection) = &writer.connection {
            space::rewrite(connection);
        }
        Ok(writer)
    }

    fn connect(&mut self) -> Result<(), SpoolError> {
        if self.connection.is_none() {
            let mut connection = db::open_laid_out(&self.dir.join(FILE), MIGRATIONS, LAYOUT)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            self.load(&mut connection)?;
            space::limit_log(&connection)?;
            self.counters = Counters::load(&connection)?;
            self.backlogs.load(&connection)?;
            self.connection = Some(connection);
            self.publish();
            self.publish_extents();
        }
        Ok(())
    }

    /// Brings memory to what the database says.
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
        self.state = Some(State { dedup, clocks: Clocks::open(connection, self.settings.install_clocks)? });
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

    /// How long to wait for a write before looking after other things.
    fn patience(&self) -> Duration {
        let busy = self.state.as_ref().is_some_and(|state| state.dedup.is_busy() || state.clocks.wants_transaction());
        if lock(&self.shared.trouble).is_some() {
            PROBE
        } else if busy || self.connection.as_ref().is_some_and(space::has_spare) {
            SOON
        } else {
            SELDOM
        }
    }

    /// Waits for a write and takes along whatever else waits. `false` if this is the last group.
    fn collect(&mut self, group: &mut Vec<Box<dyn Write>>) -> bool {
        let mut bytes = 0;
        let first = match self.receiver.try_recv() {
            Ok(command) => Ok(command),
            Err(TryRecvError::Disconnected) => return false,
            Err(TryRecvError::Empty) => self.receiver.recv_timeout(self.patience()),
        };
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
            let room = bytes < self.settings.commit_bytes && group.len() < self.settings.queue;
            next = if room { self.receiver.try_recv().ok() } else { None };
        }
        true
    }

    /// Whether an empty group has something to do.
    fn wants_transaction(&mut self) -> bool {
        if self.looked_at.elapsed() >= SELDOM {
            self.looked_at = Instant::now();
            if let Some(state) = &mut self.state {
                state.dedup.look_for_expired();
            }
        }
        let wants = |state: &State| state.dedup.wants_transaction() || state.clocks.wants_transaction();
        lock(&self.shared.trouble).is_some()
            || self.state.as_ref().is_none_or(wants)
            || self.connection.as_ref().is_some_and(space::has_spare)
    }

    /// Commits the group and tells everybody in it. An empty one is a probe after a failure, or does what is due.
    fn commit_and_answer(&mut self, group: &mut Vec<Box<dyn Write>>) {
        if let Some(state) = &mut self.state {
            state.dedup.upkeep();
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
                if lock(&self.shared.trouble).take().is_some() {
                    tracing::info!("the spool stores again");
                }
            }
            Err(error) => {
                self.connection = None;
                self.telemetry.commit_failures.inc_by(u64::from(!group.is_empty()));
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
        let (Some(connection), Some(State { dedup, clocks })) = (&mut self.connection, &mut self.state) else {
            return Err(SpoolError::Closed);
        };
        dedup.make_room()?;
        let now = clock::now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut counters = self.counters.clone();
        dedup.install(&transaction, now)?;
        let backlogs = &mut self.backlogs;
        let mut tx = Tx { sql: &transaction, counters: &mut counters, backlogs, dedup, clocks, now };
        for write in group.iter_mut() {
            write.apply(&mut tx)?;
        }
        if group.is_empty() {
            transaction.prepare_cached("INSERT OR REPLACE INTO counter VALUES ('probe', 0)")?.execute([])?;
        }
        dedup.flush(&transaction, now)?;
        clocks.forget(&transaction)?;
        space::give_back(&transaction, group.is_empty())?;
        let mut noted = self.noted;
        if counters.stored > self.counters.stored {
            noted = arrival::note(&transaction, noted, self.counters.stored + 1, now)?;
        }
        counters.save(&self.counters, &transaction)?;
        self.backlogs.save(&transaction)?;
        transaction.commit()?;
        self.backlogs.commit();
        (self.counters, self.noted) = (counters, noted);
        lock(&self.shared.extents).extend(dedup.committed(now));
        self.telemetry.install_clocks_evicted.inc_by(clocks.take_forgotten());
        if group.is_empty() && !space::has_spare(connection) {
            space::settle(connection);
        }
        Ok(())
    }
}
