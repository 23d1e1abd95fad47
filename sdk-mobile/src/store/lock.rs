//! Lock that allows one client per data directory, across processes.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::OpenStoreError;

/// An advisory lock on a file beside the database. The operating system releases it when the process ends in any way,
/// so no stale lock can keep an app from starting.
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, OpenStoreError> {
        let unusable = |error: std::io::Error| {
            let named = std::io::Error::new(error.kind(), format!("lock file: {error}"));
            OpenStoreError::of(dir, named.into())
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("subway.lock"))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenStoreError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}
