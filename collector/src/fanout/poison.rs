//! Handles refused batches. Bisects a batch until the refused event is alone, which then becomes a dead letter. A
//! store that refuses every event is at fault itself, so a dead letter requires evidence that the store takes others
//! (docs/adr/0005).

use std::sync::Arc;

use super::blocking;
use super::dead_letters::dead_letters;
use super::retryable;
use super::scheduler::midpoint;
use super::worker::Worker;
use crate::sinks::{PermanentFailure, SinkBatch, SinkError, permanent_failure_of_one};
use crate::spool::DeadLetter;

/// Events after a refused one that are sent singly to check that the store takes any. If it takes none of them it
/// counts as refusing everything; if it takes one, the events before that are dead letters.
const MAX_PROBED_NEIGHBOURS: u64 = 1000;

impl Worker {
    /// Handles a batch that the store refused because of its content.
    pub(super) async fn refused(&mut self, batch: &SinkBatch, message: String) {
        if batch.first < batch.last {
            tracing::info!(
                sink = self.name,
                first = batch.first,
                last = batch.last,
                message,
                "a batch is refused; it is cut in half"
            );
            return self.shrink_frozen(midpoint(batch.first, batch.last), true).await;
        }
        let letters =
            dead_letters(&self.name, batch, &[PermanentFailure { position: batch.first, reason: message.clone() }]);
        if self.evidence {
            return self.move_to_dead_letters(batch.last, letters).await;
        }
        match self.probe_neighbours(batch.last, letters).await {
            Ok(Some((last, letters))) => self.move_to_dead_letters(last, letters).await,
            Ok(None) => {
                let why = format!("the store refuses every event, so none is given up: {message}");
                self.failed(&SinkError::Permanent { message: why });
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Moves the events of `dead_letters` to the dead letters. All others up to `last` are delivered.
    async fn move_to_dead_letters(&mut self, last: u64, dead_letters: Vec<DeadLetter>) {
        for letter in &dead_letters {
            tracing::warn!(
                sink = self.name,
                position = letter.position,
                event_id = letter.event_id,
                reason = letter.reason,
                "an event is refused for good"
            );
        }
        let taken = last - self.cursor.delivered_to - dead_letters.len() as u64;
        match self.advance(last, dead_letters, true).await {
            Ok(()) => self.succeeded(taken),
            Err(error) => self.failed(&error),
        }
    }

    /// Sends the events after `refused` singly until the store takes one. Returns its position and the dead letters of
    /// all before it, or `None` if the store takes none.
    ///
    /// Each is sent with the dedup token of a batch of its own, so that the store recognises a repetition.
    async fn probe_neighbours(
        &mut self,
        refused: u64,
        mut letters: Vec<DeadLetter>,
    ) -> Result<Option<(u64, Vec<DeadLetter>)>, SinkError> {
        let head = *self.head.borrow();
        let end = if self.cursor.dropped_to.is_some() { self.cursor.pinned_to() } else { head };
        for position in refused + 1..=end.min(refused.saturating_add(MAX_PROBED_NEIGHBOURS)) {
            match self.send_single(position).await? {
                (_, None) => return Ok(Some((position, self.confirm(letters).await?))),
                (batch, Some(reason)) => {
                    letters.extend(dead_letters(&self.name, &batch, &[PermanentFailure { position, reason }]))
                }
            }
        }
        Ok(None)
    }

    /// Retries each of `dead_letters` once, because the store may have recovered. Returns those that it still refuses;
    /// the others are delivered.
    async fn confirm(&self, dead_letters: Vec<DeadLetter>) -> Result<Vec<DeadLetter>, SinkError> {
        let mut confirmed = Vec::new();
        for letter in dead_letters {
            if self.send_single(letter.position).await?.1.is_some() {
                confirmed.push(letter);
            }
        }
        Ok(confirmed)
    }

    /// Sends one event with the dedup token of a batch of its own. Returns the batch, and the reason if the store
    /// refuses it.
    async fn send_single(&self, position: u64) -> Result<(Arc<SinkBatch>, Option<String>), SinkError> {
        let spool = self.reader.spool.clone();
        let token = blocking(move || spool.dedup_token(position, position)).await.map_err(retryable)?;
        let batch = Arc::new(self.batch(position, position, token).await?);
        let refusal = permanent_failure_of_one(self.send(Arc::clone(&batch)).await)?;
        Ok((batch, refusal))
    }
}
