//! Settings of a client.

use crate::limits;

/// Settings of one client. `Default` suits a native app; a binding overrides what its host requires.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether nothing is kept or sent until [`crate::Client::set_consent`] grants it.
    pub consent_required: bool,
    /// Most events in the queue.
    pub max_queued_events: usize,
    /// Most bytes in the queue: events, contexts and frozen batches.
    pub max_queued_bytes: usize,
    /// Most events in a batch, at most the wire's `events_per_batch`.
    pub max_batch_events: usize,
    /// Most bytes of events in a batch.
    pub max_batch_bytes: usize,
    /// Number of queued events that are sent without waiting for `flush_interval_ms`.
    pub flush_events: usize,
    /// Longest time that a queued event waits before it is sent, milliseconds.
    pub flush_interval_ms: u64,
    /// Longest time before a recorded event is persisted, milliseconds. 0 persists at the next poll.
    pub persist_delay_ms: u64,
    /// Time in the background after which a new session starts, milliseconds.
    pub session_background_ms: u64,
    /// Time without an event after which the session ends, milliseconds.
    pub session_idle_ms: u64,
    /// Whether the host's monotonic clock may stop while the device sleeps. Then the wall clock is used to detect
    /// sleep.
    pub mono_stops_asleep: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consent_required: false,
            max_queued_events: limits::MAX_QUEUED_EVENTS,
            max_queued_bytes: limits::MAX_QUEUED_BYTES,
            max_batch_events: limits::MAX_BATCH_EVENTS,
            max_batch_bytes: limits::MAX_BATCH_BYTES,
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
    /// Returns the most events in a batch that both this setting and the wire allow.
    pub(crate) fn effective_batch_events(&self) -> usize {
        self.max_batch_events.clamp(1, subway_protocol::limits::EVENTS_PER_BATCH as usize)
    }
}
