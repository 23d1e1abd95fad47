//! Every limit of the wire, with its unit and its reason. `docs/protocol.md` lists the same; a test compares them.
//!
//! The constants are the defaults. The collector may be configured to others (section `[limits]`, the same names); the
//! SDK checks events against the defaults before it queues them, so that a developer hears of a mistake at once.

/// Body as sent, bytes. One request must not hold a connection or a buffer for long: at 1 MiB a slow phone needs seconds.
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
/// Any single text of `app`, `sdk`, `host`, `device` and `network`, bytes; longer ones are cut. Every event of a batch gets a
/// copy of all fourteen, so together they stay far below an event.
pub const CONTEXT_TEXT_BYTES: u64 = 256;
/// An event code, bytes; part of its grammar (see [`crate::theme::is_code`]).
pub const CODE_BYTES: usize = 128;
/// Device clocks that differ from the collector's by no more than this are believed, milliseconds. Network delay and
/// honest drift stay within it.
pub const CLOCK_TOLERANCE_MS: i64 = 5 * 60 * 1000;
/// How far in the future of its arrival an event may be, milliseconds: clocks that run ahead, and time zones mistaken for UTC.
pub const FUTURE_MS: i64 = 24 * 60 * 60 * 1000;
/// How long before its arrival an event may have happened, days; a setting of each app. Histories are imported; what is older
/// than 20 years is a mistake of units.
pub const PAST_DAYS: u64 = 7_300;
/// How old a signature may be, milliseconds: long enough for a slow upload, short enough to remember all that were seen.
pub const SIGNATURE_AGE_MS: i64 = 5 * 60 * 1000;
/// The latest time an event may carry, milliseconds since the epoch: the end of the year 9999, the last that RFC 3339
/// can write. The earliest is 0.
pub const MAX_TIME_MS: i64 = 253_402_300_799_999;
/// The largest integer that every JSON reader keeps exactly (2^53 - 1): the limit of a sequence number.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The limits in force. `Default` gives the constants of this module.
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
