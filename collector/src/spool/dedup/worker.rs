//! Writes part files, away from the thread that commits: one thread seals what is in memory, one merges parts.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::fault::may_pass;
use super::hash::HashKey;
use super::part::{Draft, Ids, Meta, Part};

/// IDs between two looks at whether the collector wants to stop.
const STEP: u64 = 64 * 1024;

/// IDs in memory, that are or will be in a part.
pub(super) type IdSet = HashSet<u128, HashKey>;

/// Something to be written.
pub(super) enum Task {
    /// These IDs become the part `meta.no`.
    Seal { meta: Meta, ids: Arc<IdSet> },
    /// These parts become the part `meta.no`.
    Merge { meta: Meta, sources: Vec<Meta> },
}

/// What became of a task.
pub(super) enum Done {
    Sealed { app: i64, part: Result<Part, String> },
    Merged { app: i64, sources: Vec<u64>, part: Result<Part, MergeError> },
}

/// Why parts could not be merged.
pub(super) struct MergeError {
    /// The part that cannot be read, if that is why.
    pub(super) source: Option<u64>,
    pub(super) why: String,
}

/// The two threads.
pub(super) struct Workers {
    seals: Option<Sender<Task>>,
    merges: Option<Sender<Task>>,
    pub(super) done: Receiver<Done>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread needs.
#[derive(Clone)]
struct Worker {
    folder: PathBuf,
    key: HashKey,
    stop: Arc<AtomicBool>,
    done: Sender<Done>,
}

impl Workers {
    /// Starts the threads for the parts in `folder`.
    ///
    /// # Errors
    /// If the system gives no thread.
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

    /// Hands a task to its thread; what becomes of it comes out of `done`.
    pub(super) fn begin(&self, task: Task) {
        let thread = match task {
            Task::Seal { .. } => &self.seals,
            Task::Merge { .. } => &self.merges,
        };
        // A thread ends only when this is dropped.
        let _ = thread.as_ref().map(|tasks| tasks.send(task));
    }
}

impl Drop for Workers {
    /// Breaks off what is being written: it is not named in the database, and is removed at the next start.
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
                    let part = self.seal(meta, &ids).map_err(|error| error.to_string());
                    Done::Sealed { app: meta.app, part }
                }
                Task::Merge { meta, sources } => {
                    let part = self.merge(meta, &sources);
                    let sources = sources.iter().map(|source| source.no).collect();
                    Done::Merged { app: meta.app, sources, part }
                }
            };
            if self.done.send(done).is_err() {
                return;
            }
        }
    }

    fn go_on(&self, written: u64) -> io::Result<()> {
        if written.is_multiple_of(STEP) && self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the collector is stopping"));
        }
        Ok(())
    }

    fn seal(&self, meta: Meta, ids: &IdSet) -> io::Result<Part> {
        let mut sorted: Vec<u128> = ids.iter().copied().collect();
        sorted.sort_unstable();
        let mut draft = Draft::new(&self.folder, meta.no, meta.ids, self.key)?;
        for (at, id) in (0..).zip(sorted) {
            self.go_on(at)?;
            draft.push(id)?;
        }
        draft.finish(meta.no, meta.app, meta.from, meta.to)
    }

    fn merge(&self, meta: Meta, sources: &[Meta]) -> Result<Part, MergeError> {
        let other = |error: io::Error| MergeError { source: None, why: error.to_string() };
        let of = |no: u64| {
            move |error: io::Error| MergeError { source: (!may_pass(&error)).then_some(no), why: error.to_string() }
        };
        let mut heads: Vec<(u128, u64, Ids)> = Vec::new();
        for source in sources {
            let mut ids = Part::open(&self.folder, *source, self.key, false).map_err(of(source.no))?.into_ids();
            if let Some(first) = ids.next().map_err(of(source.no))? {
                heads.push((first, source.no, ids));
            }
        }
        let mut draft = Draft::new(&self.folder, meta.no, meta.ids, self.key).map_err(other)?;
        let mut written = 0;
        while let Some(least) = (0..heads.len()).min_by_key(|at| heads[*at].0) {
            self.go_on(written).map_err(other)?;
            let (id, no, ids) = &mut heads[least];
            draft.push(*id).map_err(other)?;
            written += 1;
            match ids.next().map_err(of(*no))? {
                Some(next) => *id = next,
                None => drop(heads.swap_remove(least)),
            }
        }
        draft.finish(meta.no, meta.app, meta.from, meta.to).map_err(other)
    }
}
