//! What a worker does with events that the store refuses: the one that is refused for itself is found by halving and goes
//! to the dead letters. That a store refuses everything is no event's fault: before an event is given up there must be
//! evidence that the store takes others.

use std::sync::Arc;

use super::blocking;
use super::deliver::fails;
use super::letters::dead_letters;
use super::plan::half;
use super::worker::Worker;
use crate::sinks::{PermanentFailure, SinkBatch, SinkError, permanent_failure_of_one};
use crate::spool::DeadLetter;

/// How many events after a refused one are tried alone, to see whether the store takes any. When none of so many is
/// taken, the store is taken to refuse all; when one is, those before it are dead letters at once.
const EVIDENCE_EVENTS: u64 = 1000;

impl Worker {
    /// The store refused `batch` because of what is in it.
    pub(super) async fn refused(&mut self, batch: &SinkBatch, message: String) {
        if batch.first < batch.last {
            tracing::info!(
                sink = self.name,
                first = batch.first,
                last = batch.last,
                message,
                "a batch is refused; it is cut in half"
            );
            return self.narrow(half(batch.first, batch.last), true).await;
        }
        let letters =
            dead_letters(&self.name, batch, &[PermanentFailure { position: batch.first, reason: message.clone() }]);
        if self.evidence {
            return self.bury(batch.last, letters).await;
        }
        match self.look_for_evidence(batch.last, letters).await {
            Ok(Some((last, letters))) => self.bury(last, letters).await,
            Ok(None) => {
                let why = format!("the store refuses every event, so none is given up: {message}");
                self.failed(&SinkError::Permanent { message: why });
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The events of `letters` are dead; every other up to `last` is delivered.
    async fn bury(&mut self, last: u64, letters: Vec<DeadLetter>) {
        for letter in &letters {
            tracing::warn!(
                sink = self.name,
                position = letter.position,
                event_id = letter.event_id,
                reason = letter.reason,
                "an event is refused for good"
            );
        }
        let taken = last - self.cursor.delivered_to - letters.len() as u64;
        match self.advance(last, letters, true).await {
            Ok(()) => self.succeeded(taken),
            Err(error) => self.failed(&error),
        }
    }

    /// Sends the events after `refused` one by one until the store takes one. Returns that one's position and the letters
    /// of all before it, or `None` if it takes none. Each is sent under the token that it would have as a batch, so that a
    /// repetition is recognised.
    async fn look_for_evidence(
        &mut self,
        refused: u64,
        mut letters: Vec<DeadLetter>,
    ) -> Result<Option<(u64, Vec<DeadLetter>)>, SinkError> {
        let head = *self.head.borrow();
        let end = if self.cursor.shed_to.is_some() { self.cursor.pinned_to() } else { head };
        for position in refused + 1..=end.min(refused.saturating_add(EVIDENCE_EVENTS)) {
            match self.send_alone(position).await? {
                (_, None) => return Ok(Some((position, self.confirm(letters).await?))),
                (batch, Some(reason)) => {
                    letters.extend(dead_letters(&self.name, &batch, &[PermanentFailure { position, reason }]))
                }
            }
        }
        Ok(None)
    }

    /// Sends the events of `letters` once more, now that the store takes others: it may have been mended meanwhile. Returns
    /// the letters of those that it still refuses; the others are delivered.
    async fn confirm(&self, letters: Vec<DeadLetter>) -> Result<Vec<DeadLetter>, SinkError> {
        let mut confirmed = Vec::new();
        for letter in letters {
            if self.send_alone(letter.position).await?.1.is_some() {
                confirmed.push(letter);
            }
        }
        Ok(confirmed)
    }

    /// Sends one event under the token that it would have as a batch. Returns that batch, and why the store refuses it, if
    /// it does.
    async fn send_alone(&self, position: u64) -> Result<(Arc<SinkBatch>, Option<String>), SinkError> {
        let spool = self.source.spool.clone();
        let token = blocking(move || spool.token(position, position)).await.map_err(fails)?;
        let batch = Arc::new(self.batch(position, position, token).await?);
        let refusal = permanent_failure_of_one(self.send(Arc::clone(&batch)).await)?;
        Ok((batch, refusal))
    }
}
