//! Space on the medium that is reserved for deletions: a file that is removed when nothing else can be written.

use std::path::{Path, PathBuf};

use subway_sdk_core::StoreWrite;

/// Size of the file. Deleting a batch of the largest size writes each of its pages into the log once.
pub(super) const BYTES: usize = 512 * 1024;
/// Largest size of values in a commit that may use the reserve, bytes: the state beside deletions.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Number of commits between two attempts to create the file again, because on a full medium an attempt costs more than
/// a commit.
const REACQUIRE_COMMITS: u32 = 64;

/// The reserve file, or its path while it does not exist.
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
    commits: u32,
}

impl Reserve {
    /// Creates the file, or adopts the one of an earlier run. Continues without one if the medium has no space.
    pub(super) fn acquire(dir: &Path) -> Self {
        let path = dir.join("subway.reserve");
        let there = std::fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64);
        let mut reserve = Self { path, held: there, commits: 0 };
        if !there {
            reserve.write();
        }
        reserve
    }

    fn write(&mut self) {
        // Not zeros, which some file systems store as a hole.
        self.held = std::fs::write(&self.path, vec![0x5a; BYTES]).is_ok();
        if !self.held {
            // An incomplete file takes space that others need.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Removes the file. Returns `true` if that freed space.
    pub(super) fn release(&mut self) -> bool {
        self.commits = 0;
        std::mem::take(&mut self.held) && std::fs::remove_file(&self.path).is_ok()
    }

    /// Creates the file again from time to time, if it was removed. Called after each successful commit.
    pub(super) fn reacquire(&mut self) {
        if !self.held {
            self.commits += 1;
            if self.commits.is_multiple_of(REACQUIRE_COMMITS) {
                self.write();
            }
        }
    }
}

/// Returns whether these writes may use the reserve: deletions and little else.
pub(super) fn frees_space(writes: &[StoreWrite<'_>]) -> bool {
    let values: usize = writes.iter().filter_map(|write| write.value).map(str::len).sum();
    values <= MAX_VALUE_BYTES && writes.iter().any(|write| write.value.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_released_and_acquired_again_later() {
        let dir = tempfile::TempDir::new().unwrap();
        let size = || std::fs::metadata(dir.path().join("subway.reserve")).map(|file| file.len()).ok();
        let mut reserve = Reserve::acquire(dir.path());
        assert_eq!(size(), Some(BYTES as u64));
        assert!(reserve.release() && size().is_none());
        assert!(!reserve.release(), "there is nothing more to give");
        for _ in 0..REACQUIRE_COMMITS - 1 {
            reserve.reacquire();
        }
        assert_eq!(size(), None);
        reserve.reacquire();
        assert_eq!(size(), Some(BYTES as u64));
        assert!(Reserve::acquire(dir.path()).held, "a later life takes it over");
    }
}
