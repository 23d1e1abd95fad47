//! Conformance suite for readers: the numbers of the [`Oracle`], on small data in which everything collides with
//! everything.

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use subway_protocol::Theme;

use super::oracle::Oracle;
use super::{CountQuery, EventsQuery, Filter, ListedEvent, Measure, Reader, SortKey};
use crate::sinks::conformance::edge;
use crate::sinks::{SinkBatch, StoredRecord};

/// Store under test. It may contain other apps' events; the suite uses app keys of its own.
#[async_trait]
pub(crate) trait Subject {
    /// Delivers a batch to the store. The suite's positions begin at 1.
    async fn deliver(&self, batch: SinkBatch);
    /// Returns the reader of the store.
    fn reader(&self) -> &dyn Reader;
}

/// Rounds of random data, and queries in each.
const ROUNDS: usize = 60;
const QUERIES: usize = 40;
/// Times of random events lie in `0..TIMES`, so that they often meet each other and the boundaries.
const TIMES: i64 = 40;

const MEASURES: [Measure; 6] = [
    Measure::Events,
    Measure::Installs,
    Measure::Users,
    Measure::Sessions,
    Measure::NewInstalls,
    Measure::InstallsSeen,
];

/// Runs the whole suite.
pub(crate) async fn run(subject: &dyn Subject) {
    let mut suite = Suite { subject, oracle: Oracle::default(), next: 1 };
    suite.an_unknown_app_has_no_events().await;
    suite.a_late_event_moves_the_first_time_of_its_install().await;
    suite.events_come_back_as_they_were_sent().await;
    suite.values_at_the_edge_come_back_as_they_were_sent().await;
    suite.events_of_decades_are_read_like_any_others().await;
    suite.random_queries_about_random_events().await;
}

struct Suite<'a> {
    subject: &'a dyn Subject,
    oracle: Oracle,
    next: u64,
}

/// Event: time, theme, code, user (0 for none), session (0 for none).
type Sketch = (i64, usize, u8, u8, u8);

fn uuid(kind: u8, number: u64) -> String {
    format!("{kind:08x}-0000-7000-8000-{number:012x}")
}

