//! Errors of the database file.

use std::io;

use subway_sdk_core::StoreError;

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The file has this version, which is later than ours.
    #[error("the file is of a later version: {0}")]
    Newer(i64),
    /// The file is damaged, and this error kept it from being replaced.
    #[error("the file is damaged and cannot be replaced now: {0}")]
    ReplaceFailed(#[source] Box<FileError>),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FileError {
    /// Returns whether the medium is full.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Newer(_) => false,
            Self::ReplaceFailed(cause) => cause.is_full(),
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        if error.is_full() { StoreError::full(error.to_string()) } else { StoreError::failed(error.to_string()) }
    }
}
