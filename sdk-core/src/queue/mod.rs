//! The queue: an index of the events in the store, with order, priority and limits. The events' bodies are in the
//! store.

mod backoff;
mod batch;
mod context;

pub(crate) use backoff::Backoff;
pub(crate) use batch::{Batch, PersistedBatch};
pub(crate) use context::Contexts;
use subway_protocol::Theme;

use crate::{Config, limits};

/// Priority of an event when the queue is full.
///
/// The oldest event of the lowest priority is evicted first, and never in favour of an event of lower priority. Frozen
/// batches are never evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Useful in bulk: exposure, performance, network.
    Low,
    /// User behaviour: view, click, share, lifecycle, custom.
    Normal,
    /// Must not be lost: order, error, profile.
    High,
}

impl Priority {
    const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    /// Returns the priority of a theme.
    #[must_use]
    pub(crate) fn of(theme: Theme) -> Self {
        match theme {
            Theme::Exposure | Theme::Performance | Theme::Network => Priority::Low,
            Theme::View | Theme::Click | Theme::Share | Theme::Lifecycle | Theme::Custom => Priority::Normal,
            Theme::Order | Theme::Error | Theme::Profile => Priority::High,
        }
    }

    /// Returns the digit that encodes the priority in the store.
    #[must_use]
    pub(crate) fn digit(self) -> u8 {
        b'0' + self as u8
    }

    /// Returns the priority with this digit.
    #[must_use]
    pub(crate) fn from_digit(digit: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.digit() == digit)
    }
}

/// Index entry of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuedEvent {
    /// Sequence number, which is its key in the store.
    pub seq: u64,
    /// Number of the context it was recorded in.
    pub context: u64,
    /// Size as JSON text, bytes.
    pub bytes: usize,
}

impl QueuedEvent {
    /// Returns its size in the store.
    fn cost(&self) -> usize {
        self.bytes + limits::RECORD_BYTES
    }
}

/// Range of frozen events, kept in the state record.
///
/// The state is small and part of every commit. So a batch whose own record was refused or lost still leaves a trace:
/// the collector may have its events, and they must not be dropped as if they had never been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrozenRange {
    /// Last event in a batch. Earlier ones are in a batch too, or settled.
    pub to: u64,
    /// First upload of the oldest batch, milliseconds since the epoch (device clock).
    pub since: i64,
}

/// Index of all queued events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Events in no batch, by priority, each ordered by sequence number.
    unbatched: [Vec<QueuedEvent>; 3],
    /// Frozen batches, in sending order.
    batches: Vec<Batch>,
    len: usize,
    /// Bytes of events and batches.
    bytes: usize,
    /// Contexts of the events.
    pub contexts: Contexts,
}

