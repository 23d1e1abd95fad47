//! The first verb: what happened.

use subway_protocol::codec::encode::{Event, write_event};
use subway_protocol::json::{Reader, check_object};
use subway_protocol::limits::{EVENT_BYTES, MAX_TIME_MS};
use subway_protocol::outcome::Got;
use subway_protocol::theme::is_code;
use subway_protocol::{Limits, RejectReason, Violation};

use super::Client;
use super::state::{begin_event, members, write_members};
use crate::queue::{Class, Entry};
use crate::store::{Key, Store};
use crate::{Consent, DropReason, Id, Ledger, Now, Page, Theme, TrackError, limits};

/// One event as the developer gives it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What it is about.
    pub theme: Theme,
    /// Its name, `[A-Za-z_][A-Za-z0-9_.:-]{0,127}`.
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
            return Err(Violation::new(RejectReason::InvalidCode, "code", Some(Got::text(self.code))));
        }
        if let Some(true_ts) = self.true_ts
            && !(0..=MAX_TIME_MS).contains(&true_ts)
        {
            return Err(Violation {
                limit: Some(MAX_TIME_MS as u64),
                ..Violation::new(RejectReason::TimeOutOfRange, "true_ts", Some(Got::Number(true_ts)))
            });
        }
        if self.props.is_empty() { Ok(()) } else { check_object(self.props, "props", (&Limits::default()).into()) }
    }
}

/// An event that waits for the user's decision: everything but a place in the sequence.
pub(super) struct Held {
    id: Id,
    now: Now,
    /// The context it happened in.
    context: u64,
    theme: Theme,
    code: String,
    props: String,
    page: Option<Page>,
    true_ts: Option<i64>,
    user: String,
}

/// When and where an event happened.
struct Moment<'a> {
    id: Id,
    now: Now,
    context: u64,
    user: &'a str,
}

