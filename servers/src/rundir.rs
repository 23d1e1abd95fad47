//! Data folders of instances. They are removed on drop; those of a killed process are removed by the next process that
//! starts a server.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Prefix of the folders' names.
const PREFIX: &str = "subway-server-";
/// File that a living owner holds locked.
const LOCK: &str = "owner.lock";
/// Age from which a folder without a lock file counts as abandoned; a younger one may be in creation.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// A new folder, removed on drop.
pub(crate) struct RunDir {
    dir: TempDir,
    _lock: File,
}

impl RunDir {
    /// Creates a folder in the system's temporary folder.
    pub(crate) fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        remove_abandoned(&parent);
        // Another process can remove a folder between its creation and its locking. Then another one is created.
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

/// Removes folders whose owner is dead. Best effort: failures only leave files behind.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(dir: &Path) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => {
            let age = fs::metadata(dir).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > STARTUP_GRACE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_only_after_its_owner_died() {
        let alive = RunDir::new().unwrap();
        let dead = RunDir::new().unwrap();
        let dead_path = dead.path().to_path_buf();
        let RunDir { dir, _lock } = dead;
        let _ = dir.keep();
        drop(_lock);
        remove_abandoned(&std::env::temp_dir());
        assert!(alive.path().exists());
        assert!(!dead_path.exists());
    }
}
