//! Consent: holds events until the user has decided, and wipes what is stored on a refusal.

use super::inputs::RecordMeta;
use super::{Client, Input};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, Ledger, Now, Page, Theme, limits};

/// An event that waits for the user's decision. It has no sequence number yet.
pub(super) struct ConsentPendingEvent {
    id: Id,
    now: Now,
    mono: u64,
    /// Number of the context it was recorded in.
    context: u64,
    theme: Theme,
    code: String,
    props: String,
    page: Option<Page>,
    true_ts: Option<i64>,
    user: String,
}

impl ConsentPendingEvent {
    fn bytes(&self) -> usize {
        let page = self.page.as_ref().map_or(0, |page| page.path.len() + page.title.len() + page.referrer.len());
        size_of::<Self>() + self.code.len() + self.props.len() + self.user.len() + page
    }
}

impl<S: Store> Client<S> {
    /// Keeps the event in memory until the user decides. Over the limits, the oldest one is dropped.
    pub(super) fn hold_for_consent(&mut self, meta: &RecordMeta<'_>, input: Input<'_>) {
        self.queue.contexts.acquire(meta.context);
        self.consent_pending.push(ConsentPendingEvent {
            id: meta.id,
            now: meta.now,
            mono: meta.mono,
            context: meta.context,
            theme: input.theme,
            code: input.code.to_owned(),
            props: input.props.to_owned(),
            page: input.page.cloned(),
            true_ts: input.true_ts,
            user: meta.user.to_owned(),
        });
        while self.consent_pending.len() > limits::MAX_CONSENT_PENDING_EVENTS
            || self.consent_pending_bytes() > limits::MAX_CONSENT_PENDING_BYTES
        {
            let oldest = self.consent_pending.remove(0);
            self.queue.contexts.release(oldest.context);
            self.delete_unused_contexts();
            self.ledger.generated += 1;
            self.drop_events(DropReason::QueueFull, 1);
        }
    }

    fn consent_pending_bytes(&self) -> usize {
        self.consent_pending.iter().map(ConsentPendingEvent::bytes).sum::<usize>() + self.queue.contexts.bytes()
    }

    /// Queues the events that waited for consent.
    fn release_consent_pending(&mut self) {
        for event in std::mem::take(&mut self.consent_pending) {
            let meta = RecordMeta {
                id: event.id,
                now: event.now,
                mono: event.mono,
                context: event.context,
                user: &event.user,
            };
            let (page, true_ts) = (event.page.as_ref(), event.true_ts);
            let input = Input { theme: event.theme, code: &event.code, props: &event.props, page, true_ts };
            // The ledger counts a rejected event; `track` has returned already.
            let _ = self.record(&meta, input);
            // The event's record has acquired the context for itself.
            self.queue.contexts.release(event.context);
        }
        self.delete_unused_contexts();
    }

    /// Applies the user's decision.
    ///
    /// Granting queues the events that waited for it. Denying wipes everything that is stored or known about the
    /// person; the install ID is replaced at once. A later grant starts a new ledger.
    pub fn set_consent(&mut self, now: Now, consent: Consent) {
        let now = self.clock.read(now);
        self.consent = consent;
        match consent {
            Consent::Granted => {
                if std::mem::take(&mut self.wiped) {
                    self.ledger = Ledger::default();
                }
                self.release_consent_pending();
            }
            Consent::Denied => self.wipe(now),
            Consent::Unknown => {}
        }
        self.schedule_commit(now);
        self.write_buffer.schedule(now.mono);
        if consent == Consent::Denied {
            // Commits at once, ignoring the retry delay of a failing store, because personal data must not stay on the
            // medium.
            self.write_buffer.unblock();
            self.commit_changes(now);
        }
    }

    fn wipe(&mut self, now: Now) {
        self.wiped = true;
        self.install = self.random.id(now.wall);
        let pending = self.consent_pending.len() as u64;
        self.consent_pending.clear();
        self.ledger.generated += pending;
        self.drop_events(DropReason::ConsentDenied, pending);
        let queued = self.queue.len() as u64;
        self.drop_events(DropReason::ConsentWithdrawn, queued);
        self.write_buffer.discard_values();
        let (unbatched, batches) = self.queue.clear();
        for batch in &batches {
            self.write_buffer.delete(Key::Batch(batch.number));
        }
        for event in unbatched.iter().chain(batches.iter().flat_map(|batch| &batch.events)) {
            self.write_buffer.delete(Key::Event(event.seq));
        }
        for number in self.queue.contexts.clear() {
            self.write_buffer.delete(Key::Context(number));
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
