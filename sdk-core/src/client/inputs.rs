//! Inputs: events, pages and app states that the host reports.

use subway_protocol::codec::encode::{Event, write_event};
use subway_protocol::json::check_object;
use subway_protocol::limits::{EVENT_BYTES, MAX_TIME_MS};
use subway_protocol::outcome::Actual;
use subway_protocol::theme::{is_code, is_usual_code};
use subway_protocol::{Limits, RejectReason, Violation};

use super::members::write_object;
use super::state::begin_event;
use super::{Client, concat};
use crate::queue::{Priority, QueuedEvent};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, Now, Page, Theme, TrackError};

/// One event as given by the developer.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Kind of event.
    pub theme: Theme,
    /// Event name: 1 to 128 bytes without control characters. A diagnostic, once per name, warns of names other than
    /// `[A-Za-z_][A-Za-z0-9_.:-]*`.
    pub code: &'a str,
    /// Properties as a JSON object; empty for none.
    pub props: &'a str,
    /// Page it happened on; `None` for the current one.
    pub page: Option<&'a Page>,
    /// True time, milliseconds since the epoch, if the caller knows better than the device's clock.
    pub true_ts: Option<i64>,
}

impl Input<'_> {
    /// Checks the event against the rules of the wire. [`Client::track`] calls it.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(&self) -> Result<(), Violation> {
        if !is_code(self.code) {
            return Err(Violation::new(RejectReason::InvalidCode, "code", Some(Actual::text(self.code))));
        }
        if let Some(true_ts) = self.true_ts
            && !(0..=MAX_TIME_MS).contains(&true_ts)
        {
            return Err(Violation {
                limit: Some(MAX_TIME_MS as u64),
                ..Violation::new(RejectReason::TimeOutOfRange, "true_ts", Some(Actual::Number(true_ts)))
            });
        }
        if self.props.is_empty() { Ok(()) } else { check_object(self.props, "props", (&Limits::default()).into()) }
    }
}

/// ID, time, context and user of an event that is being recorded.
pub(super) struct RecordMeta<'a> {
    pub(super) id: Id,
    /// Time by the client's clock.
    pub(super) now: Now,
    /// Time by the host's monotonic clock.
    pub(super) mono: u64,
    pub(super) context: u64,
    pub(super) user: &'a str,
}

impl<S: Store> Client<S> {
    /// Records an event and returns its ID.
    ///
    /// # Errors
    /// If the event breaks a rule of the wire, the queue is full of events of higher priority, or the user has not
    /// consented. The event is counted as dropped; the client is otherwise unchanged.
    pub fn track(&mut self, now: Now, input: Input<'_>) -> Result<Id, TrackError> {
        let (now, mono) = (self.clock.read(now), now.mono);
        if let Err(violation) = input.check() {
            return self.refuse(now, violation);
        }
        if !is_usual_code(input.code) {
            let text = concat("the event name ", input.code);
            self.diagnostic_once(concat(
                &text,
                " is unusual: letters, digits and _ . : - work everywhere; it is recorded",
            ));
        }
        if self.consent == Consent::Denied {
            self.ledger.generated += 1;
            self.drop_events(DropReason::ConsentDenied, 1);
            return Err(TrackError::ConsentDenied);
        }
        let (id, context) = (self.random.id(now.wall), self.current_context());
        // Moved out for this call, so that the texts are not copied.
        let (user, page) = (std::mem::take(&mut self.user), self.page.take());
        let input = Input { page: input.page.or(page.as_ref()), ..input };
        let meta = RecordMeta { id, now, mono, context, user: &user };
        let done = if self.consent == Consent::Granted {
            self.record(&meta, input)
        } else {
            self.hold_for_consent(&meta, input);
            Ok(())
        };
        self.user = user;
        self.page = page;
        done.map(|()| id)
    }

    fn refuse<T>(&mut self, now: Now, violation: Violation) -> Result<T, TrackError> {
        self.ledger.generated += 1;
        self.drop_events(DropReason::Invalid, 1);
        self.schedule_commit(now);
        Err(TrackError::Invalid(violation))
    }

    /// Assigns session and sequence number to the event and queues it.
    pub(super) fn record(&mut self, meta: &RecordMeta<'_>, input: Input<'_>) -> Result<(), TrackError> {
        let (now, context, priority) = (meta.now, meta.context, Priority::of(input.theme));
        let sessions = self.sessions.clone();
        let session = self.sessions.next(now, input.true_ts, &self.config, &mut self.random);
        let seq = self.seq + 1;
        let event = Event {
            id: meta.id,
            seq,
            theme: input.theme,
            code: input.code,
            ts: now.wall.clamp(0, MAX_TIME_MS),
            mono: meta.mono,
            boot: &self.boot,
            true_ts: input.true_ts,
            user_id: meta.user,
            session,
            page: input.page,
            props: input.props,
        };
        let mut record = String::with_capacity(input.props.len() + 512);
        begin_event(&mut record, priority, context);
        let prefix = record.len();
        write_event(&mut record, &event);
        let bytes = record.len() - prefix;
        if bytes as u64 > EVENT_BYTES {
            self.sessions = sessions;
            return self
                .refuse(now, Violation::limit_exceeded(RejectReason::EventTooLarge, "", EVENT_BYTES, bytes as u64));
        }
        self.ledger.generated += 1;
        self.schedule_commit(now);
        self.seq = seq;
        let Some(evicted) = self.queue.evict(priority, bytes, context, &self.config) else {
            self.drop_events(DropReason::QueueFull, 1);
            return Err(TrackError::QueueFull);
        };
        for event in &evicted {
            self.write_buffer.delete(Key::Event(event.seq));
        }
        self.drop_events(DropReason::QueueFull, evicted.len() as u64);
        if self.queue.unbatched_len() == 0 {
            self.upload.flush_at = now.mono + self.config.flush_interval_ms;
        }
        self.write_buffer.put(Key::Event(seq), record);
        self.queue.push(priority, QueuedEvent { seq, context, bytes });
        if let Some(text) = self.queue.contexts.take_unstored(context) {
            self.write_buffer.put(Key::Context(context), text);
        }
        self.delete_unused_contexts();
        Ok(())
    }

    /// Returns the number of the current context. Creates one if anything changed since the last event.
    fn current_context(&mut self) -> u64 {
        if let Some(number) = self.current_context {
            return number;
        }
        let mut text = self.context.clone();
        if !self.common.is_empty() {
            text.push_str(if text.is_empty() { "\"common\":" } else { ",\"common\":" });
            write_object(&mut text, &self.common);
        }
        let number = self.queue.contexts.intern(&text);
        self.current_context = Some(number);
        number
    }

    /// Deletes contexts from the store that no queued event refers to.
    pub(super) fn delete_unused_contexts(&mut self) {
        for number in self.queue.contexts.take_unused() {
            self.write_buffer.delete(Key::Context(number));
        }
    }

    /// Sets the current page for later events.
    pub fn set_page(&mut self, page: Option<Page>) {
        self.page = page;
    }

    /// Reports that the app came to the foreground.
    pub fn foreground(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.sessions.foreground(now, &self.config);
        self.schedule_commit(now);
    }

    /// Reports that the app went to the background. Everything is due for commit and upload now, because the host may
    /// kill the process.
    pub fn background(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.sessions.background(now);
        self.upload.flush_to = self.seq;
        self.write_buffer.schedule(now.mono);
    }

    /// Makes every event recorded so far due for upload. Retry delays still apply.
    pub fn flush(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.upload.flush_to = self.seq;
        self.schedule_commit(now);
    }
}
