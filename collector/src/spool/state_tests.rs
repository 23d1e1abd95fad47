//! States of sinks, and the age of their oldest pending event.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::db;

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &SpoolSettings::default(), Arc::default()).unwrap()
}

fn append(spool: &Spool, records: u64) {
    spool.call(move |tx| (0..records).try_for_each(|_| tx.append(1, "{}", 2).map(drop))).unwrap();
}

fn figures(spool: &Spool, sink: &str) -> SinkLedger {
    spool.ledger().unwrap().sinks[sink].clone()
}

#[test]
fn a_sink_taken_out_of_the_configuration_is_unconfigured_and_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a", "b"]).unwrap();
    append(&spool, 1);
    spool.advance("a", 2, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(spool.read_after(0, 9, 99).unwrap().len(), 1, "the other waits for it");
    spool.register(&["a"]).unwrap();
    spool.trim().unwrap();
    assert!(spool.read_after(0, 9, 99).unwrap().is_empty());
    let gone = SinkLedger { pending: 2, state: SinkState::Unconfigured, ..SinkLedger::default() };
    assert_eq!(figures(&spool, "b"), gone);
    assert!(spool.status("a", 2).unwrap().oldest_pending.is_empty(), "nobody waits for what is not delivered");
    spool.register(&["a", "b"]).unwrap();
    assert_eq!(figures(&spool, "b").state, SinkState::Active);
}

#[test]
fn the_figures_of_a_retired_sink_stay_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a", "b"]).unwrap();
    append(&spool, 5);
    spool.advance("b", 4, Vec::new(), false).unwrap();
    assert!(matches!(spool.retire("b"), Err(SpoolError::SinkInUse(_))), "it is in the configuration");
    assert!(matches!(spool.retire("c"), Err(SpoolError::UnknownSink(_))));
    spool.register(&["a"]).unwrap();
    assert!(matches!(spool.forget("b"), Err(SpoolError::NotRetired(_))));
    spool.retire("b").unwrap();
    let retired = figures(&spool, "b");
    assert!(retired.retired_at.is_some());
    let expected = SinkLedger { delivered: 4, expired: 6, state: SinkState::Retired, ..SinkLedger::default() };
    assert_eq!(SinkLedger { retired_at: None, ..retired.clone() }, expected);
    append(&spool, 5);
    spool.retire("b").unwrap();
    spool.register(&["a"]).unwrap();
    spool.close();
    let spool = open(dir.path());
    assert_eq!(figures(&spool, "b"), retired, "twice is once, over restarts too");
    assert_eq!(figures(&spool, "a").pending, 20);
}

#[test]
fn a_retired_sink_that_comes_back_goes_on_where_it_left_off_and_a_forgotten_one_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a", "b"]).unwrap();
    append(&spool, 5);
    let letter = DeadLetter {
        sink: "b".into(),
        position: 2,
        app_key: "demo".into(),
        event_id: "e".into(),
        reason: "r".into(),
        dead_at: 1,
        record: "{}".into(),
    };
    spool.advance("b", 4, vec![letter], false).unwrap();
    spool.register(&["a"]).unwrap();
    spool.retire("b").unwrap();
    spool.register(&["a", "b"]).unwrap();
    let back = SinkLedger { delivered: 3, discarded: 1, pending: 6, ..SinkLedger::default() };
    assert_eq!(figures(&spool, "b"), back);
    spool.register(&["a"]).unwrap();
    spool.retire("b").unwrap();
    spool.forget("b").unwrap();
    assert!(!spool.ledger().unwrap().sinks.contains_key("b"));
    spool.register(&["a", "b"]).unwrap();
    assert_eq!(figures(&spool, "b"), SinkLedger { pending: 10, ..SinkLedger::default() });
    assert_eq!(spool.count_dead_letters("b").unwrap(), 0);
}

