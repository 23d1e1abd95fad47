//! Files that are still being written, which are removed if the writing is abandoned.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;

/// Path of a file that is removed on drop unless it was kept.
pub(super) struct PartialFile(PathBuf);

impl PartialFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps the file, which is complete.
    pub(super) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_file(&self.0)
        {
            tracing::warn!(file = %self.0.display(), %error, "a file that was given up cannot be removed; the next start tries again");
        }
    }
}

/// Checks that the disk has space for `bytes` more. A full disk would stop all commits.
pub(super) fn check_free_space(folder: &Path, bytes: u64) -> io::Result<()> {
    match disk::free_bytes(folder) {
        Some(free) if free < bytes => {
            Err(io::Error::new(io::ErrorKind::StorageFull, format!("{bytes} bytes are needed, {free} are free")))
        }
        _ => Ok(()),
    }
}
