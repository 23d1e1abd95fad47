//! Figures of the process and its disk from the operating system. Names and units are those of Prometheus' client
//! libraries.

use std::path::{Path, PathBuf};

use crate::clock;
#[cfg(unix)]
use crate::disk;
use crate::telemetry::{Gauges, gauges};

/// Returns the bytes of a unit of `/proc/self/statm`.
#[cfg(unix)]
fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// This process and its data directory.
#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    #[cfg_attr(not(unix), expect(dead_code, reason = "the disk is not measured there"))]
    data_dir: PathBuf,
    started: u64,
}

impl ProcessMetrics {
    /// Creates the figures of this process, which starts now and has its data in `data_dir`.
    #[must_use]
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), started: clock::now().unsigned_abs() / 1000 }
    }

    /// Sets the gauges that can be measured on this system.
    pub(crate) fn measure(&self, to: &mut Gauges) {
        to.set(&gauges::START_TIME_SECONDS, &[], self.started);
        #[cfg(unix)]
        {
            let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
            let measured = [
                (&gauges::DISK_FREE_BYTES, disk::free_bytes(&self.data_dir)),
                (&gauges::RESIDENT_MEMORY_BYTES, resident_bytes()),
                (&gauges::OPEN_FDS, open),
                (&gauges::MAX_FDS, rustix::process::getrlimit(rustix::process::Resource::Nofile).current),
            ];
            for (gauge, value) in measured {
                if let Some(value) = value {
                    to.set(gauge, &[], value);
                }
            }
        }
    }
}

/// Returns the resident memory in bytes: the second number of `/proc/self/statm`, in pages (proc(5)).
#[cfg(unix)]
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page_bytes())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_on_linux() {
        let mut measured = Gauges::default();
        ProcessMetrics::start(Path::new(".")).measure(&mut measured);
        let of = |gauge| measured.get(gauge, &[]).unwrap();
        assert!(of(&gauges::DISK_FREE_BYTES) > 0 && of(&gauges::START_TIME_SECONDS) > 0);
        assert!((1 << 20..1 << 40).contains(&of(&gauges::RESIDENT_MEMORY_BYTES)));
        assert!(of(&gauges::OPEN_FDS) > 2 && of(&gauges::OPEN_FDS) < of(&gauges::MAX_FDS));
    }
}
