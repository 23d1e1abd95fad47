//! One delivery of a worker: what is sent, and what follows from the store's answer.

use std::sync::Arc;
use std::time::Instant;

use super::blocking;
use super::letters::dead_letters;
use super::plan::half;
use super::size;
use super::source::Cap;
use super::worker::{TRIM_MS, Worker};
use crate::sinks::{Delivered, SinkBatch, SinkError};
use crate::spool::{Cursor, SpoolError, Stored};

impl Worker {
    /// Reads the next events, freezes them as a batch and delivers it.
    pub(super) async fn deliver_next(&mut self) {
        match self.freeze_next().await {
            Ok(Some(batch)) => self.deliver(batch).await,
            Ok(None) => {}
            Err(SinkError::Retryable { message, .. }) if message.is_empty() => self.reload().await,
            Err(error) => self.failed(&error),
        }
    }

    /// The next batch, frozen; `None` if what is next is gone, and the sink goes on after it. An empty retryable error: the
    /// cursor has moved meanwhile, because events were shed.
    async fn freeze_next(&mut self) -> Result<Option<SinkBatch>, SinkError> {
        let after = self.cursor.delivered_to;
        // Whole records are cheapest for a sink that knows its position; the others get no more than they can take.
        let end = if self.remembers { u64::MAX } else { after.saturating_add(self.most_events) };
        let head = (*self.head.borrow()).min(end);
        // All of a refused batch is known to hold an event that is refused: its half says more than the whole.
        let to = self.cursor.suspect_to.map_or(head, |to| half(after + 1, to).min(end));
        let cap = Cap { events: self.most_events, bytes: self.plan.settings().max_bytes };
        let source = self.source.clone();
        let found = blocking(move || source.read(after, to, cap)).await.map_err(fails)?;
        let (records, last, first) = (found.records, found.last, after + 1);
        if let Some(to) = found.expired_to {
            self.expire(to).await?;
            return Ok(None);
        }
        if last < first {
            return Err(SinkError::retryable(format!("the event at position {first} is nowhere to be found")));
        }
        let mut batch = SinkBatch { first, last, dedup_token: format!("{first}-{last}"), records };
        if self.remembers {
            return Ok(Some(batch));
        }
        batch.last = size::cut(&batch.records, first, last, self.plan.settings().max_bytes);
        batch.last = self.cut(&batch).clamp(first, batch.last);
        batch.records.retain(|record| record.first <= batch.last);
        // What the log no longer has it keeps until the batch is through: retention may delete it from the store meanwhile.
        let history = batch.records.iter().filter(|record| record.first <= found.history_to);
        let history =
            history.map(|record| Stored { first: record.first, events: 1, json: record.json.clone() }).collect();
        let (spool, name, last) = (self.source.spool.clone(), self.name.clone(), batch.last);
        match blocking(move || spool.freeze_with(&name, first, last, history)).await {
            Ok(cursor) => self.cursor = cursor,
            Err(SpoolError::BadRange { .. }) => return Err(SinkError::retryable("")),
            Err(error) => return Err(fails(error)),
        }
        batch.dedup_token = self.cursor.frozen.as_ref().map(|frozen| frozen.token.clone()).unwrap_or_default();
        Ok(Some(batch))
    }

    /// Delivers the frozen batch, exactly as it was if it was sent before.
    pub(super) async fn deliver_again(&mut self) {
        let Some(frozen) = self.cursor.frozen.clone() else { return };
        match self.batch(frozen.first, frozen.last, frozen.token).await {
            Ok(batch) => self.deliver(batch).await,
            Err(error) => self.failed(&error),
        }
    }

    /// The events `first..=last` as a batch with this token.
    pub(super) async fn batch(&self, first: u64, last: u64, token: String) -> Result<SinkBatch, SinkError> {
        let source = self.source.clone();
        let cap = Cap { events: last - first + 1, bytes: u64::MAX };
        let found = blocking(move || source.read(first - 1, last, cap)).await.map_err(fails)?;
        if found.last < last {
            let position = found.last + 1;
            return Err(SinkError::retryable(format!("the event at position {position} is nowhere to be found")));
        }
        Ok(SinkBatch { first, last, dedup_token: token, records: found.records })
    }

    pub(super) async fn deliver(&mut self, batch: SinkBatch) {
        let batch = Arc::new(batch);
        match self.send(Arc::clone(&batch)).await {
            Ok(delivered) => self.delivered(&batch, delivered).await,
            Err(SinkError::CorruptRecord(record)) => self.unreadable(&batch, &record).await,
            Err(SinkError::TooLarge { message }) if !self.remembers => self.too_large(&batch, message).await,
            Err(SinkError::Permanent { message }) if !self.remembers => self.refused(&batch, message).await,
            Err(error) => self.failed(&error),
        }
    }

