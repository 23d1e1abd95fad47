//! Serves `/health/live`, `/health/ready` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::problem::ProblemResponse;
use crate::accept::{SinkState, SpoolStatus, unavailable};
use crate::clock;
use crate::telemetry::{self, Gauges, gauges};

/// Answers that the process runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Answers whether the collector could store a batch of at least one app; if not, 503 with the reason.
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> Result<&'static str, ProblemResponse> {
    state.ready().map_err(|why| unavailable(&why.to_string()))?;
    Ok("ready\n")
}

/// Answers with the collector's metrics in the Prometheus text format.
pub(super) async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let mut measured = Gauges::default();
    measure_collector(&state, &mut measured);
    measure_apps(&state, &mut measured);
    if let Ok(status) = state.status().await {
        measure_sinks(&status, &mut measured);
    }
    state.process.measure(&mut measured);
    let text = state.telemetry.render(&measured);
    ([(header::CONTENT_TYPE, format!("{}; charset=utf-8", telemetry::CONTENT_TYPE))], text).into_response()
}

fn measure_collector(state: &AppState, to: &mut Gauges) {
    to.set(&gauges::READY, &[], u64::from(state.ready().is_ok()));
    to.set(&gauges::OPEN_CONNECTIONS, &[], state.connections.load(Ordering::Relaxed));
    to.set(&gauges::IN_FLIGHT_BYTES, &[], state.memory_budget.reserved());
    to.set(&gauges::SPOOL_HEAD, &[], state.ingestor.head());
    to.set(&gauges::SPOOL_BYTES, &[], state.ingestor.backlog_bytes());
    to.set(&gauges::SPOOL_SHARE_BYTES, &[], state.ingestor.share_bytes());
}

fn measure_apps(state: &AppState, to: &mut Gauges) {
    let (backlogs, extents) = (state.ingestor.backlogs(), state.ingestor.dedup_extents());
    let now = clock::now();
    for app in state.current().registry.apps() {
        let labels = &[app.key.as_str()];
        to.set(&gauges::SPOOL_APP_BYTES, labels, backlogs.get(&app.number).copied().unwrap_or(0));
        if let Some(extent) = extents.get(&app.number) {
            to.set(&gauges::DEDUP_HORIZON_SECONDS, labels, extent.horizon_ms(now).unsigned_abs() / 1000);
            to.set(&gauges::DEDUP_IDS, labels, extent.ids);
            to.set(&gauges::DEDUP_BYTES, labels, extent.bytes);
            to.set(&gauges::DEDUP_LOST_PARTS, labels, extent.lost_parts);
        }
    }
}

/// Sets the gauges of the sinks. A sink that is not in the configuration has only its state: its figures do not change,
/// and an alert on them would be wrong.
fn measure_sinks(status: &SpoolStatus, to: &mut Gauges) {
    let now = clock::now();
    for (name, sink) in &status.ledger.sinks {
        for state in SinkState::ALL {
            to.set(&gauges::SINK_STATE, &[name, state.as_str()], u64::from(state == sink.state));
        }
        if !sink.state.is_active() {
            continue;
        }
        let labels = &[name.as_str()];
        let oldest = status.oldest_pending.get(name).copied().unwrap_or(now);
        let lag_ms = now.saturating_sub(oldest).max(0).unsigned_abs();
        to.set(&gauges::SINK_POSITION, labels, sink.position());
        to.set(&gauges::SINK_PENDING_EVENTS, labels, sink.pending);
        to.set(&gauges::SINK_PARKED_EVENTS, labels, sink.parked);
        to.set(&gauges::SINK_DISCARDED_EVENTS, labels, sink.discarded);
        to.set(&gauges::SINK_DROPPED_EVENTS, labels, sink.dropped_oldest);
        to.set(&gauges::SINK_DEAD_LETTER_BYTES, labels, status.dead_letter_bytes.get(name).copied().unwrap_or(0));
        to.set(&gauges::SINK_LAG_SECONDS, labels, lag_ms.div_ceil(1000));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::accept::Ledger;
    use crate::spool::SinkLedger;

    #[test]
    fn a_sink_is_done_with_what_it_has_what_is_dead_and_what_has_expired() {
        let sink = SinkLedger { delivered: 30, discarded: 4, expired: 200, pending: 1000, ..SinkLedger::default() };
        let ledger = Ledger {
            received: 1234,
            stored: 1234,
            duplicate: 0,
            unverified: 0,
            rejected: BTreeMap::new(),
            sinks: BTreeMap::from([("ch".to_owned(), sink)]),
        };
        let status = SpoolStatus { ledger, oldest_pending: BTreeMap::new(), dead_letter_bytes: BTreeMap::new() };
        let mut measured = Gauges::default();
        measure_sinks(&status, &mut measured);
        assert_eq!(measured.get(&gauges::SINK_POSITION, &["ch"]), Some(234));
    }
}
