//! `/health/live`, `/health/ready` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Refusal;
use crate::accept::{Extent, unavailable};
use crate::auth::App;
use crate::telemetry::Gauge;

/// The process answers.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// The collector could accept a batch; 503 with the reason if not.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refusal> {
    shared.ready().map_err(|why| unavailable(&why))?;
    Ok("ready\n")
}

/// The collector's counters in the Prometheus text format.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let ledger = shared.ledger().await.ok();
    let sinks: Vec<_> = ledger.into_iter().flat_map(|ledger| ledger.sinks).collect();
    let mut gauges = vec![
        (Gauge::Ready, u64::from(shared.ready().is_ok())),
        (Gauge::OpenConnections, shared.connections.load(Ordering::Relaxed)),
        (Gauge::InFlightBytes, shared.budget.taken()),
        (Gauge::SpoolHead, shared.acceptor.head()),
        (Gauge::SpoolBytes, shared.acceptor.backlog_bytes()),
    ];
    gauges.extend(sinks.iter().map(|(name, sink)| (Gauge::SinkPosition(name), sink.delivered + sink.dead)));
    gauges.extend(sinks.iter().map(|(name, sink)| (Gauge::SinkPending(name), sink.pending)));
    gauges.extend(sinks.iter().map(|(name, sink)| (Gauge::SinkDead(name), sink.dead)));
    gauges.extend(sinks.iter().map(|(name, sink)| (Gauge::SinkShed(name), sink.shed)));
    let names: Vec<String> = sinks.iter().map(|(name, _)| name.clone()).collect();
    let lags = shared.acceptor.lags(names).await.unwrap_or_default();
    // A sink that remembers its own position may be further than the spool knows.
    let waits = |name: &str| sinks.iter().any(|(sink, ledger)| sink == name && ledger.pending > 0);
    let lag = |name: &str, millis: u64| if waits(name) { millis.div_ceil(1000) } else { 0 };
    gauges.extend(lags.iter().map(|(name, millis)| (Gauge::SinkLag(name), lag(name, *millis))));
    let live = shared.live();
    let extents = shared.acceptor.dedup_extents();
    let of = |app: &App| extents.get(&app.number).copied();
    let apps: Vec<_> = live.keys.apps().into_iter().filter_map(|app| Some((app.key.as_str(), of(app)?))).collect();
    let now = crate::clock::now();
    let seconds = |extent: &Extent| extent.horizon_ms(now).unsigned_abs() / 1000;
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupHorizon(app), seconds(extent))));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupIds(app), extent.ids)));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupBytes(app), extent.bytes)));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupLostParts(app), extent.lost_parts)));
    gauges.extend(shared.process.gauges());
    let page = shared.telemetry.page(&gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
