//! Back-up and restore as docs/operations/10-back-up-and-upgrade.md describes them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::support::{Collector, CollectorFixture, assert_adds_up, batch, events, eventually, exported};

/// Locks both databases in one session and copies them, as the command in the documentation does.
fn copy(data: &Path, to: &Path) {
    let connection = Connection::open(data.join("spool.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    connection.execute("ATTACH ?1 AS store", [data.join("store.db").to_str().unwrap()]).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for name in ["spool.db", "store.db"] {
        let reader = Connection::open(data.join(name)).unwrap();
        reader.execute("VACUUM INTO ?1", [to.join(name).to_str().unwrap()]).unwrap();
    }
    std::fs::create_dir(to.join("dedup")).unwrap();
    for file in std::fs::read_dir(data.join("dedup")).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join("dedup").join(file.file_name())).unwrap();
    }
    connection.execute_batch("ROLLBACK").unwrap();
}

/// The same with the command itself, where there is one.
fn copy_by_command(data: &Path, to: &Path) {
    let text = include_str!("../../../docs/operations/10-back-up-and-upgrade.md");
    let command = text.split("```sh\n").find(|block| block.contains("VACUUM INTO")).unwrap();
    let command = command.split("```").next().unwrap();
    let output = Command::new("sh").args(["-c", command]).env("DATA", data).env("COPY", to).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Copies a running collector's data while events come in; everything acknowledged before the copy is in it, nothing is
/// torn, and a collector goes on with it.
fn back_up_under_traffic(copy: impl Fn(&Path, &Path)) {
    // So few IDs in memory that the dedup index has files.
    let more = "[limits]\ndedup_fresh_ids = 200\n";
    let site = CollectorFixture::new(more);
    let collector = site.start();
    let restored = CollectorFixture::new(more);
    std::fs::create_dir(restored.data()).unwrap();
    let before: Vec<_> = (0..20).map(|_| batch(events(50))).collect();
    assert!(before.iter().all(|batch| collector.send(batch).status == 200));
    let acknowledged: BTreeSet<String> = exported_when_all_there(&site, &collector, 1000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                collector.send(&batch(events(50)));
            }
        });
        // Also when a check below fails: the scope waits for the sender.
        let _stop = Stop(&stop);
        let stored = || collector.ledger()["stored"].as_u64().unwrap();
        eventually("events come in", || stored() > 1500);
        copy(&site.data(), &restored.data());
        let at = stored();
        eventually("events come in afterwards", || stored() > at);
    });
    assert!(collector.terminate().success());
    let collector = restored.start();
    eventually("the copy's store has what its spool has", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    for batch in &before {
        assert_eq!(collector.send(batch).counts(), (0, 50, 0), "the copy knows what had been seen");
    }
    assert_eq!(collector.metric("subway_dedup_lost_parts{app=\"demo\"}"), 0);
    assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
    eventually("and takes what is new", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    let ledger = collector.ledger();
    assert_adds_up(&ledger);
    assert!(collector.terminate().success());
    let ids: BTreeSet<String> = exported(&restored).into_iter().collect();
    assert_eq!(ids.len() as u64, ledger["stored"].as_u64().unwrap(), "every event once");
    assert!(ids.is_superset(&acknowledged));
}

/// Sets the flag when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exported_when_all_there(site: &CollectorFixture, collector: &Collector, count: u64) -> BTreeSet<String> {
    eventually("the store has all", || collector.ledger()["sinks"]["embedded"]["delivered"] == count);
    exported(site).into_iter().collect()
}

#[test]
fn a_copy_made_while_it_runs_is_whole() {
    back_up_under_traffic(copy);
}

#[test]
fn the_documented_command_makes_such_a_copy() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("sqlite3 is not here: the command in docs/operations/10-back-up-and-upgrade.md is not run");
        return;
    }
    back_up_under_traffic(copy_by_command);
}
