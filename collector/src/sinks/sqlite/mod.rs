//! The embedded store: `store.db`, a SQLite database in the data directory. Always there, named `embedded`.
//!
//! It keeps how far it has taken over the spool in the same transactions as the events, so every event is in it exactly
//! once whatever the spool's own cursor says. Its commits are on disk before they return (`synchronous=FULL`), because the
//! spool forgets what every sink has.
//!
//! One connection writes; readers have connections of their own and never wait for it.

mod columns;
mod dictionary;
mod history;
pub(crate) mod rows;
mod thread;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use dictionary::Ident;
pub use history::StoreHistory;
pub use rows::StoredRows;

use self::thread::WriterThread;
use self::writer::Writer;
use super::{Delivered, EMBEDDED, Sink, SinkBatch, SinkError};
use crate::db::DbError;

/// The database's file name inside the data directory.
pub const FILE: &str = "store.db";

pub(crate) const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001_store.sql"), include_str!("migrations/0002_time_source.sql")];

/// The embedded sink.
pub struct EmbeddedSink {
    thread: WriterThread,
}

impl EmbeddedSink {
    /// Opens (or makes) the store in the data directory `dir`. Blocks.
    ///
    /// # Errors
    /// If the database cannot be opened or migrated, or its thread cannot be started.
    pub fn open(dir: &Path) -> Result<Self, DbError> {
        Ok(Self { thread: WriterThread::start(Writer::open(dir)?)? })
    }

    /// Notes the time zones of the apps, `(key, IANA name)`, so that `export` reads dates as the collector does. Blocks.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_timezones(&self, apps: &[(String, String)]) -> Result<(), DbError> {
        let apps = apps.to_vec();
        let done = self.thread.call(move |writer| writer.set_timezones(&apps));
        Ok(done.unwrap_or_else(|| Err(thread::gone("the work of the embedded store's thread broke off")))?)
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        // No answer: the work panicked. The next is done with a clean transaction and fresh caches.
        let answer = self.thread.ask(work).await;
        answer.unwrap_or_else(|_| Err(SinkError::retryable("the work of the embedded store's thread broke off")))
    }
}

#[async_trait]
impl Sink for EmbeddedSink {
    fn name(&self) -> &str {
        EMBEDDED
    }

    async fn position(&self) -> Result<Option<u64>, SinkError> {
        self.ask(|writer| Ok(Some(writer.position()))).await
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.ask(move |writer| writer.deliver(&batch)).await?;
        Ok(Delivered::default())
    }

    async fn health(&self) -> Result<(), SinkError> {
        self.ask(Writer::probe).await
    }
}

#[cfg(test)]
mod tests;
