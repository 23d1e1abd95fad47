//! Serves `/v1/admin/*`, for the admin token.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::problem::ProblemResponse;
use super::{AppState, authorization, path_segments};
use crate::accept::{Ledger, SinkListEntry, SinkRemoval};

/// Returns the routes of the administration.
pub(super) fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/admin/ledger", get(ledger))
        .route("/v1/admin/sinks", get(sinks))
        .route("/v1/admin/sinks/{name}", delete(forget))
        .route("/v1/admin/sinks/{name}/retire", post(retire))
}

/// Answers the ledger as of one commit.
async fn ledger(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Result<Json<Ledger>, ProblemResponse> {
    state.current().registry.authorize_admin(authorization(&headers))?;
    Ok(Json(state.status().await?.ledger))
}

#[derive(Serialize)]
struct SinksResponse {
    sinks: Vec<SinkListEntry>,
    /// Always `null`: there is one page.
    next: Option<String>,
}

async fn list(state: &AppState) -> Result<Json<SinksResponse>, ProblemResponse> {
    let sinks = state.status().await?.ledger.sinks.into_iter();
    Ok(Json(SinksResponse {
        sinks: sinks.map(|(name, figures)| SinkListEntry::new(name, figures)).collect(),
        next: None,
    }))
}

/// Answers every sink that was ever configured, except forgotten ones.
async fn sinks(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Result<Json<SinksResponse>, ProblemResponse> {
    state.current().registry.authorize_admin(authorization(&headers))?;
    list(&state).await
}

/// Retires a sink that is not in the configuration, and answers the list.
async fn retire(
    State(state): State<Arc<AppState>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<SinksResponse>, ProblemResponse> {
    end(&state, path, &headers, SinkRemoval::Retire).await
}

/// Forgets a retired sink, and answers the list.
async fn forget(
    State(state): State<Arc<AppState>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<SinksResponse>, ProblemResponse> {
    end(&state, path, &headers, SinkRemoval::Forget).await
}

async fn end(
    state: &AppState,
    path: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    how: SinkRemoval,
) -> Result<Json<SinksResponse>, ProblemResponse> {
    state.current().registry.authorize_admin(authorization(headers))?;
    state.ingestor.end_sink(path_segments(path)?, how).await?;
    list(state).await
}
