//! Serves the reading API: `/v1/apps`, and metrics, events and range under `/v1/apps/{key}`.
//!
//! An answer includes the events that were acknowledged before the query arrived. The handlers wait for the store until
//! a timeout; after it they answer from what the store has, and log a warning.

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

use super::problem::{ProblemResponse, invalid_parameter, read_failed};
use super::{AppState, authorization, events, path_segments, query_pairs};
use crate::auth::RegisteredApp;
use crate::query::{Metric, MetricRequest, utc};

/// Returns the routes of the reading API.
pub(super) fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/apps", get(apps))
        .route("/v1/apps/{key}/metrics/{metric}", get(metric))
        .route("/v1/apps/{key}/events", get(events::events))
        .route("/v1/apps/{key}/range", get(range))
        .layer(map_response(no_store))
}

/// Forbids caching: numbers change with every event, and must not stay on the disks of proxies.
async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize)]
struct AppEntry {
    key: String,
    timezone: String,
    /// Offset of the zone from UTC now, for clients that do not know its name.
    offset: String,
}

#[derive(Serialize)]
struct AppsResponse {
    apps: Vec<AppEntry>,
}

/// Returns the IANA name of a time zone.
fn zone_name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// Answers the apps that the token can read.
async fn apps(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Result<Json<AppsResponse>, ProblemResponse> {
    let current = state.current();
    let apps = current.registry.readable_apps(authorization(&headers))?;
    let entry = |app: &Arc<RegisteredApp>| AppEntry {
        key: app.key.clone(),
        timezone: zone_name(&app.timezone),
        offset: now().to_zoned(app.timezone.clone()).strftime("%:z").to_string(),
    };
    Ok(Json(AppsResponse { apps: apps.into_iter().map(entry).collect() }))
}

#[derive(Serialize)]
struct SeriesPoint {
    start: String,
    value: u64,
}

#[derive(Serialize)]
struct SeriesResponse {
    metric: &'static str,
    interval: &'static str,
    timezone: String,
    series: Vec<SeriesPoint>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_from: Option<String>,
}

/// Returns the event time from which answers about an app are complete; `None` means from the first event.
///
/// `installs` selects the metrics that count installs by their first event. It is read after the answer, so that it
/// covers what is deleted meanwhile.
async fn complete_from(state: &AppState, app: &str, installs: bool) -> Result<Option<String>, Problem> {
    let store = state.reader.complete_from(app, installs).await.map_err(read_failed)?;
    Ok(store.max(state.read_barrier.complete_from()).map(utc))
}

async fn metric(
    State(state): State<Arc<AppState>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<SeriesResponse>, ProblemResponse> {
    let (key, name) = path_segments(path)?;
    let current = state.current();
    let app = current.registry.authorize_reader(&key, authorization(&headers))?;
    let metric = Metric::parse(&name).ok_or_else(|| {
        let known = Metric::ALL.map(Metric::as_str).join(", ");
        Problem::new(ProblemCode::NotFound, format!("there is no such metric; known are {known}"))
    })?;
    let request =
        MetricRequest::parse(metric, &app.key, &query_pairs(&uri)?, &app.timezone, now()).map_err(invalid_parameter)?;
    state.read_barrier.wait().await;
    let counts = state.reader.count(request.query.clone()).await.map_err(read_failed)?;
    let installs = matches!(metric, Metric::NewUsers | Metric::CumulativeUsers);
    Ok(Json(SeriesResponse {
        complete_from: complete_from(&state, &app.key, installs).await?,
        metric: metric.as_str(),
        interval: request.interval.as_str(),
        timezone: zone_name(&app.timezone),
        series: request.series(&counts).into_iter().map(|(start, value)| SeriesPoint { start, value }).collect(),
        total: counts.total,
    }))
}

#[derive(Serialize)]
struct RangeResponse {
    first: Option<String>,
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_from: Option<String>,
}

/// Answers the times of the first and the last event.
async fn range(
    State(state): State<Arc<AppState>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<RangeResponse>, ProblemResponse> {
    let key = path_segments(path)?;
    let current = state.current();
    let app = current.registry.authorize_reader(&key, authorization(&headers))?;
    state.read_barrier.wait().await;
    let extent = state.reader.time_range(&app.key).await.map_err(read_failed)?;
    let complete_from = complete_from(&state, &app.key, false).await?;
    let (first, last) = (extent.map(|extent| utc(extent.first)), extent.map(|extent| utc(extent.last)));
    Ok(Json(RangeResponse { first, last, complete_from }))
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(crate::clock::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
