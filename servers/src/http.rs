//! A small blocking HTTP client for requests to the servers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest response that is read, bytes; tests read counts and small pages.
const MAX_RESPONSE_BYTES: u64 = 256 * 1024 * 1024;

/// Response of a server.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

impl HttpResponse {
    /// Returns the body of a response of the class 2xx.
    ///
    /// # Errors
    /// Any other status; the error contains the body.
    pub fn ok(self) -> Result<String> {
        ensure!((200..300).contains(&self.status), "HTTP {}: {}", self.status, self.body.trim_end());
        Ok(self.body)
    }

    /// Returns the body of a response of the class 2xx as JSON.
    ///
    /// # Errors
    /// Any other status, and a body that is not JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        let body = self.ok()?;
        serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))
    }
}

/// Returns the client. A response of any status is a success.
pub(crate) fn agent() -> ureq::Agent {
    agent_with_timeout(REQUEST_TIMEOUT)
}

/// Returns a client with another timeout.
pub(crate) fn agent_with_timeout(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(limit)).build();
    config.into()
}

/// Sends a request with the method and an optional body with its content type.
///
/// # Errors
/// No response, or an incomplete one.
pub(crate) fn send(agent: &ureq::Agent, method: &str, url: &str, body: Option<(&str, &[u8])>) -> Result<HttpResponse> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some((kind, _)) = body {
        request = request.header("content-type", kind);
    }
    let sent = match body {
        Some((_, body)) => agent.run(request.body(body)?),
        None => agent.run(request.body(())?),
    };
    let mut answer = sent.with_context(|| format!("{method} {url}"))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_RESPONSE_BYTES).lossy_utf8(true).read_to_string();
    Ok(HttpResponse { status, body: body.with_context(|| format!("{method} {url}: reading the answer"))? })
}