#[test]
fn a_scrape_reads_as_little_with_a_hundred_thousand_records_as_with_a_hundred() {
    let steps = |records: u64| {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        spool.register(&["a", "b"]).unwrap();
        append(&spool, records);
        let mut reader = SpoolReader::open(dir.path()).unwrap();
        let counted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&counted);
        // Called after every step of SQLite's machine.
        let step = move || count.fetch_add(1, Ordering::Relaxed) == u64::MAX;
        reader.0.progress_handler(1, Some(step)).unwrap();
        let status = reader.status("a", 0).unwrap();
        assert_eq!(status.ledger.sinks["b"].pending, 2 * records);
        assert_eq!(status.oldest_pending.len(), 2);
        counted.load(Ordering::Relaxed)
    };
    let (few, many) = (steps(100), steps(100_000));
    assert!(few > 20, "{few}");
    assert_eq!(few, many);
}

#[test]
fn what_waits_is_as_old_as_its_arrival_whatever_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    let began = crate::clock::now();
    append(&spool, 3);
    // Three notes, as if the records had come seconds apart.
    spool
        .call(|tx| {
            tx.sql.execute("DELETE FROM arrival", [])?;
            for (first, at) in [(1, 1000), (3, 5000), (5, 9000)] {
                assert_eq!(arrival::note(tx.sql, None, first, at)?, Some(at));
            }
            Ok(())
        })
        .unwrap();
    let waiting = |position| spool.status("a", position).unwrap().oldest_pending.get("a").copied();
    for (position, expected) in [(0, 1000), (1, 1000), (2, 5000), (3, 5000), (4, 9000), (5, 9000)] {
        assert_eq!(waiting(position), Some(expected), "{position}");
    }
    assert_eq!(waiting(6), None);
    spool.advance("a", 3, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(waiting(0), Some(5000), "what was trimmed is forgotten, what is left is not");
    spool.advance("a", 6, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(waiting(0), None);
    let reopened = {
        spool.close();
        open(dir.path())
    };
    append(&reopened, 1);
    let arrived = reopened.status("a", 0).unwrap().oldest_pending["a"];
    assert!((began..=crate::clock::now()).contains(&arrived), "{arrived}");
}

#[test]
fn an_arrival_is_noted_once_a_second_and_when_the_clock_is_set_back() {
    let sql = rusqlite::Connection::open_in_memory().unwrap();
    sql.execute_batch("CREATE TABLE arrival (first INTEGER PRIMARY KEY, at INTEGER NOT NULL)").unwrap();
    let mut arrival_noted = None;
    for (first, now) in [(1, 10_000), (2, 10_999), (3, 11_000), (4, 11_500), (5, 3_000), (6, 3_500)] {
        arrival_noted = arrival::note(&sql, arrival_noted, first, now).unwrap();
    }
    let count = |query: &str| sql.query_row(query, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM arrival"), 3);
    assert_eq!(count("SELECT at FROM arrival WHERE first = 5"), 3_000);
}

#[test]
fn a_spool_of_the_version_before_says_how_old_its_records_are() {
    for (json, known) in [("{\"received_at\":1431835512345}", true), ("not JSON", false)] {
        let dir = tempfile::tempdir().unwrap();
        let before = MIGRATIONS.iter().position(|sql| sql.contains("CREATE TABLE arrival")).unwrap();
        let sql = db::open(&dir.path().join(FILE), &MIGRATIONS[..before]).unwrap();
        sql.execute("INSERT INTO record (first, events, json) VALUES (1, 2, ?1)", [json]).unwrap();
        sql.execute_batch("INSERT INTO counter VALUES ('stored', 2); INSERT INTO cursor (sink) VALUES ('a')").unwrap();
        drop(sql);
        let spool = open(dir.path());
        let status = spool.status("a", 0).unwrap();
        assert_eq!(status.ledger.sinks["a"], SinkLedger { pending: 2, ..SinkLedger::default() });
        assert_eq!(status.oldest_pending["a"] == 1_431_835_512_345, known, "{json}");
    }
}
