//! What must be true after every step, and at the end.

use super::server::{BAD, POISON};
use super::{Defect, World};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, limits};

impl World {
    pub(super) fn check_step(&mut self) {
        let ledger = self.client.ledger();
        assert!(ledger.balances(), "generated = acked + queued + dropped: {ledger:?}");
        self.check_deletions();
        self.check_bytes();
        let told = self.client.take_notices();
        self.life.1 += told.iter().filter(|text| text.starts_with("storage ")).count() as u64;
        if !self.config.mono_stops_asleep {
            let most = 1 + (self.mono - self.life.0) / limits::STORE_NOTICE_MS;
            assert!(self.life.1 <= most, "{} notices of a failing store, at most {most} are allowed", self.life.1);
        }
    }

    /// The caps hold for what the disk really holds.
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

    /// What the client deleted has ended: with the collector, by the user's will, or to make room.
    pub(super) fn check_deletions(&mut self) {
        let deleted = std::mem::take(&mut self.disk.0.borrow_mut().deleted);
        for id in deleted {
            let (server, contents) = (&self.server, self.disk.0.borrow());
            let ended =
                server.stored.contains_key(&id) || server.rejected.contains(&id) || server.refused.contains(&id);
            let wiped = self.to_wipe.contains(&id);
            if ended || wiped {
                continue;
            }
            assert!(self.trouble.full, "deleted without a receipt: {id} {:?}", contents.persisted.get(&id));
            self.evicted.insert(id);
        }
    }

    pub(super) fn check(&mut self) {
        let ledger = self.client.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!((ledger.queued, self.client.consent()), (0, Consent::Granted), "everything was delivered");
        assert_eq!(self.client.queued_bytes(), 0, "and is counted no more");
        let mut keys = Vec::new();
        let scanned = self.disk.0.borrow_mut().store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        assert!(keys.is_empty() || keys == [Key::State], "nothing but the state is left: {keys:?}");
        self.check_events();
        if !self.state_lost {
            self.check_ledger();
        }
        self.report.persisted = self.disk.0.borrow().persisted.len() as u64;
        self.report.stored = self.server.stored.len() as u64;
        self.report.duplicates = self.server.duplicates;
    }

    /// The events of an install that ever reached the disk.
    fn persisted(&self, install: Id) -> Vec<(Id, String)> {
        let contents = self.disk.0.borrow();
        let of_install = |id: &Id| self.tracked.get(id).is_some_and(|tracked| tracked.install == install);
        contents.persisted.iter().filter(|(id, _)| of_install(id)).map(|(id, code)| (*id, code.clone())).collect()
    }

    /// Every event of this install that ever reached the disk is somewhere.
    fn check_events(&self) {
        for (id, code) in self.persisted(self.client.install_id()) {
            let server = &self.server;
            let with_collector = match code.as_str() {
                BAD => server.rejected.contains(&id),
                POISON => server.refused.contains(&id),
                _ => server.stored.contains_key(&id),
            };
            let gone = self.damaged.contains(&id) || self.evicted.contains(&id) || self.to_wipe.contains(&id);
            assert!(with_collector || gone, "an event vanished: {id} {code}");
        }
    }

    /// The ledger of this install says what became of its events.
    fn check_ledger(&self) {
        let (install, ledger) = (self.client.install_id(), self.client.ledger());
        let count = |events: &mut dyn Iterator<Item = Id>| {
            let (mut sure, mut unsure) = (0_u64, 0_u64);
            for id in events.filter(|id| self.tracked.get(id).is_some_and(|tracked| tracked.install == install)) {
                if self.damaged.contains(&id) {
                    continue;
                }
                // Sent from memory, and the client died with it: whether it had heard the answer cannot be told.
                if self.server.forgotten.contains(&id) { unsure += 1 } else { sure += 1 }
            }
            (sure, unsure)
        };
        let acked = count(&mut self.server.stored.keys().copied());
        let rejected = count(&mut self.server.rejected.iter().copied());
        let refused = count(&mut self.server.refused.iter().copied());
        let evicted = count(&mut self.evicted.iter().copied()).0;
        let dropped = if self.disk.0.borrow().batch_refused { ledger.dropped(DropReason::QueueFull) } else { 0 };
        for (what, counted, (sure, unsure)) in [
            ("acknowledged", ledger.acked, acked),
            ("rejected", ledger.dropped(DropReason::Rejected), rejected),
            ("poison", ledger.dropped(DropReason::Poison), refused),
        ] {
            assert!(
                (sure.saturating_sub(dropped)..=sure + unsure).contains(&counted),
                "{what}: {counted} counted, {sure} and perhaps {unsure}: {ledger:?}"
            );
        }
        assert!(ledger.dropped(DropReason::QueueFull) >= evicted, "{evicted} events were evicted: {ledger:?}");
        let damaged =
            self.damaged.iter().filter(|id| self.tracked.get(id).is_some_and(|t| t.install == install)).count();
        let lost = ledger.dropped(DropReason::StorageLost);
        assert!(lost >= damaged as u64, "the disk lost {damaged} events: {ledger:?}");
        let forgotten = count(&mut self.server.forgotten.iter().copied()).1;
        assert!(lost <= damaged as u64 + forgotten, "and memory at most {forgotten}, no other: {ledger:?}");
    }
}
