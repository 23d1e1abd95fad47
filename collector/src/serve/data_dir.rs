//! Data directory: a lock that admits one process, and the tokens that are stored in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::{Secret, TlsError};
use crate::db::{DbError, refuse_newer_file};
use crate::fanout::FanoutError;
use crate::sinks::{SinkError, sqlite};
use crate::spool::{self, SpoolError};

/// File that the process keeps locked.
const LOCK_FILE: &str = "lock";

/// File with the path of the configuration that the collector last ran with; empty if it ran without one.
pub(crate) const CONFIG_PATH: &str = "config-path";

/// Random bytes in a token.
const TOKEN_BYTES: usize = 24;

/// Reason why a collector could not start or continue.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has locked the data directory.
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The data directory cannot be used.
    #[error("{}: {why}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
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
    /// A panic interrupted the start.
    #[error("opening was broken off: {0}")]
    Interrupted(String),
    /// The certificate or its key cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The listener has no address.
    #[error("cannot listen: {0}")]
    Listen(String),
}

/// Data directory that is locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::Io { path, why: error.to_string() }
}

/// Refuses a data directory that a newer collector has written, and changes nothing in it. For processes that do not
/// lock it.
///
/// Beside a running collector nothing is refused here, because its log cannot be read while it is written; SQLite
/// reports the same later.
///
/// # Errors
/// If one of its databases is newer than this collector, or cannot be read.
pub(crate) fn refuse_newer_at_rest(path: &Path) -> Result<(), StartError> {
    let Err(error) = refuse_newer(path) else { return Ok(()) };
    // Locked only in this case, because a collector cannot start in this moment.
    let lock = File::open(path.join(LOCK_FILE)).map(|lock| lock.try_lock_shared());
    if matches!(lock, Ok(Err(TryLockError::WouldBlock))) { Ok(()) } else { Err(error) }
}

/// Does the same for a process that has locked the directory and not opened its databases yet.
fn refuse_newer(path: &Path) -> Result<(), StartError> {
    refuse_newer_file(&path.join(spool::FILE), spool::MIGRATIONS.len()).map_err(SpoolError::from)?;
    Ok(refuse_newer_file(&path.join(sqlite::FILE), sqlite::MIGRATIONS.len())?)
}

impl DataDir {
    /// Creates the directory if needed, and locks it. A directory that a newer collector has written stays unchanged.
    ///
    /// # Errors
    /// [`StartError::InUse`], a database that is newer than this collector, or a directory that cannot be created or
    /// written.
    pub(crate) fn lock(path: &Path) -> Result<Self, StartError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        // Events are personal data. An operator who wants others to read them can change the mode.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(io_error(path))?;
        let file = path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&file).map_err(io_error(&file))?;
        match lock.try_lock() {
            Ok(()) => {
                refuse_newer(path)?;
                Ok(Self { path: path.to_owned(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(StartError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(io_error(&file)(error)),
        }
    }

    /// Returns the path of the directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the token in the file `name`, which is created with a random one if it does not exist. The log names the
    /// file, never the token.
    ///
    /// # Errors
    /// If the file cannot be read or created, or is empty.
    pub(crate) fn token(&self, name: &str, label: &str) -> Result<Secret, StartError> {
        let path = self.path.join(name);
        if !path.exists() {
            self.create_token(&path, name)?;
            tracing::info!(file = %path.display(), "created the {label}");
        }
        let token = std::fs::read_to_string(&path).map_err(io_error(&path))?;
        let token = token.trim();
        if token.is_empty() {
            return Err(StartError::Io {
                path,
                why: format!("the file of the {label} is empty; delete it to get a new one"),
            });
        }
        tracing::info!(file = %path.display(), "the {label} is in this file");
        Ok(Secret::new(token.to_owned()))
    }

    fn create_token(&self, path: &Path, name: &str) -> Result<(), StartError> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| StartError::Io { path: path.to_owned(), why: error.to_string() })?;
        self.write(name, &format!("{}\n", hex::encode(bytes)))
    }

    /// Writes the file `name` with mode 0600. It is written beside its place and renamed, so that a crash leaves no
    /// partial file.
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
        let mut file = options.open(&draft).map_err(io_error(&draft))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error(&draft))?;
        std::fs::rename(&draft, &path).map_err(io_error(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::lock(&path).unwrap();
        assert!(matches!(DataDir::lock(&path), Err(StartError::InUse(_))));
        drop(first);
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::lock(dir.path()).unwrap();
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
