//! The embedded store: `store.db`, a SQLite database in the data directory. Always there, named `embedded`.
//!
//! It keeps how far it has taken over the spool in the same transactions as the events, so every event is in it exactly
//! once whatever the spool's own cursor says. Its commits are on disk before they return (`synchronous=FULL`), because the
//! spool forgets what every sink has.
//!
//! One connection writes; readers have connections of their own (see [`reader`]) and never wait for it.

mod dictionary;
mod reader;
mod rows;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

pub use reader::StoreReader;
pub use rows::StoredRows;

use self::writer::Writer;
use super::{Delivered, EMBEDDED, Sink, SinkBatch, SinkError};
use crate::db::DbError;

/// The database's file name inside the data directory.
pub const FILE: &str = "store.db";

const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_store.sql")];

/// The embedded sink.
pub struct EmbeddedSink {
    writer: Arc<Mutex<Writer>>,
}

impl EmbeddedSink {
    /// Opens (or makes) the store in the data directory `dir`. Blocks.
    ///
    /// # Errors
    /// If the database cannot be opened or migrated.
    pub fn open(dir: &Path) -> Result<Self, DbError> {
        Ok(Self { writer: Arc::new(Mutex::new(Writer::open(dir)?)) })
    }

    /// Notes the time zones of the apps, `(key, IANA name)`, so that `export` reads dates as the collector does. Blocks.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_timezones(&self, apps: &[(String, String)]) -> Result<(), DbError> {
        Ok(lock(&self.writer).set_timezones(apps)?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let writer = Arc::clone(&self.writer);
        let task = tokio::task::spawn_blocking(move || work(&mut lock(&writer)));
        task.await.map_err(|error| SinkError::retryable(error.to_string()))?
    }
}

/// A panic inside a transaction rolls it back, and the writer notices that its caches are stale; so the writer behind a
/// poisoned lock is whole.
fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Sink for EmbeddedSink {
    fn name(&self) -> &str {
        EMBEDDED
    }

    async fn position(&self) -> Result<Option<u64>, SinkError> {
        self.blocking(|writer| Ok(Some(writer.position()))).await
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.blocking(move |writer| writer.deliver(&batch)).await?;
        Ok(Delivered::default())
    }

    async fn health(&self) -> Result<(), SinkError> {
        self.blocking(Writer::probe).await
    }
}

#[cfg(test)]
mod tests;
