//! SIGHUP: another configuration while the collector runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::files::{ConfigFixture, demo};
use super::support::{ADMIN, BINARY, Collector, CollectorFixture, READ, batch, event, events, eventually};

const SECOND: &str = "[[app]]\nkey = \"second\"\ntimezone = \"America/New_York\"\nread_token = \"second-token\"\n";

fn send(collector: &Collector, key: &str) -> u16 {
    collector.post(key, &[], batch(events(1)).to_string().as_bytes()).status
}

#[test]
fn a_new_app_is_served_with_its_days_and_a_removed_one_no_longer() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    assert_eq!((send(&collector, "demo"), send(&collector, "second")), (200, 401));
    site.configure(&demo("", "", SECOND));
    site.reload(&collector);
    // 2015-05-17 00:30 in New York is 04:30 UTC.
    let mut night = event();
    night["true_ts"] = 1_431_837_000_000i64.into();
    assert_eq!(collector.post("second", &[], batch(vec![night]).to_string().as_bytes()).counts(), (1, 0, 0));
    let path = "/v1/apps/second/metrics/pv?from=2015-05-17&to=2015-05-18&interval=day";
    let answer = collector.get(path, Some("second-token")).json();
    assert_eq!((&answer["timezone"], &answer["total"]), (&"America/New_York".into(), &1.into()), "{answer}");
    let exported = site.site.command(&["export", "--app", "second", "--from", "2015-05-17", "--to", "2015-05-18"]);
    assert_eq!(exported.lines().count(), 1, "the embedded store knows the zone too");
    site.configure(&demo("", "", ""));
    site.reload(&collector);
    assert_eq!((send(&collector, "demo"), send(&collector, "second")), (200, 401));
    assert_eq!(collector.get(path, Some("second-token")).status, 401);
    assert_eq!(collector.get(path, Some(ADMIN)).status, 401);
    site.configure(&demo("", "", SECOND));
    site.reload(&collector);
    assert_eq!(collector.get(path, Some("second-token")).json()["total"], 1, "its events were kept");
    assert_eq!(collector.metric("subway_config_reloads_total{result=\"applied\"}"), 3);
}

#[test]
fn a_new_app_gets_a_token_as_at_the_start() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    site.configure(&demo("", "", "[[app]]\nkey = \"third\"\ntimezone = \"UTC\"\n"));
    let log = site.reload(&collector);
    let token = std::fs::read_to_string(site.site.data().join("read-token-third")).unwrap();
    assert_eq!(collector.get("/v1/apps/third/range", Some(token.trim())).status, 200);
    assert!(log.contains("read-token-third") && !log.contains(token.trim()), "{log}");
}

#[test]
fn tokens_secrets_and_limits_change_at_once() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(2))).status, 200);
    let changed = demo("", "secret = \"s\"", "[limits]\nevents_per_batch = 1\n");
    site.configure(&changed.replace(ADMIN, "other-admin").replace(READ, "other-reader"));
    site.reload(&collector);
    assert_eq!(collector.send(&batch(events(1))).code(), "bad_signature");
    assert_eq!(collector.get("/v1/admin/ledger", Some(ADMIN)).status, 401);
    assert_eq!(collector.get("/v1/admin/ledger", Some("other-admin")).status, 200);
    assert_eq!(collector.get("/v1/apps/demo/range", Some(READ)).status, 401);
    assert_eq!(collector.get("/v1/apps/demo/range", Some("other-reader")).status, 200);
    site.configure(&demo("", "", "[limits]\nevents_per_batch = 1\n"));
    site.reload(&collector);
    assert_eq!(collector.send(&batch(events(2))).code(), "too_many_events");
}

#[test]
fn a_bad_file_changes_nothing_and_is_logged_with_line_and_key() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    for (bad, line, key) in [
        (demo("", "", "[limits]\nbody_bytes = 0\n"), "line 9", "limits.body_bytes"),
        (demo("", "", "[limits]\nboddy_bytes = 1\n"), "line 9", "boddy_bytes"),
        (demo("", "", "[[app]]\nkey = \"x\"\ntimezone = \"Mars/Base\"\n"), "line 10", "app.timezone"),
        (demo("", "", "x = [\n"), "line ", "x"),
    ] {
        site.configure(&bad.replace(ADMIN, "changed-as-well"));
        let log = site.reload(&collector);
        assert!(log.contains(line) && log.contains(key) && log.contains("stays as it was"), "{log}");
        assert_eq!(log.lines().count(), 1, "one line: {log}");
        assert_eq!(collector.get("/v1/admin/ledger", Some(ADMIN)).status, 200, "not even in part");
        assert_eq!(send(&collector, "demo"), 200);
    }
    assert_eq!(collector.metric("subway_config_reloads_total{result=\"refused\"}"), 4);
    std::fs::remove_file(site.path("config.toml")).unwrap();
    assert!(site.reload(&collector).contains("config.toml"), "a missing file neither");
}

#[test]
fn what_only_a_restart_changes_is_named_and_the_rest_takes_effect() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    let more = "[limits]\nqueue_requests = 7\nevents_per_batch = 1\n[log]\nformat = \"json\"\n";
    site.configure(&demo("", "", more));
    let log = site.reload(&collector);
    for key in ["limits.queue_requests", "log"] {
        assert!(log.lines().any(|line| line.contains("needs a restart") && line.contains(key)), "{key}: {log}");
    }
    assert_eq!(log.lines().filter(|line| line.contains("needs a restart")).count(), 2, "{log}");
    assert_eq!(collector.send(&batch(events(2))).code(), "too_many_events");
}

#[test]
fn a_request_in_flight_finishes_under_the_old_configuration() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    let body = batch(events(1)).to_string();
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body.as_bytes()[..100]].concat()).unwrap();
    eventually("the request has begun", || collector.metric("subway_in_flight_bytes") == 100);
    site.configure(&format!("admin_token = \"{ADMIN}\"\n{SECOND}[limits]\nbody_bytes = 50\n"));
    site.reload(&collector);
    assert_eq!(send(&collector, "demo"), 401, "its app is gone");
    stream.write_all(&body.as_bytes()[100..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"stored\":1"), "{answer}");
}

#[test]
fn what_an_app_has_used_of_its_rate_survives_a_reload() {
    let site = ConfigFixture::new(&demo("", "events_per_second = 1", ""));
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(500))).status, 200);
    assert_eq!(collector.send(&batch(events(1))).code(), "too_many_requests");
    site.reload(&collector);
    assert_eq!(collector.send(&batch(events(1))).code(), "too_many_requests");
    site.configure(&demo("", "", ""));
    site.reload(&collector);
    assert_eq!(collector.send(&batch(events(1))).counts(), (1, 0, 0), "without the limit it may send");
}

#[test]
fn reloads_under_traffic_lose_nothing() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    let (one, two) = (demo("", "", ""), demo("", "", SECOND));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| (0..300).filter(|_| send(&collector, "demo") == 200).count());
        let mut round = 0;
        while !sender.is_finished() {
            site.configure(if round % 2 == 0 { &two } else { &one });
            site.reload(&collector);
            round += 1;
        }
        assert_eq!(sender.join().unwrap(), 300);
        assert!(round > 1, "only {round} reloads");
    });
    let ledger: Value = collector.ledger();
    assert_eq!(ledger["stored"], 300);
    assert!(collector.terminate().success());
}

#[test]
fn without_a_file_a_hangup_ends_the_collector_in_order() {
    let site = CollectorFixture::new("");
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(site.data());
    let mut collector = Collector::spawn(&mut command);
    collector.signal("-HUP");
    assert!(collector.wait().success());
}
