//! Sends dead letters again. What the store takes now is delivered and no letter any more; the rest stays, with what the
//! store says now. Doing it twice changes nothing.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::blocking;
use crate::sinks::{Sink, SinkBatch, SinkError, StoredRecord, permanent_failure_of_one};
use crate::spool::{DeadLetter, Spool, SpoolError};

/// Letters sent together. A group that is refused is sent again one by one, which this bounds.
const GROUP: u64 = 1000;

/// What became of the dead letters of one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Replayed {
    /// Which sink.
    pub sink: String,
    /// Dead letters when it began.
    pub total: u64,
    /// Taken by the store now.
    pub replayed: u64,
    /// Refused again.
    pub refused: u64,
}

/// A sink, and whose turn it is to replay its letters.
struct Replayable {
    sink: Arc<dyn Sink>,
    turn: Mutex<()>,
}

/// Sends the dead letters of some sinks again, of each sink one group at a time.
#[derive(Clone)]
pub(crate) struct Replayer {
    spool: Spool,
    sinks: Arc<Vec<Replayable>>,
}

fn text(error: SpoolError) -> String {
    error.to_string()
}

impl Replayer {
    /// For these sinks.
    #[must_use]
    pub(crate) fn new(spool: Spool, sinks: Vec<Arc<dyn Sink>>) -> Self {
        let replayable = |sink| Replayable { sink, turn: Mutex::new(()) };
        Self { spool, sinks: Arc::new(sinks.into_iter().map(replayable).collect()) }
    }

    /// Sends all dead letters of the sink `name` again. `progress` hears after each group how far it is.
    ///
    /// # Errors
    /// A sentence: there is no such sink, the spool fails, or the store cannot be reached now; what was taken until then is
    /// settled.
    pub(crate) async fn replay(&self, name: &str, mut progress: impl FnMut(&Replayed)) -> Result<Replayed, String> {
        let found = self.sinks.iter().find(|replayable| replayable.sink.name() == name);
        let Replayable { sink, turn } = found.ok_or_else(|| format!("no sink is named {name}"))?;
        let _turn = turn.lock().await;
        let (spool, owned) = (self.spool.clone(), name.to_owned());
        let total = blocking(move || spool.count_dead_letters(&owned)).await.map_err(text)?;
        let mut report = Replayed { sink: name.to_owned(), total, ..Replayed::default() };
        if total > 0 {
            sink.prepare().await.map_err(|error| error.to_string())?;
        }
        let mut after = 0;
        loop {
            let (spool, owned) = (self.spool.clone(), name.to_owned());
            let (letters, alone) = blocking(move || spool.mark_for_replay(&owned, after, GROUP)).await.map_err(text)?;
            let Some(last) = letters.last() else { return Ok(report) };
            after = after.max(last.position);
            if alone || !self.together(sink, &letters, &mut report).await? {
                self.one_by_one(sink, &letters, &mut report).await?;
            }
            progress(&report);
        }
    }

    /// Sends a group at once. `false`: the store refused it as a whole.
    async fn together(
        &self,
        sink: &Arc<dyn Sink>,
        letters: &[DeadLetter],
        report: &mut Replayed,
    ) -> Result<bool, String> {
        let mut name = Sha256::new();
        letters.iter().for_each(|letter| name.update(letter.position.to_be_bytes()));
        let digest: String = name.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, last) = (letters[0].position, letters[letters.len() - 1].position);
        let spool = self.spool.clone();
        let token = blocking(move || spool.token(first, last)).await.map_err(text)?;
        match sink.deliver(batch(letters, format!("{token}-replay-{digest}"))).await {
            Ok(delivered) => {
                let refused: Vec<(u64, String)> =
                    delivered.refused.into_iter().map(|refusal| (refusal.position, refusal.reason)).collect();
                let taken = letters.iter().map(|letter| letter.position);
                let taken = taken.filter(|position| refused.iter().all(|(other, _)| other != position)).collect();
                self.settle(sink.name(), taken, refused, report).await?;
                Ok(true)
            }
            Err(SinkError::Permanent { .. } | SinkError::TooLarge { .. } | SinkError::CorruptRecord(_)) => {
                let (spool, owned) = (self.spool.clone(), sink.name().to_owned());
                blocking(move || spool.replay_alone(&owned)).await.map_err(text)?;
                Ok(false)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Each under the token that it had when it was refused alone, so that a repetition is recognised.
    async fn one_by_one(
        &self,
        sink: &Arc<dyn Sink>,
        letters: &[DeadLetter],
        report: &mut Replayed,
    ) -> Result<(), String> {
        for letter in letters {
            let (spool, position) = (self.spool.clone(), letter.position);
            let token = blocking(move || spool.token(position, position)).await.map_err(text)?;
            let result = sink.deliver(batch(std::slice::from_ref(letter), token)).await;
            let (taken, refused) = match permanent_failure_of_one(result).map_err(|error| error.to_string())? {
                None => (vec![position], Vec::new()),
                Some(reason) => (Vec::new(), vec![(position, reason)]),
            };
            self.settle(sink.name(), taken, refused, report).await?;
        }
        Ok(())
    }

    async fn settle(
        &self,
        sink: &str,
        taken: Vec<u64>,
        refused: Vec<(u64, String)>,
        report: &mut Replayed,
    ) -> Result<(), String> {
        report.replayed += taken.len() as u64;
        report.refused += refused.len() as u64;
        let (spool, sink) = (self.spool.clone(), sink.to_owned());
        blocking(move || spool.settle(&sink, taken, refused)).await.map_err(text)
    }
}

/// The letters' events as one batch; their positions need not follow each other.
fn batch(letters: &[DeadLetter], token: String) -> Arc<SinkBatch> {
    let record = |letter: &DeadLetter| StoredRecord { first: letter.position, json: letter.record.clone() };
    Arc::new(SinkBatch {
        first: letters[0].position,
        last: letters[letters.len() - 1].position,
        dedup_token: token,
        records: letters.iter().map(record).collect(),
    })
}
