//! A disk that outlives the process, fails, and is pulled out from under it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use subway_protocol::json::Reader;

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
    /// The process is to be regarded as dead.
    pub(super) killed: bool,
    /// Every event that was ever persisted: its identity and its code.
    pub(super) persisted: BTreeMap<Id, String>,
}

/// A handle on the disk, one for each life of the process.
#[derive(Clone, Default)]
pub(super) struct Disk(pub(super) Rc<RefCell<Contents>>);

impl Store for Disk {
    fn apply(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let mut contents = self.0.borrow_mut();
        let fate = std::mem::take(&mut contents.fate);
        let failed = Err(StoreError { full: true, message: String::from("simulated") });
        contents.killed |= matches!(fate, Fate::KilledBefore | Fate::KilledAfter);
        if matches!(fate, Fate::Fails | Fate::KilledBefore) {
            return failed;
        }
        contents.store.apply(writes)?;
        for write in writes {
            if let (Key::Event(_), Some(value)) = (write.key, write.value) {
                let (id, code) = identity(value);
                contents.persisted.insert(id, code);
            }
        }
        if fate == Fate::KilledAfter { failed } else { Ok(()) }
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        self.0.borrow_mut().store.get(key)
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