impl<S: Store> Client<S> {
    /// Records an event. Returns its identity.
    ///
    /// # Errors
    /// If it breaks a rule of the wire, the queue is full of more important events, or the user has not consented. The
    /// event is counted as dropped, and nothing else is affected.
    pub fn track(&mut self, now: Now, input: Input<'_>) -> Result<Id, TrackError> {
        if let Err(violation) = input.check() {
            return self.refuse(now, violation);
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
        let done = if self.consent == Consent::Granted {
            self.record(&Moment { id, now, context, user: &user }, input)
        } else {
            self.hold(&Moment { id, now, context, user: &user }, input);
            Ok(())
        };
        self.user = user;
        self.page = page;
        done.map(|()| id)
    }

    /// Keeps the event in memory until the user decides.
    fn hold(&mut self, moment: &Moment<'_>, input: Input<'_>) {
        if self.held.len() == limits::HELD_EVENTS {
            self.held.remove(0);
            self.ledger.generated += 1;
            self.drop_events(DropReason::QueueFull, 1);
        }
        self.held.push(Held {
            id: moment.id,
            now: moment.now,
            context: moment.context,
            theme: input.theme,
            code: input.code.to_owned(),
            props: input.props.to_owned(),
            page: input.page.cloned(),
            true_ts: input.true_ts,
            user: moment.user.to_owned(),
        });
    }

    /// Queues what was held, now that the user has agreed.
    fn release(&mut self) {
        for held in std::mem::take(&mut self.held) {
            let moment = Moment { id: held.id, now: held.now, context: held.context, user: &held.user };
            let (page, true_ts) = (held.page.as_ref(), held.true_ts);
            let input = Input { theme: held.theme, code: &held.code, props: &held.props, page, true_ts };
            // A refusal is counted in the ledger; nobody waits for the answer any more.
            let _ = self.record(&moment, input);
        }
    }

    fn refuse<T>(&mut self, now: Now, violation: Violation) -> Result<T, TrackError> {
        self.ledger.generated += 1;
        self.drop_events(DropReason::Invalid, 1);
        self.touch(now);
        Err(TrackError::Invalid(violation))
    }

    /// Gives the event its place and queues it.
    fn record(&mut self, moment: &Moment<'_>, input: Input<'_>) -> Result<(), TrackError> {
        let (now, context, class) = (moment.now, moment.context, Class::of(input.theme));
        let session = self.sessions.next(now, input.true_ts, &self.config, &mut self.random);
        let seq = self.seq + 1;
        let event = Event {
            id: moment.id,
            seq,
            theme: input.theme,
            code: input.code,
            ts: now.wall.clamp(0, MAX_TIME_MS),
            mono: now.mono,
            boot: &self.boot,
            true_ts: input.true_ts,
            user_id: moment.user,
            session: Some(session),
            page: input.page,
            props: input.props,
        };
        let mut record = String::with_capacity(input.props.len() + 512);
        begin_event(&mut record, class, context);
        let prefix = record.len();
        write_event(&mut record, &event);
        let bytes = record.len() - prefix;
        if bytes as u64 > EVENT_BYTES {
            return self.refuse(now, Violation::over(RejectReason::EventTooLarge, "", EVENT_BYTES, bytes as u64));
        }
        self.ledger.generated += 1;
        self.touch(now);
        self.seq = seq;
        let Some(gone) = self.queue.make_room(class, bytes, &self.config) else {
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
        Ok(())
    }

    /// The number of the context as it is now; a new one if something changed since the last event.
    fn current_context(&mut self) -> u64 {
        if self.context_known
            && let Some((number, _)) = self.contexts.last()
        {
            return *number;
        }
        self.context_known = true;
        let mut text = self.context.clone();
        if !self.common.is_empty() {
            text.push_str(if text.is_empty() { "\"common\":" } else { ",\"common\":" });
            write_members(&mut text, &self.common);
        }
        if let Some((number, last)) = self.contexts.last()
            && *last == text
        {
            return *number;
        }
        let number = self.next_context;
        self.next_context += 1;
        self.pending.put(Key::Context(number), text.clone());
        self.contexts.push((number, text));
        number
    }

    pub(super) fn context_text(&self, number: u64) -> &str {
        self.contexts.iter().find(|(other, _)| *other == number).map_or("", |(_, text)| text)
    }

    /// Forgets contexts that no waiting event was recorded in.
    pub(super) fn forget_contexts(&mut self) {
        let current = self.contexts.last().map(|(number, _)| *number);
        let (queue, held, pending) = (&self.queue, &self.held, &mut self.pending);
        self.contexts.retain(|(number, _)| {
            let held = held.iter().any(|event| event.context == *number);
            let used = Some(*number) == current || held || queue.uses(*number);
            if !used {
                pending.delete(Key::Context(*number));
            }
            used
        });
    }

    /// Names the user; events from now on carry it.
    ///
    /// # Errors
    /// If the name is empty or longer than the wire allows.
    pub fn identify(&mut self, now: Now, user_id: &str) -> Result<(), TrackError> {
        check_user(user_id).map_err(TrackError::Invalid)?;
        self.user = user_id.to_owned();
        self.touch(now);
        Ok(())
    }

    /// Forgets the user; the install stays the same.
    pub fn logout(&mut self, now: Now) {
        self.user.clear();
        self.touch(now);
    }

    /// Adds common properties, given as a JSON object, to every batch from the next event on. A name given before gets
    /// the new value.
    ///
    /// # Errors
    /// If the text is not a JSON object within the limits of properties; nothing is changed then.
    pub fn register(&mut self, now: Now, props: &str) -> Result<(), TrackError> {
        let fail = |_| TrackError::Invalid(Violation::new(RejectReason::InvalidField, "common", None));
        check_object(props, "common", (&Limits::default()).into()).map_err(TrackError::Invalid)?;
        let mut common = self.common.clone();
        for (name, value) in members(&mut Reader::new(props)).map_err(fail)? {
            match common.iter_mut().find(|(other, _)| *other == name) {
                Some(slot) => slot.1 = value,
                None => common.push((name, value)),
            }
        }
        let mut whole = String::new();
        write_members(&mut whole, &common);
        check_object(&whole, "common", (&Limits::default()).into()).map_err(TrackError::Invalid)?;
        if whole.len() as u64 > EVENT_BYTES {
            let violation = Violation::over(RejectReason::EventTooLarge, "common", EVENT_BYTES, whole.len() as u64);
            return Err(TrackError::Invalid(violation));
        }
        self.common = common;
        self.context_known = false;
        self.touch(now);
        Ok(())
    }

    /// Removes one common property.
    pub fn unregister(&mut self, now: Now, name: &str) {
        self.common.retain(|(other, _)| other != name);
        self.context_known = false;
        self.touch(now);
    }

    /// Removes all common properties.
    pub fn clear_registered(&mut self, now: Now) {
        self.common.clear();
        self.context_known = false;
        self.touch(now);
    }

    /// Tells about the app, the host and the device, from the next event on; see [`crate::Context::encode`].
    pub fn set_context(&mut self, context: &str) {
        if context != self.context {
            context.clone_into(&mut self.context);
            self.context_known = false;
        }
    }

    /// The page that events happen on from now on.
    pub fn set_page(&mut self, page: Option<Page>) {
        self.page = page;
    }

    /// The app came to the screen.
    pub fn foreground(&mut self, now: Now) {
        self.sessions.foreground(now, &self.config);
        self.touch(now);
    }

    /// The app left the screen, perhaps for ever: everything is to be persisted and sent now.
    pub fn background(&mut self, now: Now) {
        self.sessions.background(now);
        self.flush(now);
        self.pending.touch(now.mono);
    }

    /// Everything recorded so far is to be sent now, as far as the collector lets.
    pub fn flush(&mut self, now: Now) {
        self.upload.flush_to = self.seq;
        self.touch(now);
    }

    /// Starts measuring; a timer of this name that runs already begins anew.
    pub fn timer_start(&mut self, now: Now, name: &str) {
        self.timers.retain(|(other, _)| other != name);
        if self.timers.len() == limits::TIMERS {
            self.timers.remove(0);
        }
        self.timers.push((name.to_owned(), now.mono));
    }

    /// Ends measuring. Milliseconds since the start, by the monotonic clock; `None` if no such timer runs.
    pub fn timer_end(&mut self, now: Now, name: &str) -> Option<u64> {
        let at = self.timers.iter().position(|(other, _)| other == name)?;
        let (_, start) = self.timers.remove(at);
        Some(now.mono.saturating_sub(start))
    }

    /// The user's decision. Granting queues what was held; denying wipes everything that was stored or is known about
    /// the person, the install ID included. A later grant begins as a new install with a new ledger.
    pub fn set_consent(&mut self, now: Now, consent: Consent) {
        let before = std::mem::replace(&mut self.consent, consent);
        match consent {
            Consent::Granted => {
                if before == Consent::Denied {
                    self.install = self.random.id(now.wall);
                    self.ledger = Ledger::default();
                }
                self.release();
            }
            Consent::Denied => self.wipe(),
            Consent::Unknown => {}
        }
        self.touch(now);
        self.pending.touch(now.mono);
    }

    fn wipe(&mut self) {
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
        for (number, _) in std::mem::take(&mut self.contexts) {
            self.pending.delete(Key::Context(number));
        }
        self.context_known = false;
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

/// Checks the name of a user; [`Client::identify`] does so itself.
///
/// # Errors
/// If it is empty or longer than the wire allows.
pub fn check_user(user_id: &str) -> Result<(), Violation> {
    if user_id.is_empty() {
        return Err(Violation::new(RejectReason::MissingField, "user_id", None));
    }
    if user_id.len() > limits::TEXT_BYTES {
        let (limit, got) = (limits::TEXT_BYTES as u64, user_id.len() as u64);
        return Err(Violation::over(RejectReason::TextTooLong, "user_id", limit, got));
    }
    Ok(())
}
