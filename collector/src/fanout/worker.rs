//! One sink's task: reads the spool, freezes, delivers, advances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::parking::Parking;
use super::plan::{Place, Plan, Settings, Step};
use super::shed::Shedding;
use super::source::Source;
use super::{FanoutError, blocking};
use crate::sinks::{Sink, SinkError};
use crate::spool::{Cursor, SpoolError};
use crate::telemetry::SinkMetrics;

/// Time between the first record that the spool could forget and the moment when it is told to, milliseconds: many are
/// forgotten in one commit.
pub(super) const TRIM_MS: u64 = 1000;

/// Time between two attempts to shed while the spool stays too full, milliseconds.
const SHED_MS: u64 = super::shed::AGAIN.as_millis() as u64;

/// The pause after a delivery failed because the spool cannot be written, milliseconds. It ends by itself; what waits is to
/// go on within seconds.
pub(super) const OWN_DISK_MS: u64 = 1000;

/// How a worker talks to the outside.
pub(super) struct Channels {
    pub(super) delivered_sender: watch::Sender<u64>,
    pub(super) parked_sender: watch::Sender<u64>,
    pub(super) down_sender: watch::Sender<bool>,
    pub(super) wanted_receiver: watch::Receiver<u64>,
    pub(super) complete_from: watch::Sender<Option<i64>>,
    pub(super) draining: watch::Receiver<bool>,
}

pub(super) struct Worker {
    pub(super) source: Source,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) name: String,
    pub(super) plan: Plan,
    /// How far the sink is. The spool's own cursor may lag behind for a sink that remembers its position.
    pub(super) cursor: Cursor,
    /// How far the spool's cursor is.
    pub(super) advanced_to: u64,
    pub(super) remembers: bool,
    /// The store of a sink that remembers its position has to be told that the events up to here will not come.
    pub(super) skip_to: Option<u64>,
    /// When a sink that remembers its position gives up its oldest events; the others are watched from outside.
    pub(super) shedding: Option<Shedding>,
    /// Most events of the next batch: the settings' cap, or less once the store has found one too large.
    pub(super) most_events: u64,
    /// A part of the batch that is being searched for what the store refuses was taken.
    pub(super) evidence: bool,
    /// Events that wait beside the log.
    pub(super) beside: Parking,
    /// Events that the store has taken since the start.
    pub(super) taken: u64,
    /// Whether the store was found to be usable since it was last down.
    pub(super) prepared: bool,
    pub(super) advance_due: Option<u64>,
    pub(super) trim_due: Option<u64>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) channels: Channels,
    pub(super) metrics: SinkMetrics,
    began: Instant,
}

impl Worker {
    /// `prepared`: the store was found to be usable just now.
    pub(super) fn new(
        source: Source,
        sink: Arc<dyn Sink>,
        (settings, prepared): (Settings, bool),
        channels: Channels,
        metrics: SinkMetrics,
    ) -> Self {
        Self {
            name: sink.name().to_owned(),
            most_events: settings.max_events,
            beside: Parking::new(&settings),
            taken: 0,
            plan: Plan::new(settings),
            cursor: Cursor::default(),
            advanced_to: 0,
            remembers: false,
            skip_to: None,
            shedding: None,
            evidence: false,
            prepared,
            advance_due: None,
            trim_due: None,
            head: source.spool.watch_head(),
            channels,
            metrics,
            began: Instant::now(),
            source,
            sink,
        }
    }

