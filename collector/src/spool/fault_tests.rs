//! What faults of the disk and of other processes leave behind: nothing.

use std::time::Duration;

use super::*;
use crate::db;

/// Longer than anything here takes; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &Settings::default(), Arc::default()).unwrap()
}

/// The connection of another process to the spool's database.
fn other(dir: &Path) -> rusqlite::Connection {
    let sql = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    sql.busy_timeout(PATIENCE).unwrap();
    sql
}

fn fail(spool: &Spool) {
    let planned: Result<(), SpoolError> = spool.call(|_| Err(SpoolError::Io("planned".into())));
    assert!(planned.is_err());
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn horizons_outlive_a_database_that_could_not_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let short = Horizon { age_ms: 1234, ..Horizon::default() };
    spool.set_horizons(Horizons { other: Horizon::default(), apps: [(1, short)].into() }).unwrap();
    let age = || spool.dedup_extents().get(&1).map(|extent| extent.age_ms);
    assert_eq!(age(), Some(1234));
    for table in ["install_clock", "part"] {
        let sql = other(dir.path());
        sql.execute_batch(&format!("ALTER TABLE {table} RENAME TO away")).unwrap();
        fail(&spool);
        eventually("it is not opened again", || spool.health().is_err_and(|why| why.contains(table)));
        sql.execute_batch(&format!("ALTER TABLE away RENAME TO {table}")).unwrap();
        eventually("it does not recover", || spool.health().is_ok());
        assert_eq!(age(), Some(1234), "{table}");
    }
}

#[test]
fn a_spool_that_cannot_be_written_anew_is_used_as_it_is_and_only_a_start_tries_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    // As a version before left it that gave no pages back.
    let layout = db::Layout { page_bytes: 4096, gives_back: false };
    db::open_laid_out(&path, MIGRATIONS, layout).unwrap().execute_batch("DROP TABLE seen").unwrap();
    let sql = other(dir.path());
    let mode = || sql.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).unwrap();
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let spool = open(dir.path());
    sql.execute_batch("ROLLBACK").unwrap();
    assert_eq!(mode(), 0, "it was in the way");
    fail(&spool);
    eventually("it does not recover", || spool.health().is_ok());
    spool.call(|tx| tx.append("{}", 1)).unwrap();
    assert_eq!(mode(), 0, "a new connection is no start");
    spool.close();
    open(dir.path()).close();
    assert_eq!(other(dir.path()).pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).unwrap(), 2);
}
