//! Changes that the store has not been told yet. They are told together, all or nothing.

use crate::store::{Key, Store, StoreError, Write};

/// Changes in order, and when they must be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    writes: Vec<(Key, Option<String>)>,
    /// When to commit (monotonic); `None` if nothing changed.
    due: Option<u64>,
    /// After a failure: not before this time (monotonic).
    blocked_until: u64,
}

impl Pending {
    pub(super) fn put(&mut self, key: Key, value: String) {
        self.writes.push((key, Some(value)));
    }

    /// Forgets a record. A value that the store never saw is not mentioned at all, so that a failing store cannot make
    /// this list grow for ever.
    pub(super) fn delete(&mut self, key: Key) {
        match self.writes.iter().rposition(|(other, value)| *other == key && value.is_some()) {
            Some(at) => {
                self.writes.remove(at);
            }
            None => self.writes.push((key, None)),
        }
    }

    /// Sees to it that a commit happens by `due`.
    pub(super) fn touch(&mut self, due: u64) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When the next commit is to be tried.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.map(|due| due.max(self.blocked_until))
    }

    pub(super) fn blocked_until(&self) -> u64 {
        if self.due.is_some() { self.blocked_until } else { 0 }
    }

    /// Makes further commits wait: the store has just failed.
    pub(super) fn block(&mut self, until: u64) {
        self.blocked_until = until;
        self.touch(until);
    }

    /// Forgets every value; what is to be deleted stays so.
    pub(super) fn forget_values(&mut self) {
        for (_, value) in &mut self.writes {
            *value = None;
        }
    }

    /// Tells the store everything, `state` last.
    pub(super) fn commit(&mut self, store: &mut impl Store, state: &str) -> Result<(), StoreError> {
        let mut writes: Vec<Write<'_>> =
            self.writes.iter().map(|(key, value)| Write { key: *key, value: value.as_deref() }).collect();
        writes.push(Write { key: Key::State, value: Some(state) });
        store.apply(&writes)?;
        self.writes.clear();
        self.due = None;
        self.blocked_until = 0;
        Ok(())
    }
}
