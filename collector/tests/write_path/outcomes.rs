//! What becomes of each event.

use serde_json::{Value, json};

use super::support::{CollectorFixture, READ, assert_adds_up, batch, event, events, eventually, exported, gzip, id};

#[test]
fn stored_duplicate_and_rejected_add_up_and_are_counted() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let good = event();
    let mut bad = event();
    bad["theme"] = json!("nope");
    let sent = batch(vec![good.clone(), bad, good.clone(), event()]);
    let answer = collector.send(&sent);
    let receipt = answer.json();
    assert_eq!(answer.counts(), (2, 1, 1));
    assert_eq!((&receipt["duplicate"], &receipt["rejected"][0]["index"]), (&json!([2]), &json!(1)));
    assert_eq!(receipt["batch_id"], sent["batch_id"]);
    let again = collector.send(&batch(vec![good, event()]));
    assert_eq!(again.json()["duplicate"], json!([0]));
    let ledger = collector.ledger();
    assert_adds_up(&ledger);
    assert_eq!((&ledger["received"], &ledger["stored"], &ledger["duplicate"]), (&json!(6), &json!(3), &json!(2)));
    assert_eq!(ledger["rejected"], json!({"unknown_theme": 1}));
    assert_eq!(collector.metric("subway_events_total{outcome=\"stored\",reason=\"\"}"), 3);
    assert_eq!(collector.metric("subway_events_total{outcome=\"duplicate\",reason=\"\"}"), 2);
    assert_eq!(collector.metric("subway_events_total{outcome=\"rejected\",reason=\"unknown_theme\"}"), 1);
    eventually("the store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    assert_eq!(site.ledger(), collector.ledger(), "the command tells the same beside a running collector");
}

#[test]
fn an_event_is_a_duplicate_in_whatever_batch_it_comes_again_also_after_a_restart_and_a_crash() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let known = event();
    assert_eq!(collector.send(&batch(vec![known.clone()])).counts(), (1, 0, 0));
    assert_eq!(collector.send(&batch(vec![known.clone()])).counts(), (0, 1, 0));
    assert!(collector.terminate().success());
    let collector = site.start();
    assert_eq!(collector.send(&batch(vec![known.clone()])).counts(), (0, 1, 0));
    collector.kill_9();
    let collector = site.start();
    let mut upper = known;
    upper["id"] = json!(upper["id"].as_str().unwrap().to_uppercase());
    assert_eq!(collector.send(&batch(vec![upper])).counts(), (0, 1, 0));
    assert_adds_up(&collector.ledger());
}

#[test]
fn apps_do_not_share_what_was_seen() {
    let site = CollectorFixture::new("[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\n");
    let collector = site.start();
    let body = batch(events(1)).to_string();
    assert_eq!(collector.post("demo", &[], body.as_bytes()).counts(), (1, 0, 0));
    assert_eq!(collector.post("other", &[], body.as_bytes()).counts(), (1, 0, 0));
}

#[test]
fn a_batch_without_a_good_event_is_answered_all_the_same() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    assert_eq!(collector.send(&batch(vec![json!({}), json!([]), json!(null)])).counts(), (0, 0, 3));
    assert_adds_up(&collector.ledger());
    assert!(exported(&site).is_empty());
}

