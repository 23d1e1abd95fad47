//! What can be wrong with the file.

use std::io;

use subway_sdk_core::StoreError;

#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Of this version, later than ours.
    #[error("the file is of a later version: {0}")]
    Newer(i64),
    /// It is damaged, and this kept it from being replaced.
    #[error("the file is damaged and cannot be replaced now: {0}")]
    Unmended(Box<Trouble>),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Trouble {
    /// Whether the medium has no room.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Newer(_) => false,
            Self::Unmended(cause) => cause.is_full(),
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        if trouble.is_full() { StoreError::full(trouble.to_string()) } else { StoreError::failed(trouble.to_string()) }
    }
}
