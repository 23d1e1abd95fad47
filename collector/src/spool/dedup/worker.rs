//! Threads that write part files, apart from the thread that commits: one seals sets, one merges parts.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::fault::is_transient;
use super::hash::HashKey;
use super::part::{Part, PartIds, PartMeta, PartWriter};

/// IDs between two checks for a stop of the collector.
const STOP_CHECK_IDS: u64 = 64 * 1024;

/// Set of IDs that are or will be in a part.
pub(super) type IdSet = HashSet<u128, HashKey>;

/// Part to be written.
pub(super) enum Task {
    /// Write these IDs to the part `meta.no`.
    Seal { meta: PartMeta, ids: Arc<IdSet> },
    /// Merge these parts into the part `meta.no`.
    Merge { meta: PartMeta, sources: Vec<PartMeta> },
}

/// Result of a task.
pub(super) enum WorkerResult {
    Sealed { app: i64, part: io::Result<Part> },
    Merged { app: i64, sources: Vec<u64>, part: Result<Part, MergeError> },
}

/// Reason why parts could not be merged.
pub(super) struct MergeError {
    /// Number of the damaged part, if that is the reason.
    pub(super) damaged_part: Option<u64>,
    pub(super) error: io::Error,
}

/// The two threads.
pub(super) struct Workers {
    seals: Option<Sender<Task>>,
    merges: Option<Sender<Task>>,
    pub(super) done: Receiver<WorkerResult>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// State of one thread.
#[derive(Clone)]
struct Worker {
    folder: PathBuf,
    key: HashKey,
    stop: Arc<AtomicBool>,
    done: Sender<WorkerResult>,
}

impl Workers {
    /// Starts the threads for the parts in `folder`.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub(super) fn start(folder: &Path, key: HashKey) -> io::Result<Self> {
        let (sender, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { folder: folder.to_owned(), key, stop: Arc::clone(&stop), done: sender };
        let mut threads = Vec::new();
        let mut start = |name: &str| {
            let (tasks, receiver) = channel();
            let worker = worker.clone();
            let builder = std::thread::Builder::new().name(name.into());
            threads.push(builder.spawn(move || worker.run(&receiver))?);
            Ok::<_, io::Error>(Some(tasks))
        };
        let (seals, merges) = (start("dedup-seal")?, start("dedup-merge")?);
        Ok(Self { seals, merges, done, stop, threads })
    }

    /// Submits a task to its thread. The result is received from `done`.
    pub(super) fn submit(&self, task: Task) {
        let thread = match task {
            Task::Seal { .. } => &self.seals,
            Task::Merge { .. } => &self.merges,
        };
        // A thread ends only when this is dropped.
        let _ = thread.as_ref().map(|tasks| tasks.send(task));
    }
}

impl Drop for Workers {
    /// Stops the threads. A part that is being written has no row in the database, and its file is removed at the next
    /// start.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (self.seals, self.merges) = (None, None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            let done = match task {
                Task::Seal { meta, ids } => {
                    let part = self.seal(meta, &ids);
                    WorkerResult::Sealed { app: meta.app, part }
                }
                Task::Merge { meta, sources } => {
                    let part = self.merge(meta, &sources);
                    let sources = sources.iter().map(|source| source.no).collect();
                    WorkerResult::Merged { app: meta.app, sources, part }
                }
            };
            if self.done.send(done).is_err() {
                return;
            }
        }
    }

    fn check_stop(&self, written: u64) -> io::Result<()> {
        if written.is_multiple_of(STOP_CHECK_IDS) && self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the collector is stopping"));
        }
        Ok(())
    }

    fn seal(&self, meta: PartMeta, ids: &IdSet) -> io::Result<Part> {
        let mut sorted: Vec<u128> = ids.iter().copied().collect();
        sorted.sort_unstable();
        let mut writer = PartWriter::new(&self.folder, meta.no, meta.ids, self.key)?;
        for (at, id) in (0..).zip(sorted) {
            self.check_stop(at)?;
            writer.push(id)?;
        }
        writer.finish(meta.no, meta.app, meta.from, meta.to)
    }

    fn merge(&self, meta: PartMeta, sources: &[PartMeta]) -> Result<Part, MergeError> {
        let other = |error: io::Error| MergeError { damaged_part: None, error };
        let of =
            |no: u64| move |error: io::Error| MergeError { damaged_part: (!is_transient(&error)).then_some(no), error };
        let mut heads: Vec<(u128, u64, PartIds)> = Vec::new();
        for source in sources {
            let mut ids = Part::open(&self.folder, *source, self.key, false).map_err(of(source.no))?.into_ids();
            if let Some(first) = ids.next().map_err(of(source.no))? {
                heads.push((first, source.no, ids));
            }
        }
        let mut writer = PartWriter::new(&self.folder, meta.no, meta.ids, self.key).map_err(other)?;
        let mut written = 0;
        while let Some(least) = (0..heads.len()).min_by_key(|at| heads[*at].0) {
            self.check_stop(written).map_err(other)?;
            let (id, no, ids) = &mut heads[least];
            writer.push(*id).map_err(other)?;
            written += 1;
            match ids.next().map_err(of(*no))? {
                Some(next) => *id = next,
                None => drop(heads.swap_remove(least)),
            }
        }
        writer.finish(meta.no, meta.app, meta.from, meta.to).map_err(other)
    }
}
