//! What the client remembers between two lives, and how it is found again.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use super::Client;
use super::settings::{check_common, check_user};
use crate::queue::{Batch, Class, Entry, Frozen, SavedBatch};
use crate::session::Sessions;
use crate::store::{Key, LAST_NUMBER, Store, StoreError, counted};
use crate::{Consent, DropReason, Id, Ledger, Now};

/// What was found in the store.
#[derive(Default)]
pub(super) struct Saved {
    pub(super) salt: u64,
    pub(super) install: Option<Id>,
    pub(super) consent: Option<Consent>,
    pub(super) seq: u64,
    pub(super) user: String,
    pub(super) common: Vec<(String, String)>,
    pub(super) sessions: Sessions,
    pub(super) ledger: Ledger,
    /// How far events were frozen; `None` if none was.
    pub(super) frozen: Option<Frozen>,
    pub(super) contexts: Vec<(u64, String)>,
    pub(super) events: Vec<(Class, Entry)>,
    pub(super) batches: Vec<(u64, SavedBatch)>,
    /// Records that are there and make no sense.
    pub(super) unreadable: Vec<Key>,
}

/// Reads the whole store. Records that make no sense are as if they were not there.
pub(super) fn load(store: &mut impl Store) -> Result<Saved, StoreError> {
    let mut saved = Saved::default();
    store.scan(&mut |key, value| match key {
        Key::Context(number) | Key::Event(number) | Key::Batch(number) if number > LAST_NUMBER => {
            saved.unreadable.push(key);
        }
        Key::State => {
            let mut state = Saved::default();
            if state.read(value).is_ok() {
                saved = state;
            } else {
                // What was damaged behind it does not undo the user's decision.
                saved.consent = state.consent;
            }
        }
        Key::Context(number) => saved.contexts.push((number, value.to_owned())),
        Key::Event(seq) => {
            if let Some((class, context, json)) = split_event(value).filter(|(_, context, _)| *context <= LAST_NUMBER) {
                saved.events.push((class, Entry { seq, context, bytes: json.len() }));
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

/// Begins the record of an event: class digit, context number, colon; the event as JSON follows.
pub(super) fn begin_event(record: &mut String, class: Class, context: u64) {
    record.push(char::from(class.digit()));
    subway_protocol::json::write_integer(record, context as i64);
    record.push(':');
}

/// Takes a record apart again; see [`begin_event`].
pub(super) fn split_event(value: &str) -> Option<(Class, u64, &str)> {
    let colon = value.bytes().position(|byte| byte == b':')?;
    let class = Class::from_digit(*value.as_bytes().first()?)?;
    let context = u64::try_from(Reader::new(value.get(1..colon)?).integer().ok()?).ok()?;
    Some((class, context, &value[colon + 1..]))
}

impl Saved {
    fn read(&mut self, text: &str) -> Result<(), JsonError> {
        Reader::new(text).object(|name, reader| {
            match name {
                "salt" => self.salt = reader.string()?.parse().unwrap_or(0),
                "install" => self.install = Id::parse(&reader.string()?),
                "consent" => self.consent = Consent::parse(&reader.string()?),
                "seq" => self.seq = counted(reader)?,
                // What the collector would refuse, and every later event with it, is as good as lost.
                "user" => {
                    self.user = Some(reader.string()?).filter(|user| check_user(user).is_ok()).unwrap_or_default()
                }
                "common" => {
                    let common = reader.raw()?;
                    if check_common(common).is_ok() {
                        self.common = members(&mut Reader::new(common))?;
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

/// The members of an object: names with their values as JSON.
pub(super) fn members(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, JsonError> {
    let mut members = Vec::new();
    reader.object(|name, reader| {
        let value = reader.raw()?.to_owned();
        members.push((name.to_owned(), value));
        Ok(())
    })?;
    Ok(members)
}

/// The reverse of [`members`].
pub(super) fn write_members(out: &mut String, members: &[(String, String)]) {
    let mut object = ObjectWriter::new(out);
    for (name, value) in members {
        object.raw(name, value);
    }
    object.end();
}

impl<S: Store> Client<S> {
    /// The state record. After a withdrawal it says that and nothing about the person.
    pub(super) fn encode_state(&self, salt: u64, common: &[(String, String)]) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.field("salt").push_str(&quoted(salt));
        // A withdrawal stands in the store until the user agrees anew.
        let consent = if self.wiped { Consent::Denied } else { self.consent };
        object.string("consent", consent.as_str());
        self.ledger().write(object.field("ledger"));
        if self.consent == Consent::Granted {
            object.id("install", self.install);
            object.integer("seq", self.seq as i64);
            object.non_empty_string("user", &self.user);
            write_members(object.field("common"), common);
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

    /// Takes over what waits from an earlier life, and mends what the medium has damaged.
    pub(super) fn restore(
        &mut self,
        contexts: Vec<(u64, String)>,
        events: Vec<(Class, Entry)>,
        batches: Vec<(u64, SavedBatch)>,
        unreadable: Vec<Key>,
        now: Now,
    ) {
        self.next_batch = batches.last().map_or(1, |(number, ..)| number + 1);
        let named = events.iter().map(|(_, entry)| entry.context).max().unwrap_or(0);
        self.queue.contexts.restore(contexts, named);
        self.seq = self.seq.max(events.last().map_or(0, |(_, entry)| entry.seq));
        let mut loose: Vec<Option<(Class, Entry)>> = events.into_iter().map(Some).collect();
        for (number, saved) in batches {
            let entries = take(&mut loose, &saved.seqs);
            let first_sent_at = saved.first_sent_at.unwrap_or(now.wall.max(0));
            self.queue.count(&entries);
            let whole = entries.len() == saved.seqs.len() && !entries.is_empty();
            if !whole || saved.first_sent_at.is_none() {
                self.pending.delete(Key::Batch(number));
            }
            if whole {
                let batch = Batch { number, id: saved.id, first_sent_at, entries, unreadable: 0, retry_at: 0 };
                if saved.first_sent_at.is_none() {
                    self.pending.put(Key::Batch(number), batch.encode());
                }
                self.queue.freeze(batch);
            } else if !entries.is_empty() {
                self.freeze(entries, first_sent_at, now);
            }
        }
        for (class, entry) in loose.into_iter().flatten() {
            self.queue.push(class, entry);
        }
        for key in unreadable {
            self.pending.delete(key);
        }
        self.forget_contexts();
        self.balance();
    }

    /// Freezes events that were in a batch which is not in the store: it was refused, or the medium has lost it.
    pub(super) fn freeze_again(&mut self, frozen: Option<Frozen>, now: Now) {
        let Some(Frozen { to, since }) = frozen else { return };
        while self.queue.oldest_loose().is_some_and(|oldest| oldest <= to) {
            let entries = self.queue.gather_to(to, self.upload.batch_events, self.config.batch_bytes);
            self.freeze(entries, since, now);
        }
    }

    /// Makes the ledger true again if the medium lost events, or an old state came back.
    fn balance(&mut self) {
        self.ledger.queued = self.queue.rows() as u64;
        let accounted = self.ledger.accounted();
        if self.ledger.generated > accounted {
            let lost = self.ledger.generated - accounted;
            self.drop_events(DropReason::StorageLost, lost);
        }
        self.ledger.generated = self.ledger.generated.max(accounted);
    }
}

fn read_frozen(reader: &mut Reader<'_>) -> Result<Frozen, JsonError> {
    let mut frozen = Frozen { to: 0, since: 0 };
    reader.object(|name, reader| {
        match name {
            "to" => frozen.to = counted(reader)?,
            "since" => frozen.since = reader.integer()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(frozen)
}

/// Takes the entries with these sequence numbers out of `events`, which is in order of sequence.
fn take(events: &mut [Option<(Class, Entry)>], seqs: &[u64]) -> Vec<Entry> {
    let mut taken = Vec::with_capacity(seqs.len());
    let mut at = 0;
    for seq in seqs {
        while at < events.len() && events[at].is_none_or(|(_, entry)| entry.seq < *seq) {
            at += 1;
        }
        if let Some(slot) = events.get_mut(at)
            && slot.is_some_and(|(_, entry)| entry.seq == *seq)
            && let Some((_, entry)) = slot.take()
        {
            taken.push(entry);
        }
    }
    taken
}

fn quoted(number: u64) -> String {
    let mut out = String::from("\"");
    // Numbers beyond 2^53 are texts in JSON.
    subway_protocol::json::write_unsigned(&mut out, number);
    out.push('"');
    out
}
