//! HTTP layer. Parses requests, enforces body sizes and maps results to status codes; holds no business rules.
//!
//! [`ingest`] receives batches; [`query`], [`events`] and [`console`] read; [`admin`] and [`health`] are for operators.
//! Every refusal is an RFC 9457 problem, also those of the router itself.

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

use crate::accept::{Ingestor, NotReady, SharedBudget, SpoolStatus, too_many_requests};
use crate::auth::AppRegistry;
use crate::config::{EMBEDDED, Limits, Network};
use crate::limit::{ClientBuckets, RateLimitExceeded, TokenRate};
use crate::process::ProcessMetrics;
use crate::query::{ReadBarrier, Reader};
use crate::telemetry::Telemetry;
use client::PeerAddress;

/// State that a reload of the configuration replaces as a whole.
pub(crate) struct ReloadableState {
    /// Apps with their keys and tokens.
    pub registry: AppRegistry,
    /// Limits in force.
    pub limits: Limits,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub proxies: Vec<Network>,
}

/// State that all handlers share.
pub(crate) struct AppState {
    /// State that can change while the collector runs. A request loads it once and finishes under it.
    pub reloadable: ArcSwap<ReloadableState>,
    /// Rate limits of client addresses.
    pub clients: Mutex<ClientBuckets>,
    /// Ingests batches.
    pub ingestor: Arc<Ingestor>,
    /// Answers queries about stored events.
    pub reader: Arc<dyn Reader>,
    /// Lets a query wait for events that were acknowledged before it.
    pub read_barrier: Box<dyn ReadBarrier>,
    /// Metrics of the collector.
    pub telemetry: Arc<Telemetry>,
    /// Figures of the process from the operating system.
    pub process: ProcessMetrics,
    /// Memory of the requests in progress, bytes.
    pub memory_budget: Arc<SharedBudget>,
    /// Connections open now, without those to a listener for operators.
    pub connections: Arc<AtomicU64>,
    /// Set when the collector drains.
    pub draining: AtomicBool,
}

impl AppState {
    /// Returns the reloadable state in force.
    #[must_use]
    pub(crate) fn current(&self) -> Arc<ReloadableState> {
        self.reloadable.load_full()
    }

    /// Checks and counts a request against the rate limit of its client.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub(crate) fn admit(
        &self,
        current: &ReloadableState,
        peer: PeerAddress,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let limits = &current.limits;
        if limits.requests_per_second == 0 {
            return Ok(());
        }
        let client = client::client_key(peer, headers, &current.proxies);
        let rate = TokenRate::new(limits.requests_per_second, limits.request_burst);
        // Ignores mutex poisoning: the entries are consistent even if a holder panicked.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.take(client, rate, Instant::now()).map_err(|exceeded| self.rate_limited(&exceeded))
    }

    /// Counts a request over a rate limit, and returns its problem.
    fn rate_limited(&self, exceeded: &RateLimitExceeded) -> Problem {
        self.telemetry.count_rate_limited(exceeded.limit);
        too_many_requests(exceeded)
    }

    /// Checks whether a batch of at least one app could be stored now.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(NotReady::ShuttingDown);
        }
        self.ingestor.ready(self.current().registry.app_numbers())
    }

    /// Returns the ledger, and since when each sink has events waiting. The embedded store counts as far as queries
    /// read it.
    ///
    /// # Errors
    /// If the spool cannot be read now.
    pub(crate) async fn status(&self) -> Result<SpoolStatus, Problem> {
        self.ingestor.status(EMBEDDED, self.read_barrier.position()).await
    }
}

/// Returns the value of the header `authorization`.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()
}

/// Returns the variable segments of the path. A path that is not text is `not_found`.
pub(crate) fn path_segments<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(parts)| parts).map_err(|_| Problem::new(ProblemCode::NotFound, "nothing is at this address".into()))
}

/// Returns the decoded parameters of the query string.
pub(crate) fn query_pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let query_pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    query_pairs
        .map(|Query(query_pairs)| query_pairs)
        .map_err(|error| Problem::new(ProblemCode::InvalidParameter, error.to_string()))
}
