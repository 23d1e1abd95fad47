//! A frozen batch: which events, in which order, under which identity. Never changed; only replaced as a whole.

use subway_protocol::json::{JsonError, ObjectWriter, Reader, write_integer};

use super::Entry;
use crate::Id;

/// A batch that was formed and stored before it was first sent.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number, which is its key in the store.
    pub number: u64,
    /// Its identity on the wire.
    pub id: Id,
    /// Its events in order; at least one, all of one context.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// The sequence number of its first event.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.seq)
    }

    /// The context of its events.
    #[must_use]
    pub fn context(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.context)
    }

    /// The record for the store.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.id("id", self.id);
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

    /// Reads the identity and the sequence numbers from a record of the store.
    ///
    /// # Errors
    /// If the text is not such a record.
    pub fn decode(text: &str) -> Result<(Id, Vec<u64>), JsonError> {
        let (mut id, mut seqs) = (None, Vec::new());
        Reader::new(text).object(|name, reader| {
            match name {
                "id" => id = Id::parse(&reader.string()?),
                "events" => reader.array(|reader| {
                    seqs.push(reader.integer()? as u64);
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        match id {
            Some(id) => Ok((id, seqs)),
            None => Err(JsonError { at: text.len() }),
        }
    }
}
