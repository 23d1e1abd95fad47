//! The books: what became of each event, kept from what can be seen from outside. An event that leaves the client's
//! queue must have a reason for it at that moment, and the client's ledger must be what the books add up to, after
//! every call, and after a death what they added up to when the disk took a state last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Flight, World};
use crate::{DropReason, Id, Ledger, TrackError};

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Waiting,
    Acked,
    Rejected,
    Poison,
    TooLarge,
    /// Dropped to make room.
    Evicted,
    Withdrawn,
    /// The disk lost it, or never took it.
    Lost,
}

/// What the ledger of the current install must say.
#[derive(Clone, Default)]
pub(super) struct Books {
    /// Each event that got a place in the sequence.
    pub(super) events: BTreeMap<Id, Outcome>,
    /// Events that got none, by reason.
    refused: [u64; 8],
    /// The last place in the sequence that was given.
    pub(super) seq: u64,
    /// Everything was wiped: the next grant begins new books.
    pub(super) wiped: bool,
}

impl Books {
    /// Events that were refused at the call.
    pub(super) fn refuse(&mut self, reason: DropReason, events: u64) {
        self.refused[reason as usize] += events;
    }

    /// What they add up to.
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger { dropped: self.refused, ..Ledger::default() };
        for outcome in self.events.values() {
            match outcome {
                Outcome::Waiting => ledger.queued += 1,
                Outcome::Acked => ledger.acked += 1,
                Outcome::Rejected => ledger.drop(DropReason::Rejected, 1),
                Outcome::Poison => ledger.drop(DropReason::Poison, 1),
                Outcome::TooLarge => ledger.drop(DropReason::TooLarge, 1),
                Outcome::Evicted => ledger.drop(DropReason::QueueFull, 1),
                Outcome::Withdrawn => ledger.drop(DropReason::ConsentWithdrawn, 1),
                Outcome::Lost => ledger.drop(DropReason::StorageLost, 1),
            }
        }
        ledger.generated = ledger.accounted();
        ledger
    }
}

/// Everything that is known of events, beside what the collector and the disk know.
#[derive(Default)]
pub(super) struct Accounts {
    pub(super) books: Books,
    /// The books when the disk took a state last: a new life goes on from there.
    pub(super) durable: Books,
    /// The events that wait, by their place in the sequence.
    pub(super) places: BTreeMap<u64, Id>,
    /// Events that wait for the user's decision.
    pub(super) held: Vec<Id>,
    /// Events handed to the network, in any life.
    pub(super) sent: BTreeSet<Id>,
    /// Events handed to the network in this life.
    pub(super) sent_now: BTreeSet<Id>,
    /// Events sent in an earlier life of which the disk knows nothing: it took neither their batch nor, from when it was
    /// asked to until that life ended, a state; or the medium, or a power cut, has taken those away again.
    pub(super) untold: BTreeSet<Id>,
    /// Events that the disk lost while they were there.
    pub(super) damaged: BTreeSet<Id>,
    /// Events that were counted as dropped or lost although the collector may have them, because nobody could know: they
    /// were untold, or their record was gone.
    pub(super) disputed: BTreeSet<Id>,
    /// Events that were on the disk when the user withdrew consent.
    pub(super) to_wipe: BTreeSet<Id>,
}

/// What the client was called for: why events may leave its queue.
pub(super) enum Cause<'a> {
    /// Events were recorded.
    Recording,
    /// Events were to be read and sent.
    Sending,
    /// An answer arrived.
    Answer(&'a Flight),
    /// The user withdrew consent.
    Withdrawal,
    /// Something that ends no event.
    Other,
}

impl World {
    /// An event got the next place in the sequence.
    pub(super) fn enter(&mut self, id: Id) {
        self.accounts.books.seq += 1;
        self.accounts.places.insert(self.accounts.books.seq, id);
        self.accounts.books.events.insert(id, Outcome::Waiting);
    }

    /// The client refused an event.
    pub(super) fn refuse(&mut self, error: &TrackError) {
        let reason = match error {
            TrackError::Invalid(_) => DropReason::Invalid,
            TrackError::ConsentDenied => DropReason::ConsentDenied,
            TrackError::QueueFull => {
                assert!(self.trouble.full, "the queue has room");
                // The gap in the sequence shows the collector that an event is missing.
                self.accounts.books.seq += 1;
                DropReason::QueueFull
            }
        };
        self.accounts.books.refuse(reason, 1);
    }

    /// After every call of the client: enters into the books what has left the queue, and compares.
    pub(super) fn settle(&mut self, cause: &Cause<'_>) {
        let waiting: BTreeSet<u64> = self.client.waiting().into_iter().collect();
        let left: Vec<(u64, Id)> = self
            .accounts
            .places
            .iter()
            .filter(|(seq, _)| !waiting.contains(seq))
            .map(|(seq, id)| (*seq, *id))
            .collect();
        assert_eq!(waiting.len() + left.len(), self.accounts.places.len(), "nothing waits that was not recorded");
        for (seq, id) in left {
            let outcome = self.outcome(id, cause);
            self.accounts.places.remove(&seq);
            let told = !matches!(outcome, Outcome::Evicted | Outcome::Lost);
            if !told && self.accounts.sent.contains(&id) {
                self.accounts.disputed.insert(id);
            }
            self.accounts.books.events.insert(id, outcome);
        }
        assert_eq!(
            self.client.ledger(),
            self.accounts.books.ledger(),
            "the ledger (left) is what the books say (right)"
        );
        assert_eq!(self.client.last_seq(), self.accounts.books.seq, "the sequence of an install");
        let (deleted, state_taken) = {
            let contents = &mut *self.disk.0.borrow_mut();
            (std::mem::take(&mut contents.deleted), std::mem::take(&mut contents.state_taken))
        };
        for id in deleted {
            let outcome = self.accounts.books.events.get(&id);
            assert_ne!(outcome, Some(&Outcome::Waiting), "deleted from the disk, and yet waiting: {id}");
        }
        // The only call that goes on after a commit is a poll, which may find further events lost then: a new life would
        // count them as lost too, because they are not there.
        if state_taken {
            self.accounts.durable = self.accounts.books.clone();
        }
        self.remember();
    }

    /// Why this event has left the queue.
    fn outcome(&self, id: Id, cause: &Cause<'_>) -> Outcome {
        let accounts = &self.accounts;
        match cause {
            Cause::Answer(flight) => {
                assert!(flight.genuine && flight.events.contains(&id), "ended without a receipt: {id}");
                self.server.outcome(id).unwrap_or_else(|| panic!("the collector does not know it: {id}"))
            }
            Cause::Recording => {
                assert!(self.trouble.full, "dropped, though the queue has room: {id}");
                assert!(!accounts.sent_now.contains(&id), "dropped, though it may be with the collector: {id}");
                let sent = accounts.sent.contains(&id) && !accounts.untold.contains(&id);
                assert!(!sent, "dropped, though the disk knew that it may be with the collector: {id}");
                Outcome::Evicted
            }
            Cause::Sending => {
                assert!(accounts.damaged.contains(&id), "counted as lost, though the disk has it: {id}");
                Outcome::Lost
            }
            Cause::Withdrawal => Outcome::Withdrawn,
            Cause::Other => panic!("has left the queue for no reason: {id}"),
        }
    }
}
