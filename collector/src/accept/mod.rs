//! Ingests one batch, from its bytes to its receipt: checks the signature, inflates, decodes, runs the pipeline, hands
//! the result to the spool and answers after the commit. Knows nothing of HTTP or SQL.

mod budget;
mod capacity;
pub(crate) mod inflate;
pub(crate) mod signature;
mod task;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use subway_protocol::codec::server::{Problem, ProblemCode, Receipt, decode};
use tokio::sync::{Semaphore, oneshot};

pub(crate) use budget::{BudgetReservation, SharedBudget};
pub(crate) use capacity::NotReady;
pub use signature::sign;

pub(crate) use crate::spool::{DedupExtent, Ledger, SinkListEntry, SinkRemoval, SinkState, SpoolStatus};

use crate::auth::RegisteredApp;
use crate::config::Limits;
use crate::limit::RateLimitExceeded;
use crate::pipeline::{self, ValidatedBatch};
use crate::spool::{Spool, SpoolError};
use crate::telemetry::Telemetry;
use inflate::Inflation;
use signature::Signature;
use task::{IngestTask, StoreFailure};

/// Largest batch, as sent and as JSON, that is decoded on the thread that received it.
///
/// That takes well under a millisecond, and a hop to another thread costs more than it saves. A batch that inflates to
/// more moves to a decoder thread: a few kilobytes of gzip can be megabytes of JSON, which would delay every other
/// request of the thread.
const INLINE_BYTES: usize = 32 * 1024;

/// One request to ingest a batch, with the body as received.
pub(crate) struct IngestRequest {
    /// App that sends.
    pub app: Arc<RegisteredApp>,
    /// Body as sent.
    pub body: Bytes,
    /// Whether `content-encoding` says gzip.
    pub gzip: bool,
    /// Value of the header `x-subway-signature`.
    pub signature: Option<String>,
    /// Time at which the request arrived, milliseconds since the epoch.
    pub received_at: i64,
    /// Its part of the memory budget.
    pub reservation: BudgetReservation,
}

/// Ingests batches into the spool.
pub(crate) struct Ingestor {
    spool: Spool,
    limits: ArcSwap<Limits>,
    telemetry: Arc<Telemetry>,
    /// One permit for each core: more decoders at once would only take memory.
    decoders: Arc<Semaphore>,
    /// Slots in the queue of the spool's writer.
    queue_slots: Arc<SharedBudget>,
}

/// A body whose signature was verified; it may still have to be inflated.
struct VerifiedBody {
    app: Arc<RegisteredApp>,
    signature: Option<Signature>,
    received_at: i64,
    text: BodyText,
    reservation: BudgetReservation,
}

enum BodyText {
    Plain(Bytes),
    Gzip(Box<Inflation>),
}

/// One batch after everything that needs no disk.
struct DecodedBatch {
    prepared: ValidatedBatch,
    signature: Option<Signature>,
    reservation: BudgetReservation,
}

/// Returns whether the body begins like JSON, as gzip never does.
fn looks_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

/// Limits that are checked in the spool's transaction.
#[derive(Clone, Copy)]
struct StoreLimits {
    signature_age_ms: i64,
    spool_max_bytes: u64,
}

/// Creates the problem of a collector that cannot store now.
#[must_use]
pub(crate) fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemCode::Unavailable, detail.to_owned())
}

/// Creates the problem of a client or an app that exceeded a rate limit.
#[must_use]
pub(crate) fn too_many_requests(exceeded: &RateLimitExceeded) -> Problem {
    let mut problem = Problem::new(ProblemCode::TooManyRequests, exceeded.to_string());
    problem.limit = Some(exceeded.per_second);
    problem.retry_after = Some(exceeded.retry_after());
    problem
}

impl Ingestor {
    /// Creates an ingestor that writes to `spool`.
    #[must_use]
    pub(crate) fn new(spool: Spool, limits: Limits, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let queue_slots = SharedBudget::new("the requests that wait for the disk", limits.queue_requests);
        let decoders = Arc::new(Semaphore::new(cores));
        Arc::new(Self { spool, limits: ArcSwap::from_pointee(limits), telemetry, decoders, queue_slots })
    }

