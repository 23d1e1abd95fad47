//! What a host is told when something cannot be done.

use subway_sdk_core as core;

use crate::store::OpenStoreError;

/// The SDK could not be opened.
#[derive(Debug, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum OpenError {
    /// A setting cannot be used; the text names it.
    #[error("{0}")]
    Config(String),
    /// Another client uses the data directory.
    #[error("{0}")]
    InUse(String),
    /// The data directory cannot be used, or no thread could be started.
    #[error("{0}")]
    System(String),
}

impl From<OpenStoreError> for OpenError {
    fn from(error: OpenStoreError) -> Self {
        match error {
            OpenStoreError::InUse(_) => OpenError::InUse(error.to_string()),
            OpenStoreError::Unusable { .. } | OpenStoreError::Newer { .. } | OpenStoreError::NotNow { .. } => {
                OpenError::System(error.to_string())
            }
        }
    }
}

/// An event or a call was refused. The ledger has counted a refused event; nothing else is affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum TrackError {
    /// A rule of the wire is broken; the text names the field, the limit and what came.
    #[error("{0}")]
    Invalid(String),
    /// Events come faster than they can be written down.
    #[error("queue_full: events come faster than they can be stored")]
    QueueFull,
    /// The SDK was closed.
    #[error("closed: the SDK was closed")]
    Closed,
}

impl From<core::protocol::Violation> for TrackError {
    fn from(violation: core::protocol::Violation) -> Self {
        TrackError::Invalid(violation.to_string())
    }
}
