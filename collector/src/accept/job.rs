//! A batch on its way through the spool's transaction.

use subway_protocol::codec::server::{Problem, Receipt};
use tokio::sync::oneshot;

use super::signature::{Signature, bad};
use super::{Decoded, Held, Terms, unavailable};
use crate::clock::now;
use crate::pipeline::{Last, Prepared};
use crate::spool::{Full, Point, SpoolError, Tx, Write};

/// The receipt, and how many stored events had their time corrected.
type Outcome = Result<(Receipt, u64), Unstored>;

/// Why nothing of a batch was stored.
pub(super) enum Unstored {
    /// There was no room left when its turn came.
    Full(Full),
    /// Any other reason.
    Refused(Problem),
}

impl From<Problem> for Unstored {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

pub(super) struct Job {
    app: i64,
    prepared: Prepared,
    signature: Option<Signature>,
    /// Signatures made before this are too old anyway, milliseconds since the epoch.
    forget_before: i64,
    /// The cap of the spool, bytes of JSON.
    spool_max_bytes: u64,
    full: Option<Full>,
    fresh: Vec<bool>,
    replayed: bool,
    reply: oneshot::Sender<Outcome>,
    held: Held,
    /// Its place in the queue, kept although the client may have gone: the job stays in it.
    place: Held,
}

impl Job {
    pub(super) fn new(
        app: i64,
        decoded: Decoded,
        place: Held,
        received_at: i64,
        terms: Terms,
        reply: oneshot::Sender<Outcome>,
    ) -> Self {
        let Decoded { prepared, signature, held } = decoded;
        // A signature may also be from the future by its age, so it is remembered twice as long.
        let forget_before = received_at.saturating_sub(terms.signature_age_ms.saturating_mul(2));
        let (spool_max_bytes, full) = (terms.spool_max_bytes, None);
        let (fresh, replayed) = (Vec::new(), false);
        Self { app, prepared, signature, forget_before, spool_max_bytes, full, fresh, replayed, reply, held, place }
    }

    fn order(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        if !self.prepared.has_readings() {
            return Ok(());
        }
        let install = self.prepared.install_id;
        let last = tx.point(self.app, install)?.map(|point| Last {
            seq: point.seq,
            boot: point.boot,
            mono: point.mono,
            event_time: point.event_time,
        });
        if let Some(last) = self.prepared.order(&self.fresh, last) {
            let point = Point { seq: last.seq, boot: last.boot, mono: last.mono, event_time: last.event_time };
            tx.set_point(self.app, install, &point)?;
        }
        Ok(())
    }

    fn receipt(&mut self) -> (Receipt, u64) {
        let candidates = || self.prepared.candidates.iter().zip(&self.fresh);
        let receipt = Receipt {
            batch_id: self.prepared.batch_id,
            server_time: now(),
            stored: self.fresh.iter().filter(|fresh| **fresh).count() as u64,
            duplicate: candidates().filter(|(_, fresh)| !**fresh).map(|(candidate, _)| candidate.index).collect(),
            rejected: Vec::new(),
        };
        let corrected =
            candidates().filter(|(candidate, fresh)| **fresh && candidate.time_source.is_corrected()).count() as u64;
        (Receipt { rejected: std::mem::take(&mut self.prepared.rejected), ..receipt }, corrected)
    }
}

impl Write for Job {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        // Looked at when it arrived too; since then as much as fits in memory may have come in beside it.
        self.full = tx.backlog(self.app).room(self.spool_max_bytes).err();
        if self.full.is_some() {
            return Ok(());
        }
        if let Some(signature) = &self.signature {
            self.replayed = !tx.use_signature(self.app, &signature.mac, signature.signed_at, self.forget_before)?;
            if self.replayed {
                return Ok(());
            }
        }
        self.fresh = vec![false; self.prepared.candidates.len()];
        let fresh = &mut self.fresh;
        tx.see(self.app, self.prepared.candidates.iter().map(|candidate| candidate.id), |at, new| fresh[at] = new)?;
        self.order(tx)?;
        let stored = self.fresh.iter().filter(|fresh| **fresh).count() as u64;
        if self.prepared.sent.age_ms() > tx.horizon_ms(self.app) {
            self.prepared.candidates.iter_mut().for_each(|candidate| candidate.unverified = true);
            tx.counters.unverified += stored;
        }
        for record in self.prepared.records(&self.fresh) {
            tx.append(self.app, &record.json, record.events)?;
        }
        tx.counters.received += self.prepared.received;
        tx.counters.duplicate += self.fresh.len() as u64 - stored;
        for rejection in &self.prepared.rejected {
            tx.counters.rejected[rejection.violation.reason as usize] += 1;
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, result: Result<(), &SpoolError>) {
        let outcome = match result {
            Ok(()) if self.replayed => Err(bad("the signature has been used before").into()),
            Ok(()) => self.full.map_or_else(|| Ok(self.receipt()), |full| Err(Unstored::Full(full))),
            Err(error) => Err(unavailable(&format!("the batch could not be stored: {error}")).into()),
        };
        // Its memory is given back before the answer goes out: whoever hears it may send the next batch at once.
        let Self { reply, prepared, held, place, .. } = *self;
        drop((prepared, held, place));
        // Nobody waits any more: the client has gone. The batch is stored all the same.
        let _ = reply.send(outcome);
    }

    fn bytes(&self) -> u64 {
        self.prepared.bytes()
    }
}
