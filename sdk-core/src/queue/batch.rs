//! A frozen batch: which events, in which order, under which identity. Never changed; only replaced as a whole.

use subway_protocol::json::{JsonError, ObjectWriter, Reader, write_integer};

use super::Entry;
use crate::store::counted;
use crate::{Id, limits};

/// A batch that was formed and stored before it was first sent.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Its number, which is its key in the store.
    pub number: u64,
    /// Its identity on the wire.
    pub id: Id,
    /// Device clock when it, or the batch it is a part of, was first sent, milliseconds since the epoch.
    pub first_sent_at: i64,
    /// Its events in order; at least one, all of one context.
    pub entries: Vec<Entry>,
    /// Times in a row that its events could not be read.
    pub unreadable: u32,
    /// It is not tried before this time (monotonic).
    pub retry_at: u64,
}

/// What the store holds of a batch.
#[derive(Clone, Debug)]
pub(crate) struct SavedBatch {
    /// See [`Batch::id`].
    pub id: Id,
    /// See [`Batch::first_sent_at`]; `None` in records of the first version.
    pub first_sent_at: Option<i64>,
    /// The sequence numbers of its events.
    pub seqs: Vec<u64>,
}

impl Batch {
    /// The sequence number of its first event.
    #[must_use]
    pub(crate) fn first(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.seq)
    }

    /// The context of its events.
    #[must_use]
    pub(crate) fn context(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.context)
    }

    /// What its record takes at most beside what its events were counted for already, bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        // The identity, the time and the names of the three fields; the numbers of its events are counted with them.
        128 + limits::RECORD_BYTES
    }

    /// The record for the store.
    #[must_use]
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.id("id", self.id);
        object.integer("first_sent_at", self.first_sent_at);
        let place = object.field("events");
        place.push('[');
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                place.push(',');
            }
            write_integer(place, entry.seq as i64);
        }
        place.push(']');
        object.end();
        out
    }

    /// Reads a record of the store.
    ///
    /// # Errors
    /// If the text is not such a record.
    pub(crate) fn decode(text: &str) -> Result<SavedBatch, JsonError> {
        let (mut id, mut first_sent_at, mut seqs) = (None, None, Vec::new());
        Reader::new(text).object(|name, reader| {
            match name {
                "id" => id = Id::parse(&reader.string()?),
                "first_sent_at" => first_sent_at = Some(reader.integer()?),
                "events" => reader.array(|reader| {
                    seqs.push(counted(reader)?);
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match id {
            Some(id) => Ok(SavedBatch { id, first_sent_at, seqs }),
            None => Err(JsonError { at: text.len() }),
        }
    }
}
