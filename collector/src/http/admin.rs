//! `/v1/admin/*`, with the admin token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use super::problem::Refusal;
use super::{Shared, authorization};
use crate::accept::Ledger;

/// The ledger, exact as of one commit.
pub(super) async fn ledger(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Ledger>, Refusal> {
    shared.live().keys.admin(authorization(&headers))?;
    Ok(Json(shared.ledger().await?))
}
