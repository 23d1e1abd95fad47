//! The first verb: what happened.

use subway_protocol::codec::encode::{Event, write_event};
use subway_protocol::json::check_object;
use subway_protocol::limits::{EVENT_BYTES, MAX_TIME_MS};
use subway_protocol::outcome::Actual;
use subway_protocol::theme::{is_code, is_usual_code};
use subway_protocol::{Limits, RejectReason, Violation};

use super::state::{begin_event, write_members};
use super::{Client, joined};
use crate::queue::{Class, Entry};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, Now, Page, Theme, TrackError};

/// One event as the developer gives it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What it is about.
    pub theme: Theme,
    /// Its name: 1 to 128 bytes without control characters. Others than `[A-Za-z_][A-Za-z0-9_.:-]*` are told of once.
    pub code: &'a str,
    /// Properties as a JSON object; empty for none.
    pub props: &'a str,
    /// The page it happened on; `None` for the current one.
    pub page: Option<&'a Page>,
    /// When it truly happened, milliseconds since the epoch, if the caller knows better than the device's clock.
    pub true_ts: Option<i64>,
}

impl Input<'_> {
    /// Checks the event against the rules of the wire; [`Client::track`] does so itself.
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

/// When and where an event happened.
pub(super) struct Moment<'a> {
    pub(super) id: Id,
    /// By the client's clock.
    pub(super) now: Now,
    /// By the host's monotonic clock.
    pub(super) mono: u64,
    pub(super) context: u64,
    pub(super) user: &'a str,
}

impl<S: Store> Client<S> {
    /// Records an event. Returns its identity.
    ///
    /// # Errors
    /// If it breaks a rule of the wire, the queue is full of more important events, or the user has not consented. The
    /// event is counted as dropped, and nothing else is affected.
    pub fn track(&mut self, now: Now, input: Input<'_>) -> Result<Id, TrackError> {
        let (now, mono) = (self.clock.read(now), now.mono);
        if let Err(violation) = input.check() {
            return self.refuse(now, violation);
        }
        if !is_usual_code(input.code) {
            let text = joined("the event name ", input.code);
            self.notice_once(joined(&text, " is unusual: letters, digits and _ . : - work everywhere; it is recorded"));
        }
        if self.consent == Consent::Denied {
            self.ledger.generated += 1;
            self.drop_events(DropReason::ConsentDenied, 1);
            return Err(TrackError::ConsentDenied);
        }
        let (id, context) = (self.random.id(now.wall), self.current_context());
        // Lent for this call, so that nothing is copied.
        let (user, page) = (std::mem::take(&mut self.user), self.page.take());
        let input = Input { page: input.page.or(page.as_ref()), ..input };
        let moment = Moment { id, now, mono, context, user: &user };
        let done = if self.consent == Consent::Granted {
            self.record(&moment, input)
        } else {
            self.hold(&moment, input);
            Ok(())
        };
        self.user = user;
        self.page = page;
        done.map(|()| id)
    }

    fn refuse<T>(&mut self, now: Now, violation: Violation) -> Result<T, TrackError> {
        self.ledger.generated += 1;
        self.drop_events(DropReason::Invalid, 1);
        self.touch(now);
        Err(TrackError::Invalid(violation))
    }

    /// Gives the event its place and queues it.
    pub(super) fn record(&mut self, moment: &Moment<'_>, input: Input<'_>) -> Result<(), TrackError> {
        let (now, context, class) = (moment.now, moment.context, Class::of(input.theme));
        let sessions = self.sessions.clone();
        let session = self.sessions.next(now, input.true_ts, &self.config, &mut self.random);
        let seq = self.seq + 1;
        let event = Event {
            id: moment.id,
            seq,
            theme: input.theme,
            code: input.code,
            ts: now.wall.clamp(0, MAX_TIME_MS),
            mono: moment.mono,
            boot: &self.boot,
            true_ts: input.true_ts,
            user_id: moment.user,
            session,
            page: input.page,
            props: input.props,
        };
        let mut record = String::with_capacity(input.props.len() + 512);
        begin_event(&mut record, class, context);
        let prefix = record.len();
        write_event(&mut record, &event);
        let bytes = record.len() - prefix;
        if bytes as u64 > EVENT_BYTES {
            self.sessions = sessions;
            return self
                .refuse(now, Violation::limit_exceeded(RejectReason::EventTooLarge, "", EVENT_BYTES, bytes as u64));
        }
        self.ledger.generated += 1;
        self.touch(now);
        self.seq = seq;
        let Some(gone) = self.queue.make_room(class, bytes, context, &self.config) else {
            self.drop_events(DropReason::QueueFull, 1);
            return Err(TrackError::QueueFull);
        };
        for entry in &gone {
            self.pending.delete(Key::Event(entry.seq));
        }
        self.drop_events(DropReason::QueueFull, gone.len() as u64);
        if self.queue.loose_rows() == 0 {
            self.upload.flush_at = now.mono + self.config.flush_interval_ms;
        }
        self.pending.put(Key::Event(seq), record);
        self.queue.push(class, Entry { seq, context, bytes });
        if let Some(text) = self.queue.contexts.take_untold(context) {
            self.pending.put(Key::Context(context), text);
        }
        self.forget_contexts();
        Ok(())
    }

    /// The number of the context as it is now; a new one if something changed since the last event.
    fn current_context(&mut self) -> u64 {
        if let Some(number) = self.current_context {
            return number;
        }
        let mut text = self.context.clone();
        if !self.common.is_empty() {
            text.push_str(if text.is_empty() { "\"common\":" } else { ",\"common\":" });
            write_members(&mut text, &self.common);
        }
        let number = self.queue.contexts.enter(&text);
        self.current_context = Some(number);
        number
    }

    /// The store forgets contexts that no waiting event was recorded in.
    pub(super) fn forget_contexts(&mut self) {
        for number in self.queue.contexts.take_unused() {
            self.pending.delete(Key::Context(number));
        }
    }

    /// The page that events happen on from now on.
    pub fn set_page(&mut self, page: Option<Page>) {
        self.page = page;
    }

    /// The app came to the screen.
    pub fn foreground(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.sessions.foreground(now, &self.config);
        self.touch(now);
    }

    /// The app left the screen, perhaps for ever: everything is to be persisted and sent now.
    pub fn background(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.sessions.background(now);
        self.upload.flush_to = self.seq;
        self.pending.touch(now.mono);
    }

    /// Everything recorded so far is to be sent now, as far as the collector lets.
    pub fn flush(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.upload.flush_to = self.seq;
        self.touch(now);
    }
}
