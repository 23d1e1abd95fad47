//! What can go wrong in the spool.

use crate::db::DbError;

/// Why the spool could not do something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The database fails: disk full, damaged file, lock not to be had.
    #[error("the spool's database fails: {0}")]
    Db(#[from] DbError),
    /// The transaction of this and other writes could not be committed; none of it is kept.
    #[error("the commit failed and nothing of it is kept: {0}")]
    Commit(String),
    /// The operating system refuses something else.
    #[error("{0}")]
    Io(String),
    /// Too many writes wait for the disk already.
    #[error("too many writes wait for the disk")]
    Busy,
    /// The spool has been closed.
    #[error("the spool is closed")]
    Closed,
    /// No such sink has been registered.
    #[error("no sink is named {0}")]
    UnknownSink(String),
    /// A sink that is in the configuration cannot be retired.
    #[error("the sink {0} is in the configuration; take it out there and restart the collector first")]
    SinkInUse(String),
    /// Only a retired sink can be forgotten.
    #[error("the sink {0} is not retired; retire it first")]
    NotRetired(String),
    /// A range that does not follow the sink's cursor, or is not the frozen one.
    #[error("the sink {sink} cannot {verb} {first}..={last}: {why}")]
    BadRange {
        /// Which sink.
        sink: String,
        /// What was asked for.
        verb: &'static str,
        /// First position.
        first: u64,
        /// Last position.
        last: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> Self {
        SpoolError::Db(DbError::Sqlite(error))
    }
}

impl SpoolError {
    /// Whether the transaction in which it happened must be rolled back.
    pub(super) fn aborts(&self) -> bool {
        matches!(self, SpoolError::Db(_) | SpoolError::Commit(_) | SpoolError::Io(_))
    }
}
