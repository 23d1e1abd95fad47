//! Every limit of the wire, with its unit and its reason. `docs/protocol.md` lists the same; a test compares them.
//!
//! The constants are the defaults. The collector can be configured to others (section `[limits]`, the same names). The
//! SDK checks events against the defaults before it queues them, so that the caller gets the error at once.

/// Body as sent, bytes. Bounds how long one request holds a connection and a buffer: 1 MiB takes seconds on a slow
/// network.
pub const BODY_BYTES: u64 = 1024 * 1024;
/// Body after decompression, bytes. A gzip bomb expands a thousandfold; honest batches expand about tenfold.
pub const DECOMPRESSED_BYTES: u64 = 8 * 1024 * 1024;
/// Events in one batch. Bounds the work of one request and the size of one receipt.
pub const EVENTS_PER_BATCH: u64 = 1000;
/// One event as JSON text, bytes. An event is a fact, not a document: stores refuse or slow down beyond this.
pub const EVENT_BYTES: u64 = 32 * 1024;
/// Members of any one object inside the properties. Stores index by name and have about a thousand names to give.
pub const PROPERTIES: u64 = 256;
/// Nesting of the properties, the outermost object being 1. Deep documents cannot be queried and can exhaust stacks.
pub const DEPTH: u64 = 8;
/// One property name, bytes in UTF-8, its escapes resolved. Names become columns and paths.
pub const KEY_BYTES: u64 = 128;
/// Any single text of an event outside the properties (page path, user ID, ..), bytes. The common limit of a URL.
pub const TEXT_BYTES: u64 = 2048;
/// Any single text of `app`, `sdk`, `host`, `device` and `network`, bytes; longer ones are truncated. Every event of a
/// batch gets a copy of all fourteen, so together they must stay far below the size of an event.
pub const CONTEXT_TEXT_BYTES: u64 = 256;
/// An event code, bytes; part of its grammar (see [`crate::theme::is_code`]).
pub const CODE_BYTES: usize = 128;
/// Largest difference between device clock and collector clock that is not corrected, milliseconds. Network delay and
/// ordinary drift stay within it.
pub const CLOCK_TOLERANCE_MS: i64 = 5 * 60 * 1000;
/// Largest distance of an event into the future of its arrival, milliseconds. Allows for clocks that run ahead, and for
/// time zones mistaken for UTC.
pub const FUTURE_MS: i64 = 24 * 60 * 60 * 1000;
/// Largest age of an event at its arrival, days; a setting of each app. Allows imports of history; an age of more than
/// 20 years is a mistake of units.
pub const PAST_DAYS: u64 = 7_300;
/// Largest age of a signature, milliseconds: long enough for a slow upload, short enough to remember all that were
/// used.
pub const SIGNATURE_AGE_MS: i64 = 5 * 60 * 1000;
/// Latest time that an event can carry, milliseconds since the epoch: the end of the year 9999, the last that RFC 3339
/// can write. The earliest is 0.
pub const MAX_TIME_MS: i64 = 253_402_300_799_999;
/// Largest integer that every JSON reader keeps exactly (2^53 - 1): the limit of a sequence number.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Limits in force. `Default` gives the constants of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`BODY_BYTES`].
    pub body_bytes: u64,
    /// See [`DECOMPRESSED_BYTES`].
    pub decompressed_bytes: u64,
    /// See [`EVENTS_PER_BATCH`].
    pub events_per_batch: u64,
    /// See [`EVENT_BYTES`].
    pub event_bytes: u64,
    /// See [`PROPERTIES`].
    pub properties: u64,
    /// See [`DEPTH`].
    pub depth: u64,
    /// See [`KEY_BYTES`].
    pub key_bytes: u64,
    /// See [`TEXT_BYTES`].
    pub text_bytes: u64,
    /// See [`CONTEXT_TEXT_BYTES`].
    pub context_text_bytes: u64,
    /// See [`FUTURE_MS`].
    pub future_ms: i64,
    /// See [`CLOCK_TOLERANCE_MS`].
    pub clock_tolerance_ms: i64,
    /// See [`SIGNATURE_AGE_MS`].
    pub signature_age_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: BODY_BYTES,
            decompressed_bytes: DECOMPRESSED_BYTES,
            events_per_batch: EVENTS_PER_BATCH,
            event_bytes: EVENT_BYTES,
            properties: PROPERTIES,
            depth: DEPTH,
            key_bytes: KEY_BYTES,
            text_bytes: TEXT_BYTES,
            context_text_bytes: CONTEXT_TEXT_BYTES,
            future_ms: FUTURE_MS,
            clock_tolerance_ms: CLOCK_TOLERANCE_MS,
            signature_age_ms: SIGNATURE_AGE_MS,
        }
    }
}
