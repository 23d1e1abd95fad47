//! Delivers the spool to every sink. Each sink has its own pace, so a sink that is down delays no other.
//!
//! [`scheduler`] decides (PURE), the worker acts. Each sink has one worker, which is woken when the spool's head
//! moves; nothing polls.

mod batch_reader;
mod dead_letters;
mod deliver;
mod deliver_parked;
mod delivery_size;
mod discard;
mod drop_oldest;
mod exclude;
mod park;
mod parked_queue;
mod poison;
mod replay;
pub(crate) mod scheduler;
mod unreadable;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use replay::{ReplayReport, Replayer};
pub(crate) use scheduler::DeliverySettings;

use crate::config::{Delivery, WhenFull};
use crate::sinks::{BackfillSource, EMBEDDED, Sink, SinkError};
use crate::spool::{Spool, SpoolError};
use crate::telemetry::Telemetry;
use batch_reader::BatchReader;
use drop_oldest::DropPolicy;
use worker::Worker;

/// Time that a start waits for stores to answer whether they are usable. Slower ones are checked later.
const STARTUP_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Converts an error of the spool to a transient one, which is retried like those of a store.
fn retryable(error: SpoolError) -> SinkError {
    SinkError::retryable(error.to_string())
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SpoolError::Other(error.to_string()))?
}

impl DeliverySettings {
    /// Converts the settings of a configured sink.
    #[must_use]
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            max_events: delivery.batch_events,
            max_bytes: delivery.batch_bytes,
            linger_ms: delivery.linger_ms,
            retry_initial_backoff_ms: delivery.retry_initial_backoff_ms,
            retry_max_backoff_ms: delivery.retry_max_backoff_ms,
            breaker_threshold: u32::try_from(delivery.breaker_threshold).unwrap_or(u32::MAX),
            advance_ms: 0,
            drops_oldest: delivery.when_full == WhenFull::DropOldest,
        }
    }
}

/// Reason why delivery could not start.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The position of a sink cannot be read.
    #[error("the sink {0}: {1}")]
    Sink(String, SinkError),
    /// The store has events beyond the spool's head.
    #[error(
        "the store of the sink {sink} has events up to position {store}, but the spool only up to {head}: they do not belong together; \
        was one of them restored or deleted?"
    )]
    PositionAhead {
        /// Name of the sink.
        sink: String,
        /// Position of the store.
        store: u64,
        /// Head of the spool.
        head: u64,
    },
    /// A task was aborted.
    #[error("{0}")]
    Task(String),
}

/// Progress of one sink, to be read and awaited.
#[derive(Clone)]
pub(crate) struct SinkProgress {
    name: String,
    delivered: watch::Receiver<u64>,
    parked: watch::Receiver<u64>,
    down: watch::Receiver<bool>,
    flush_target: watch::Sender<u64>,
    complete_from: watch::Receiver<Option<i64>>,
}

impl SinkProgress {
    /// Returns the sink's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the position up to which every event is in the store, discarded or parked.
    #[must_use]
    pub(crate) fn delivered_to(&self) -> u64 {
        *self.delivered.borrow()
    }

    /// Returns the number of parked events.
    #[must_use]
    pub(crate) fn parked(&self) -> u64 {
        *self.parked.borrow()
    }

    /// Returns a time before which all events arrived that the sink misses because they expired or were dropped,
    /// milliseconds since the epoch. `None` if it misses none.
    #[must_use]
    pub(crate) fn complete_from(&self) -> Option<i64> {
        *self.complete_from.borrow()
    }

    /// Returns whether the sink has failed so often that it counts as down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    /// Waits until the store has every event up to `position` except parked ones. Returns whether it has.
    ///
    /// Requests a flush. Waits at most for `timeout`, and not at all for a sink that is down.
    pub(crate) async fn wait_for(&self, position: u64, timeout: Duration) -> bool {
        let mut delivered = self.delivered.clone();
        if *delivered.borrow_and_update() >= position {
            return true;
        }
        if self.is_down() {
            return false;
        }
        self.flush_target.send_if_modified(|flush_target| {
            let more = position > *flush_target;
            *flush_target = position.max(*flush_target);
            more
        });
        matches!(tokio::time::timeout(timeout, delivered.wait_for(|at| *at >= position)).await, Ok(Ok(_)))
    }
}

/// Dependencies of the deliveries besides the spool and the sinks.
#[derive(Clone, Default)]
pub(crate) struct FanoutContext {
    /// Source of events that the spool no longer has, for a new sink.
    pub history: Option<Arc<dyn BackfillSource>>,
    /// Cap of the spool, bytes of JSON.
    pub spool_max_bytes: u64,
    /// Counters of deliveries.
    pub telemetry: Arc<Telemetry>,
}

