//! Checks after every step and at the end. Checks after every call are in `oracle`.

use super::oracle::Outcome;
use super::{Defect, Simulator};
use crate::store::{Key, Store};
use crate::{Consent, Id, limits};

impl Simulator {
    pub(super) fn check_step(&mut self) {
        self.check_bytes();
        let diagnostics = self.client.take_diagnostics();
        self.life.1 += diagnostics.iter().filter(|text| text.starts_with("storage ")).count() as u64;
        // A limit, not an exact number: a store can fail more often than it is reported. If the client counts sleep,
        // which the simulation's monotonic clock does not, there is no limit to compare with.
        if !self.config.mono_stops_asleep {
            let max = 1 + (self.mono - self.life.0) / limits::STORE_DIAGNOSTIC_INTERVAL_MS;
            assert!(self.life.1 <= max, "{} diagnostics about a failing store, at most {max} are allowed", self.life.1);
        }
    }

    /// Checks the limits against the contents of the disk, which can be less, because some changes are not committed
    /// yet.
    fn check_bytes(&self) {
        let mut contents = self.disk.0.borrow_mut();
        let (mut bytes, mut batches) = (0, 0);
        let scanned = contents.store.scan(&mut |key, value| match key {
            Key::State => {}
            Key::Batch(_) => batches += 1,
            _ => bytes += value.len(),
        });
        assert_eq!(scanned, Ok(()));
        if self.config.max_queued_bytes != usize::MAX && self.defect == Defect::None {
            assert!(bytes <= self.config.max_queued_bytes, "{bytes} bytes of events and contexts, {batches} batches");
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
        self.report.lasting = u64::from(self.plan.lasting);
        self.report.persisted = self.disk.0.borrow().persisted.len() as u64;
        self.report.stored = self.server.stored.len() as u64;
        self.report.duplicates = self.server.duplicates;
    }

    /// Checks that each event of this install has one outcome, the same as on the collector unless no evidence was
    /// left.
    fn check_events(&mut self) {
        let (server, oracle) = (&self.server, &self.oracle);
        for (id, outcome) in &oracle.expected.events {
            let there = server.outcome(*id);
            match outcome {
                Outcome::Acked | Outcome::Rejected | Outcome::Poison | Outcome::TooLarge => {
                    assert_eq!(there, Some(*outcome), "{id}");
                }
                Outcome::Evicted | Outcome::Lost => {
                    assert!(there.is_none() || oracle.ambiguous.contains(id), "the collector has it: {id} {outcome:?}");
                    self.report.ambiguous += u64::from(there.is_some());
                }
                Outcome::Queued | Outcome::Withdrawn => panic!("{outcome:?} at the end: {id}"),
            }
        }
        // The ledger of an earlier install ended with a withdrawal, or with the state that the medium lost.
        let here = |id: &Id| self.tracked.get(id) == Some(&self.client.install_id());
        let reached = server.stored.keys().chain(&server.rejected).chain(server.refused.keys());
        for id in reached.filter(|id| here(id) && !oracle.expected.events.contains_key(id)) {
            assert!(
                server.unknown_to_client.contains(id),
                "the collector has it, and the ledger does not know it: {id}"
            );
            self.report.unknown_to_client += 1;
        }
    }
}
