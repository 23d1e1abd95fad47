//! One sink's task: reads the spool, freezes, delivers, advances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::FanoutError;
use super::plan::{Place, Plan, Settings, Step, bounds};
use crate::row::Row;
use crate::sinks::{Delivered, Refusal, Sink, SinkBatch, SinkError, StoredRecord, Unreadable};
use crate::spool::{Cursor, DeadLetter, Frozen, Spool, SpoolError};

/// Time between the first record that the spool could forget and the moment when it is told to, milliseconds: many are
/// forgotten in one commit.
const TRIM_MS: u64 = 1000;

/// How a worker talks to the outside.
pub(super) struct Channels {
    pub(super) delivered_sender: watch::Sender<u64>,
    pub(super) down_sender: watch::Sender<bool>,
    pub(super) wanted_receiver: watch::Receiver<u64>,
    pub(super) draining: watch::Receiver<bool>,
}

pub(super) struct Worker {
    spool: Spool,
    sink: Arc<dyn Sink>,
    name: String,
    plan: Plan,
    /// How far the sink is. The spool's own cursor may lag behind for a sink that remembers its position.
    cursor: Cursor,
    /// How far the spool's cursor is.
    advanced_to: u64,
    remembers: bool,
    advance_due: Option<u64>,
    trim_due: Option<u64>,
    head: watch::Receiver<u64>,
    channels: Channels,
    began: Instant,
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SpoolError::Io(error.to_string()))?
}

impl Worker {
    pub(super) fn new(spool: Spool, sink: Arc<dyn Sink>, settings: Settings, channels: Channels) -> Self {
        Self {
            name: sink.name().to_owned(),
            plan: Plan::new(settings),
            cursor: Cursor::default(),
            advanced_to: 0,
            remembers: false,
            advance_due: None,
            trim_due: None,
            head: spool.watch_head(),
            channels,
            began: Instant::now(),
            spool,
            sink,
        }
    }

