//! Decodes receipts, for the SDK.

use crate::Id;
use crate::json::{JsonError, Reader};

/// Outcome of each event of one batch. Indices count from 0 in the order of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Batch that the receipt is for.
    pub batch_id: Id,
    /// The collector's clock, milliseconds since the epoch.
    pub server_time: i64,
    /// Number of events that were stored.
    pub stored: u64,
    /// Indices of events that the collector already had.
    pub duplicate: Vec<u64>,
    /// Events that were rejected, with reasons.
    pub rejected: Vec<Rejected>,
}

/// One rejected event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Index of the event.
    pub index: u64,
    /// Wire form of the reason. A newer collector can send one that this SDK does not know.
    pub reason: String,
    /// Complete rejection as the collector wrote it, for diagnostics.
    pub detail: String,
}

impl Receipt {
    /// Decodes a receipt. Unknown fields are ignored.
    ///
    /// # Errors
    /// If the text is not a receipt: not JSON, or a field is missing or of another type.
    pub fn decode(text: &str) -> Result<Self, JsonError> {
        let mut reader = Reader::new(text);
        let mut batch_id = None;
        let mut server_time = 0;
        let mut stored = None;
        let mut duplicate = Vec::new();
        let mut rejected = Vec::new();
        reader.object(|name, reader| {
            match name {
                "batch_id" => batch_id = Id::parse(&reader.string()?),
                "server_time" => server_time = reader.integer()?,
                "stored" => stored = Some(reader.integer()?),
                "duplicate" => reader.array(|reader| {
                    duplicate.push(reader.integer()? as u64);
                    Ok(())
                })?,
                "rejected" => reader.array(|reader| {
                    rejected.push(Rejected::read(reader)?);
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        let (Some(batch_id), Some(stored)) = (batch_id, stored) else {
            return Err(JsonError { at: text.len() });
        };
        Ok(Self { batch_id, server_time, stored: stored as u64, duplicate, rejected })
    }

    /// Returns whether this receipt accounts for each of `events` events exactly once.
    #[must_use]
    pub fn accounts_for(&self, events: u64) -> bool {
        let mut seen = vec![false; usize::try_from(events).unwrap_or(0)];
        let mut named = 0;
        for index in self.duplicate.iter().copied().chain(self.rejected.iter().map(|rejected| rejected.index)) {
            match usize::try_from(index).ok().and_then(|index| seen.get_mut(index)) {
                Some(seen) if !*seen => *seen = true,
                _ => return false,
            }
            named += 1;
        }
        self.stored.checked_add(named) == Some(events)
    }
}

impl Rejected {
    fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let detail = reader.raw()?;
        let mut index = None;
        let mut reason = String::new();
        Reader::new(detail).object(|name, reader| {
            match name {
                "index" => index = Some(reader.integer()?),
                "reason" => reason = reader.string()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let Some(index) = index else {
            return Err(JsonError { at: 0 });
        };
        Ok(Self { index: index as u64, reason, detail: detail.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"batch_id":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f","server_time":5,"stored":1,"duplicate":[2],
        "rejected":[{"index":0,"id":null,"reason":"property_too_deep","field":"props.a","limit":8,"got":12}],"new":{"x":[1]}}"#;

    #[test]
    fn a_receipt_is_read_with_its_unknown_fields_ignored() {
        let receipt = Receipt::decode(TEXT).unwrap();
        assert_eq!((receipt.stored, &receipt.duplicate[..]), (1, &[2][..]));
        assert_eq!((receipt.rejected[0].index, receipt.rejected[0].reason.as_str()), (0, "property_too_deep"));
        assert!(receipt.accounts_for(3));
    }

    #[test]
    fn a_receipt_must_name_each_event_once() {
        let receipt = Receipt::decode(TEXT).unwrap();
        assert!(!receipt.accounts_for(2) && !receipt.accounts_for(4));
        let twice = Receipt { duplicate: vec![0, 2], stored: 0, ..receipt };
        assert!(!twice.accounts_for(3));
    }

    #[test]
    fn other_answers_are_not_receipts() {
        for text in [
            "",
            "<html>",
            "{}",
            "[]",
            "{\"batch_id\":\"x\",\"stored\":1}",
            &TEXT[..TEXT.len() - 1],
            &format!("{TEXT}x"),
        ] {
            assert!(Receipt::decode(text).is_err(), "{text}");
        }
    }
}
