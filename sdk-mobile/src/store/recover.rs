//! Recovery from a damaged file: its readable records go into a new file, which takes its place, and it is quarantined.
//!
//! The core counts missing events as lost by the storage, because the ledger is among the first records that are
//! recovered.
//!
//! The new file is complete and on the medium before the damaged one is touched, because a medium that damages files is
//! often full or gone soon after. A recovery that fails or is killed can always be repeated.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use subway_sdk_core::Key;

use super::FileError;
use super::table::{self, Order};

/// Suffixes of the database and of SQLite's files beside it. The database is renamed first: once it is gone, the others
/// follow.
const FILES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn quarantine_path(path: &Path) -> PathBuf {
    sibling_path(path, ".damaged")
}

fn replacement_path(path: &Path) -> PathBuf {
    sibling_path(path, ".new")
}

/// Returns the report on the file at `path`. `records` is the number of recovered records, unless an earlier run did
/// it.
pub(super) fn report(path: &Path, records: Option<usize>) -> String {
    let saved = match records {
        Some(records) => format!("{records} records were saved"),
        None => "what could be read of it was saved before".to_owned(),
    };
    format!("the store's file was damaged: {saved}, the file is kept as {}", quarantine_path(path).display())
}

/// Finishes a recovery that an earlier run began: the damaged file is moved already, and the new one, which is complete
/// then, is not in its place yet. Returns `true` if this was the case.
pub(super) fn finish_interrupted(path: &Path) -> Result<bool, FileError> {
    let new = replacement_path(path);
    if path.try_exists()? || !new.try_exists()? {
        return Ok(false);
    }
    table::refuse_newer(&new)?;
    swap_files(path)?;
    Ok(true)
}

/// Removes the incomplete new file of an earlier run, if the damaged file is readable again or was replaced since.
pub(super) fn remove_incomplete(path: &Path) {
    // A file that cannot be removed only takes space; the next recovery reports it.
    let _ = remove_all(&replacement_path(path));
}

/// Replaces a file that could not be opened. Returns the number of recovered records.
pub(super) fn rebuild(path: &Path) -> Result<usize, FileError> {
    let records = {
        let broken = table::open_damaged(path).ok();
        write_replacement(broken.as_ref(), path)?
    };
    quarantine(path)?;
    Ok(records)
}

/// Writes the readable records of the damaged file into a new one and returns their number. Changes nothing else.
pub(super) fn write_replacement(broken: Option<&Connection>, path: &Path) -> Result<usize, FileError> {
    let records = broken.map(recover_rows).unwrap_or_default();
    let new = replacement_path(path);
    remove_all(&new)?;
    if let Err(error) = table::create(&new, &records) {
        // An incomplete file takes space that others need. If it stays, the next attempt removes it.
        let _ = remove_all(&new);
        return Err(error.into());
    }
    sync_dir(path);
    Ok(records.len())
}

/// Puts the new file in the place of the damaged one, which must be closed. Only the latest damaged file is kept, so
/// that a medium that fails repeatedly does not fill up.
pub(super) fn quarantine(path: &Path) -> io::Result<()> {
    remove_all(&quarantine_path(path))?;
    swap_files(path)
}

/// Renames the files. Steps that are done already are skipped.
fn swap_files(path: &Path) -> io::Result<()> {
    let quarantined = quarantine_path(path);
    for suffix in FILES {
        // A log that stayed would be taken for the new file's.
        ignore_missing(std::fs::rename(sibling_path(path, suffix), sibling_path(&quarantined, suffix)))?;
    }
    sync_dir(path);
    std::fs::rename(replacement_path(path), path)?;
    sync_dir(path);
    Ok(())
}

/// Reads all readable records: from the beginning up to the first damaged page, and from the end down to the last.
fn recover_rows(connection: &Connection) -> BTreeMap<Key, String> {
    let mut records = Vec::new();
    for order in [Order::Ascending, Order::Descending] {
        // An error is expected in a damaged file; the records before it count.
        let _ = table::read_into(connection, order, &mut records);
    }
    records.into_iter().collect()
}

/// Erases the quarantined file and the new one, because the person in them withdrew consent.
pub(super) fn erase_damaged(path: &Path) {
    // Best effort: the files rarely exist, and nothing can be done if deleting them fails.
    let _ = remove_all(&quarantine_path(path));
    let _ = remove_all(&replacement_path(path));
}

fn remove_all(path: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|suffix| ignore_missing(std::fs::remove_file(sibling_path(path, suffix))))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes renames around `path` durable. Some systems cannot; there a loss of power can undo a rename, but not reorder
/// what the file system's own journal keeps in order.
fn sync_dir(path: &Path) {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}
