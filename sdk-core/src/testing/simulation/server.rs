//! A collector that keeps the contract, behind a network that does not.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use subway_protocol::codec::problem::TYPE_PREFIX;
use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use super::Defect;
use super::books::Outcome;
use crate::Id;

/// Events with this code are rejected.
pub(super) const BAD: &str = "bad";
/// A batch with an event of this code is refused as a whole (400).
pub(super) const POISON: &str = "poison";
/// A batch with an event of this code is refused as a whole, because it is too large (413).
pub(super) const HUGE: &str = "huge";

/// What the collector knows.
#[derive(Default)]
pub(super) struct Server {
    /// Most events in a batch; more are refused (413).
    most_events: usize,
    /// Every event stored, once, and the install that sent it.
    pub(super) stored: BTreeMap<Id, Id>,
    /// Every event rejected.
    pub(super) rejected: BTreeSet<Id>,
    /// Every event that was refused alone, and with which of the two statuses.
    pub(super) refused: BTreeMap<Id, Outcome>,
    /// Which events each batch carried when it was first seen, and when it says it was first sent.
    batches: BTreeMap<Id, (Vec<Id>, i64)>,
    /// When each event was first sent.
    first_sent: BTreeMap<Id, i64>,
    /// Which event had which place in the sequence of its install.
    sequence: BTreeMap<(Id, u64), Id>,
    /// Events that came again.
    pub(super) duplicates: u64,
    /// Events of which no later life of the client knows: its storage took neither them nor a state that counts them, so
    /// that their places in the sequence are given again.
    pub(super) forgotten: BTreeSet<Id>,
    /// Events whose context the client's storage has lost: they come without.
    pub(super) context_lost: BTreeSet<Id>,
    /// Events that come in a new batch, because the client's storage has no record of the one they were sent in; and
    /// whether its state says how old that may be.
    pub(super) rebatched: BTreeMap<Id, bool>,
    defect: Defect,
}

/// One event as it came.
struct Event {
    id: Id,
    seq: u64,
    code: String,
    version: String,
}

#[derive(Default)]
struct Batch {
    id: Option<Id>,
    install: Option<Id>,
    first_sent_at: i64,
    version: String,
    events: Vec<Event>,
}

impl Server {
    /// A collector that takes at most so many events in a batch.
    pub(super) fn new(most_events: usize, defect: Defect) -> Self {
        Self { most_events, defect, ..Self::default() }
    }

    /// The events of a batch.
    pub(super) fn ids(body: &str) -> Vec<Id> {
        read(body).map(|batch| batch.events.iter().map(|event| event.id).collect()).unwrap_or_default()
    }

    /// What became of an event here.
    pub(super) fn outcome(&self, id: Id) -> Option<Outcome> {
        if self.stored.contains_key(&id) {
            Some(Outcome::Acked)
        } else if self.rejected.contains(&id) {
            Some(Outcome::Rejected)
        } else {
            self.refused.get(&id).copied()
        }
    }

    /// Takes a batch, answers with status and body.
    ///
    /// # Panics
    /// If the client broke the contract: a batch that changed, a place in the sequence taken twice, events out of order,
    /// an event under a context it was not recorded in.
    pub(super) fn take(&mut self, body: &str) -> (u16, String) {
        let batch = read(body).unwrap_or_else(|error| panic!("not a batch: {error:?} {body}"));
        let (Some(id), Some(install)) = (batch.id, batch.install) else { panic!("no identity: {body}") };
        assert!(!batch.events.is_empty(), "a batch has an event");
        assert!(batch.events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "events are in order");
        let ids: Vec<Id> = batch.events.iter().map(|event| event.id).collect();
        let first = self.batches.entry(id).or_insert_with(|| (ids.clone(), batch.first_sent_at));
        assert_eq!(*first, (ids, batch.first_sent_at), "a batch is frozen, and so is when it was first sent");
        for event in &batch.events {
            self.check(event, &batch, install);
        }
        let has = |code: &str| batch.events.iter().any(|event| event.code == code);
        let (status, code, outcome) = if batch.events.len() > self.most_events || has(HUGE) {
            (413, "too_many_events", Outcome::TooLarge)
        } else if has(POISON) {
            (400, "invalid_field", Outcome::Poison)
        } else {
            return (200, self.store(id, install, &batch.events));
        };
        if let [event] = batch.events.as_slice() {
            self.refused.insert(event.id, outcome);
        }
        (status, problem(status, code))
    }

