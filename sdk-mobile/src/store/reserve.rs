//! Room on the medium that is kept back for deletions: a file that is removed when nothing else can be written.

use std::path::{Path, PathBuf};

use subway_sdk_core::StoreWrite;

/// Its size. Deleting a batch of the largest size writes each of its pages into the log once.
pub(super) const BYTES: usize = 512 * 1024;
/// What may be written beside deletions when the reserve is given up for them, bytes: the state.
const VALUES: usize = 64 * 1024;
/// After it was given up it is tried to be taken again once in so many commits, because on a full medium that costs more
/// than a commit.
const RENEW_COMMITS: u32 = 64;

/// The file, or the place where it should be.
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
    commits: u32,
}

impl Reserve {
    /// Takes it, or takes over the one of an earlier life. A medium that has no room for it gets along without.
    pub(super) fn take(dir: &Path) -> Self {
        let path = dir.join("subway.reserve");
        let there = std::fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64);
        let mut reserve = Self { path, held: there, commits: 0 };
        if !there {
            reserve.write();
        }
        reserve
    }

    fn write(&mut self) {
        // Not zeros, which some file systems store as nothing.
        self.held = std::fs::write(&self.path, vec![0x5a; BYTES]).is_ok();
        if !self.held {
            // What was written of it takes room that others need.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Removes it; `true` if that made room.
    pub(super) fn give_up(&mut self) -> bool {
        self.commits = 0;
        std::mem::take(&mut self.held) && std::fs::remove_file(&self.path).is_ok()
    }

    /// A commit has succeeded: now and then the reserve is taken again, if it was given up.
    pub(super) fn renew(&mut self) {
        if !self.held {
            self.commits += 1;
            if self.commits.is_multiple_of(RENEW_COMMITS) {
                self.write();
            }
        }
    }
}

/// Whether these changes are such that the reserve is for.
pub(super) fn makes_room(writes: &[StoreWrite<'_>]) -> bool {
    let values: usize = writes.iter().filter_map(|write| write.value).map(str::len).sum();
    values <= VALUES && writes.iter().any(|write| write.value.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_given_up_and_taken_again_after_a_while() {
        let dir = tempfile::TempDir::new().unwrap();
        let size = || std::fs::metadata(dir.path().join("subway.reserve")).map(|file| file.len()).ok();
        let mut reserve = Reserve::take(dir.path());
        assert_eq!(size(), Some(BYTES as u64));
        assert!(reserve.give_up() && size().is_none());
        assert!(!reserve.give_up(), "there is nothing more to give");
        for _ in 0..RENEW_COMMITS - 1 {
            reserve.renew();
        }
        assert_eq!(size(), None);
        reserve.renew();
        assert_eq!(size(), Some(BYTES as u64));
        assert!(Reserve::take(dir.path()).held, "a later life takes it over");
    }
}
