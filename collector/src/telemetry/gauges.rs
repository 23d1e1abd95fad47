//! Gauges that are measured at each scrape.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

/// Declaration of a gauge.
#[derive(Debug)]
pub(crate) struct Gauge {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

pub(crate) const READY: Gauge =
    Gauge { name: "subway_ready", help: "1 if the collector can accept, else 0.", labels: &[] };
pub(crate) const OPEN_CONNECTIONS: Gauge =
    Gauge { name: "subway_open_connections", help: "Connections open now.", labels: &[] };
pub(crate) const IN_FLIGHT_BYTES: Gauge =
    Gauge { name: "subway_in_flight_bytes", help: "Bytes of requests being worked on.", labels: &[] };
pub(crate) const SPOOL_HEAD: Gauge =
    Gauge { name: "subway_spool_head", help: "Position of the newest event in the spool.", labels: &[] };
pub(crate) const SPOOL_BYTES: Gauge =
    Gauge { name: "subway_spool_bytes", help: "Bytes of JSON in the spool.", labels: &[] };
pub(crate) const SPOOL_SHARE_BYTES: Gauge =
    Gauge { name: "subway_spool_share_bytes", help: "Bytes in the spool that one app may have now.", labels: &[] };
pub(crate) const SPOOL_APP_BYTES: Gauge =
    Gauge { name: "subway_spool_app_bytes", help: "Bytes of JSON in the spool that an app has.", labels: &["app"] };
pub(crate) const SINK_STATE: Gauge = Gauge {
    name: "subway_sink_state",
    help: "1 for the state that a sink is in, 0 for the others.",
    labels: &["sink", "state"],
};
pub(crate) const SINK_POSITION: Gauge =
    Gauge { name: "subway_sink_position", help: "Position up to which a sink is done.", labels: &["sink"] };
pub(crate) const SINK_PENDING_EVENTS: Gauge =
    Gauge { name: "subway_sink_pending_events", help: "Events a sink still has to deliver.", labels: &["sink"] };
pub(crate) const SINK_PARKED_EVENTS: Gauge = Gauge {
    name: "subway_sink_parked_events",
    help: "Pending events of a sink that wait beside the log.",
    labels: &["sink"],
};
pub(crate) const SINK_DISCARDED_EVENTS: Gauge =
    Gauge { name: "subway_sink_discarded_events", help: "Events a sink dead-lettered or dropped.", labels: &["sink"] };
pub(crate) const SINK_DROPPED_EVENTS: Gauge = Gauge {
    name: "subway_sink_dropped_events",
    help: "Events a sink dropped because the spool was full.",
    labels: &["sink"],
};
pub(crate) const SINK_DEAD_LETTER_BYTES: Gauge = Gauge {
    name: "subway_sink_dead_letter_bytes",
    help: "Bytes that the dead letters of a sink take.",
    labels: &["sink"],
};
pub(crate) const SINK_LAG_SECONDS: Gauge = Gauge {
    name: "subway_sink_lag_seconds",
    help: "Age of the oldest event that a sink still has to deliver.",
    labels: &["sink"],
};
pub(crate) const DEDUP_HORIZON_SECONDS: Gauge = Gauge {
    name: "subway_dedup_horizon_seconds",
    help: "How far back an event that comes again is recognised.",
    labels: &["app"],
};
pub(crate) const DEDUP_IDS: Gauge =
    Gauge { name: "subway_dedup_ids", help: "Event IDs that are known.", labels: &["app"] };
pub(crate) const DEDUP_BYTES: Gauge =
    Gauge { name: "subway_dedup_bytes", help: "Bytes that the event IDs take on disk.", labels: &["app"] };
pub(crate) const DEDUP_LOST_PARTS: Gauge = Gauge {
    name: "subway_dedup_lost_parts",
    help: "Parts of the dedup index that were missing or damaged, since the start.",
    labels: &["app"],
};
pub(crate) const DISK_FREE_BYTES: Gauge =
    Gauge { name: "subway_disk_free_bytes", help: "Bytes free on the file system of the data directory.", labels: &[] };
pub(crate) const RESIDENT_MEMORY_BYTES: Gauge =
    Gauge { name: "process_resident_memory_bytes", help: "Bytes of memory that the process holds.", labels: &[] };
pub(crate) const OPEN_FDS: Gauge =
    Gauge { name: "process_open_fds", help: "Files and sockets that the process has open.", labels: &[] };
pub(crate) const MAX_FDS: Gauge =
    Gauge { name: "process_max_fds", help: "Files and sockets that the process may have open.", labels: &[] };
pub(crate) const START_TIME_SECONDS: Gauge =
    Gauge { name: "process_start_time_seconds", help: "When the process began, seconds since the epoch.", labels: &[] };

/// Values of gauges at one moment.
#[derive(Debug, Default)]
pub(crate) struct Gauges(BTreeMap<&'static str, IntGaugeVec>);

impl Gauges {
    /// Sets the member of `gauge` that has these values of its labels, in their order.
    pub(crate) fn set(&mut self, gauge: &Gauge, labels: &[&str], value: u64) {
        let family = self.0.entry(gauge.name).or_insert_with(|| {
            #[expect(clippy::expect_used, reason = "the declarations are constants")]
            IntGaugeVec::new(Opts::new(gauge.name, gauge.help), gauge.labels).expect("a declaration of a gauge")
        });
        match family.get_metric_with_label_values(labels) {
            Ok(member) => member.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Err(error) => tracing::error!(gauge = gauge.name, %error, "a gauge was set with other labels than it has"),
        }
    }

    /// Returns the value that was set, `None` if none was.
    #[cfg(test)]
    pub(crate) fn get(&self, gauge: &Gauge, labels: &[&str]) -> Option<u64> {
        let member = self.0.get(gauge.name)?.get_metric_with_label_values(labels).ok()?;
        u64::try_from(member.get()).ok()
    }

    pub(super) fn gather(&self) -> impl Iterator<Item = MetricFamily> {
        self.0.values().flat_map(Collector::collect)
    }
}
