use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

#[test]
fn each_family_is_introduced_once_with_its_members() {
    let telemetry = Telemetry::default();
    telemetry.sink("a").delivered_events.inc_by(7);
    let _ = telemetry.sink("b");
    telemetry.store.set([1, 2, 3, 4]);
    telemetry.count_request(415);
    let mut gauges = Gauges::default();
    gauges.set(&gauges::SINK_PENDING_EVENTS, &["a"], 1);
    gauges.set(&gauges::SINK_PENDING_EVENTS, &["b\"\n"], 2);
    gauges.set(&gauges::READY, &[], 1);
    let text = telemetry.render(&gauges);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), heads.len());
    for line in [
        "subway_sink_pending_events{sink=\"a\"} 1",
        "subway_sink_pending_events{sink=\"b\\\"\\n\"} 2",
        "subway_events_total{outcome=\"rejected\",reason=\"property_too_deep\"} 0",
        "subway_events_total{outcome=\"stored\",reason=\"\"} 0",
        "subway_sink_delivered_events_total{sink=\"a\"} 7",
        "subway_sink_up{sink=\"b\"} 1",
        "subway_requests_total{status=\"415\"} 1",
        "subway_requests_total{status=\"500\"} 0",
        "subway_store_deleted_events_total 1",
        "subway_ready 1",
        concat!("subway_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn the_embedded_store_is_shown_once_it_is_open() {
    let telemetry = Telemetry::default();
    assert!(!telemetry.render(&Gauges::default()).contains("subway_store_"));
    telemetry.store.set([5, 0, 0, 0]);
    telemetry.store.set([9, 0, 0, 0]);
    assert!(telemetry.render(&Gauges::default()).contains("subway_store_deleted_events_total 9\n"));
}

#[test]
fn a_histogram_counts_into_all_wider_buckets() {
    let telemetry = Telemetry::default();
    observe(&telemetry.commit_duration, Duration::from_millis(3));
    observe(&telemetry.commit_duration, Duration::from_secs(60));
    let text = telemetry.render(&Gauges::default());
    for line in [
        "_bucket{le=\"0.0025\"} 0",
        "_bucket{le=\"0.005\"} 1",
        "_bucket{le=\"5\"} 1",
        "_bucket{le=\"+Inf\"} 2",
        "_sum 60.003",
        "_count 2",
    ] {
        assert!(text.contains(&format!("subway_spool_commit_duration_seconds{line}\n")), "{line}\n{text}");
    }
}
