//! Sends a batch and handles the store's response.

use std::sync::Arc;
use std::time::Instant;

use super::batch_reader::ReadLimits;
use super::dead_letters::dead_letters;
use super::delivery_size;
use super::exclude::without;
use super::scheduler::midpoint;
use super::worker::{TRIM_DELAY_MS, Worker};
use super::{blocking, retryable};
use crate::sinks::{CorruptRecord, Delivered, SinkBatch, SinkError};
use crate::spool::{Cursor, SpoolError, SpoolRecord, Undelivered};

/// Reason why no batch was frozen.
#[derive(Debug, thiserror::Error)]
enum FreezeError {
    /// The cursor has moved since it was read, because events were dropped.
    #[error("the cursor has moved")]
    CursorMoved,
    /// The batch could not be read, checked or frozen.
    #[error(transparent)]
    Failed(#[from] SinkError),
}

impl From<CorruptRecord> for FreezeError {
    fn from(record: CorruptRecord) -> Self {
        FreezeError::Failed(record.into())
    }
}

impl Worker {
    /// Reads the next events, freezes them as a batch and delivers it.
    pub(super) async fn deliver_next(&mut self) {
        match self.freeze_next().await {
            Ok(Some(batch)) => self.deliver(batch).await,
            Ok(None) => {}
            Err(FreezeError::CursorMoved) => self.reload_cursor().await,
            Err(FreezeError::Failed(error)) => self.failed(&error),
        }
    }

    /// Freezes the next batch. Returns `None` if the next events no longer exist and the sink continues after them.
    async fn freeze_next(&mut self) -> Result<Option<SinkBatch>, FreezeError> {
        let after = self.cursor.delivered_to;
        // Whole records are cheapest for a sink that knows its position; the others get no more than they can take.
        let end = if self.tracks_position { u64::MAX } else { after.saturating_add(self.max_events) };
        let head = (*self.head.borrow()).min(end);
        // All of a refused batch is known to hold an event that is refused: its half says more than the whole.
        let to = self.cursor.bisect_to.map_or(head, |to| midpoint(after + 1, to).min(end));
        let limits = ReadLimits { events: self.max_events, bytes: self.scheduler.settings().max_bytes };
        let reader = self.reader.clone();
        let found = blocking(move || reader.read(after, to, limits)).await.map_err(retryable)?;
        let (records, last, first) = (found.records, found.last, after + 1);
        if let Some(to) = found.expired_to {
            self.expire(to).await?;
            return Ok(None);
        }
        if last < first {
            return Err(SinkError::retryable(format!("the event at position {first} is nowhere to be found")).into());
        }
        let mut batch = SinkBatch { first, last, dedup_token: format!("{first}-{last}"), records };
        if self.tracks_position {
            return Ok(Some(batch));
        }
        batch.last = delivery_size::delivery_end(&batch.records, first, last, self.scheduler.settings().max_bytes);
        // What the log no longer has it keeps until the batch is through: retention may delete it from the store meanwhile.
        let history = batch.records.iter().filter(|record| record.first <= found.history_to);
        let mut history: Vec<SpoolRecord> =
            history.map(|record| SpoolRecord { first: record.first, events: 1, json: record.json.clone() }).collect();
        let mut excluded = self.select_parked(&batch).await?;
        batch = without(batch, &excluded)?;
        batch.last = self.delivery_end(&batch).clamp(first, batch.last);
        batch.records.retain(|record| record.first <= batch.last);
        excluded.retain(|position| *position <= batch.last);
        history.retain(|stored| stored.first <= batch.last);
        let (spool, name, range) = (self.reader.spool.clone(), self.name.clone(), (first, batch.last));
        match blocking(move || spool.freeze_with(&name, range, history, excluded)).await {
            Ok(cursor) => self.cursor = cursor,
            Err(SpoolError::BadRange { .. }) => return Err(FreezeError::CursorMoved),
            Err(error) => return Err(retryable(error).into()),
        }
        batch.dedup_token = self.cursor.frozen.as_ref().map(|frozen| frozen.dedup_token.clone()).unwrap_or_default();
        Ok(Some(batch))
    }

