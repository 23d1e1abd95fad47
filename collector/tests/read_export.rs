//! `export` of the built binary.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod read_support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use read_support::{BINARY, Collector, DEMO, at, event};
use serde_json::Value;

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[test]
fn every_event_comes_out_in_the_order_of_arrival_and_in_the_shape_of_the_reading_api() {
    let mut collector = Collector::start();
    collector.send(
        "demo",
        1,
        &[event(1, "view", at("2015-05-18T00:00:00Z")), event(2, "click", at("2015-05-17T00:00:00Z"))],
    );
    collector.send("rio", 2, &[event(3, "view", at("2015-05-16T00:00:00Z"))]);
    let lines = collector.exported(&[]);
    assert_eq!(numbers(&lines), [1, 2, 3]);
    let listed = collector.ask("/v1/apps/demo/events", DEMO);
    assert_eq!(listed["events"].as_array().unwrap(), &lines[..2]);
    collector.terminate();
    assert_eq!(collector.exported(&[]), lines);
}

#[test]
fn nothing_is_missing_right_after_a_kill() {
    let mut collector = Collector::start();
    for round in 0..5 {
        for n in 1..=20 {
            collector.send("demo", 1, &[event(round * 20 + n, "view", at("2015-05-18T00:00:00Z"))]);
        }
        collector.kill();
        assert_eq!(numbers(&collector.exported(&[])), (1..=(round + 1) * 20).collect::<Vec<_>>());
        collector.restart();
    }
}

#[test]
fn an_export_beside_a_busy_collector_has_everything_acknowledged_before_and_no_hole() {
    let collector = Collector::start();
    let (acknowledged, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..150 {
                let events: Vec<Value> =
                    (1..=20).map(|n| event(batch * 20 + n, "view", at("2015-05-18T00:00:00Z"))).collect();
                collector.send("demo", 1, &events);
                acknowledged.store(batch * 20 + 20, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let least = acknowledged.load(Ordering::SeqCst);
            let found = numbers(&collector.exported(&[]));
            assert!(found.len() as u64 >= least);
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
        }
    });
    assert_eq!(collector.exported(&[]).len(), 3000);
}

#[test]
fn dates_are_those_of_each_app() {
    let collector = Collector::start();
    // The same instant is 18 May in Shanghai and 17 May in Rio.
    let time = at("2015-05-17T20:00:00Z");
    collector.send("demo", 1, &[event(1, "view", time)]);
    collector.send("rio", 1, &[event(2, "view", time)]);
    assert_eq!(numbers(&collector.exported(&["--from", "2015-05-18"])), [1]);
    assert_eq!(numbers(&collector.exported(&["--to", "2015-05-18"])), [2]);
    assert_eq!(numbers(&collector.exported(&["--from", "2015-05-17T20:00:00Z"])), [1, 2]);
    assert_eq!(numbers(&collector.exported(&["--to", "2015-05-17T20:00:00Z"])), [] as [u64; 0]);
    assert_eq!(numbers(&collector.exported(&["--app", "rio"])), [2]);
}

#[test]
fn wrong_arguments_are_named() {
    let collector = Collector::start();
    for (arguments, words) in [
        (&["--app", "nobody"][..], "known are demo, rio"),
        (&["--from", "yesterday"][..], "--from: a time is a date"),
        (&["--from", "2015-05-18", "--to", "2015-05-18"][..], "--to must be later"),
    ] {
        let output = collector.export(arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && complaint.contains(words), "{complaint}");
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn an_empty_directory_is_an_error_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY).arg("export").arg("--data-dir").arg(dir.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("does not exist"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let collector = Collector::start();
    for batch in 0..10 {
        let events: Vec<Value> =
            (1..=200).map(|n| event(batch * 200 + n, "view", at("2015-05-18T00:00:00Z"))).collect();
        collector.send("demo", 1, &events);
    }
    let mut export = Command::new(BINARY)
        .arg("export")
        .arg("--data-dir")
        .arg(collector.data())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One byte of more than a pipe holds, and then the pipe is closed.
    let mut stdout = export.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let output = export.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
