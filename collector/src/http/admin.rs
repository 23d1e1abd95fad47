//! `/v1/admin/*`, with the admin token.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::problem::Refusal;
use super::{Shared, authorization, segments};
use crate::accept::{Ledger, SinkListEntry, SinkRemoval};

/// Its addresses.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/admin/ledger", get(ledger))
        .route("/v1/admin/sinks", get(sinks))
        .route("/v1/admin/sinks/{name}", delete(forget))
        .route("/v1/admin/sinks/{name}/retire", post(retire))
}

/// The ledger, exact as of one commit.
async fn ledger(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Ledger>, Refusal> {
    shared.live().keys.admin(authorization(&headers))?;
    Ok(Json(shared.status().await?.ledger))
}

#[derive(Serialize)]
struct Sinks {
    sinks: Vec<SinkListEntry>,
    /// There is no further page.
    next: Option<String>,
}

async fn list(shared: &Shared) -> Result<Json<Sinks>, Refusal> {
    let sinks = shared.status().await?.ledger.sinks.into_iter();
    Ok(Json(Sinks { sinks: sinks.map(|(name, figures)| SinkListEntry::new(name, figures)).collect(), next: None }))
}

/// Every sink that ever was, but for those forgotten.
async fn sinks(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Sinks>, Refusal> {
    shared.live().keys.admin(authorization(&headers))?;
    list(&shared).await
}

/// Retires a sink that is not in the configuration; answers the list.
async fn retire(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Sinks>, Refusal> {
    end(&shared, path, &headers, SinkRemoval::Retire).await
}

/// Forgets a retired sink; answers the list.
async fn forget(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Sinks>, Refusal> {
    end(&shared, path, &headers, SinkRemoval::Forget).await
}

async fn end(
    shared: &Shared,
    path: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    how: SinkRemoval,
) -> Result<Json<Sinks>, Refusal> {
    shared.live().keys.admin(authorization(headers))?;
    shared.acceptor.end_sink(segments(path)?, how).await?;
    list(shared).await
}
