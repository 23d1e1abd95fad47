use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::db::DbError;
use subway_protocol::Id;

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &SpoolSettings::default(), Arc::default()).unwrap()
}

fn append(spool: &Spool, json: &str, events: u64) -> u64 {
    let json = json.to_owned();
    spool
        .call(move |tx| {
            tx.counters.received += events;
            tx.append(1, &json, events)
        })
        .unwrap()
}

fn letter(sink: &str, position: u64) -> DeadLetter {
    DeadLetter {
        sink: sink.into(),
        position,
        app_key: "demo".into(),
        event_id: format!("e{position}"),
        reason: "no".into(),
        dead_at: 1,
        record: "{}".into(),
    }
}

#[test]
fn positions_have_no_gaps_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert_eq!((append(&spool, "a", 3), append(&spool, "b", 2)), (1, 4));
    assert_eq!(spool.head(), 5);
    spool.close();
    let spool = open(dir.path());
    assert_eq!((spool.head(), spool.backlog_bytes()), (5, 2));
    assert_eq!(append(&spool, "c", 1), 6);
}

#[test]
fn whole_records_are_read_up_to_the_caps_and_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for json in ["aaa", "bb", "cccc"] {
        append(&spool, json, 3);
    }
    let firsts = |position, events, bytes| -> Vec<u64> {
        spool.read_after(position, events, bytes).unwrap().iter().map(|stored| stored.first).collect()
    };
    assert_eq!(firsts(0, 100, 100), [1, 4, 7]);
    assert_eq!(firsts(0, 6, 100), [1, 4]);
    assert_eq!(firsts(0, 5, 100), [1]);
    assert_eq!(firsts(0, 100, 5), [1, 4]);
    assert_eq!(firsts(0, 1, 1), [1]);
    assert_eq!(firsts(1, 100, 100), [1, 4, 7], "the rest of the first record is still wanted");
    assert_eq!(firsts(3, 100, 100), [4, 7]);
    assert_eq!(firsts(8, 100, 100), [7]);
    assert_eq!(firsts(9, 100, 100), [] as [u64; 0]);
}

#[test]
fn a_frozen_batch_is_the_same_until_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    append(&spool, "x", 10);
    let frozen = spool.freeze("a", 1, 6).unwrap().frozen.unwrap();
    assert!(matches!(spool.freeze("a", 1, 6), Err(SpoolError::BadRange { .. })));
    spool.close();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    append(&spool, "y", 10);
    assert_eq!(spool.cursor("a").unwrap().frozen, Some(frozen.clone()));
    assert!(matches!(spool.advance("a", 5, Vec::new(), false), Err(SpoolError::BadRange { .. })));
    spool.advance("a", 6, vec![letter("a", 2)], false).unwrap();
    assert_eq!(spool.cursor("a").unwrap(), Cursor { delivered_to: 6, discarded: 1, ..Cursor::default() });
    let next = spool.freeze("a", 7, 20).unwrap().frozen.unwrap();
    assert_ne!(next.dedup_token, frozen.dedup_token);
}

#[test]
fn tokens_of_two_directories_differ() {
    let token = || {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        spool.register(&["a"]).unwrap();
        append(&spool, "x", 1);
        spool.freeze("a", 1, 1).unwrap().frozen.unwrap().dedup_token
    };
    assert_ne!(token(), token());
}

#[test]
fn ranges_that_make_no_sense_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    append(&spool, "x", 10);
    for (first, last) in [(2, 3), (1, 0), (1, 11), (0, 3)] {
        assert!(matches!(spool.freeze("a", first, last), Err(SpoolError::BadRange { .. })), "{first}..={last}");
    }
    assert!(spool.advance("a", 11, Vec::new(), false).is_err());
    assert!(spool.advance("a", 0, Vec::new(), false).is_err());
    assert!(spool.advance("a", 5, vec![letter("a", 6)], false).is_err());
    assert!(spool.advance("a", 5, vec![letter("b", 3)], false).is_err());
    assert!(matches!(spool.cursor("b"), Err(SpoolError::UnknownSink(_))));
    assert!(matches!(spool.freeze("b", 1, 1), Err(SpoolError::UnknownSink(_))));
    assert_eq!(spool.cursor("a").unwrap(), Cursor::default());
    assert!(spool.dead_letters(None, 0, 9).unwrap().is_empty());
}

