//! Events that a store refuses for themselves, and stores that refuse everything.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::{Load, StoresFixture, row, stores, three_days};
use super::support::BINARY;

const ALL: [&str; 4] = ["embedded", "ch", "es", "kafka"];

/// What ClickHouse refuses: a code that a constraint forbids.
const POISON: &str = "poison";

fn forbid(lab: &StoresFixture<'_>) {
    let sql = format!("ALTER TABLE {}.ods_event ADD CONSTRAINT no_poison CHECK code != '{POISON}'", lab.name);
    lab.stores.clickhouse.query(&sql).unwrap();
}

fn allow(lab: &StoresFixture<'_>) {
    let sql = format!("ALTER TABLE {}.ods_event DROP CONSTRAINT no_poison", lab.name);
    lab.stores.clickhouse.query(&sql).unwrap();
}

fn poisoned(count: usize, at: usize) -> Value {
    let mut batch = three_days(count);
    batch["events"][at]["code"] = json!(POISON);
    batch
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_bad_row_in_a_hundred_thousand_costs_at_most_36_requests_and_no_neighbour() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::new(
        &stores,
        "needle",
        "linger_ms = 15000\nretry_initial_backoff_ms = 50\nretry_max_backoff_ms = 500",
        "",
    );
    lab.start();
    lab.settled(&ALL);
    forbid(&lab);
    lab.ch.matching("INSERT");
    let collector = lab.collector.as_ref().unwrap();
    let before = lab.ch.requests();
    for n in 0..100 {
        let batch = if n == 61 { poisoned(1000, 777) } else { three_days(1000) };
        assert_eq!(collector.send(&batch).counts(), (1000, 0, 0));
    }
    let began = Instant::now();
    let recovered = lab.settled(&["ch"]);
    let requests = lab.ch.requests() - before;
    assert!(requests <= 36, "{requests} inserts");
    assert_eq!(lab.sink("ch"), (99_999, 1, 0), "{:?}", began.elapsed());
    let letters = lines(&lab.site.command(&["dead-letters", "show", "--sink", "ch"]));
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["event"]["code"], &letters[0]["app_key"]), (&json!(POISON), &json!("demo")));
    assert!(letters[0]["reason"].as_str().unwrap().contains("no_poison"), "{}", letters[0]["reason"]);
    assert_eq!(lab.in_clickhouse(), 99_999);
    row("one bad row in 100,000 (ClickHouse)", 1, &format!("99999 delivered, 1 dead, {requests} inserts"), recovered);

    // Replayed while it is still forbidden: it stays. Once allowed: it arrives. Again: nothing changes.
    let replay = || lab.site.command(&["dead-letters", "replay", "--sink", "ch"]);
    assert_eq!(replay(), "ch: 0 replayed, 1 refused again\n");
    allow(&lab);
    assert_eq!(replay(), "ch: 1 replayed, 0 refused again\n");
    assert_eq!(replay(), "0 replayed\n");
    assert_eq!((lab.sink("ch"), lab.in_clickhouse()), ((100_000, 0, 0), 100_000));
}

#[test]
fn bad_rows_anywhere_are_dead_letters_with_the_stores_words_while_everything_fails_at_random() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "poisoned");
    lab.start();
    lab.settled(&ALL);
    forbid(&lab);
    lab.ch.matching("INSERT");
    let mut sent = 0;
    for n in 0..12 {
        let batch = if n % 3 == 1 { poisoned(100, n * 7) } else { three_days(100) };
        assert_eq!(lab.collector.as_ref().unwrap().send(&batch).counts(), (100, 0, 0));
        sent += 100;
        match n % 4 {
            0 => lab.ch.cut_answers(1),
            2 => {
                lab.kill_9();
                lab.start();
            }
            _ => {}
        }
    }
    let recovered = lab.settled(&ALL);
    let outcome = lab.assert_exactly_once(sent);
    assert_eq!(lab.sink("ch"), (sent - 4, 4, 0));
    let list = lines(&lab.site.command(&["dead-letters", "list"]));
    assert_eq!(list.iter().map(|line| line["events"].as_u64().unwrap()).sum::<u64>(), 4, "{list:?}");
    row("4 bad rows, 3 kills and 3 lost answers", 10, &outcome, recovered);

    // Without a collector the command delivers by itself, with the configuration that the collector had.
    allow(&lab);
    assert!(lab.collector.take().unwrap().terminate().success());
    assert_eq!(lab.site.command(&["dead-letters", "replay"]), "ch: 4 replayed, 0 refused again\n");
    assert_eq!(lab.in_clickhouse(), sent);
    assert_eq!(lab.site.ledger()["sinks"]["ch"], json!({"delivered": sent, "dead": 0, "pending": 0}));
}

#[test]
fn a_document_that_elasticsearch_refuses_is_a_dead_letter_and_its_neighbours_arrive() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "refused");
    lab.start();
    lab.settled(&ALL);
    // This day's index was created by hand, with a field that holds only small numbers.
    let index = format!("/{}-ods-2015.05.17", lab.name);
    let mapping = json!({"mappings": {"properties": {"seq": {"type": "byte"}}}});
    stores.elastic.put(&index, &mapping.to_string()).unwrap().ok().unwrap();
    assert_eq!(lab.collector.as_ref().unwrap().send(&three_days(900)).counts(), (900, 0, 0));
    let recovered = lab.settled(&ALL);
    // Events 128, 131, .. 898 of every third, which fall on that day: those above 127.
    let refused = (0..900u64).filter(|n| n % 3 == 0 && n + 1 > 127).count() as u64;
    assert_eq!(lab.sink("es"), (900 - refused, refused, 0));
    assert_eq!(lab.in_elasticsearch(), 900 - refused);
    let letters = lines(&lab.site.command(&["dead-letters", "show", "--sink", "es"]));
    assert!(letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("seq")), "{}", letters[0]);
    row("documents that Elasticsearch refuses", refused, &lab.assert_exactly_once(900), recovered);
}

#[test]
fn a_store_that_refuses_everything_gets_no_dead_letters() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "refuses_all");
    lab.start();
    lab.settled(&ALL);
    let name = lab.name.clone();
    let query = |sql: String| stores.clickhouse.query(&sql).unwrap();
    let mut sent = 0;
    let mut recovered = Duration::ZERO;
    for (break_it, mend_it) in [
        (
            format!("RENAME TABLE {name}.ods_event TO {name}.hidden"),
            format!("RENAME TABLE {name}.hidden TO {name}.ods_event"),
        ),
        (
            format!("ALTER TABLE {name}.ods_event ADD CONSTRAINT nothing CHECK 0"),
            format!("ALTER TABLE {name}.ods_event DROP CONSTRAINT nothing"),
        ),
    ] {
        query(break_it);
        let tries = lab.ch.requests();
        sent += Load::run(&lab.url(), |load| {
            load.more(300);
            while lab.ch.requests() < tries + 20 {
                load.more(50);
            }
        });
        let (_, dead, pending) = lab.sink("ch");
        assert_eq!(dead, 0);
        assert!(pending > 0);
        query(mend_it);
        recovered = recovered.max(lab.settled(&ALL));
    }
    let outcome = lab.assert_exactly_once(sent);
    assert_eq!(lab.sink("ch").1, 0);
    row("table missing; constraint that nothing meets", 2, &outcome, recovered);
}

#[test]
fn a_replay_without_a_known_configuration_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY).args(["dead-letters", "replay", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not exist"));
}
