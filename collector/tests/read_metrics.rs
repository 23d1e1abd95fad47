//! The reading API of the built binary.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod read_support;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use read_support::{ADMIN, Collector, DEMO, RIO, at, event, uuid};
use serde_json::{Value, json};

fn values(answer: &Value) -> Vec<u64> {
    answer["series"].as_array().unwrap().iter().map(|point| point["value"].as_u64().unwrap()).collect()
}

/// Two installs over three days in Shanghai; one of them is known as a user in two sessions.
fn small_world(collector: &Collector) {
    let session = |mut event: Value, user: &str, session: u64| {
        event["user_id"] = json!(user);
        event["session"] = json!({"id": uuid(2, session), "index": session, "event": 1});
        event
    };
    let first = [
        session(event(1, "view", at("2015-05-17T00:00:00+08:00")), "u1", 1),
        session(event(2, "view", at("2015-05-17T23:59:59.999+08:00")), "u1", 1),
        session(event(3, "click", at("2015-05-18T12:00:00+08:00")), "u1", 2),
    ];
    collector.send("demo", 1, &first);
    collector.send(
        "demo",
        2,
        &[event(4, "click", at("2015-05-17T12:00:00+08:00")), event(5, "view", at("2015-05-19T08:00:00+08:00"))],
    );
    // Another app's event changes nothing.
    collector.send("rio", 3, &[event(6, "view", at("2015-05-18T08:00:00+08:00"))]);
}

fn series(collector: &Collector, metric: &str, more: &str) -> (Vec<u64>, u64) {
    let answer = collector.ask(&format!("/v1/apps/demo/metrics/{metric}?from=2015-05-17&to=2015-05-20{more}"), DEMO);
    (values(&answer), answer["total"].as_u64().unwrap())
}

fn assert_small_world(collector: &Collector) {
    let expected = [
        ("pv", [2, 0, 1], 3),
        ("uv", [1, 0, 1], 2),
        ("users", [1, 1, 0], 1),
        ("new_users", [2, 0, 0], 2),
        ("cumulative_users", [2, 2, 2], 2),
        ("sessions", [1, 1, 0], 2),
        ("events", [3, 1, 1], 5),
    ];
    for (metric, buckets, total) in expected {
        assert_eq!(series(collector, metric, ""), (buckets.to_vec(), total), "{metric}");
    }
}

#[test]
fn every_metric_is_counted_by_its_definition_also_after_a_restart_and_a_kill() {
    let mut collector = Collector::start();
    small_world(&collector);
    assert_small_world(&collector);
    collector.terminate();
    collector.restart();
    assert_small_world(&collector);
    collector.send("demo", 9, &[event(7, "view", at("2014-01-01T00:00:00Z"))]);
    collector.kill();
    collector.restart();
    assert_eq!(series(&collector, "cumulative_users", ""), (vec![3, 3, 3], 3));
    assert_eq!(series(&collector, "new_users", ""), (vec![2, 0, 0], 2));
}

#[test]
fn the_answer_has_the_shape_of_the_contract() {
    let collector = Collector::start();
    small_world(&collector);
    let answer = collector.ask("/v1/apps/demo/metrics/pv?from=2015-05-17&to=2015-05-19", DEMO);
    let expected = json!({"metric": "pv", "interval": "day", "timezone": "Asia/Shanghai", "total": 2,
        "series": [{"start": "2015-05-16T16:00:00Z", "value": 2}, {"start": "2015-05-17T16:00:00Z", "value": 0}]});
    assert_eq!(answer, expected);
    let answer = collector
        .ask("/v1/apps/demo/metrics/events?from=2015-05-17T04:00:00Z&to=2015-05-20&interval=total&theme=click", DEMO);
    assert_eq!(answer["series"], json!([{"start": "2015-05-17T04:00:00Z", "value": 2}]));
    assert_eq!(series(&collector, "events", "&code=view_code&interval=month"), (vec![3], 3));
    assert_eq!(series(&collector, "uv", "&code=nothing_like_it"), (vec![0, 0, 0], 0));
}

#[test]
fn what_was_acknowledged_is_counted_at_once() {
    let collector = Collector::start();
    for n in 1..=50 {
        collector.send("demo", 1, &[event(n, "view", at("2015-05-17T12:00:00Z"))]);
        assert_eq!(series(&collector, "pv", "&interval=total").1, n);
    }
}

#[test]
fn days_and_hours_are_right_over_the_change_of_clocks() {
    let collector = Collector::start();
    let zone = TimeZone::get("America/Sao_Paulo").unwrap();
    let (from, to) = (at("2018-11-02T03:00:00Z"), at("2018-11-07T02:00:00Z"));
    let times: Vec<i64> = (from..to).step_by(17 * 60_000).collect();
    let mut n = 0;
    for (install, chunk) in times.chunks(60).enumerate() {
        let events: Vec<Value> = chunk
            .iter()
            .map(|time| {
                n += 1;
                event(n, "view", *time)
            })
            .collect();
        collector.send("rio", install as u64 % 3, &events);
    }
    // The oracle: every event is put where the local clock stood.
    let mut days: BTreeMap<String, u64> = BTreeMap::new();
    let mut installs: HashMap<String, HashSet<usize>> = HashMap::new();
    let mut hours: BTreeMap<(String, i8, i32), u64> = BTreeMap::new();
    for (index, time) in times.iter().enumerate() {
        let local = Timestamp::from_millisecond(*time).unwrap().to_zoned(zone.clone());
        *days.entry(local.date().to_string()).or_default() += 1;
        installs.entry(local.date().to_string()).or_default().insert((index / 60) % 3);
        *hours.entry((local.date().to_string(), local.hour(), local.offset().seconds())).or_default() += 1;
    }
    let range = "from=2018-11-02&to=2018-11-07";
    let answer = collector.ask(&format!("/v1/apps/rio/metrics/pv?{range}"), RIO);
    assert_eq!(values(&answer), days.values().copied().collect::<Vec<_>>());
    // The day that began at one o'clock.
    assert_eq!(answer["series"][2]["start"], "2018-11-04T03:00:00Z");
    assert_eq!(answer["series"][3]["start"], "2018-11-05T02:00:00Z");
    let answer = collector.ask(&format!("/v1/apps/rio/metrics/uv?{range}"), RIO);
    assert_eq!(values(&answer), days.keys().map(|day| installs[day].len() as u64).collect::<Vec<_>>());
    let answer = collector.ask(&format!("/v1/apps/rio/metrics/events?{range}&interval=hour"), RIO);
    assert_eq!(values(&answer), hours.values().copied().collect::<Vec<_>>());
    assert_eq!(values(&answer).len(), 5 * 24 - 1);
}

