//! Deletes indices whose days are all older than the retention, and refreshes the cache of indices once a day.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;

use super::super::{SinkError, days::day_of};
use super::known_indices::KnownIndices;
use super::names;
use super::server::Server;
use crate::clock;

/// Indices deleted by one request. Their names stay below the limit of a path.
const NAMES_PER_REQUEST: usize = 20;

/// Daily task of one sink.
pub(super) struct Retention {
    prefix: String,
    days: i64,
    known_indices: Arc<KnownIndices>,
    /// Day of the last run.
    last_run_day: Mutex<i64>,
}

impl Retention {
    /// Creates the task. With `days` 0 nothing is ever deleted.
    pub(super) fn new(prefix: &str, days: u64, known_indices: Arc<KnownIndices>) -> Self {
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        Self { prefix: prefix.to_owned(), days, known_indices, last_run_day: Mutex::new(i64::MIN) }
    }

    /// Deletes old indices once a day, and refreshes the cache, which notices deletions by others too.
    ///
    /// Runs in a task of its own, so that no event waits for it. A failure is logged and retried the next day.
    pub(super) fn refresh(self: &Arc<Self>, server: &Server) {
        let today = day_of(clock::now());
        let last_run_day =
            std::mem::replace(&mut *self.last_run_day.lock().unwrap_or_else(PoisonError::into_inner), today);
        if last_run_day != today {
            let (this, server) = (Arc::clone(self), server.clone());
            tokio::spawn(async move {
                if this.days > 0 {
                    this.delete_and_log(&server, today).await;
                }
                this.known_indices.refresh(&server).await;
            });
        }
    }

    async fn delete_and_log(&self, server: &Server, today: i64) {
        match self.delete(server, today).await {
            Ok(deleted) if !deleted.is_empty() => {
                tracing::info!("deleted {} indices older than {} days", deleted.len(), self.days);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("indices older than {} days could not be deleted: {error}", self.days),
        }
    }

    /// Deletes the indices whose whole day, month or year is more than the retention before `today`. Returns their
    /// names.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    async fn delete(&self, server: &Server, today: i64) -> Result<Vec<String>, SinkError> {
        let names = server.index_names(&format!("{0}-ods-*,{0}-uv-*", self.prefix)).await?;
        let oldest = today.saturating_sub(self.days);
        let is_old = |name: &String| names::last_day(&self.prefix, name).is_some_and(|day| day < oldest);
        let old: Vec<String> = names.into_iter().filter(is_old).collect();
        // Before the first deletion: an index that is wrongly known would be created in front of all events.
        self.known_indices.remove(&old);
        for chunk in old.chunks(NAMES_PER_REQUEST) {
            // Whole names without wildcards: nothing else can be hit.
            server.value(Method::DELETE, &format!("/{}?ignore_unavailable=true", chunk.join(",")), None).await?;
        }
        Ok(old)
    }
}
