//! A disk that outlives the process, fails for a moment or for long, and is pulled out from under it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use subway_protocol::json::Reader;

use super::Defect;
use crate::Id;
use crate::store::{Key, MemoryStore, Store, StoreError, Write};

/// What the next [`Store::apply`] will do.
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

/// What is on the disk, and what was ever written to it.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) store: MemoryStore,
    pub(super) fate: Fate,
    /// Refuses every change, until further notice.
    pub(super) refuses: bool,
    /// Cannot read events whose number is divisible by this; 0 for none.
    pub(super) unreadable: u64,
    /// The process is to be regarded as dead: it reaches nothing any more.
    pub(super) killed: bool,
    /// Every event that was ever persisted: its identity and its code.
    pub(super) persisted: BTreeMap<Id, String>,
    /// Events on the disk now, by number.
    pub(super) present: BTreeMap<u64, Id>,
    /// Events that the disk refused to take, at least once.
    pub(super) refused: BTreeSet<Id>,
    /// The disk refused a batch, at least once: should the client die, its events are in none, and may be dropped although
    /// the collector has them.
    pub(super) batch_refused: bool,
    /// Events that the client deleted since somebody looked.
    pub(super) deleted: Vec<Id>,
    pub(super) defect: Defect,
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
                let (id, code) = identity(value);
                self.persisted.insert(id, code);
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

    /// The medium loses one record. Gives the event, if it was one.
    pub(super) fn lose(&mut self, key: Key) -> Option<Id> {
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
        let fate = std::mem::take(&mut contents.fate);
        contents.killed = matches!(fate, Fate::KilledBefore | Fate::KilledAfter);
        let works = !contents.refuses && matches!(fate, Fate::Works | Fate::KilledAfter);
        let result = if works { contents.change(writes) } else { Err(failed()) };
        if result.is_err() {
            contents.batch_refused |= writes.iter().any(|write| matches!(write.key, Key::Batch(_)));
            let events = writes.iter().filter(|write| matches!(write.key, Key::Event(_)));
            contents.refused.extend(events.filter_map(|write| write.value).map(|value| identity(value).0));
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

/// Identity and code of an event's record.
fn identity(record: &str) -> (Id, String) {
    let json = record.split_once(':').map_or("", |(_, json)| json);
    let (mut id, mut code) = (None, String::new());
    let read = Reader::new(json).object(|name, reader| {
        match name {
            "id" => id = Id::parse(&reader.string()?),
            "code" => code = reader.string()?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    match (read, id) {
        (Ok(()), Some(id)) => (id, code),
        other => panic!("an event's record is not an event: {other:?} {record}"),
    }
}
