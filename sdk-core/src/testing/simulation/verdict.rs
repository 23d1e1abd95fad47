//! What must be true after every step, and at the end. What must be true after every call stands in `books`.

use super::books::Outcome;
use super::{Defect, World};
use crate::store::{Key, Store};
use crate::{Consent, Id, limits};

impl World {
    pub(super) fn check_step(&mut self) {
        self.check_bytes();
        let told = self.client.take_notices();
        self.life.1 += told.iter().filter(|text| text.starts_with("storage ")).count() as u64;
        // A limit, not an amount: how often the store failed is not the same as how often somebody may hear of it. Where
        // the client counts sleep, which the simulation's monotonic clock does not, there is no limit to compare with.
        if !self.config.mono_stops_asleep {
            let most = 1 + (self.mono - self.life.0) / limits::STORE_NOTICE_MS;
            assert!(self.life.1 <= most, "{} notices of a failing store, at most {most} are allowed", self.life.1);
        }
    }

    /// The caps hold for what the disk really holds. They are limits: less may be there, because not all was told yet.
    fn check_bytes(&self) {
        let mut contents = self.disk.0.borrow_mut();
        let (mut bytes, mut batches) = (0, 0);
        let scanned = contents.store.scan(&mut |key, value| match key {
            Key::State => {}
            Key::Batch(_) => batches += 1,
            _ => bytes += value.len(),
        });
        assert_eq!(scanned, Ok(()));
        if self.config.queue_bytes != usize::MAX && self.defect == Defect::None {
            assert!(bytes <= self.config.queue_bytes, "{bytes} bytes of events and contexts, {batches} batches");
        }
    }

    pub(super) fn check(&mut self) {
        let ledger = self.client.ledger();
        assert_eq!((ledger.queued, self.client.consent()), (0, Consent::Granted), "everything was delivered");
        assert_eq!(self.client.queued_bytes(), 0, "and is counted no more");
        let mut keys = Vec::new();
        let scanned = self.disk.0.borrow_mut().store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        assert_eq!(keys, [Key::State], "nothing but the state is left");
        self.check_events();
        self.report.close(&ledger);
        self.report.lasting = u64::from(self.trouble.lasting);
        self.report.persisted = self.disk.0.borrow().persisted.len() as u64;
        self.report.stored = self.server.stored.len() as u64;
        self.report.duplicates = self.server.duplicates;
    }

    /// Each event of this install has ended once, and the collector agrees, unless nobody could know better.
    fn check_events(&mut self) {
        let (server, accounts) = (&self.server, &self.accounts);
        for (id, outcome) in &accounts.books.events {
            let there = server.outcome(*id);
            match outcome {
                Outcome::Acked | Outcome::Rejected | Outcome::Poison | Outcome::TooLarge => {
                    assert_eq!(there, Some(*outcome), "{id}");
                }
                Outcome::Evicted | Outcome::Lost => {
                    assert!(
                        there.is_none() || accounts.disputed.contains(id),
                        "the collector has it: {id} {outcome:?}"
                    );
                    self.report.disputed += u64::from(there.is_some());
                }
                Outcome::Waiting | Outcome::Withdrawn => panic!("{outcome:?} at the end: {id}"),
            }
        }
        // The books of an earlier install were closed with a withdrawal, or went with the state that the medium lost.
        let here = |id: &Id| self.tracked.get(id) == Some(&self.client.install_id());
        let reached = server.stored.keys().chain(&server.rejected).chain(server.refused.keys());
        for id in reached.filter(|id| here(id) && !accounts.books.events.contains_key(id)) {
            assert!(server.forgotten.contains(id), "the collector has it, and the ledger does not know it: {id}");
            self.report.forgotten += 1;
        }
    }
}
