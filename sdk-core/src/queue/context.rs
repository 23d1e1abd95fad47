//! Contexts (app, device, common properties) that events were recorded in. Each text is kept once, as long as an event
//! refers to it.

use crate::limits;

#[derive(Clone, Debug)]
struct Context {
    number: u64,
    text: String,
    references: usize,
    /// Stored, or part of the next commit.
    stored: bool,
}

impl Context {
    fn bytes(&self) -> usize {
        self.text.len() + limits::RECORD_BYTES
    }
}

/// Contexts with references, and the current one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contexts {
    /// By number, rising. Those without references are about to be removed, or current.
    list: Vec<Context>,
    /// Bytes of contexts with references.
    bytes: usize,
    next: u64,
    /// Number of the current context; 0 for none.
    current: u64,
    /// Contexts that lost their last reference since [`Contexts::take_unused`].
    unused: Vec<u64>,
}

impl Contexts {
    /// Restores the contexts of the store, in order of numbers. Those without a reference at the next
    /// [`Contexts::take_unused`] are removed.
    ///
    /// `named` is the highest number that an event names. The store may have lost that context, and its number must not
    /// be reused.
    pub(crate) fn restore(&mut self, saved: Vec<(u64, String)>, named: u64) {
        self.next = saved.last().map_or(0, |(number, _)| *number).max(named);
        self.unused = saved.iter().map(|(number, _)| *number).collect();
        self.list =
            saved.into_iter().map(|(number, text)| Context { number, text, references: 0, stored: true }).collect();
    }

    /// Makes `text` the current context and returns its number.
    pub(crate) fn intern(&mut self, text: &str) -> u64 {
        if let Some(last) = self.list.last()
            && last.text == text
        {
            self.current = last.number;
            return last.number;
        }
        self.next += 1;
        let old = std::mem::replace(&mut self.current, self.next);
        if self.find(old).is_some_and(|at| self.list[at].references == 0) {
            self.unused.push(old);
        }
        self.list.push(Context { number: self.next, text: text.to_owned(), references: 0, stored: false });
        self.next
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by(|context| context.number.cmp(&number)).ok()
    }

    /// Returns the text of a context; `None` if the store has lost it.
    #[must_use]
    pub(crate) fn text(&self, number: u64) -> Option<&str> {
        self.find(number).map(|at| self.list[at].text.as_str())
    }

    /// Returns the bytes of contexts with references.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the bytes that one more reference costs: 0 if the context is referenced already.
    #[must_use]
    pub(crate) fn cost(&self, number: u64) -> usize {
        self.find(number).filter(|at| self.list[*at].references == 0).map_or(0, |at| self.list[at].bytes())
    }

    /// Adds a reference.
    pub(crate) fn acquire(&mut self, number: u64) {
        let Some(at) = self.find(number) else { return };
        let context = &mut self.list[at];
        context.references += 1;
        if context.references == 1 {
            self.bytes += context.bytes();
            self.unused.retain(|other| *other != number);
        }
    }

    /// Returns the text of a context that is not stored yet, and marks it as stored.
    pub(crate) fn take_unstored(&mut self, number: u64) -> Option<String> {
        let at = self.find(number)?;
        let context = &mut self.list[at];
        (!std::mem::replace(&mut context.stored, true)).then(|| context.text.clone())
    }

    /// Removes a reference.
    pub(crate) fn release(&mut self, number: u64) {
        let Some(at) = self.find(number) else { return };
        let context = &mut self.list[at];
        context.references = context.references.saturating_sub(1);
        if context.references == 0 {
            self.bytes -= context.bytes();
            self.unused.push(number);
        }
    }

    /// Removes contexts without references and returns the numbers to delete from the store.
    pub(crate) fn take_unused(&mut self) -> Vec<u64> {
        let mut stored = Vec::new();
        for number in std::mem::take(&mut self.unused) {
            let Some(at) = self.find(number) else { continue };
            if std::mem::take(&mut self.list[at].stored) {
                stored.push(number);
            }
            if number != self.current {
                self.list.remove(at);
            }
        }
        stored
    }

    /// Removes all contexts and returns the numbers of those in the store.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        let stored = self.list.iter().filter(|context| context.stored).map(|context| context.number).collect();
        *self = Self { next: self.next, ..Self::default() };
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_as_long_as_it_is_used() {
        let mut contexts = Contexts::default();
        let a = contexts.intern("aaa");
        assert_eq!((contexts.intern("aaa"), contexts.bytes()), (a, 0), "the same text is the same context");
        contexts.acquire(a);
        contexts.acquire(a);
        assert_eq!((contexts.take_unstored(a).as_deref(), contexts.take_unstored(a)), (Some("aaa"), None), "told once");
        let b = contexts.intern("b");
        assert_eq!((contexts.bytes(), contexts.cost(a)), (3 + limits::RECORD_BYTES, 0));
        assert_eq!(contexts.cost(b), 1 + limits::RECORD_BYTES);
        contexts.release(a);
        assert_eq!(contexts.take_unused(), [0u64; 0]);
        contexts.release(a);
        assert_eq!((contexts.take_unused(), contexts.bytes()), (vec![a], 0));
        assert_eq!((contexts.text(a), contexts.text(b)), (None, Some("b")));
    }

    #[test]
    fn the_current_context_outlives_its_last_use_in_memory_only() {
        let mut contexts = Contexts::default();
        let a = contexts.intern("a");
        contexts.acquire(a);
        contexts.take_unstored(a);
        contexts.release(a);
        assert_eq!(contexts.take_unused(), [a], "the store forgets it");
        assert_eq!(contexts.text(a), Some("a"));
        contexts.acquire(a);
        assert!(contexts.take_unstored(a).is_some(), "and is told again");
    }

    #[test]
    fn contexts_without_references_leave_no_trace() {
        let mut contexts = Contexts::default();
        for n in 0..100 {
            contexts.intern(&n.to_string());
            assert_eq!(contexts.take_unused(), [0u64; 0]);
        }
        assert_eq!((contexts.list.len(), contexts.bytes()), (1, 0));
    }

    #[test]
    fn what_no_event_of_the_store_uses_is_forgotten() {
        let mut contexts = Contexts::default();
        contexts.restore(vec![(3, "a".into()), (7, "b".into())], 9);
        contexts.acquire(7);
        assert_eq!(contexts.take_unused(), [3]);
        assert_eq!(contexts.intern("c"), 10, "a number that was lost is not given again");
    }
}
