//! Faults of the disk and of other processes leave nothing behind.

use std::time::Duration;

use super::*;
use crate::db;

/// Longer than any step here takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &SpoolSettings::default(), Arc::default()).unwrap()
}

/// Opens the spool's database as another process would.
fn other(dir: &Path) -> rusqlite::Connection {
    let sql = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    sql.busy_timeout(PATIENCE).unwrap();
    sql
}

fn fail(spool: &Spool) {
    let planned: Result<(), SpoolError> = spool.call(|_| Err(SpoolError::Other("planned".into())));
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
        eventually("it is not opened again", || spool.health().is_err_and(|why| why.to_string().contains(table)));
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
    spool.call(|tx| tx.append(1, "{}", 1)).unwrap();
    assert_eq!(mode(), 0, "a new connection is no start");
    spool.close();
    open(dir.path()).close();
    assert_eq!(other(dir.path()).pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).unwrap(), 2);
}

fn letter(position: u64) -> DeadLetter {
    DeadLetter {
        sink: "a".into(),
        position,
        app_key: "demo".into(),
        event_id: format!("e{position}"),
        reason: "no".into(),
        dead_at: 1,
        record: "x".repeat(100),
    }
}

/// Creates a spool whose sink `a` refused all of its 2,000 events.
fn refused(dir: &Path, dead_letter_bytes: u64) -> (Spool, Arc<Telemetry>) {
    let telemetry = Arc::<Telemetry>::default();
    let settings = SpoolSettings { dead_letter_bytes, ..SpoolSettings::default() };
    let spool = Spool::open(dir, &settings, Arc::clone(&telemetry)).unwrap();
    spool.register(&["a"]).unwrap();
    spool.call(|tx| tx.append(1, "{}", 2_000)).unwrap();
    spool.advance("a", 2_000, (1..=2_000).map(letter).collect(), false).unwrap();
    (spool, telemetry)
}

/// Returns the bytes of the dead letters of `a`, from their table.
fn counted(dir: &Path) -> u64 {
    let query =
        "SELECT sum(octet_length(record) + octet_length(reason) + octet_length(app_key) + octet_length(event_id) + 64)
        FROM dead_letter WHERE sink = 'a'";
    other(dir).query_row(query, [], |row| row.get::<_, Option<u64>>(0)).unwrap().unwrap_or(0)
}

#[test]
fn dead_letters_beyond_their_room_are_dropped_the_oldest_first_and_stay_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = refused(dir.path(), 50_000);
    let bytes = || spool.status("a", 0).unwrap().dead_letter_bytes["a"];
    assert!(bytes() > 300_000);
    assert_eq!(bytes(), counted(dir.path()));
    let (marked, _) = spool.mark_for_replay("a", 0, 3).unwrap();
    assert_eq!(marked.len(), 3);
    spool.trim().unwrap();
    assert!((49_000..=50_000).contains(&bytes()), "{}", bytes());
    assert_eq!(bytes(), counted(dir.path()));
    let left = spool.dead_letters(Some("a"), 0, 9_999).unwrap();
    let positions: Vec<u64> = left.iter().map(|letter| letter.position).collect();
    let newest = 2_000 - (left.len() as u64 - 3);
    assert_eq!(positions[..3], [1, 2, 3], "what is being sent again stays");
    assert_eq!(positions[3..], (newest + 1..=2_000).collect::<Vec<_>>());
    let ledger = spool.ledger().unwrap().sinks["a"].clone();
    assert_eq!((ledger.discarded, ledger.dropped_dead_letters), (2_000, 2_000 - left.len() as u64));
    spool.finish_replay("a", vec![1, 2], vec![(3, "still no".into())]).unwrap();
    assert_eq!(bytes(), counted(dir.path()));
    let ledger = spool.ledger().unwrap().sinks["a"].clone();
    assert_eq!((ledger.delivered, ledger.discarded), (2, 1_998));
    spool.close();
    let spool = Spool::open(dir.path(), &SpoolSettings::default(), Arc::default()).unwrap();
    assert_eq!(spool.status("a", 0).unwrap().dead_letter_bytes["a"], counted(dir.path()));
}

#[test]
fn a_sink_with_many_dead_letters_is_forgotten_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, telemetry) = refused(dir.path(), u64::MAX);
    spool.mark_for_replay("a", 0, 10).unwrap();
    spool.register(&[]).unwrap();
    spool.retire("a").unwrap();
    let before = telemetry.commits.get();
    spool.forget("a").unwrap();
    assert!(telemetry.commits.get() - before >= 4);
    assert_eq!((counted(dir.path()), spool.ledger().unwrap().sinks.len()), (0, 0));
    assert!(spool.status("a", 0).unwrap().dead_letter_bytes.is_empty());
}

#[test]
fn letters_of_the_version_before_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let before = MIGRATIONS.iter().position(|sql| sql.contains("CREATE TABLE letters")).unwrap();
    let layout = db::Layout { page_bytes: 4096, gives_back: true };
    let sql = db::open_laid_out(&dir.path().join(FILE), &MIGRATIONS[..before], layout).unwrap();
    let insert = "INSERT INTO dead_letter (sink, position, app_key, event_id, reason, dead_at, record)
        VALUES ('a', 1, 'demo', 'e', 'no', 1, 'ä')";
    sql.execute(insert, []).unwrap();
    drop(sql);
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    assert_eq!(spool.status("a", 0).unwrap().dead_letter_bytes["a"], counted(dir.path()));
}

#[test]
fn a_record_that_is_not_utf_8_is_read_as_one_that_is_no_json() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for json in ["{\"a\":1}", "{\"a\":2}"] {
        spool.call(move |tx| tx.append(1, json, 1)).unwrap();
    }
    // An error here stopped the embedded store, and then everybody, at this record for ever.
    other(dir.path()).execute("UPDATE record SET json = CAST(x'7bff7d' AS TEXT) WHERE first = 1", []).unwrap();
    let read = spool.read(|reader| reader.read_after(0, 10, 1000)).unwrap();
    let texts: Vec<&str> = read.iter().map(|record| record.json.as_str()).collect();
    assert_eq!(texts[1], "{\"a\":2}");
    assert!(serde_json::from_str::<serde_json::Value>(texts[0]).is_err(), "{texts:?}");
}
