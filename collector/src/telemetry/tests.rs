use std::time::Duration;

use super::*;

#[test]
fn every_count_has_a_slot_of_its_own() {
    let telemetry = Telemetry::default();
    for (at, count) in Count::all().enumerate() {
        telemetry.add(count, at as u64 + 1);
    }
    assert_eq!(Count::all().count(), SLOTS);
    for (at, count) in Count::all().enumerate() {
        assert_eq!(telemetry.get(count), at as u64 + 1, "{count:?}");
    }
}

#[test]
fn each_family_is_introduced_once() {
    let page =
        Telemetry::default().page(&[(Gauge::SinkPending("a"), 1), (Gauge::SinkPending("b"), 2), (Gauge::Ready, 1)]);
    let mut heads: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let all = heads.len();
    heads.sort_unstable();
    heads.dedup();
    assert_eq!(heads.len(), all);
    assert!(page.contains("subway_sink_pending_events{sink=\"b\"} 2\n"));
    assert!(page.contains("subway_events_total{outcome=\"rejected\",reason=\"property_too_deep\"} 0\n"));
}

#[test]
fn a_histogram_counts_into_all_wider_buckets() {
    let telemetry = Telemetry::default();
    telemetry.commit_seconds.observe(Duration::from_millis(3));
    telemetry.commit_seconds.observe(Duration::from_secs(60));
    let page = telemetry.page(&[]);
    for line in [
        "_bucket{le=\"0.0025\"} 0",
        "_bucket{le=\"0.005\"} 1",
        "_bucket{le=\"5\"} 1",
        "_bucket{le=\"+Inf\"} 2",
        "_sum 60.003",
        "_count 2",
    ] {
        assert!(page.contains(&format!("subway_commit_seconds{line}\n")), "{line}\n{page}");
    }
}
