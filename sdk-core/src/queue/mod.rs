//! Which events wait, in which order, within which caps. Bodies are in the store; this is the index of them.

mod backoff;
mod batch;
mod context;

pub(crate) use backoff::Backoff;
pub(crate) use batch::{Batch, SavedBatch};
pub(crate) use context::Contexts;
use subway_protocol::Theme;

use crate::{Config, limits};

/// How much an event matters when the queue is full: the oldest of the least important class goes first, and a new
/// event never pushes out one of a more important class. Frozen batches are never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Measurements that are useful in bulk: exposure, performance, network.
    Bulk,
    /// What people did: view, click, share, lifecycle, custom.
    Usage,
    /// What must not go missing: order, error, profile.
    Vital,
}

impl Class {
    const ALL: [Class; 3] = [Class::Bulk, Class::Usage, Class::Vital];

    /// The class of a theme.
    #[must_use]
    pub(crate) fn of(theme: Theme) -> Self {
        match theme {
            Theme::Exposure | Theme::Performance | Theme::Network => Class::Bulk,
            Theme::View | Theme::Click | Theme::Share | Theme::Lifecycle | Theme::Custom => Class::Usage,
            Theme::Order | Theme::Error | Theme::Profile => Class::Vital,
        }
    }

    /// The digit that stands for the class in the store.
    #[must_use]
    pub(crate) fn digit(self) -> u8 {
        b'0' + self as u8
    }

    /// The reverse of [`Class::digit`].
    #[must_use]
    pub(crate) fn from_digit(digit: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.digit() == digit)
    }
}

/// What the index knows of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its sequence number, which is its key in the store.
    pub seq: u64,
    /// The context it was recorded in.
    pub context: u64,
    /// Its size as JSON text, bytes.
    pub bytes: usize,
}

impl Entry {
    /// What it takes in the store.
    fn cost(&self) -> usize {
        self.bytes + limits::RECORD_BYTES
    }
}

/// How far events are frozen. It stands in the state too, which is small and changes with every commit, so that a batch
/// whose own record is refused or lost still leaves a trace: its events may be with the collector, and are not to be
/// dropped as if they had never been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The last event in a batch; those before it are in one too, or wait no more.
    pub to: u64,
    /// When the batch that is on its way longest was first sent, milliseconds since the epoch (device clock).
    pub since: i64,
}

/// The index of everything that waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Events in no batch yet, by class, each in order of sequence.
    loose: [Vec<Entry>; 3],
    /// Frozen batches, in the order in which they will be sent.
    batches: Vec<Batch>,
    rows: usize,
    /// Of events and batches.
    bytes: usize,
    /// What the events were recorded in.
    pub contexts: Contexts,
}

