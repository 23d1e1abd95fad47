//! State that outlives a run: how it is encoded, loaded and restored.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use super::Client;
use super::members::{parse_object, write_object};
use super::settings::{check_common, check_user};
use crate::queue::{Batch, FrozenRange, PersistedBatch, Priority, QueuedEvent};
use crate::session::Sessions;
use crate::store::{Key, LAST_NUMBER, Store, StoreError, read_count};
use crate::{Consent, DropReason, Id, Ledger, Now};

/// Records loaded from the store.
#[derive(Default)]
pub(super) struct PersistedState {
    pub(super) salt: u64,
    pub(super) install: Option<Id>,
    pub(super) consent: Option<Consent>,
    pub(super) seq: u64,
    pub(super) user: String,
    pub(super) common: Vec<(String, String)>,
    pub(super) sessions: Sessions,
    pub(super) ledger: Ledger,
    /// How far events are frozen; `None` if none is.
    pub(super) frozen: Option<FrozenRange>,
    pub(super) contexts: Vec<(u64, String)>,
    pub(super) events: Vec<(Priority, QueuedEvent)>,
    pub(super) batches: Vec<(u64, PersistedBatch)>,
    /// Keys of records that cannot be decoded.
    pub(super) unreadable: Vec<Key>,
}

/// Loads the whole store. Records that cannot be decoded are treated as missing.
pub(super) fn load(store: &mut impl Store) -> Result<PersistedState, StoreError> {
    let mut saved = PersistedState::default();
    store.scan(&mut |key, value| match key {
        Key::Context(number) | Key::Event(number) | Key::Batch(number) if number > LAST_NUMBER => {
            saved.unreadable.push(key);
        }
        Key::State => {
            let mut state = PersistedState::default();
            if state.read(value).is_ok() {
                saved = state;
            } else {
                // Damage after the field `consent` does not revoke the user's decision.
                saved.consent = state.consent;
            }
        }
        Key::Context(number) => saved.contexts.push((number, value.to_owned())),
        Key::Event(seq) => {
            if let Some((priority, context, json)) =
                split_event(value).filter(|(_, context, _)| *context <= LAST_NUMBER)
            {
                saved.events.push((priority, QueuedEvent { seq, context, bytes: json.len() }));
            } else {
                saved.unreadable.push(key);
            }
        }
        Key::Batch(number) => match Batch::decode(value) {
            Ok(batch) => saved.batches.push((number, batch)),
            Err(_) => saved.unreadable.push(key),
        },
    })?;
    Ok(saved)
}

/// Starts the record of an event: priority digit, context number, colon. The event as JSON follows.
pub(super) fn begin_event(record: &mut String, priority: Priority, context: u64) {
    record.push(char::from(priority.digit()));
    subway_protocol::json::write_integer(record, context as i64);
    record.push(':');
}

/// Parses a record; the inverse of [`begin_event`].
pub(super) fn split_event(value: &str) -> Option<(Priority, u64, &str)> {
    let colon = value.bytes().position(|byte| byte == b':')?;
    let priority = Priority::from_digit(*value.as_bytes().first()?)?;
    let context = u64::try_from(Reader::new(value.get(1..colon)?).integer().ok()?).ok()?;
    Some((priority, context, &value[colon + 1..]))
}

impl PersistedState {
    fn read(&mut self, text: &str) -> Result<(), JsonError> {
        Reader::new(text).object(|name, reader| {
            match name {
                "salt" => self.salt = reader.string()?.parse().unwrap_or(0),
                "install" => self.install = Id::parse(&reader.string()?),
                "consent" => self.consent = Consent::parse(&reader.string()?),
                "seq" => self.seq = read_count(reader)?,
                // Dropped if the collector would refuse it, because it would refuse every later event with it.
                "user" => {
                    self.user = Some(reader.string()?).filter(|user| check_user(user).is_ok()).unwrap_or_default()
                }
                "common" => {
                    let common = reader.raw()?;
                    if check_common(common).is_ok() {
                        self.common = parse_object(&mut Reader::new(common))?;
                    }
                }
                "session" => self.sessions = Sessions::read(reader)?,
                "ledger" => self.ledger = Ledger::read(reader)?,
                "frozen" => self.frozen = Some(read_frozen(reader)?),
                _ => reader.skip()?,
            }
            Ok(())
        })
    }
}

