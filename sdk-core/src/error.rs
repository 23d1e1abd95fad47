//! What a host is told when something cannot be done.

use std::fmt;

use subway_protocol::Violation;

use crate::store::StoreError;

/// The client could not be opened.
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

impl std::error::Error for OpenError {}

/// An input was refused; nothing else is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackError {
    /// A rule of the wire is broken: the field, the limit and what came.
    Invalid(Violation),
    /// The queue is full of events that matter at least as much.
    QueueFull,
    /// The user has not consented.
    ConsentDenied,
}

impl TrackError {
    /// One English sentence without a full stop.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            TrackError::Invalid(violation) => violation.to_string(),
            TrackError::QueueFull => {
                String::from("queue_full: the queue holds only events that matter at least as much")
            }
            TrackError::ConsentDenied => String::from("consent_denied: the user has not consented"),
        }
    }
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl std::error::Error for TrackError {}
