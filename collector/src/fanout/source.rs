//! Where a worker reads: the spool, and for what the spool no longer has, the embedded store.

use std::sync::Arc;

use crate::sinks::{History, StoredRecord};
use crate::spool::{Spool, SpoolError};

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cap {
    /// Events, not counting the rest of the first record.
    pub(super) events: u64,
    /// Bytes of JSON, each event with a copy of what its record shares, not counting the first record.
    pub(super) bytes: u64,
}

/// The events of the data directory in the order of their positions.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) spool: Spool,
    pub(super) history: Option<Arc<dyn History>>,
}

impl Source {
    /// The records that hold the events after `after` up to `to`, in order and without a gap, as many as fit but at least
    /// one, and the position up to which they do: `after` if there is none.
    pub(super) fn read(&self, after: u64, to: u64, cap: Cap) -> Result<(Vec<StoredRecord>, u64), SpoolError> {
        let mut out: Vec<StoredRecord> = Vec::new();
        let (mut at, mut bytes) = (after, 0);
        while at < to && at - after < cap.events && (out.is_empty() || bytes < cap.bytes) {
            let left = Cap { events: cap.events - (at - after), bytes: cap.bytes - bytes };
            let (records, end) = self.step(at, to, left)?;
            if records.is_empty() {
                break;
            }
            bytes = bytes.saturating_add(records.iter().map(|record| record.json.len() as u64).sum());
            out.extend(records);
            at = end;
        }
        Ok((out, at.min(to)))
    }

    /// Some records after `after` from the place that has them, and the position of their last event.
    fn step(&self, after: u64, to: u64, cap: Cap) -> Result<(Vec<StoredRecord>, u64), SpoolError> {
        let stored = self.spool.read_after(after, cap.events, cap.bytes)?;
        let gap_to = stored.first().map_or(to, |record| (record.first - 1).min(to));
        if gap_to <= after {
            let stored: Vec<_> = stored.into_iter().take_while(|record| record.first <= to).collect();
            let end = stored.last().map_or(after, |record| record.first + record.events - 1);
            let records = stored.into_iter().map(|stored| StoredRecord { first: stored.first, json: stored.json });
            return Ok((records.collect(), end));
        }
        let Some(history) = &self.history else { return Ok((Vec::new(), after)) };
        let records = history.records(after, gap_to, cap.events, cap.bytes).map_err(SpoolError::Io)?;
        // One event each, so the last record's first event is its last.
        let end = records.last().map_or(after, |record| record.first);
        Ok((records, end))
    }
}