    /// Changes the limits. Requests in progress finish under the old ones.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Ingests one batch, and returns after the commit that holds it is on disk.
    ///
    /// # Errors
    /// The problem to answer with; then nothing of the batch is stored.
    pub(crate) async fn ingest(self: &Arc<Self>, request: IngestRequest) -> Result<Receipt, Problem> {
        let (number, received_at) = (request.app.number, request.received_at);
        self.check_capacity(number)?;
        let mut queue_slot = self.queue_slots.reservation_for(&request.app.quota.usage().queue_slots);
        let limits = self.limits.load_full();
        let store_limits =
            StoreLimits { signature_age_ms: limits.wire.signature_age_ms, spool_max_bytes: limits.spool_max_bytes };
        let decoded = self.decode(request, limits).await?;
        queue_slot.grow(1)?;
        let (reply, answer) = oneshot::channel();
        let task = IngestTask::new(number, decoded, queue_slot, received_at, store_limits, reply);
        self.spool.submit(Box::new(task)).map_err(|(_, error)| match error {
            SpoolError::Busy => unavailable("too many requests wait for the disk"),
            _ => unavailable("the collector is shutting down"),
        })?;
        let outcome = answer.await.unwrap_or_else(|_| Err(unavailable("the spool's writer has ended").into()));
        let (receipt, corrected) = outcome.map_err(|why| match why {
            StoreFailure::Full(full) => self.full_problem(full),
            StoreFailure::Refused(problem) => problem,
        })?;
        self.count(&receipt, corrected);
        Ok(receipt)
    }

    /// Returns the ledger as of one commit, and since when each sink has events waiting. `sink` counts as being at
    /// least at `position`.
    ///
    /// # Errors
    /// If the spool cannot be read now.
    pub(crate) async fn status(&self, sink: &'static str, position: u64) -> Result<SpoolStatus, Problem> {
        self.with_spool(move |spool| spool.status(sink, position)).await
    }

    /// Retires a sink, or forgets a retired one.
    ///
    /// # Errors
    /// `not_found`, `conflict`, or a problem that says that the spool cannot be written now.
    pub(crate) async fn end_sink(&self, sink: String, how: SinkRemoval) -> Result<(), Problem> {
        self.with_spool(move |spool| how.apply(spool, &sink)).await
    }

    async fn with_spool<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, Problem> {
        let spool = self.spool.clone();
        match tokio::task::spawn_blocking(move || ask(&spool)).await {
            Ok(answer) => answer.map_err(|error| {
                let code = match error {
                    SpoolError::UnknownSink(_) => ProblemCode::NotFound,
                    SpoolError::SinkInUse(_) | SpoolError::NotRetired(_) => ProblemCode::Conflict,
                    _ => ProblemCode::Unavailable,
                };
                Problem::new(code, error.to_string())
            }),
            Err(_) => Err(unavailable("asking the spool was interrupted")),
        }
    }

    /// Returns the number of events that were ever stored.
    #[must_use]
    pub(crate) fn head(&self) -> u64 {
        self.spool.head()
    }

    /// Returns what the dedup index of each app holds, by the app's number.
    #[must_use]
    pub(crate) fn dedup_extents(&self) -> BTreeMap<i64, DedupExtent> {
        self.spool.dedup_extents()
    }

    fn count(&self, receipt: &Receipt, corrected: u64) {
        self.telemetry.stored_events.inc_by(receipt.stored);
        self.telemetry.duplicate_events.inc_by(receipt.duplicate.len() as u64);
        self.telemetry.clock_corrected_events.inc_by(corrected);
        for rejection in &receipt.rejected {
            self.telemetry.count_rejected_event(rejection.violation.reason);
        }
    }