#[test]
fn the_newest_events_come_first_and_can_be_filtered() {
    let collector = Collector::start();
    small_world(&collector);
    let numbers = |more: &str| -> Vec<u64> {
        let answer = collector.ask(&format!("/v1/apps/demo/events?{more}"), DEMO);
        answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(""), [5, 3, 2, 4, 1]);
    assert_eq!(numbers("limit=2"), [5, 3]);
    assert_eq!(numbers("limit=10000").len(), numbers("").len());
    assert_eq!(numbers("theme=click"), [3, 4]);
    assert_eq!(numbers("code=view_code&limit=1"), [5]);
    assert_eq!(numbers("user_id=u1&to=2015-05-18"), [2, 1]);
    assert_eq!(numbers(&format!("install_id={}&from=2015-05-19", uuid(1, 2).to_uppercase())), [5]);
    assert_eq!(numbers("user_id=nobody"), [] as [u64; 0]);
    let event = &collector.ask("/v1/apps/demo/events?limit=1", DEMO)["events"][0];
    assert_eq!(
        (&event["event_time"], &event["app_key"], &event["platform"]),
        (&json!(at("2015-05-19T00:00:00Z")), &json!("demo"), &json!("jd"))
    );
    assert_eq!((&event["common"], &event["props"]), (&json!({"channel": "qr"}), &json!({"n": 5})));
    assert!(event["received_at"].is_i64());
}

#[test]
fn a_token_opens_what_is_its_own() {
    let collector = Collector::start();
    small_world(&collector);
    let apps = |token| collector.ask("/v1/apps", token)["apps"].clone();
    assert_eq!(apps(RIO), json!([{"key": "rio", "timezone": "America/Sao_Paulo", "offset": "-03:00"}]));
    assert_eq!(apps(ADMIN).as_array().unwrap().len(), 2);
    for token in [DEMO, ADMIN] {
        let expected = json!({"first": "2015-05-16T16:00:00Z", "last": "2015-05-19T00:00:00Z"});
        assert_eq!(collector.ask("/v1/apps/demo/range", token), expected);
    }
    let refused: HashSet<String> = [
        "/v1/apps/demo/range",
        "/v1/apps/nobody/range",
        "/v1/apps/demo/metrics/pv",
        "/v1/apps/nobody/events",
        "/v1/apps/demo/metrics/nothing",
    ]
    .map(|path| {
        let answer = collector.get(path, RIO);
        assert_eq!((answer.status, answer.header("cache-control")), (401, Some("no-store")));
        answer.text
    })
    .into();
    assert_eq!(refused.len(), 1, "the answers must not tell an unknown app from a wrong token: {refused:?}");
    assert_eq!(collector.get_with("/v1/apps", &[]).status, 401);
    collector.send("demo", 1, &[event(10, "view", 0)]);
    assert_eq!(collector.ask("/v1/apps/demo/range", DEMO)["first"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_app_without_events_has_an_empty_range() {
    let collector = Collector::start();
    assert_eq!(collector.ask("/v1/apps/demo/range", DEMO), json!({"first": null, "last": null}));
    assert_eq!(collector.ask("/v1/apps/demo/events", DEMO), json!({"events": [], "truncated": false, "next": null}));
    assert_eq!(values(&collector.ask("/v1/apps/demo/metrics/pv", DEMO)), [0; 7]);
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_name_of_the_parameter() {
    let collector = Collector::start();
    for (path, field) in [
        ("metrics/pv?from=yesterday", "from"),
        ("metrics/pv?from=2015-05-17&to=2015-05-17", "to"),
        ("metrics/pv?interval=minute", "interval"),
        ("metrics/pv?theme=click", "theme"),
        ("metrics/pv?from=2000-01-01&to=2020-01-01&interval=hour", "interval"),
        ("metrics/new_users?code=a", "code"),
        ("metrics/pv?timezone=UTC", "timezone"),
        ("events?limit=10001", "limit"),
        ("events?limit=0", "limit"),
        ("events?code=a%0Ab", "code"),
    ] {
        let answer = collector.get(&format!("/v1/apps/demo/{path}"), DEMO);
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/problem+json")), "{path}");
        let problem = answer.json();
        assert_eq!((&problem["code"], &problem["field"]), (&json!("invalid_parameter"), &json!(field)), "{path}");
    }
    let problem = collector.get("/v1/apps/demo/metrics/pv?from=2000-01-01&to=2020-01-01&interval=hour", DEMO).json();
    assert_eq!((&problem["limit"], &problem["got"]), (&json!(10_000), &json!(175_320)));
    assert_eq!(collector.get("/v1/apps/demo/metrics/nothing", DEMO).status, 404);
    assert_eq!(collector.get("/v1/apps/%ff/range", DEMO).status, 404);
}
