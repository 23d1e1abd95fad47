use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::query::oracle::Oracle;
use crate::query::sqlite::StoreReader;
use crate::query::{CountQuery, EventsQuery, Filter, Measure, Reader};
use crate::sinks::days::DAY_MS;
use crate::sinks::{BackfillSource, StoredRecord};

/// Store with few events in a part.
pub(super) struct Site {
    dir: TempDir,
    sink: EmbeddedSink,
    telemetry: Arc<Telemetry>,
    next: u64,
}

fn opened(dir: &Path, settings: &Embedded, part_events: i64) -> (EmbeddedSink, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::default());
    let sink = EmbeddedSink::open_with(dir, settings, Arc::clone(&telemetry)).unwrap();
    sink.thread.call(move |writer| writer.part_events = part_events).unwrap();
    (sink, telemetry)
}

pub(super) fn days(retention_days: u64) -> Embedded {
    Embedded { retention_days, ..Embedded::default() }
}

/// Event of a test: install, session, code, event time.
pub(super) type Sketch<'a> = (u64, u64, &'a str, i64);

fn uuid(kind: u8, number: u64) -> String {
    format!("{kind:08x}-0000-7000-8000-{number:012x}")
}

impl Site {
    pub(super) fn new(settings: &Embedded, part_events: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sink, telemetry) = opened(dir.path(), settings, part_events);
        Self { dir, sink, telemetry, next: 1 }
    }

    fn reopen(&mut self, settings: &Embedded, part_events: i64) {
        // Closes the first before it opens the second.
        let elsewhere = tempfile::tempdir().unwrap();
        drop(std::mem::replace(&mut self.sink, EmbeddedSink::open(elsewhere.path()).unwrap()));
        (self.sink, self.telemetry) = opened(self.dir.path(), settings, part_events);
    }

    /// Stores one event of `app` that arrives at `received_at`.
    pub(super) async fn store(
        &mut self,
        app: &str,
        received_at: i64,
        (install, session, code, time): Sketch<'_>,
    ) -> StoredRecord {
        let first = self.next;
        self.next += 1;
        let json = json!({"app_key": app, "batch_id": uuid(4, first), "install_id": uuid(1, install), "received_at": received_at,
            "context": {"model": format!("m{install}")}, "events": [{"event_id": uuid(3, first), "seq": first, "theme": "view",
            "code": code, "event_time": time, "ts": 1, "user_id": format!("u{install}"), "session_id": uuid(2, session)}]});
        let record = StoredRecord { first, json: json.to_string() };
        let batch = SinkBatch { first, last: first, dedup_token: String::new(), records: vec![record.clone()] };
        self.sink.deliver(Arc::new(batch)).await.unwrap();
        record
    }

    pub(super) async fn settle(&self, now: i64) {
        while self.sink.run_retention_step_at(now).await.unwrap() {}
    }

    fn reader(&self) -> StoreReader {
        StoreReader::new(self.dir.path())
    }

    fn number(&self, query: &str) -> i64 {
        let connection = crate::db::open_reader(&self.dir.path().join(FILE), MIGRATIONS).unwrap();
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Returns the positions of the events that a query finds, newest first.
    pub(super) async fn seqs(&self, code: Option<&str>) -> Vec<u64> {
        let filter = Filter { code: code.map(str::to_owned), theme: None };
        let query = EventsQuery { app: "demo".into(), filter, limit: 1000, ..EventsQuery::default() };
        self.reader().newest(query).await.unwrap().iter().map(|listed| listed.row.event.seq).collect()
    }
}

fn count(measure: Measure, bounds: Vec<i64>) -> CountQuery {
    CountQuery { app: "demo".into(), measure, filter: Filter::default(), bounds }
}

#[tokio::test]
async fn conforms_as_a_reader_whatever_part_an_event_is_in() {
    struct Subject(Site);
    #[async_trait]
    impl crate::query::conformance::Subject for Subject {
        async fn deliver(&self, batch: SinkBatch) {
            self.0.sink.deliver(Arc::new(batch)).await.unwrap();
        }
        fn reader(&self) -> &dyn Reader {
            Box::leak(Box::new(self.0.reader()))
        }
    }
    for part_events in [20, 60] {
        let subject = Subject(Site::new(&Embedded::default(), part_events));
        crate::query::conformance::run(&subject).await;
        assert!(subject.0.number("SELECT count(*) FROM part") > 10);
    }
}

