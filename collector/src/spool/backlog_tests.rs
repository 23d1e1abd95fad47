//! Backlogs of the apps, compared with a recount of the log.

use std::collections::BTreeMap;

use super::*;
use crate::db;

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &SpoolSettings::default(), Arc::default()).unwrap()
}

/// Appends a record of one event of `app` with `bytes` bytes of JSON.
fn append(spool: &Spool, app: i64, bytes: usize) -> u64 {
    let json = "x".repeat(bytes);
    spool.call(move |tx| tx.append(app, &json, 1)).unwrap()
}

/// Returns what each app has, after comparing it with the counters on disk and with a recount of the records.
fn counted(spool: &Spool, dir: &Path) -> BTreeMap<i64, u64> {
    let sql = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    let group = |query: &str| -> BTreeMap<i64, u64> {
        let mut statement = sql.prepare(query).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let recount = group(&format!(
        "SELECT {} AS owner, sum(octet_length(json)) FROM record GROUP BY owner",
        backlog::RECORD_APP_SQL
    ));
    let kept =
        group("SELECT CAST(substr(name, 9) AS INTEGER), value FROM counter WHERE name GLOB 'backlog:*' ORDER BY name");
    let told = spool.backlogs();
    assert_eq!(told, recount);
    assert_eq!(told, kept);
    assert_eq!(spool.backlog_bytes(), told.values().sum::<u64>());
    for (app, bytes) in &told {
        assert_eq!(spool.backlog(*app), Backlog { own: *bytes, total: spool.backlog_bytes() });
    }
    told
}

/// Generator of numbers that are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

#[test]
fn an_app_has_what_it_appended_until_every_sink_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    assert_eq!(counted(&spool, dir.path()), BTreeMap::new());
    append(&spool, 1, 100);
    append(&spool, 2, 30);
    append(&spool, 1, 5);
    assert_eq!(counted(&spool, dir.path()), [(1, 105), (2, 30)].into());
    assert_eq!(spool.backlog(3), Backlog { own: 0, total: 135 });
    spool.advance("a", 2, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(counted(&spool, dir.path()), [(1, 5)].into(), "an app with none is forgotten");
    spool.close();
    let spool = open(dir.path());
    assert_eq!(counted(&spool, dir.path()), [(1, 5)].into());
    spool.register(&["a"]).unwrap();
    spool.advance("a", 3, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(counted(&spool, dir.path()), BTreeMap::new());
}

#[test]
fn a_transaction_sees_its_own_records_and_one_that_fails_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1, 10);
    let seen = spool.call(|tx| {
        tx.append(1, "xxxxx", 1)?;
        Ok((tx.backlog(1), tx.backlog(2)))
    });
    assert_eq!(seen.unwrap(), (Backlog { own: 15, total: 15 }, Backlog { own: 0, total: 15 }));
    let failed = spool.call(|tx| {
        tx.append(1, "xxx", 1)?;
        tx.append(2, "xxx", 1)?;
        Err::<(), _>(SpoolError::Other("planned".into()))
    });
    assert!(matches!(failed, Err(SpoolError::Commit(_))));
    assert_eq!(counted(&spool, dir.path()), [(1, 15)].into());
    append(&spool, 2, 1);
    assert_eq!(counted(&spool, dir.path()), [(1, 15), (2, 1)].into());
}

#[test]
fn whatever_happens_the_backlogs_are_what_a_recount_says() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        spool.register(&["a", "b"]).unwrap();
        let mut dice = Dice(seed);
        for _ in 0..150 {
            let sink = ["a", "b"][usize::try_from(dice.below(2)).unwrap()];
            let cursor = spool.cursor(sink).unwrap();
            let (next, head) = (cursor.pinned_to() + 1, spool.head());
            match dice.below(12) {
                0..=4 => drop(append(&spool, dice.below(5).cast_signed() + 1, 1 + dice.below(40_000) as usize)),
                5 if cursor.frozen.is_none() && cursor.dropped_to.is_none() && next <= head => {
                    drop(spool.freeze(sink, next, next + dice.below(head - next + 1)).unwrap());
                }
                // What is frozen is delivered first; what was dropped behind it is skipped.
                6..=7 if cursor.delivered_to < head => {
                    let to = cursor.frozen.map_or(head, |frozen| frozen.last);
                    let _ = spool.advance(sink, to, Vec::new(), false);
                }
                8 => drop(spool.drop_oldest(sink, dice.below(60_000), Vec::new(), false).unwrap()),
                9 => spool.trim().unwrap(),
                10 => {
                    let failed =
                        spool.call(|tx| tx.append(1, "lost", 1).and(Err::<(), _>(SpoolError::Other("planned".into()))));
                    assert!(failed.is_err());
                }
                11 => {
                    spool.close();
                    spool = open(dir.path());
                    spool.register(&["a", "b"]).unwrap();
                }
                _ => {}
            }
            counted(&spool, dir.path());
        }
        for sink in ["a", "b"] {
            spool.expire(sink, spool.head(), 0).unwrap();
        }
        spool.trim().unwrap();
        assert_eq!(counted(&spool, dir.path()), BTreeMap::new(), "seed {seed}");
    }
}

