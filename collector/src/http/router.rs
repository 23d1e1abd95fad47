//! Which address leads where.

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

use super::{Shared, admin, client, console, health, ingest, problem, query};

/// How long a browser may remember the answer to a preflight. Browsers cap it at two hours or a day themselves.
const PREFLIGHT: Duration = Duration::from_secs(24 * 60 * 60);

/// The HTTP surface of the main listener. `operating`: with what belongs to operators, which may have a listener of its own.
pub(crate) fn router(shared: Arc<Shared>, operating: bool) -> Router {
    // The layer must also wrap what answers other methods, because that is where a preflight arrives.
    let ingest = Router::new()
        .route("/v1/events", post(ingest::ingest))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(cors());
    let reading = query::routes().layer(from_fn_with_state(Arc::clone(&shared), client::limit));
    let routes = Router::new().merge(ingest).merge(reading).merge(probes()).merge(console::routes());
    let routes = if operating { routes.merge(operations(&shared)) } else { routes };
    finished(routes, shared)
}

/// The HTTP surface of a listener for operators alone.
pub(crate) fn operating_router(shared: Arc<Shared>) -> Router {
    finished(probes().merge(operations(&shared)), shared)
}

fn probes() -> Router<Arc<Shared>> {
    Router::new().route("/health/live", get(health::live)).route("/health/ready", get(health::ready))
}

fn operations(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let admin = admin::routes().layer(from_fn_with_state(Arc::clone(shared), client::limit));
    admin.route("/metrics", get(health::metrics))
}

/// What every surface answers where it has nothing, and what it counts.
fn finished(routes: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    routes
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&shared), observe))
        .with_state(shared)
}

/// Pages of any origin may send, with whatever headers their tracing adds, and with credentials: some libraries send all
/// requests so, and there is no cookie here that could be misused. Nothing else is offered to other origins.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_credentials(true)
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER])
        .max_age(PREFLIGHT)
}

/// Counts every answer, and at the level debug logs it: never the query of its address nor a header, because keys and
/// tokens stand there.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let told = tracing::enabled!(tracing::Level::DEBUG).then(|| {
        let peer = client::Peer::of(request.extensions());
        (Instant::now(), request.method().clone(), request.uri().path().to_owned(), peer)
    });
    let response = next.run(request).await;
    shared.telemetry.count_request(response.status().as_u16());
    if let Some(code) = response.extensions().get::<ProblemCode>() {
        shared.telemetry.count_problem(*code);
    }
    if let Some((began, method, path, peer)) = told {
        let code = response.extensions().get::<ProblemCode>().map_or("", |code| code.as_str());
        let (status, micros) = (response.status().as_u16(), began.elapsed().as_micros() as u64);
        tracing::debug!(%method, path, status, code, micros, peer = %peer.0, "request");
    }
    response
}
