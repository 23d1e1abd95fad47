//! `POST /v1/events`.

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

use super::client::Peer;
use super::problem::Refusal;
use super::{Live, Shared};
use crate::accept::{Arrival, Held, unavailable};
use crate::auth::App;
use crate::clock;

/// How much of the body of a refused request is still taken in and thrown away, so that a client that is busy sending
/// hears the answer instead of a broken connection: bytes, and for how long.
const LINGER: (usize, Duration) = (4 * 1024 * 1024, Duration::from_secs(5));

/// Takes one batch; answers after the commit that holds it is on disk.
pub(super) async fn ingest(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let began = Instant::now();
    let response = match take(&shared, request).await {
        Ok(receipt) => Json(receipt).into_response(),
        Err(problem) => Refusal(problem).into_response(),
    };
    crate::telemetry::observe(&shared.telemetry.ingest_duration, began.elapsed());
    response
}

async fn take(shared: &Arc<Shared>, request: Request) -> Result<Receipt, Problem> {
    let received_at = clock::now();
    let (parts, body) = request.into_parts();
    let key = text(&parts.headers, "x-subway-key").or_else(|| parameter(parts.uri.query(), "key"));
    let live = shared.live();
    let app = match admit(shared, &live, &parts, key.as_deref()) {
        Ok(app) => app,
        Err(problem) => {
            linger(&parts.headers, body);
            return Err(problem);
        }
    };
    let gzip = match gzip(&parts.headers) {
        Ok(gzip) => gzip,
        Err(problem) => {
            linger(&parts.headers, body);
            return Err(problem);
        }
    };
    let mut held = shared.budget.hold(&app.quota.under_way().bytes);
    let body = read(&live, &parts.headers, body, &mut held).await?;
    let signature = text(&parts.headers, "x-subway-signature");
    shared.acceptor.accept(Arrival { app, body, gzip, signature, received_at, held }).await
}

/// The app that sends, if it and its client may send now. Decided before the body is read.
fn admit(shared: &Shared, live: &Live, parts: &Parts, key: Option<&str>) -> Result<Arc<App>, Problem> {
    shared.admit(live, Peer::of(&parts.extensions), &parts.headers)?;
    let app = live.keys.sender(key)?;
    app.quota.request(Instant::now()).map_err(|exceeded| shared.limited(&exceeded))?;
    Ok(Arc::clone(app))
}

/// Whether the body is said to be gzip.
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

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The first parameter of this name. App keys have nothing to decode, so neither `+` nor `%` matters.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn too_large(limit: u64, got: Option<u64>) -> Problem {
    let mut problem = Problem::new(ProblemCode::BodyTooLarge, format!("the body may have {limit} bytes as sent"));
    problem.limit = Some(limit);
    problem.got = got.map(|got| Actual::Number(i64::try_from(got).unwrap_or(i64::MAX)));
    problem
}

/// Reads the body, with the caps on its size, its time and the memory of all.
async fn read(live: &Live, headers: &HeaderMap, mut body: Body, held: &mut Held) -> Result<Bytes, Problem> {
    let limit = live.limits.wire.body_bytes;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        linger(headers, body);
        return Err(too_large(limit, announced));
    }
    let deadline = Duration::from_millis(live.limits.body_timeout_ms);
    match tokio::time::timeout(deadline, collect(&mut body, announced.unwrap_or(0), limit, held)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(problem)) => {
            linger(headers, body);
            Err(problem)
        }
        Err(_) => Err(unavailable("the body took too long to arrive")),
    }
}

async fn collect(body: &mut Body, announced: u64, limit: u64, held: &mut Held) -> Result<Bytes, Problem> {
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
        held.grow(data.len() as u64)?;
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

/// Takes in what a refused client still sends, in the background, up to a cap. A client that waits for `100 Continue`
/// sends nothing.
fn linger(headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let drain = async {
            let mut left = LINGER.0;
            while let Some(Ok(frame)) = body.frame().await {
                let size = frame.data_ref().map_or(0, Bytes::len);
                if size > left {
                    return;
                }
                left -= size;
            }
        };
        let _ = tokio::time::timeout(LINGER.1, drain).await;
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
        assert_eq!(parameter(Some("a=1&key=demo&key=x"), "key").as_deref(), Some("demo"));
        assert_eq!(parameter(Some("monkey=1&keys=2"), "key"), None);
        assert_eq!(parameter(Some("key"), "key"), None);
        assert_eq!(parameter(None, "key"), None);
    }
}