#[test]
fn a_crash_at_any_moment_leaves_what_a_recount_says() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    let mut copies = Vec::new();
    for step in 1..=20 {
        append(&spool, step % 3 + 1, 20_000);
        if step % 4 == 0 {
            spool.advance("a", step.unsigned_abs() - 1, Vec::new(), false).unwrap();
            spool.trim().unwrap();
        }
        // What a killed process leaves: the files as they are, the last commits only in the write-ahead log.
        let copy = tempfile::tempdir().unwrap();
        for name in [FILE, "spool.db-wal"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        copies.push((copy, counted(&spool, dir.path())));
    }
    for (copy, expected) in copies {
        let spool = open(copy.path());
        assert_eq!(counted(&spool, copy.path()), expected);
    }
}

#[test]
fn what_a_sink_takes_back_from_the_store_counts_as_its_apps_own() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let demo = spool.app_numbers(vec!["demo".into()]).unwrap()["demo"];
    append(&spool, demo, 50);
    append(&spool, demo, 50);
    spool.register(&["a"]).unwrap();
    spool.advance("a", 2, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    spool.register(&["a", "late"]).unwrap();
    let json = ["{\"app_key\":\"demo\",\"events\":[]}", "{\"app_key\":\"gone\"}"];
    let history: Vec<_> =
        (1..=2).zip(json).map(|(first, json)| SpoolRecord { first, events: 1, json: json.to_owned() }).collect();
    spool.freeze_with("late", (1, 2), history, Vec::new()).unwrap();
    assert_eq!(counted(&spool, dir.path()), [(0, json[1].len() as u64), (demo, json[0].len() as u64)].into());
    spool.advance("late", 2, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(counted(&spool, dir.path()), BTreeMap::new());
}

#[test]
fn a_spool_of_the_version_before_knows_whose_its_records_are() {
    let dir = tempfile::tempdir().unwrap();
    let before = MIGRATIONS.iter().position(|sql| sql.contains("ADD COLUMN app")).unwrap();
    let sql = db::open(&dir.path().join(FILE), &MIGRATIONS[..before]).unwrap();
    sql.execute_batch("INSERT INTO app (key) VALUES ('a'), ('b'); INSERT INTO cursor (sink) VALUES ('s')").unwrap();
    let record = |app: &str| format!("{{\"shared_bytes\":1,\"app_key\":\"{app}\",\"events\":[]}}");
    let old = [record("a"), record("b"), record("a"), record("unknown"), "not JSON".into()];
    for (at, json) in old.iter().enumerate() {
        sql.execute("INSERT INTO record VALUES (?1, 1, ?2)", rusqlite::params![at + 1, json]).unwrap();
    }
    let bytes: usize = old.iter().map(String::len).sum();
    sql.execute("INSERT INTO counter VALUES ('stored', 5), ('backlog', ?1)", [bytes]).unwrap();
    drop(sql);
    let spool = open(dir.path());
    let (known, unknown) = (old[0].len() as u64, old[3].len() as u64 + 8);
    assert_eq!(counted(&spool, dir.path()), [(0, unknown), (1, 2 * known), (2, known)].into());
    append(&spool, 1, 7);
    spool.register(&["s"]).unwrap();
    spool.advance("s", 3, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(counted(&spool, dir.path()), [(0, unknown), (1, 7)].into());
    spool.advance("s", 6, Vec::new(), false).unwrap();
    spool.trim().unwrap();
    assert_eq!(counted(&spool, dir.path()), BTreeMap::new());
}
