//! The embedded store is a choice.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;

use super::support::{BINARY, CollectorFixture, READ, assert_adds_up, batch, events, eventually, exported};

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
    let site = CollectorFixture::new(&without_store());
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
    let site = CollectorFixture::new("");
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
    eventually("the store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    assert!(collector.terminate().success());
    assert_adds_up(&site.ledger());
    let store = |site: &CollectorFixture| {
        files(&site.data()).into_iter().filter(|file| file.0.starts_with("store.db")).collect::<Vec<_>>()
    };
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
        let site = CollectorFixture::new("");
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

/// A small file system for the store alone, until the end of the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, and said so, where this process may not mount.
    fn for_the_store_of(site: &CollectorFixture) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        if !disk.mount("size=2m") {
            assert!(std::env::var_os("CI").is_none(), "a tmpfs cannot be mounted");
            eprintln!("NOT RUN: only root can mount a small file system");
            return None;
        }
        std::fs::create_dir(site.data()).unwrap();
        std::os::unix::fs::symlink(disk.0.path().join("store.db"), site.data().join("store.db")).unwrap();
        Some(disk)
    }

    fn mount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        let mounted = command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0.path()).output();
        mounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also where a process still has a file open in it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Bytes of JSON in the spool that fill it.
const SMALL_SPOOL: &str = "[limits]\nspool_max_bytes = 400000\n";
/// Far more events than the small disk and the small spool have room for.
const MORE_THAN_FITS: usize = 100_000;

#[test]
fn a_full_disk_of_the_embedded_store_holds_up_nobody_before_the_spool_is_full() {
    let site = CollectorFixture::new(SMALL_SPOOL);
    let Some(disk) = SmallDisk::for_the_store_of(&site) else { return };
    let collector = site.start();
    let mut acknowledged = 0;
    // Before, the spool may be full for a moment with what was delivered and is not forgotten yet.
    eventually("what the full store lacks is taken all the same, until the spool is full", || {
        let answer = collector.send(&batch(events(100)));
        if answer.status == 200 {
            acknowledged += 100;
            assert!(acknowledged < MORE_THAN_FITS, "the disk never fills");
            return false;
        }
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        let ledger = collector.ledger();
        assert_adds_up(&ledger);
        ledger["sinks"]["embedded"]["pending"].as_u64().unwrap() >= 500
    });
    assert!(disk.mount("remount,size=64m"));
    eventually("the store goes on by itself", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    eventually("and the collector is ready", || collector.get("/health/ready", None).status == 200);
    assert_eq!(collector.ledger()["sinks"]["embedded"]["delivered"], acknowledged);
    assert_eq!(exported(&site).len(), acknowledged);
}

#[test]
fn an_embedded_store_that_sheds_lets_clients_through_and_says_what_it_lacks() {
    let site = CollectorFixture::new(&format!("[embedded]\nwhen_full = \"drop_oldest\"\n{SMALL_SPOOL}"));
    let Some(disk) = SmallDisk::for_the_store_of(&site) else { return };
    let collector = site.start();
    // How much a store takes before its disk is full depends on when its log is written back.
    let mut acknowledged = 0;
    while collector.ledger()["sinks"]["embedded"].get("shed").is_none() {
        let batch = batch(events(100));
        eventually("clients are let through", || collector.send(&batch).status == 200);
        acknowledged += 100;
        assert!(acknowledged < MORE_THAN_FITS, "nothing is shed: {}", collector.ledger());
    }
    assert_adds_up(&collector.ledger());
    assert!(disk.mount("remount,size=64m"));
    eventually("the store goes on by itself", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    let sink = collector.ledger()["sinks"]["embedded"].clone();
    let (delivered, dead) = (sink["delivered"].as_u64().unwrap(), sink["dead"].as_u64().unwrap());
    assert_eq!(delivered + dead, acknowledged as u64);
    assert_eq!(exported(&site).len() as u64, delivered, "what was given up is not there, everything else is");
    let range = collector.get("/v1/apps/demo/range", Some(READ)).json();
    assert!(range["complete_from"].is_string(), "{range}");
    collector.kill_9();
    assert_eq!(site.ledger()["sinks"]["embedded"], sink);
}

#[test]
fn an_answer_says_from_when_on_it_is_complete_and_export_what_is_gone() {
    let site = CollectorFixture::new("[embedded]\nretention_days = 1\n");
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
    eventually("the store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    assert!(collector.get("/v1/apps/demo/range", Some(READ)).json().get("complete_from").is_none());
    assert!(collector.terminate().success());
    // As if they had arrived days ago; had it been months, the clock would not be believed for hours.
    let store = rusqlite::Connection::open(site.data().join("store.db")).unwrap();
    assert_eq!(store.execute("UPDATE part SET first_day = first_day - 5, last_day = last_day - 5", []).unwrap(), 1);
    drop(store);
    let collector = site.start();
    let mut said = std::collections::BTreeSet::new();
    let paths = ["metrics/pv", "events", "range"].map(|path| format!("/v1/apps/demo/{path}"));
    eventually("retention has done its work", || {
        collector.get(&paths[2], Some(READ)).json().get("complete_from").is_some()
    });
    for path in paths {
        let answer = collector.get(&path, Some(READ)).json();
        said.insert(answer["complete_from"].as_str().unwrap_or_else(|| panic!("{path}: {answer}")).to_owned());
    }
    assert_eq!(said.len(), 1, "all say the same: {said:?}");
    assert!(collector.get("/v1/apps/demo/metrics/new_users", Some(READ)).json().get("complete_from").is_none());
    assert_eq!(collector.metric("subway_store_deleted_events_total"), 3);
    assert_eq!(collector.ledger()["sinks"]["embedded"]["delivered"], 3, "delivered counts what was ever taken");
    let output = Command::new(BINARY).args(["export", "--data-dir"]).arg(site.data()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("3 stored events are no longer here"));
}

#[test]
fn commands_beside_a_collector_that_writes_never_take_it_for_a_newer_one() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Small commits, so that both logs are restarted now and then.
            for _ in 0..300 {
                assert_eq!(collector.send(&batch(events(20))).counts(), (20, 0, 0));
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            // Fails the test if the command does.
            assert_adds_up(&site.ledger());
        }
    });
}
