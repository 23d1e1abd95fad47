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

crate::named_enum! {
    /// Reason for the refusal of a whole request. The wire form is the snake_case name; each code has one HTTP status.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum ProblemCode {
        /// The body is not JSON, or not an object.
        MalformedJson = "malformed_json",
        /// The body claims to be gzip but is not, or is truncated.
        MalformedGzip = "malformed_gzip",
        /// The envelope lacks a field.
        MissingField = "missing_field",
        /// A field of the envelope has the wrong type, form or size.
        InvalidField = "invalid_field",
        /// `v` is a version that this collector does not support.
        UnsupportedVersion = "unsupported_version",
        /// `events` is empty.
        NoEvents = "no_events",
        /// A parameter of a query is missing or wrong.
        InvalidParameter = "invalid_parameter",
        /// The request names no key.
        NoKey = "no_key",
        /// No app has this key.
        UnknownKey = "unknown_key",
        /// The app requires signatures, and this one is absent, wrong, expired or reused.
        BadSignature = "bad_signature",
        /// The bearer token is absent or wrong.
        BadToken = "bad_token",
        /// No resource has this address.
        NotFound = "not_found",
        /// The resource does not support this method.
        MethodNotAllowed = "method_not_allowed",
        /// `content-encoding` is neither gzip nor identity.
        UnsupportedEncoding = "unsupported_encoding",
        /// The request conflicts with the current state: a sink that is in use cannot be retired.
        Conflict = "conflict",
        /// The body as sent exceeds `body_bytes`.
        BodyTooLarge = "body_too_large",
        /// The body after decompression exceeds `decompressed_bytes`.
        DecompressedTooLarge = "decompressed_too_large",
        /// The batch has more events than `events_per_batch`.
        TooManyEvents = "too_many_events",
        /// Too many requests; retry after the time in `Retry-After`.
        TooManyRequests = "too_many_requests",
        /// The collector cannot store now; retry after the time in `Retry-After`.
        Unavailable = "unavailable",
    }
}

impl ProblemCode {
    /// Returns the HTTP status and the title.
    #[must_use]
    pub fn status_and_title(self) -> (u16, &'static str) {
        match self {
            ProblemCode::MalformedJson => (400, "The body is not a batch"),
            ProblemCode::MalformedGzip => (400, "The body is not gzip"),
            ProblemCode::MissingField => (400, "A field is missing"),
            ProblemCode::InvalidField => (400, "A field is wrong"),
            ProblemCode::UnsupportedVersion => (400, "Unknown version"),
            ProblemCode::NoEvents => (400, "No events"),
            ProblemCode::InvalidParameter => (400, "A parameter is wrong"),
            ProblemCode::NoKey => (401, "No app key"),
            ProblemCode::UnknownKey => (401, "Unknown app key"),
            ProblemCode::BadSignature => (401, "Bad signature"),
            ProblemCode::BadToken => (401, "Bad token"),
            ProblemCode::NotFound => (404, "Not found"),
            ProblemCode::MethodNotAllowed => (405, "Method not allowed"),
            ProblemCode::UnsupportedEncoding => (415, "Unsupported content-encoding"),
            ProblemCode::Conflict => (409, "This cannot be done as things are"),
            ProblemCode::BodyTooLarge => (413, "Body too large"),
            ProblemCode::DecompressedTooLarge => (413, "Body too large after decompression"),
            ProblemCode::TooManyEvents => (413, "Too many events"),
            ProblemCode::TooManyRequests => (429, "Too many requests"),
            ProblemCode::Unavailable => (503, "Unavailable"),
        }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.status_and_title().0
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
        let (code, (status, title)) = (self.code.as_str(), self.code.status_and_title());
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
