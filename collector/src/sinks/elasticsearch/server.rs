//! Connection to one Elasticsearch or OpenSearch cluster, and its distribution.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::super::SinkError;
use super::super::http::{Endpoint, HttpClient, Response};
use crate::config::Elasticsearch as Settings;

/// Oldest supported Elasticsearch: has composable templates, `flattened`, and points in time without a licence.
const MIN_ELASTICSEARCH: (u64, u64) = (8, 0);
/// Oldest supported OpenSearch: has `flat_object` and points in time.
const MIN_OPENSEARCH: (u64, u64) = (2, 7);

/// Distribution of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Elasticsearch,
    OpenSearch,
}

/// Client of a store. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Server {
    http: HttpClient,
    distribution: OnceCell<Distribution>,
}

/// Response to `GET /`.
#[derive(Deserialize)]
struct RootResponse {
    version: RootVersion,
}

#[derive(Deserialize)]
struct RootVersion {
    number: String,
    #[serde(default)]
    distribution: Option<String>,
}

impl Server {
    /// Creates the client without connecting. Blocks on reading `tls_ca`.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if the certificate cannot be read.
    pub(crate) fn new(settings: &Settings, timeout: Duration) -> Result<Self, SinkError> {
        let tls_ca = settings.tls_ca();
        let endpoint = Endpoint {
            url: settings.url(),
            user: settings.user.as_deref(),
            password: settings.password.as_ref(),
            tls_ca: tls_ca.as_deref(),
            timeout,
        };
        Ok(Self { http: HttpClient::new(&endpoint)?, distribution: OnceCell::new() })
    }

    /// Sends a request with or without a JSON body.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no complete response arrives.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, SinkError> {
        let mut request = self.http.request(method, path);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.http.send(request).await
    }

    /// Sends lines of JSON.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no complete response arrives.
    pub(super) async fn send_lines(&self, path: &str, body: Bytes, gzip: bool) -> Result<Response, SinkError> {
        let mut request = self.http.request(Method::POST, path).header(CONTENT_TYPE, "application/x-ndjson");
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        self.http.send(request.body(body)).await
    }

    /// Returns the names of the open indices that match `patterns`.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    pub(super) async fn index_names(&self, patterns: &str) -> Result<Vec<String>, SinkError> {
        let path = format!("/_resolve/index/{patterns}?filter_path=indices.name");
        let value = self.value(Method::GET, &path, None).await?;
        let names = value["indices"].as_array().into_iter().flatten().filter_map(|index| index["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Returns the JSON of a successful response. Every other response is a transient error.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    pub(crate) async fn value(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, SinkError> {
        let answer = self.ask(method, path, body).await?;
        if answer.is_ok() { parse(&answer) } else { Err(answer.retryable()) }
    }

    /// Returns the distribution of the server. Asks only once.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if the server does not answer.
    pub(crate) async fn distribution(&self) -> Result<Distribution, SinkError> {
        self.distribution.get_or_try_init(|| async { Ok(self.version().await?.0) }).await.copied()
    }

    /// Checks that the server is recent enough.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if it is too old; [`SinkError::Retryable`] if it does not answer.
    pub(super) async fn check_version(&self) -> Result<Distribution, SinkError> {
        let (distribution, number) = self.version().await?;
        check_minimum(distribution, &number)?;
        self.distribution().await
    }

    async fn version(&self) -> Result<(Distribution, String), SinkError> {
        let answer = self.ask(Method::GET, "/", None).await?;
        match answer.status {
            200 => {
                let banner: RootResponse = serde_json::from_slice(&answer.body)
                    .map_err(|_| SinkError::retryable(format!("this is no Elasticsearch: {}", answer.message())))?;
                let open = banner.version.distribution.as_deref() == Some("opensearch");
                let distribution = if open { Distribution::OpenSearch } else { Distribution::Elasticsearch };
                Ok((distribution, banner.version.number))
            }
            // Builds without the module of the banner say so. Only Elasticsearch tells a flavour of its build.
            404 | 405 => {
                let path = "/_nodes/_local?filter_path=nodes.*.version,nodes.*.build_flavor";
                let value = self.value(Method::GET, path, None).await?;
                let node = value["nodes"].as_object().and_then(|nodes| nodes.values().next());
                let node = node.ok_or_else(|| SinkError::retryable("the store names no node"))?;
                let distribution = if node["build_flavor"].is_string() {
                    Distribution::Elasticsearch
                } else {
                    Distribution::OpenSearch
                };
                Ok((distribution, node["version"].as_str().unwrap_or_default().to_owned()))
            }
            _ => Err(answer.retryable()),
        }
    }
}

/// Parses the JSON of a response.
///
/// # Errors
/// [`SinkError::Retryable`] if it is invalid.
pub(crate) fn parse(answer: &Response) -> Result<Value, SinkError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| SinkError::retryable(format!("the answer is not JSON ({error}): {}", answer.message())))
}

fn check_minimum(distribution: Distribution, number: &str) -> Result<(), SinkError> {
    let mut parts = number.split(['.', '-']).map(|part| part.parse::<u64>().ok());
    let found = parts.next().flatten().zip(parts.next().flatten());
    let (name, (major, minor)) = match distribution {
        Distribution::Elasticsearch => ("Elasticsearch", MIN_ELASTICSEARCH),
        Distribution::OpenSearch => ("OpenSearch", MIN_OPENSEARCH),
    };
    match found {
        Some(version) if version >= (major, minor) => Ok(()),
        _ => Err(SinkError::misconfigured(format!(
            "the store is {name} {number}; {name} {major}.{minor} or later is needed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_too_old_is_refused_with_the_version_it_needs() {
        assert_eq!(check_minimum(Distribution::Elasticsearch, "8.19.21"), Ok(()));
        assert_eq!(check_minimum(Distribution::Elasticsearch, "9.0.0-SNAPSHOT"), Ok(()));
        assert_eq!(check_minimum(Distribution::OpenSearch, "2.19.4"), Ok(()));
        for (distribution, number, needed) in [
            (Distribution::Elasticsearch, "7.17.29", "8.0"),
            (Distribution::OpenSearch, "2.6.0", "2.7"),
            (Distribution::OpenSearch, "?", "2.7"),
        ] {
            let error = check_minimum(distribution, number).unwrap_err();
            assert!(
                matches!(&error, SinkError::Misconfigured { message } if message.contains(number) && message.contains(needed)),
                "{error}"
            );
        }
    }
}