impl Suite<'_> {
    async fn store(&mut self, app: &str, install: u8, events: &[Sketch]) {
        let first = self.next;
        let events: Vec<serde_json::Value> = events
            .iter()
            .enumerate()
            .map(|(at, (time, theme, code, user, session))| {
                let session = if *session == 0 { String::new() } else { uuid(2, u64::from(*session)) };
                let user = if *user == 0 { String::new() } else { format!("user {user}") };
                json!({"event_id": uuid(3, first + at as u64), "seq": at + 1, "theme": Theme::ALL[*theme].as_str(),
                    "code": format!("c{code}"), "event_time": time, "ts": time + 1, "user_id": user, "session_id": session})
            })
            .collect();
        let record = json!({"app_key": app, "batch_id": uuid(4, first), "install_id": uuid(1, u64::from(install)), "received_at": 99,
            "events": events});
        self.store_record(record).await;
    }

    async fn store_record(&mut self, record: serde_json::Value) {
        let count = record["events"].as_array().unwrap().len() as u64;
        self.store_text(record.to_string(), count).await;
    }

    async fn store_text(&mut self, json: String, count: u64) {
        let stored = StoredRecord { first: self.next, json };
        self.oracle.add(&stored);
        let (first, last) = (self.next, self.next + count - 1);
        self.next = last + 1;
        self.subject
            .deliver(SinkBatch { first, last, dedup_token: format!("t-{first}-{last}"), records: vec![stored] })
            .await;
    }

    async fn compare_count(&self, query: CountQuery) {
        let expected = self.oracle.count(query.clone()).await.unwrap();
        let found = self.subject.reader().count(query.clone()).await.unwrap();
        assert_eq!(found, expected, "{query:?}");
    }

    async fn compare_newest(&self, query: EventsQuery) {
        // Compares text, because Rust types cannot hold every property.
        let lines = |found: Vec<ListedEvent>| {
            let line = |listed: &ListedEvent| (listed.position, serde_json::to_string(&listed.row).unwrap());
            found.iter().map(line).collect::<Vec<_>>()
        };
        let expected = lines(self.oracle.newest(query.clone()).await.unwrap());
        let found = lines(self.subject.reader().newest(query.clone()).await.unwrap());
        assert_eq!(found, expected, "{query:?}");
    }

    async fn compare_time_range(&self, app: &str) {
        assert_eq!(
            self.subject.reader().time_range(app).await.unwrap(),
            self.oracle.time_range(app).await.unwrap(),
            "{app}"
        );
    }

    async fn an_unknown_app_has_no_events(&mut self) {
        for measure in MEASURES {
            let query =
                CountQuery { app: "nobody".into(), measure, filter: Filter::default(), bounds: vec![0, 10, 20] };
            let counts = self.subject.reader().count(query).await.unwrap();
            assert_eq!((counts.buckets, counts.total), (vec![0, 0], 0), "{measure:?}");
        }
        self.compare_newest(EventsQuery { app: "nobody".into(), limit: 10, ..EventsQuery::default() }).await;
        self.compare_time_range("nobody").await;
    }

    async fn a_late_event_moves_the_first_time_of_its_install(&mut self) {
        let app = "late";
        self.store(app, 1, &[(30, 0, 0, 0, 0)]).await;
        self.store(app, 2, &[(30, 1, 0, 0, 0)]).await;
        for early in [25, 5] {
            self.store(app, 1, &[(35, 0, 0, 0, 0), (early, 2, 0, 0, 0), (early + 1, 0, 0, 0, 0)]).await;
            for measure in [Measure::NewInstalls, Measure::InstallsSeen] {
                self.compare_count(CountQuery {
                    app: app.into(),
                    measure,
                    filter: Filter::default(),
                    bounds: vec![0, 10, 20, 30, 40],
                })
                .await;
            }
        }
        let query = CountQuery {
            app: app.into(),
            measure: Measure::NewInstalls,
            filter: Filter::default(),
            bounds: vec![0, 10, 20, 30, 40],
        };
        assert_eq!(self.subject.reader().count(query).await.unwrap().buckets, [1, 0, 0, 1]);
    }

    async fn events_come_back_as_they_were_sent(&mut self) {
        let app = "whole";
        self.store_record(json!({"app_key": app, "batch_id": uuid(4, 1), "install_id": uuid(1, 1), "received_at": 1_431_835_512_345_i64,
            "context": {"app_version": "1.2", "sdk_name": "s", "sdk_version": "0.1", "platform": "jd", "host_app": "jdapp", "host_version": "13",
                "os": "iOS", "os_version": "17.1", "brand": "Apple", "model": "\u{9875} \"x\"", "screen": "390x844", "language": "zh-CN",
                "timezone": "Asia/Shanghai", "network": "wifi"},
            "common": {"channel": "qr", "n": 1.5},
            "events": [{"event_id": uuid(3, 1), "seq": 9_007_199_254_740_991_u64, "theme": "view", "code": "page_view",
                "event_time": 253_402_300_799_999_i64, "ts": 0, "mono": 18, "boot": "b7", "user_id": "u'1\u{0}\u{1F600}", "session_id": uuid(2, 1),
                "session_index": 3, "session_event": 12, "page_path": "a\\b", "page_title": "\u{9875}\n", "page_referrer": "<script>",
                "page_enter_ts": 7, "props": {"a": {"b": [1, null, "\u{2028}"]}}}]}))
            .await;
        self.compare_newest(EventsQuery { app: app.into(), limit: 10, ..EventsQuery::default() }).await;
        self.compare_time_range(app).await;
        let record: serde_json::Value = serde_json::from_str(&crate::record::samples::record()).unwrap();
        let app = record["app_key"].as_str().unwrap().to_owned();
        self.store_record(record).await;
        self.compare_newest(EventsQuery { app, limit: 10, ..EventsQuery::default() }).await;
    }

    async fn values_at_the_edge_come_back_as_they_were_sent(&mut self) {
        let app = "edges";
        let properties = edge::properties();
        let events: Vec<String> = properties
            .iter()
            .zip(edge::CODES.iter().cycle())
            .enumerate()
            .map(|(at, (props, code))| {
                let event = json!({"event_id": uuid(5, at as u64), "seq": at + 1, "theme": "custom", "code": code, "event_time": at, "ts": at,
                    "user_id": "u", "session_id": uuid(2, 1)});
                edge::with_props(&event, props)
            })
            .collect();
        for (common, events) in edge::COMMON.iter().zip(events.chunks(events.len().div_ceil(edge::COMMON.len()))) {
            let head = json!({"app_key": app, "batch_id": uuid(4, 5), "install_id": uuid(1, 5), "received_at": 99})
                .to_string();
            let head = head.trim_end_matches('}');
            let json = format!("{head},\"common\":{common},\"events\":[{}]}}", events.join(","));
            self.store_text(json, events.len() as u64).await;
        }
        self.compare_newest(EventsQuery { app: app.into(), limit: 1000, ..EventsQuery::default() }).await;
        for code in edge::CODES {
            let filter = Filter { theme: None, code: Some(code.to_owned()) };
            let query = EventsQuery { app: app.into(), filter: filter.clone(), limit: 1000, ..EventsQuery::default() };
            self.compare_newest(query).await;
            for measure in [Measure::Events, Measure::Installs] {
                let query = CountQuery { app: app.into(), measure, filter: filter.clone(), bounds: vec![0, 5, 1000] };
                let counts = self.subject.reader().count(query.clone()).await.unwrap();
                assert!(counts.total > 0, "{code}");
                self.compare_count(query).await;
            }
        }
    }

    /// From 1970 to the day after the arrival.
    async fn events_of_decades_are_read_like_any_others(&mut self) {
        let (app, day, arrived) = ("decades", 86_400_000_i64, 1_795_651_234_567_i64);
        for install in 1..4_u64 {
            let whole = (0..60).step_by(9).map(|year| year * 365 * day + install as i64).filter(|time| *time < arrived);
            let times = whole.chain([arrived - 401 * day, arrived - 400 * day, arrived, arrived + day]);
            let events: Vec<serde_json::Value> = times
                .skip(install as usize - 1)
                .enumerate()
                .map(|(at, time)| {
                    json!({"event_id": uuid(6, self.next + at as u64), "seq": at + 1, "theme": "view", "code": "v", "event_time": time, "ts": time,
                        "user_id": format!("u{install}"), "session_id": uuid(2, at as u64)})
                })
                .collect();
            self.store_record(json!({"app_key": app, "batch_id": uuid(4, install), "install_id": uuid(1, install), "received_at": arrived,
                "events": events}))
                .await;
        }
        self.compare_time_range(app).await;
        self.compare_newest(EventsQuery { app: app.into(), limit: 1000, ..EventsQuery::default() }).await;
        let (from, to) = (Some(arrived - 500 * day), Some(arrived + 2 * day));
        self.compare_newest(EventsQuery { app: app.into(), from, to, limit: 1000, ..EventsQuery::default() }).await;
        let bounds = |width: i64, count: i64| (0..=count).map(|n| n * width).collect::<Vec<_>>();
        for bounds in
            [bounds(365 * day, 57), bounds(30 * day, 700), bounds(50 * 3_600_000, 10_000), vec![0, 2 * arrived]]
        {
            for measure in MEASURES {
                let bounds = bounds.clone();
                self.compare_count(CountQuery { app: app.into(), measure, filter: Filter::default(), bounds }).await;
            }
        }
    }

    async fn random_queries_about_random_events(&mut self) {
        let config = Config { failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        let event = (0..TIMES, 0usize..3, 0u8..3, 0u8..3, 0u8..4);
        let batches = proptest::collection::vec((0u8..2, 0u8..4, proptest::collection::vec(event, 1..6)), 1..10);
        let bounds = proptest::collection::btree_set(-2..TIMES + 2, 2..12);
        let theme = proptest::option::of((0usize..4).prop_map(|at| Theme::ALL[at]));
        let code = proptest::option::of((0u8..4).prop_map(|code| format!("c{code}")));
        let after = proptest::option::of((0..TIMES, 0u64..60));
        let query_strategy = ((0u8..2, 0..MEASURES.len(), bounds, theme, code), (0u8..5, 0u8..4, after, 1usize..12));
        for round in 0..ROUNDS {
            let app = |which: u8| format!("random-{round}-{which}");
            for (which, install, events) in batches.new_tree(&mut runner).unwrap().current() {
                self.store(&app(which), install, &events).await;
            }
            for _ in 0..QUERIES {
                let ((which, measure, bounds, theme, code), (install, user, after, limit)) =
                    query_strategy.new_tree(&mut runner).unwrap().current();
                let (measure, bounds): (_, Vec<i64>) = (MEASURES[measure], bounds.into_iter().collect());
                let takes_filter = !matches!(measure, Measure::NewInstalls | Measure::InstallsSeen);
                let filter = Filter { theme, code };
                let count_filter = if takes_filter { filter.clone() } else { Filter::default() };
                let (from, to) = (Some(bounds[0]).filter(|from| *from >= 0), bounds.last().copied());
                self.compare_count(CountQuery { app: app(which), measure, filter: count_filter, bounds }).await;
                let install_id = if install < 4 { None } else { Some(uuid(1, 1)) };
                let user_id = if user < 3 { None } else { Some("user 1".to_owned()) };
                // Sort keys around the events of this round.
                let after =
                    after.map(|(event_time, back)| SortKey { event_time, position: self.next.saturating_sub(back) });
                self.compare_newest(EventsQuery {
                    app: app(which),
                    from,
                    to,
                    filter,
                    install_id,
                    user_id,
                    after,
                    limit,
                })
                .await;
            }
            self.compare_time_range(&app(0)).await;
        }
    }
}
