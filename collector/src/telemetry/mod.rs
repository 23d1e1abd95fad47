//! The collector's own counters, as `GET /metrics` shows them. [`Count`] and [`Gauge`] are the complete list.
//!
//! Counters begin at 0 with the process, but for those of the embedded store ([`Store`]): they are its own totals since it was
//! made. What must be exact over restarts is in the ledger.

mod histogram;
mod sinks;
mod store;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use subway_protocol::RejectReason;
use subway_protocol::codec::server::ProblemCode;

pub use histogram::Histogram;
pub use sinks::SinkCounts;
pub use store::Store;

use crate::limit::Limited;

/// Everything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Requests answered, by status.
    Requests(u16),
    /// Requests refused, by problem code.
    Refused(ProblemCode),
    /// Bytes of ingestion bodies as sent.
    BodyBytes,
    /// Bytes of ingestion bodies after decompression.
    DecompressedBytes,
    /// Events stored.
    Stored,
    /// Events seen before.
    Duplicate,
    /// Events rejected, by reason.
    Rejected(RejectReason),
    /// Events whose time was moved because the device's clock was off.
    ClockCorrected,
    /// Commits of the spool that reached the disk.
    Commits,
    /// Commits of the spool that failed; nothing of them is kept.
    CommitFailures,
    /// Connections accepted.
    Connections,
    /// Connections turned away because there were too many.
    ConnectionsRefused,
    /// TLS handshakes that failed or took too long.
    HandshakeFailures,
    /// Requests refused because a client or an app asked too often, by limit.
    RateLimited(Limited),
    /// Times the configuration was read again: `true` with success.
    Reloads(bool),
    /// Clocks of installs that were forgotten because others came.
    ClocksForgotten,
    /// Requests refused because their app's share of the spool was used up.
    ShareRefused,
}

/// The statuses that are counted by themselves; any other counts as 500, which the collector never means to send.
const STATUSES: [u16; 12] = [200, 204, 304, 400, 401, 404, 405, 409, 413, 429, 500, 503];
const PLAIN: [Count; 8] = [
    Count::BodyBytes,
    Count::DecompressedBytes,
    Count::Stored,
    Count::Duplicate,
    Count::ClockCorrected,
    Count::Commits,
    Count::CommitFailures,
    Count::Connections,
];
const LAST: [Count; 10] = [
    Count::ConnectionsRefused,
    Count::HandshakeFailures,
    Count::RateLimited(Limited::Client),
    Count::RateLimited(Limited::AppRequests),
    Count::RateLimited(Limited::AppEvents),
    Count::RateLimited(Limited::AppBytes),
    Count::Reloads(true),
    Count::Reloads(false),
    Count::ClocksForgotten,
    Count::ShareRefused,
];
const SLOTS: usize = STATUSES.len() + ProblemCode::ALL.len() + RejectReason::ALL.len() + PLAIN.len() + LAST.len();

impl Count {
    /// Every count, in the order of the page.
    pub fn all() -> impl Iterator<Item = Count> {
        let requests = STATUSES.into_iter().map(Count::Requests);
        let refused = ProblemCode::ALL.into_iter().map(Count::Refused);
        let rejected = RejectReason::ALL.into_iter().map(Count::Rejected);
        requests
            .chain(refused)
            .chain(PLAIN[..4].iter().copied())
            .chain(rejected)
            .chain(PLAIN[4..].iter().copied())
            .chain(LAST)
    }

    fn slot(self) -> usize {
        let plain = |at: usize| if at < 4 { at } else { at + RejectReason::ALL.len() };
        let base = STATUSES.len() + ProblemCode::ALL.len();
        match self {
            Count::Requests(status) => STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len() - 2),
            Count::Refused(code) => STATUSES.len() + code as usize,
            Count::Rejected(reason) => base + 4 + reason as usize,
            other => match LAST.iter().position(|last| *last == other) {
                Some(at) => SLOTS - LAST.len() + at,
                None => base + plain(PLAIN.iter().position(|p| *p == other).unwrap_or(0)),
            },
        }
    }

    /// Name of the family, its help, and the label of this member.
    fn names(self) -> (&'static str, &'static str, String) {
        let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
        match self {
            Count::Requests(status) => {
                ("subway_requests_total", "Requests answered, by status.", label("status", &status.to_string()))
            }
            Count::Refused(code) => {
                ("subway_refused_requests_total", "Requests refused, by problem code.", label("code", code.as_str()))
            }
            Count::BodyBytes => ("subway_body_bytes_total", "Bytes of ingestion bodies as sent.", String::new()),
            Count::DecompressedBytes => {
                ("subway_decompressed_bytes_total", "Bytes of ingestion bodies after decompression.", String::new())
            }
            Count::Stored => (EVENTS, EVENTS_HELP, "{outcome=\"stored\",reason=\"\"}".into()),
            Count::Duplicate => (EVENTS, EVENTS_HELP, "{outcome=\"duplicate\",reason=\"\"}".into()),
            Count::Rejected(reason) => {
                (EVENTS, EVENTS_HELP, format!("{{outcome=\"rejected\",reason=\"{}\"}}", reason.as_str()))
            }
            Count::ClockCorrected => {
                ("subway_clock_corrected_events_total", "Stored events whose time was moved.", String::new())
            }
            Count::Commits => ("subway_commits_total", "Commits of the spool that reached the disk.", String::new()),
            Count::CommitFailures => {
                ("subway_commit_failures_total", "Commits of the spool that failed.", String::new())
            }
            Count::Connections => ("subway_connections_total", "Connections accepted.", String::new()),
            Count::ConnectionsRefused => (
                "subway_refused_connections_total",
                "Connections turned away because there were too many.",
                String::new(),
            ),
            Count::HandshakeFailures => {
                ("subway_tls_handshake_failures_total", "TLS handshakes that failed or took too long.", String::new())
            }
            Count::RateLimited(limited) => (
                "subway_rate_limited_requests_total",
                "Requests refused because a client or an app asked too often, by limit.",
                label("limit", limited.as_str()),
            ),
            Count::Reloads(success) => (
                "subway_config_reloads_total",
                "Times the configuration was read again, by result.",
                label("result", if success { "applied" } else { "refused" }),
            ),
            Count::ClocksForgotten => (
                "subway_forgotten_install_clocks_total",
                "Clocks of installs that were forgotten because others came.",
                String::new(),
            ),
            Count::ShareRefused => (
                "subway_share_refused_requests_total",
                "Requests refused because their app's share of the spool was used up.",
                String::new(),
            ),
        }
    }
}

