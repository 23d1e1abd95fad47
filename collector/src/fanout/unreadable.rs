//! Handles unreadable records of the spool. No store can ever take their events, so they become dead letters without
//! evidence, and all events around them are delivered.

use super::blocking;
use super::dead_letters::dead_letters;
use super::retryable;
use super::worker::Worker;
use crate::sinks::{CorruptRecord, PermanentFailure, SinkBatch};

impl Worker {
    /// Returns the last position of `batch` that may go in one delivery. An unreadable record ends the delivery, or is
    /// alone in it.
    pub(super) fn delivery_end(&self, batch: &SinkBatch) -> u64 {
        match self.sink.batch_end(batch) {
            Ok(last) => last,
            Err(record) if record.first > batch.first => {
                let before = batch.truncated_to(record.first - 1);
                self.sink.batch_end(&before).unwrap_or(before.last)
            }
            Err(record) => batch.last_position_in(record.first),
        }
    }

    /// Handles the unreadable `record` of `batch`, of which the store took nothing.
    pub(super) async fn unreadable(&mut self, batch: &SinkBatch, record: &CorruptRecord) {
        let end = batch.last_position_in(record.first);
        if record.first > batch.first {
            let before = record.first - 1;
            if self.tracks_position {
                // Its batches are not frozen; the record begins the next one.
                return Box::pin(self.deliver(batch.truncated_to(before))).await;
            }
            return self.shrink_frozen(before, false).await;
        }
        if end < batch.last && !self.tracks_position {
            return self.shrink_frozen(end, false).await;
        }
        tracing::error!(
            sink = self.name,
            first = batch.first,
            last = end,
            why = record.reason,
            "a record of the spool cannot be read: its events go to the dead letters"
        );
        let reason = record.to_string();
        let refused = (batch.first..=end).map(|position| PermanentFailure { position, reason: reason.clone() });
        let dead_letters = dead_letters(&self.name, batch, &refused.collect::<Vec<_>>());
        if self.tracks_position {
            return self.discard_to(end, dead_letters).await;
        }
        match self.advance(end, dead_letters, false).await {
            Ok(()) => self.succeeded(0),
            Err(error) => self.failed(&error),
        }
    }

    /// Discards the events up to `to`, which the store lacks. The store, which tracks its position, skips them next,
    /// also after a crash.
    async fn discard_to(&mut self, to: u64, dead_letters: Vec<crate::spool::DeadLetter>) {
        if let Err(error) = self.advance_spool().await {
            return self.failed(&retryable(error));
        }
        let (spool, name, dead) = (self.reader.spool.clone(), self.name.clone(), dead_letters.len() as u64);
        match blocking(move || spool.discard_to(&name, to, dead_letters)).await {
            Ok(()) => {
                self.metrics.dead_lettered_events.inc_by(dead);
                self.skip_to = Some(to);
            }
            Err(error) => self.failed(&retryable(error)),
        }
    }
}
