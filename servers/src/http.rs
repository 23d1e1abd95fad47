//! A small blocking HTTP client for talking to the servers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The longest that one request to a server may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(120);
/// The longest answer that is read, in bytes; tests read counts and small pages.
const ANSWER_BYTES: u64 = 256 * 1024 * 1024;

/// A server's answer to one request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body of an answer of the class 2xx.
    ///
    /// # Errors
    /// Any other status; the error carries the body.
    pub fn ok(self) -> Result<String> {
        ensure!((200..300).contains(&self.status), "HTTP {}: {}", self.status, self.body.trim_end());
        Ok(self.body)
    }

    /// The body of an answer of the class 2xx, as JSON.
    ///
    /// # Errors
    /// Any other status, and a body that is not JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        let body = self.ok()?;
        serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))
    }
}

/// The client: any status is an answer, not an error.
pub(crate) fn agent() -> ureq::Agent {
    agent_within(REQUEST_LIMIT)
}

/// The same with another limit for a request.
pub(crate) fn agent_within(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(limit)).build();
    config.into()
}

/// Sends a request with the method and an optional body with its content type.
///
/// # Errors
/// No answer, or not a whole one.
pub(crate) fn send(agent: &ureq::Agent, method: &str, url: &str, body: Option<(&str, &[u8])>) -> Result<Answer> {
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
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES).lossy_utf8(true).read_to_string();
    Ok(Answer { status, body: body.with_context(|| format!("{method} {url}: reading the answer"))? })
}
