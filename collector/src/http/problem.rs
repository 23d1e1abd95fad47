//! Problems as HTTP responses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use subway_protocol::codec::server::{Problem, ProblemCode};
use subway_protocol::outcome::Actual;

use crate::accept::unavailable;
use crate::query::{InvalidParameter, ReadError};

/// Default of `Retry-After`, seconds: long enough for a commit or a small queue, short enough that users do not notice.
/// Clients add their own jitter.
const RETRY_AFTER: u64 = 2;

/// Response that carries a problem. Its code is also an extension of the response, which the telemetry counts.
#[derive(Clone, Debug)]
pub(crate) struct ProblemResponse(pub Problem);

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ProblemResponse {
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

/// Answers that nothing is at this address.
pub(super) async fn not_found(uri: axum::http::Uri) -> ProblemResponse {
    Problem::new(ProblemCode::NotFound, format!("nothing is at {}", uri.path())).into()
}

/// Answers that the address does not take this method. The router adds the header `Allow`.
pub(super) async fn method_not_allowed(method: axum::http::Method) -> ProblemResponse {
    Problem::new(ProblemCode::MethodNotAllowed, format!("this address does not take {method}; see the header Allow"))
        .into()
}

/// Returns the problem of a parameter that cannot be used.
pub(super) fn invalid_parameter(invalid: InvalidParameter) -> Problem {
    let mut problem = Problem::new(ProblemCode::InvalidParameter, invalid.detail).at(&invalid.field);
    (problem.limit, problem.got) = (invalid.limit, invalid.got.map(printable));
    problem
}

/// Replaces control characters, so that the value can be shown in a log or on a terminal.
fn printable(got: Actual) -> Actual {
    match got {
        Actual::Text(text) => Actual::Text(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()),
        number @ Actual::Number(_) => number,
    }
}

/// Returns the problem of a store that could not answer, and logs the cause.
pub(super) fn read_failed(error: ReadError) -> Problem {
    if let ReadError::NoStore(why) = error {
        return Problem::new(ProblemCode::NotFound, why);
    }
    if let ReadError::Failed(why) = &error {
        tracing::error!(%why, "the store cannot be read");
        return unavailable("the store cannot be read now");
    }
    unavailable(&error.to_string())
}