    fn check(&mut self, event: &Event, batch: &Batch, install: Id) {
        assert!(event.seq > 0, "sequence numbers begin at 1");
        let known = self.sequence.entry((install, event.seq)).or_insert(event.id);
        if self.forgotten.contains(known) {
            *known = event.id;
        }
        assert_eq!(*known, event.id, "a sequence number belongs to one event");
        let context = if self.context_lost.contains(&event.id) { "" } else { event.version.as_str() };
        assert_eq!(batch.version, context, "an event is sent with the context it was recorded in");
        let first = *self.first_sent.entry(event.id).or_insert(batch.first_sent_at);
        if let Some(marked) = self.rebatched.remove(&event.id) {
            assert!(!marked || batch.first_sent_at <= first, "an event does not become younger");
            self.first_sent.insert(event.id, batch.first_sent_at);
        } else {
            assert_eq!(first, batch.first_sent_at, "an event keeps when it was first sent");
        }
    }

    fn store(&mut self, id: Id, install: Id, events: &[Event]) -> String {
        let mut out = String::new();
        let mut receipt = ObjectWriter::new(&mut out);
        receipt.id("batch_id", id);
        receipt.integer("server_time", 0);
        let (mut stored, mut duplicate, mut rejected) = (0, Vec::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            if event.code == BAD {
                self.rejected.insert(event.id);
                rejected.push(format!(r#"{{"index":{index},"reason":"invalid_field"}}"#));
            } else if let Entry::Vacant(place) = self.stored.entry(event.id) {
                stored += 1;
                if self.defect != Defect::LyingCollector || index > 0 {
                    place.insert(install);
                }
            } else {
                duplicate.push(index.to_string());
            }
        }
        self.duplicates += duplicate.len() as u64;
        receipt.integer("stored", stored);
        receipt.raw("duplicate", &format!("[{}]", duplicate.join(",")));
        receipt.raw("rejected", &format!("[{}]", rejected.join(",")));
        receipt.end();
        out
    }
}

/// What the collector says of a request that it refuses.
fn problem(status: u16, code: &str) -> String {
    format!(r#"{{"type":"{TYPE_PREFIX}{code}","title":"","status":{status},"detail":"","code":"{code}"}}"#)
}

fn read(body: &str) -> Result<Batch, JsonError> {
    let mut batch = Batch::default();
    let mut reader = Reader::new(body);
    reader.object(|name, reader| {
        match name {
            "batch_id" => batch.id = Id::parse(&reader.string()?),
            "install_id" => batch.install = Id::parse(&reader.string()?),
            "first_sent_at" => batch.first_sent_at = reader.integer()?,
            "app" => reader.object(|_, reader| {
                batch.version = reader.string()?;
                Ok(())
            })?,
            "events" => reader.array(|reader| {
                batch.events.push(event(reader)?);
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(batch)
}

fn event(reader: &mut Reader<'_>) -> Result<Event, JsonError> {
    let mut event = Event { id: Id::from_bytes([0; 16]), seq: 0, code: String::new(), version: String::new() };
    reader.object(|name, reader| {
        match name {
            "id" => event.id = Id::parse(&reader.string()?).unwrap_or(event.id),
            "seq" => event.seq = reader.integer()? as u64,
            "code" => event.code = reader.string()?,
            "props" => reader.object(|name, reader| {
                if name == "version" {
                    event.version = reader.string()?;
                } else {
                    reader.raw()?;
                }
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(event)
}
