//! The user's decision: what is held until there is one, and what goes when it is no.

use super::inputs::Moment;
use super::{Client, Input};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, Ledger, Now, Page, Theme, limits};

/// An event that waits for the user's decision: everything but a place in the sequence.
pub(super) struct Held {
    id: Id,
    now: Now,
    mono: u64,
    /// The context it happened in.
    context: u64,
    theme: Theme,
    code: String,
    props: String,
    page: Option<Page>,
    true_ts: Option<i64>,
    user: String,
}

impl Held {
    fn bytes(&self) -> usize {
        let page = self.page.as_ref().map_or(0, |page| page.path.len() + page.title.len() + page.referrer.len());
        size_of::<Self>() + self.code.len() + self.props.len() + self.user.len() + page
    }
}

impl<S: Store> Client<S> {
    /// Keeps the event in memory until the user decides.
    pub(super) fn hold(&mut self, moment: &Moment<'_>, input: Input<'_>) {
        self.queue.contexts.acquire(moment.context);
        self.held.push(Held {
            id: moment.id,
            now: moment.now,
            mono: moment.mono,
            context: moment.context,
            theme: input.theme,
            code: input.code.to_owned(),
            props: input.props.to_owned(),
            page: input.page.cloned(),
            true_ts: input.true_ts,
            user: moment.user.to_owned(),
        });
        while self.held.len() > limits::HELD_EVENTS || self.held_bytes() > limits::HELD_BYTES {
            let oldest = self.held.remove(0);
            self.queue.contexts.release(oldest.context);
            self.forget_contexts();
            self.ledger.generated += 1;
            self.drop_events(DropReason::QueueFull, 1);
        }
    }

    fn held_bytes(&self) -> usize {
        self.held.iter().map(Held::bytes).sum::<usize>() + self.queue.contexts.bytes()
    }

    /// Queues what was held, now that the user has agreed.
    fn release(&mut self) {
        for held in std::mem::take(&mut self.held) {
            let moment =
                Moment { id: held.id, now: held.now, mono: held.mono, context: held.context, user: &held.user };
            let (page, true_ts) = (held.page.as_ref(), held.true_ts);
            let input = Input { theme: held.theme, code: &held.code, props: &held.props, page, true_ts };
            // A refusal is counted in the ledger; nobody waits for the answer any more.
            let _ = self.record(&moment, input);
            // The event's record counts as a use of its own.
            self.queue.contexts.release(held.context);
        }
        self.forget_contexts();
    }

    /// The user's decision. Granting queues what was held; denying wipes everything that was stored or is known about
    /// the person, the install ID included, which is replaced at once. A later grant begins a new ledger.
    pub fn set_consent(&mut self, now: Now, consent: Consent) {
        let now = self.clock.read(now);
        self.consent = consent;
        match consent {
            Consent::Granted => {
                if std::mem::take(&mut self.wiped) {
                    self.ledger = Ledger::default();
                }
                self.release();
            }
            Consent::Denied => self.wipe(now),
            Consent::Unknown => {}
        }
        self.touch(now);
        self.pending.touch(now.mono);
        if consent == Consent::Denied {
            // At once, and whatever the store refused before: nothing more of the person may be found.
            self.pending.unblock();
            self.store_changes(now);
        }
    }

    fn wipe(&mut self, now: Now) {
        self.wiped = true;
        self.install = self.random.id(now.wall);
        let held = self.held.len() as u64;
        self.held.clear();
        self.ledger.generated += held;
        self.drop_events(DropReason::ConsentDenied, held);
        let rows = self.queue.rows() as u64;
        self.drop_events(DropReason::ConsentWithdrawn, rows);
        self.pending.forget_values();
        let (loose, batches) = self.queue.clear();
        for batch in &batches {
            self.pending.delete(Key::Batch(batch.number));
        }
        for entry in loose.iter().chain(batches.iter().flat_map(|batch| &batch.entries)) {
            self.pending.delete(Key::Event(entry.seq));
        }
        for number in self.queue.contexts.clear() {
            self.pending.delete(Key::Context(number));
        }
        self.current_context = None;
        self.seq = 0;
        self.user.clear();
        self.common.clear();
        self.page = None;
        self.timers.clear();
        self.sessions = crate::session::Sessions::default();
        self.upload.in_flight = None;
        self.upload.flush_to = 0;
    }
}