#[test]
fn only_what_every_sink_has_passed_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, "xx", 5);
    append(&spool, "yyy", 5);
    spool.trim().unwrap();
    assert_eq!(spool.backlog_bytes(), 5, "without sinks everything is kept");
    spool.register(&["a", "b"]).unwrap();
    spool.advance("a", 10, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(spool.backlog_bytes(), 5);
    spool.advance("b", 9, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(spool.backlog_bytes(), 3);
    assert_eq!(spool.read_after(9, 9, 9).unwrap(), [SpoolRecord { first: 6, events: 5, json: "yyy".into() }]);
    spool.advance("b", 10, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!((spool.backlog_bytes(), spool.head()), (0, 10));
    spool.close();
    let spool = open(dir.path());
    assert_eq!(append(&spool, "z", 1), 11, "positions go on although the log was empty");
}

#[test]
fn the_ledger_adds_up_and_is_read_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    append(&spool, "x", 10);
    spool
        .call(|tx| {
            tx.counters.received += 4;
            tx.counters.duplicate += 1;
            tx.counters.rejected[3] += 3;
            Ok(())
        })
        .unwrap();
    spool.advance("a", 7, vec![letter("a", 7)], false).unwrap();
    let ledger = SpoolReader::open(dir.path()).unwrap().ledger().unwrap();
    assert_eq!(
        serde_json::to_value(&ledger).unwrap(),
        serde_json::json!({"received": 14, "stored": 10, "duplicate": 1, "rejected": {"unknown_theme": 3},
            "sinks": {"a": {"delivered": 6, "dead": 1, "pending": 3}}})
    );
    assert_eq!(spool.dead_letters(Some("a"), 0, 9).unwrap(), [letter("a", 7)]);
    assert_eq!(spool.dead_letters(Some("a"), 7, 9).unwrap(), []);
    assert_eq!(spool.ledger().unwrap(), ledger);
}

#[test]
fn an_id_is_new_once_for_each_app() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let insert_new_ids = |app: i64, ids: &'static [u8]| {
        spool
            .call(move |tx| {
                let mut found = vec![false; ids.len()];
                tx.insert_new_ids(app, ids.iter().map(|id| Id::from_bytes([*id; 16])), |at, new| found[at] = new)?;
                Ok(found)
            })
            .unwrap()
    };
    assert_eq!(insert_new_ids(1, &[1, 2, 1]), [true, true, false]);
    assert_eq!(insert_new_ids(2, &[1]), [true]);
    assert_eq!(insert_new_ids(1, &[3, 2]), [true, false]);
}

#[test]
fn a_signature_can_be_used_once_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let use_it =
        |signed_at: i64, forget: i64| spool.call(move |tx| tx.record_signature(1, b"mac", signed_at, forget)).unwrap();
    assert_eq!([use_it(1000, 0), use_it(1000, 0), use_it(1000, 1000), use_it(1000, 1001)], [true, false, false, true]);
}

#[test]
fn an_install_keeps_its_last_point_and_an_app_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let install = Id::from_bytes([1; 16]);
    let clock_anchor = |seq| ClockAnchor { seq, boot: "b".into(), mono: 7, event_time: -1 };
    spool.call(move |tx| tx.set_clock_anchor(1, install, &clock_anchor(1))).unwrap();
    spool.call(move |tx| tx.set_clock_anchor(1, install, &clock_anchor(2))).unwrap();
    assert_eq!(spool.call(move |tx| tx.clock_anchor(1, install)).unwrap(), Some(clock_anchor(2)));
    assert_eq!(spool.call(move |tx| tx.clock_anchor(2, install)).unwrap(), None);
    let numbers = spool.app_numbers(vec!["b".into(), "a".into()]).unwrap();
    spool.close();
    let spool = open(dir.path());
    assert_eq!(spool.app_numbers(vec!["a".into(), "b".into()]).unwrap(), numbers);
    assert_ne!(numbers["a"], numbers["b"]);
}

/// Task that reports its result.
struct Told {
    json: &'static str,
    fail: bool,
    told: Sender<Result<(), String>>,
}

impl SpoolTask for Told {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        tx.append(1, self.json, 1)?;
        if self.fail { Err(SpoolError::Other("planned".into())) } else { Ok(()) }
    }
    fn done(self: Box<Self>, result: Result<(), &SpoolError>) {
        let _ = self.told.send(result.map_err(ToString::to_string));
    }
    fn bytes(&self) -> u64 {
        1
    }
}

#[test]
fn a_failed_group_leaves_nothing_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (told, answers) = channel();
    let write = |json, fail| spool.submit(Box::new(Told { json, fail, told: told.clone() })).map_err(|_| ()).unwrap();
    write("good", false);
    assert_eq!(answers.recv().unwrap(), Ok(()));
    write("bad", true);
    assert_eq!(answers.recv().unwrap(), Err("planned".into()));
    assert!(spool.health().is_err_and(|why| why.to_string().contains("planned")));
    write("good", false);
    assert_eq!(answers.recv().unwrap(), Ok(()));
    assert_eq!(spool.health(), Ok(()));
    assert_eq!(spool.head(), 2);
    assert_eq!(spool.read_after(0, 9, 99).unwrap().len(), 2);
}

#[test]
fn trouble_ends_by_itself_once_the_disk_takes_commits_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (told, answers) = channel();
    spool.submit(Box::new(Told { json: "bad", fail: true, told })).map_err(|_| ()).unwrap();
    answers.recv().unwrap().unwrap_err();
    while spool.health().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn a_call_refused_for_its_arguments_costs_its_group_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert!(spool.advance("nobody", 1, Vec::new(), false).is_err());
    assert_eq!(spool.health(), Ok(()));
}

