//! Changes that the store has not been told yet, and what is done when it refuses them.

use crate::limits;
use crate::store::{Key, Store, StoreError, Write};

/// One change of one record.
#[derive(Debug)]
struct Change {
    key: Key,
    /// The new value; `None` deletes.
    value: Option<String>,
    /// The store holds nothing under this key.
    fresh: bool,
}

impl Change {
    /// Whether something must go from the store, whatever comes in its place.
    fn deletes(&self) -> bool {
        self.value.is_none() || !self.fresh
    }
}

/// Changes in order, and when they must be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Vec<Change>,
    /// When to commit (monotonic); `None` if nothing changed.
    due: Option<u64>,
    /// After a failure: not before this time (monotonic).
    blocked_until: u64,
    /// Failures in a row.
    failures: u32,
    /// The user has withdrawn consent, and the store has not deleted everything yet.
    wipes: bool,
    /// The last of them because the store is full, which no moment changes.
    full: bool,
}

impl Pending {
    fn find(&self, key: Key) -> Option<usize> {
        // The newest are asked for most.
        self.changes.iter().rposition(|change| change.key == key)
    }

    /// A value for a key of which the store holds nothing, unless it is to be deleted just now.
    pub(super) fn put(&mut self, key: Key, value: String) {
        match self.find(key) {
            Some(at) => self.changes[at].value = Some(value),
            None => self.changes.push(Change { key, value: Some(value), fresh: true }),
        }
    }

    /// Forgets a record. A value that the store never saw is not mentioned at all, so that a failing store cannot make
    /// this list grow for ever.
    pub(super) fn delete(&mut self, key: Key) {
        match self.find(key) {
            Some(at) if self.changes[at].fresh => {
                self.changes.remove(at);
            }
            Some(at) => self.changes[at].value = None,
            None => self.changes.push(Change { key, value: None, fresh: false }),
        }
    }

    /// The value that the store has not been told yet.
    pub(super) fn value(&self, key: Key) -> Option<&str> {
        self.find(key).and_then(|at| self.changes[at].value.as_deref())
    }

