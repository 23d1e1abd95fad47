//! Counts of events by outcome. Invariant: generated = acked + queued + dropped.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use crate::store::read_count;

subway_protocol::named_enum! {
    /// Reason for which the client dropped an event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum DropReason {
        /// The queue was full; see [`crate::queue::Priority`] for the order of eviction.
        QueueFull = "queue_full",
        /// The user had not consented when it happened.
        ConsentDenied = "consent_denied",
        /// The user withdrew consent while the event was queued.
        ConsentWithdrawn = "consent_withdrawn",
        /// The event breaks a rule of the wire and was rejected by `track`.
        Invalid = "invalid",
        /// The collector rejected the event, with a reason.
        Rejected = "rejected",
        /// The collector refused every batch with this event as invalid (400), down to the event alone.
        Poison = "poison",
        /// The collector refused the event alone as too large (413).
        TooLarge = "too_large",
        /// The host's storage lost the event.
        StorageLost = "storage_lost",
    }
}

/// Counts of events since the install ID was generated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Events given to the client.
    pub generated: u64,
    /// Events that the collector has: stored, or a duplicate of a stored one.
    pub acked: u64,
    /// Events in the queue, in a batch or not.
    pub queued: u64,
    /// Dropped events by reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; 8],
}

impl Ledger {
    /// Counts dropped events.
    pub fn drop(&mut self, reason: DropReason, events: u64) {
        self.dropped[reason as usize] += events;
    }

    /// Returns the number of events dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns whether generated = acked + queued + dropped.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.generated == self.accounted()
    }

    /// Returns acked + queued + dropped.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.acked + self.queued + self.dropped.iter().sum::<u64>()
    }

    /// Appends the ledger as JSON; reasons without events are left out.
    pub fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::new(out);
        object.integer("generated", self.generated as i64);
        object.integer("acked", self.acked as i64);
        object.integer("queued", self.queued as i64);
        object.object("dropped", |inner| {
            for reason in DropReason::ALL {
                if self.dropped(reason) > 0 {
                    inner.integer(reason.as_str(), self.dropped(reason) as i64);
                }
            }
        });
        object.end();
    }

    /// Reads the output of [`Ledger::write`].
    ///
    /// # Errors
    /// If the text is not a ledger.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut ledger = Self::default();
        reader.object(|name, reader| {
            match name {
                "generated" => ledger.generated = read_count(reader)?,
                "acked" => ledger.acked = read_count(reader)?,
                "queued" => ledger.queued = read_count(reader)?,
                "dropped" => reader.object(|name, reader| {
                    let count = read_count(reader)?;
                    if let Some(reason) = DropReason::ALL.into_iter().find(|reason| reason.as_str() == name) {
                        ledger.dropped[reason as usize] = count;
                    }
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_comes_back_as_it_was_written() {
        let mut ledger = Ledger { generated: 10, acked: 4, queued: 3, ..Ledger::default() };
        ledger.drop(DropReason::QueueFull, 2);
        ledger.drop(DropReason::StorageLost, 1);
        assert!(ledger.balances());
        let mut text = String::new();
        ledger.write(&mut text);
        assert_eq!(text, r#"{"generated":10,"acked":4,"queued":3,"dropped":{"queue_full":2,"storage_lost":1}}"#);
        assert_eq!(Ledger::read(&mut Reader::new(&text)), Ok(ledger));
    }
}
