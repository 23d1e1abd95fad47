//! Delivers the spool to every sink, each at its own pace: a dead sink delays no other.
//!
//! [`plan`] decides (PURE), the worker does. Each sink has one worker, woken by the spool's head; nothing polls.

mod deliver;
mod give_up;
mod letters;
pub(crate) mod plan;
mod poison;
mod replay;
mod shed;
mod size;
mod source;
mod unreadable;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use plan::Settings;
pub(crate) use replay::{Replayed, Replayer};

use crate::config::{Delivery, WhenFull};
use crate::sinks::{EMBEDDED, History, Sink, SinkError};
use crate::spool::{Spool, SpoolError};
use crate::telemetry::Telemetry;
use shed::Shedding;
use source::Source;
use worker::Worker;

/// How long a start waits for stores to answer whether they can be used. One that is slower is found out later.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SpoolError::Io(error.to_string()))?
}

impl Settings {
    /// For a configured sink.
    #[must_use]
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            max_events: delivery.batch_events,
            max_bytes: delivery.batch_bytes,
            linger_ms: delivery.linger_ms,
            backoff_ms: delivery.retry_initial_backoff_ms,
            backoff_cap_ms: delivery.retry_max_backoff_ms,
            breaker_failures: u32::try_from(delivery.breaker_threshold).unwrap_or(u32::MAX),
            advance_ms: 0,
            sheds: delivery.when_full == WhenFull::DropOldest,
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
pub(crate) struct Progress {
    name: String,
    delivered: watch::Receiver<u64>,
    down: watch::Receiver<bool>,
    wanted: watch::Sender<u64>,
    complete_from: watch::Receiver<Option<i64>>,
}

impl Progress {
    /// The sink's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Every event up to this position is in the store, or dead.
    #[must_use]
    pub(crate) fn delivered_to(&self) -> u64 {
        *self.delivered.borrow()
    }

    /// What the sink never got, because it was gone before or was given up, arrived before this time, milliseconds since the
    /// epoch; `None`: it gets everything.
    #[must_use]
    pub(crate) fn complete_from(&self) -> Option<i64> {
        *self.complete_from.borrow()
    }

