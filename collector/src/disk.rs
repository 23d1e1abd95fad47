//! How much room the file system has, asked in one place.

use std::path::Path;

/// Bytes that an ordinary user may still write on the file system of `path`; `None` where the system does not say.
#[cfg(unix)]
#[must_use]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Bytes that an ordinary user may still write on the file system of `path`; `None` where the system does not say.
#[cfg(not(unix))]
#[must_use]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}
