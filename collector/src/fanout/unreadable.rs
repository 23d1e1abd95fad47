//! What a worker does with a record of the spool that cannot be read: no store will ever take its events, and no waiting
//! mends it. They go to the dead letters without any evidence, and everything around them is delivered.

use super::blocking;
use super::deliver::fails;
use super::letters::dead_letters;
use super::worker::Worker;
use crate::sinks::{CorruptRecord, PermanentFailure, SinkBatch};

impl Worker {
    /// How much of `batch` may go in one delivery. A record that cannot be read ends it, or is alone in it.
    pub(super) fn cut(&self, batch: &SinkBatch) -> u64 {
        match self.sink.batch_end(batch) {
            Ok(last) => last,
            Err(record) if record.first > batch.first => {
                let before = batch.truncated_to(record.first - 1);
                self.sink.batch_end(&before).unwrap_or(before.last)
            }
            Err(record) => batch.last_position_in(record.first),
        }
    }

    /// The record `record` of `batch`, of which the store took nothing, cannot be read.
    pub(super) async fn unreadable(&mut self, batch: &SinkBatch, record: &CorruptRecord) {
        let end = batch.last_position_in(record.first);
        if record.first > batch.first {
            let before = record.first - 1;
            if self.remembers {
                // Its batches are not frozen; the record begins the next one.
                return Box::pin(self.deliver(batch.truncated_to(before))).await;
            }
            return self.narrow(before, false).await;
        }
        if end < batch.last && !self.remembers {
            return self.narrow(end, false).await;
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
        let letters = dead_letters(&self.name, batch, &refused.collect::<Vec<_>>());
        if self.remembers {
            return self.give_up(end, letters).await;
        }
        match self.advance(end, letters, false).await {
            Ok(()) => self.succeeded(0),
            Err(error) => self.failed(&error),
        }
    }

    /// The events up to `to`, which the store lacks, are dead. The store, which remembers its position, is told next; over
    /// a crash too.
    async fn give_up(&mut self, to: u64, letters: Vec<crate::spool::DeadLetter>) {
        if let Err(error) = self.tell_spool().await {
            return self.failed(&fails(error));
        }
        let (spool, name, dead) = (self.source.spool.clone(), self.name.clone(), letters.len() as u64);
        match blocking(move || spool.give_up(&name, to, letters)).await {
            Ok(()) => {
                self.metrics.dead_lettered_events.inc_by(dead);
                self.skip_to = Some(to);
            }
            Err(error) => self.failed(&fails(error)),
        }
    }
}
