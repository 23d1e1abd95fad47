//! The data directory: one process at a time, and the tokens that are kept in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::db::{DbError, refuse_newer_file};
use crate::fanout::FanoutError;
use crate::sinks::{SinkError, sqlite};
use crate::spool::{self, SpoolError};

/// The file that the process holds locked.
const LOCK: &str = "lock";

/// The file that says with which configuration file the collector last ran; empty without one.
pub(crate) const CONFIG_PATH: &str = "config-path";

/// Random bytes in a token.
const TOKEN_BYTES: usize = 24;

/// Why a collector could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory.
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The data directory cannot be used.
    #[error("{}: {why}", path.display())]
    Io {
        /// What was tried.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The embedded store cannot be opened.
    #[error("the embedded store: {0}")]
    Store(#[from] DbError),
    /// A sink's settings cannot be used.
    #[error("the sink {0}: {1}")]
    Sink(String, SinkError),
    /// A sink cannot be served.
    #[error(transparent)]
    Fanout(#[from] FanoutError),
    /// The spool's writer has ended by itself.
    #[error("the spool's writer has ended unexpectedly")]
    WriterEnded,
    /// Opening was broken off by a defect.
    #[error("opening was broken off: {0}")]
    Interrupted(String),
    /// The certificate or its key cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    /// The address cannot be listened on.
    #[error("cannot listen: {0}")]
    Listen(String),
}

/// A data directory that this process has to itself until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::Io { path, why: error.to_string() }
}

/// Refuses a data directory that a newer collector has written, without touching anything in it; for a process that does not
/// take it. Beside a collector that runs nothing is refused here: its log cannot be read while it is written, and SQLite
/// says the same later on.
///
/// # Errors
/// If one of its databases is newer than this collector, or cannot be read.
pub(crate) fn refuse_newer_at_rest(path: &Path) -> Result<(), StartError> {
    let Err(error) = refuse_newer(path) else { return Ok(()) };
    // Asked only now: for this moment a collector could not start.
    let lock = File::open(path.join(LOCK)).map(|lock| lock.try_lock_shared());
    if matches!(lock, Ok(Err(TryLockError::WouldBlock))) { Ok(()) } else { Err(error) }
}

/// The same for a process that has the directory to itself and has not opened its databases yet.
fn refuse_newer(path: &Path) -> Result<(), StartError> {
    refuse_newer_file(&path.join(spool::FILE), spool::MIGRATIONS.len()).map_err(SpoolError::from)?;
    Ok(refuse_newer_file(&path.join(sqlite::FILE), sqlite::MIGRATIONS.len())?)
}

impl DataDir {
    /// Makes the directory if needed and takes it. One that a newer collector has written is left exactly as it is.
    ///
    /// # Errors
    /// [`StartError::InUse`], its databases are newer than this collector, or the directory cannot be made or written.
    pub(crate) fn take(path: &Path) -> Result<Self, StartError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        // Events are personal data; whoever wants others to read them can open the directory.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(io(path))?;
        let file = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&file).map_err(io(&file))?;
        match lock.try_lock() {
            Ok(()) => {
                refuse_newer(path)?;
                Ok(Self { path: path.to_owned(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(StartError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(&file)(error)),
        }
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token kept in the file `name`, which is made with a random one if it is not there. The log names the file,
    /// never the token.
    ///
    /// # Errors
    /// If the file cannot be read or made, or is empty.
    pub(crate) fn token(&self, name: &str, what: &str) -> Result<Secret, StartError> {
        let path = self.path.join(name);
        if !path.exists() {
            self.make_token(&path, name)?;
            tracing::info!(file = %path.display(), "made the {what}");
        }
        let token = std::fs::read_to_string(&path).map_err(io(&path))?;
        let token = token.trim();
        if token.is_empty() {
            return Err(StartError::Io {
                path,
                why: format!("the file of the {what} is empty; delete it to get a new one"),
            });
        }
        tracing::info!(file = %path.display(), "the {what} is in this file");
        Ok(Secret::new(token.to_owned()))
    }

    fn make_token(&self, path: &Path, name: &str) -> Result<(), StartError> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| StartError::Io { path: path.to_owned(), why: error.to_string() })?;
        self.write(name, &format!("{}\n", hex::encode(bytes)))
    }

    /// Writes the file `name`, for its owner alone: beside it and renamed, so that a crash leaves no half file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), StartError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft).map_err(io(&draft))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(&draft))?;
        std::fs::rename(&draft, &path).map_err(io(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::take(&path).unwrap();
        assert!(matches!(DataDir::take(&path), Err(StartError::InUse(_))));
        drop(first);
        DataDir::take(&path).unwrap();
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let token = data_dir.token("t", "token").unwrap();
        assert_eq!(token.expose().len(), TOKEN_BYTES * 2);
        assert_eq!(data_dir.token("t", "token").unwrap(), token);
        assert_ne!(data_dir.token("u", "token").unwrap(), token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(dir.path().join("t")).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        assert!(data_dir.token("empty", "token").is_err());
    }
}
