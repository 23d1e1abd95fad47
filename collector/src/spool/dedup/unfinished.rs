//! Files of parts that are being written: one that is given up leaves nothing behind.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;

/// The path of a file that goes unless it is finished.
pub(super) struct Unfinished(PathBuf);

impl Unfinished {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The file is whole and stays.
    pub(super) fn finished(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_file(&self.0)
        {
            tracing::warn!(file = %self.0.display(), %error, "a file that was given up cannot be removed; the next start tries again");
        }
    }
}

/// Refuses to begin what cannot be ended: filling the disk up would stop the commits of everybody meanwhile.
pub(super) fn check_room(folder: &Path, bytes: u64) -> io::Result<()> {
    match disk::free_bytes(folder) {
        Some(free) if free < bytes => {
            Err(io::Error::new(io::ErrorKind::StorageFull, format!("{bytes} bytes are needed, {free} are free")))
        }
        _ => Ok(()),
    }
}
