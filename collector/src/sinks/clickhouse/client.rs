//! Statements over ClickHouse's HTTP interface.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;

use super::errors;
use crate::config::{BlockCompression as Compression, ClickHouse as Settings};
use crate::sinks::SinkError;
use crate::sinks::http::{Endpoint, HttpClient, Response};

/// What separates the parts of a body with external data. It cannot occur in numbers.
const BOUNDARY: &str = "subway-part";

/// A client for one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient,
}

/// A statement was not done.
#[derive(Debug)]
pub(crate) enum StatementError {
    /// No answer came.
    NoResponse(SinkError),
    /// The server refused, with the number of the error.
    Server(u32, Response),
}

impl StatementError {
    /// The failure as one that may pass.
    pub(crate) fn retryable(self) -> SinkError {
        match self {
            StatementError::NoResponse(error) => error,
            StatementError::Server(_, answer) => answer.retryable(),
        }
    }
}

/// The parameters of a request's address.
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

    /// Appends the value of `{name:String}` or of a number in the statement. The server reads it as a field of a file
    /// separated by tabs, so what has a meaning there is escaped.
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
    /// Prepares to connect. Blocks on reading certificates.
    ///
    /// # Errors
    /// [`SinkError::Unfit`] if the settings cannot be used.
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

    /// Runs a statement and gives what it answers.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub(crate) async fn run(&self, statement: &str, parameters: UrlParameters) -> Result<Bytes, StatementError> {
        let path = format!("/{}", parameters.with("wait_end_of_query", "1").0);
        let request = self.http.request(Method::POST, &path).body(statement.to_owned());
        self.finish(request).await
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
        self.finish(request.header("content-type", content_type).body(body)).await
    }

    /// Sends rows. The answer is to be judged.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if no answer comes.
    pub(crate) async fn insert(
        &self,
        parameters: UrlParameters,
        body: Vec<u8>,
        compression: Compression,
    ) -> Result<Response, SinkError> {
        let mut request = self.http.request(Method::POST, &format!("/{}", parameters.0));
        if body.is_empty() {
            // Left out otherwise, and the server insists on it.
            request = request.header("content-length", "0");
        } else if compression == Compression::Lz4 {
            request = request.header("content-encoding", "lz4");
        }
        self.http.send(request.body(body)).await
    }

    async fn finish(&self, request: reqwest::RequestBuilder) -> Result<Bytes, StatementError> {
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