impl<S: Store> Client<S> {
    /// Encodes the state record. After a withdrawal it holds the decision and nothing about the person.
    pub(super) fn encode_state(&self, salt: u64, common: &[(String, String)]) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.field("salt").push_str(&quoted(salt));
        // A withdrawal stays in the store until the user grants consent again.
        let consent = if self.wiped { Consent::Denied } else { self.consent };
        object.string("consent", consent.as_str());
        self.ledger().write(object.field("ledger"));
        if self.consent == Consent::Granted {
            object.id("install", self.install);
            object.integer("seq", self.seq as i64);
            object.non_empty_string("user", &self.user);
            write_object(object.field("common"), common);
            self.sessions.write(object.field("session"));
            if let Some(frozen) = self.queue.frozen() {
                object.object("frozen", |inner| {
                    inner.integer("to", frozen.to as i64);
                    inner.integer("since", frozen.since);
                });
            }
        }
        object.end();
        out
    }

    /// Restores queued events and batches of an earlier run, and repairs damaged records.
    pub(super) fn restore(
        &mut self,
        contexts: Vec<(u64, String)>,
        events: Vec<(Priority, QueuedEvent)>,
        batches: Vec<(u64, PersistedBatch)>,
        unreadable: Vec<Key>,
        now: Now,
    ) {
        self.next_batch = batches.last().map_or(1, |(number, ..)| number + 1);
        let named = events.iter().map(|(_, event)| event.context).max().unwrap_or(0);
        self.queue.contexts.restore(contexts, named);
        self.seq = self.seq.max(events.last().map_or(0, |(_, event)| event.seq));
        let mut unbatched: Vec<Option<(Priority, QueuedEvent)>> = events.into_iter().map(Some).collect();
        for (number, saved) in batches {
            let events = take_events(&mut unbatched, &saved.seqs);
            let first_sent_at = saved.first_sent_at.unwrap_or(now.wall.max(0));
            self.queue.acquire(&events);
            let whole = events.len() == saved.seqs.len() && !events.is_empty();
            if !whole || saved.first_sent_at.is_none() {
                self.write_buffer.delete(Key::Batch(number));
            }
            if whole {
                let batch = Batch { number, id: saved.id, first_sent_at, events, unreadable: 0, retry_at: 0 };
                if saved.first_sent_at.is_none() {
                    self.write_buffer.put(Key::Batch(number), batch.encode());
                }
                self.queue.freeze(batch);
            } else if !events.is_empty() {
                self.freeze(events, first_sent_at, now);
            }
        }
        for (priority, event) in unbatched.into_iter().flatten() {
            self.queue.push(priority, event);
        }
        for key in unreadable {
            self.write_buffer.delete(key);
        }
        self.delete_unused_contexts();
        self.restore_balance();
    }

    /// Freezes events again whose batch is not in the store: its record was refused, or the medium lost it.
    pub(super) fn refreeze(&mut self, frozen: Option<FrozenRange>, now: Now) {
        let Some(FrozenRange { to, since }) = frozen else { return };
        while self.queue.oldest_unbatched_seq().is_some_and(|oldest| oldest <= to) {
            let events = self.queue.take_batch_up_to(to, self.upload.max_batch_events, self.config.max_batch_bytes);
            self.freeze(events, since, now);
        }
    }

    /// Restores the ledger's balance if the medium lost events or returned an old state.
    fn restore_balance(&mut self) {
        self.ledger.queued = self.queue.len() as u64;
        let accounted = self.ledger.accounted();
        if self.ledger.generated > accounted {
            let lost = self.ledger.generated - accounted;
            self.drop_events(DropReason::StorageLost, lost);
        }
        self.ledger.generated = self.ledger.generated.max(accounted);
    }
}

fn read_frozen(reader: &mut Reader<'_>) -> Result<FrozenRange, JsonError> {
    let mut frozen = FrozenRange { to: 0, since: 0 };
    reader.object(|name, reader| {
        match name {
            "to" => frozen.to = read_count(reader)?,
            "since" => frozen.since = reader.integer()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(frozen)
}

/// Removes and returns the events with these sequence numbers. `events` is ordered by sequence number.
fn take_events(events: &mut [Option<(Priority, QueuedEvent)>], seqs: &[u64]) -> Vec<QueuedEvent> {
    let mut taken = Vec::with_capacity(seqs.len());
    let mut at = 0;
    for seq in seqs {
        while at < events.len() && events[at].is_none_or(|(_, event)| event.seq < *seq) {
            at += 1;
        }
        if let Some(slot) = events.get_mut(at)
            && slot.is_some_and(|(_, event)| event.seq == *seq)
            && let Some((_, event)) = slot.take()
        {
            taken.push(event);
        }
    }
    taken
}

fn quoted(number: u64) -> String {
    let mut out = String::from("\"");
    // Encoded as a text, because JSON numbers are exact only up to 2^53.
    subway_protocol::json::write_unsigned(&mut out, number);
    out.push('"');
    out
}
