//! Answers of any size take the memory of a page: events are read, written and exported one after the other.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::files::{ConfigFixture, demo};
use super::support::{BINARY, Collector, READ, event, gzip};

const MIB: u64 = 1024 * 1024;

/// What an answer may add to the memory of the process: generous beside a page of the largest events, far below the
/// answer.
const GROWTH: u64 = 128 * MIB;

/// Events of nearly the largest size, and common properties of the same, in batches that the wire takes.
const EVENTS: usize = 10_000;
const EVENT_BYTES: usize = 31 * 1024;
const BATCH: usize = 200;

/// Bytes that an answer with all of them has at least.
const ALL: u64 = (EVENTS * EVENT_BYTES) as u64;

fn fill(collector: &Collector) {
    let padding = "x".repeat(EVENT_BYTES);
    for number in 0..EVENTS / BATCH {
        let events: Vec<Value> = (0..BATCH)
            .map(|_| {
                let mut event = event();
                event["props"] = json!({"padding": padding});
                event
            })
            .collect();
        let mut batch = super::support::batch(events);
        batch["common"] = json!({"number": number, "padding": padding});
        let answer = collector.post("demo", &[], &gzip(batch.to_string().as_bytes()));
        assert_eq!(answer.counts(), (BATCH as u64, 0, 0));
    }
}

/// A figure of `/proc/PID/status` in bytes.
fn memory(pid: u32, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Asks for events; returns the end of the answer, its size, and the most memory that the collector had meanwhile.
fn ask(collector: &Collector, parameters: &str) -> (String, u64, u64) {
    // Without the deadline of the other tests: how fast so much is read is not the question.
    let agent = ureq::Agent::new_with_defaults();
    let request = agent.get(format!("{}/v1/apps/demo/events?limit={EVENTS}{parameters}", collector.url));
    let answer = request.header("authorization", format!("Bearer {READ}")).call().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body().into_reader();
    let (mut piece, mut size, mut max_ids, mut end) = (vec![0; 1 << 20], 0, 0, Vec::new());
    loop {
        let read = body.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        size += read as u64;
        max_ids = max_ids.max(memory(collector.id(), "VmRSS"));
        end.extend_from_slice(&piece[..read]);
        end.drain(..end.len().saturating_sub(200));
    }
    let end = String::from_utf8_lossy(&end).into_owned();
    (end.rsplit_once("],\"truncated\"").unwrap().1.to_owned(), size, max_ids)
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_of_the_largest_events_are_read_and_exported_in_little_memory() {
    let config = |answer: u64| demo("", "", &format!("[limits]\nanswer_bytes = {answer}\n"));
    let site = ConfigFixture::new(&config(16 * 1024 * MIB));
    let collector = site.start();
    fill(&collector);
    let (_, small, _) = ask(&collector, "&code=nothing_has_it");
    assert!(small < 100, "{small}");
    let before = memory(collector.id(), "VmRSS");
    let (end, size, max_ids) = ask(&collector, "");
    assert!(size > 2 * ALL, "{size}");
    assert!(end.starts_with(":false,\"next\":\""), "as many as were asked for: {end}");
    assert!(max_ids < before + GROWTH, "{} MiB over {} MiB", (max_ids - before) / MIB, before / MIB);

    let mut export = Command::new(BINARY);
    export.args(["export", "--data-dir"]).arg(site.site.data()).stdout(Stdio::piped());
    let mut export = export.spawn().unwrap();
    let (mut lines, mut max_ids) = (0, 0);
    let mut out = BufReader::new(export.stdout.take().unwrap());
    let mut line = Vec::new();
    while out.read_until(b'\n', &mut line).unwrap() > 0 {
        lines += 1;
        line.clear();
        if lines % 500 == 0 {
            max_ids = max_ids.max(memory(export.id(), "VmRSS"));
        }
    }
    assert!(export.wait().unwrap().success());
    assert_eq!(lines, EVENTS);
    assert!(max_ids > 0 && max_ids < GROWTH, "{} MiB", max_ids / MIB);

    // The same in answers of a few megabytes.
    site.configure(&config(8 * MIB));
    site.reload(&collector);
    let (mut after, mut answers, mut seen) = (String::new(), 0, 0);
    while answers < 3 {
        let (end, size, _) = ask(&collector, &after);
        assert!((8 * MIB..9 * MIB).contains(&size), "{size}");
        let next = end.strip_prefix(":true,\"next\":\"").and_then(|end| end.strip_suffix("\"}")).unwrap();
        after = format!("&after={next}");
        (answers, seen) = (answers + 1, seen + size);
    }
    assert!(seen < ALL);
}

/// The IDs of the events that answers with these parameters list, page by page.
fn walk(collector: &Collector, parameters: &str) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let answer = collector.get(&format!("/v1/apps/demo/events?{parameters}{after}"), Some(READ)).json();
        let events = answer["events"].as_array().unwrap();
        ids.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
        match answer["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return ids,
        }
    }
}

#[test]
fn a_list_that_is_walked_through_gives_every_event_once_in_order() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nanswer_bytes = 4096\n"));
    let collector = site.start();
    // Many at the same millisecond, over the boundaries of answers and of pages.
    let events: Vec<Value> = (0..700)
        .map(|number| {
            let mut event = event();
            event["true_ts"] = json!(1_431_835_511_000_i64 - number / 300);
            event["code"] = json!(if number % 2 == 0 { "even" } else { "odd" });
            event
        })
        .collect();
    collector.send(&super::support::batch(events.clone()));
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let mut expected = events.clone();
    expected.sort_by_key(|event| std::cmp::Reverse(event["true_ts"].as_i64().unwrap()));
    // Within a millisecond the later stored comes first.
    let mut listed: Vec<String> = Vec::new();
    for group in expected.chunk_by(|a, b| a["true_ts"] == b["true_ts"]) {
        listed.extend(group.iter().rev().map(id));
    }
    for parameters in ["limit=7", "limit=10000", "limit=250"] {
        assert_eq!(walk(&collector, parameters), listed, "{parameters}");
    }
    let even = walk(&collector, "limit=100&code=even");
    assert_eq!(even.len(), 350);
    assert!(even.iter().all(|id| listed.contains(id)));
    let wrong = collector.get("/v1/apps/demo/events?after=yesterday", Some(READ));
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "invalid_parameter"));
    let whole = collector.get("/v1/apps/demo/events?limit=3", Some(READ)).json();
    assert_eq!((whole["truncated"].as_bool(), whole["next"].is_string()), (Some(false), true));
}
