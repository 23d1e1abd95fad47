//! `/health/live`, `/health/ready` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Refusal;
use crate::accept::{Extent, SinkState, Status, unavailable};
use crate::auth::App;
use crate::clock;
use crate::telemetry::Gauge;

/// The process answers.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// The collector could accept a batch of some app; 503 with the reason if not.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refusal> {
    shared.ready().map_err(|why| unavailable(&why))?;
    Ok("ready\n")
}

/// The collector's counters in the Prometheus text format.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.status().await.ok();
    let mut gauges = vec![
        (Gauge::Ready, u64::from(shared.ready().is_ok())),
        (Gauge::OpenConnections, shared.connections.load(Ordering::Relaxed)),
        (Gauge::InFlightBytes, shared.budget.taken()),
        (Gauge::SpoolHead, shared.acceptor.head()),
        (Gauge::SpoolBytes, shared.acceptor.backlog_bytes()),
        (Gauge::SpoolShare, shared.acceptor.share_bytes()),
    ];
    let live = shared.live();
    let backlogs = shared.acceptor.backlogs();
    let backlog = |app: &App| backlogs.get(&app.number).copied().unwrap_or(0);
    gauges.extend(live.keys.apps().into_iter().map(|app| (Gauge::SpoolAppBytes(&app.key), backlog(app))));
    gauges.extend(status.iter().flat_map(of_sinks));
    let extents = shared.acceptor.dedup_extents();
    let of = |app: &App| extents.get(&app.number).copied();
    let apps: Vec<_> = live.keys.apps().into_iter().filter_map(|app| Some((app.key.as_str(), of(app)?))).collect();
    let now = clock::now();
    let seconds = |extent: &Extent| extent.horizon_ms(now).unsigned_abs() / 1000;
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupHorizon(app), seconds(extent))));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupIds(app), extent.ids)));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupBytes(app), extent.bytes)));
    gauges.extend(apps.iter().map(|(app, extent)| (Gauge::DedupLostParts(app), extent.lost_parts)));
    gauges.extend(shared.process.gauges());
    let page = shared.telemetry.page(&gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// What is known of the sinks, family by family. A sink that is not in the configuration has a state and nothing else: its
/// figures do not change, and nobody should be woken by them.
fn of_sinks(status: &Status) -> Vec<(Gauge<'_>, u64)> {
    let now = clock::now();
    let sinks = &status.ledger.sinks;
    let active = || sinks.iter().filter(|(_, sink)| sink.state.is_active());
    let lag = |name: &String| {
        let arrived = status.waiting.get(name).copied().unwrap_or(now);
        now.saturating_sub(arrived).max(0).unsigned_abs().div_ceil(1000)
    };
    let mut gauges = Vec::new();
    for (name, sink) in sinks {
        gauges.extend(SinkState::ALL.map(|one| (Gauge::SinkState(name, one.as_str()), u64::from(one == sink.state))));
    }
    gauges.extend(active().map(|(name, sink)| (Gauge::SinkPosition(name), sink.position())));
    gauges.extend(active().map(|(name, sink)| (Gauge::SinkPending(name), sink.pending)));
    gauges.extend(active().map(|(name, sink)| (Gauge::SinkParked(name), sink.parked)));
    gauges.extend(active().map(|(name, sink)| (Gauge::SinkDead(name), sink.dead)));
    gauges.extend(active().map(|(name, sink)| (Gauge::SinkShed(name), sink.shed)));
    gauges.extend(active().map(|(name, _)| {
        let bytes = status.letter_bytes.get(name).copied().unwrap_or(0);
        (Gauge::SinkLetterBytes(name), bytes)
    }));
    gauges.extend(active().map(|(name, _)| (Gauge::SinkLag(name), lag(name))));
    gauges
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::accept::{Ledger, SinkLedger};

    #[test]
    fn a_sink_is_done_with_what_it_has_what_is_dead_and_what_has_expired() {
        let sink = SinkLedger { delivered: 30, dead: 4, expired: 200, pending: 1000, ..SinkLedger::default() };
        let ledger = Ledger {
            received: 1234,
            stored: 1234,
            duplicate: 0,
            unverified: 0,
            rejected: BTreeMap::new(),
            sinks: BTreeMap::from([("ch".to_owned(), sink)]),
        };
        let status = Status { ledger, waiting: BTreeMap::new(), letter_bytes: BTreeMap::new() };
        let gauges = of_sinks(&status);
        let position = gauges.iter().find(|(gauge, _)| matches!(gauge, Gauge::SinkPosition("ch")));
        assert_eq!(position.map(|(_, position)| *position), Some(234));
    }
}
