//! Responses of the collector: a receipt, or an RFC 9457 problem.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde::{Serializer, ser::SerializeStruct};

use crate::Id;
use crate::outcome::{Actual, MAX_PATH_BYTES, Violation, truncate};

/// Longest detail of a problem, bytes. It can quote the request, so it is truncated to keep the response small.
const DETAIL_BYTES: usize = 1024;

/// Outcome of each event of one batch.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// Batch that the receipt is for.
    #[serde(serialize_with = "id_text")]
    pub batch_id: Id,
    /// The collector's clock, milliseconds since the epoch.
    pub server_time: i64,
    /// Number of events that were stored.
    pub stored: u64,
    /// Indices of events that were stored before.
    pub duplicate: Vec<u64>,
    /// Events that were rejected.
    pub rejected: Vec<Rejection>,
}

fn id_text<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.text())
}

/// One rejected event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Index of the event.
    pub index: u64,
    /// ID of the event, if it could be read.
    pub id: Option<Id>,
    /// Rule that the event breaks.
    pub violation: Violation,
}

impl Serialize for Rejection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &self.index)?;
        if let Some(id) = self.id {
            map.serialize_entry("id", &id.text())?;
        }
        map.serialize_entry("reason", self.violation.reason.as_str())?;
        if !self.violation.field.is_empty() {
            map.serialize_entry("field", &self.violation.field)?;
        }
        if let Some(limit) = self.violation.limit {
            map.serialize_entry("limit", &limit)?;
        }
        match &self.violation.got {
            Some(Actual::Number(number)) => map.serialize_entry("got", number)?,
            Some(Actual::Text(text)) => map.serialize_entry("got", text)?,
            None => {}
        }
        map.end()
    }
}

/// Reason for the refusal of a whole request. The wire form is the snake_case name; each code has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemCode {
    /// The body is not JSON, or not an object.
    MalformedJson,
    /// The body claims to be gzip but is not, or is truncated.
    MalformedGzip,
    /// The envelope lacks a field.
    MissingField,
    /// A field of the envelope has the wrong type, form or size.
    InvalidField,
    /// `v` is a version that this collector does not support.
    UnsupportedVersion,
    /// `events` is empty.
    NoEvents,
    /// A parameter of a query is missing or wrong.
    InvalidParameter,
    /// The request names no key.
    NoKey,
    /// No app has this key.
    UnknownKey,
    /// The app requires signatures, and this one is absent, wrong, expired or reused.
    BadSignature,
    /// The bearer token is absent or wrong.
    BadToken,
    /// No resource has this address.
    NotFound,
    /// The resource does not support this method.
    MethodNotAllowed,
    /// `content-encoding` is neither gzip nor identity.
    UnsupportedEncoding,
    /// The request conflicts with the current state: a sink that is in use cannot be retired.
    Conflict,
    /// The body as sent exceeds `body_bytes`.
    BodyTooLarge,
    /// The body after decompression exceeds `decompressed_bytes`.
    DecompressedTooLarge,
    /// The batch has more events than `events_per_batch`.
    TooManyEvents,
    /// Too many requests; retry after the time in `Retry-After`.
    TooManyRequests,
    /// The collector cannot store now; retry after the time in `Retry-After`.
    Unavailable,
}

impl ProblemCode {
    /// All codes, in the order of the specification.
    pub const ALL: [ProblemCode; 20] = [
        ProblemCode::MalformedJson,
        ProblemCode::MalformedGzip,
        ProblemCode::MissingField,
        ProblemCode::InvalidField,
        ProblemCode::UnsupportedVersion,
        ProblemCode::NoEvents,
        ProblemCode::InvalidParameter,
        ProblemCode::NoKey,
        ProblemCode::UnknownKey,
        ProblemCode::BadSignature,
        ProblemCode::BadToken,
        ProblemCode::NotFound,
        ProblemCode::MethodNotAllowed,
        ProblemCode::UnsupportedEncoding,
        ProblemCode::Conflict,
        ProblemCode::BodyTooLarge,
        ProblemCode::DecompressedTooLarge,
        ProblemCode::TooManyEvents,
        ProblemCode::TooManyRequests,
        ProblemCode::Unavailable,
    ];

