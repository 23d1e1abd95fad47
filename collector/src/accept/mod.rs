//! One batch from its bytes to its receipt: inflate, check the signature, decode, let the pipeline judge, hand to the
//! spool, answer after the commit.

mod budget;
pub(crate) mod inflate;
mod job;
mod room;
pub(crate) mod signature;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use subway_protocol::codec::server::{Problem, ProblemCode, Receipt, decode};
use tokio::sync::{Semaphore, oneshot};

pub(crate) use budget::{Budget, Held};
pub use signature::sign;

pub(crate) use crate::spool::{Ending, Extent, Ledger, SinkLine, SinkState, Status};

use crate::auth::App;
use crate::config::Limits;
use crate::limit::Exceeded;
use crate::pipeline::{self, Prepared};
use crate::spool::{Spool, SpoolError};
use crate::telemetry::Telemetry;
use inflate::Inflation;
use job::{Job, Unstored};
use signature::Signature;

/// Batches up to this size, both as sent and as JSON, are decoded right where they arrive: it takes well under a
/// millisecond, and a hop to another thread costs more than it saves. What inflates to more goes on elsewhere: a few
/// kilobytes of gzip can be megabytes of JSON, which would hold up every other request of the thread.
const INLINE_BYTES: usize = 32 * 1024;

/// A body as it arrived.
pub(crate) struct Arrival {
    /// Which app sends.
    pub app: Arc<App>,
    /// The body as sent.
    pub body: Bytes,
    /// Whether `content-encoding` says gzip.
    pub gzip: bool,
    /// The header `x-subway-signature`.
    pub signature: Option<String>,
    /// When the request arrived, milliseconds since the epoch.
    pub received_at: i64,
    /// The bytes it holds of the budget.
    pub held: Held,
}

/// Accepts batches.
pub(crate) struct Acceptor {
    spool: Spool,
    limits: ArcSwap<Limits>,
    telemetry: Arc<Telemetry>,
    /// One permit a core: more decoders at once would only take memory.
    decoders: Arc<Semaphore>,
    /// The places in the queue of the spool's writer.
    places: Arc<Budget>,
}

/// A body whose signature is right, on its way to JSON.
struct Opened {
    app: Arc<App>,
    signature: Option<Signature>,
    received_at: i64,
    text: Text,
    held: Held,
}

enum Text {
    Plain(Bytes),
    Gzip(Box<Inflation>),
}

/// What one batch is after everything that needs no disk.
struct Decoded {
    prepared: Prepared,
    signature: Option<Signature>,
    held: Held,
}

/// Whether a body can only be JSON: gzip begins with neither.
fn starts_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

/// The limits that the spool's transaction looks at.
#[derive(Clone, Copy)]
struct Terms {
    signature_age_ms: i64,
    spool_max_bytes: u64,
}

/// The collector cannot store now.
#[must_use]
pub(crate) fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemCode::Unavailable, detail.to_owned())
}

/// A client or an app asks too often.
#[must_use]
pub(crate) fn too_many(exceeded: &Exceeded) -> Problem {
    let mut problem = Problem::new(ProblemCode::TooManyRequests, exceeded.describe());
    problem.limit = Some(exceeded.per_second);
    problem.retry_after = Some(exceeded.retry_after());
    problem
}

impl Acceptor {
    /// An acceptor for `spool`.
    #[must_use]
    pub(crate) fn new(spool: Spool, limits: Limits, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = Budget::new("the requests that wait for the disk", limits.queue_requests);
        let decoders = Arc::new(Semaphore::new(cores));
        Arc::new(Self { spool, limits: ArcSwap::from_pointee(limits), telemetry, decoders, places })
    }

    /// Changes the limits. What is being accepted goes on under the old ones.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Accepts one batch. Returns after the commit that holds it is on disk.
    ///
    /// # Errors
    /// The problem to refuse the request with; nothing of it is stored then.
    pub(crate) async fn accept(self: &Arc<Self>, arrival: Arrival) -> Result<Receipt, Problem> {
        let (number, received_at) = (arrival.app.number, arrival.received_at);
        self.room(number)?;
        let mut place = self.places.hold(&arrival.app.quota.under_way().places);
        let limits = self.limits.load_full();
        let terms = Terms { signature_age_ms: limits.wire.signature_age_ms, spool_max_bytes: limits.spool_max_bytes };
        let decoded = self.decode(arrival, limits).await?;
        place.grow(1)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::new(number, decoded, place, received_at, terms, reply);
        self.spool.submit(Box::new(job)).map_err(|(_, error)| match error {
            SpoolError::Busy => unavailable("too many requests wait for the disk"),
            _ => unavailable("the collector is shutting down"),
        })?;
        let outcome = answer.await.unwrap_or_else(|_| Err(unavailable("the spool's writer has ended").into()));
        let (receipt, corrected) = outcome.map_err(|why| match why {
            Unstored::Full(full) => self.full(full),
            Unstored::Refused(problem) => problem,
        })?;
        self.count(&receipt, corrected);
        Ok(receipt)
    }

