//! A collector that keeps the protocol. The network in front of it is in `steps`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use subway_protocol::codec::problem::TYPE_PREFIX;
use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use super::Defect;
use super::oracle::Outcome;
use crate::Id;

/// Events with this code are rejected.
pub(super) const BAD: &str = "bad";
/// A batch with an event of this code is refused as a whole (400).
pub(super) const POISON: &str = "poison";
/// A batch with an event of this code is refused as a whole, because it is too large (413).
pub(super) const HUGE: &str = "huge";

/// State of the collector.
#[derive(Default)]
pub(super) struct Server {
    /// Most events in a batch; larger ones are refused (413).
    max_events: usize,
    /// Stored events, with the install that sent them.
    pub(super) stored: BTreeMap<Id, Id>,
    /// Rejected events.
    pub(super) rejected: BTreeSet<Id>,
    /// Events that were refused alone, with the outcome for the status.
    pub(super) refused: BTreeMap<Id, Outcome>,
    /// Events and first upload time of each batch when it was first received.
    batches: BTreeMap<Id, (Vec<Id>, i64)>,
    /// First upload time of each event.
    first_sent: BTreeMap<Id, i64>,
    /// Event of each sequence number of an install.
    sequence: BTreeMap<(Id, u64), Id>,
    /// Number of events that were received again.
    pub(super) duplicates: u64,
    /// Events that no later run of the client knows: its storage accepted neither them nor a state that counts them, so
    /// that their sequence numbers are reused.
    pub(super) unknown_to_client: BTreeSet<Id>,
    /// Events whose context the client's storage has lost; they are sent without one.
    pub(super) context_lost: BTreeSet<Id>,
    /// Events that are sent in a new batch, because the client's storage lost the record of theirs. The value says
    /// whether its state holds the time of the first upload.
    pub(super) rebatched: BTreeMap<Id, bool>,
    defect: Defect,
}

/// One received event.
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
    /// Creates a collector with this limit on the events of a batch.
    pub(super) fn new(max_events: usize, defect: Defect) -> Self {
        Self { max_events, defect, ..Self::default() }
    }

    /// Returns the IDs of a batch's events.
    pub(super) fn ids(body: &str) -> Vec<Id> {
        read(body).map(|batch| batch.events.iter().map(|event| event.id).collect()).unwrap_or_default()
    }

    /// Returns the outcome of an event on the collector.
    pub(super) fn outcome(&self, id: Id) -> Option<Outcome> {
        if self.stored.contains_key(&id) {
            Some(Outcome::Acked)
        } else if self.rejected.contains(&id) {
            Some(Outcome::Rejected)
        } else {
            self.refused.get(&id).copied()
        }
    }

    /// Receives a batch and returns status and body of the response.
    ///
    /// # Panics
    /// If the client violates the protocol: a batch that changed, a sequence number used twice, events out of order, an
    /// event with a context other than the one it was recorded in.
    pub(super) fn receive(&mut self, body: &str) -> (u16, String) {
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
        let (status, code, outcome) = if batch.events.len() > self.max_events || has(HUGE) {
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
        if self.unknown_to_client.contains(known) {
            *known = event.id;
        }
        assert_eq!(*known, event.id, "a sequence number belongs to one event");
        let context = if self.context_lost.contains(&event.id) { "" } else { event.version.as_str() };
        assert_eq!(batch.version, context, "an event is sent with the context it was recorded in");
        let first = *self.first_sent.entry(event.id).or_insert(batch.first_sent_at);
        if let Some(recorded) = self.rebatched.remove(&event.id) {
            assert!(!recorded || batch.first_sent_at <= first, "an event does not become younger");
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

/// Returns the body of a refusal.
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
