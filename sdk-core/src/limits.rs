//! Every limit of the client, with its unit and its reason. The limits of the wire are in [`subway_protocol::limits`].

/// Events in one batch. Enough for gzip to find repetitions; small enough that a lost request costs little.
pub const MAX_BATCH_EVENTS: usize = 100;
/// JSON text of one batch's events, bytes. A quarter of the collector's `body_bytes`, before compression.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Events in the queue.
pub const MAX_QUEUED_EVENTS: usize = 10_000;
/// Bytes in the queue: events, contexts and frozen batches. The binding of a mini-program sets less, because its host
/// gives 10 MB in all.
pub const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;
/// Overhead of a record beside its value, bytes: its key, and an event's number in its batch's record.
pub const RECORD_BYTES: usize = 40;
/// Events in memory until the user has decided about consent; the oldest are dropped first.
pub const MAX_CONSENT_PENDING_EVENTS: usize = 200;
/// Bytes of these events with their contexts. 200 large events with as large common properties would be 13 MB.
pub const MAX_CONSENT_PENDING_BYTES: usize = 1024 * 1024;
/// Running timers; the oldest is removed first. More of them are a sign of timers that are never stopped.
pub const MAX_TIMERS: usize = 64;
/// Diagnostics kept until they are fetched; the oldest are removed first.
pub const MAX_DIAGNOSTICS: usize = 16;
/// Different diagnostics that are reported once each; further ones are discarded. Bounds the memory for their texts.
pub const MAX_UNIQUE_DIAGNOSTICS: usize = 64;
/// Texts that the SDK collects itself (page path, title, referrer, device model, ..) are truncated to this many bytes,
/// the wire's limit, because the developer cannot fix an error about them.
pub const TEXT_BYTES: usize = subway_protocol::limits::TEXT_BYTES as usize;
/// Time after which an upload without a response has failed, milliseconds: some hosts never call back.
pub const UPLOAD_TIMEOUT_MS: u64 = 60_000;
/// Window of the first retry, milliseconds. It doubles with each further failure.
pub const RETRY_BASE_MS: u64 = 1_000;
/// Longest retry window, milliseconds, unless the collector asks for more.
pub const RETRY_CAP_MS: u64 = 5 * 60_000;
/// First delay after 401 or 403, milliseconds. A wrong key is not corrected within seconds.
pub const AUTH_RETRY_BASE_MS: u64 = 60_000;
/// Longest delay after 401 or 403, milliseconds.
pub const AUTH_RETRY_CAP_MS: u64 = 60 * 60_000;
/// Longest `Retry-After` that is obeyed, milliseconds. A faulty header must not silence a client for days.
pub const RETRY_AFTER_CAP_MS: u64 = 60 * 60_000;
/// First delay before a failing store is retried, milliseconds. It doubles with each further failure.
pub const STORE_RETRY_MS: u64 = 5_000;
/// Longest delay before a failing store is retried, milliseconds.
pub const STORE_RETRY_CAP_MS: u64 = 5 * 60_000;
/// Delay before an event is retried that an intermediary refuses as too large, milliseconds.
pub const INTERMEDIARY_RETRY_MS: u64 = 5 * 60_000;
/// Shortest time between two diagnostics about a failing store, milliseconds: a store does not recover by the second.
pub const STORE_DIAGNOSTIC_INTERVAL_MS: u64 = 60 * 60_000;
/// Batches that cannot be read now. At this number no further ones are formed: they would not help, and frozen events
/// cannot be evicted.
pub const MAX_UNREADABLE_BATCHES: usize = 8;
/// Smallest lead of the wall clock over the monotonic one that counts as sleep, milliseconds. Corrections by network
/// time are smaller, and the average wait of this client is longer.
pub const MIN_SLEEP_MS: i64 = 60_000;
/// Largest lead that counts as sleep, milliseconds: two weeks. Beyond it the wall clock was set.
pub const MAX_SLEEP_MS: i64 = 14 * 24 * 60 * 60_000;
