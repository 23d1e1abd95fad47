//! Errors of the native binding.

use subway_sdk_core as core;

use crate::store::OpenStoreError;

/// Error when opening the SDK.
#[derive(Debug, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum OpenError {
    /// A setting is invalid; the text names it.
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
            OpenStoreError::Unusable { .. } | OpenStoreError::Newer { .. } | OpenStoreError::Unavailable { .. } => {
                OpenError::System(error.to_string())
            }
        }
    }
}

/// Rejection of an event or a call. The ledger counts a rejected event; the SDK is otherwise unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum TrackError {
    /// The input breaks a rule of the wire; the text names the field, the limit and the value that was received.
    #[error("{0}")]
    Invalid(String),
    /// Events arrive faster than they can be stored.
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
