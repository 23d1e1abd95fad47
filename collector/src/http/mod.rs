//! HTTP: from requests to rooms and back. Nothing is decided here but shapes, sizes and statuses.
//!
//! [`ingest`] takes batches, [`query`] and [`console`] read, [`admin`] and [`health`] operate. Every refusal is a problem
//! document, also those of the router itself.

pub mod admin;
pub mod console;
pub mod health;
pub mod ingest;
pub mod problem;
pub mod query;
pub mod router;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::http::HeaderMap;

use subway_protocol::codec::server::Problem;

use crate::accept::{Acceptor, Budget, Ledger};
use crate::auth::Keys;
use crate::config::{EMBEDDED, Limits};
use crate::query::{Freshness, Reader};
use crate::telemetry::Telemetry;

/// What the handlers share.
pub struct Shared {
    /// Who may do what.
    pub keys: Keys,
    /// The limits in force.
    pub limits: Limits,
    /// Takes batches.
    pub acceptor: Arc<Acceptor>,
    /// Answers questions about stored events.
    pub reader: Arc<dyn Reader>,
    /// Lets a question wait for what was just accepted.
    pub freshness: Box<dyn Freshness>,
    /// The collector's own counters.
    pub telemetry: Arc<Telemetry>,
    /// The bytes of requests being worked on.
    pub budget: Arc<Budget>,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Set once the collector drains.
    pub draining: AtomicBool,
}

impl Shared {
    /// Whether a batch could be accepted now.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the collector is shutting down".into());
        }
        self.acceptor.ready()
    }

    /// Where every event went, with the embedded store as far as questions already find it.
    ///
    /// # Errors
    /// If the spool cannot be read now.
    pub async fn ledger(&self) -> Result<Ledger, Problem> {
        let position = self.freshness.position();
        Ok(self.acceptor.ledger().await?.reached(EMBEDDED, position))
    }
}

/// The value of the header `authorization`.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()
}