#[test]
fn a_closed_spool_refuses_and_closing_twice_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.close();
    spool.close();
    assert!(matches!(spool.trim(), Ok(())), "no sinks, nothing to do");
    assert!(matches!(spool.register(&["a"]), Err(SpoolError::Closed)));
    assert!(spool.health().is_err());
}

#[test]
fn the_spool_of_a_newer_collector_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close();
    let sql = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
    sql.pragma_update(None, "user_version", 99).unwrap();
    let refused = Spool::open(dir.path(), &SpoolSettings::default(), Arc::default());
    assert!(matches!(refused.err(), Some(SpoolError::Db(DbError::Newer { found: 99, .. }))));
}

#[test]
fn a_store_that_knows_better_moves_events_from_pending_to_delivered_and_nothing_else() {
    let sink = |delivered, discarded, pending| SinkLedger { delivered, discarded, pending, ..SinkLedger::default() };
    let ledger =
        |sinks| Ledger { received: 12, stored: 10, duplicate: 2, unverified: 0, rejected: BTreeMap::new(), sinks };
    let after = |position| {
        let sinks = BTreeMap::from([("other".to_owned(), sink(1, 0, 9)), ("s".to_owned(), sink(3, 1, 6))]);
        let ledger = ledger(sinks).with_delivered_position("s", position);
        assert_eq!((ledger.received, ledger.stored, &ledger.sinks["other"]), (12, 10, &sink(1, 0, 9)));
        ledger.sinks["s"].clone()
    };
    assert_eq!(after(0), sink(3, 1, 6), "a position behind the cursor changes nothing");
    assert_eq!(after(4), sink(3, 1, 6));
    assert_eq!(after(7), sink(6, 1, 3));
    assert_eq!(after(10), sink(9, 1, 0));
    assert_eq!(after(99), sink(9, 1, 0), "no more than there is");
    assert_eq!(ledger(BTreeMap::new()).with_delivered_position("s", 5), ledger(BTreeMap::new()));
}

#[test]
fn a_spool_that_has_become_empty_gives_its_pages_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len());
    let json = "x".repeat(100_000);
    for _ in 0..16 {
        let json = json.clone();
        spool.call(move |tx| (0..50).try_for_each(|_| tx.append(1, &json, 1).map(|_| ()))).unwrap();
    }
    assert!(size(FILE) + size("spool.db-wal") > 80_000_000);
    spool.advance("a", 800, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    while size(FILE) > 20_000_000 {
        std::thread::yield_now();
    }
    // The log begins anew with the next commits, and is cut then.
    append(&spool, "y", 1);
    append(&spool, "y", 1);
    assert!(size("spool.db-wal") <= 40_000_000, "{}", size("spool.db-wal"));
}

#[test]
fn the_clocks_of_one_app_are_bounded_and_those_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { install_clocks: 100, ..SpoolSettings::default() };
    let telemetry = Arc::<Telemetry>::default();
    let spool = Spool::open(dir.path(), &settings, Arc::clone(&telemetry)).unwrap();
    let install = |number: u64| Id::from_bytes(u128::from(number).to_be_bytes());
    let clock_anchor = || ClockAnchor { seq: 1, boot: "b".into(), mono: 7, event_time: 1 };
    let set = |app, number| spool.call(move |tx| tx.set_clock_anchor(app, install(number), &clock_anchor())).unwrap();
    let known = |app, number| spool.call(move |tx| tx.clock_anchor(app, install(number))).unwrap().is_some();
    set(2, 0);
    for number in 0..1_000 {
        set(1, number);
        set(1, 5_000);
    }
    assert!(known(2, 0) && known(1, 5_000) && known(1, 999) && known(1, 960));
    assert!(!known(1, 100));
    while telemetry.install_clocks_evicted.get() < 900 {
        std::thread::yield_now();
    }
    spool.close();
    let spool = Spool::open(dir.path(), &settings, Arc::default()).unwrap();
    assert!(spool.call(move |tx| tx.clock_anchor(1, install(999))).unwrap().is_some());
    let sql = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
    let rows: i64 = sql.query_row("SELECT count(*) FROM install_clock", [], |row| row.get(0)).unwrap();
    assert!(rows <= 101, "{rows}");
}

#[test]
fn however_many_read_at_once_few_connections_stay_open() {
    fn nested(spool: &Spool, depth: usize) -> u64 {
        let read = |_: &SpoolReader| Ok(if depth == 0 { spool.head() } else { nested(spool, depth - 1) });
        spool.read(read).unwrap()
    }
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, "a", 3);
    assert_eq!(nested(&spool, 3 * POOLED_READERS), 3);
    assert_eq!(lock(&spool.inner.readers).len(), POOLED_READERS);
}
