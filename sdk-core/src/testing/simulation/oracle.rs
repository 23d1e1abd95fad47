//! Oracle of the simulation: the outcome of each event, derived only from what is visible outside of the client.
//!
//! After every call, an event that has left the queue must have a reason, and the client's ledger must equal the
//! oracle's. After a kill it must equal the oracle's at the last state that the disk accepted.

use std::collections::{BTreeMap, BTreeSet};

use super::{InFlightResponse, Simulator};
use crate::{DropReason, Id, Ledger, TrackError};

/// Outcome of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Queued,
    Acked,
    Rejected,
    Poison,
    TooLarge,
    /// Dropped to free space in the queue.
    Evicted,
    Withdrawn,
    /// Lost by the disk, or never accepted by it.
    Lost,
}

/// Ledger that the current install must have.
#[derive(Clone, Default)]
pub(super) struct ExpectedLedger {
    /// Events with a sequence number.
    pub(super) events: BTreeMap<Id, Outcome>,
    /// Events without one, by reason.
    refused: [u64; 8],
    /// Last sequence number in use.
    pub(super) seq: u64,
    /// Everything was wiped; the next grant starts a new ledger.
    pub(super) wiped: bool,
}

impl ExpectedLedger {
    /// Counts events that `track` rejected.
    pub(super) fn refuse(&mut self, reason: DropReason, events: u64) {
        self.refused[reason as usize] += events;
    }

    /// Sums the outcomes up.
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger { dropped: self.refused, ..Ledger::default() };
        for outcome in self.events.values() {
            match outcome {
                Outcome::Queued => ledger.queued += 1,
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

/// Knowledge about events, beside what the collector and the disk have.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) expected: ExpectedLedger,
    /// Ledger when the disk last accepted a state; a restart continues from it.
    pub(super) durable: ExpectedLedger,
    /// Queued events by sequence number.
    pub(super) queued: BTreeMap<u64, Id>,
    /// Events that wait for the user's decision.
    pub(super) consent_pending: Vec<Id>,
    /// Events given to the network in any run.
    pub(super) sent: BTreeSet<Id>,
    /// Events given to the network in this run.
    pub(super) sent_now: BTreeSet<Id>,
    /// Events sent in an earlier run without a trace on the disk. It accepted neither their batch nor a state after it
    /// was asked to store the batch; or the medium or a power cut has removed both.
    pub(super) untraced: BTreeSet<Id>,
    /// Events that the disk lost after accepting them.
    pub(super) damaged: BTreeSet<Id>,
    /// Events counted as dropped or lost although the collector may have them. Nothing could tell: they left no trace,
    /// or their record was gone.
    pub(super) ambiguous: BTreeSet<Id>,
    /// Events on the disk when the user withdrew consent.
    pub(super) to_wipe: BTreeSet<Id>,
}

/// Call of the client, as the reason for which events can leave its queue.
pub(super) enum Cause<'a> {
    /// Events were recorded.
    Recording,
    /// Events were read for an upload.
    Sending,
    /// A response arrived.
    Answer(&'a InFlightResponse),
    /// The user withdrew consent.
    Withdrawal,
    /// Any other call; it settles no event.
    Other,
}

impl Simulator {
    /// Notes that the event got the next sequence number.
    pub(super) fn assign_seq(&mut self, id: Id) {
        self.oracle.expected.seq += 1;
        self.oracle.queued.insert(self.oracle.expected.seq, id);
        self.oracle.expected.events.insert(id, Outcome::Queued);
    }

    /// Notes that the client rejected an event.
    pub(super) fn refuse(&mut self, error: &TrackError) {
        let reason = match error {
            TrackError::Invalid(_) => DropReason::Invalid,
            TrackError::ConsentDenied => DropReason::ConsentDenied,
            TrackError::QueueFull => {
                assert!(self.plan.full, "the queue has room");
                // The gap in the sequence shows the collector that an event is missing.
                self.oracle.expected.seq += 1;
                DropReason::QueueFull
            }
        };
        self.oracle.expected.refuse(reason, 1);
    }

    /// Records the outcome of events that have left the queue, and compares the ledgers. Runs after every call of the
    /// client.
    pub(super) fn reconcile(&mut self, cause: &Cause<'_>) {
        let waiting: BTreeSet<u64> = self.client.queued_seqs().into_iter().collect();
        let left: Vec<(u64, Id)> =
            self.oracle.queued.iter().filter(|(seq, _)| !waiting.contains(seq)).map(|(seq, id)| (*seq, *id)).collect();
        assert_eq!(waiting.len() + left.len(), self.oracle.queued.len(), "nothing waits that was not recorded");
        for (seq, id) in left {
            let outcome = self.outcome(id, cause);
            self.oracle.queued.remove(&seq);
            let certain = !matches!(outcome, Outcome::Evicted | Outcome::Lost);
            if !certain && self.oracle.sent.contains(&id) {
                self.oracle.ambiguous.insert(id);
            }
            self.oracle.expected.events.insert(id, outcome);
        }
        assert_eq!(
            self.client.ledger(),
            self.oracle.expected.ledger(),
            "the client's ledger (left) equals the oracle's (right)"
        );
        assert_eq!(self.client.last_seq(), self.oracle.expected.seq, "the sequence of an install");
        let (deleted, state_accepted) = {
            let contents = &mut *self.disk.0.borrow_mut();
            (std::mem::take(&mut contents.deleted), std::mem::take(&mut contents.state_accepted))
        };
        for id in deleted {
            let outcome = self.oracle.expected.events.get(&id);
            assert_ne!(outcome, Some(&Outcome::Queued), "deleted from the disk, and yet waiting: {id}");
        }
        // The only call that goes on after a commit is a poll, which may find further events lost. A restart would
        // count them as lost too, because they are missing on the disk.
        if state_accepted {
            self.oracle.durable = self.oracle.expected.clone();
        }
        self.take_snapshot();
    }

    /// Returns the outcome of an event that has left the queue.
    fn outcome(&self, id: Id, cause: &Cause<'_>) -> Outcome {
        let oracle = &self.oracle;
        match cause {
            Cause::Answer(response) => {
                assert!(response.genuine && response.events.contains(&id), "settled without a receipt: {id}");
                self.server.outcome(id).unwrap_or_else(|| panic!("the collector does not know it: {id}"))
            }
            Cause::Recording => {
                assert!(self.plan.full, "dropped, though the queue has room: {id}");
                assert!(!oracle.sent_now.contains(&id), "dropped, though it may be with the collector: {id}");
                let sent = oracle.sent.contains(&id) && !oracle.untraced.contains(&id);
                assert!(!sent, "dropped, though the disk knew that it may be with the collector: {id}");
                Outcome::Evicted
            }
            Cause::Sending => {
                assert!(oracle.damaged.contains(&id), "counted as lost, though the disk has it: {id}");
                Outcome::Lost
            }
            Cause::Withdrawal => Outcome::Withdrawn,
            Cause::Other => panic!("has left the queue for no reason: {id}"),
        }
    }
}
