//! Decisions of the user about consent.

use super::Simulator;
use super::oracle::{Cause, ExpectedLedger};
use crate::store::Store;
use crate::{Consent, DropReason, Id};

impl Simulator {
    /// Sets a random decision, possibly the same.
    pub(super) fn change_consent(&mut self) {
        let consent = [Consent::Granted, Consent::Denied, Consent::Unknown][self.random.gen_inclusive(2) as usize];
        self.set_consent(consent);
    }

    pub(super) fn set_consent(&mut self, consent: Consent) {
        let (before, install) = (self.client.ledger(), self.client.install_id());
        let commits = self.disk.0.borrow().commits;
        if consent == Consent::Denied {
            self.report.withdrawals += 1;
            self.oracle.to_wipe = self.disk.0.borrow().present.values().copied().collect();
        }
        self.client.set_consent(self.now(), consent);
        match consent {
            Consent::Granted => self.grant_pending(),
            Consent::Denied => {
                let expected = &mut self.oracle.expected;
                expected.refuse(DropReason::ConsentDenied, self.oracle.consent_pending.len() as u64);
                (expected.wiped, expected.seq) = (true, 0);
                self.oracle.consent_pending.clear();
                self.reconcile(&Cause::Withdrawal);
                let withdrawn = DropReason::ConsentWithdrawn;
                let after = self.client.ledger();
                assert_eq!(after.queued, 0, "a withdrawal wipes the queue");
                assert_eq!(after.dropped(withdrawn), before.dropped(withdrawn) + before.queued, "and counts it");
                self.check_wipe(install, commits);
                self.sync_disk();
            }
            Consent::Unknown => self.reconcile(&Cause::Other),
        }
    }

    /// Assigns sequence numbers to the events that waited for consent.
    fn grant_pending(&mut self) {
        if self.oracle.expected.wiped {
            self.report.close(&self.oracle.expected.ledger());
            self.oracle.expected = ExpectedLedger::default();
        }
        for id in std::mem::take(&mut self.oracle.consent_pending) {
            self.assign_seq(id);
        }
        self.reconcile(&Cause::Recording);
    }

    /// Checks that the disk holds no personal data, if it accepted any commit since it had accepted `commits` of them.
    fn check_wipe(&self, install: Id, commits: u64) {
        let mut contents = self.disk.0.borrow_mut();
        if contents.killed || contents.commits == commits {
            assert!(contents.killed || !self.client.is_persisted(), "a wipe is committed at once");
            return;
        }
        assert!(contents.present.is_empty(), "and the disk, also a full one");
        let mut left = String::new();
        assert_eq!(contents.store.scan(&mut |_, value| left += value), Ok(()));
        assert_ne!(self.client.install_id(), install);
        assert!(!left.contains(&install.text()), "nothing about the person is left: {left}");
    }
}
