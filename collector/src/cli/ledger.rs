//! Reads the ledger of a data directory.

use std::path::Path;

use super::output::{Failure, runtime};
use crate::config::EMBEDDED;
use crate::db::DbError;
use crate::sinks::sqlite::StoredRows;
use crate::spool::{Ledger, SpoolReader};

/// Returns the ledger. The position of the embedded store is read from the store itself, because the cursor in the
/// spool lags behind it, and after a crash until the next start.
pub(super) fn ledger(data_dir: &Path) -> Result<Ledger, Failure> {
    let spool = SpoolReader::open(data_dir).map_err(runtime)?;
    let before = spool.ledger().map_err(runtime)?;
    if before.sinks.get(EMBEDDED).is_none_or(|sink| !sink.state.is_active()) {
        // A store that is switched off is not migrated, so it may have an older version.
        return Ok(before);
    }
    // Read before the ledger, which then has every event that the store has.
    let position = match StoredRows::open(data_dir).and_then(|store| store.position()) {
        Err(DbError::Absent(_)) => 0,
        position => position.map_err(|error| Failure::Runtime(format!("the embedded store: {error}")))?,
    };
    Ok(spool.ledger().map_err(runtime)?.with_delivered_position(EMBEDDED, position))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sinks::sqlite::{FILE, MIGRATIONS};
    use crate::spool::{Spool, SpoolSettings};

    #[test]
    fn a_store_of_an_older_version_matters_only_while_it_is_switched_on() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), &SpoolSettings::default(), Arc::default()).unwrap();
        drop(crate::db::open(&dir.path().join(FILE), &MIGRATIONS[..1]).unwrap());
        spool.register(&[EMBEDDED]).unwrap();
        let Err(Failure::Runtime(said)) = ledger(dir.path()) else { panic!("an older store is read") };
        assert!(said.contains("store.db has version 1; start this collector on it once"), "{said}");
        spool.register(&["ch"]).unwrap();
        assert!(ledger(dir.path()).is_ok());
    }
}
