//! `/v1/admin/*`, with the admin token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use super::problem::Refusal;
use super::{Shared, authorization};
use crate::accept::unavailable;
use crate::spool::Ledger;

/// The ledger, exact as of one commit.
pub(super) async fn ledger(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Ledger>, Refusal> {
    shared.keys.admin(authorization(&headers))?;
    let spool = shared.spool.clone();
    let ledger = tokio::task::spawn_blocking(move || spool.ledger()).await;
    match ledger {
        Ok(Ok(ledger)) => Ok(Json(ledger)),
        Ok(Err(error)) => Err(unavailable(&error.to_string()).into()),
        Err(_) => Err(unavailable("reading the ledger was interrupted").into()),
    }
}