fn times(site: &CollectorFixture) -> Vec<(u64, i64)> {
    let mut out: Vec<(u64, i64)> = site
        .command(&["export"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (row["seq"].as_u64().unwrap(), row["event_time"].as_i64().unwrap()))
        .collect();
    out.sort_unstable();
    out
}

fn at(seq: u64, ts: i64, mono: u64) -> Value {
    json!({"id": id(), "seq": seq, "theme": "view", "code": "a", "ts": ts, "mono": mono, "boot": "b"})
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

#[test]
fn a_clock_that_is_off_is_corrected_and_a_true_time_is_believed() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let mut wrong = batch(vec![at(1, 1_000_000, 1)]);
    let mut true_time = at(2, 1_000_000, 2);
    let years_ago = now() - 5 * 365 * 86_400_000;
    true_time["true_ts"] = json!(years_ago);
    wrong["events"].as_array_mut().unwrap().push(true_time);
    wrong["sent_at"] = json!(1_060_000);
    let before = now();
    assert_eq!(collector.send(&wrong).counts(), (2, 0, 0));
    let after = now();
    let mut right = batch(vec![at(3, before - 7, 3)]);
    right["sent_at"] = json!(before - 60_000);
    assert_eq!(collector.send(&right).counts(), (1, 0, 0));
    assert!(collector.terminate().success());
    let times = times(&site);
    assert!((before - 60_000..=after - 60_000).contains(&times[0].1), "{times:?}");
    assert_eq!(times[1..], [(2, years_ago), (3, before - 7)]);
}

#[test]
fn a_clock_that_jumps_back_does_not_reorder_an_install_even_across_batches_and_restarts() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let install = id();
    let send = |collector: &super::support::Collector, events: Vec<Value>| {
        let mut batch = batch(events);
        batch["install_id"] = json!(install);
        batch["sent_at"] = json!(now());
        assert_eq!(collector.send(&batch).status, 200);
    };
    let start = now();
    send(&collector, vec![at(1, start, 1000)]);
    assert!(collector.terminate().success());
    let collector = site.start();
    send(&collector, vec![at(2, start - 200_000, 1500), at(3, start - 199_000, 2500)]);
    assert_eq!(collector.metric("subway_clock_corrected_events_total"), 2);
    assert!(collector.terminate().success());
    assert_eq!(times(&site), [(1, start), (2, start + 500), (3, start + 1500)]);
}

#[test]
fn gzip_is_known_by_its_header_or_its_first_bytes() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let body = |n| gzip(batch(events(n)).to_string().as_bytes());
    assert_eq!(collector.post("demo", &[], &body(3)).counts(), (3, 0, 0));
    assert_eq!(collector.post("demo", &[("content-encoding", "gzip")], &body(3)).counts(), (3, 0, 0));
    assert_eq!(collector.post("demo", &[("content-type", "text/plain")], &body(200)).counts(), (200, 0, 0));
    let plain = batch(events(1)).to_string();
    // A proxy that unpacks bodies may leave the header as it was.
    let said = [("content-encoding", "gzip")];
    assert_eq!(collector.post("demo", &said, batch(events(2)).to_string().as_bytes()).counts(), (2, 0, 0));
    assert_eq!(collector.post("demo", &said, b"neither this nor that").code(), "malformed_gzip");
    let (left, right) = plain.as_bytes().split_at(plain.len() / 2);
    assert_eq!(collector.post("demo", &[], &[gzip(left), gzip(right)].concat()).counts(), (1, 0, 0));
    assert!(collector.metric("subway_decompressed_bytes_total") > collector.metric("subway_body_bytes_total"));
}

#[test]
fn what_was_just_accepted_can_be_read() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let sent = batch(vec![event()]);
    collector.send(&sent);
    let answer = collector.get("/v1/apps/demo/metrics/events?from=2015-05-01&to=2015-06-01&interval=total", Some(READ));
    assert_eq!(answer.status, 200, "{answer:?}");
    // The device's clock was years off, so the event counts as of now.
    assert_eq!(answer.json()["total"], 0);
    collector.terminate();
    assert_eq!(exported(&site), [sent["events"][0]["id"].as_str().unwrap()]);
}

#[test]
fn what_was_first_sent_before_the_horizon_is_stored_but_marked_and_counted() {
    let site = CollectorFixture::new("[limits]\ndedup_days = 2\n");
    let collector = site.start();
    let day = 24 * 60 * 60 * 1000;
    let aged = |days: i64| {
        let mut batch = batch(events(3));
        batch["first_sent_at"] = (batch["sent_at"].as_i64().unwrap() - days * day).into();
        batch
    };
    let (recent, old) = (aged(1), aged(3));
    assert_eq!(collector.send(&recent).counts(), (3, 0, 0));
    assert!(collector.ledger()["unverified"].is_null());
    assert_eq!(collector.send(&old).counts(), (3, 0, 0));
    assert_eq!(collector.ledger()["unverified"], 3);
    assert_eq!(collector.send(&old).counts(), (0, 3, 0), "what is found is a duplicate, whatever its age");
    let ledger = collector.ledger();
    assert_eq!((&ledger["unverified"], &ledger["stored"]), (&json!(3), &json!(6)));
    assert_adds_up(&ledger);
    assert_eq!(collector.metric("subway_dedup_horizon_seconds{app=\"demo\"}"), 2 * 24 * 60 * 60);
    eventually("all is in the store", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    let lines = site.command(&["export"]);
    let marked = lines.lines().filter(|line| line.contains("\"unverified\":true")).count();
    assert_eq!(marked, 3, "{lines}");
}