    /// Sends a batch, in a task of its own, so that a sink that panics is a sink that failed.
    pub(super) async fn send(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let began = Instant::now();
        let sink = Arc::clone(&self.sink);
        let result = tokio::spawn(async move { sink.deliver(batch).await }).await;
        crate::telemetry::observe(&self.metrics.delivery_duration, began.elapsed());
        result.unwrap_or_else(|error| Err(SinkError::retryable(error.to_string())))
    }

    async fn delivered(&mut self, batch: &SinkBatch, delivered: Delivered) {
        if self.remembers {
            // The commit that this costs is in nobody's way when nothing else waits.
            let caught_up = batch.last >= *self.head.borrow();
            let wait = if caught_up { 0 } else { self.plan.settings().advance_ms };
            let due = self.now() + wait;
            self.advance_due = Some(self.advance_due.map_or(due, |earlier| earlier.min(due)));
            (self.cursor.delivered_to, self.cursor.frozen) = (batch.last, None);
        } else {
            // A part of a refused batch was taken: whatever its neighbours are refused for, it is their own fault.
            self.evidence |= self.cursor.suspect_to.is_some();
            let letters = dead_letters(&self.name, batch, &delivered.refused);
            if let Err(error) = self.advance(batch.last, letters, false).await {
                // The batch stays frozen: it is sent again, and the store recognises it.
                return self.failed(&error);
            }
        }
        self.succeeded(batch.last - batch.first + 1 - delivered.refused.len() as u64);
    }

    /// The cursor has moved, and the store took so many events.
    pub(super) fn succeeded(&mut self, taken: u64) {
        self.metrics.delivered_events.inc_by(taken);
        self.plan.succeeded();
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
    }

    /// Moves the cursor in one commit with the dead letters.
    pub(super) async fn advance(
        &mut self,
        last: u64,
        letters: Vec<crate::spool::DeadLetter>,
        clear: bool,
    ) -> Result<(), SinkError> {
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        let dead = letters.len() as u64;
        self.cursor = blocking(move || spool.advance(&name, last, letters, clear)).await.map_err(fails)?;
        self.metrics.dead_lettered_events.inc_by(dead);
        self.advanced_to = self.cursor.delivered_to;
        self.trim_due.get_or_insert(self.now() + TRIM_MS);
        if self.cursor.suspect_to.is_none() {
            self.evidence = false;
        }
        Ok(())
    }

    async fn too_large(&mut self, batch: &SinkBatch, message: String) {
        let events = batch.last - batch.first + 1;
        if events == 1 {
            return self.refused(batch, message).await;
        }
        // Learnt until the next start: what the store takes at once.
        self.most_events = self.most_events.min(events.div_ceil(2));
        tracing::info!(sink = self.name, events, message, "a batch is too large for the store; its half is sent");
        self.narrow(half(batch.first, batch.last), false).await;
    }

    /// Cuts the frozen batch after `last`; what is left of it is sent next.
    pub(super) async fn narrow(&mut self, last: u64, suspect: bool) {
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        match blocking(move || spool.narrow(&name, last, suspect)).await {
            Ok(cursor) => {
                self.cursor = cursor;
                self.metrics.batch_splits.inc();
            }
            Err(error) => self.failed(&fails(error)),
        }
    }

    /// Goes on after the events up to `to`, which are nowhere any more.
    async fn expire(&mut self, to: u64) -> Result<(), SinkError> {
        let from = self.cursor.delivered_to;
        // What the store has taken so far is not expired.
        self.tell_spool().await.map_err(fails)?;
        let (source, name) = (self.source.clone(), self.name.clone());
        let expire = move || source.spool.expire(&name, to, source.arrived_before(to)?);
        let cursor = blocking(expire).await.map_err(fails)?;
        if self.remembers {
            self.sink.skip(to).await?;
        }
        tracing::warn!(
            sink = self.name,
            after = from,
            to,
            "these events are neither in the spool nor in the embedded store any more; the sink goes on without them"
        );
        self.follow(cursor);
        if self.remembers {
            self.reach(to);
        }
        Ok(())
    }

    /// Takes over what the spool says of this sink, after something else moved its cursor.
    async fn reload(&mut self) {
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        match blocking(move || spool.cursor(&name)).await {
            Ok(cursor) => self.follow(cursor),
            Err(error) => self.failed(&fails(error)),
        }
    }

    /// The store of a sink that remembers its position is at `position`, wherever the spool's cursor is.
    pub(super) fn reach(&mut self, position: u64) {
        self.cursor.delivered_to = position;
        self.channels.delivered_sender.send_replace(position);
    }

    pub(super) fn follow(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.channels.complete_from.send_replace(self.cursor.complete_from);
        self.advanced_to = self.cursor.delivered_to;
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
    }
}

/// A fault of the spool, to be tried again like one of the store.
pub(super) fn fails(error: SpoolError) -> SinkError {
    SinkError::retryable(error.to_string())
}
