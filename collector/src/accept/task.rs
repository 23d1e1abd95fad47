//! Spool task of one batch: what it does in the spool's transaction, and the receipt after the commit.

use subway_protocol::codec::server::{Problem, Receipt};
use tokio::sync::oneshot;

use super::signature::{Signature, bad_signature};
use super::{BudgetReservation, DecodedBatch, StoreLimits, unavailable};
use crate::clock::now;
use crate::pipeline::{self, ValidatedBatch};
use crate::spool::{CapacityExceeded, ClockAnchor, SpoolError, SpoolTask, Tx};

/// Receipt, and how many stored events had their time corrected.
type Outcome = Result<(Receipt, u64), StoreFailure>;

/// Reason why nothing of a batch was stored.
pub(super) enum StoreFailure {
    /// The spool, or the share of the app, was full.
    Full(CapacityExceeded),
    /// Any other reason, as the problem to answer with.
    Refused(Problem),
}

impl From<Problem> for StoreFailure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

pub(super) struct IngestTask {
    app: i64,
    prepared: ValidatedBatch,
    signature: Option<Signature>,
    /// Signatures from before this time need not be remembered, milliseconds since the epoch: they are too old to be
    /// valid.
    forget_before: i64,
    /// Cap of the spool, bytes of JSON.
    spool_max_bytes: u64,
    full: Option<CapacityExceeded>,
    is_new: Vec<bool>,
    signature_reused: bool,
    reply: oneshot::Sender<Outcome>,
    reservation: BudgetReservation,
    /// Its slot in the queue. It is kept when the client disconnects, because the task stays in the queue.
    queue_slot: BudgetReservation,
}

impl IngestTask {
    pub(super) fn new(
        app: i64,
        decoded: DecodedBatch,
        queue_slot: BudgetReservation,
        received_at: i64,
        limits: StoreLimits,
        reply: oneshot::Sender<Outcome>,
    ) -> Self {
        let DecodedBatch { prepared, signature, reservation } = decoded;
        // The signing time may also be ahead by the same age, so a signature is remembered twice as long.
        let forget_before = received_at.saturating_sub(limits.signature_age_ms.saturating_mul(2));
        let (spool_max_bytes, full) = (limits.spool_max_bytes, None);
        let (is_new, signature_reused) = (Vec::new(), false);
        Self {
            app,
            prepared,
            signature,
            forget_before,
            spool_max_bytes,
            full,
            is_new,
            signature_reused,
            reply,
            reservation,
            queue_slot,
        }
    }

    fn order_events(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        if !self.prepared.has_readings() {
            return Ok(());
        }
        let install = self.prepared.install_id;
        let last = tx.clock_anchor(self.app, install)?.map(|point| pipeline::ClockAnchor {
            seq: point.seq,
            boot: point.boot,
            mono: point.mono,
            event_time: point.event_time,
        });
        if let Some(last) = self.prepared.order(&self.is_new, last) {
            let point = ClockAnchor { seq: last.seq, boot: last.boot, mono: last.mono, event_time: last.event_time };
            tx.set_clock_anchor(self.app, install, &point)?;
        }
        Ok(())
    }

    fn receipt(&mut self) -> (Receipt, u64) {
        let events = || self.prepared.events.iter().zip(&self.is_new);
        let receipt = Receipt {
            batch_id: self.prepared.batch_id,
            server_time: now(),
            stored: self.is_new.iter().filter(|is_new| **is_new).count() as u64,
            duplicate: events().filter(|(_, is_new)| !**is_new).map(|(event, _)| event.index).collect(),
            rejected: Vec::new(),
        };
        let corrected = events().filter(|(event, is_new)| **is_new && event.time_source.is_corrected()).count() as u64;
        (Receipt { rejected: std::mem::take(&mut self.prepared.rejected), ..receipt }, corrected)
    }
}

impl SpoolTask for IngestTask {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        // Checked again: since the request arrived, other requests may have stored as much as fits in memory.
        self.full = tx.backlog(self.app).check_capacity(self.spool_max_bytes).err();
        if self.full.is_some() {
            return Ok(());
        }
        if let Some(signature) = &self.signature {
            self.signature_reused =
                !tx.record_signature(self.app, &signature.mac, signature.signed_at, self.forget_before)?;
            if self.signature_reused {
                return Ok(());
            }
        }
        self.is_new = vec![false; self.prepared.events.len()];
        let is_new = &mut self.is_new;
        tx.insert_new_ids(self.app, self.prepared.events.iter().map(|event| event.id), |at, new| is_new[at] = new)?;
        self.order_events(tx)?;
        let stored = self.is_new.iter().filter(|is_new| **is_new).count() as u64;
        if self.prepared.sent.age_ms() > tx.horizon_ms(self.app) {
            self.prepared.events.iter_mut().for_each(|event| event.unverified = true);
            tx.counters.unverified += stored;
        }
        for record in self.prepared.records(&self.is_new) {
            tx.append(self.app, &record.json, record.events)?;
        }
        tx.counters.received += self.prepared.received;
        tx.counters.duplicate += self.is_new.len() as u64 - stored;
        for rejection in &self.prepared.rejected {
            tx.counters.rejected[rejection.violation.reason as usize] += 1;
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, result: Result<(), &SpoolError>) {
        let outcome = match result {
            Ok(()) if self.signature_reused => Err(bad_signature("the signature has been used before").into()),
            Ok(()) => self.full.map_or_else(|| Ok(self.receipt()), |full| Err(StoreFailure::Full(full))),
            Err(error) => Err(unavailable(&format!("the batch could not be stored: {error}")).into()),
        };
        // Memory is released before the answer is sent, because the client may send its next batch at once.
        let Self { reply, prepared, reservation, queue_slot, .. } = *self;
        drop((prepared, reservation, queue_slot));
        // Fails if the client has disconnected; the batch is stored all the same.
        let _ = reply.send(outcome);
    }

    fn bytes(&self) -> u64 {
        self.prepared.bytes()
    }
}
