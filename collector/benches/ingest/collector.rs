//! The real binary, fed over loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::http::{get, send_all};
use crate::load::cpu_seconds;

/// What ingest took.
pub(crate) struct Took {
    /// CPU seconds of all threads.
    pub(crate) cpu: f64,
    /// CPU seconds of the threads that feed the embedded store.
    pub(crate) embedded_cpu: f64,
    /// Seconds until the last receipt.
    pub(crate) wall: f64,
    /// Commits of the spool.
    pub(crate) commits: u64,
    /// Bytes on disk of the spool (log, new IDs, write-ahead log), of the dedup index's files, and of the embedded
    /// store.
    pub(crate) disk: [u64; 3],
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends every body once over `connections` connections; every event must be stored.
pub(crate) fn run(bodies: &[Vec<u8>], folder: &Path, connections: usize) -> Took {
    let mut child = Command::new(env!("CARGO_BIN_EXE_subway-collector"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    let running = Running(child);
    let process = format!("/proc/{}", running.0.id());
    let before = cpu(&process);
    let begin = Instant::now();
    send_all(bodies, &address, connections);
    let wall = begin.elapsed().as_secs_f64();
    // What the embedded store still has to do is done before the CPU time is read.
    while !get(&address, "/metrics").lines().any(|line| line.contains("pending") && line.ends_with(" 0")) {
        std::thread::yield_now();
    }
    let after = cpu(&process);
    let commits = metric(&get(&address, "/metrics"), "commit");
    // The spool returns its free pages when it is idle.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let size = |names: &[&str]| {
        let of = |name: &&str| std::fs::metadata(folder.join("data").join(name)).map_or(0, |meta| meta.len());
        names.iter().map(of).sum::<u64>()
    };
    let parts = std::fs::read_dir(folder.join("data/dedup")).unwrap();
    let parts = parts.map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len())).sum();
    let disk = [size(&["spool.db", "spool.db-wal"]), parts, size(&["store.db", "store.db-wal"])];
    Took { disk, cpu: after.0 - before.0, embedded_cpu: after.1 - before.1, wall, commits }
}

/// CPU seconds of all threads, and of those that feed the embedded store.
fn cpu(process: &str) -> (f64, f64) {
    let all = cpu_seconds(&std::fs::read_to_string(format!("{process}/stat")).unwrap());
    let mut embedded = 0.0;
    for task in std::fs::read_dir(format!("{process}/task")).unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        if stat.contains("(embedded") {
            embedded += cpu_seconds(&stat);
        }
    }
    (all, embedded)
}

/// The count of the first histogram whose name contains `word`.
fn metric(text: &str, word: &str) -> u64 {
    let line = text.lines().find(|line| !line.starts_with('#') && line.contains(word) && line.contains("_count"));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
}
