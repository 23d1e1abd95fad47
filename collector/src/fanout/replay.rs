//! Replays dead letters. Events that the store takes now are delivered and leave the dead letters; the others stay
//! with the new reason. A second replay changes nothing.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::blocking;
use crate::sinks::{Sink, SinkBatch, SinkError, StoredRecord, permanent_failure_of_one};
use crate::spool::{DeadLetter, ReplayMode, Spool, SpoolError};

/// Dead letters sent together. If the batch is refused they are sent singly, which this bounds.
const MAX_BATCH_LETTERS: u64 = 1000;

/// Result of replaying one sink's dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ReplayReport {
    /// Name of the sink.
    pub sink: String,
    /// Dead letters at the beginning.
    pub total: u64,
    /// Events that the store took.
    pub replayed: u64,
    /// Events that the store refused again.
    pub refused: u64,
}

/// Sink with a lock that admits one replay at a time.
struct ReplayTarget {
    sink: Arc<dyn Sink>,
    replay_lock: Mutex<()>,
}

/// Replays the dead letters of some sinks, one batch at a time for each sink.
#[derive(Clone)]
pub(crate) struct Replayer {
    spool: Spool,
    sinks: Arc<Vec<ReplayTarget>>,
}

/// Reason why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// No sink has this name.
    #[error("no sink is named {0}")]
    UnknownSink(String),
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The store cannot be used or reached.
    #[error(transparent)]
    Store(#[from] SinkError),
}

impl Replayer {
    /// Creates a replayer for these sinks.
    #[must_use]
    pub(crate) fn new(spool: Spool, sinks: Vec<Arc<dyn Sink>>) -> Self {
        let target = |sink| ReplayTarget { sink, replay_lock: Mutex::new(()) };
        Self { spool, sinks: Arc::new(sinks.into_iter().map(target).collect()) }
    }

    /// Replays all dead letters of the sink `name`. Calls `progress` after each batch.
    ///
    /// # Errors
    /// If there is no such sink, the spool fails, or the store cannot be used or reached now. Outcomes until then are recorded.
    pub(crate) async fn replay(
        &self,
        name: &str,
        mut progress: impl FnMut(&ReplayReport),
    ) -> Result<ReplayReport, ReplayError> {
        let found = self.sinks.iter().find(|target| target.sink.name() == name);
        let ReplayTarget { sink, replay_lock } = found.ok_or_else(|| ReplayError::UnknownSink(name.to_owned()))?;
        let _guard = replay_lock.lock().await;
        let (spool, owned) = (self.spool.clone(), name.to_owned());
        let total = blocking(move || spool.count_dead_letters(&owned)).await?;
        let mut report = ReplayReport { sink: name.to_owned(), total, ..ReplayReport::default() };
        if total > 0 {
            sink.prepare().await?;
        }
        let mut after = 0;
        loop {
            let (spool, owned) = (self.spool.clone(), name.to_owned());
            let (dead_letters, mode) =
                blocking(move || spool.mark_for_replay(&owned, after, MAX_BATCH_LETTERS)).await?;
            let Some(last) = dead_letters.last() else { return Ok(report) };
            after = after.max(last.position);
            if mode == ReplayMode::Single || !self.replay_batch(sink, &dead_letters, &mut report).await? {
                self.replay_singly(sink, &dead_letters, &mut report).await?;
            }
            progress(&report);
        }
    }

    /// Sends the dead letters in one batch. Returns `false` if the store refused it as a whole.
    async fn replay_batch(
        &self,
        sink: &Arc<dyn Sink>,
        dead_letters: &[DeadLetter],
        report: &mut ReplayReport,
    ) -> Result<bool, ReplayError> {
        let digest = digest(dead_letters.iter().map(|letter| letter.position));
        let (first, last) = (dead_letters[0].position, dead_letters[dead_letters.len() - 1].position);
        let spool = self.spool.clone();
        let token = blocking(move || spool.dedup_token(first, last)).await?;
        match sink.deliver(batch(dead_letters, format!("{token}-replay-{digest}"))).await {
            Ok(delivered) => {
                let refused: Vec<(u64, String)> =
                    delivered.refused.into_iter().map(|refusal| (refusal.position, refusal.reason)).collect();
                let taken = dead_letters.iter().map(|letter| letter.position);
                let taken = taken.filter(|position| refused.iter().all(|(other, _)| other != position)).collect();
                self.record_outcome(sink.name(), taken, refused, report).await?;
                Ok(true)
            }
            Err(SinkError::Permanent { .. } | SinkError::TooLarge { .. } | SinkError::CorruptRecord(_)) => {
                let (spool, owned) = (self.spool.clone(), sink.name().to_owned());
                blocking(move || spool.replay_singly(&owned)).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends each dead letter with the dedup token of the batch in which it was refused, so that the store recognises
    /// a repetition.
    async fn replay_singly(
        &self,
        sink: &Arc<dyn Sink>,
        dead_letters: &[DeadLetter],
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        for letter in dead_letters {
            let (spool, position) = (self.spool.clone(), letter.position);
            let token = blocking(move || spool.dedup_token(position, position)).await?;
            let result = sink.deliver(batch(std::slice::from_ref(letter), token)).await;
            let (taken, refused) = match permanent_failure_of_one(result)? {
                None => (vec![position], Vec::new()),
                Some(reason) => (Vec::new(), vec![(position, reason)]),
            };
            self.record_outcome(sink.name(), taken, refused, report).await?;
        }
        Ok(())
    }

    async fn record_outcome(
        &self,
        sink: &str,
        taken: Vec<u64>,
        refused: Vec<(u64, String)>,
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        report.replayed += taken.len() as u64;
        report.refused += refused.len() as u64;
        let (spool, sink) = (self.spool.clone(), sink.to_owned());
        Ok(blocking(move || spool.finish_replay(&sink, taken, refused)).await?)
    }
}

/// Returns a digest of positions that need not be consecutive.
pub(super) fn digest(positions: impl Iterator<Item = u64>) -> String {
    let mut name = Sha256::new();
    positions.for_each(|position| name.update(position.to_be_bytes()));
    hex::encode(&name.finalize()[..8])
}

/// Builds one batch of records with one event each, whose positions rise but need not be consecutive.
pub(super) fn batch_of_singles(events: impl Iterator<Item = (u64, String)>, dedup_token: String) -> Arc<SinkBatch> {
    let records: Vec<StoredRecord> = events.map(|(first, json)| StoredRecord { first, json }).collect();
    let position = |record: Option<&StoredRecord>| record.map_or(0, |record| record.first);
    let (first, last) = (position(records.first()), position(records.last()));
    Arc::new(SinkBatch { first, last, dedup_token, records })
}

fn batch(dead_letters: &[DeadLetter], dedup_token: String) -> Arc<SinkBatch> {
    batch_of_singles(dead_letters.iter().map(|letter| (letter.position, letter.record.clone())), dedup_token)
}