#[tokio::test]
async fn old_arrivals_go_and_every_number_is_that_of_what_is_left() {
    let mut site = Site::new(&days(10), 1000);
    let (kept, all) = (Oracle::default(), Oracle::default());
    let today = 20_000;
    for back in (0..40).rev() {
        for n in 0..3u64 {
            let received_at = (today - back) * DAY_MS + i64::try_from(n).unwrap();
            // Some happened long before they arrived.
            let time = if n == 2 { received_at - 100 * DAY_MS } else { received_at };
            let install = u64::try_from(back).unwrap() / 4 + 100 * n;
            let record = site.store("demo", received_at, (install, install, "c", time)).await;
            all.add(&record);
            if back <= 10 {
                kept.add(&record);
            }
        }
    }
    assert_eq!(site.reader().complete_from("demo", false).await, Ok(None));
    site.settle(today * DAY_MS).await;
    let bounds: Vec<i64> = (-150..=1).map(|day| (today + day) * DAY_MS).collect();
    for measure in [Measure::Events, Measure::Installs, Measure::Users, Measure::Sessions] {
        let expected = kept.count(count(measure, bounds.clone())).await.unwrap();
        assert_eq!(site.reader().count(count(measure, bounds.clone())).await.unwrap(), expected, "{measure:?}");
    }
    for measure in [Measure::NewInstalls, Measure::InstallsSeen] {
        let expected = all.count(count(measure, bounds.clone())).await.unwrap();
        let found = site.reader().count(count(measure, bounds.clone())).await.unwrap();
        assert_eq!(found, expected, "when an install was first seen outlives retention: {measure:?}");
    }
    let latest_deleted = (today - 11) * DAY_MS + 1;
    assert_eq!(site.reader().complete_from("demo", false).await, Ok(Some(latest_deleted + 1)));
    assert_eq!(site.reader().complete_from("demo", true).await, Ok(None));
    assert_eq!(site.reader().time_range("demo").await.unwrap(), kept.time_range("demo").await.unwrap());
    assert_eq!(site.number("SELECT count(*) FROM install"), 30, "all are remembered");
    for table in ["session", "user", "context"] {
        assert_eq!(site.number(&format!("SELECT count(*) FROM {table}")), 9, "what nothing refers to is gone: {table}");
    }
    let deleted = 29 * 3;
    let history = StoreBackfill::new(site.dir.path());
    assert_eq!(history.missing(0), Ok(Some(deleted)));
    assert_eq!(history.missing(deleted), Ok(None));
    assert_eq!(history.records(0, 120, 9, u64::MAX), Ok(Vec::new()));
    assert_eq!(history.records(deleted, 120, 9, u64::MAX).unwrap().len(), 9);
    assert!(
        site.telemetry
            .render(&crate::telemetry::Gauges::default())
            .contains(&format!("subway_store_deleted_events_total {deleted}\n"))
    );
}

#[tokio::test]
async fn what_comes_back_after_it_was_swept_is_counted_anew_and_rightly() {
    let mut site = Site::new(&days(1), 1000);
    site.store("demo", 0, (1, 1, "c", 0)).await;
    site.store("demo", 50 * DAY_MS, (2, 2, "d", 50 * DAY_MS)).await;
    site.settle(50 * DAY_MS).await;
    assert_eq!(site.number("SELECT count(*) FROM session"), 1);
    assert_eq!(site.seqs(None).await, [2]);
    // The same writer, whose caches still contain the IDs of swept rows.
    site.store("demo", 50 * DAY_MS, (1, 1, "c", 50 * DAY_MS + 1)).await;
    assert_eq!(site.seqs(None).await, [3, 2]);
    assert_eq!(site.seqs(Some("c")).await, [3]);
    let bounds = vec![0, 49 * DAY_MS, 51 * DAY_MS];
    let new = site.reader().count(count(Measure::NewInstalls, bounds.clone())).await.unwrap();
    assert_eq!(new.buckets, [1, 1], "it was first seen then, and is not new again");
    let sessions = site.reader().count(count(Measure::Sessions, bounds)).await.unwrap();
    assert_eq!(sessions.buckets, [0, 2]);
}

