//! Keeping the store in step, and what happens while it fails.

use super::Client;
use crate::queue::{Batch, Entry};
use crate::store::{Key, Store, StoreError};
use crate::{Consent, Now, limits};

impl<S: Store> Client<S> {
    /// Tells the store what changed, at once, unless it failed a moment ago.
    ///
    /// A host calls this when it may be killed soon; otherwise [`Client::poll_task`] does it in time. Returns whether
    /// everything is stored now. What is not waits in memory, within the caps of the queue; it is told again later, and
    /// sent from memory meanwhile.
    pub fn commit(&mut self, now: Now) -> bool {
        let now = self.clock.read(now);
        self.store_changes(now)
    }

    /// The same, `now` by the client's clock.
    pub(super) fn store_changes(&mut self, now: Now) -> bool {
        if self.pending.due().is_none() {
            return true;
        }
        if self.consent == Consent::Unknown && !self.wiped {
            // Nothing may be written. What was acknowledged meanwhile is deleted when it may, or sent again.
            return true;
        }
        if self.pending.is_blocked(now.mono) {
            return false;
        }
        let salt = self.random.next_u64();
        let state = self.encode_state(salt, &self.common);
        let small = if self.common.is_empty() { None } else { Some(self.encode_state(salt, &[])) };
        let result = self.pending.commit(&mut self.store, &state, small.as_deref(), now.mono);
        result.map_err(|error| self.notice_store(now, &error)).is_ok()
    }

    /// The developer hears of a store that fails, but not every few seconds.
    pub(super) fn notice_store(&mut self, now: Now, error: &StoreError) {
        if self.store_told.is_none_or(|told| now.mono.saturating_sub(told) >= limits::STORE_NOTICE_MS) {
            self.store_told = Some(now.mono);
            self.notice(error.describe());
        }
    }

    /// Freezes these events, which were taken out of the queue, into a new batch.
    pub(super) fn freeze(&mut self, entries: Vec<Entry>, first_sent_at: i64, now: Now) {
        let id = self.random.id(now.wall);
        let batch = Batch { number: self.next_batch, id, first_sent_at, entries, unreadable: 0, retry_at: 0 };
        self.next_batch += 1;
        self.pending.put(Key::Batch(batch.number), batch.encode());
        self.queue.freeze(batch);
    }

    /// These events wait no more: the store and the index forget them.
    pub(super) fn forget(&mut self, entries: &[Entry]) {
        self.queue.forget(entries);
        for entry in entries {
            self.pending.delete(Key::Event(entry.seq));
        }
        self.forget_contexts();
    }
}
