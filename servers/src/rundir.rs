//! Folders for the data of one instance. They are removed on drop; what a killed process left behind is removed by the
//! next one that starts a server.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How the folders begin.
const PREFIX: &str = "subway-server-";
/// The file that a living owner holds locked.
const LOCK: &str = "owner.lock";
/// A folder without a lock file may be one that is being made just now; after this it is not.
const NEWBORN: Duration = Duration::from_secs(60);

/// A fresh folder, removed on drop.
pub(crate) struct RunDir {
    dir: TempDir,
    _lock: File,
}

impl RunDir {
    /// Makes a folder in the system's temporary folder.
    pub(crate) fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        // A sweep of another process can take a folder between its making and its locking: then another one.
        for _ in 0..5 {
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(&parent)
                .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
            let lock = File::create(dir.path().join(LOCK))?;
            if lock.try_lock().is_ok() && dir.path().exists() {
                return Ok(Self { dir, _lock: lock });
            }
        }
        bail!("cannot make a folder of our own in {}", parent.display())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Removes folders whose owner is dead. What cannot be removed is left: this is only tidiness.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn abandoned(dir: &Path) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => {
            let age = fs::metadata(dir).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > NEWBORN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_living_owner_is_kept_and_one_of_a_dead_owner_is_swept() {
        let alive = RunDir::new().unwrap();
        let dead = RunDir::new().unwrap();
        let dead_path = dead.path().to_path_buf();
        let RunDir { dir, _lock } = dead;
        let _ = dir.keep();
        drop(_lock);
        sweep(&std::env::temp_dir());
        assert!(alive.path().exists());
        assert!(!dead_path.exists());
    }
}
