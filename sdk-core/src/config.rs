//! What a host may choose.

use crate::limits;

/// Settings of one client. `Default` suits a native app; a face overrides what its host demands.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nothing is kept or sent until [`crate::Client::set_consent`] grants it.
    pub consent_required: bool,
    /// Most events kept while offline.
    pub queue_rows: usize,
    /// Most bytes kept while offline: events, what surrounded them, and frozen batches.
    pub queue_bytes: usize,
    /// Most events in a batch, at most the wire's `events_per_batch`.
    pub batch_events: usize,
    /// Most bytes of events in a batch.
    pub batch_bytes: usize,
    /// So many queued events are sent without waiting for `flush_interval_ms`.
    pub flush_events: usize,
    /// The oldest queued event waits at most so long before it is sent, milliseconds.
    pub flush_interval_ms: u64,
    /// Recorded events are persisted after at most this time, milliseconds. 0 persists at the next poll.
    pub persist_delay_ms: u64,
    /// Coming back after so long in the background begins a new session, milliseconds.
    pub session_background_ms: u64,
    /// So long without an event ends the session, milliseconds.
    pub session_idle_ms: u64,
    /// The host's monotonic clock stands still while the device sleeps, or may do so; the wall clock then tells that time
    /// has passed.
    pub mono_stops_asleep: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consent_required: false,
            queue_rows: limits::QUEUE_ROWS,
            queue_bytes: limits::QUEUE_BYTES,
            batch_events: limits::BATCH_EVENTS,
            batch_bytes: limits::BATCH_BYTES,
            flush_events: 50,
            flush_interval_ms: 10_000,
            persist_delay_ms: 0,
            session_background_ms: 30_000,
            session_idle_ms: 30 * 60_000,
            mono_stops_asleep: false,
        }
    }
}

impl Config {
    /// Most events in a batch that both this and the wire allow.
    pub(crate) fn batch_events(&self) -> usize {
        self.batch_events.clamp(1, subway_protocol::limits::EVENTS_PER_BATCH as usize)
    }
}
