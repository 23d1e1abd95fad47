//! Free space of the file system, read in one place.

use std::path::Path;

/// Returns the bytes that an unprivileged user can still write on the file system of `path`; `None` if the system does
/// not report them.
#[cfg(unix)]
#[must_use]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Returns the bytes that an unprivileged user can still write on the file system of `path`; `None` if the system does
/// not report them.
#[cfg(not(unix))]
#[must_use]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}
