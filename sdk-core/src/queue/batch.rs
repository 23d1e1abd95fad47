//! A frozen batch: ID, events and their order. Never changed, only replaced as a whole.

use subway_protocol::json::{JsonError, ObjectWriter, Reader, write_integer};

use super::QueuedEvent;
use crate::store::read_count;
use crate::{Id, limits};

/// A batch that is stored before its first upload.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Number, which is its key in the store.
    pub number: u64,
    /// ID on the wire.
    pub id: Id,
    /// Device clock at the first upload of this batch, or of the batch it was split from, milliseconds since the epoch.
    pub first_sent_at: i64,
    /// Events in order; at least one, all of one context.
    pub events: Vec<QueuedEvent>,
    /// Consecutive failures to read its events.
    pub unreadable: u32,
    /// Time before which it is not sent (monotonic).
    pub retry_at: u64,
}

/// Record of a batch in the store.
#[derive(Clone, Debug)]
pub(crate) struct PersistedBatch {
    /// See [`Batch::id`].
    pub id: Id,
    /// See [`Batch::first_sent_at`]; `None` in records of the first version.
    pub first_sent_at: Option<i64>,
    /// Sequence numbers of its events.
    pub seqs: Vec<u64>,
}

impl Batch {
    /// Returns the sequence number of its first event.
    #[must_use]
    pub(crate) fn first(&self) -> u64 {
        self.events.first().map_or(0, |event| event.seq)
    }

    /// Returns the context of its events.
    #[must_use]
    pub(crate) fn context(&self) -> u64 {
        self.events.first().map_or(0, |event| event.context)
    }

    /// Returns the most bytes of its record beyond those already counted with its events.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        // ID, time and the names of the three fields. The sequence numbers are counted with the events.
        128 + limits::RECORD_BYTES
    }

    /// Encodes the record for the store.
    #[must_use]
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.id("id", self.id);
        object.integer("first_sent_at", self.first_sent_at);
        let place = object.field("events");
        place.push('[');
        for (at, event) in self.events.iter().enumerate() {
            if at > 0 {
                place.push(',');
            }
            write_integer(place, event.seq as i64);
        }
        place.push(']');
        object.end();
        out
    }

    /// Decodes a record of the store.
    ///
    /// # Errors
    /// If the text is not such a record.
    pub(crate) fn decode(text: &str) -> Result<PersistedBatch, JsonError> {
        let (mut id, mut first_sent_at, mut seqs) = (None, None, Vec::new());
        Reader::new(text).object(|name, reader| {
            match name {
                "id" => id = Id::parse(&reader.string()?),
                "first_sent_at" => first_sent_at = Some(reader.integer()?),
                "events" => reader.array(|reader| {
                    seqs.push(read_count(reader)?);
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match id {
            Some(id) => Ok(PersistedBatch { id, first_sent_at, seqs }),
            None => Err(JsonError { at: text.len() }),
        }
    }
}