#[tokio::test]
async fn a_store_that_nobody_writes_to_is_emptied_too_and_a_wrong_clock_keeps_nothing_for_ever() {
    let mut site = Site::new(&days(5), 1000);
    site.store("demo", 10 * DAY_MS, (1, 1, "c", 10 * DAY_MS)).await;
    // The clock is a century ahead for one event, and right again.
    site.store("demo", 36_500 * DAY_MS, (1, 1, "c", 10 * DAY_MS)).await;
    site.store("demo", 11 * DAY_MS, (1, 1, "c", 11 * DAY_MS)).await;
    site.settle(15 * DAY_MS).await;
    assert_eq!(site.seqs(None).await, [3, 2, 1], "all are young enough");
    site.settle(16 * DAY_MS).await;
    // The only evidence of the second is that it arrived before the third.
    assert_eq!(site.seqs(None).await, [3, 2]);
    site.settle(17 * DAY_MS).await;
    assert_eq!(site.seqs(None).await, [] as [u64; 0]);
    assert_eq!(site.sink.position().await, Ok(Some(3)));
    site.reopen(&days(5), 1000);
    assert_eq!(site.sink.position().await, Ok(Some(3)));
    site.store("demo", 17 * DAY_MS, (1, 1, "c", 17 * DAY_MS)).await;
    assert_eq!(site.seqs(None).await, [4]);
}

#[tokio::test]
async fn the_store_stays_below_its_bytes_and_keeps_the_newest() {
    let most = 4 * 1024 * 1024;
    let mut site = Site::new(&Embedded { retention_bytes: most, ..Embedded::default() }, 1_000_000);
    let mut largest = 0;
    for round in 0..60u64 {
        let first = site.next;
        let events: Vec<Value> = (first..first + 1000)
            .map(|n| {
                json!({"event_id": uuid(3, n), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": 1,
                "props": {"text": format!("{n:x>100}")}})
            })
            .collect();
        let json = json!({"app_key": "demo", "batch_id": uuid(4, round), "install_id": uuid(1, 1), "received_at": 1, "events": events});
        let records = vec![StoredRecord { first, json: json.to_string() }];
        site.next += 1000;
        let batch = SinkBatch { first, last: first + 999, dedup_token: String::new(), records };
        site.sink.deliver(Arc::new(batch)).await.unwrap();
        site.sink.run_retention_step_at(1).await.unwrap();
        largest = largest.max(site.telemetry.store.bytes());
    }
    site.settle(1).await;
    assert!(largest < most + most / 4, "{largest}");
    let left = site.reader().count(count(Measure::Events, vec![0, 100_000])).await.unwrap().total;
    assert!((5_000..40_000).contains(&left), "{left}");
    let newest = site.reader().count(count(Measure::Events, vec![55_001, 100_000])).await.unwrap().total;
    assert_eq!(newest, 5_000, "the newest are there");
    let complete_from = site.reader().complete_from("demo", false).await.unwrap().unwrap();
    assert_eq!(60_000 - u64::try_from(complete_from).unwrap() + 1, left, "and it is said from when on");
    let file = std::fs::metadata(site.dir.path().join(FILE)).unwrap().len();
    assert!(file < 2 * most, "free pages are used again: {file}");
}

#[tokio::test]
async fn pages_are_given_back_when_much_is_deleted() {
    let mut site = Site::new(&days(1), 1_000_000);
    for day in [0, 50] {
        for n in 0..20 {
            let first = site.next;
            let events: Vec<Value> = (first..first + 2000)
                .map(|n| {
                    let width = if day == 0 { 700 } else { 10 };
                    json!({"event_id": uuid(3, n), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": 1,
                    "props": {"text": format!("{n:x>width$}")}})
                })
                .collect();
            let json = json!({"app_key": "demo", "batch_id": uuid(4, n), "install_id": uuid(1, 1), "received_at": day * DAY_MS, "events": events});
            let records = vec![StoredRecord { first, json: json.to_string() }];
            site.next += 2000;
            let batch = SinkBatch { first, last: first + 1999, dedup_token: String::new(), records };
            site.sink.deliver(Arc::new(batch)).await.unwrap();
        }
    }
    let before = site.number("SELECT page_count FROM pragma_page_count");
    site.settle(50 * DAY_MS).await;
    let after = site.number("SELECT page_count FROM pragma_page_count");
    assert!(after < before / 2, "{before} pages, then {after}");
    let newest: Vec<u64> = (79_001..=80_000).rev().collect();
    assert_eq!(site.seqs(None).await, newest);
    let rows = StoredRows::open(site.dir.path()).unwrap();
    let mut found = 0;
    rows.read_after(0, 100_000, |_| {
        found += 1;
        Ok::<_, DbError>(())
    })
    .unwrap();
    assert_eq!(found, 40_000);
}

