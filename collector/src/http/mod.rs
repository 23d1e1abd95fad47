//! HTTP: from requests to rooms and back. Nothing is decided here but shapes, sizes and statuses.
//!
//! [`ingest`] takes batches, [`query`], [`events`] and [`console`] read, [`admin`] and [`health`] operate. Every refusal is a problem
//! document, also those of the router itself.

pub(crate) mod admin;
pub(crate) mod client;
pub(crate) mod console;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod router;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Uri};
use subway_protocol::codec::server::{Problem, ProblemCode};

use crate::accept::{Acceptor, Budget, SpoolStatus, too_many};
use crate::auth::Keys;
use crate::config::{EMBEDDED, Limits, Network};
use crate::limit::{Clients, Exceeded, Rate};
use crate::process::Process;
use crate::query::{ReadBarrier, Reader};
use crate::telemetry::Telemetry;
use client::Peer;

/// What a configuration that is read again changes, all at once.
pub(crate) struct Live {
    /// Who may do what.
    pub keys: Keys,
    /// The limits in force.
    pub limits: Limits,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<Network>,
}

/// What the handlers share.
pub(crate) struct Shared {
    /// What can change while the collector runs. A request takes it once and finishes under it.
    pub live: ArcSwap<Live>,
    /// How often each client address asked.
    pub clients: Mutex<Clients>,
    /// Takes batches.
    pub acceptor: Arc<Acceptor>,
    /// Answers questions about stored events.
    pub reader: Arc<dyn Reader>,
    /// Lets a question wait for what was just accepted.
    pub read_barrier: Box<dyn ReadBarrier>,
    /// The collector's own counters.
    pub telemetry: Arc<Telemetry>,
    /// What the system says about the process.
    pub process: Process,
    /// The bytes of requests being worked on.
    pub budget: Arc<Budget>,
    /// Connections open now, those to a listener for operators aside.
    pub connections: Arc<AtomicU64>,
    /// Set once the collector drains.
    pub draining: AtomicBool,
}

impl Shared {
    /// Keys and limits as they are now.
    #[must_use]
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Whether the client of a request may ask now.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub(crate) fn admit(&self, live: &Live, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
        let limits = &live.limits;
        if limits.requests_per_second == 0 {
            return Ok(());
        }
        let client = client::origin(peer, headers, &live.proxies);
        let rate = Rate::new(limits.requests_per_second, limits.request_burst);
        // A poisoned lock guards a table whose entries are whole at every moment.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.take(client, rate, Instant::now()).map_err(|exceeded| self.limited(&exceeded))
    }

    /// Counts a refusal and puts it into words.
    fn limited(&self, exceeded: &Exceeded) -> Problem {
        self.telemetry.count_rate_limited(exceeded.limited);
        too_many(exceeded)
    }

    /// Whether a batch of some app could be accepted now.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the collector is shutting down".into());
        }
        self.acceptor.ready(self.live().keys.numbers())
    }

    /// Where every event went, with the embedded store as far as questions already find it, and since when what waits does.
    ///
    /// # Errors
    /// If the spool cannot be read now.
    pub(crate) async fn status(&self) -> Result<SpoolStatus, Problem> {
        self.acceptor.status(EMBEDDED, self.read_barrier.position()).await
    }
}

/// The value of the header `authorization`.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()
}

/// The variable parts of the address; one that is not text leads nowhere.
pub(crate) fn segments<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(parts)| parts).map_err(|_| Problem::new(ProblemCode::NotFound, "nothing is at this address".into()))
}

/// The decoded parameters of a query string.
pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    pairs.map(|Query(pairs)| pairs).map_err(|error| Problem::new(ProblemCode::InvalidParameter, error.to_string()))
}
