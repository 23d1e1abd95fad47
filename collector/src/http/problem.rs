//! Refusals as HTTP answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use subway_protocol::codec::server::{Problem, ProblemCode};

/// What a refused client is asked to wait, seconds: long enough for a commit or a small queue, short enough not to be
/// noticed. Clients add their own jitter.
const RETRY_AFTER: u64 = 2;

/// A refusal. Also left as an extension of the response, so that the telemetry knows its code.
#[derive(Clone, Debug)]
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if matches!(code, ProblemCode::TooManyRequests | ProblemCode::Unavailable) {
            let seconds = self.0.retry_after.unwrap_or(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(code, ProblemCode::BadToken) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(code);
        response
    }
}

/// Nothing is at this address.
pub(super) async fn not_found(uri: axum::http::Uri) -> Refusal {
    Problem::new(ProblemCode::NotFound, format!("nothing is at {}", uri.path())).into()
}

/// The address does not take this method; the router adds the header `Allow`.
pub(super) async fn method_not_allowed(method: axum::http::Method) -> Refusal {
    Problem::new(ProblemCode::MethodNotAllowed, format!("this address does not take {method}; see the header Allow"))
        .into()
}