#[tokio::test]
async fn installs_without_events_are_forgotten_beyond_the_cap_of_their_app_alone() {
    let mut site = Site::new(&Embedded { remembered_installs: 3, ..days(1) }, 1000);
    for install in 0..10 {
        site.store("demo", 0, (install, install, "c", install.cast_signed())).await;
        if install < 3 {
            site.store("other", 0, (install, install, "c", 0)).await;
        }
    }
    site.store("demo", 50 * DAY_MS, (9, 9, "c", 50 * DAY_MS)).await;
    site.settle(50 * DAY_MS).await;
    let of = |app: &str| format!("SELECT count(*) FROM install WHERE app = (SELECT id FROM app WHERE key = '{app}')");
    assert_eq!((site.number(&of("demo")), site.number(&of("other"))), (3, 3));
    // Installs with events stay, then those that came last; the store says from when on the numbers are complete.
    assert_eq!(site.reader().complete_from("demo", true).await, Ok(Some(7)));
    assert_eq!(site.reader().complete_from("other", true).await, Ok(None));
    let new = site.reader().count(count(Measure::NewInstalls, vec![7, 100])).await.unwrap();
    assert_eq!(new.total, 3);
    assert!(
        site.telemetry
            .render(&crate::telemetry::Gauges::default())
            .contains("subway_store_forgotten_installs_total 7\n")
    );
}

#[tokio::test]
async fn a_crash_between_dropping_a_part_and_sweeping_is_made_good_at_the_next_start() {
    let mut site = Site::new(&days(1), 1000);
    site.store("demo", 0, (1, 1, "c", 0)).await;
    site.store("demo", 50 * DAY_MS, (2, 2, "d", 0)).await;
    assert!(site.sink.run_retention_step_at(50 * DAY_MS).await.unwrap());
    assert_eq!(site.number("SELECT count(*) FROM session"), 2);
    site.reopen(&days(1), 1000);
    site.settle(50 * DAY_MS).await;
    assert_eq!(site.number("SELECT count(*) FROM session"), 1);
}

#[tokio::test]
async fn an_app_with_too_many_codes_and_contexts_keeps_them_in_its_rows_and_every_answer_is_the_same() {
    let settings = Embedded { codes_per_app: 3, contexts_per_app: 2, ..Embedded::default() };
    let mut site = Site::new(&settings, 1000);
    let oracle = Oracle::default();
    for n in 0..10u64 {
        let code = format!("code {}", n % 5);
        let record = site.store("demo", 0, (n % 4, n, &code, n.cast_signed())).await;
        oracle.add(&record);
    }
    // Another app has a limit of its own.
    site.store("other", 0, (1, 1, "code 4", 5)).await;
    assert_eq!(site.telemetry.store.in_rows(), (4, 4));
    for code in ["code 0", "code 3", "code 4", "code 9"] {
        let filter = Filter { code: Some(code.into()), theme: None };
        let query = CountQuery { filter: filter.clone(), ..count(Measure::Installs, vec![0, 5, 10]) };
        assert_eq!(site.reader().count(query.clone()).await.unwrap(), oracle.count(query).await.unwrap(), "{code}");
    }
    let query = EventsQuery { app: "demo".into(), limit: 100, ..EventsQuery::default() };
    let lines = |found: Vec<crate::query::ListedEvent>| -> Vec<Value> {
        found.iter().map(|listed| serde_json::to_value(&listed.row).unwrap()).collect()
    };
    let found = lines(site.reader().newest(query.clone()).await.unwrap());
    assert_eq!(found, lines(oracle.newest(query).await.unwrap()));
    assert_eq!(site.number("SELECT count(*) FROM word WHERE text LIKE 'code%'"), 4);
    assert_eq!(site.number("SELECT count(*) FROM context"), 3);
    // With a higher limit the texts get IDs, and those in rows are still found.
    site.reopen(&Embedded::default(), 1000);
    site.store("demo", 0, (1, 1, "code 4", 11)).await;
    assert_eq!(site.seqs(Some("code 4")).await, [12, 10, 5]);
    assert_eq!(site.number("SELECT count(*) FROM word WHERE text = 'code 4'"), 2);
}

