//! Reads the events of a worker: from the spool, and from the embedded store if the spool no longer has them.

use std::sync::Arc;

use crate::clock;
use crate::sinks::{BackfillSource, StoredRecord};
use crate::spool::{Spool, SpoolError, SpoolRecord};

/// Limits of one read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// Events, not counting the rest of the first record.
    pub(super) events: u64,
    /// Bytes of JSON, each event with a copy of what its record shares, not counting the first record.
    pub(super) bytes: u64,
}

/// Reader of the data directory's events in the order of their positions.
#[derive(Clone)]
pub(super) struct BatchReader {
    pub(super) spool: Spool,
    /// Source of events that the spool no longer has. `None` if there is none.
    pub(super) history: Option<Arc<dyn BackfillSource>>,
}

/// Result of one read.
#[derive(Debug, Default)]
pub(super) struct BatchRead {
    /// Records in order and without a gap.
    pub(super) records: Vec<StoredRecord>,
    /// Position of the last event in them, or where reading began if there are none.
    pub(super) last: u64,
    /// Events up to this position are no longer in the spool.
    pub(super) history_to: u64,
    /// Bytes of JSON, each event with a copy of what its record shares.
    pub(super) bytes: u64,
    /// Set if there are no records because the events up to this position no longer exist.
    pub(super) expired_to: Option<u64>,
}

impl BatchReader {
    /// Reads the records with the events after `after` up to `to`: as many as the limits allow, and at least one.
    pub(super) fn read(&self, after: u64, to: u64, limits: ReadLimits) -> Result<BatchRead, SpoolError> {
        let mut read = BatchRead { last: after, ..BatchRead::default() };
        while read.last < to
            && read.last - after < limits.events
            && (read.records.is_empty() || read.bytes < limits.bytes)
        {
            let left = ReadLimits { events: limits.events - (read.last - after), bytes: limits.bytes - read.bytes };
            let step = self.read_step(read.last, to, left)?;
            if step.records.is_empty() {
                // A hole behind what was found is for the next time.
                read.expired_to = step.expired_to.filter(|_| read.records.is_empty());
                break;
            }
            if !read.records.is_empty() && step.bytes > left.bytes {
                // A step has one record at least, and this one is too large for what is left.
                break;
            }
            read.bytes = read.bytes.saturating_add(step.bytes);
            read.records.extend(step.records);
            read.last = step.last;
            read.history_to = read.history_to.max(step.history_to);
        }
        read.last = read.last.min(to);
        Ok(read)
    }

    /// Reads some records after `after` from the source that has them.
    fn read_step(&self, after: u64, to: u64, limits: ReadLimits) -> Result<BatchRead, SpoolError> {
        let stored = self.spool.read_after(after, limits.events, limits.bytes)?;
        let gap_to = stored.first().map_or(to, |record| (record.first - 1).min(to));
        if gap_to <= after {
            let stored: Vec<_> = stored.into_iter().take_while(|record| record.first <= to).collect();
            let last = stored.last().map_or(after, |record| record.first + record.events - 1);
            let bytes = stored.iter().map(SpoolRecord::expanded).fold(0, u64::saturating_add);
            let records = stored.into_iter().map(|stored| StoredRecord { first: stored.first, json: stored.json });
            return Ok(BatchRead { records: records.collect(), last, bytes, ..BatchRead::default() });
        }
        let Some(history) = &self.history else {
            return Ok(BatchRead { last: after, expired_to: Some(gap_to), ..BatchRead::default() });
        };
        let records = history.records(after, gap_to, limits.events, limits.bytes).map_err(SpoolError::Other)?;
        if records.is_empty() {
            let missing = history.missing(after).map_err(SpoolError::Other)?;
            return Ok(BatchRead {
                last: after,
                expired_to: missing.map(|last| last.min(gap_to)),
                ..BatchRead::default()
            });
        }
        // One event each, so the last record's first event is its last.
        let last = records.last().map_or(after, |record| record.first);
        let bytes = records.iter().map(|record| record.json.len() as u64).sum();
        Ok(BatchRead { records, last, history_to: last, bytes, expired_to: None })
    }

    /// Returns a time before which the events up to `position` arrived, milliseconds since the epoch.
    pub(super) fn arrived_before(&self, position: u64) -> Result<i64, SpoolError> {
        #[derive(serde::Deserialize)]
        struct Arrival {
            received_at: i64,
        }
        let next = self.spool.read_after(position, 1, 1)?;
        let next = next.first().and_then(|record| serde_json::from_str::<Arrival>(&record.json).ok());
        Ok(next.map_or_else(clock::now, |arrival| arrival.received_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::tests::spool;

    #[test]
    fn what_events_share_counts_for_each_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let json = format!("{{\"shared_bytes\":1000,\"common\":\"{}\"}}", "x".repeat(1000));
        let bytes = json.len() as u64 + 9 * 1000;
        spool.call(move |tx| (0..20).try_for_each(|_| tx.append(1, &json, 10).map(drop))).unwrap();
        let reader = BatchReader { spool: spool.clone(), history: None };
        let read = |bytes| {
            let read = reader.read(0, 200, ReadLimits { events: 1000, bytes }).unwrap();
            (read.records.len(), read.last)
        };
        assert_eq!(read(1), (1, 10), "one at least");
        assert_eq!(read(3 * bytes - 1), (2, 20));
        assert_eq!(read(3 * bytes), (3, 30));
        assert_eq!(read(u64::MAX), (20, 200));
    }
}
