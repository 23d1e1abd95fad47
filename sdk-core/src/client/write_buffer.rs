//! Buffer of changes that are not committed yet. A commit writes all of them atomically, or less if the store refuses.

use crate::limits;
use crate::store::{Key, Store, StoreError, StoreWrite};

/// Change of one record.
#[derive(Debug)]
struct Change {
    key: Key,
    /// New value; `None` deletes the record.
    value: Option<String>,
    /// The store has no record under this key.
    is_new: bool,
}

impl Change {
    /// Returns whether a record must be deleted from the store, even if a new value replaces it.
    fn deletes(&self) -> bool {
        self.value.is_none() || !self.is_new
    }
}

/// Ordered buffer of changes, with the time of the next commit.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    changes: Vec<Change>,
    /// Time of the next commit (monotonic); `None` if nothing changed.
    due: Option<u64>,
    /// After a failure: no commit before this time (monotonic).
    blocked_until: u64,
    /// Consecutive failures.
    failures: u32,
    /// Consent was withdrawn, and the deletions are not committed yet.
    wipe_pending: bool,
    /// The last failure was a full store, which waiting does not cure.
    store_full: bool,
}

impl WriteBuffer {
    fn find(&self, key: Key) -> Option<usize> {
        // Searches from the end, because recent changes are looked up most.
        self.changes.iter().rposition(|change| change.key == key)
    }

    /// Queues an insert. The store has no record under this key, or its deletion is queued.
    pub(super) fn put(&mut self, key: Key, value: String) {
        match self.find(key) {
            Some(at) => self.changes[at].value = Some(value),
            None => self.changes.push(Change { key, value: Some(value), is_new: true }),
        }
    }

    /// Queues a delete. If the insert was never committed, both are cancelled, which bounds the buffer while the store
    /// fails.
    pub(super) fn delete(&mut self, key: Key) {
        match self.find(key) {
            Some(at) if self.changes[at].is_new => {
                self.changes.remove(at);
            }
            Some(at) => self.changes[at].value = None,
            None => self.changes.push(Change { key, value: None, is_new: false }),
        }
    }

    /// Returns the value of an uncommitted insert.
    pub(super) fn uncommitted_value(&self, key: Key) -> Option<&str> {
        self.find(key).and_then(|at| self.changes[at].value.as_deref())
    }

