//! What surrounded events when they were recorded (app, device, common properties): each text once, however many events
//! refer to it, and no longer than one does.

use crate::limits;

#[derive(Clone, Debug)]
struct Context {
    number: u64,
    text: String,
    uses: usize,
    /// The store has it, or is about to be told.
    stored: bool,
}

impl Context {
    fn bytes(&self) -> usize {
        self.text.len() + limits::RECORD_BYTES
    }
}

/// The contexts in use, and the current one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contexts {
    /// By number, rising; those without a use are about to go, or the current one.
    list: Vec<Context>,
    /// Bytes of those in use.
    bytes: usize,
    next: u64,
    /// The number of the context that events are recorded in now; 0 for none.
    current: u64,
    /// Those that have lost their last use since [`Contexts::take_unused`].
    unused: Vec<u64>,
}

impl Contexts {
    /// Takes over what the store holds, in order of numbers. What is not used until [`Contexts::take_unused`] goes.
    /// `named` is the highest number that an event names: the store may have lost that context, and no other must get its
    /// number.
    pub(crate) fn restore(&mut self, saved: Vec<(u64, String)>, named: u64) {
        self.next = saved.last().map_or(0, |(number, _)| *number).max(named);
        self.unused = saved.iter().map(|(number, _)| *number).collect();
        self.list = saved.into_iter().map(|(number, text)| Context { number, text, uses: 0, stored: true }).collect();
    }

    /// Makes `text` the current context; gives its number.
    pub(crate) fn enter(&mut self, text: &str) -> u64 {
        if let Some(last) = self.list.last()
            && last.text == text
        {
            self.current = last.number;
            return last.number;
        }
        self.next += 1;
        let old = std::mem::replace(&mut self.current, self.next);
        if self.find(old).is_some_and(|at| self.list[at].uses == 0) {
            self.unused.push(old);
        }
        self.list.push(Context { number: self.next, text: text.to_owned(), uses: 0, stored: false });
        self.next
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by(|context| context.number.cmp(&number)).ok()
    }

    /// The text of a context; `None` if the store has lost it.
    #[must_use]
    pub(crate) fn text(&self, number: u64) -> Option<&str> {
        self.find(number).map(|at| self.list[at].text.as_str())
    }

    /// Bytes of the contexts in use.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a further use of a context costs, bytes: nothing if it is in use already.
    #[must_use]
    pub(crate) fn cost(&self, number: u64) -> usize {
        self.find(number).filter(|at| self.list[*at].uses == 0).map_or(0, |at| self.list[at].bytes())
    }

    /// One more use.
    pub(crate) fn acquire(&mut self, number: u64) {
        let Some(at) = self.find(number) else { return };
        let context = &mut self.list[at];
        context.uses += 1;
        if context.uses == 1 {
            self.bytes += context.bytes();
            self.unused.retain(|other| *other != number);
        }
    }

    /// The text of a context of which the store was not told yet. It counts as told then.
    pub(crate) fn take_untold(&mut self, number: u64) -> Option<String> {
        let at = self.find(number)?;
        let context = &mut self.list[at];
        (!std::mem::replace(&mut context.stored, true)).then(|| context.text.clone())
    }

    /// One use less.
    pub(crate) fn release(&mut self, number: u64) {
        let Some(at) = self.find(number) else { return };
        let context = &mut self.list[at];
        context.uses = context.uses.saturating_sub(1);
        if context.uses == 0 {
            self.bytes -= context.bytes();
            self.unused.push(number);
        }
    }

    /// The numbers of the contexts that lost their last use, for the store to forget.
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

    /// Forgets everything; gives the numbers of what the store has.
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
        let a = contexts.enter("aaa");
        assert_eq!((contexts.enter("aaa"), contexts.bytes()), (a, 0), "the same text is the same context");
        contexts.acquire(a);
        contexts.acquire(a);
        assert_eq!((contexts.take_untold(a).as_deref(), contexts.take_untold(a)), (Some("aaa"), None), "told once");
        let b = contexts.enter("b");
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
        let a = contexts.enter("a");
        contexts.acquire(a);
        contexts.take_untold(a);
        contexts.release(a);
        assert_eq!(contexts.take_unused(), [a], "the store forgets it");
        assert_eq!(contexts.text(a), Some("a"));
        contexts.acquire(a);
        assert!(contexts.take_untold(a).is_some(), "and is told again");
    }

    #[test]
    fn contexts_that_nobody_used_leave_no_trace() {
        let mut contexts = Contexts::default();
        for n in 0..100 {
            contexts.enter(&n.to_string());
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
        assert_eq!(contexts.enter("c"), 10, "a number that was lost is not given again");
    }
}
