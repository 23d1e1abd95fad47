//! Every cap of the client, with its unit and its reason. The limits of the wire are in [`subway_protocol::limits`].

/// Events in one batch. Enough for gzip to find repetitions; small enough that a lost request costs little.
pub const BATCH_EVENTS: usize = 100;
/// JSON text of one batch's events, bytes. A quarter of the collector's `body_bytes`, before compression.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Events kept while offline.
pub const QUEUE_ROWS: usize = 10_000;
/// Bytes kept while offline: events, what surrounded them, and frozen batches. A mini-program's face sets less: its host gives 10 MB in all.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// What a record costs beside its value, bytes: its key, and an event's number in its batch's record.
pub const RECORD_BYTES: usize = 40;
/// Events held in memory until the user has decided about consent; the oldest go first.
pub const HELD_EVENTS: usize = 200;
/// Their bytes, with what surrounded them. 200 large events with as large common properties would be 13 MB.
pub const HELD_BYTES: usize = 1024 * 1024;
/// Timers running at once; the oldest goes first. More are a sign of timers that are never ended.
pub const TIMERS: usize = 64;
/// Messages for the developer kept until they are fetched; the oldest go first.
pub const NOTICES: usize = 16;
/// Messages that are given once each; further ones of their kind are not given. Bounds what is remembered of them.
pub const ONCE_NOTICES: usize = 64;
/// Texts that the SDK collects itself (page path, title, referrer, device model, ..) are cut to this many bytes, the
/// wire's limit, because the developer could do nothing about an error.
pub const TEXT_BYTES: usize = subway_protocol::limits::TEXT_BYTES as usize;
/// An upload without an answer counts as failed after this time, milliseconds: some hosts never call back.
pub const UPLOAD_TIMEOUT_MS: u64 = 60_000;
/// First retry comes within this time, milliseconds; each further one may wait twice as long.
pub const RETRY_BASE_MS: u64 = 1_000;
/// No retry waits longer than this, milliseconds, unless the collector says so.
pub const RETRY_CAP_MS: u64 = 5 * 60_000;
/// After 401 or 403: the wait begins here, milliseconds. A wrong key is not mended within seconds.
pub const DENIED_BASE_MS: u64 = 60_000;
/// After 401 or 403: the longest wait, milliseconds.
pub const DENIED_CAP_MS: u64 = 60 * 60_000;
/// The longest `Retry-After` obeyed, milliseconds. A faulty header must not silence a client for days.
pub const RETRY_AFTER_CAP_MS: u64 = 60 * 60_000;
/// A failing store is tried again after this time, milliseconds; each further time twice as late.
pub const STORE_RETRY_MS: u64 = 5_000;
/// The longest wait before a failing store is tried again, milliseconds.
pub const STORE_RETRY_CAP_MS: u64 = 5 * 60_000;
/// An event that somebody on the way to the collector finds too large is tried again after this time, milliseconds.
pub const REFUSED_RETRY_MS: u64 = 5 * 60_000;
/// The developer hears of a failing store at most once in this time, milliseconds: it does not mend itself by the second.
pub const STORE_NOTICE_MS: u64 = 60 * 60_000;
/// Batches that cannot be read for the moment; with so many no further ones are formed, because forming more would not
/// help and frozen events cannot be dropped to make room.
pub const UNREADABLE_BATCHES: usize = 8;
/// The wall clock has to be ahead of the monotonic one by so much to say that the latter stood still, milliseconds.
/// Corrections by network time are smaller, and no wait of this client is shorter than that on average.
pub const STANDSTILL_MS: i64 = 60_000;
/// A larger step forward of the wall clock is no sleep but a clock that was set, milliseconds: two weeks.
pub const LONGEST_SLEEP_MS: i64 = 14 * 24 * 60 * 60_000;