/// Checks whether each store is usable, and returns the names of those that are. An unreachable store does not
/// prevent the start.
async fn check_sinks(sinks: &[(Arc<dyn Sink>, DeliverySettings)]) -> Result<HashSet<String>, FanoutError> {
    let (mut asked, mut usable) = (JoinSet::new(), HashSet::new());
    for (sink, _) in sinks {
        let sink = Arc::clone(sink);
        asked.spawn(async move {
            let answer = tokio::time::timeout(STARTUP_PROBE_TIMEOUT, sink.prepare()).await;
            (sink.name().to_owned(), answer.unwrap_or_else(|_| Err(SinkError::retryable("no answer in time"))))
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer.map_err(|error| FanoutError::Task(error.to_string()))? {
            (name, Ok(())) => drop(usable.insert(name)),
            (name, Err(error @ SinkError::Misconfigured { .. })) => return Err(FanoutError::Sink(name, error)),
            (sink, Err(error)) => {
                tracing::warn!(sink, %error, "the store cannot be reached; its events wait in the spool")
            }
        }
    }
    Ok(usable)
}

/// Running deliveries.
pub(crate) struct Fanout {
    progress: Vec<SinkProgress>,
    workers: JoinSet<()>,
    draining: watch::Sender<bool>,
}

impl Fanout {
    /// Registers the sinks with the spool and starts a worker for each.
    ///
    /// # Errors
    /// If the spool fails, a store is unusable, or a store belongs to another spool.
    pub(crate) async fn start(
        spool: &Spool,
        sinks: Vec<(Arc<dyn Sink>, DeliverySettings)>,
        context: FanoutContext,
    ) -> Result<Self, FanoutError> {
        let names: Vec<String> = sinks.iter().map(|(sink, _)| sink.name().to_owned()).collect();
        let registrar = spool.clone();
        let register = move || registrar.register(&names.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(register).await.map_err(|error| FanoutError::Task(error.to_string()))??;
        let usable = check_sinks(&sinks).await?;
        let (draining, _) = watch::channel(false);
        let mut fanout = Self { progress: Vec::new(), workers: JoinSet::new(), draining };
        let blocking_sinks: Vec<String> = sinks
            .iter()
            .filter(|(_, settings)| !settings.drops_oldest)
            .map(|(sink, _)| sink.name().to_owned())
            .collect();
        for (sink, settings) in sinks {
            let drop_policy = DropPolicy { others: blocking_sinks.clone(), cap: context.spool_max_bytes };
            let drop_policy = settings.drops_oldest.then_some(drop_policy);
            let watched = drop_policy.clone().filter(|_| sink.name() != EMBEDDED);
            if let Some(drop_policy) = watched {
                let watcher = drop_oldest::drop_when_full(spool.clone(), sink.name().to_owned(), drop_policy);
                let mut draining = fanout.draining.subscribe();
                fanout.workers.spawn(async move {
                    tokio::select! {
                        () = watcher => {}
                        _ = draining.wait_for(|draining| *draining) => {}
                    }
                });
            }
            let prepared = usable.contains(sink.name());
            let drop_policy = drop_policy.filter(|_| sink.name() == EMBEDDED);
            fanout.add(spool, sink, (settings, prepared, drop_policy), &context).await?;
        }
        Ok(fanout)
    }

    async fn add(
        &mut self,
        spool: &Spool,
        sink: Arc<dyn Sink>,
        (settings, prepared, drop_policy): (DeliverySettings, bool, Option<DropPolicy>),
        context: &FanoutContext,
    ) -> Result<(), FanoutError> {
        let (delivered_sender, delivered) = watch::channel(0);
        let (parked_sender, parked) = watch::channel(0);
        let (down_sender, down) = watch::channel(false);
        let (flush_target_sender, flush_target) = watch::channel(0);
        let name = sink.name().to_owned();
        let draining = self.draining.subscribe();
        let (complete_from_sender, complete_from) = watch::channel(None);
        // What the embedded store lacks it cannot get from itself.
        let history = context.history.clone().filter(|_| name != EMBEDDED);
        let reader = BatchReader { spool: spool.clone(), history };
        let channels = worker::WorkerChannels {
            delivered_sender,
            parked_sender,
            down_sender,
            flush_target,
            complete_from: complete_from_sender,
            draining,
        };
        let metrics = context.telemetry.sink(&name);
        let mut worker = Worker::new(reader, sink, (settings, prepared), channels, metrics).load().await?;
        worker.drop_policy = drop_policy;
        self.workers.spawn(worker.run());
        self.progress.push(SinkProgress {
            name,
            delivered,
            parked,
            down,
            flush_target: flush_target_sender,
            complete_from,
        });
        Ok(())
    }

    /// Returns the progress of every sink.
    #[must_use]
    pub(crate) fn progress(&self) -> &[SinkProgress] {
        &self.progress
    }

    /// Returns the progress of the embedded store.
    #[must_use]
    pub(crate) fn embedded(&self) -> Option<SinkProgress> {
        self.progress.iter().find(|progress| progress.name == EMBEDDED).cloned()
    }

    /// Delivers pending events as long as the sinks take them at once, then ends the workers. Aborts them after
    /// `timeout`. Undelivered events stay in the spool.
    pub(crate) async fn drain(mut self, timeout: Duration) {
        self.draining.send_replace(true);
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, all).await.is_err() {
            tracing::warn!("some sinks did not finish in time; what they lack stays in the spool");
            self.workers.shutdown().await;
        }
    }
}

#[cfg(test)]
mod drop_oldest_tests;
#[cfg(test)]
mod expired_tests;
#[cfg(test)]
mod parked_tests;
#[cfg(test)]
mod poison_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unreadable_tests;
