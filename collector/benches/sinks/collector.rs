//! The real binary with sinks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::get;
use crate::load::cpu_seconds;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at the sinks' positions.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Collector {
    child: Child,
    pub(crate) address: String,
}

impl Collector {
    /// Starts it on `folder` with `[[sink]]` tables.
    pub(crate) fn start(folder: &Path, sinks: &str) -> Self {
        let config = folder.join("config.toml");
        let text = format!("[[app]]\nkey = \"demo\"\ntimezone = \"Asia/Shanghai\"\n{sinks}");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_subway-collector"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            panic!("{}", std::fs::read_to_string(folder.join("log")).unwrap());
        };
        Self { address: address.to_owned(), child }
    }

    /// Up to which position a sink has everything.
    pub(crate) fn position(&self, sink: &str) -> u64 {
        position(&self.address, sink)
    }

    /// Waits until a sink is at `position`.
    pub(crate) fn wait_for(&self, sink: &str, position: u64) {
        let began = Instant::now();
        while self.position(sink) < position {
            assert!(began.elapsed() < PATIENCE, "{sink} is at {} of {position}", self.position(sink));
            std::thread::sleep(LOOK);
        }
    }

    /// CPU seconds of all its threads.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(&std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap())
    }

    /// Events per second with which a sink empties its backlog, up to `last`: from the end of its first delivery on, so that
    /// neither the start nor the wait for company counts.
    pub(crate) fn drain_rate(&self, sink: &str, last: u64) -> f64 {
        let began = Instant::now();
        let mut first = None;
        loop {
            let (now, at) = (Instant::now(), self.position(sink));
            if at > 0 {
                let (since, from) = *first.get_or_insert((now, at));
                if at >= last {
                    return (last - from) as f64 / (now - since).as_secs_f64();
                }
            }
            assert!(began.elapsed() < PATIENCE, "{sink} is at {at} of {last}");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Up to which position a sink of the collector at `address` has everything.
pub(crate) fn position(address: &str, sink: &str) -> u64 {
    let page = get(address, "/metrics");
    let series = format!("subway_sink_position{{sink=\"{sink}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

/// A folder with a collector's data that holds `bodies` and has delivered them to its embedded store, but not to the sink
/// named `name` of kind `kind`, which was out of reach.
pub(crate) fn backlog(bodies: &[Vec<u8>], name: &str, kind: &str, url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sink = format!("[[sink]]\nname = \"{name}\"\nkind = \"{kind}\"\nurl = \"{url}\"\n");
    let collector = Collector::start(folder.path(), &sink);
    crate::http::send_all(bodies, &collector.address, 32);
    collector.wait_for("embedded", (bodies.len() * crate::load::EVENTS) as u64);
    folder
}
