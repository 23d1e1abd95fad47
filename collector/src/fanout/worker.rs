//! Task of one sink: reads the spool, freezes, delivers, advances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batch_reader::BatchReader;
use super::drop_oldest::DropPolicy;
use super::parked_queue::ParkedQueue;
use super::scheduler::{Action, DeliverySettings, Scheduler, SinkPosition};
use super::{FanoutError, blocking};
use crate::sinks::{Sink, SinkError};
use crate::spool::{Cursor, SpoolError};
use crate::telemetry::SinkMetrics;

/// Delay between the first record that can be trimmed and the trim, milliseconds, so that one commit trims many.
pub(super) const TRIM_DELAY_MS: u64 = 1000;

/// Interval of attempts to drop events while the spool stays too full, milliseconds.
const DROP_RETRY_MS: u64 = super::drop_oldest::RETRY_INTERVAL.as_millis() as u64;

/// Delay after a delivery failed because the spool cannot be written, milliseconds. Such a fault ends by itself, and
/// delivery must continue within seconds.
pub(super) const SPOOL_RETRY_MS: u64 = 1000;

/// Channels between a worker and its users.
pub(super) struct WorkerChannels {
    pub(super) delivered_sender: watch::Sender<u64>,
    pub(super) parked_sender: watch::Sender<u64>,
    pub(super) down_sender: watch::Sender<bool>,
    pub(super) flush_target: watch::Receiver<u64>,
    pub(super) complete_from: watch::Sender<Option<i64>>,
    pub(super) draining: watch::Receiver<bool>,
}

pub(super) struct Worker {
    pub(super) reader: BatchReader,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) name: String,
    pub(super) scheduler: Scheduler,
    /// Cursor of the sink. The spool's own cursor may lag behind it for a sink that tracks its position.
    pub(super) cursor: Cursor,
    /// Position of the spool's cursor.
    pub(super) advanced_to: u64,
    pub(super) tracks_position: bool,
    /// End of the events that the store of a sink that tracks its position has to skip.
    pub(super) skip_to: Option<u64>,
    /// Condition under which a sink that tracks its position drops its oldest events. Other sinks are watched by a
    /// task of their own.
    pub(super) drop_policy: Option<DropPolicy>,
    /// Events in the next batch: the limit of the settings, or less after the store found a batch too large.
    pub(super) max_events: u64,
    /// Whether the store took a part of the batch that is being bisected.
    pub(super) evidence: bool,
    /// State of the parked events.
    pub(super) parked_queue: ParkedQueue,
    /// Number of events that the store took since the start.
    pub(super) taken: u64,
    /// Whether the store was found usable since it was last down.
    pub(super) prepared: bool,
    pub(super) advance_due: Option<u64>,
    pub(super) trim_due: Option<u64>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) channels: WorkerChannels,
    pub(super) metrics: SinkMetrics,
    began: Instant,
}

impl Worker {
    /// Creates a worker. `prepared` says that the store was just found usable.
    pub(super) fn new(
        reader: BatchReader,
        sink: Arc<dyn Sink>,
        (settings, prepared): (DeliverySettings, bool),
        channels: WorkerChannels,
        metrics: SinkMetrics,
    ) -> Self {
        Self {
            name: sink.name().to_owned(),
            max_events: settings.max_events,
            parked_queue: ParkedQueue::new(&settings),
            taken: 0,
            scheduler: Scheduler::new(settings),
            cursor: Cursor::default(),
            advanced_to: 0,
            tracks_position: false,
            skip_to: None,
            drop_policy: None,
            evidence: false,
            prepared,
            advance_due: None,
            trim_due: None,
            head: reader.spool.watch_head(),
            channels,
            metrics,
            began: Instant::now(),
            reader,
            sink,
        }
    }