impl Queue {
    /// Returns the number of queued events, frozen or not.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes of the queue in the store: events, contexts and batches.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.contexts.bytes()
    }

    /// Returns the number of events in no batch.
    #[must_use]
    pub(crate) fn unbatched_len(&self) -> usize {
        self.unbatched.iter().map(Vec::len).sum()
    }

    /// Returns the sequence number of the oldest event in no batch.
    #[must_use]
    pub(crate) fn oldest_unbatched_seq(&self) -> Option<u64> {
        self.unbatched.iter().filter_map(|priority| priority.first()).map(|event| event.seq).min()
    }

    /// Appends an event. Sequence numbers must rise.
    pub(crate) fn push(&mut self, priority: Priority, event: QueuedEvent) {
        self.unbatched[priority as usize].push(event);
        self.acquire(&[event]);
    }

    /// Evicts events until one of this priority with `bytes` in `context` fits within the limits, and returns them.
    ///
    /// Returns `None` and evicts nothing if it cannot fit.
    pub(crate) fn evict(
        &mut self,
        priority: Priority,
        bytes: usize,
        context: u64,
        config: &Config,
    ) -> Option<Vec<QueuedEvent>> {
        let incoming = QueuedEvent { seq: 0, context, bytes }.cost();
        let (mut len, mut bytes_left) = (self.len, self.bytes);
        let mut take = [0usize; 3];
        let mut fits = false;
        for (at, take) in take.iter_mut().enumerate().take(priority as usize + 1) {
            loop {
                let needed = bytes_left + incoming + self.contexts.bytes() + self.contexts.cost(context);
                fits = len < config.max_queued_events && needed <= config.max_queued_bytes;
                let Some(event) = self.unbatched[at].get(*take).filter(|_| !fits) else { break };
                *take += 1;
                len -= 1;
                bytes_left -= event.cost();
                self.contexts.release(event.context);
            }
        }
        if !fits {
            for (unbatched, take) in self.unbatched.iter().zip(take) {
                for event in &unbatched[..take] {
                    self.contexts.acquire(event.context);
                }
            }
            return None;
        }
        (self.len, self.bytes) = (len, bytes_left);
        Some(self.unbatched.iter_mut().zip(take).flat_map(|(unbatched, take)| unbatched.drain(..take)).collect())
    }

    /// Takes the events of the next batch: the oldest unbatched ones of one context, in order of sequence, within the
    /// limits.
    ///
    /// At least one if there is any. The caller must give them to [`Queue::freeze`].
    pub(crate) fn take_batch(&mut self, max_events: usize, max_bytes: usize) -> Vec<QueuedEvent> {
        self.take_batch_up_to(u64::MAX, max_events, max_bytes)
    }

    /// Takes the next batch like [`Queue::take_batch`], but no event after the sequence number `to`.
    pub(crate) fn take_batch_up_to(&mut self, to: u64, max_events: usize, max_bytes: usize) -> Vec<QueuedEvent> {
        let mut events: Vec<QueuedEvent> = Vec::new();
        let mut taken = [0; 3];
        let mut bytes = 0;
        while events.len() < max_events.max(1) {
            let mut next: Option<(usize, QueuedEvent)> = None;
            for (priority, unbatched) in self.unbatched.iter().enumerate() {
                if let Some(event) = unbatched.get(taken[priority])
                    && event.seq <= to
                    && next.is_none_or(|(_, other)| event.seq < other.seq)
                {
                    next = Some((priority, *event));
                }
            }
            let Some((priority, event)) = next else { break };
            let fits = |first: &QueuedEvent| first.context == event.context && bytes + event.bytes <= max_bytes;
            if !events.first().is_none_or(fits) {
                break;
            }
            bytes += event.bytes;
            events.push(event);
            taken[priority] += 1;
        }
        for (unbatched, taken) in self.unbatched.iter_mut().zip(taken) {
            unbatched.drain(..taken);
        }
        events
    }

    /// Adds a frozen batch, in order of its first event. Its events must be counted in the totals already.
    pub(crate) fn freeze(&mut self, batch: Batch) {
        let first = batch.first();
        let at = self.batches.iter().position(|other| other.first() > first).unwrap_or(self.batches.len());
        self.bytes += batch.bytes();
        self.batches.insert(at, batch);
    }

    /// Adds events to the totals; the inverse of [`Queue::release`].
    pub(crate) fn acquire(&mut self, events: &[QueuedEvent]) {
        self.len += events.len();
        for event in events {
            self.bytes += event.cost();
            self.contexts.acquire(event.context);
        }
    }

    /// Returns the next batch to send.
    #[must_use]
    pub(crate) fn front(&self, mono: u64) -> Option<&Batch> {
        self.batches.iter().find(|batch| batch.retry_at <= mono)
    }

    /// Returns when a batch can be sent (monotonic).
    #[must_use]
    pub(crate) fn next_retry_at(&self) -> Option<u64> {
        self.batches.iter().map(|batch| batch.retry_at).min()
    }

    /// Returns the sequence number of the oldest event in a batch.
    #[must_use]
    pub(crate) fn oldest_frozen_seq(&self) -> Option<u64> {
        self.batches.first().map(Batch::first)
    }

    /// Returns how far events are frozen; `None` if none is.
    #[must_use]
    pub(crate) fn frozen(&self) -> Option<FrozenRange> {
        let to = self.batches.iter().flat_map(|batch| batch.events.last()).map(|event| event.seq).max()?;
        let since = self.batches.iter().map(|batch| batch.first_sent_at).min()?;
        Some(FrozenRange { to, since })
    }

    /// Returns the sequence numbers of the queued events.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn queued_seqs(&self) -> Vec<u64> {
        let frozen = self.batches.iter().flat_map(|batch| &batch.events);
        self.unbatched.iter().flatten().chain(frozen).map(|event| event.seq).collect()
    }

    /// Finds a batch by its ID.
    pub(crate) fn batch_mut(&mut self, id: crate::Id) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|batch| batch.id == id)
    }

    /// Returns the number of frozen batches.
    #[must_use]
    pub(crate) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Removes a batch. Its events stay in the totals until [`Queue::release`].
    pub(crate) fn remove_batch(&mut self, id: crate::Id) -> Option<Batch> {
        let at = self.batches.iter().position(|batch| batch.id == id)?;
        let batch = self.batches.remove(at);
        self.bytes -= batch.bytes();
        Some(batch)
    }

    /// Removes events from the totals that were taken out before.
    pub(crate) fn release(&mut self, events: &[QueuedEvent]) {
        self.len -= events.len();
        for event in events {
            self.bytes -= event.cost();
            self.contexts.release(event.context);
        }
    }

    /// Removes and returns everything: the unbatched events and the batches.
    pub(crate) fn clear(&mut self) -> (Vec<QueuedEvent>, Vec<Batch>) {
        self.len = 0;
        self.bytes = 0;
        let mut events = Vec::new();
        for priority in &mut self.unbatched {
            events.append(priority);
        }
        (events, std::mem::take(&mut self.batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> QueuedEvent {
        QueuedEvent { seq, context: 0, bytes: 10 }
    }

    fn config(events: usize, bytes: usize) -> Config {
        Config { max_queued_events: events, max_queued_bytes: bytes, ..Config::default() }
    }

    fn seqs(events: &[QueuedEvent]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn the_oldest_of_the_lowest_priority_is_evicted_first() {
        let mut queue = Queue::default();
        queue.push(Priority::High, event(1));
        queue.push(Priority::Normal, event(2));
        queue.push(Priority::Low, event(3));
        queue.push(Priority::Low, event(4));
        assert_eq!(seqs(&queue.evict(Priority::Normal, 10, 0, &config(4, 1000)).unwrap()), [3]);
        let most = 2 * event(0).cost() + 15;
        assert_eq!(seqs(&queue.evict(Priority::Normal, 25, 0, &config(9, most)).unwrap()), [4, 2]);
        assert_eq!((queue.len(), queue.bytes()), (1, event(0).cost()));
    }

    #[test]
    fn a_new_event_never_evicts_one_of_higher_priority() {
        let mut queue = Queue::default();
        queue.push(Priority::High, event(1));
        queue.push(Priority::Normal, event(2));
        assert_eq!(queue.evict(Priority::Low, 10, 0, &config(2, 1000)), None);
        assert_eq!(queue.evict(Priority::Normal, 35, 0, &config(9, 2 * event(0).cost())), None);
        assert_eq!((queue.len(), queue.bytes()), (2, 2 * event(0).cost()), "nothing was taken in vain");
    }

    #[test]
    fn contexts_count_and_are_removed_with_their_last_event() {
        let mut queue = Queue::default();
        let take = |queue: &mut Queue, seq, context: &str| {
            let context = queue.contexts.intern(context);
            let evicted = queue.evict(Priority::Normal, 10, context, &config(99, 1100));
            evicted.map(|evicted| {
                queue.push(Priority::Normal, QueuedEvent { context, ..event(seq) });
                queue.contexts.take_unstored(context);
                (seqs(&evicted), queue.contexts.take_unused().len(), queue.bytes() <= 1100)
            })
        };
        let large = |letter: &str| letter.repeat(400);
        assert_eq!(take(&mut queue, 1, &large("a")), Some((vec![], 0, true)));
        assert_eq!(take(&mut queue, 2, &large("a")), Some((vec![], 0, true)));
        assert_eq!(take(&mut queue, 3, &large("b")), Some((vec![], 0, true)));
        assert_eq!(
            take(&mut queue, 4, &large("c")),
            Some((vec![1, 2], 1, true)),
            "both of its events, and the context"
        );
        let before = queue.bytes();
        assert_eq!(take(&mut queue, 5, &large("d").repeat(3)), None);
        assert_eq!(queue.bytes(), before, "what was tried in vain is as it was");
    }

    #[test]
    fn a_batch_has_one_context_in_order_of_sequence() {
        let mut queue = Queue::default();
        queue.push(Priority::Normal, event(1));
        queue.push(Priority::Low, event(2));
        queue.push(Priority::High, event(3));
        queue.push(Priority::Normal, QueuedEvent { context: 1, ..event(4) });
        assert_eq!(seqs(&queue.take_batch(100, 1000)), [1, 2, 3]);
        assert_eq!(seqs(&queue.take_batch(100, 1000)), [4]);
    }

    #[test]
    fn a_batch_stays_within_its_limits_but_always_has_an_event() {
        let mut queue = Queue::default();
        for seq in 1..=5 {
            queue.push(Priority::Normal, event(seq));
        }
        assert_eq!(seqs(&queue.take_batch(2, 1000)), [1, 2]);
        assert_eq!(seqs(&queue.take_batch(9, 15)), [3]);
        assert_eq!(seqs(&queue.take_batch(9, 1)), [4]);
        assert_eq!(seqs(&queue.take_batch(0, 0)), [5]);
    }
}