    /// Learns how far the sink is.
    pub(super) async fn open(mut self) -> Result<Self, FanoutError> {
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        let (cursor, parked) = blocking(move || Ok((spool.cursor(&name)?, spool.parked_room(&name)?))).await?;
        (self.cursor, self.beside.events) = (cursor, parked.events());
        self.channels.parked_sender.send_replace(self.beside.events);
        self.advanced_to = self.cursor.delivered_to;
        self.channels.complete_from.send_replace(self.cursor.complete_from);
        let position = self.sink.position().await.map_err(|error| FanoutError::Sink(self.name.clone(), error))?;
        if let Some(position) = position {
            let head = self.source.spool.head();
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
            let Cursor { dead, shed_to, complete_from, .. } = self.cursor;
            // What was shed before the store could be told.
            self.skip_to = shed_to;
            self.cursor = Cursor { delivered_to: position, dead, complete_from, ..Cursor::default() };
            self.advance_due = Some(0);
        }
        self.trim_due = Some(0);
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
        Ok(self)
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Works until told to drain and nothing is left that the sink takes.
    pub(super) async fn run(mut self) {
        loop {
            self.upkeep(self.now()).await;
            let head = *self.head.borrow_and_update();
            let draining = *self.channels.draining.borrow_and_update();
            let wanted = *self.channels.wanted_receiver.borrow_and_update() > self.cursor.delivered_to;
            // The rest of a batch that was cut has waited already.
            let hurry = draining || wanted || self.cursor.suspect_to.is_some();
            if self.skip_to.is_some() {
                // Nothing is delivered that was given up.
                match self.plan.pause_ends(self.now()) {
                    None => self.skip().await,
                    Some(_) if draining => break,
                    pause => self.sleep(pause).await,
                }
                self.tell_down();
                continue;
            }
            let place = Place { delivered_to: self.cursor.delivered_to, frozen: self.cursor.frozen.is_some(), head };
            let step = self.plan.next(self.now(), place, hurry);
            let (waits, rests) = (step != Step::Idle, matches!(step, Step::Idle | Step::WaitUntil(_)));
            let parked_due = |worker: &Self| !draining && worker.beside.is_due(worker.now(), waits);
            match step {
                Step::Idle | Step::WaitUntil(_) | Step::Probe if draining => break,
                Step::Next | Step::Again if !self.prepared => self.prepare().await,
                Step::Idle | Step::WaitUntil(_) if parked_due(&self) => self.unpark().await,
                Step::Idle => self.sleep(self.beside.due(self.now(), false)).await,
                Step::WaitUntil(time) => {
                    let parked = self.beside.due(self.now(), true);
                    self.sleep(Some(parked.map_or(time, |due| due.min(time)))).await;
                }
                Step::Next => self.deliver_next().await,
                Step::Again => self.deliver_again().await,
                Step::Probe => self.probe().await,
            }
            if !rests && parked_due(&self) {
                self.unpark().await;
            }
            self.tell_down();
        }
        self.upkeep(u64::MAX).await;
    }

    /// Tells whether the sink is down.
    fn tell_down(&mut self) {
        let is_down = self.plan.is_down();
        // After an outage the store may be another one.
        self.prepared &= !is_down;
        self.metrics.up.set(i64::from(!is_down));
        self.channels.down_sender.send_if_modified(|down| std::mem::replace(down, is_down) != is_down);
    }

    /// Sleeps until `time`, until upkeep is due, or until something changes.
    async fn sleep(&mut self, time: Option<u64>) {
        let shed_due = self.shedding.as_ref().filter(|shedding| shedding.is_due(&self.source.spool));
        let shed_due = shed_due.map(|_| self.now() + SHED_MS);
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
            Ok(()) = self.channels.wanted_receiver.changed() => {}
            Ok(()) = self.channels.draining.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Does what is due at `now`: tells the spool how far the sink is, and to forget what no sink needs.
    async fn upkeep(&mut self, now: u64) {
        if self.advance_due.is_some_and(|due| due <= now) {
            self.advance_due = None;
            if let Err(error) = self.tell_spool().await {
                tracing::warn!(sink = self.name, %error, "the cursor could not be advanced; it will be again");
                self.advance_due = Some(self.now() + self.plan.settings().backoff_cap_ms);
            }
        }
        if let Some(shedding) = self.shedding.clone().filter(|shedding| shedding.is_due(&self.source.spool)) {
            self.shed(&shedding).await;
        }
        let spool = self.source.spool.clone();
        if self.trim_due.is_some_and(|due| due <= now) {
            self.trim_due = None;
            if let Err(error) = blocking(move || spool.trim()).await {
                tracing::warn!(sink = self.name, %error, "the spool could not be trimmed; it will be tried again");
                self.trim_due = Some(self.now() + self.plan.settings().backoff_cap_ms);
            }
        }
    }

    /// Tells the spool how far a sink is that remembers its position.
    pub(super) async fn tell_spool(&mut self) -> Result<(), SpoolError> {
        let (spool, name, to) = (self.source.spool.clone(), self.name.clone(), self.cursor.delivered_to);
        if self.remembers && self.skip_to.is_none() && to > self.advanced_to {
            blocking(move || spool.advance(&name, to, Vec::new(), false)).await?;
            self.advanced_to = to;
            self.trim_due.get_or_insert(self.now() + TRIM_MS);
        }
        Ok(())
    }

    async fn probe(&mut self) {
        match self.sink.health().await {
            Ok(()) => self.plan.found_well(),
            Err(error) => self.failed(&error),
        }
    }

    async fn prepare(&mut self) {
        match self.sink.prepare().await {
            Ok(()) => self.prepared = true,
            Err(error) => self.failed(&error),
        }
    }

    /// How long a failure asks to be waited for at least, milliseconds. What no waiting will mend is tried rarely.
    pub(super) fn pause_asked(&self, error: &SinkError) -> Option<u64> {
        match error {
            SinkError::Retryable { after_ms, .. } => *after_ms,
            _ => Some(self.plan.settings().backoff_cap_ms),
        }
    }

    /// Nothing was taken; the same is tried again after a pause.
    pub(super) fn failed(&mut self, error: &SinkError) {
        if self.source.spool.health().is_err() {
            self.plan.failed_ourselves(self.now(), OWN_DISK_MS);
            return tracing::warn!(sink = self.name, %error, "a delivery failed while the spool cannot be written");
        }
        let pause_ms = self.plan.failed(self.now(), self.pause_asked(error), random());
        if matches!(error, SinkError::Retryable { .. }) {
            // The store has no time for what is parked either.
            self.beside.plan.failed_ourselves(self.now(), pause_ms);
        }
        self.metrics.delivery_errors.inc();
        tracing::warn!(sink = self.name, %error, pause_ms, position = self.cursor.delivered_to, "a delivery failed");
    }
}

/// A number in `0.0..1.0`. Without the system's randomness the whole pause is taken, which only costs time.
pub(super) fn random() -> f64 {
    getrandom::u32().map_or(1.0, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}
