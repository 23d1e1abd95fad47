//! A disk that outlives the process, fails briefly or persistently, loses records, and is affected by kills in a
//! commit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use subway_protocol::json::Reader;

use super::Defect;
use crate::Id;
use crate::queue::{Batch, PersistedBatch};
use crate::store::{Key, MemoryStore, Store, StoreError, StoreWrite};

/// Effect of a fault on a following call of [`Store::apply`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InjectedFault {
    #[default]
    None,
    /// Refuses and changes nothing.
    Refuse,
    /// Kills the process before anything is changed.
    KillBefore,
    /// Kills the process after everything is changed.
    KillAfter,
}

/// Contents of the disk, and the history of what the client asked of it.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) store: MemoryStore,
    pub(super) fault: InjectedFault,
    /// Commits that still succeed before the fault, because one call of the client can commit several times.
    pub(super) delay: u64,
    /// Number of consecutive commits that are refused.
    pub(super) repetitions: u64,
    /// Refuses every commit until this is reset.
    pub(super) refuses: bool,
    /// Events whose number is divisible by this cannot be read; 0 for none.
    pub(super) unreadable_every: u64,
    /// The process counts as killed: it reaches the disk no longer.
    pub(super) killed: bool,
    /// Every event that was ever persisted.
    pub(super) persisted: BTreeSet<Id>,
    /// Events on the disk, by number.
    pub(super) present: BTreeMap<u64, Id>,
    /// Events that the client deleted since this list was read.
    pub(super) deleted: Vec<Id>,
    /// A state was accepted since this flag was read.
    pub(super) state_accepted: bool,
    /// Number of accepted commits.
    pub(super) commits: u64,
    /// Events of batches that this run tried to store, accepted or not.
    pub(super) requested: BTreeSet<Id>,
    /// Those of them after which a state was accepted. That state must say that they are in a batch.
    pub(super) recorded: BTreeSet<Id>,
    /// Batches that the medium lost.
    pub(super) lost_batches: BTreeSet<Id>,
    /// Contexts that the medium lost, by number.
    pub(super) lost_contexts: BTreeSet<u64>,
    pub(super) defect: Defect,
    /// Event last seen under each number.
    ids: BTreeMap<u64, Id>,
    applied: u64,
}

impl Contents {
    /// Applies the writes, disregarding faults.
    fn change(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        self.applied += 1;
        let writes: Vec<StoreWrite<'_>> = writes.iter().copied().filter(|write| !self.is_skipped(write)).collect();
        self.store.apply(&writes)?;
        for write in writes {
            let Key::Event(seq) = write.key else { continue };
            if let Some(value) = write.value {
                let id = event_id(value);
                self.persisted.insert(id);
                self.present.insert(seq, id);
            } else if let Some(id) = self.present.remove(&seq) {
                self.deleted.push(id);
            }
        }
        Ok(())
    }

    fn is_skipped(&self, write: &StoreWrite<'_>) -> bool {
        let event = matches!(write.key, Key::Event(_));
        match self.defect {
            Defect::LosesEvents => event && write.value.is_some() && self.applied.is_multiple_of(7),
            Defect::KeepsEvents => event && write.value.is_none() && self.applied.is_multiple_of(7),
            Defect::KeepsContexts => matches!(write.key, Key::Context(_)) && write.value.is_none(),
            Defect::KeepsBatches => matches!(write.key, Key::Batch(_)) && write.value.is_none(),
            Defect::ForgetsState => write.key == Key::State && self.applied > 1,
            _ => false,
        }
    }

    /// Returns the fault for the next commit.
    fn next_fault(&mut self) -> InjectedFault {
        if self.fault != InjectedFault::None && self.delay > 0 {
            self.delay -= 1;
            return InjectedFault::None;
        }
        if self.fault == InjectedFault::Refuse && self.repetitions > 1 {
            self.repetitions -= 1;
            return InjectedFault::Refuse;
        }
        std::mem::take(&mut self.fault)
    }

