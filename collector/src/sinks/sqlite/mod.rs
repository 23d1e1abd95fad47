//! Embedded store: `store.db`, a SQLite database in the data directory, and the sink named `embedded`. It can be
//! switched off.
//!
//! It stores its position in the same transactions as the events, so every event is in it exactly once whatever the
//! spool's cursor says. Its commits are on disk before they return (`synchronous=FULL`), because the spool deletes what
//! every sink has.
//!
//! One connection writes. Readers have connections of their own and never wait for it.

mod backfill;
mod cache;
mod columns;
mod dictionary;
mod ident;
mod packed;
pub(crate) mod parts;
mod retention;
pub(crate) mod rows;
mod writer;
mod writer_thread;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use backfill::StoreBackfill;
pub(crate) use dictionary::{SELECT_WORD, SHARED_APP};
pub(crate) use ident::Ident;
pub(crate) use rows::StoredRows;

use self::writer::Writer;
use self::writer_thread::WriterThread;
use super::{Delivered, EMBEDDED, Sink, SinkBatch, SinkError};
use crate::clock;
use crate::config::Embedded;
use crate::db::DbError;
use crate::telemetry::Telemetry;

/// File name of the database inside the data directory.
pub(crate) const FILE: &str = "store.db";

pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_store.sql"),
    include_str!("migrations/0002_time_source.sql"),
    include_str!("migrations/0003_parts.sql"),
    include_str!("migrations/0004_packed.sql"),
];

/// Embedded sink.
pub(crate) struct EmbeddedSink {
    thread: WriterThread,
}

impl EmbeddedSink {
    /// Opens the store with the default configuration.
    #[cfg(test)]
    pub(crate) fn open(dir: &Path) -> Result<Self, DbError> {
        Self::open_with(dir, &Embedded::default(), Arc::default())
    }

    /// Opens or creates the store in the data directory `dir`. It reports its metrics to `telemetry`. Blocks.
    ///
    /// # Errors
    /// If the database cannot be opened or migrated, or its thread cannot be started.
    pub(crate) fn open_with(dir: &Path, settings: &Embedded, telemetry: Arc<Telemetry>) -> Result<Self, DbError> {
        Ok(Self { thread: WriterThread::start(Writer::open(dir, settings, telemetry)?)? })
    }

    /// Runs one step of retention, between deliveries. `false`: nothing is left to do.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) async fn run_retention_step(&self) -> Result<bool, SinkError> {
        self.run(Writer::run_retention_step).await
    }

    /// Runs one step of retention at `now`, milliseconds since the epoch.
    #[cfg(test)]
    pub(crate) async fn run_retention_step_at(&self, now: i64) -> Result<bool, SinkError> {
        self.run(move |writer| writer.run_retention_step_at(now)).await
    }

    /// Stores the time zones of the apps, `(key, IANA name)`, so that `export` reads dates as the collector does.
    /// Blocks.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn set_timezones(&self, apps: &[(String, String)]) -> Result<(), DbError> {
        let apps = apps.to_vec();
        let done = self.thread.call(move |writer| writer.set_timezones(&apps));
        Ok(done.unwrap_or_else(|| {
            Err(writer_thread::thread_error("a job of the embedded store's thread panicked; the log has the reason"))
        })?)
    }

    /// Limits the database to its present pages plus `more`; `None` lifts the limit.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, more: Option<i64>) -> rusqlite::Result<()> {
        let limited = self.thread.call(move |writer| {
            let pages: i64 = writer.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let max_pages = more.map_or(i64::from(u32::MAX - 1), |more| pages + more);
            writer.connection.pragma_update_and_check(None, "max_page_count", max_pages, |_| Ok(()))
        });
        limited.unwrap_or_else(|| Err(writer_thread::thread_error("the thread has ended")))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        // Without a result the work panicked. The next runs with a clean transaction and empty caches.
        let answer = self.thread.submit(work).await;
        answer.unwrap_or_else(|_| {
            Err(SinkError::retryable("a job of the embedded store's thread panicked; the log has the reason"))
        })
    }
}

#[async_trait]
impl Sink for EmbeddedSink {
    fn name(&self) -> &str {
        EMBEDDED
    }

    async fn position(&self) -> Result<Option<u64>, SinkError> {
        self.run(|writer| Ok(Some(writer.position()))).await
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.run(move |writer| writer.deliver(&batch)).await?;
        Ok(Delivered::default())
    }

    async fn skip(&self, to: u64) -> Result<(), SinkError> {
        self.run(move |writer| writer.skip(to, clock::now())).await
    }

    async fn health(&self) -> Result<(), SinkError> {
        self.run(Writer::probe).await
    }
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod packed_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;
