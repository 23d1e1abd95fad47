//! ClickHouse as a sink.

use std::sync::Arc;

use super::{Sink, SinkError};
use crate::config::{ClickHouse as Settings, Delivery};

/// Opens the sink. Nothing is sent yet.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
pub fn open(name: &str, _settings: &Settings, _delivery: &Delivery) -> Result<Arc<dyn Sink>, SinkError> {
    Err(SinkError::unfit(format!("{name}: the kind clickhouse is not built yet")))
}
