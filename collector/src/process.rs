//! What the system says about the process and its disk. Names and units are those of Prometheus' own client libraries.

use std::path::{Path, PathBuf};

use crate::clock;
#[cfg(unix)]
use crate::disk;
use crate::telemetry::Gauge;

/// Bytes in a unit of `/proc/self/statm`, unless the system says otherwise.
#[cfg(unix)]
fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// The process, and where it keeps its data.
#[derive(Debug)]
pub(crate) struct Process {
    data_dir: PathBuf,
    started: u64,
}

impl Process {
    /// This process, now; it keeps its data in `data_dir`.
    #[must_use]
    pub(crate) fn begin(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), started: clock::now().unsigned_abs() / 1000 }
    }

    /// What can be measured here; some systems say less.
    #[cfg(unix)]
    #[must_use]
    pub(crate) fn gauges(&self) -> Vec<(Gauge<'static>, u64)> {
        let disk = disk::free_bytes(&self.data_dir);
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        [
            disk.map(|bytes| (Gauge::DiskFreeBytes, bytes)),
            resident().map(|bytes| (Gauge::ResidentBytes, bytes)),
            open.map(|files| (Gauge::OpenFiles, files)),
            most.map(|files| (Gauge::MaxOpenFiles, files)),
            Some((Gauge::StartTime, self.started)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What can be measured here; some systems say less.
    #[cfg(not(unix))]
    #[must_use]
    pub fn gauges(&self) -> Vec<(Gauge<'static>, u64)> {
        let _ = &self.data_dir;
        vec![(Gauge::StartTime, self.started)]
    }
}

/// Bytes of memory: the second number of `/proc/self/statm`, in pages (proc(5)).
#[cfg(unix)]
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page_bytes())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_on_linux() {
        let gauges = Process::begin(Path::new(".")).gauges();
        let of = |wanted: Gauge<'_>| gauges.iter().find(|(gauge, _)| *gauge == wanted).unwrap().1;
        assert_eq!(gauges.len(), 5);
        assert!(of(Gauge::DiskFreeBytes) > 0);
        assert!((1 << 20..1 << 40).contains(&of(Gauge::ResidentBytes)));
        assert!(of(Gauge::OpenFiles) > 2 && of(Gauge::OpenFiles) < of(Gauge::MaxOpenFiles));
    }
}
