//! Power cuts: the device loses the changes that the system had not written out yet, last first. Changes from before
//! the last upload or withdrawal are safe, because hosts sync those (docs/adr/0004).

use std::collections::{BTreeMap, BTreeSet};

use super::Simulator;
use super::oracle::ExpectedLedger;
use crate::Id;
use crate::store::MemoryStore;

/// Disk and oracle at one point in time.
#[derive(Default)]
struct Snapshot {
    store: MemoryStore,
    present: BTreeMap<u64, Id>,
    persisted: BTreeSet<Id>,
    recorded: BTreeSet<Id>,
    durable: ExpectedLedger,
}

/// Snapshots that a power cut can go back to.
#[derive(Default)]
pub(super) struct History {
    snapshots: Vec<Snapshot>,
    /// Commits that the disk had accepted at the last snapshot.
    commits: u64,
}

impl Simulator {
    /// Takes a snapshot if the disk has changed. Runs after every call of the client.
    pub(super) fn take_snapshot(&mut self) {
        let contents = self.disk.0.borrow();
        if self.plan.power && (contents.commits != self.history.commits || self.history.snapshots.is_empty()) {
            self.history.commits = contents.commits;
            self.history.snapshots.push(Snapshot {
                store: contents.store.clone(),
                present: contents.present.clone(),
                persisted: contents.persisted.clone(),
                recorded: contents.recorded.clone(),
                durable: self.oracle.durable.clone(),
            });
        }
    }

    /// Makes the current contents of the disk safe from power cuts.
    pub(super) fn sync_disk(&mut self) {
        self.history = History::default();
        self.take_snapshot();
    }

    /// Reverts the disk to a random snapshot since the last sync.
    pub(super) fn cut_power(&mut self) {
        let most = self.history.snapshots.len() as u64 - 1;
        self.history.snapshots.truncate(self.random.gen_inclusive(most) as usize + 1);
        let Some(last) = self.history.snapshots.pop() else { return };
        self.report.power_cuts += 1;
        {
            let contents = &mut *self.disk.0.borrow_mut();
            contents.store = last.store;
            contents.present = last.present;
            contents.persisted = last.persisted;
            contents.recorded = last.recorded;
        }
        self.oracle.durable = last.durable;
        // The limit of a full disk is its size now.
        self.set_disk(self.fault.map(|fault| fault.kind));
        self.sync_disk();
    }
}
