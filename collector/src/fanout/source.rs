//! Where a worker reads: the spool, and for what the spool no longer has, the embedded store.

use std::sync::Arc;

use crate::clock;
use crate::sinks::{BackfillSource, StoredRecord};
use crate::spool::{Spool, SpoolError, Stored};

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
    /// `None`: what the spool no longer has is nowhere.
    pub(super) history: Option<Arc<dyn BackfillSource>>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records in order and without a gap.
    pub(super) records: Vec<StoredRecord>,
    /// The position up to which they hold the events; where reading began if there are none.
    pub(super) last: u64,
    /// Those up to this position are no longer in the spool.
    pub(super) history_to: u64,
    /// Bytes of JSON, each event with a copy of what its record shares.
    pub(super) bytes: u64,
    /// There are no records, because the events up to this position are nowhere any more.
    pub(super) expired_to: Option<u64>,
}

impl Source {
    /// The records that hold the events after `after` up to `to`, as many as fit but at least one.
    pub(super) fn read(&self, after: u64, to: u64, cap: Cap) -> Result<Found, SpoolError> {
        let mut found = Found { last: after, ..Found::default() };
        while found.last < to
            && found.last - after < cap.events
            && (found.records.is_empty() || found.bytes < cap.bytes)
        {
            let left = Cap { events: cap.events - (found.last - after), bytes: cap.bytes - found.bytes };
            let step = self.step(found.last, to, left)?;
            if step.records.is_empty() {
                // A hole behind what was found is for the next time.
                found.expired_to = step.expired_to.filter(|_| found.records.is_empty());
                break;
            }
            if !found.records.is_empty() && step.bytes > left.bytes {
                // A step has one record at least, and this one is too large for what is left.
                break;
            }
            found.bytes = found.bytes.saturating_add(step.bytes);
            found.records.extend(step.records);
            found.last = step.last;
            found.history_to = found.history_to.max(step.history_to);
        }
        found.last = found.last.min(to);
        Ok(found)
    }

    /// Some records after `after` from the place that has them.
    fn step(&self, after: u64, to: u64, cap: Cap) -> Result<Found, SpoolError> {
        let stored = self.spool.read_after(after, cap.events, cap.bytes)?;
        let gap_to = stored.first().map_or(to, |record| (record.first - 1).min(to));
        if gap_to <= after {
            let stored: Vec<_> = stored.into_iter().take_while(|record| record.first <= to).collect();
            let last = stored.last().map_or(after, |record| record.first + record.events - 1);
            let bytes = stored.iter().map(Stored::expanded).fold(0, u64::saturating_add);
            let records = stored.into_iter().map(|stored| StoredRecord { first: stored.first, json: stored.json });
            return Ok(Found { records: records.collect(), last, bytes, ..Found::default() });
        }
        let Some(history) = &self.history else {
            return Ok(Found { last: after, expired_to: Some(gap_to), ..Found::default() });
        };
        let records = history.records(after, gap_to, cap.events, cap.bytes).map_err(SpoolError::Io)?;
        if records.is_empty() {
            let missing = history.missing(after).map_err(SpoolError::Io)?;
            return Ok(Found { last: after, expired_to: missing.map(|last| last.min(gap_to)), ..Found::default() });
        }
        // One event each, so the last record's first event is its last.
        let last = records.last().map_or(after, |record| record.first);
        let bytes = records.iter().map(|record| record.json.len() as u64).sum();
        Ok(Found { records, last, history_to: last, bytes, expired_to: None })
    }

    /// The events up to `position` arrived before this time, milliseconds since the epoch.
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
        let source = Source { spool: spool.clone(), history: None };
        let read = |bytes| {
            let found = source.read(0, 200, Cap { events: 1000, bytes }).unwrap();
            (found.records.len(), found.last)
        };
        assert_eq!(read(1), (1, 10), "one at least");
        assert_eq!(read(3 * bytes - 1), (2, 20));
        assert_eq!(read(3 * bytes), (3, 30));
        assert_eq!(read(u64::MAX), (20, 200));
    }
}
