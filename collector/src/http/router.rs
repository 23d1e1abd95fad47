//! Routes of the listeners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use subway_protocol::codec::server::ProblemCode;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::{AppState, admin, client, console, health, ingest, problem, query};

/// Time for which a browser can cache the answer to a preflight. Browsers cap it at two hours or a day.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the router of the main listener. `with_operations` adds metrics and administration, which can have a
/// listener of their own.
pub(crate) fn router(state: Arc<AppState>, with_operations: bool) -> Router {
    // The layer must also wrap what answers other methods, because that is where a preflight arrives.
    let ingest = Router::new()
        .route("/v1/events", post(ingest::ingest))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(cors());
    let reading = query::routes().layer(from_fn_with_state(Arc::clone(&state), client::limit));
    let routes = Router::new().merge(ingest).merge(reading).merge(probes()).merge(console::routes());
    let routes = if with_operations { routes.merge(operations(&state)) } else { routes };
    with_fallbacks(routes, state)
}

/// Returns the router of a listener for operators only.
pub(crate) fn operations_router(state: Arc<AppState>) -> Router {
    with_fallbacks(probes().merge(operations(&state)), state)
}

fn probes() -> Router<Arc<AppState>> {
    Router::new().route("/health/live", get(health::live)).route("/health/ready", get(health::ready))
}

fn operations(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    let admin = admin::routes().layer(from_fn_with_state(Arc::clone(state), client::limit));
    admin.route("/metrics", get(health::metrics))
}

/// Adds what every router has: problems for unknown addresses and methods, and the counters.
fn with_fallbacks(routes: Router<Arc<AppState>>, state: Arc<AppState>) -> Router {
    routes
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&state), observe))
        .with_state(state)
}

/// Allows pages of any origin to send, with any headers and with credentials.
///
/// Tracing libraries add headers, and some libraries send every request with credentials. The collector has no cookies
/// that could be misused. Nothing else is offered to other origins.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_credentials(true)
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// Counts every answer, and logs it at the level debug. The log omits query string and headers, which contain keys and
/// tokens.
async fn observe(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let logged = tracing::enabled!(tracing::Level::DEBUG).then(|| {
        let peer = client::PeerAddress::of(request.extensions());
        (Instant::now(), request.method().clone(), request.uri().path().to_owned(), peer)
    });
    let response = next.run(request).await;
    state.telemetry.count_request(response.status().as_u16());
    if let Some(code) = response.extensions().get::<ProblemCode>() {
        state.telemetry.count_problem(*code);
    }
    if let Some((began, method, path, peer)) = logged {
        let code = response.extensions().get::<ProblemCode>().map_or("", |code| code.as_str());
        let (status, micros) = (response.status().as_u16(), began.elapsed().as_micros() as u64);
        tracing::debug!(%method, path, status, code, micros, peer = %peer.0, "request");
    }
    response
}
