//! Deaths: what a new life finds, and what it must make of it.

use super::books::{Books, Cause, Outcome};
use super::disk::Fate;
use super::{World, open};
use crate::store::{Key, Store};

impl World {
    /// The process dies and is started again: what was not on the disk is gone, and so are the open requests.
    pub(super) fn kill(&mut self) {
        self.report.kills += 1;
        {
            let contents = &mut *self.disk.0.borrow_mut();
            contents.killed = false;
            contents.fate = Fate::Works;
        }
        self.flights.clear();
        if self.trouble.power && self.chance(3) {
            self.cut_power();
        }
        if self.trouble.damage && self.chance(3) {
            self.damage();
        }
        self.find_untold();
        self.roll_back();
        self.mono = self.random.up_to(1_000);
        self.life = (self.mono, 0);
        let now = self.now();
        self.client = open(&self.disk, &self.config, self.version, &mut self.random, now);
        self.settle(&Cause::Other);
        let (install, books) = (self.client.install_id(), &self.accounts.books);
        let unknown = self.tracked.iter().filter(|(id, of)| **of == install && !books.events.contains_key(id));
        self.server.forgotten.extend(unknown.map(|(id, _)| id));
    }

    /// What the disk does not know of what was sent.
    fn find_untold(&mut self) {
        let contents = &mut *self.disk.0.borrow_mut();
        if contents.store.get(Key::State) == Ok(None) {
            contents.marked.clear();
        }
        contents.asked.clear();
        let frozen: Vec<u64> = contents.batches().into_iter().flat_map(|batch| batch.seqs).collect();
        self.server.context_lost.extend(contents.without_context());
        let accounts = &mut self.accounts;
        accounts.sent_now.clear();
        accounts.untold.clear();
        for (seq, id) in &contents.present {
            if accounts.sent.contains(id) && !frozen.contains(seq) {
                let marked = contents.marked.contains(id);
                // A batch in between, of which the disk was not told, may not have reached the collector.
                *self.server.rebatched.entry(*id).or_insert(true) &= marked;
                if !marked {
                    accounts.untold.insert(*id);
                }
            }
        }
    }

    /// The books as the new life must find them: as they were when the disk took a state last, and with what has been
    /// lost since.
    fn roll_back(&mut self) {
        let contents = &mut *self.disk.0.borrow_mut();
        let accounts = &mut self.accounts;
        // Without a state the install begins anew, with what is there.
        let anew = contents.store.get(Key::State) == Ok(None);
        accounts.books = if anew { Books::default() } else { accounts.durable.clone() };
        accounts.places = contents.present.clone();
        if anew {
            accounts.books.seq = contents.present.keys().last().copied().unwrap_or(0);
        }
        for id in contents.present.values() {
            let outcome = *accounts.books.events.entry(*id).or_insert(Outcome::Waiting);
            assert_eq!(outcome, Outcome::Waiting, "it has ended, and yet is on the disk: {id}");
            assert!(anew || accounts.durable.events.contains_key(id), "on the disk, but not in its state: {id}");
        }
        for (id, outcome) in &mut accounts.books.events {
            if *outcome == Outcome::Waiting && !contents.present.values().any(|other| other == id) {
                let never = !contents.persisted.contains(id);
                let lost = never || accounts.damaged.contains(id) || accounts.to_wipe.contains(id);
                assert!(lost, "it was on the disk, and is gone without an outcome: {id}");
                *outcome = Outcome::Lost;
                if accounts.sent.contains(id) {
                    accounts.disputed.insert(*id);
                }
            }
        }
        accounts.held.clear();
        // A withdrawal that did not reach the disk is undone; the host has to ask again.
        accounts.to_wipe.clear();
    }

    /// The medium loses one record.
    pub(super) fn damage(&mut self) {
        let mut keys = Vec::new();
        let mut contents = self.disk.0.borrow_mut();
        let scanned = contents.store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        if keys.is_empty() {
            return;
        }
        let key = keys[self.random.up_to(keys.len() as u64 - 1) as usize];
        self.report.damaged += 1;
        self.accounts.damaged.extend(contents.lose(key));
        drop(contents);
        // What the medium has lost does not come back.
        self.synchronise();
    }
}