    /// Sends the frozen batch again, exactly as before.
    pub(super) async fn resend(&mut self) {
        let Some(frozen) = self.cursor.frozen.clone() else { return };
        let batch = match self.batch(frozen.first, frozen.last, frozen.dedup_token).await {
            Ok(batch) => batch,
            Err(error) => return self.failed(&error),
        };
        if frozen.excluded.is_empty() {
            return self.deliver(batch).await;
        }
        match without(batch.clone(), &frozen.excluded) {
            Ok(batch) => self.deliver(batch).await,
            Err(record) => self.unreadable(&batch, &record).await,
        }
    }

    /// Reads the events `first..=last` as a batch with this token.
    pub(super) async fn batch(&self, first: u64, last: u64, token: String) -> Result<SinkBatch, SinkError> {
        let reader = self.reader.clone();
        let limits = ReadLimits { events: last - first + 1, bytes: u64::MAX };
        let found = blocking(move || reader.read(first - 1, last, limits)).await.map_err(retryable)?;
        if found.last < last {
            let position = found.last + 1;
            return Err(SinkError::retryable(format!("the event at position {position} is nowhere to be found")));
        }
        Ok(SinkBatch { first, last, dedup_token: token, records: found.records })
    }

    pub(super) async fn deliver(&mut self, batch: SinkBatch) {
        let batch = Arc::new(batch);
        if batch.records.is_empty() {
            // All of it is parked: there is nothing to send, and nothing to learn of the store.
            return match self.advance(batch.last, Vec::new(), false).await {
                Ok(()) => self.publish_progress(),
                Err(error) => self.failed(&error),
            };
        }
        match self.send(Arc::clone(&batch)).await {
            Ok(delivered) => self.delivered(&batch, delivered).await,
            Err(SinkError::CorruptRecord(record)) => match self.full_batch(batch).await {
                Ok(batch) => self.unreadable(&batch, &record).await,
                Err(error) => self.failed(&error),
            },
            Err(SinkError::TooLarge { message }) if !self.tracks_position => self.too_large(&batch, message).await,
            Err(SinkError::Permanent { message }) if !self.tracks_position => self.refused(&batch, message).await,
            Err(error) => self.failed(&error),
        }
    }

    /// Reads the batch again with the events excluded from it, because only then the ends of its records are known.
    async fn full_batch(&self, batch: Arc<SinkBatch>) -> Result<Arc<SinkBatch>, SinkError> {
        match &self.cursor.frozen {
            Some(frozen) if !frozen.excluded.is_empty() => {
                Ok(Arc::new(self.batch(batch.first, batch.last, batch.dedup_token.clone()).await?))
            }
            _ => Ok(batch),
        }
    }

    /// Sends a batch in a task of its own, so that a panic of the sink counts as a failure.
    pub(super) async fn send(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let began = Instant::now();
        let sink = Arc::clone(&self.sink);
        let result = tokio::spawn(async move { sink.deliver(batch).await }).await;
        crate::telemetry::observe(&self.metrics.delivery_duration, began.elapsed());
        result.unwrap_or_else(|error| Err(SinkError::retryable(error.to_string())))
    }

    async fn delivered(&mut self, batch: &SinkBatch, delivered: Delivered) {
        let parked = self.cursor.frozen.as_ref().map_or(0, |frozen| frozen.excluded.len() as u64);
        let (sent, refused) = (batch.last - batch.first + 1 - parked, delivered.refused.len() as u64);
        if let Some(one) = delivered.refused.first().filter(|_| parked > 0 && refused >= sent) {
            // The store cannot see from the positions that it took nothing.
            return self.refused(batch, one.reason.clone()).await;
        }
        if self.tracks_position {
            // The commit that this costs is in nobody's way when nothing else waits.
            let caught_up = batch.last >= *self.head.borrow();
            let wait = if caught_up { 0 } else { self.scheduler.settings().advance_ms };
            let due = self.now() + wait;
            self.advance_due = Some(self.advance_due.map_or(due, |earlier| earlier.min(due)));
            (self.cursor.delivered_to, self.cursor.frozen) = (batch.last, None);
        } else {
            // A part of a refused batch was taken: whatever its neighbours are refused for, it is their own fault.
            self.evidence |= self.cursor.bisect_to.is_some();
            let dead_letters = dead_letters(&self.name, batch, &delivered.refused);
            if let Err(error) = self.advance(batch.last, dead_letters, false).await {
                // The batch stays frozen: it is sent again, and the store recognises it.
                return self.failed(&error);
            }
        }
        self.succeeded(sent - refused);
    }

