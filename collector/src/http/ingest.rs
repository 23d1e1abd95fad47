//! Serves `POST /v1/events`: checks the key and the limits, reads the body, and hands both to [`crate::accept`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use subway_protocol::codec::server::{Problem, ProblemCode, Receipt};
use subway_protocol::outcome::Actual;

use super::client::PeerAddress;
use super::problem::ProblemResponse;
use super::{AppState, ReloadableState};
use crate::accept::{BudgetReservation, IngestRequest, unavailable};
use crate::auth::RegisteredApp;
use crate::clock;

/// Bytes of the body of a refused request that are still read and discarded. A client that is busy sending then
/// receives the answer instead of a broken connection.
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;

/// Time for which a refused body is drained. Longer would let a slow client hold a connection for nothing.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Receives one batch, and answers after the commit that holds it is on disk.
pub(super) async fn ingest(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let began = Instant::now();
    let response = match receive(&state, request).await {
        Ok(receipt) => Json(receipt).into_response(),
        Err(problem) => ProblemResponse(problem).into_response(),
    };
    crate::telemetry::observe(&state.telemetry.ingest_duration, began.elapsed());
    response
}

async fn receive(state: &Arc<AppState>, request: Request) -> Result<Receipt, Problem> {
    let received_at = clock::now();
    let (parts, body) = request.into_parts();
    let key = header_text(&parts.headers, "x-subway-key").or_else(|| query_parameter(parts.uri.query(), "key"));
    let current = state.current();
    let app = match admit(state, &current, &parts, key.as_deref()) {
        Ok(app) => app,
        Err(problem) => {
            drain_body(&parts.headers, body);
            return Err(problem);
        }
    };
    let gzip = match gzip(&parts.headers) {
        Ok(gzip) => gzip,
        Err(problem) => {
            drain_body(&parts.headers, body);
            return Err(problem);
        }
    };
    let mut reservation = state.memory_budget.reservation_for(&app.quota.usage().bytes);
    let body = read_body(&current, &parts.headers, body, &mut reservation).await?;
    let signature = header_text(&parts.headers, "x-subway-signature");
    state.ingestor.ingest(IngestRequest { app, body, gzip, signature, received_at, reservation }).await
}

/// Returns the app that sends, if it and its client may send now. Called before the body is read.
fn admit(
    state: &AppState,
    current: &ReloadableState,
    parts: &Parts,
    key: Option<&str>,
) -> Result<Arc<RegisteredApp>, Problem> {
    state.admit(current, PeerAddress::of(&parts.extensions), &parts.headers)?;
    let app = current.registry.authenticate_sender(key)?;
    app.quota.take_request(Instant::now()).map_err(|exceeded| state.rate_limited(&exceeded))?;
    Ok(Arc::clone(app))
}

/// Returns whether `content-encoding` says gzip.
fn gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut gzip = false;
    let values: Vec<_> = headers.get_all(header::CONTENT_ENCODING).iter().collect();
    for value in &values {
        let encoding = String::from_utf8_lossy(value.as_bytes());
        match encoding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" if values.len() == 1 => gzip = true,
            "" | "identity" => {}
            _ => {
                let detail = "content-encoding must be gzip or identity, once; the events are to be kept and sent so";
                let mut problem = Problem::new(ProblemCode::UnsupportedEncoding, detail.into());
                problem.field = Some(header::CONTENT_ENCODING.to_string());
                problem.got = Some(Actual::text(&encoding));
                return Err(problem);
            }
        }
    }
    Ok(gzip)
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns the first parameter with this name. App keys contain nothing to decode, so `+` and `%` do not matter.
fn query_parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn too_large(limit: u64, got: Option<u64>) -> Problem {
    let mut problem = Problem::new(ProblemCode::BodyTooLarge, format!("the body may have {limit} bytes as sent"));
    problem.limit = Some(limit);
    problem.got = got.map(|got| Actual::Number(i64::try_from(got).unwrap_or(i64::MAX)));
    problem
}

/// Reads the body within the caps on its size, its time and the memory of all requests.
async fn read_body(
    current: &ReloadableState,
    headers: &HeaderMap,
    mut body: Body,
    reservation: &mut BudgetReservation,
) -> Result<Bytes, Problem> {
    let limit = current.limits.wire.body_bytes;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        drain_body(headers, body);
        return Err(too_large(limit, announced));
    }
    let deadline = Duration::from_millis(current.limits.body_timeout_ms);
    match tokio::time::timeout(deadline, collect_body(&mut body, announced.unwrap_or(0), limit, reservation)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(problem)) => {
            drain_body(headers, body);
            Err(problem)
        }
        Err(_) => Err(unavailable("the body took too long to arrive")),
    }
}

async fn collect_body(
    body: &mut Body,
    announced: u64,
    limit: u64,
    reservation: &mut BudgetReservation,
) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unavailable(&format!("the body was cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len() as u64;
        if size > limit {
            return Err(too_large(limit, None));
        }
        reservation.grow(data.len() as u64)?;
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(usize::try_from(announced.max(size)).unwrap_or(0));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Reads and discards, in the background, what a refused client still sends, up to a cap. A client that waits for
/// `100 Continue` sends nothing.
fn drain_body(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let drain = async {
            let mut left = MAX_DRAINED_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let size = frame.data_ref().map_or(0, Bytes::len);
                if size > left {
                    return;
                }
                left -= size;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gzip_is_an_encoding_and_anything_else_is_not() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            gzip(&headers).map_err(|problem| problem.code)
        };
        for plain in [&[][..], &["identity"], &[""], &["Identity", "identity"]] {
            assert_eq!(of(plain), Ok(false), "{plain:?}");
        }
        for gzip in [&["gzip"][..], &["GZIP"], &["x-gzip"], &[" gzip "]] {
            assert_eq!(of(gzip), Ok(true), "{gzip:?}");
        }
        for other in [
            &["br"][..],
            &["deflate"],
            &["zstd"],
            &["gzip, gzip"],
            &["gzip", "gzip"],
            &["gzip, br"],
            &["identity", "gzip"],
        ] {
            assert_eq!(of(other), Err(ProblemCode::UnsupportedEncoding), "{other:?}");
        }
    }

    #[test]
    fn the_key_is_found_among_parameters() {
        assert_eq!(query_parameter(Some("a=1&key=demo&key=x"), "key").as_deref(), Some("demo"));
        assert_eq!(query_parameter(Some("monkey=1&keys=2"), "key"), None);
        assert_eq!(query_parameter(Some("key"), "key"), None);
        assert_eq!(query_parameter(None, "key"), None);
    }
}