impl Queue {
    /// Events waiting, frozen or not.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the store is to hold of it: events, contexts and batches.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.contexts.bytes()
    }

    /// Events waiting in no batch.
    #[must_use]
    pub(crate) fn loose_rows(&self) -> usize {
        self.loose.iter().map(Vec::len).sum()
    }

    /// The sequence number of the oldest event in no batch.
    #[must_use]
    pub(crate) fn oldest_loose(&self) -> Option<u64> {
        self.loose.iter().filter_map(|class| class.first()).map(|entry| entry.seq).min()
    }

    /// Adds an event at the end. Sequence numbers must rise.
    pub(crate) fn push(&mut self, class: Class, entry: Entry) {
        self.loose[class as usize].push(entry);
        self.count(&[entry]);
    }

    /// Takes out what must go so that an event of `class` with `bytes` in `context` fits within the caps. `None` if it
    /// does not fit even so; then nothing is taken.
    pub(crate) fn make_room(
        &mut self,
        class: Class,
        bytes: usize,
        context: u64,
        config: &Config,
    ) -> Option<Vec<Entry>> {
        let incoming = Entry { seq: 0, context, bytes }.cost();
        let (mut rows, mut left) = (self.rows, self.bytes);
        let mut take = [0usize; 3];
        let mut fits = false;
        for (at, take) in take.iter_mut().enumerate().take(class as usize + 1) {
            loop {
                let needed = left + incoming + self.contexts.bytes() + self.contexts.cost(context);
                fits = rows < config.queue_rows && needed <= config.queue_bytes;
                let Some(entry) = self.loose[at].get(*take).filter(|_| !fits) else { break };
                *take += 1;
                rows -= 1;
                left -= entry.cost();
                self.contexts.release(entry.context);
            }
        }
        if !fits {
            for (loose, take) in self.loose.iter().zip(take) {
                for entry in &loose[..take] {
                    self.contexts.acquire(entry.context);
                }
            }
            return None;
        }
        (self.rows, self.bytes) = (rows, left);
        Some(self.loose.iter_mut().zip(take).flat_map(|(loose, take)| loose.drain(..take)).collect())
    }

    /// The events of the next batch: the oldest loose ones of one context, in order of sequence, within the limits.
    /// They leave the loose events and must be given back with [`Queue::freeze`]. At least one if any is loose.
    pub(crate) fn gather(&mut self, most_events: usize, most_bytes: usize) -> Vec<Entry> {
        self.gather_to(u64::MAX, most_events, most_bytes)
    }

    /// The same, but none after the sequence number `to`.
    pub(crate) fn gather_to(&mut self, to: u64, most_events: usize, most_bytes: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut taken = [0; 3];
        let mut bytes = 0;
        while entries.len() < most_events.max(1) {
            let mut next: Option<(usize, Entry)> = None;
            for (class, loose) in self.loose.iter().enumerate() {
                if let Some(entry) = loose.get(taken[class])
                    && entry.seq <= to
                    && next.is_none_or(|(_, other)| entry.seq < other.seq)
                {
                    next = Some((class, *entry));
                }
            }
            let Some((class, entry)) = next else { break };
            let fits = |first: &Entry| first.context == entry.context && bytes + entry.bytes <= most_bytes;
            if !entries.first().is_none_or(fits) {
                break;
            }
            bytes += entry.bytes;
            entries.push(entry);
            taken[class] += 1;
        }
        for (loose, taken) in self.loose.iter_mut().zip(taken) {
            loose.drain(..taken);
        }
        entries
    }

    /// Adds a frozen batch, in order of its first event. Its events must be counted already.
    pub(crate) fn freeze(&mut self, batch: Batch) {
        let first = batch.first();
        let at = self.batches.iter().position(|other| other.first() > first).unwrap_or(self.batches.len());
        self.bytes += batch.bytes();
        self.batches.insert(at, batch);
    }

    /// Counts events as waiting. The reverse of [`Queue::forget`].
    pub(crate) fn count(&mut self, entries: &[Entry]) {
        self.rows += entries.len();
        for entry in entries {
            self.bytes += entry.cost();
            self.contexts.acquire(entry.context);
        }
    }

    /// The batch to be sent next.
    #[must_use]
    pub(crate) fn front(&self, mono: u64) -> Option<&Batch> {
        self.batches.iter().find(|batch| batch.retry_at <= mono)
    }

    /// When a batch can be tried (monotonic).
    #[must_use]
    pub(crate) fn next_try(&self) -> Option<u64> {
        self.batches.iter().map(|batch| batch.retry_at).min()
    }

    /// The sequence number of the oldest event in a batch.
    #[must_use]
    pub(crate) fn oldest_frozen(&self) -> Option<u64> {
        self.batches.first().map(Batch::first)
    }

    /// How far events are frozen; `None` if none is.
    #[must_use]
    pub(crate) fn frozen(&self) -> Option<Frozen> {
        let to = self.batches.iter().flat_map(|batch| batch.entries.last()).map(|entry| entry.seq).max()?;
        let since = self.batches.iter().map(|batch| batch.first_sent_at).min()?;
        Some(Frozen { to, since })
    }

    /// The sequence numbers of the events that wait.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn waiting(&self) -> Vec<u64> {
        let frozen = self.batches.iter().flat_map(|batch| &batch.entries);
        self.loose.iter().flatten().chain(frozen).map(|entry| entry.seq).collect()
    }

    /// A batch by its identity.
    pub(crate) fn batch_mut(&mut self, id: crate::Id) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|batch| batch.id == id)
    }

    /// Frozen batches.
    #[must_use]
    pub(crate) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Takes a batch out. Its events still count as waiting until [`Queue::forget`].
    pub(crate) fn thaw(&mut self, id: crate::Id) -> Option<Batch> {
        let at = self.batches.iter().position(|batch| batch.id == id)?;
        let batch = self.batches.remove(at);
        self.bytes -= batch.bytes();
        Some(batch)
    }

    /// These events, taken out before, wait no more.
    pub(crate) fn forget(&mut self, entries: &[Entry]) {
        self.rows -= entries.len();
        for entry in entries {
            self.bytes -= entry.cost();
            self.contexts.release(entry.context);
        }
    }

    /// Takes out everything: the loose events and the batches.
    pub(crate) fn clear(&mut self) -> (Vec<Entry>, Vec<Batch>) {
        self.rows = 0;
        self.bytes = 0;
        let mut entries = Vec::new();
        for class in &mut self.loose {
            entries.append(class);
        }
        (entries, std::mem::take(&mut self.batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry { seq, context: 0, bytes: 10 }
    }

    fn config(rows: usize, bytes: usize) -> Config {
        Config { queue_rows: rows, queue_bytes: bytes, ..Config::default() }
    }

    fn seqs(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn the_oldest_of_the_least_important_class_goes_first() {
        let mut queue = Queue::default();
        queue.push(Class::Vital, entry(1));
        queue.push(Class::Usage, entry(2));
        queue.push(Class::Bulk, entry(3));
        queue.push(Class::Bulk, entry(4));
        assert_eq!(seqs(&queue.make_room(Class::Usage, 10, 0, &config(4, 1000)).unwrap()), [3]);
        let most = 2 * entry(0).cost() + 15;
        assert_eq!(seqs(&queue.make_room(Class::Usage, 25, 0, &config(9, most)).unwrap()), [4, 2]);
        assert_eq!((queue.rows(), queue.bytes()), (1, entry(0).cost()));
    }

    #[test]
    fn a_new_event_never_pushes_out_a_more_important_one() {
        let mut queue = Queue::default();
        queue.push(Class::Vital, entry(1));
        queue.push(Class::Usage, entry(2));
        assert_eq!(queue.make_room(Class::Bulk, 10, 0, &config(2, 1000)), None);
        assert_eq!(queue.make_room(Class::Usage, 35, 0, &config(9, 2 * entry(0).cost())), None);
        assert_eq!((queue.rows(), queue.bytes()), (2, 2 * entry(0).cost()), "nothing was taken in vain");
    }

    #[test]
    fn contexts_count_and_go_with_their_last_event() {
        let mut queue = Queue::default();
        let take = |queue: &mut Queue, seq, context: &str| {
            let context = queue.contexts.enter(context);
            let gone = queue.make_room(Class::Usage, 10, context, &config(99, 1100));
            gone.map(|gone| {
                queue.push(Class::Usage, Entry { context, ..entry(seq) });
                queue.contexts.take_untold(context);
                (seqs(&gone), queue.contexts.take_unused().len(), queue.bytes() <= 1100)
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
        queue.push(Class::Usage, entry(1));
        queue.push(Class::Bulk, entry(2));
        queue.push(Class::Vital, entry(3));
        queue.push(Class::Usage, Entry { context: 1, ..entry(4) });
        assert_eq!(seqs(&queue.gather(100, 1000)), [1, 2, 3]);
        assert_eq!(seqs(&queue.gather(100, 1000)), [4]);
    }

    #[test]
    fn a_batch_stays_within_its_limits_but_always_has_an_event() {
        let mut queue = Queue::default();
        for seq in 1..=5 {
            queue.push(Class::Usage, entry(seq));
        }
        assert_eq!(seqs(&queue.gather(2, 1000)), [1, 2]);
        assert_eq!(seqs(&queue.gather(9, 15)), [3]);
        assert_eq!(seqs(&queue.gather(9, 1)), [4]);
        assert_eq!(seqs(&queue.gather(0, 0)), [5]);
    }
}