    /// Sees to it that a commit happens by `due`.
    pub(super) fn touch(&mut self, due: u64) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When the next commit is to be tried.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.map(|due| due.max(self.blocked_until))
    }

    /// Whether the store failed a moment ago.
    pub(super) fn is_blocked(&self, now: u64) -> bool {
        self.blocked_until > now
    }

    /// Whether the store refused what it was told last.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn fails(&self) -> bool {
        self.failures > 1 || self.full
    }

    /// Until when nothing is sent, because a store that failed once may work again in a moment. After a second failure
    /// in a row what waits is sent from memory; at once if the store is full, because a process may live for a moment only.
    pub(super) fn grace(&self) -> u64 {
        if self.failures == 1 && !self.full { self.blocked_until } else { 0 }
    }

    /// The next commit is tried when it is due, whatever failed before: deletions may have made room.
    pub(super) fn unblock(&mut self) {
        self.blocked_until = 0;
    }

    /// Nothing is to be told but deletions; the values were never to be stored.
    pub(super) fn forget_values(&mut self) {
        self.changes.retain(Change::deletes);
        for change in &mut self.changes {
            change.value = None;
        }
        self.wipes = true;
    }

    /// Tells the store everything, `state` last.
    ///
    /// A store that refuses gets less: what is to be deleted, and the state, which counts what has ended, so that no event
    /// ends twice, and no sequence number is given a second time. Both fit into a full store and may make room for the
    /// rest. A state that has grown by common properties may not fit; then it is `small`, the state without them, which
    /// wait in memory until the whole is taken. Only what a withdrawal deletes goes without any state.
    ///
    /// # Errors
    /// What the store said to the whole; some of it may have been taken.
    pub(super) fn commit(
        &mut self,
        store: &mut impl Store,
        state: &str,
        small: Option<&str>,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut result = self.tell_all(store, state);
        if result.is_err() && self.tell_deletions(store, state, small) {
            result = self.tell_all(store, state);
        }
        match &result {
            Ok(()) => *self = Self::default(),
            Err(error) => {
                self.full = error.full;
                let wait = limits::STORE_RETRY_MS << self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                self.blocked_until = now + wait.min(limits::STORE_RETRY_CAP_MS);
                self.touch(now);
            }
        }
        result
    }

    fn tell_all(&self, store: &mut impl Store, state: &str) -> Result<(), StoreError> {
        let writes = self.changes.iter().map(|change| Write { key: change.key, value: change.value.as_deref() });
        store.apply(&writes.chain([Write { key: Key::State, value: Some(state) }]).collect::<Vec<_>>())
    }

    /// `true` if the store was told of deletions.
    fn tell_deletions(&mut self, store: &mut impl Store, state: &str, small: Option<&str>) -> bool {
        let deletions = self.changes.iter().filter(|change| change.deletes());
        let mut writes: Vec<Write<'_>> = deletions.map(|change| Write { key: change.key, value: None }).collect();
        let count = writes.len();
        writes.push(Write { key: Key::State, value: Some(state) });
        let mut done = store.apply(&writes).is_ok();
        if let Some(small) = small.filter(|_| !done && count > 0) {
            writes[count].value = Some(small);
            done = store.apply(&writes).is_ok();
        }
        if !done && count > 0 && self.wipes {
            done = store.apply(&writes[..count]).is_ok();
        }
        if count > 0 && done {
            self.deleted();
        }
        count > 0 && done
    }

    /// The store has deleted what was to be deleted.
    fn deleted(&mut self) {
        self.wipes = false;
        self.changes.retain(|change| change.value.is_some());
        for change in &mut self.changes {
            change.fresh = true;
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
    fn a_record_that_is_replaced_and_then_deleted_leaves_nothing_behind() {
        let (mut store, mut pending) = (MemoryStore::default(), Pending::default());
        pending.put(Key::Batch(1), "a".into());
        pending.commit(&mut store, "s", None, 0).unwrap();
        pending.delete(Key::Batch(1));
        pending.put(Key::Batch(1), "b".into());
        assert_eq!(pending.value(Key::Batch(1)), Some("b"));
        pending.delete(Key::Batch(1));
        pending.commit(&mut store, "s", None, 0).unwrap();
        assert_eq!(keys(&mut store), [Key::State]);
    }

    #[test]
    fn a_full_store_is_told_what_to_delete_and_takes_the_rest_then() {
        let (mut store, mut pending) = (MemoryStore::bounded(200), Pending::default());
        pending.put(Key::Event(1), "x".repeat(100));
        pending.commit(&mut store, "state", None, 0).unwrap();
        pending.put(Key::Event(2), "y".repeat(150));
        assert!(pending.commit(&mut store, "statf", None, 0).unwrap_err().full);
        assert_eq!(store.get(Key::State).unwrap().as_deref(), Some("statf"), "sequence numbers go on");
        assert!(pending.due().is_some_and(|due| due > 0), "it is tried again, later");
        pending.delete(Key::Event(1));
        pending.unblock();
        assert_eq!(pending.commit(&mut store, "statg", None, 1), Ok(()));
        assert_eq!(keys(&mut store), [Key::State, Key::Event(2)]);
    }

    #[test]
    fn what_replaces_a_wiped_record_does_not_keep_it_alive_in_a_full_store() {
        let (mut store, mut pending) = (MemoryStore::bounded(100), Pending::default());
        pending.put(Key::Event(1), "private".into());
        pending.commit(&mut store, "state", None, 0).unwrap();
        pending.delete(Key::Event(1));
        pending.put(Key::Event(1), "z".repeat(100));
        assert!(pending.commit(&mut store, "state", None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
        assert_eq!(pending.value(Key::Event(1)).map(str::len), Some(100), "it waits in memory");
    }

    #[test]
    fn nothing_is_deleted_without_a_state_that_counts_it() {
        let (mut store, mut pending) = (MemoryStore::default(), Pending::default());
        pending.put(Key::Event(1), "event".into());
        pending.commit(&mut store, "state", None, 0).unwrap();
        store.set_bound(store.bytes());
        pending.delete(Key::Event(1));
        let large = "l".repeat(100);
        assert!(pending.commit(&mut store, &large, None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State, Key::Event(1)]);
        assert!(pending.commit(&mut store, &large, Some("small"), 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
        assert_eq!(store.get(Key::State).unwrap().as_deref(), Some("small"));
    }

    #[test]
    fn what_a_withdrawal_wipes_is_deleted_even_without_a_state() {
        let (mut store, mut pending) = (MemoryStore::default(), Pending::default());
        pending.put(Key::Event(1), "private".into());
        pending.commit(&mut store, "state", None, 0).unwrap();
        store.set_bound(store.bytes());
        pending.forget_values();
        pending.delete(Key::Event(1));
        assert!(pending.commit(&mut store, &"l".repeat(100), None, 0).is_err());
        assert_eq!(keys(&mut store), [Key::State]);
    }

    #[test]
    fn a_value_that_a_failing_store_never_saw_is_not_mentioned_again() {
        let (mut store, mut pending) = (MemoryStore::bounded(0), Pending::default());
        for number in 0..100 {
            pending.put(Key::Event(number), "e".into());
            assert!(pending.commit(&mut store, "s", None, u64::MAX / 2).is_err());
            pending.delete(Key::Event(number));
        }
        assert!(pending.changes.is_empty());
    }
}