    /// Schedules a commit no later than `due`.
    pub(super) fn schedule(&mut self, due: u64) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Returns the time of the next commit attempt.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.map(|due| due.max(self.blocked_until))
    }

    /// Returns whether commits are suspended after a failure.
    pub(super) fn is_blocked(&self, now: u64) -> bool {
        self.blocked_until > now
    }

    /// Returns whether the store refused the last commit.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn fails(&self) -> bool {
        self.failures > 1 || self.store_full
    }

    /// Returns the time before which nothing is sent, to give a store a chance that failed once.
    ///
    /// After a second consecutive failure events are sent from memory. They are sent at once if the store is full,
    /// because the process may end soon.
    pub(super) fn grace_until(&self) -> u64 {
        if self.failures == 1 && !self.store_full { self.blocked_until } else { 0 }
    }

    /// Lifts the suspension, so that the next commit is tried when it is due: deletions may have freed space.
    pub(super) fn unblock(&mut self) {
        self.blocked_until = 0;
    }

    /// Discards all values and keeps the deletions, because consent was withdrawn.
    pub(super) fn discard_values(&mut self) {
        self.changes.retain(Change::deletes);
        for change in &mut self.changes {
            change.value = None;
        }
        self.wipe_pending = true;
    }

    /// Commits all changes to the store, with `state` as the last write.
    ///
    /// If the store refuses, a smaller commit is tried: the deletions and the state. The state counts the settled
    /// events, so that no event is settled twice and no sequence number is reused. Both fit into a full store and can
    /// free space for the rest. A state that grew by common properties may not fit. Then `small` is written, the state
    /// without them; they stay in memory until a full commit succeeds. Only the deletions of a withdrawal are committed
    /// without any state.
    ///
    /// # Errors
    /// The error of the full commit; a smaller one may have succeeded.
    pub(super) fn commit(
        &mut self,
        store: &mut impl Store,
        state: &str,
        small: Option<&str>,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut result = self.write_all(store, state);
        if result.is_err() && self.write_deletions(store, state, small) {
            result = self.write_all(store, state);
        }
        match &result {
            Ok(()) => *self = Self::default(),
            Err(error) => {
                self.store_full = error.is_full();
                let wait = limits::STORE_RETRY_MS << self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                self.blocked_until = now + wait.min(limits::STORE_RETRY_CAP_MS);
                self.schedule(now);
            }
        }
        result
    }

    fn write_all(&self, store: &mut impl Store, state: &str) -> Result<(), StoreError> {
        let writes = self.changes.iter().map(|change| StoreWrite { key: change.key, value: change.value.as_deref() });
        store.apply(&writes.chain([StoreWrite { key: Key::State, value: Some(state) }]).collect::<Vec<_>>())
    }

    /// Commits only deletions and state. Returns whether any deletion was committed.
    fn write_deletions(&mut self, store: &mut impl Store, state: &str, small: Option<&str>) -> bool {
        let deletions = self.changes.iter().filter(|change| change.deletes());
        let mut writes: Vec<StoreWrite<'_>> =
            deletions.map(|change| StoreWrite { key: change.key, value: None }).collect();
        let count = writes.len();
        writes.push(StoreWrite { key: Key::State, value: Some(state) });
        let mut done = store.apply(&writes).is_ok();
        if let Some(small) = small.filter(|_| !done && count > 0) {
            writes[count].value = Some(small);
            done = store.apply(&writes).is_ok();
        }
        if !done && count > 0 && self.wipe_pending {
            done = store.apply(&writes[..count]).is_ok();
        }
        if count > 0 && done {
            self.mark_deleted();
        }
        count > 0 && done
    }

    /// Marks the deletions as committed.
    fn mark_deleted(&mut self) {
        self.wipe_pending = false;
        self.changes.retain(|change| change.value.is_some());
        for change in &mut self.changes {
            change.is_new = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    fn keys(store: &mut MemoryStore) -> Vec<Key> {
        let mut keys = Vec::new();
        store.scan(&mut |key, _| keys.push(key)).unwrap();
        keys
    }

    #[test]
    fn a_record_replaced_and_deleted_leaves_nothing_behind() {
        let (mut store, mut buffer) = (MemoryStore::default(), WriteBuffer::default());
        buffer.put(Key::Batch(1), "a".into());
        buffer.commit(&mut store, "s", None, 0).unwrap();
        buffer.delete(Key::Batch(1));
        buffer.put(Key::Batch(1), "b".into());
        assert_eq!(buffer.uncommitted_value(Key::Batch(1)), Some("b"));
        buffer.delete(Key::Batch(1));
        buffer.commit(&mut store, "s", None, 0).unwrap();
        assert_eq!(keys(&mut store), [Key::State]);
    }

    #[test]
    fn a_full_store_commits_deletions_first_and_the_rest_later() {
        let (mut store, mut buffer) = (MemoryStore::with_max_bytes(200), WriteBuffer::default());
        buffer.put(Key::Event(1), "x".repeat(100));
        buffer.commit(&mut store, "state", None, 0).unwrap();
        buffer.put(Key::Event(2), "y".repeat(150));
        assert!(buffer.commit(&mut store, "statf", None, 0).unwrap_err().is_full());
        assert_eq!(store.get(Key::State).unwrap().as_deref(), Some("statf"), "sequence numbers go on");
        assert!(buffer.due().is_some_and(|due| due > 0), "it is tried again, later");
        buffer.delete(Key::Event(1));
        buffer.unblock();
        assert_eq!(buffer.commit(&mut store, "statg", None, 1), Ok(()));
        assert_eq!(keys(&mut store), [Key::State, Key::Event(2)]);
    }

    #[test]
    fn a_wiped_record_is_deleted_even_if_its_successor_does_not_fit() {
        let (mut store, mut buffer) = (MemoryStore::with_max_bytes(100), WriteBuffer::default());
        buffer.put(Key::Event(1), "private".into());
        buffer.commit(&mut store, "state", None, 0).unwrap();
        buffer.delete(Key::Event(1));
        buffer.put(Key::Event(1), "z".repeat(100));
        assert!(buffer.commit(&mut store, "state", None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
        assert_eq!(buffer.uncommitted_value(Key::Event(1)).map(str::len), Some(100), "it waits in memory");
    }

    #[test]
    fn nothing_is_deleted_without_a_state_that_counts_it() {
        let (mut store, mut buffer) = (MemoryStore::default(), WriteBuffer::default());
        buffer.put(Key::Event(1), "event".into());
        buffer.commit(&mut store, "state", None, 0).unwrap();
        store.set_max_bytes(store.bytes());
        buffer.delete(Key::Event(1));
        let large = "l".repeat(100);
        assert!(buffer.commit(&mut store, &large, None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State, Key::Event(1)]);
        assert!(buffer.commit(&mut store, &large, Some("small"), 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
        assert_eq!(store.get(Key::State).unwrap().as_deref(), Some("small"));
    }

    #[test]
    fn a_withdrawal_is_committed_even_without_a_state() {
        let (mut store, mut buffer) = (MemoryStore::default(), WriteBuffer::default());
        buffer.put(Key::Event(1), "private".into());
        buffer.commit(&mut store, "state", None, 0).unwrap();
        store.set_max_bytes(store.bytes());
        buffer.discard_values();
        buffer.delete(Key::Event(1));
        assert!(buffer.commit(&mut store, &"l".repeat(100), None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
    }

    #[test]
    fn an_uncommitted_value_is_cancelled_by_its_deletion() {
        let (mut store, mut buffer) = (MemoryStore::with_max_bytes(0), WriteBuffer::default());
        for number in 0..100 {
            buffer.put(Key::Event(number), "e".into());
            assert!(buffer.commit(&mut store, "s", None, u64::MAX / 2).is_err());
            buffer.delete(Key::Event(number));
        }
        assert!(buffer.changes.is_empty());
    }
}
