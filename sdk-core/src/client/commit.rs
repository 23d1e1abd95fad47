//! Commits changes to the store and freezes batches.

use super::Client;
use crate::queue::{Batch, QueuedEvent};
use crate::store::{Key, Store, StoreError};
use crate::{Consent, Now, limits};

impl<S: Store> Client<S> {
    /// Commits all changes at once, unless the store failed recently. Returns whether everything is stored.
    ///
    /// A host calls this when it may be killed soon; otherwise [`Client::poll_task`] commits in time. Changes that are
    /// not stored stay in memory within the limits of the queue. The commit is retried later, and meanwhile events are
    /// sent from memory.
    pub fn commit(&mut self, now: Now) -> bool {
        let now = self.clock.read(now);
        self.commit_changes(now)
    }

    /// Commits all changes; `now` is by the client's clock.
    pub(super) fn commit_changes(&mut self, now: Now) -> bool {
        if self.write_buffer.due().is_none() {
            return true;
        }
        if self.consent == Consent::Unknown && !self.wiped {
            // Nothing may be written without consent. Events settled meanwhile are deleted later, or sent again.
            return true;
        }
        if self.write_buffer.is_blocked(now.mono) {
            return false;
        }
        let salt = self.random.next_u64();
        let state = self.encode_state(salt, &self.common);
        let small = if self.common.is_empty() { None } else { Some(self.encode_state(salt, &[])) };
        let result = self.write_buffer.commit(&mut self.store, &state, small.as_deref(), now.mono);
        result.map_err(|error| self.report_store_error(now, &error)).is_ok()
    }

    /// Adds a diagnostic about a failing store, at most one in [`limits::STORE_DIAGNOSTIC_INTERVAL_MS`].
    pub(super) fn report_store_error(&mut self, now: Now, error: &StoreError) {
        if self.store_reported_at.is_none_or(|at| now.mono.saturating_sub(at) >= limits::STORE_DIAGNOSTIC_INTERVAL_MS) {
            self.store_reported_at = Some(now.mono);
            self.diagnostic(error.to_string());
        }
    }

    /// Freezes events into a new batch. The caller has taken them out of the queue.
    pub(super) fn freeze(&mut self, events: Vec<QueuedEvent>, first_sent_at: i64, now: Now) {
        let id = self.random.id(now.wall);
        let batch = Batch { number: self.next_batch, id, first_sent_at, events, unreadable: 0, retry_at: 0 };
        self.next_batch += 1;
        self.write_buffer.put(Key::Batch(batch.number), batch.encode());
        self.queue.freeze(batch);
    }

    /// Removes settled events from the queue and the store.
    pub(super) fn release(&mut self, events: &[QueuedEvent]) {
        self.queue.release(events);
        for event in events {
            self.write_buffer.delete(Key::Event(event.seq));
        }
        self.delete_unused_contexts();
    }
}