#[tokio::test]
async fn what_is_skipped_is_missing_and_said_so() {
    let mut site = Site::new(&Embedded::default(), 1000);
    site.store("demo", 0, (1, 1, "c", 0)).await;
    site.sink.skip(5).await.unwrap();
    site.sink.skip(5).await.unwrap();
    assert_eq!(site.sink.position().await, Ok(Some(5)));
    site.next = 6;
    site.store("demo", 0, (1, 1, "c", 0)).await;
    let history = StoreBackfill::new(site.dir.path());
    assert_eq!(history.records(0, 9, 9, u64::MAX).unwrap().len(), 1, "up to the hole");
    assert_eq!((history.missing(0), history.missing(1), history.missing(5)), (Ok(None), Ok(Some(5)), Ok(None)));
    assert_eq!(StoredRows::open(site.dir.path()).unwrap().missing(0, 6).unwrap(), 4);
    assert!(site.reader().complete_from("demo", false).await.unwrap().is_some());
    site.reopen(&Embedded::default(), 1000);
    assert_eq!(site.sink.position().await, Ok(Some(6)));
}

/// Store of the first version, from before there were parts.
#[tokio::test]
async fn a_store_from_before_there_were_parts_opens_with_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let old = crate::db::open(&dir.path().join(FILE), &MIGRATIONS[..1]).unwrap();
    old.execute_batch(
        "INSERT INTO app (id, key, timezone) VALUES (1, 'demo', 'UTC');
        INSERT INTO word (id, text) VALUES (1, 'view'), (2, 'old code');
        INSERT INTO context VALUES (1, '1.0', '', '', 'jd', '', '', '', '', '', '', '', '', '', '');
        INSERT INTO install (id, app, install_id, first_time) VALUES (1, 1, 'i', 5);
        INSERT INTO batch VALUES (1, 'b', 86400000, 1, NULL);
        INSERT INTO event (position, app, batch, event_id, event_time, theme, code, install, user, session, seq, ts, boot, page_path,
            page_title, page_referrer) VALUES (1, 1, 1, 'e1', 5, 1, 2, 1, 0, 0, 1, 1, '', '', '', ''),
            (2, 1, 1, 'e2', 6, 1, 2, 1, 0, 0, 2, 1, '', '', '', '');
        UPDATE cursor SET position = 2",
    )
    .unwrap();
    drop(old);
    let (sink, telemetry) = opened(dir.path(), &days(2), 1000);
    let mut site = Site { dir, sink, telemetry, next: 3 };
    assert_eq!(site.seqs(Some("old code")).await, [2, 1]);
    site.store("demo", 2 * DAY_MS, (1, 1, "old code", 7)).await;
    assert_eq!(site.seqs(Some("old code")).await, [3, 2, 1]);
    assert_eq!(site.number("SELECT installs FROM app"), 2);
    // Its part has a column for each of an event's, the next one has packed events; both are read.
    let found = StoreBackfill::new(site.dir.path()).records(0, 9, 9, u64::MAX).unwrap();
    let events = |record: &StoredRecord| serde_json::from_str::<Value>(&record.json).unwrap()["events"].clone();
    assert_eq!(
        found.iter().map(events).collect::<Vec<_>>(),
        [
            json!([{"event_time": 5, "event_id": "e1", "theme": "view", "code": "old code", "seq": 1, "ts": 1}]),
            json!([{"event_time": 6, "event_id": "e2", "theme": "view", "code": "old code", "seq": 2, "ts": 1}]),
            json!([{"event_time": 7, "event_id": uuid(3, 3), "user_id": "u1", "theme": "view", "code": "old code", "seq": 3, "ts": 1,
                "session_id": uuid(2, 1)}]),
        ]
    );
    site.settle(4 * DAY_MS).await;
    assert_eq!(site.seqs(Some("old code")).await, [3], "and its events go when their time has come");
}
