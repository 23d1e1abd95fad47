//! The user's decisions.

use super::World;
use super::books::{Books, Cause};
use crate::store::Store;
use crate::{Consent, DropReason, Id};

impl World {
    /// The user changes his mind, or not.
    pub(super) fn decide(&mut self) {
        let consent = [Consent::Granted, Consent::Denied, Consent::Unknown][self.random.up_to(2) as usize];
        self.set_consent(consent);
    }

    pub(super) fn set_consent(&mut self, consent: Consent) {
        let (before, install) = (self.client.ledger(), self.client.install_id());
        let taken = self.disk.0.borrow().taken;
        if consent == Consent::Denied {
            self.report.withdrawals += 1;
            self.accounts.to_wipe = self.disk.0.borrow().present.values().copied().collect();
        }
        self.client.set_consent(self.now(), consent);
        match consent {
            Consent::Granted => self.granted(),
            Consent::Denied => {
                let books = &mut self.accounts.books;
                books.refuse(DropReason::ConsentDenied, self.accounts.held.len() as u64);
                (books.wiped, books.seq) = (true, 0);
                self.accounts.held.clear();
                self.settle(&Cause::Withdrawal);
                let withdrawn = DropReason::ConsentWithdrawn;
                let after = self.client.ledger();
                assert_eq!(after.queued, 0, "a withdrawal wipes the queue");
                assert_eq!(after.dropped(withdrawn), before.dropped(withdrawn) + before.queued, "and counts it");
                self.check_wipe(install, taken);
                self.synchronise();
            }
            Consent::Unknown => self.settle(&Cause::Other),
        }
    }

    /// What was held gets its places now.
    fn granted(&mut self) {
        if self.accounts.books.wiped {
            self.report.close(&self.accounts.books.ledger());
            self.accounts.books = Books::default();
        }
        for id in std::mem::take(&mut self.accounts.held) {
            self.enter(id);
        }
        self.settle(&Cause::Recording);
    }

    /// Nothing of the person is left on a disk that took anything since it had taken `taken` changes.
    fn check_wipe(&self, install: Id, taken: u64) {
        let mut contents = self.disk.0.borrow_mut();
        if contents.killed || contents.taken == taken {
            assert!(contents.killed || !self.client.is_persisted(), "a wipe is told at once");
            return;
        }
        assert!(contents.present.is_empty(), "and the disk, also a full one");
        let mut left = String::new();
        assert_eq!(contents.store.scan(&mut |_, value| left += value), Ok(()));
        assert_ne!(self.client.install_id(), install);
        assert!(!left.contains(&install.text()), "nothing about the person is left: {left}");
    }
}
