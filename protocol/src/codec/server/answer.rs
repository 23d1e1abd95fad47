//! What the collector answers: a receipt, or an RFC 9457 problem.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde::{Serializer, ser::SerializeStruct};

use crate::Id;
use crate::outcome::{Got, Violation, truncate};

/// Longest detail and longest field of a problem, bytes. Both may quote what came, which may be all of a body; an answer
/// stays small whatever was asked.
const DETAIL_BYTES: usize = 1024;
const FIELD_BYTES: usize = 256;

/// What became of each event of one batch.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// Which batch.
    #[serde(serialize_with = "id_text")]
    pub batch_id: Id,
    /// The collector's clock, milliseconds since the epoch.
    pub server_time: i64,
    /// How many were stored.
    pub stored: u64,
    /// Which had been seen before, by index.
    pub duplicate: Vec<u64>,
    /// Which were rejected.
    pub rejected: Vec<Rejection>,
}

fn id_text<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.text())
}

/// One rejected event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which event, by index.
    pub index: u64,
    /// Its identity, if it could be read.
    pub id: Option<Id>,
    /// The rule it breaks.
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
            Some(Got::Number(number)) => map.serialize_entry("got", number)?,
            Some(Got::Text(text)) => map.serialize_entry("got", text)?,
            None => {}
        }
        map.end()
    }
}

/// Why a whole request was refused. The wire form is the snake_case name; the status goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemCode {
    /// The body is not JSON, or not an object.
    MalformedJson,
    /// The body claims to be gzip and is not, or is cut short.
    MalformedGzip,
    /// The envelope lacks a field.
    MissingField,
    /// A field of the envelope has the wrong type, form or size.
    InvalidField,
    /// `v` is a version this collector does not speak.
    UnsupportedVersion,
    /// `events` is empty.
    NoEvents,
    /// A parameter of a query is missing or wrong.
    InvalidParameter,
    /// The request names no key.
    NoKey,
    /// No app has this key.
    UnknownKey,
    /// The app demands signatures, and this one is absent, wrong, too old or used before.
    BadSignature,
    /// The bearer token is absent or wrong.
    BadToken,
    /// Nothing is at this address.
    NotFound,
    /// The address does not take this method.
    MethodNotAllowed,
    /// `content-encoding` is neither gzip nor identity.
    UnsupportedEncoding,
    /// What is asked for does not go with how things are: a sink that is in use cannot be retired.
    Conflict,
    /// The body as sent exceeds `body_bytes`.
    BodyTooLarge,
    /// The body after decompression exceeds `decompressed_bytes`.
    DecompressedTooLarge,
    /// The batch has more events than `events_per_batch`.
    TooManyEvents,
    /// Too many requests; try again after the time in `Retry-After`.
    TooManyRequests,
    /// The collector cannot store now; try again after the time in `Retry-After`.
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

    /// The wire form, the HTTP status and the title.
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

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.parts().1
    }
}

/// A refusal of a whole request, serialised as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub code: ProblemCode,
    /// What happened, for a developer's eyes.
    pub detail: String,
    /// Where: a field, a place in the JSON, a parameter.
    pub field: Option<String>,
    /// The limit that was exceeded.
    pub limit: Option<u64>,
    /// What came.
    pub got: Option<Got>,
    /// Seconds after which it is worth trying again, if known. Travels in the header `Retry-After`, not in the document.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A refusal without a place.
    #[must_use]
    pub fn new(code: ProblemCode, mut detail: String) -> Self {
        detail.truncate(truncate(&detail, DETAIL_BYTES).len());
        Self { code, detail, field: None, limit: None, got: None, retry_after: None }
    }

    /// The same, at `field`.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(truncate(field, FIELD_BYTES).to_owned());
        self
    }

    /// The same, with the limit and what came.
    #[must_use]
    pub fn limit(mut self, limit: u64, got: Got) -> Self {
        self.limit = Some(limit);
        self.got = Some(got);
        self
    }

    /// A rule broken by the envelope.
    #[must_use]
    pub fn from_violation(violation: &Violation) -> Self {
        let at = Self::new(ProblemCode::InvalidField, violation.describe()).at(&violation.field);
        Self { limit: violation.limit, got: violation.got.clone(), ..at }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (code, status, title) = self.code.parts();
        let mut out = serializer.serialize_struct("Problem", 8)?;
        out.serialize_field("type", &format!("urn:subway:problem:{code}"))?;
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
            Some(Got::Number(number)) => out.serialize_field("got", number)?,
            Some(Got::Text(text)) => out.serialize_field("got", text)?,
            None => {}
        }
        out.end()
    }
}