    /// Where every event went, exact as of one commit, and since when what waits does; `sink` is at least at `position`.
    ///
    /// # Errors
    /// If the spool cannot be read now.
    pub(crate) async fn status(&self, sink: &'static str, position: u64) -> Result<Status, Problem> {
        self.ask_spool(move |spool| spool.status(sink, position)).await
    }

    /// Retires a sink, or forgets a retired one.
    ///
    /// # Errors
    /// `not_found`, `conflict`, or the spool cannot be written now.
    pub(crate) async fn end_sink(&self, sink: String, how: Ending) -> Result<(), Problem> {
        self.ask_spool(move |spool| how.apply(spool, &sink)).await
    }

    async fn ask_spool<T: Send + 'static>(
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

    /// How many events were ever stored.
    #[must_use]
    pub(crate) fn head(&self) -> u64 {
        self.spool.head()
    }

    /// What the dedup index of each app holds, by the app's number.
    #[must_use]
    pub(crate) fn dedup_extents(&self) -> BTreeMap<i64, Extent> {
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

    async fn decode(self: &Arc<Self>, arrival: Arrival, limits: Arc<Limits>) -> Result<Decoded, Problem> {
        if arrival.body.len() > INLINE_BYTES {
            let work = move |acceptor: &Self| {
                let opened = acceptor.open(arrival, &limits)?;
                acceptor.finish(opened, &limits)
            };
            return self.elsewhere(work).await;
        }
        let mut opened = self.open(arrival, &limits)?;
        if let Text::Gzip(inflation) = &mut opened.text
            && !inflation.run(INLINE_BYTES, limits.wire.decompressed_bytes, &mut opened.held)?
        {
            return self.elsewhere(move |acceptor| acceptor.finish(opened, &limits)).await;
        }
        self.finish(opened, &limits)
    }

    /// Runs `work` where it may take its time.
    async fn elsewhere(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<Decoded, Problem> + Send + 'static,
    ) -> Result<Decoded, Problem> {
        let permit = Arc::clone(&self.decoders).acquire_owned().await;
        let acceptor = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a client that hangs up ends the waiting, not the work.
            let _permit = permit;
            work(&acceptor)
        });
        task.await.unwrap_or_else(|_| Err(unavailable("decoding was interrupted")))
    }

    /// Checks the signature, which is over the body as sent.
    fn open(&self, arrival: Arrival, limits: &Limits) -> Result<Opened, Problem> {
        let Arrival { app, body, gzip, signature, received_at, held } = arrival;
        let age = limits.wire.signature_age_ms;
        let signature = match &app.secret {
            Some(secret) => Some(Signature::check(signature.as_deref(), secret, &body, received_at, age)?),
            None => None,
        };
        self.telemetry.body_bytes.inc_by(body.len() as u64);
        // A proxy may have unpacked the body and left the header as it was.
        let is_gzip = inflate::is_gzip(&body) || gzip && !starts_like_json(&body);
        let text = if is_gzip {
            Text::Gzip(Box::new(Inflation::new(body)))
        } else {
            inflate::check_size(body.len() as u64, limits.wire.decompressed_bytes)?;
            Text::Plain(body)
        };
        Ok(Opened { app, signature, received_at, text, held })
    }

    /// Inflates what is left to inflate, decodes and prepares.
    fn finish(&self, opened: Opened, limits: &Limits) -> Result<Decoded, Problem> {
        let Opened { app, signature, received_at, text, mut held } = opened;
        let limits = &limits.wire;
        let json = match text {
            Text::Plain(body) => body,
            Text::Gzip(mut inflation) => {
                inflation.run(usize::MAX, limits.decompressed_bytes, &mut held)?;
                inflation.done().into()
            }
        };
        self.telemetry.decompressed_bytes.inc_by(json.len() as u64);
        // What is decoded from it is about as large again.
        held.grow(json.len() as u64)?;
        let batch = decode(&json, limits)?;
        let count = batch.events.len() as u64;
        // Every store keeps what is common with each event.
        let common = batch.common.map_or(0, |common| common.get().len() as u64);
        let bytes = json.len() as u64 + common * count.saturating_sub(1);
        app.quota.events(count, bytes, Instant::now()).map_err(|exceeded| {
            self.telemetry.count_rate_limited(exceeded.limited);
            too_many(&exceeded)
        })?;
        let incoming = wire::incoming(&app.key, &batch, received_at);
        let events = batch.events.iter().map(|raw| wire::event(raw, limits));
        let prepared = pipeline::prepare(&incoming, events, limits, app.past_days);
        // From here on only the prepared text and the record made of it are held.
        held.resize(prepared.bytes())?;
        Ok(Decoded { prepared, signature, held })
    }
}

#[cfg(test)]
mod tests;
