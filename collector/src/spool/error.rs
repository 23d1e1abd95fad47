//! Errors of the spool.

use std::io;

use crate::db::DbError;

/// Reason why an operation of the spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The database failed: disk full, file damaged, or locked for too long.
    #[error("the spool's database fails: {0}")]
    Db(#[from] DbError),
    /// The transaction with this and other tasks was not committed. None of it is stored.
    #[error("the commit failed and nothing of it is kept: {0}")]
    Commit(String),
    /// An operation on a file or a thread failed.
    #[error("{context}: {source}")]
    Io {
        /// File, or what was done.
        context: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another operation failed, as the text says.
    #[error("{0}")]
    Other(String),
    /// The queue of the writer is full.
    #[error("too many writes wait for the disk")]
    Busy,
    /// The spool has been closed.
    #[error("the spool is closed")]
    Closed,
    /// No sink of this name is registered.
    #[error("no sink is named {0}")]
    UnknownSink(String),
    /// A sink that is in the configuration cannot be retired.
    #[error("the sink {0} is in the configuration; take it out there and restart the collector first")]
    SinkInUse(String),
    /// Only a retired sink can be forgotten.
    #[error("the sink {0} is not retired; retire it first")]
    NotRetired(String),
    /// The range does not follow the sink's cursor, or differs from the frozen batch.
    #[error("the sink {sink} cannot {verb} {first}..={last}: {why}")]
    BadRange {
        /// Name of the sink.
        sink: String,
        /// Operation that was requested.
        verb: &'static str,
        /// First position of the range.
        first: u64,
        /// Last position of the range.
        last: u64,
        /// What is wrong with the range.
        why: String,
    },
}

/// Reason why the spool cannot store events now: the error of the last commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpoolUnhealthy(pub(super) String);

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> Self {
        SpoolError::Db(DbError::Sqlite(error))
    }
}

impl SpoolError {
    /// Adds what was done, or to which file, to an error of the operating system.
    pub(super) fn io(context: impl Into<String>, source: io::Error) -> Self {
        SpoolError::Io { context: context.into(), source }
    }

    /// Returns whether the transaction in which the error occurred must be rolled back.
    pub(super) fn aborts(&self) -> bool {
        matches!(self, SpoolError::Db(_) | SpoolError::Commit(_) | SpoolError::Io { .. } | SpoolError::Other(_))
    }
}