    /// Notes what the client tries to store, before the outcome is known.
    fn note_request(&mut self, writes: &[StoreWrite<'_>]) {
        for write in writes {
            let Some(value) = write.value else { continue };
            match write.key {
                Key::Event(seq) => {
                    self.ids.insert(seq, event_id(value));
                }
                Key::Batch(_) => {
                    let batch = Batch::decode(value).unwrap_or_else(|error| panic!("{error:?} {value}"));
                    self.requested.extend(batch.seqs.iter().filter_map(|seq| self.ids.get(seq)));
                }
                _ => {}
            }
        }
    }

    /// Returns the batches on the disk.
    pub(super) fn batches(&mut self) -> Vec<PersistedBatch> {
        let mut batches = Vec::new();
        let scanned = self.store.scan(&mut |key, value| {
            if matches!(key, Key::Batch(_)) {
                batches.extend(Batch::decode(value));
            }
        });
        assert_eq!(scanned, Ok(()));
        batches
    }

    /// Returns the events on the disk whose context the medium lost.
    pub(super) fn without_context(&mut self) -> BTreeSet<Id> {
        let (mut contexts, mut events) = (BTreeSet::new(), Vec::new());
        let scanned = self.store.scan(&mut |key, value| match key {
            Key::Context(number) => {
                contexts.insert(number);
            }
            Key::Event(seq) => {
                let number = value.split_once(':').and_then(|(head, _)| head[1..].parse().ok());
                events.push((seq, number.unwrap_or(0)));
            }
            _ => {}
        });
        assert_eq!(scanned, Ok(()));
        let lost = |number: &u64| self.lost_contexts.contains(number) && !contexts.contains(number);
        events.iter().filter(|(_, number)| lost(number)).filter_map(|(seq, _)| self.present.get(seq)).copied().collect()
    }

    /// Removes one record, as a defect of the medium. Returns the event, if it was one.
    pub(super) fn lose_record(&mut self, key: Key) -> Option<Id> {
        if let Key::Context(number) = key {
            self.lost_contexts.insert(number);
        }
        if let (Key::Batch(_), Ok(Some(value))) = (key, self.store.get(key)) {
            self.lost_batches.extend(Batch::decode(&value).map(|batch| batch.id));
        }
        let lost = self.store.apply(&[StoreWrite { key, value: None }]);
        assert_eq!(lost, Ok(()));
        if let Key::Event(seq) = key { self.present.remove(&seq) } else { None }
    }
}

/// Handle of the disk, one for each run of the process.
#[derive(Clone, Default)]
pub(super) struct Disk(pub(super) Rc<RefCell<Contents>>);

fn failed() -> StoreError {
    StoreError::failed("simulated")
}

impl Store for Disk {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let contents = &mut *self.0.borrow_mut();
        if contents.killed {
            return Err(failed());
        }
        let fault = contents.next_fault();
        contents.killed = matches!(fault, InjectedFault::KillBefore | InjectedFault::KillAfter);
        contents.note_request(writes);
        let works = !contents.refuses && matches!(fault, InjectedFault::None | InjectedFault::KillAfter);
        let result = if works { contents.change(writes) } else { Err(failed()) };
        if result.is_ok() {
            contents.commits += 1;
            if writes.iter().any(|write| write.key == Key::State) {
                contents.state_accepted = true;
                contents.recorded.extend(contents.requested.iter());
            }
        }
        if contents.killed { Err(failed()) } else { result }
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        let contents = &mut *self.0.borrow_mut();
        let bad = matches!(key, Key::Event(seq) if contents.unreadable_every > 0 && seq.is_multiple_of(contents.unreadable_every));
        if contents.killed || bad { Err(failed()) } else { contents.store.get(key) }
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        self.0.borrow_mut().store.scan(visit)
    }
}

/// Returns the ID in an event's record.
fn event_id(record: &str) -> Id {
    let json = record.split_once(':').map_or("", |(_, json)| json);
    let mut id = None;
    let read = Reader::new(json).object(|name, reader| {
        match name {
            "id" => id = Id::parse(&reader.string()?),
            _ => reader.skip()?,
        }
        Ok(())
    });
    match (read, id) {
        (Ok(()), Some(id)) => id,
        other => panic!("an event's record is not an event: {other:?} {record}"),
    }
}
