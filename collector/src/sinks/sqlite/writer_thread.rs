//! The one thread that writes the store. It has a name of its own, so that its cost is visible in a profile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::ffi;
use tokio::sync::oneshot;

use super::writer::Writer;

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// Runs jobs on the writer, one after the other. Dropping it finishes them and closes the database.
pub(super) struct WriterThread {
    jobs: Option<Sender<Job>>,
    handle: Option<JoinHandle<()>>,
}

/// Returns an error of the thread as one of its database.
pub(super) fn thread_error(why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_MISUSE), Some(why.into()))
}

impl WriterThread {
    pub(super) fn start(mut writer: Writer) -> rusqlite::Result<Self> {
        let (jobs, receiver) = channel::<Job>();
        let run = move || {
            for job in receiver {
                // A panic rolls the transaction back, and the writer drops the state of it.
                if catch_unwind(AssertUnwindSafe(|| job(&mut writer))).is_err() {
                    tracing::error!("a job of the embedded store panicked");
                }
            }
        };
        let handle =
            Builder::new().name("embedded-store".into()).spawn(run).map_err(|error| thread_error(error.to_string()))?;
        Ok(Self { jobs: Some(jobs), handle: Some(handle) })
    }

    /// Queues `work`. The receiver gets the result, or an error if `work` panicked.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        // If the caller no longer waits, the work is done all the same.
        self.send(Box::new(move |writer: &mut Writer| drop(reply.send(work(writer)))));
        answer
    }

    /// Runs `work` on the thread and waits for the result; `None` if it panicked.
    pub(super) fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Writer) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = channel();
        self.send(Box::new(move |writer: &mut Writer| drop(reply.send(work(writer)))));
        answer.recv().ok()
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Fails only if the thread has ended. The job's reply is dropped then, which ends its receiver.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
