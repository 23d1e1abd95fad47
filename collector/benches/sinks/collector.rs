//! The real binary with sinks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bulk::{Sum, cpu_of};
use crate::http::get;
use crate::load::cpu_seconds;

/// Longest wait for anything.
const TIMEOUT: Duration = Duration::from_secs(300);
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
        positions(&self.address, [sink])[0]
    }

    /// Waits until a sink counts as down.
    pub(crate) fn wait_until_down(&self, sink: &str) {
        let (began, series) = (Instant::now(), format!("subway_sink_up{{sink=\"{sink}\"}} "));
        while value(&get(&self.address, "/metrics"), &series) != Some(0) {
            assert!(began.elapsed() < TIMEOUT, "{sink} does not count as down");
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until a sink is at `position`.
    pub(crate) fn wait_for(&self, sink: &str, position: u64) {
        let began = Instant::now();
        while self.position(sink) < position {
            assert!(began.elapsed() < TIMEOUT, "{sink} is at {} of {position}", self.position(sink));
            std::thread::sleep(LOOK);
        }
    }

    /// CPU seconds of all its threads.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(&std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap())
    }

    /// Waits until a sink has emptied its backlog, up to `last`. Counted is what comes after its first delivery, so
    /// that neither the start nor the making of tables counts.
    pub(crate) fn drain(&self, sink: &str, last: u64, store: Option<u32>, sum: &mut Sum) {
        let began = Instant::now();
        let mut from = self.position(sink);
        while from == 0 {
            assert!(began.elapsed() < TIMEOUT, "{sink} does not begin");
            std::thread::sleep(LOOK);
            from = self.position(sink);
        }
        let (began, cpu) = (Instant::now(), cpu_of(store));
        self.wait_for(sink, last);
        sum.add(last - from, began, cpu_of(store) - cpu);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Up to which position each of the sinks of the collector at `address` has everything.
pub(crate) fn positions<const N: usize>(address: &str, sinks: [&str; N]) -> [u64; N] {
    let page = get(address, "/metrics");
    sinks.map(|sink| value(&page, &format!("subway_sink_position{{sink=\"{sink}\"}} ")).unwrap_or(0))
}

/// The value of a line of `/metrics`.
fn value(page: &str, series: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.parse().ok())
}

/// A collector's data with a backlog, to be emptied several times.
pub(crate) struct Backlog(tempfile::TempDir);

impl Backlog {
    /// Data that holds `bodies` and has delivered them to its embedded store, but not to the sink named `name` of kind
    /// `kind`, which was out of reach.
    pub(crate) fn fill(bodies: &[Vec<u8>], name: &str, kind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sink = format!("[[sink]]\nname = \"{name}\"\nkind = \"{kind}\"\nurl = \"http://127.0.0.1:1\"\n");
        let collector = Collector::start(folder.path(), &sink);
        crate::http::send_all(bodies, &collector.address, 32);
        collector.wait_for("embedded", (bodies.len() * crate::load::EVENTS) as u64);
        Self(folder)
    }

    /// A copy of it.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (self.0.path().join("data"), folder.path().join("data"));
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let path = file.unwrap().path();
            // A socket is none of the data.
            if path.metadata().unwrap().is_file() {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
        folder
    }
}
