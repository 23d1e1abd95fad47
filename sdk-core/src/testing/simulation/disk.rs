//! A disk that outlives the process, fails for a moment or for long, loses records, and is pulled out from under it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use subway_protocol::json::Reader;

use super::Defect;
use crate::Id;
use crate::queue::{Batch, SavedBatch};
use crate::store::{Key, MemoryStore, Store, StoreError, Write};

/// What one of the next calls of [`Store::apply`] will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Works,
    /// Refuses, changing nothing.
    Fails,
    /// The process is killed before anything is changed.
    KilledBefore,
    /// The process is killed after everything is changed.
    KilledAfter,
}

/// What is on the disk, and what the client ever wanted of it.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) store: MemoryStore,
    pub(super) fate: Fate,
    /// Changes that still work before the fate strikes: a commit may be several.
    pub(super) delay: u64,
    /// How many changes in a row are refused, if that is the fate.
    pub(super) times: u64,
    /// Refuses every change, until further notice.
    pub(super) refuses: bool,
    /// Cannot read events whose number is divisible by this; 0 for none.
    pub(super) unreadable: u64,
    /// The process is to be regarded as dead: it reaches nothing any more.
    pub(super) killed: bool,
    /// Every event that was ever persisted.
    pub(super) persisted: BTreeSet<Id>,
    /// Events on the disk now, by number.
    pub(super) present: BTreeMap<u64, Id>,
    /// Events that the client deleted since somebody looked.
    pub(super) deleted: Vec<Id>,
    /// A state was taken since somebody looked.
    pub(super) state_taken: bool,
    /// Changes that were taken.
    pub(super) taken: u64,
    /// Events of batches that this life wanted to be stored, taken or not.
    pub(super) asked: BTreeSet<Id>,
    /// Those of them after which a state was taken: it must say that they are in a batch.
    pub(super) marked: BTreeSet<Id>,
    /// Batches that the medium lost.
    pub(super) lost_batches: BTreeSet<Id>,
    /// Contexts that the medium lost, by number.
    pub(super) lost_contexts: BTreeSet<u64>,
    pub(super) defect: Defect,
    /// The event last seen under each number.
    ids: BTreeMap<u64, Id>,
    applied: u64,
}

impl Contents {
    /// Changes what is on the disk, without asking whether it works.
    fn change(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        self.applied += 1;
        let writes: Vec<Write<'_>> = writes.iter().copied().filter(|write| !self.is_skipped(write)).collect();
        self.store.apply(&writes)?;
        for write in writes {
            let Key::Event(seq) = write.key else { continue };
            if let Some(value) = write.value {
                let id = identity(value);
                self.persisted.insert(id);
                self.present.insert(seq, id);
            } else if let Some(id) = self.present.remove(&seq) {
                self.deleted.push(id);
            }
        }
        Ok(())
    }

    fn is_skipped(&self, write: &Write<'_>) -> bool {
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

    /// What happens to the next change.
    fn next_fate(&mut self) -> Fate {
        if self.fate != Fate::Works && self.delay > 0 {
            self.delay -= 1;
            return Fate::Works;
        }
        if self.fate == Fate::Fails && self.times > 1 {
            self.times -= 1;
            return Fate::Fails;
        }
        std::mem::take(&mut self.fate)
    }

    /// Remembers what the client wants to be stored, before it is known whether the disk takes it.
    fn ask(&mut self, writes: &[Write<'_>]) {
        for write in writes {
            let Some(value) = write.value else { continue };
            match write.key {
                Key::Event(seq) => {
                    self.ids.insert(seq, identity(value));
                }
                Key::Batch(_) => {
                    let batch = Batch::decode(value).unwrap_or_else(|error| panic!("{error:?} {value}"));
                    self.asked.extend(batch.seqs.iter().filter_map(|seq| self.ids.get(seq)));
                }
                _ => {}
            }
        }
    }

    /// The batches on the disk.
    pub(super) fn batches(&mut self) -> Vec<SavedBatch> {
        let mut batches = Vec::new();
        let scanned = self.store.scan(&mut |key, value| {
            if matches!(key, Key::Batch(_)) {
                batches.extend(Batch::decode(value));
            }
        });
        assert_eq!(scanned, Ok(()));
        batches
    }

    /// Events on the disk whose context the medium lost.
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

    /// The medium loses one record. Gives the event, if it was one.
    pub(super) fn lose(&mut self, key: Key) -> Option<Id> {
        if let Key::Context(number) = key {
            self.lost_contexts.insert(number);
        }
        if let (Key::Batch(_), Ok(Some(value))) = (key, self.store.get(key)) {
            self.lost_batches.extend(Batch::decode(&value).map(|batch| batch.id));
        }
        let lost = self.store.apply(&[Write { key, value: None }]);
        assert_eq!(lost, Ok(()));
        if let Key::Event(seq) = key { self.present.remove(&seq) } else { None }
    }
}

/// A handle on the disk, one for each life of the process.
#[derive(Clone, Default)]
pub(super) struct Disk(pub(super) Rc<RefCell<Contents>>);

fn failed() -> StoreError {
    StoreError { full: false, message: String::from("simulated") }
}

impl Store for Disk {
    fn apply(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let contents = &mut *self.0.borrow_mut();
        if contents.killed {
            return Err(failed());
        }
        let fate = contents.next_fate();
        contents.killed = matches!(fate, Fate::KilledBefore | Fate::KilledAfter);
        contents.ask(writes);
        let works = !contents.refuses && matches!(fate, Fate::Works | Fate::KilledAfter);
        let result = if works { contents.change(writes) } else { Err(failed()) };
        if result.is_ok() {
            contents.taken += 1;
            if writes.iter().any(|write| write.key == Key::State) {
                contents.state_taken = true;
                contents.marked.extend(contents.asked.iter());
            }
        }
        if contents.killed { Err(failed()) } else { result }
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        let contents = &mut *self.0.borrow_mut();
        let bad = matches!(key, Key::Event(seq) if contents.unreadable > 0 && seq.is_multiple_of(contents.unreadable));
        if contents.killed || bad { Err(failed()) } else { contents.store.get(key) }
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        self.0.borrow_mut().store.scan(visit)
    }
}

/// The identity in an event's record.
fn identity(record: &str) -> Id {
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