const EVENTS: &str = "subway_events_total";
const EVENTS_HELP: &str = "Events of accepted requests, by outcome and reason.";

/// Everything that is measured when the page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge<'a> {
    /// Connections open now.
    OpenConnections,
    /// Bytes of requests being worked on.
    InFlightBytes,
    /// Position of the newest event in the spool.
    SpoolHead,
    /// Bytes of JSON in the spool.
    SpoolBytes,
    /// Bytes of JSON in the spool that one app may have.
    SpoolShare,
    /// Bytes of JSON in the spool that an app has.
    SpoolAppBytes(&'a str),
    /// 1 for the state that a sink is in, 0 for the others: sink and state.
    SinkState(&'a str, &'a str),
    /// Position up to which a sink is done.
    SinkPosition(&'a str),
    /// Events a sink still has to deliver.
    SinkPending(&'a str),
    /// Those of the pending that wait beside the log.
    SinkParked(&'a str),
    /// Events a sink refused for good, or gave up.
    SinkDead(&'a str),
    /// Events a sink gave up because the spool was full.
    SinkShed(&'a str),
    /// Bytes that the dead letters of a sink take.
    SinkLetterBytes(&'a str),
    /// Age of the oldest event that a sink still has to deliver, seconds.
    SinkLag(&'a str),
    /// How far back an app recognises an event that comes again, seconds.
    DedupHorizon(&'a str),
    /// Event IDs that an app knows.
    DedupIds(&'a str),
    /// Bytes that they take on disk.
    DedupBytes(&'a str),
    /// Parts of an app's dedup index lost since the start.
    DedupLostParts(&'a str),
    /// 1 if the collector can accept, else 0.
    Ready,
    /// Bytes free on the file system of the data directory.
    DiskFreeBytes,
    /// Bytes of memory that the process holds.
    ResidentBytes,
    /// Files and sockets that the process has open.
    OpenFiles,
    /// Files and sockets that it may have open.
    MaxOpenFiles,
    /// When the process began, seconds since the epoch.
    StartTime,
}

impl Gauge<'_> {
    /// What its one label says.
    fn label(&self) -> &'static str {
        match self {
            Gauge::DedupHorizon(_)
            | Gauge::DedupIds(_)
            | Gauge::DedupBytes(_)
            | Gauge::DedupLostParts(_)
            | Gauge::SpoolAppBytes(_) => "app",
            _ => "sink",
        }
    }

    fn names(&self) -> (&'static str, &'static str, Option<&str>) {
        match self {
            Gauge::OpenConnections => ("subway_open_connections", "Connections open now.", None),
            Gauge::InFlightBytes => ("subway_in_flight_bytes", "Bytes of requests being worked on.", None),
            Gauge::SpoolHead => ("subway_spool_head", "Position of the newest event in the spool.", None),
            Gauge::SpoolBytes => ("subway_spool_bytes", "Bytes of JSON in the spool.", None),
            Gauge::SpoolShare => ("subway_spool_share_bytes", "Bytes in the spool that one app may have now.", None),
            Gauge::SpoolAppBytes(app) => {
                ("subway_spool_app_bytes", "Bytes of JSON in the spool that an app has.", Some(app))
            }
            Gauge::SinkState(sink, _) => {
                ("subway_sink_state", "1 for the state that a sink is in, 0 for the others.", Some(sink))
            }
            Gauge::SinkPosition(sink) => ("subway_sink_position", "Position up to which a sink is done.", Some(sink)),
            Gauge::SinkPending(sink) => {
                ("subway_sink_pending_events", "Events a sink still has to deliver.", Some(sink))
            }
            Gauge::SinkParked(sink) => {
                ("subway_sink_parked_events", "Pending events of a sink that wait beside the log.", Some(sink))
            }
            Gauge::SinkDead(sink) => {
                ("subway_sink_dead_events", "Events a sink refused for good, or gave up.", Some(sink))
            }
            Gauge::SinkShed(sink) => {
                ("subway_sink_shed_events", "Events a sink gave up because the spool was full.", Some(sink))
            }
            Gauge::SinkLetterBytes(sink) => {
                ("subway_sink_dead_letter_bytes", "Bytes that the dead letters of a sink take.", Some(sink))
            }
            Gauge::SinkLag(sink) => {
                ("subway_sink_lag_seconds", "Age of the oldest event that a sink still has to deliver.", Some(sink))
            }
            Gauge::DedupHorizon(app) => {
                ("subway_dedup_horizon_seconds", "How far back an event that comes again is recognised.", Some(app))
            }
            Gauge::DedupIds(app) => ("subway_dedup_ids", "Event IDs that are known.", Some(app)),
            Gauge::DedupBytes(app) => ("subway_dedup_bytes", "Bytes that the event IDs take on disk.", Some(app)),
            Gauge::DedupLostParts(app) => (
                "subway_dedup_lost_parts",
                "Parts of the dedup index that were missing or damaged, since the start.",
                Some(app),
            ),
            Gauge::Ready => ("subway_ready", "1 if the collector can accept, else 0.", None),
            Gauge::DiskFreeBytes => {
                ("subway_disk_free_bytes", "Bytes free on the file system of the data directory.", None)
            }
            Gauge::ResidentBytes => ("process_resident_memory_bytes", "Bytes of memory that the process holds.", None),
            Gauge::OpenFiles => ("process_open_fds", "Files and sockets that the process has open.", None),
            Gauge::MaxOpenFiles => ("process_max_fds", "Files and sockets that the process may have open.", None),
            Gauge::StartTime => {
                ("process_start_time_seconds", "When the process began, seconds since the epoch.", None)
            }
        }
    }
}

/// All counters of one collector.
#[derive(Debug)]
pub struct Telemetry {
    counts: [AtomicU64; SLOTS],
    sinks: sinks::Sinks,
    /// What the embedded store tells of itself.
    pub store: Store,
    /// From the beginning of a transaction of the spool to its commit on disk.
    pub commit_seconds: Histogram,
    /// From the first byte of an ingestion request to its answer.
    pub ingest_seconds: Histogram,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; SLOTS],
            sinks: sinks::Sinks::default(),
            store: Store::default(),
            commit_seconds: Histogram::default(),
            ingest_seconds: Histogram::default(),
        }
    }
}

impl Telemetry {
    /// Adds to a count.
    pub fn add(&self, count: Count, by: u64) {
        self.counts[count.slot()].fetch_add(by, Ordering::Relaxed);
    }

    /// A count's value.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.counts[count.slot()].load(Ordering::Relaxed)
    }

    /// The counters of the sink `name`.
    #[must_use]
    pub fn sink(&self, name: &str) -> Arc<SinkCounts> {
        self.sinks.of(name)
    }

    /// The page in the Prometheus text format 0.0.4, with `gauges` as they are now. Members of one family must be
    /// neighbours in `gauges`.
    #[must_use]
    pub fn page(&self, gauges: &[(Gauge<'_>, u64)]) -> String {
        let mut out = String::with_capacity(8192);
        let mut family = "";
        for count in Count::all() {
            let (name, help, label) = count.names();
            head(&mut out, &mut family, name, help, "counter");
            let _ = writeln!(out, "{name}{label} {}", self.get(count));
        }
        for (gauge, value) in gauges {
            let (name, help, of) = gauge.names();
            head(&mut out, &mut family, name, help, "gauge");
            let _ = match of {
                Some(sink) if let Gauge::SinkState(_, state) = gauge => {
                    writeln!(out, "{name}{{sink=\"{sink}\",state=\"{state}\"}} {value}")
                }
                Some(of) => writeln!(out, "{name}{{{}=\"{of}\"}} {value}", gauge.label()),
                None => writeln!(out, "{name} {value}"),
            };
        }
        self.sinks.write(&mut out);
        self.store.write(&mut out);
        let histograms = [
            (
                "subway_commit_seconds",
                "From the beginning of a transaction of the spool to its commit on disk.",
                &self.commit_seconds,
            ),
            ("subway_ingest_seconds", "From the arrival of an ingestion request to its answer.", &self.ingest_seconds),
        ];
        for (name, help, histogram) in histograms {
            head(&mut out, &mut family, name, help, "histogram");
            histogram.write(&mut out, name, "");
        }
        out
    }
}

fn head(out: &mut String, family: &mut &'static str, name: &'static str, help: &str, kind: &str) {
    if *family != name {
        *family = name;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

#[cfg(test)]
mod tests;
