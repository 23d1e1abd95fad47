//! Power cuts: the device loses the changes that the system had not written out yet, last first. None from before the
//! last sending or withdrawal: hosts see to it that those are on the medium (docs/adr/0004).

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use super::books::Books;
use crate::Id;
use crate::store::MemoryStore;

/// The disk and the books at one moment.
#[derive(Default)]
struct Snapshot {
    store: MemoryStore,
    present: BTreeMap<u64, Id>,
    persisted: BTreeSet<Id>,
    marked: BTreeSet<Id>,
    durable: Books,
}

/// What a power cut may go back to.
#[derive(Default)]
pub(super) struct History {
    snapshots: Vec<Snapshot>,
    /// How many changes the disk had taken at the last of them.
    taken: u64,
}

impl World {
    /// After every call: the disk may have changed.
    pub(super) fn remember(&mut self) {
        let contents = self.disk.0.borrow();
        if self.trouble.power && (contents.taken != self.history.taken || self.history.snapshots.is_empty()) {
            self.history.taken = contents.taken;
            self.history.snapshots.push(Snapshot {
                store: contents.store.clone(),
                present: contents.present.clone(),
                persisted: contents.persisted.clone(),
                marked: contents.marked.clone(),
                durable: self.accounts.durable.clone(),
            });
        }
    }

    /// What the disk holds now stays.
    pub(super) fn synchronise(&mut self) {
        self.history = History::default();
        self.remember();
    }

    /// The disk is again as it was at some moment since it was synchronised.
    pub(super) fn cut_power(&mut self) {
        let most = self.history.snapshots.len() as u64 - 1;
        self.history.snapshots.truncate(self.random.up_to(most) as usize + 1);
        let Some(last) = self.history.snapshots.pop() else { return };
        self.report.power_cuts += 1;
        {
            let contents = &mut *self.disk.0.borrow_mut();
            contents.store = last.store;
            contents.present = last.present;
            contents.persisted = last.persisted;
            contents.marked = last.marked;
        }
        self.accounts.durable = last.durable;
        // A full disk is as full as it is now.
        self.set_disk(self.fault.map(|fault| fault.kind));
        self.synchronise();
    }
}
