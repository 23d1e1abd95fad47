//! Elasticsearch as a sink.

use std::sync::Arc;

use super::{Sink, SinkError};
use crate::config::{Delivery, Elasticsearch as Settings};

/// Opens the sink. Nothing is sent yet.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
pub fn open(
    name: &str,
    _settings: &Settings,
    _delivery: &Delivery,
    _zones: &[(String, String)],
) -> Result<Arc<dyn Sink>, SinkError> {
    Err(SinkError::unfit(format!("{name}: the kind elasticsearch is not built yet")))
}
