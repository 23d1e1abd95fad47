//! Client for ClickHouse's HTTP interface.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

use super::errors;
use crate::config::{BlockCompression as Compression, ClickHouse as Settings};
use crate::sinks::SinkError;
use crate::sinks::http::{Endpoint, HttpClient, Response};

/// Separator of the parts of a body with external data. It cannot occur in numbers.
const BOUNDARY: &str = "subway-part";

/// Client for one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient,
}

/// Reason why a statement failed.
#[derive(Debug)]
pub(crate) enum StatementError {
    /// No response came.
    NoResponse(SinkError),
    /// The server returned an error with this number.
    Server(u32, Response),
}

impl StatementError {
    /// Converts the error to a retryable one.
    pub(crate) fn retryable(self) -> SinkError {
        match self {
            StatementError::NoResponse(error) => error,
            StatementError::Server(_, answer) => answer.retryable(),
        }
    }
}

/// Parameters of a request's URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct UrlParameters(String);

impl UrlParameters {
    /// Appends a parameter of the interface: a setting, or `query`.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                self.0.push(char::from(byte));
            } else {
                self.0.push_str(&format!("%{byte:02X}"));
            }
        }
        self
    }

    /// Appends the value of `{name:String}` or of a number in the statement. Escapes tabs, line breaks, zeros and
    /// backslashes, because the server reads it as a TSV field.
    pub(crate) fn with_value(self, name: &str, value: &str) -> Self {
        let mut escaped = String::with_capacity(value.len());
        for c in value.chars() {
            match c {
                '\\' => escaped.push_str("\\\\"),
                '\t' => escaped.push_str("\\t"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\0' => escaped.push_str("\\0"),
                other => escaped.push(other),
            }
        }
        self.with(&format!("param_{name}"), &escaped)
    }
}

impl Client {
    /// Creates a client, which connects at its first statement. Blocks while certificates are read.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if the settings cannot be used.
    pub(crate) fn new(settings: &Settings, timeout: Duration) -> Result<Self, SinkError> {
        let endpoint = Endpoint {
            url: settings.url(),
            user: settings.user.as_deref(),
            password: settings.password.as_ref(),
            tls_ca: settings.tls_ca(),
            timeout,
        };
        Ok(Self { http: HttpClient::new(&endpoint)? })
    }

    /// Runs a statement and returns its result.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub(crate) async fn run(&self, statement: &str, parameters: UrlParameters) -> Result<Bytes, StatementError> {
        let path = format!("/{}", parameters.with("wait_end_of_query", "1").0);
        let request = self.http.request(Method::POST, &path).body(statement.to_owned());
        self.send_statement(request).await
    }

    /// Runs a statement that reads numbers from the external table `name`, in its one column `value`.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub(crate) async fn run_with_external_table(
        &self,
        statement: &str,
        parameters: UrlParameters,
        name: &str,
        numbers: &[i64],
    ) -> Result<Bytes, StatementError> {
        let parameters = parameters
            .with("query", statement)
            .with(&format!("{name}_structure"), "value Int64")
            .with(&format!("{name}_format"), "RowBinary")
            .with("wait_end_of_query", "1");
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        numbers.iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let request = self.http.request(Method::POST, &format!("/{}", parameters.0));
        self.send_statement(request.header("content-type", content_type).body(body)).await
    }

    /// Sends rows and returns the response, for [`errors::check_insert`].
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no response comes.
    pub(crate) async fn insert(
        &self,
        parameters: UrlParameters,
        body: Vec<u8>,
        compression: Compression,
    ) -> Result<Response, SinkError> {
        let mut request = self.http.request(Method::POST, &format!("/{}", parameters.0));
        if body.is_empty() {
            // The client omits this header for an empty body, and the server requires it.
            request = request.header("content-length", "0");
        } else if compression == Compression::Lz4 {
            request = request.header("content-encoding", "lz4");
        }
        self.http.send(request.body(body)).await
    }

    async fn send_statement(&self, request: reqwest::RequestBuilder) -> Result<Bytes, StatementError> {
        let answer = self.http.send(request).await.map_err(StatementError::NoResponse)?;
        match errors::error_code(&answer) {
            None => Ok(answer.body),
            Some(code) => Err(StatementError::Server(code, answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_value_holds_it_stays_one_value() {
        let parameters = UrlParameters::default().with("a", "x y&b=c").with_value("v", "\\N\t'\u{9875}\0");
        assert_eq!(parameters.0, "?a=x%20y%26b%3Dc&param_v=%5C%5CN%5Ct%27%E9%A1%B5%5C0");
    }
}
