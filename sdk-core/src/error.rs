//! Errors of the client.

use std::fmt;

use subway_protocol::Violation;

use crate::store::StoreError;

/// Error when opening the client.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// The store could not be read.
    Store(StoreError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Store(error) => Some(error),
        }
    }
}

/// Rejection of an input. The client is otherwise unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackError {
    /// The input breaks a rule of the wire: field, limit and the value that was received.
    Invalid(Violation),
    /// The queue is full of events of the same or a higher priority.
    QueueFull,
    /// The user has not consented.
    ConsentDenied,
}

/// Writes one English sentence without a full stop.
impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrackError::Invalid(violation) => violation.fmt(f),
            TrackError::QueueFull => {
                f.write_str("queue_full: the queue holds only events that matter at least as much")
            }
            TrackError::ConsentDenied => f.write_str("consent_denied: the user has not consented"),
        }
    }
}

impl std::error::Error for TrackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TrackError::Invalid(violation) => Some(violation),
            TrackError::QueueFull | TrackError::ConsentDenied => None,
        }
    }
}