    /// Whether the sink has failed so often that it counts as down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    /// Waits until the store has every event up to `position`, at most for `patience`, and not at all for a sink that is
    /// down. The sink hurries for it. Returns whether it has.
    pub(crate) async fn wait_for(&self, position: u64, patience: Duration) -> bool {
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

/// What deliveries need besides the spool and the sinks.
#[derive(Clone, Default)]
pub(crate) struct Surroundings {
    /// Where events are that the spool no longer has: for a sink that is new.
    pub history: Option<Arc<dyn History>>,
    /// The cap of the spool, bytes of JSON.
    pub spool_bytes: u64,
    /// Where deliveries are counted.
    pub telemetry: Arc<Telemetry>,
}

/// Asks every store whether it can be used; gives the names of those that can. One that cannot be reached now is no reason
/// not to begin.
async fn refuse_unfit(sinks: &[(Arc<dyn Sink>, Settings)]) -> Result<HashSet<String>, FanoutError> {
    let (mut asked, mut fit) = (JoinSet::new(), HashSet::new());
    for (sink, _) in sinks {
        let sink = Arc::clone(sink);
        asked.spawn(async move {
            let answer = tokio::time::timeout(FIRST_CONTACT, sink.prepare()).await;
            (sink.name().to_owned(), answer.unwrap_or_else(|_| Err(SinkError::retryable("no answer in time"))))
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer.map_err(|error| FanoutError::Task(error.to_string()))? {
            (name, Ok(())) => drop(fit.insert(name)),
            (name, Err(error @ SinkError::Unfit { .. })) => return Err(FanoutError::Sink(name, error)),
            (sink, Err(error)) => {
                tracing::warn!(sink, %error, "the store cannot be reached; its events wait in the spool")
            }
        }
    }
    Ok(fit)
}

/// The running deliveries.
pub(crate) struct Fanout {
    progress: Vec<Progress>,
    workers: JoinSet<()>,
    draining: watch::Sender<bool>,
}

impl Fanout {
    /// Registers the sinks with the spool and starts a worker for each.
    ///
    /// # Errors
    /// If the spool fails, a store answers that it cannot be used, or is not the spool's.
    pub(crate) async fn start(
        spool: &Spool,
        sinks: Vec<(Arc<dyn Sink>, Settings)>,
        surroundings: Surroundings,
    ) -> Result<Self, FanoutError> {
        let names: Vec<String> = sinks.iter().map(|(sink, _)| sink.name().to_owned()).collect();
        let registrar = spool.clone();
        let register = move || registrar.register(&names.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(register).await.map_err(|error| FanoutError::Task(error.to_string()))??;
        let fit = refuse_unfit(&sinks).await?;
        let (draining, _) = watch::channel(false);
        let mut fanout = Self { progress: Vec::new(), workers: JoinSet::new(), draining };
        let patient: Vec<String> =
            sinks.iter().filter(|(_, settings)| !settings.sheds).map(|(sink, _)| sink.name().to_owned()).collect();
        for (sink, settings) in sinks {
            let shedding = Shedding { others: patient.clone(), cap: surroundings.spool_bytes };
            let shedding = settings.sheds.then_some(shedding);
            let watched = shedding.clone().filter(|_| sink.name() != EMBEDDED);
            if let Some(shedding) = watched {
                let shed = shed::when_full(spool.clone(), sink.name().to_owned(), shedding);
                let mut draining = fanout.draining.subscribe();
                fanout.workers.spawn(async move {
                    tokio::select! {
                        () = shed => {}
                        _ = draining.wait_for(|draining| *draining) => {}
                    }
                });
            }
            let prepared = fit.contains(sink.name());
            let shedding = shedding.filter(|_| sink.name() == EMBEDDED);
            fanout.add(spool, sink, (settings, prepared, shedding), &surroundings).await?;
        }
        Ok(fanout)
    }

    async fn add(
        &mut self,
        spool: &Spool,
        sink: Arc<dyn Sink>,
        (settings, prepared, shedding): (Settings, bool, Option<Shedding>),
        surroundings: &Surroundings,
    ) -> Result<(), FanoutError> {
        let (delivered_sender, delivered) = watch::channel(0);
        let (down_sender, down) = watch::channel(false);
        let (wanted, wanted_receiver) = watch::channel(0);
        let name = sink.name().to_owned();
        let draining = self.draining.subscribe();
        let (complete_from_sender, complete_from) = watch::channel(None);
        // What the embedded store lacks it cannot get from itself.
        let history = surroundings.history.clone().filter(|_| name != EMBEDDED);
        let source = Source { spool: spool.clone(), history };
        let channels = worker::Channels {
            delivered_sender,
            down_sender,
            wanted_receiver,
            complete_from: complete_from_sender,
            draining,
        };
        let metrics = surroundings.telemetry.sink(&name);
        let mut worker = Worker::new(source, sink, (settings, prepared), channels, metrics).open().await?;
        worker.shedding = shedding;
        self.workers.spawn(worker.run());
        self.progress.push(Progress { name, delivered, down, wanted, complete_from });
        Ok(())
    }

    /// How far every sink is.
    #[must_use]
    pub(crate) fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// How far the embedded store is.
    #[must_use]
    pub(crate) fn embedded(&self) -> Option<Progress> {
        self.progress.iter().find(|progress| progress.name == EMBEDDED).cloned()
    }

    /// Delivers what waits, as far as the sinks take it at once, and ends the workers; after `patience` it ends them
    /// wherever they are. What was not delivered stays in the spool.
    pub(crate) async fn drain(mut self, patience: Duration) {
        self.draining.send_replace(true);
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some sinks did not finish in time; what they lack stays in the spool");
            self.workers.shutdown().await;
        }
    }
}

#[cfg(test)]
mod expired_tests;
#[cfg(test)]
mod poison_tests;
#[cfg(test)]
mod shed_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unreadable_tests;
