//! One store behind HTTP(S): address, credentials, time and size limits. What ClickHouse and Elasticsearch share.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, RequestBuilder};

use super::SinkError;
use crate::config::Secret;

/// To reach the store. It is near; one that takes longer is as good as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read whole, bytes. The answer to a bulk of 10,000 documents has about 2 MB.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of an error's text that are kept: enough for what the store has to say.
const MAX_MESSAGE_BYTES: usize = 1000;

/// Where a store is, and who asks.
pub(crate) struct Endpoint<'a> {
    /// Base address, without a slash at the end.
    pub(crate) url: &'a str,
    /// User, if the store wants one.
    pub(crate) user: Option<&'a str>,
    /// The user's password.
    pub(crate) password: Option<&'a Secret>,
    /// A PEM file with the authority that signed the store's certificate, if the system does not know it.
    pub(crate) tls_ca: Option<&'a Path>,
    /// How long one request may take.
    pub(crate) timeout: Duration,
}

/// A client for one store. Clones share its connections.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client,
    url: String,
    credentials: Option<(String, Secret)>,
}

/// An answer of the store, whatever its status.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
}

impl HttpClient {
    /// Prepares to connect; connects only when something is sent. Blocks on reading `tls_ca`.
    ///
    /// # Errors
    /// [`SinkError::Unfit`] if the certificate cannot be read.
    pub(crate) fn new(endpoint: &Endpoint<'_>) -> Result<Self, SinkError> {
        // Fails if one has been chosen before, which is then the one to use.
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

    /// A request for `path`, which begins with a slash and may carry parameters.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password.expose())),
            None => request,
        }
    }

    /// Sends and reads the whole answer.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no complete answer comes: then nothing is known of what the store did.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, SinkError> {
        let mut response = request.send().await.map_err(|error| SinkError::retryable(error_chain(error)))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = bytes::BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| SinkError::retryable(error_chain(error)))? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(SinkError::retryable(format!("the answer has more than {MAX_RESPONSE_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body: body.freeze() })
    }
}

impl Response {
    /// Whether the store says that it did what it was asked.
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the store says, for people: the beginning of its body with the status.
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

    /// Milliseconds that the store asks to be left alone, from `Retry-After` in seconds.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
        Some(seconds.saturating_mul(1000))
    }

    /// The answer as a failure that may pass.
    pub(crate) fn retryable(&self) -> SinkError {
        SinkError::Retryable { message: self.message(), after_ms: self.retry_after_ms() }
    }
}

/// An error with its causes and without the address, which could carry what must not be logged.
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
