//! Delivers the spool to every sink, each at its own pace: a dead sink delays no other.
//!
//! [`plan`] decides (PURE), the worker does. Each sink has one worker, woken by the spool's head; nothing polls.

pub mod plan;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use plan::Settings;

use crate::config::Delivery;
use crate::sinks::{EMBEDDED, Sink, SinkError};
use crate::spool::{Spool, SpoolError};
use worker::Worker;

impl Settings {
    /// For a configured sink.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            max_events: delivery.batch_events,
            max_bytes: delivery.batch_bytes,
            linger_ms: delivery.linger_ms,
            backoff_ms: delivery.backoff_ms,
            backoff_cap_ms: delivery.backoff_cap_ms,
            breaker_failures: u32::try_from(delivery.breaker_failures).unwrap_or(u32::MAX),
            advance_ms: 0,
        }
    }
}

/// Why delivery could not begin.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The spool fails.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A sink cannot be asked how far it is.
    #[error("the sink {0}: {1}")]
    Sink(String, SinkError),
    /// A store remembers more events than the spool ever had.
    #[error(
        "the store of the sink {sink} has events up to position {store}, but the spool only up to {head}: they do not belong together; \
        was one of them restored or deleted?"
    )]
    Foreign {
        /// Which sink.
        sink: String,
        /// The store's position.
        store: u64,
        /// The spool's head.
        head: u64,
    },
    /// A task was ended from outside.
    #[error("{0}")]
    Task(String),
}

/// How far one sink is, to be looked at and waited for.
#[derive(Clone)]
pub struct Progress {
    name: String,
    delivered: watch::Receiver<u64>,
    down: watch::Receiver<bool>,
    wanted: watch::Sender<u64>,
}

impl Progress {
    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every event up to this position is in the store, or dead.
    #[must_use]
    pub fn delivered_to(&self) -> u64 {
        *self.delivered.borrow()
    }

    /// Whether the sink has failed so often that it counts as down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    /// Waits until the store has every event up to `position`, at most for `patience`, and not at all for a sink that is
    /// down. The sink hurries for it. Returns whether it has.
    pub async fn wait_for(&self, position: u64, patience: Duration) -> bool {
        let mut delivered = self.delivered.clone();
        if *delivered.borrow_and_update() >= position {
            return true;
        }
        if self.is_down() {
            return false;
        }
        self.wanted.send_if_modified(|wanted| {
            let more = position > *wanted;
            *wanted = position.max(*wanted);
            more
        });
        matches!(tokio::time::timeout(patience, delivered.wait_for(|at| *at >= position)).await, Ok(Ok(_)))
    }
}

/// The running deliveries.
pub struct Fanout {
    progress: Vec<Progress>,
    workers: JoinSet<()>,
    draining: watch::Sender<bool>,
}

impl Fanout {
    /// Registers the sinks with the spool and starts a worker for each.
    ///
    /// # Errors
    /// If the spool fails, a sink is new when the spool no longer has everything, or a store is not the spool's.
    pub async fn start(spool: &Spool, sinks: Vec<(Arc<dyn Sink>, Settings)>) -> Result<Self, FanoutError> {
        let names: Vec<String> = sinks.iter().map(|(sink, _)| sink.name().to_owned()).collect();
        let registrar = spool.clone();
        let register = move || registrar.register(&names.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(register).await.map_err(|error| FanoutError::Task(error.to_string()))??;
        let (draining, _) = watch::channel(false);
        let mut fanout = Self { progress: Vec::new(), workers: JoinSet::new(), draining };
        for (sink, settings) in sinks {
            let (delivered_sender, delivered) = watch::channel(0);
            let (down_sender, down) = watch::channel(false);
            let (wanted, wanted_receiver) = watch::channel(0);
            let name = sink.name().to_owned();
            let draining = fanout.draining.subscribe();
            let worker = Worker::new(
                spool.clone(),
                sink,
                settings,
                worker::Channels { delivered_sender, down_sender, wanted_receiver, draining },
            );
            let worker = worker.prepare().await?;
            fanout.workers.spawn(worker.run());
            fanout.progress.push(Progress { name, delivered, down, wanted });
        }
        Ok(fanout)
    }

    /// How far every sink is.
    #[must_use]
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// How far the embedded store is.
    #[must_use]
    pub fn embedded(&self) -> Option<Progress> {
        self.progress.iter().find(|progress| progress.name == EMBEDDED).cloned()
    }

    /// Delivers what waits, as far as the sinks take it at once, and ends the workers; after `patience` it ends them
    /// wherever they are. What was not delivered stays in the spool.
    pub async fn drain(mut self, patience: Duration) {
        self.draining.send_replace(true);
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some sinks did not finish in time; what they lack stays in the spool");
            self.workers.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests;