    async fn decode(self: &Arc<Self>, request: IngestRequest, limits: Arc<Limits>) -> Result<DecodedBatch, Problem> {
        if request.body.len() > INLINE_BYTES {
            let work = move |ingestor: &Self| {
                let verified = ingestor.verify(request, &limits)?;
                ingestor.decode_and_prepare(verified, &limits)
            };
            return self.run_on_decoder(work).await;
        }
        let mut verified = self.verify(request, &limits)?;
        if let BodyText::Gzip(inflation) = &mut verified.text
            && !inflation.run(INLINE_BYTES, limits.wire.decompressed_bytes, &mut verified.reservation)?
        {
            return self.run_on_decoder(move |ingestor| ingestor.decode_and_prepare(verified, &limits)).await;
        }
        self.decode_and_prepare(verified, &limits)
    }

    /// Runs `work` on a thread that may block, when a decoder permit is free.
    async fn run_on_decoder(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<DecodedBatch, Problem> + Send + 'static,
    ) -> Result<DecodedBatch, Problem> {
        let permit = Arc::clone(&self.decoders).acquire_owned().await;
        let ingestor = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            // The work itself owns the permit: a client that disconnects ends the waiting, not the work.
            let _permit = permit;
            work(&ingestor)
        });
        task.await.unwrap_or_else(|_| Err(unavailable("decoding was interrupted")))
    }

    /// Verifies the signature, which covers the body as sent.
    fn verify(&self, request: IngestRequest, limits: &Limits) -> Result<VerifiedBody, Problem> {
        let IngestRequest { app, body, gzip, signature, received_at, reservation } = request;
        let max_age = limits.wire.signature_age_ms;
        let signature = match &app.secret {
            Some(secret) => Some(Signature::verify(signature.as_deref(), secret, &body, received_at, max_age)?),
            None => None,
        };
        self.telemetry.body_bytes.inc_by(body.len() as u64);
        // A proxy may have decompressed the body without changing the header.
        let is_gzip = inflate::is_gzip(&body) || gzip && !looks_like_json(&body);
        let text = if is_gzip {
            BodyText::Gzip(Box::new(Inflation::new(body)))
        } else {
            inflate::check_size(body.len() as u64, limits.wire.decompressed_bytes)?;
            BodyText::Plain(body)
        };
        Ok(VerifiedBody { app, signature, received_at, text, reservation })
    }

    /// Inflates what is still compressed, decodes the batch and runs the pipeline.
    fn decode_and_prepare(&self, verified: VerifiedBody, limits: &Limits) -> Result<DecodedBatch, Problem> {
        let VerifiedBody { app, signature, received_at, text, mut reservation } = verified;
        let limits = &limits.wire;
        let json = match text {
            BodyText::Plain(body) => body,
            BodyText::Gzip(mut inflation) => {
                inflation.run(usize::MAX, limits.decompressed_bytes, &mut reservation)?;
                inflation.into_bytes().into()
            }
        };
        self.telemetry.decompressed_bytes.inc_by(json.len() as u64);
        // The decoded batch is about as large again.
        reservation.grow(json.len() as u64)?;
        let batch = decode(&json, limits)?;
        let count = batch.events.len() as u64;
        // Every store copies the common properties to each event.
        let common = batch.common.map_or(0, |common| common.get().len() as u64);
        let bytes = json.len() as u64 + common * count.saturating_sub(1);
        app.quota.take_events(count, bytes, Instant::now()).map_err(|exceeded| {
            self.telemetry.count_rate_limited(exceeded.limit);
            too_many_requests(&exceeded)
        })?;
        let incoming = wire::incoming(&app.key, &batch, received_at);
        let events = batch.events.iter().map(|raw| wire::event(raw, limits));
        let prepared = pipeline::prepare(&incoming, events, limits, app.past_days);
        // From here on only the prepared text and its record are in memory.
        reservation.resize(prepared.bytes())?;
        Ok(DecodedBatch { prepared, signature, reservation })
    }
}

#[cfg(test)]
mod tests;