    /// Returns the wire form, the HTTP status and the title.
    #[must_use]
    pub fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            ProblemCode::MalformedJson => ("malformed_json", 400, "The body is not a batch"),
            ProblemCode::MalformedGzip => ("malformed_gzip", 400, "The body is not gzip"),
            ProblemCode::MissingField => ("missing_field", 400, "A field is missing"),
            ProblemCode::InvalidField => ("invalid_field", 400, "A field is wrong"),
            ProblemCode::UnsupportedVersion => ("unsupported_version", 400, "Unknown version"),
            ProblemCode::NoEvents => ("no_events", 400, "No events"),
            ProblemCode::InvalidParameter => ("invalid_parameter", 400, "A parameter is wrong"),
            ProblemCode::NoKey => ("no_key", 401, "No app key"),
            ProblemCode::UnknownKey => ("unknown_key", 401, "Unknown app key"),
            ProblemCode::BadSignature => ("bad_signature", 401, "Bad signature"),
            ProblemCode::BadToken => ("bad_token", 401, "Bad token"),
            ProblemCode::NotFound => ("not_found", 404, "Not found"),
            ProblemCode::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            ProblemCode::UnsupportedEncoding => ("unsupported_encoding", 415, "Unsupported content-encoding"),
            ProblemCode::Conflict => ("conflict", 409, "This cannot be done as things are"),
            ProblemCode::BodyTooLarge => ("body_too_large", 413, "Body too large"),
            ProblemCode::DecompressedTooLarge => ("decompressed_too_large", 413, "Body too large after decompression"),
            ProblemCode::TooManyEvents => ("too_many_events", 413, "Too many events"),
            ProblemCode::TooManyRequests => ("too_many_requests", 429, "Too many requests"),
            ProblemCode::Unavailable => ("unavailable", 503, "Unavailable"),
        }
    }

    /// Returns the wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.parts().1
    }
}

/// A refusal of a whole request, serialised as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason for the refusal.
    pub code: ProblemCode,
    /// Explanation for a developer.
    pub detail: String,
    /// Location of the error: a field, a position in the JSON, or a parameter.
    pub field: Option<String>,
    /// Limit that was exceeded.
    pub limit: Option<u64>,
    /// Value that was received instead.
    pub got: Option<Actual>,
    /// Seconds after which a retry can succeed, if known. Sent in the header `Retry-After`, not in the document.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// Creates a problem without a location. Truncates `detail`.
    #[must_use]
    pub fn new(code: ProblemCode, mut detail: String) -> Self {
        detail.truncate(truncate(&detail, DETAIL_BYTES).len());
        Self { code, detail, field: None, limit: None, got: None, retry_after: None }
    }

    /// Sets the location.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(truncate(field, MAX_PATH_BYTES).to_owned());
        self
    }

    /// Sets the limit and the value that was received.
    #[must_use]
    pub fn limit(mut self, limit: u64, got: Actual) -> Self {
        self.limit = Some(limit);
        self.got = Some(got);
        self
    }

    /// Creates the problem for a rule that the envelope breaks.
    #[must_use]
    pub fn from_violation(violation: &Violation) -> Self {
        let at = Self::new(ProblemCode::InvalidField, violation.to_string()).at(&violation.field);
        Self { limit: violation.limit, got: violation.got.clone(), ..at }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (code, status, title) = self.code.parts();
        let mut out = serializer.serialize_struct("Problem", 8)?;
        out.serialize_field("type", &format!("{}{code}", crate::codec::problem::TYPE_PREFIX))?;
        out.serialize_field("title", title)?;
        out.serialize_field("status", &status)?;
        out.serialize_field("detail", &self.detail)?;
        out.serialize_field("code", code)?;
        if let Some(field) = &self.field {
            out.serialize_field("field", field)?;
        }
        if let Some(limit) = self.limit {
            out.serialize_field("limit", &limit)?;
        }
        match &self.got {
            Some(Actual::Number(number)) => out.serialize_field("got", number)?,
            Some(Actual::Text(text)) => out.serialize_field("got", text)?,
            None => {}
        }
        out.end()
    }
}
