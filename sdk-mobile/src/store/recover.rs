//! What is done about a damaged file: it is moved aside, and what can still be read of it goes into a new one. The core
//! counts what is missing then as lost by the storage, because the ledger is among the first records to be saved.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use subway_sdk_core::{Key, Write};

use super::table;

/// A new file with what was left of the old one.
pub(super) struct Recovered {
    pub(super) connection: Connection,
    records: usize,
    aside: PathBuf,
}

impl Recovered {
    pub(super) fn report(&self) -> String {
        format!(
            "the store's file was damaged: {} records were saved, the file is kept as {}",
            self.records,
            self.aside.display()
        )
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces the file at `path`. `broken` is the connection to it, if one could be opened. Only the latest damaged file is
/// kept, so that a medium that fails again and again cannot fill itself.
pub(super) fn run(broken: Option<Connection>, path: &Path) -> Result<Recovered, Box<dyn std::error::Error>> {
    let saved = broken.or_else(|| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok());
    let records = saved.as_ref().map(salvage).unwrap_or_default();
    drop(saved);
    let aside = beside(path, ".damaged");
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(path, suffix), beside(&aside, suffix));
        remove(&to)?;
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let mut connection = table::open(path)?;
    let writes: Vec<Write<'_>> = records.iter().map(|(key, value)| Write { key: *key, value: Some(value) }).collect();
    let transaction = connection.transaction()?;
    table::write(&transaction, &writes)?;
    transaction.commit()?;
    Ok(Recovered { connection, records: records.len(), aside })
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

/// Erases the damaged file, because the person in it asked to be forgotten.
pub(super) fn erase_damaged(path: &Path) {
    let aside = beside(path, ".damaged");
    for suffix in ["", "-wal", "-shm"] {
        // Usually there is none; one that cannot be removed is in nobody's power here.
        let _ = remove(&beside(&aside, suffix));
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
