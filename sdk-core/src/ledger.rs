//! Where every event went: generated = acked + queued + dropped, always.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use crate::store::counted;

/// Why an event was dropped by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The queue was full. Exposure, performance and network go first; order, error and profile last.
    QueueFull,
    /// The user had not consented when it happened.
    ConsentDenied,
    /// The user withdrew consent while it was queued.
    ConsentWithdrawn,
    /// It broke a rule of the wire and was refused at the call.
    Invalid,
    /// The collector rejected it, with a reason.
    Rejected,
    /// The collector refused every batch down to this event alone as not a batch (400).
    Poison,
    /// The collector refused it as too large even alone (413).
    TooLarge,
    /// The host's storage lost it.
    StorageLost,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [DropReason; 8] = [
        DropReason::QueueFull,
        DropReason::ConsentDenied,
        DropReason::ConsentWithdrawn,
        DropReason::Invalid,
        DropReason::Rejected,
        DropReason::Poison,
        DropReason::TooLarge,
        DropReason::StorageLost,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::ConsentDenied => "consent_denied",
            DropReason::ConsentWithdrawn => "consent_withdrawn",
            DropReason::Invalid => "invalid",
            DropReason::Rejected => "rejected",
            DropReason::Poison => "poison",
            DropReason::TooLarge => "too_large",
            DropReason::StorageLost => "storage_lost",
        }
    }
}

/// Counts of events since the install ID was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Handed to the client.
    pub generated: u64,
    /// Known to the collector: stored, or a duplicate of one that was.
    pub acked: u64,
    /// Waiting, frozen in a batch or not.
    pub queued: u64,
    /// Given up, by reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; 8],
}

impl Ledger {
    /// Counts one dropped event.
    pub fn drop(&mut self, reason: DropReason, events: u64) {
        self.dropped[reason as usize] += events;
    }

    /// How many were dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Whether generated = acked + queued + dropped.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.generated == self.accounted()
    }

    /// acked + queued + dropped.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.acked + self.queued + self.dropped.iter().sum::<u64>()
    }

    /// Appends the ledger as JSON; reasons that never occurred are left out.
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

    /// Reads what [`Ledger::write`] wrote.
    ///
    /// # Errors
    /// If the text is not a ledger.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut ledger = Self::default();
        reader.object(|name, reader| {
            match name {
                "generated" => ledger.generated = counted(reader)?,
                "acked" => ledger.acked = counted(reader)?,
                "queued" => ledger.queued = counted(reader)?,
                "dropped" => reader.object(|name, reader| {
                    let count = counted(reader)?;
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
