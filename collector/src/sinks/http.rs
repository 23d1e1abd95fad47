//! HTTP(S) client for one store, shared by ClickHouse and Elasticsearch. Holds address, credentials, and limits of time
//! and size.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, RequestBuilder};

use super::SinkError;
use crate::config::Secret;

/// Limit for connecting. The store is near; one that takes longer is as good as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum bytes of a response. The response to a bulk of 10,000 documents has about 2 MB; a larger limit costs memory.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
/// Maximum bytes of an error's text that are kept: enough for the store's reason.
const MAX_MESSAGE_BYTES: usize = 1000;

/// Address of a store, with credentials and limits.
pub(crate) struct Endpoint<'a> {
    /// Base address, without a slash at the end.
    pub(crate) url: &'a str,
    /// User, if the store requires one.
    pub(crate) user: Option<&'a str>,
    /// The user's password.
    pub(crate) password: Option<&'a Secret>,
    /// PEM file with the authority that signed the store's certificate, if the system does not know it.
    pub(crate) tls_ca: Option<&'a Path>,
    /// Limit for one request.
    pub(crate) timeout: Duration,
}

/// Client for one store. Clones share its connections.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client,
    url: String,
    credentials: Option<(String, Secret)>,
}

/// Response of the store, with any status.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
}

impl HttpClient {
    /// Creates a client, which connects at its first request. Blocks while `tls_ca` is read.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if the certificate cannot be read.
    pub(crate) fn new(endpoint: &Endpoint<'_>) -> Result<Self, SinkError> {
        // Fails if the process has a default provider already, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(endpoint.timeout)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = endpoint.tls_ca {
            let wrong = |why: String| SinkError::misconfigured(format!("tls_ca {}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let bundle = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
            builder = builder.tls_certs_merge(bundle);
        }
        let client = builder.build().map_err(|error| SinkError::misconfigured(format!("HTTP client: {error}")))?;
        let password = || endpoint.password.cloned().unwrap_or_else(|| Secret::new(String::new()));
        let credentials = endpoint.user.map(|user| (user.to_owned(), password()));
        Ok(Self { client, url: endpoint.url.to_owned(), credentials })
    }

    /// Builds a request for `path`, which begins with a slash and may carry parameters.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password.expose())),
            None => request,
        }
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no complete response comes. It is then unknown what the store did.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, SinkError> {
        let mut response = request.send().await.map_err(|error| SinkError::retryable(error_chain(error)))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = bytes::BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| SinkError::retryable(error_chain(error)))? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(SinkError::retryable(format!("the response has more than {MAX_RESPONSE_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body: body.freeze() })
    }
}

impl Response {
    /// Returns whether the status is one of success.
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the status and the beginning of the body, for the log.
    pub(crate) fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim();
        let mut end = text.len().min(MAX_MESSAGE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.is_empty() { format!("status {}", self.status) } else { format!("status {}: {text}", self.status) }
    }

    /// Returns the pause that the store asks for, in milliseconds, from `Retry-After` in seconds.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
        Some(seconds.saturating_mul(1000))
    }

    /// Converts the response to a retryable error.
    pub(crate) fn retryable(&self) -> SinkError {
        SinkError::Retryable { message: self.message(), after_ms: self.retry_after_ms() }
    }
}

/// Formats an error with its causes. Leaves out the address, which may contain secrets.
fn error_chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
