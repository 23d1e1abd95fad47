//! The console page.

use std::sync::Arc;

use axum::Router;

use super::Shared;

/// Its addresses.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
}