    /// Learns how far the sink is.
    pub(super) async fn prepare(mut self) -> Result<Self, FanoutError> {
        let (spool, name) = (self.spool.clone(), self.name.clone());
        self.cursor = blocking(move || spool.cursor(&name)).await?;
        self.advanced_to = self.cursor.delivered_to;
        let position = self.sink.position().await.map_err(|error| FanoutError::Sink(self.name.clone(), error))?;
        if let Some(position) = position {
            let head = self.spool.head();
            if position > head {
                return Err(FanoutError::Foreign { sink: self.name, store: position, head });
            }
            if position < self.cursor.delivered_to {
                tracing::error!(
                    sink = self.name,
                    store = position,
                    spool = self.cursor.delivered_to,
                    "the store has lost events that it had; those still in the spool are delivered again"
                );
            }
            self.remembers = true;
            self.cursor = Cursor { delivered_to: position, dead: self.cursor.dead, frozen: None };
            self.advance_due = Some(0);
        }
        self.trim_due = Some(0);
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
        Ok(self)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Works until told to drain and nothing is left that the sink takes.
    pub(super) async fn run(mut self) {
        loop {
            self.upkeep(self.now()).await;
            let head = *self.head.borrow_and_update();
            let draining = *self.channels.draining.borrow_and_update();
            let hurry = draining || *self.channels.wanted_receiver.borrow_and_update() > self.cursor.delivered_to;
            let place = Place { delivered_to: self.cursor.delivered_to, frozen: self.cursor.frozen.is_some(), head };
            match self.plan.next(self.now(), place, hurry) {
                Step::Idle | Step::WaitUntil(_) | Step::Probe if draining => break,
                Step::Idle => self.sleep(None).await,
                Step::WaitUntil(time) => self.sleep(Some(time)).await,
                Step::Next => self.deliver_next().await,
                Step::Again => self.deliver_again().await,
                Step::Probe => self.probe().await,
            }
            self.channels
                .down_sender
                .send_if_modified(|down| std::mem::replace(down, self.plan.is_down()) != self.plan.is_down());
        }
        self.upkeep(u64::MAX).await;
    }

    /// Sleeps until `time`, until upkeep is due, or until something changes.
    async fn sleep(&mut self, time: Option<u64>) {
        let wake = [time, self.advance_due, self.trim_due].into_iter().flatten().min();
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
            Ok(()) = self.channels.wanted_receiver.changed() => {}
            Ok(()) = self.channels.draining.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Does what is due at `now`: tells the spool how far the sink is, and to forget what no sink needs.
    async fn upkeep(&mut self, now: u64) {
        let spool = self.spool.clone();
        if self.advance_due.is_some_and(|due| due <= now) {
            self.advance_due = None;
            let (name, to) = (self.name.clone(), self.cursor.delivered_to);
            if to > self.advanced_to {
                match blocking(move || spool.advance(&name, to, Vec::new())).await {
                    Ok(()) => {
                        self.advanced_to = to;
                        self.trim_due.get_or_insert(self.now() + TRIM_MS);
                    }
                    Err(error) => {
                        tracing::warn!(sink = self.name, %error, "the cursor could not be advanced; it will be again");
                        self.advance_due = Some(self.now() + self.plan.settings().backoff_cap_ms);
                    }
                }
            }
        }
        let spool = self.spool.clone();
        if self.trim_due.is_some_and(|due| due <= now) {
            self.trim_due = None;
            if let Err(error) = blocking(move || spool.trim()).await {
                tracing::warn!(sink = self.name, %error, "the spool could not be trimmed; it will be after the next delivery");
            }
        }
    }

    async fn deliver_next(&mut self) {
        let after = self.cursor.delivered_to;
        let (max_events, max_bytes) = (self.plan.settings().max_events, self.plan.settings().max_bytes);
        let (spool, name, remembers) = (self.spool.clone(), self.name.clone(), self.remembers);
        let prepared = blocking(move || {
            let records = spool.read_after(after, max_events, max_bytes)?;
            let Some((first, last)) = bounds(after, records.iter().map(|record| (record.first, record.events))) else {
                return Ok(None);
            };
            let token = if remembers { format!("{first}-{last}") } else { spool.freeze(&name, first, last)?.token };
            let records =
                records.into_iter().map(|stored| StoredRecord { first: stored.first, json: stored.json }).collect();
            Ok(Some(SinkBatch { first, last, token, records }))
        });
        match prepared.await {
            Ok(Some(batch)) => {
                if !self.remembers {
                    self.cursor.frozen =
                        Some(Frozen { first: batch.first, last: batch.last, token: batch.token.clone() });
                }
                self.deliver(batch).await;
            }
            Ok(None) => self.failed(&SinkError::retryable("the spool has no record where its head says there is one")),
            Err(error) => self.failed(&SinkError::retryable(error.to_string())),
        }
    }

    async fn deliver_again(&mut self) {
        let Some(frozen) = self.cursor.frozen.clone() else { return };
        let spool = self.spool.clone();
        let (first, last) = (frozen.first, frozen.last);
        let records = blocking(move || {
            let mut records = spool.read_after(first - 1, last - first + 1, u64::MAX)?;
            records.retain(|record| record.first <= last);
            Ok(records.into_iter().map(|stored| StoredRecord { first: stored.first, json: stored.json }).collect())
        });
        match records.await {
            Ok(records) => self.deliver(SinkBatch { first, last, token: frozen.token, records }).await,
            Err(error) => self.failed(&SinkError::retryable(error.to_string())),
        }
    }

    async fn deliver(&mut self, batch: SinkBatch) {
        let batch = Arc::new(batch);
        let (sink, sent) = (Arc::clone(&self.sink), Arc::clone(&batch));
        // In a task of its own, so that a sink that panics is a sink that failed.
        let result = tokio::spawn(async move { sink.deliver(sent).await }).await;
        match result.unwrap_or_else(|error| Err(SinkError::retryable(error.to_string()))) {
            Ok(delivered) => self.delivered(&batch, delivered).await,
            Err(error) => self.failed(&error),
        }
    }

    async fn delivered(&mut self, batch: &SinkBatch, delivered: Delivered) {
        if !self.remembers {
            let advanced = match dead_letters(&self.name, batch, delivered.refused) {
                Ok(letters) => {
                    let (spool, name, last) = (self.spool.clone(), self.name.clone(), batch.last);
                    blocking(move || spool.advance(&name, last, letters)).await.map_err(|error| error.to_string())
                }
                Err(unreadable) => Err(unreadable.why),
            };
            if let Err(error) = advanced {
                // The batch stays frozen: it is sent again, and the store recognises it.
                return self.failed(&SinkError::retryable(error));
            }
            self.advanced_to = batch.last;
            self.trim_due.get_or_insert(self.now() + TRIM_MS);
        } else {
            // The commit that this costs is in nobody's way when nothing else waits.
            let caught_up = batch.last >= *self.head.borrow();
            let wait = if caught_up { 0 } else { self.plan.settings().advance_ms };
            let due = self.now() + wait;
            self.advance_due = Some(self.advance_due.map_or(due, |earlier| earlier.min(due)));
        }
        (self.cursor.delivered_to, self.cursor.frozen) = (batch.last, None);
        self.plan.succeeded();
        self.channels.delivered_sender.send_replace(batch.last);
    }

    async fn probe(&mut self) {
        match self.sink.health().await {
            Ok(()) => self.plan.found_well(),
            Err(error) => self.failed(&error),
        }
    }

    /// A refused batch is kept and tried again like one that failed: an event is never given up because of its
    /// neighbours. Finding the one event that the store refuses is the plan's next step to come.
    fn failed(&mut self, error: &SinkError) {
        let asked = match error {
            SinkError::Retryable { after_ms, .. } => *after_ms,
            _ => Some(self.plan.settings().backoff_cap_ms),
        };
        let pause_ms = self.plan.failed(self.now(), asked, random());
        tracing::warn!(sink = self.name, %error, pause_ms, position = self.cursor.delivered_to, "a delivery failed");
    }
}

/// A number in `0.0..1.0`. Without the system's randomness the whole pause is taken, which only costs time.
fn random() -> f64 {
    getrandom::u32().map_or(1.0, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}

/// The dead letters for the events of `batch` that the store refused.
fn dead_letters(sink: &str, batch: &SinkBatch, refused: Vec<Refusal>) -> Result<Vec<DeadLetter>, Unreadable> {
    let mut letters = Vec::new();
    if refused.is_empty() {
        return Ok(letters);
    }
    batch.for_each_record(|record, first, events| {
        for (position, event) in (first..).zip(events) {
            let Some(refusal) = refused.iter().find(|refusal| refusal.position == position) else { continue };
            let event_json = serde_json::to_string(&Row::new(record, event))
                .map_err(|error| Unreadable { first, why: error.to_string() })?;
            letters.push(DeadLetter {
                sink: sink.to_owned(),
                position,
                app_key: record.app_key.to_string(),
                event_id: event.event_id.to_string(),
                reason: refusal.reason.clone(),
                dead_at: crate::clock::now(),
                event: event_json,
            });
        }
        Ok::<(), Unreadable>(())
    })?;
    Ok(letters)
}
