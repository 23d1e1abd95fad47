//! Kills and restarts: what a new run finds on the disk, and what it must derive from it.

use super::disk::InjectedFault;
use super::oracle::{Cause, ExpectedLedger, Outcome};
use super::{Simulator, open};
use crate::store::{Key, Store};

impl Simulator {
    /// Kills and restarts the process. It loses what was not on the disk, and the open requests.
    pub(super) fn kill(&mut self) {
        self.report.kills += 1;
        {
            let contents = &mut *self.disk.0.borrow_mut();
            contents.killed = false;
            contents.fault = InjectedFault::None;
        }
        self.in_flight.clear();
        if self.plan.power && self.chance(3) {
            self.cut_power();
        }
        if self.plan.damage && self.chance(3) {
            self.damage();
        }
        self.find_untraced();
        self.roll_back();
        self.mono = self.random.gen_inclusive(1_000);
        self.life = (self.mono, 0);
        let now = self.now();
        self.client = open(&self.disk, &self.config, self.version, &mut self.random, now);
        self.reconcile(&Cause::Other);
        let (install, expected) = (self.client.install_id(), &self.oracle.expected);
        let unknown = self.tracked.iter().filter(|(id, of)| **of == install && !expected.events.contains_key(id));
        self.server.unknown_to_client.extend(unknown.map(|(id, _)| id));
    }

    /// Determines which sent events have left no trace on the disk.
    fn find_untraced(&mut self) {
        let contents = &mut *self.disk.0.borrow_mut();
        if contents.store.get(Key::State) == Ok(None) {
            contents.recorded.clear();
        }
        contents.requested.clear();
        let frozen: Vec<u64> = contents.batches().into_iter().flat_map(|batch| batch.seqs).collect();
        self.server.context_lost.extend(contents.without_context());
        let oracle = &mut self.oracle;
        oracle.sent_now.clear();
        oracle.untraced.clear();
        for (seq, id) in &contents.present {
            if oracle.sent.contains(id) && !frozen.contains(seq) {
                let recorded = contents.recorded.contains(id);
                // A batch in between that was never on the disk may not have reached the collector.
                *self.server.rebatched.entry(*id).or_insert(true) &= recorded;
                if !recorded {
                    oracle.untraced.insert(*id);
                }
            }
        }
    }

    /// Reverts the oracle to what the new run must find: the ledger of the last accepted state, less what was lost
    /// since.
    fn roll_back(&mut self) {
        let contents = &mut *self.disk.0.borrow_mut();
        let oracle = &mut self.oracle;
        // Without a state the install starts again, with the events on the disk.
        let anew = contents.store.get(Key::State) == Ok(None);
        oracle.expected = if anew { ExpectedLedger::default() } else { oracle.durable.clone() };
        oracle.queued = contents.present.clone();
        if anew {
            oracle.expected.seq = contents.present.keys().last().copied().unwrap_or(0);
        }
        for id in contents.present.values() {
            let outcome = *oracle.expected.events.entry(*id).or_insert(Outcome::Queued);
            assert_eq!(outcome, Outcome::Queued, "it has ended, and yet is on the disk: {id}");
            assert!(anew || oracle.durable.events.contains_key(id), "on the disk, but not in its state: {id}");
        }
        for (id, outcome) in &mut oracle.expected.events {
            if *outcome == Outcome::Queued && !contents.present.values().any(|other| other == id) {
                let never = !contents.persisted.contains(id);
                let lost = never || oracle.damaged.contains(id) || oracle.to_wipe.contains(id);
                assert!(lost, "it was on the disk, and is gone without an outcome: {id}");
                *outcome = Outcome::Lost;
                if oracle.sent.contains(id) {
                    oracle.ambiguous.insert(*id);
                }
            }
        }
        oracle.consent_pending.clear();
        // A withdrawal that did not reach the disk is undone; the host has to ask again.
        oracle.to_wipe.clear();
    }

    /// Removes one random record from the disk.
    pub(super) fn damage(&mut self) {
        let mut keys = Vec::new();
        let mut contents = self.disk.0.borrow_mut();
        let scanned = contents.store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        if keys.is_empty() {
            return;
        }
        let key = keys[self.random.gen_inclusive(keys.len() as u64 - 1) as usize];
        self.report.damaged += 1;
        self.oracle.damaged.extend(contents.lose_record(key));
        drop(contents);
        // A lost record must not come back after a power cut.
        self.sync_disk();
    }
}
