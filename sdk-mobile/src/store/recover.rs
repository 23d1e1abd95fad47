//! What is done about a damaged file: what can still be read of it goes into a new one, which takes its place, and it is
//! kept aside. The core counts what is missing then as lost by the storage, because the ledger is among the first records
//! to be saved.
//!
//! The new file is whole and on the medium before the damaged one is touched, because a medium that damages files is also
//! one that is full or away a moment later: a recovery that fails, or is killed, leaves everything to the next.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use subway_sdk_core::Key;

use super::{Trouble, table};

/// The database and what SQLite puts beside it. The database goes first: when it is gone, all the others are to follow.
const FILES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn aside(path: &Path) -> PathBuf {
    beside(path, ".damaged")
}

fn new(path: &Path) -> PathBuf {
    beside(path, ".new")
}

/// For the developer: what was done about the file at `path`; `records` is how many were saved, if that was just now.
pub(super) fn report(path: &Path, records: Option<usize>) -> String {
    let saved = match records {
        Some(records) => format!("{records} records were saved"),
        None => "what could be read of it was saved before".to_owned(),
    };
    format!("the store's file was damaged: {saved}, the file is kept as {}", aside(path).display())
}

/// Finishes what an earlier life began: the damaged file is out of its place already and the new one, which is whole then,
/// not yet there. `true` if that was so.
pub(super) fn finish(path: &Path) -> Result<bool, Trouble> {
    let new = new(path);
    if path.try_exists()? || !new.try_exists()? {
        return Ok(false);
    }
    table::refuse_newer(&new)?;
    replace(path)?;
    Ok(true)
}

/// Removes what an earlier life began to write beside a damaged file that is healthy again, or has been replaced since.
pub(super) fn tidy(path: &Path) {
    // What cannot be removed costs room and nothing else; the next recovery says so.
    let _ = remove_all(&new(path));
}

/// Replaces a file that could not be opened; the number of records that were saved.
pub(super) fn run(path: &Path) -> Result<usize, Trouble> {
    let records = {
        let broken = table::open_damaged(path).ok();
        save(broken.as_ref(), path)?
    };
    set_aside(path)?;
    Ok(records)
}

/// Writes what can be read of the damaged file into a new one; how many records that are. Nothing else is changed.
pub(super) fn save(broken: Option<&Connection>, path: &Path) -> Result<usize, Trouble> {
    let records = broken.map(salvage).unwrap_or_default();
    let new = new(path);
    remove_all(&new)?;
    if let Err(error) = table::create(&new, &records) {
        // What was written of it takes room that others need; if it stays, the next attempt removes it.
        let _ = remove_all(&new);
        return Err(error.into());
    }
    sync_folder(path);
    Ok(records.len())
}

/// Puts the new file in the place of the damaged one, which nobody has open. Only the latest damaged file is kept, so that
/// a medium that fails again and again cannot fill itself.
pub(super) fn set_aside(path: &Path) -> io::Result<()> {
    remove_all(&aside(path))?;
    replace(path)
}

/// What of this was done already is not done again.
fn replace(path: &Path) -> io::Result<()> {
    let aside = aside(path);
    for suffix in FILES {
        // A log that stayed would be taken for the new file's.
        unless_missing(std::fs::rename(beside(path, suffix), beside(&aside, suffix)))?;
    }
    sync_folder(path);
    std::fs::rename(new(path), path)?;
    sync_folder(path);
    Ok(())
}

/// Whatever can be read: from the beginning up to the first damaged page, and from the end down to the last.
fn salvage(connection: &Connection) -> BTreeMap<Key, String> {
    let mut records = Vec::new();
    for sql in ["SELECT id, value FROM record ORDER BY id", "SELECT id, value FROM record ORDER BY id DESC"] {
        // The error is why this runs at all; what was read before it counts.
        let _ = table::read_into(connection, sql, &mut records);
    }
    records.into_iter().collect()
}

/// Erases the damaged file and what was saved of it, because the person in it asked to be forgotten.
pub(super) fn erase_damaged(path: &Path) {
    // Usually there is none; one that cannot be removed is in nobody's power here.
    let _ = remove_all(&aside(path));
    let _ = remove_all(&new(path));
}

fn remove_all(path: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|suffix| unless_missing(std::fs::remove_file(beside(path, suffix))))
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes the names around `path` last. Not every system can; there a loss of power may undo a rename, but not reorder
/// what the file system's own journal keeps in order.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}
