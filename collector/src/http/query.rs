//! The reading API: `/v1/apps`, and under `/v1/apps/{key}` metrics, events and range.
//!
//! An answer from the store includes what was acknowledged before the question came: the handlers wait until the store that is
//! read has it, but not for ever; where that is too long, the answer is of what the store has, and the log says so.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use subway_protocol::codec::server::{Problem, ProblemCode};

use super::problem::{Refusal, invalid, unreadable};
use super::{Shared, authorization, events, pairs, segments};
use crate::auth::App;
use crate::query::{Metric, MetricRequest, utc};

/// Its addresses.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/apps", get(apps))
        .route("/v1/apps/{key}/metrics/{metric}", get(metric))
        .route("/v1/apps/{key}/events", get(events::events))
        .route("/v1/apps/{key}/range", get(range))
        .layer(map_response(no_store))
}

/// Numbers change with every event, and are not for the disks of proxies.
async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize)]
struct AppEntry {
    key: String,
    timezone: String,
    /// What the zone's clocks are ahead of UTC now, for readers that do not know its name.
    offset: String,
}

#[derive(Serialize)]
struct Apps {
    apps: Vec<AppEntry>,
}

/// The IANA name of an app's time zone.
fn zone_name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// The apps that the token opens.
async fn apps(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Apps>, Refusal> {
    let live = shared.live();
    let apps = live.keys.readable(authorization(&headers))?;
    let entry = |app: &Arc<App>| AppEntry {
        key: app.key.clone(),
        timezone: zone_name(&app.timezone),
        offset: now().to_zoned(app.timezone.clone()).strftime("%:z").to_string(),
    };
    Ok(Json(Apps { apps: apps.into_iter().map(entry).collect() }))
}

#[derive(Serialize)]
struct Point {
    start: String,
    value: u64,
}

#[derive(Serialize)]
struct Series {
    metric: &'static str,
    interval: &'static str,
    timezone: String,
    series: Vec<Point>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_from: Option<String>,
}

/// From which event time on the answers about an app are complete; `None`: from the first event on. `installs`: those that
/// count installs by their first event. Asked after the answer: what is deleted meanwhile is said rather than not.
async fn complete_from(shared: &Shared, app: &str, installs: bool) -> Result<Option<String>, Problem> {
    let store = shared.reader.complete_from(app, installs).await.map_err(unreadable)?;
    Ok(store.max(shared.read_barrier.complete_from()).map(utc))
}

async fn metric(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Series>, Refusal> {
    let (key, name) = segments(path)?;
    let live = shared.live();
    let app = live.keys.reader(&key, authorization(&headers))?;
    let metric = Metric::parse(&name).ok_or_else(|| {
        let known = Metric::ALL.map(Metric::as_str).join(", ");
        Problem::new(ProblemCode::NotFound, format!("there is no such metric; known are {known}"))
    })?;
    let request = MetricRequest::parse(metric, &app.key, &pairs(&uri)?, &app.timezone, now()).map_err(invalid)?;
    shared.read_barrier.wait().await;
    let counts = shared.reader.count(request.query.clone()).await.map_err(unreadable)?;
    let installs = matches!(metric, Metric::NewUsers | Metric::CumulativeUsers);
    Ok(Json(Series {
        complete_from: complete_from(&shared, &app.key, installs).await?,
        metric: metric.as_str(),
        interval: request.interval.as_str(),
        timezone: zone_name(&app.timezone),
        series: request.series(&counts).into_iter().map(|(start, value)| Point { start, value }).collect(),
        total: counts.total,
    }))
}

#[derive(Serialize)]
struct Range {
    first: Option<String>,
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_from: Option<String>,
}

/// When the first and the last event happened.
async fn range(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Range>, Refusal> {
    let key = segments(path)?;
    let live = shared.live();
    let app = live.keys.reader(&key, authorization(&headers))?;
    shared.read_barrier.wait().await;
    let range = shared.reader.time_range(&app.key).await.map_err(unreadable)?;
    let complete_from = complete_from(&shared, &app.key, false).await?;
    let (first, last) = (range.map(|range| utc(range.first)), range.map(|range| utc(range.last)));
    Ok(Json(Range { first, last, complete_from }))
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(crate::clock::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