    /// Updates counters and scheduler after the cursor has moved and the store took `taken` events.
    pub(super) fn succeeded(&mut self, taken: u64) {
        self.taken += taken;
        self.metrics.delivered_events.inc_by(taken);
        self.scheduler.succeeded();
        self.publish_progress();
    }

    /// Publishes the position of the cursor and the number of parked events.
    fn publish_progress(&mut self) {
        self.channels.parked_sender.send_replace(self.parked_queue.events);
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
    }

    /// Moves the cursor, and stores dead letters and parked events in the same commit.
    pub(super) async fn advance(
        &mut self,
        last: u64,
        dead_letters: Vec<crate::spool::DeadLetter>,
        end_bisect: bool,
    ) -> Result<(), SinkError> {
        let parked = self.parked_events_to(last, &dead_letters).await?;
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        let (dead_count, parked_count) = (dead_letters.len() as u64, parked.len() as u64);
        let undelivered = Undelivered { dead_letters, parked, end_bisect };
        self.cursor = blocking(move || spool.advance_with(&name, last, undelivered)).await.map_err(retryable)?;
        self.metrics.dead_lettered_events.inc_by(dead_count);
        if parked_count > 0 {
            self.parked_queue.events += parked_count;
            tracing::info!(
                sink = self.name,
                events = parked_count,
                "these events need too many new resources of the store; they are parked"
            );
        }
        self.advanced_to = self.cursor.delivered_to;
        self.trim_due.get_or_insert(self.now() + TRIM_DELAY_MS);
        if self.cursor.bisect_to.is_none() {
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
        self.max_events = self.max_events.min(events.div_ceil(2));
        tracing::info!(sink = self.name, events, message, "a batch is too large for the store; its half is sent");
        self.shrink_frozen(midpoint(batch.first, batch.last), false).await;
    }

    /// Shrinks the frozen batch to end at `last`. The rest of it is sent next.
    pub(super) async fn shrink_frozen(&mut self, last: u64, bisect: bool) {
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        match blocking(move || spool.shrink_frozen(&name, last, bisect)).await {
            Ok(cursor) => {
                self.cursor = cursor;
                self.metrics.batch_splits.inc();
            }
            Err(error) => self.failed(&retryable(error)),
        }
    }

    /// Moves the cursor over the events up to `to`, which no longer exist.
    async fn expire(&mut self, to: u64) -> Result<(), SinkError> {
        let from = self.cursor.delivered_to;
        // What the store has taken so far is not expired.
        self.advance_spool().await.map_err(retryable)?;
        let (reader, name) = (self.reader.clone(), self.name.clone());
        let expire = move || reader.spool.expire(&name, to, reader.arrived_before(to)?);
        let cursor = blocking(expire).await.map_err(retryable)?;
        if self.tracks_position {
            self.sink.skip(to).await?;
        }
        tracing::warn!(
            sink = self.name,
            after = from,
            to,
            "these events are neither in the spool nor in the embedded store any more; the sink goes on without them"
        );
        self.adopt_cursor(cursor);
        if self.tracks_position {
            self.set_position(to);
        }
        Ok(())
    }

    /// Loads the sink's cursor from the spool after something else moved it.
    async fn reload_cursor(&mut self) {
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        match blocking(move || spool.cursor(&name)).await {
            Ok(cursor) => self.adopt_cursor(cursor),
            Err(error) => self.failed(&retryable(error)),
        }
    }

    /// Sets the position of a sink that tracks it, regardless of the spool's cursor.
    pub(super) fn set_position(&mut self, position: u64) {
        self.cursor.delivered_to = position;
        self.channels.delivered_sender.send_replace(position);
    }

    pub(super) fn adopt_cursor(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        self.channels.complete_from.send_replace(self.cursor.complete_from);
        self.advanced_to = self.cursor.delivered_to;
        self.channels.delivered_sender.send_replace(self.cursor.delivered_to);
    }
}