    /// Loads the position of the sink.
    pub(super) async fn load(mut self) -> Result<Self, FanoutError> {
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        let (cursor, parked) = blocking(move || Ok((spool.cursor(&name)?, spool.parked_quota(&name)?))).await?;
        (self.cursor, self.parked_queue.events) = (cursor, parked.events());
        self.channels.parked_sender.send_replace(self.parked_queue.events);
        self.advanced_to = self.cursor.delivered_to;
        self.channels.complete_from.send_replace(self.cursor.complete_from);
        let position = self.sink.position().await.map_err(|error| FanoutError::Sink(self.name.clone(), error))?;
        if let Some(position) = position {
            let head = self.reader.spool.head();
            if position > head {
                return Err(FanoutError::PositionAhead { sink: self.name, store: position, head });
            }
            if position < self.cursor.delivered_to {
                tracing::error!(
                    sink = self.name,
                    store = position,
                    spool = self.cursor.delivered_to,
                    "the store has lost events that it had; those still in the spool are delivered again"
                );
            }
            self.tracks_position = true;
            let Cursor { discarded, dropped_to, complete_from, .. } = self.cursor;
            // What was dropped before the store could be told.
            self.skip_to = dropped_to;
            self.cursor = Cursor { delivered_to: position, discarded, complete_from, ..Cursor::default() };
            self.advance_due = Some(0);
        }
        self.trim_due = Some(0);
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
        Ok(self)
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Delivers until the drain begins and the sink takes no more.
    pub(super) async fn run(mut self) {
        loop {
            self.run_due_maintenance(self.now()).await;
            let head = *self.head.borrow_and_update();
            let draining = *self.channels.draining.borrow_and_update();
            let flush_target = *self.channels.flush_target.borrow_and_update() > self.cursor.delivered_to;
            // The rest of a batch that was cut has waited already.
            let flush_requested = draining || flush_target || self.cursor.bisect_to.is_some();
            if self.skip_to.is_some() {
                // Nothing is delivered that was given up.
                match self.scheduler.backoff_until(self.now()) {
                    None => self.skip().await,
                    Some(_) if draining => break,
                    pause => self.sleep(pause).await,
                }
                self.publish_health();
                continue;
            }
            let position =
                SinkPosition { delivered_to: self.cursor.delivered_to, frozen: self.cursor.frozen.is_some(), head };
            let step = self.scheduler.next(self.now(), position, flush_requested);
            let (log_pending, log_idle) = (step != Action::Idle, matches!(step, Action::Idle | Action::WaitUntil(_)));
            let parked_due = |worker: &Self| !draining && worker.parked_queue.is_due(worker.now(), log_pending);
            match step {
                Action::Idle | Action::WaitUntil(_) | Action::CheckHealth if draining => break,
                Action::SendNext | Action::Resend if !self.prepared => self.prepare().await,
                Action::Idle | Action::WaitUntil(_) if parked_due(&self) => self.deliver_parked().await,
                Action::Idle => self.sleep(self.parked_queue.due(self.now(), false)).await,
                Action::WaitUntil(time) => {
                    let parked = self.parked_queue.due(self.now(), true);
                    self.sleep(Some(parked.map_or(time, |due| due.min(time)))).await;
                }
                Action::SendNext => self.deliver_next().await,
                Action::Resend => self.resend().await,
                Action::CheckHealth => self.probe().await,
            }
            if !log_idle && parked_due(&self) {
                self.deliver_parked().await;
            }
            self.publish_health();
        }
        self.run_due_maintenance(u64::MAX).await;
    }

    /// Publishes whether the sink is down.
    fn publish_health(&mut self) {
        let is_down = self.scheduler.is_down();
        // After an outage the store may be another one.
        self.prepared &= !is_down;
        self.metrics.up.set(i64::from(!is_down));
        self.channels.down_sender.send_if_modified(|down| std::mem::replace(down, is_down) != is_down);
    }

    /// Sleeps until `time`, until maintenance is due, or until something changes.
    async fn sleep(&mut self, time: Option<u64>) {
        let shed_due = self.drop_policy.as_ref().filter(|drop_policy| drop_policy.is_due(&self.reader.spool));
        let shed_due = shed_due.map(|_| self.now() + DROP_RETRY_MS);
        let wake = [time, self.advance_due, self.trim_due, shed_due].into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(time) => tokio::time::sleep_until((self.began + Duration::from_millis(time)).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            // The spool outlives its workers; if it does not, there is nothing left to do but to wait for the drain.
            Ok(()) = self.head.changed() => {}
            Ok(()) = self.channels.flush_target.changed() => {}
            Ok(()) = self.channels.draining.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Runs the maintenance that is due at `now`: advances the spool's cursor, drops events and trims the spool.
    async fn run_due_maintenance(&mut self, now: u64) {
        if self.advance_due.is_some_and(|due| due <= now) {
            self.advance_due = None;
            if let Err(error) = self.advance_spool().await {
                tracing::warn!(sink = self.name, %error, "the cursor could not be advanced; it will be again");
                self.advance_due = Some(self.now() + self.scheduler.settings().retry_max_backoff_ms);
            }
        }
        if let Some(drop_policy) = self.drop_policy.clone().filter(|drop_policy| drop_policy.is_due(&self.reader.spool))
        {
            self.drop_oldest(&drop_policy).await;
        }
        let spool = self.reader.spool.clone();
        if self.trim_due.is_some_and(|due| due <= now) {
            self.trim_due = None;
            if let Err(error) = blocking(move || spool.trim()).await {
                tracing::warn!(sink = self.name, %error, "the spool could not be trimmed; it will be tried again");
                self.trim_due = Some(self.now() + self.scheduler.settings().retry_max_backoff_ms);
            }
        }
    }

    /// Advances the spool's cursor for a sink that tracks its position.
    pub(super) async fn advance_spool(&mut self) -> Result<(), SpoolError> {
        let (spool, name, to) = (self.reader.spool.clone(), self.name.clone(), self.cursor.delivered_to);
        if self.tracks_position && self.skip_to.is_none() && to > self.advanced_to {
            blocking(move || spool.advance(&name, to, Vec::new(), false)).await?;
            self.advanced_to = to;
            self.trim_due.get_or_insert(self.now() + TRIM_DELAY_MS);
        }
        Ok(())
    }

    async fn probe(&mut self) {
        match self.sink.health().await {
            Ok(()) => self.scheduler.probe_succeeded(),
            Err(error) => self.failed(&error),
        }
    }

    async fn prepare(&mut self) {
        match self.sink.prepare().await {
            Ok(()) => self.prepared = true,
            Err(error) => self.failed(&error),
        }
    }

    /// Returns the least delay after an error, milliseconds. Permanent errors are retried rarely.
    pub(super) fn min_retry_delay(&self, error: &SinkError) -> Option<u64> {
        match error {
            SinkError::Retryable { after_ms, .. } => *after_ms,
            _ => Some(self.scheduler.settings().retry_max_backoff_ms),
        }
    }

    /// Schedules the next attempt after a failure in which nothing was taken.
    pub(super) fn failed(&mut self, error: &SinkError) {
        if self.reader.spool.health().is_err() {
            self.scheduler.local_failure(self.now(), SPOOL_RETRY_MS);
            return tracing::warn!(sink = self.name, %error, "a delivery failed while the spool cannot be written");
        }
        let pause_ms = self.scheduler.failed(self.now(), self.min_retry_delay(error), random());
        if matches!(error, SinkError::Retryable { .. }) {
            // The store has no time for what is parked either.
            self.parked_queue.scheduler.local_failure(self.now(), pause_ms);
        }
        self.metrics.delivery_errors.inc();
        tracing::warn!(sink = self.name, %error, pause_ms, position = self.cursor.delivered_to, "a delivery failed");
    }
}

/// Returns a number in `0.0..1.0`, or 1.0 if the system has no randomness, which only lengthens a delay.
pub(super) fn random() -> f64 {
    getrandom::u32().map_or(1.0, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}
