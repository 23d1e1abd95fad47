//! Uploads over HTTP(S): gzip, the app's key, an optional signature.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use subway_sdk_core::UploadRequest;

use super::sign::Signer;
use super::{Reply, Transport, retry_after};
use crate::error::OpenError;
use crate::types::Config;

/// Timeout for connecting: a mobile network that takes longer is unusable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the whole exchange. Half of the core's, so that the response always comes first.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest response that is read, bytes. A receipt that rejects a full batch event by event is about a quarter of it.
const MAX_RESPONSE_BYTES: u64 = 1024 * 1024;
/// Idle connections kept. The uploads of one client run one after the other.
const MAX_IDLE_CONNECTIONS: usize = 1;
/// Smallest body that is compressed, bytes: below it gzip saves less than a packet.
const MIN_GZIP_BYTES: usize = 512;

/// Transport to one collector. Clones share its connections, so that many clients in one process need only one.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client,
    url: Url,
    key: HeaderValue,
    signer: Option<std::sync::Arc<Signer>>,
}

impl HttpTransport {
    /// Checks the endpoint and the key. Connects only when something is sent.
    ///
    /// # Errors
    /// [`OpenError::Config`] if the endpoint is not a URL, is plain `http` to another machine without
    /// [`Config::allow_http`], or the key is not a valid header value.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let url = endpoint(&config.endpoint, config.allow_http)?;
        let mut key = HeaderValue::from_str(&config.key)
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| OpenError::Config("key: it must be visible ASCII and not empty".into()))?;
        key.set_sensitive(true);
        // Fails if the host has installed a provider already, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(Policy::none())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        if is_this_machine(&url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| OpenError::System(format!("HTTP client: {error}")))?;
        let signer = config.secret.as_deref().map(|secret| std::sync::Arc::new(Signer::new(secret)));
        Ok(Self { client, url, key, signer })
    }

    fn exchange(&self, body: &str) -> Result<Reply, String> {
        let (bytes, gzip) = compress(body);
        let mut request = self
            .client
            .post(self.url.clone())
            .header("x-subway-key", self.key.clone())
            .header(CONTENT_TYPE, "application/json");
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(signer) = &self.signer {
            request = request.header("x-subway-signature", signer.header(&bytes, SystemTime::now()));
        }
        let response = request.body(bytes).send().map_err(|error| explain(&error))?;
        self.adjust_clock(&response);
        let status = response.status().as_u16();
        let retry_after_ms = header(&response, RETRY_AFTER).and_then(|v| retry_after::parse(v, SystemTime::now()));
        Ok(Reply::Answer { status, retry_after_ms, body: read_body(response)? })
    }

    /// Adjusts the signer's clock: a refusal can be due to this device's clock, and the response has the collector's
    /// time.
    fn adjust_clock(&self, response: &Response) {
        if response.status() == StatusCode::UNAUTHORIZED
            && let (Some(signer), Some(date)) = (&self.signer, header(response, DATE))
        {
            signer.adjust_clock(date, SystemTime::now());
        }
    }
}

impl Transport for HttpTransport {
    fn send(&self, upload: &UploadRequest) -> Reply {
        self.exchange(&upload.body).unwrap_or_else(Reply::Failed)
    }
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Reads the whole body. Returns an empty text if it is too large or not text, because then it is not a receipt.
fn read_body(response: Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    response.take(MAX_RESPONSE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_RESPONSE_BYTES {
        return Ok(String::new());
    }
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// Returns the body as sent, and whether it is gzip.
fn compress(body: &str) -> (Vec<u8>, bool) {
    if body.len() >= MIN_GZIP_BYTES {
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
        if encoder.write_all(body.as_bytes()).is_ok()
            && let Ok(bytes) = encoder.finish()
        {
            return (bytes, true);
        }
    }
    (body.as_bytes().to_vec(), false)
}

/// Formats an error with all its causes, but without the URL, which can contain the key.
fn explain(error: &reqwest::Error) -> String {
    let mut text = String::from("no answer");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn endpoint(text: &str, allow_http: bool) -> Result<Url, OpenError> {
    let refuse = |why: &str| OpenError::Config(format!("endpoint: {why}"));
    let mut url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http || is_this_machine(&url) => {}
        "http" => return Err(refuse("plain http would let anybody read the events; set allow_http to accept that")),
        other => return Err(refuse(&format!("scheme {other} is not supported"))),
    }
    let path = format!("{}/v1/events", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_to_which_the_path_is_appended() {
        let path = |text| endpoint(text, false).map(|url| url.to_string()).map_err(|error| error.to_string());
        assert_eq!(path("https://c.example"), Ok("https://c.example/v1/events".into()));
        assert_eq!(path("https://c.example/subway/"), Ok("https://c.example/subway/v1/events".into()));
        assert_eq!(path("http://127.0.0.1:8080"), Ok("http://127.0.0.1:8080/v1/events".into()));
        assert_eq!(path("http://[::1]:8080"), Ok("http://[::1]:8080/v1/events".into()));
        assert!(path("http://c.example").unwrap_err().contains("allow_http"));
        assert!(path("ftp://c.example").unwrap_err().contains("ftp"));
        assert!(path("c.example").is_err());
        assert!(endpoint("http://c.example", true).is_ok());
    }

    #[test]
    fn a_key_that_cannot_stand_in_a_header_is_refused() {
        for key in ["", "a\nb"] {
            assert!(matches!(HttpTransport::new(&Config::new("http://127.0.0.1:1", key)), Err(OpenError::Config(_))));
        }
    }

    #[test]
    fn large_bodies_are_gzip_and_small_ones_plain() {
        assert_eq!(compress("{}"), (b"{}".to_vec(), false));
        let body = "x".repeat(10_000);
        let (bytes, gzip) = compress(&body);
        assert!(gzip && bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < 200);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, body);
    }
}
