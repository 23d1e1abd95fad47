//! Deletes indices all of whose days are older than they should be, and learns once a day which are left.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;

use super::super::{SinkError, days::day_of};
use super::made::Made;
use super::names;
use super::server::Server;
use crate::clock;

/// Indices deleted by one request: their names stay below what a path may have.
const NAMES: usize = 20;

/// When indices were last looked through.
pub(super) struct Retention {
    prefix: String,
    days: i64,
    made: Arc<Made>,
    /// The day of the last look.
    looked: Mutex<i64>,
}

impl Retention {
    /// `days` 0: nothing is ever deleted.
    pub(super) fn new(prefix: &str, days: u64, made: Arc<Made>) -> Self {
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        Self { prefix: prefix.to_owned(), days, made, looked: Mutex::new(i64::MIN) }
    }

    /// Once a day deletes what is too old, and notes which indices are left whoever deletes them, in a task of its own: no event
    /// waits for it. A failure is logged and tried again the next day.
    pub(super) fn look(self: &Arc<Self>, server: &Server) {
        let today = day_of(clock::now());
        let looked = std::mem::replace(&mut *self.looked.lock().unwrap_or_else(PoisonError::into_inner), today);
        if looked != today {
            let (this, server) = (Arc::clone(self), server.clone());
            tokio::spawn(async move {
                if this.days > 0 {
                    this.delete_and_tell(&server, today).await;
                }
                this.made.look(&server).await;
            });
        }
    }

    async fn delete_and_tell(&self, server: &Server, today: i64) {
        match self.delete(server, today).await {
            Ok(deleted) if !deleted.is_empty() => {
                tracing::info!("deleted {} indices older than {} days", deleted.len(), self.days);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("indices older than {} days could not be deleted: {error}", self.days),
        }
    }

    /// Deletes the indices whose whole day, month or year lies more than the retention before `today`; returns their names.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    async fn delete(&self, server: &Server, today: i64) -> Result<Vec<String>, SinkError> {
        let path = format!("/_resolve/index/{0}-ods-*,{0}-uv-*?filter_path=indices.name", self.prefix);
        let value = server.value(Method::GET, &path, None).await?;
        let names = value["indices"].as_array().into_iter().flatten().filter_map(|index| index["name"].as_str());
        let oldest = today.saturating_sub(self.days);
        let is_old = |name: &&str| names::last_day(&self.prefix, name).is_some_and(|day| day < oldest);
        let old: Vec<String> = names.filter(is_old).map(str::to_owned).collect();
        for some in old.chunks(NAMES) {
            // Whole names without wildcards: nothing else can be hit.
            server.value(Method::DELETE, &format!("/{}?ignore_unavailable=true", some.join(",")), None).await?;
        }
        Ok(old)
    }
}
