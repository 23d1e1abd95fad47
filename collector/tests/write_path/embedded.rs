//! The embedded store is a choice.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use super::support::{BINARY, READ, Site, assert_adds_up, batch, events, eventually};

/// A sink that is never there: nothing listens on the discard port of loopback.
const KAFKA: &str = "[[sink]]\nname = \"k\"\nkind = \"kafka\"\nurl = \"127.0.0.1:9\"\n";

fn without_store() -> String {
    format!("[embedded]\nenabled = false\n{KAFKA}")
}

/// Every file of the directory with its bytes and the time of its last change.
fn files(dir: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let changed = file.metadata().unwrap().modified().unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap_or_default(), changed)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn without_the_embedded_store_events_are_taken_and_questions_say_what_to_configure() {
    let site = Site::new(&without_store());
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
    for path in ["metrics/pv", "events", "range"] {
        let answer = collector.get(&format!("/v1/apps/demo/{path}"), Some(READ));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
        assert!(answer.problem()["detail"].as_str().unwrap().contains("[embedded] enabled"), "{answer:?}");
    }
    let ledger = collector.ledger();
    assert!(ledger["sinks"].get("embedded").is_none(), "{ledger}");
    assert_eq!(ledger["sinks"]["k"]["pending"], 3);
    assert!(collector.terminate().success());
    assert!(!site.data().join("store.db").exists());
    assert_eq!(site.command(&["export"]).lines().count(), 3, "what the sink has not taken is still here");
}

#[test]
fn a_store_from_before_is_left_as_it_is() {
    let site = Site::new("");
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
    eventually("the store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    assert!(collector.terminate().success());
    assert_adds_up(&site.ledger());
    let store =
        |site: &Site| files(&site.data()).into_iter().filter(|file| file.0.starts_with("store.db")).collect::<Vec<_>>();
    let before = store(&site);
    std::fs::write(site.dir.path().join("config.toml"), super::support::config(&without_store())).unwrap();
    let log = site.dir.path().join("log");
    let mut command = Command::new(BINARY);
    command.args(site.serve());
    let collector =
        super::support::Collector::spawn_with_log(&mut command, std::fs::File::create(&log).unwrap().into());
    assert_eq!(collector.send(&batch(events(2))).counts(), (2, 0, 0));
    assert!(collector.terminate().success());
    assert_eq!(store(&site), before);
    assert!(std::fs::read_to_string(&log).unwrap().contains("the one from before is left as it is"));
}

#[test]
fn an_older_binary_on_newer_data_stops_and_touches_nothing() {
    for name in ["store.db", "spool.db"] {
        let site = Site::new("");
        let collector = site.start();
        assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
        // After a crash, with logs beside the databases.
        collector.kill_9();
        let database = rusqlite::Connection::open(site.data().join(name)).unwrap();
        database.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        database.pragma_update(None, "user_version", 999).unwrap();
        std::mem::forget(database);
        let before = files(&site.data());
        let data = site.data();
        let commands = [
            &["ledger"][..],
            &["export"],
            &["dead-letters", "list"],
            &["dead-letters", "replay", "--sink", "k"],
            &["sinks", "list"],
            &["sinks", "retire", "--sink", "k"],
        ];
        let on_data = |words: &[&str]| {
            words.iter().chain(&["--data-dir", data.to_str().unwrap()]).map(ToString::to_string).collect()
        };
        let commands = commands.into_iter().map(on_data).chain([site.serve()]);
        for words in commands {
            let output = Command::new(BINARY).args(&words).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("newer collector") && said.contains(name), "{words:?}: {said}");
            assert_eq!(files(&site.data()), before, "{words:?}");
        }
    }
}
