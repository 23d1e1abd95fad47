//! Excludes events from a batch.

use crate::record::{Event, Record};
use crate::sinks::{CorruptRecord, SinkBatch, StoredRecord};

/// Returns `batch` without the events at the positions `excluded`, which are in order. A record with excluded events
/// becomes a record for each run of the others.
///
/// # Errors
/// If such a record is unreadable.
pub(super) fn without(mut batch: SinkBatch, excluded: &[u64]) -> Result<SinkBatch, CorruptRecord> {
    if excluded.is_empty() {
        return Ok(batch);
    }
    let mut records = Vec::new();
    for (at, stored) in batch.records.iter().enumerate() {
        let end = batch.records.get(at + 1).map_or(batch.last, |next| (next.first - 1).min(batch.last));
        let begin = stored.first.max(batch.first);
        let among = excluded.partition_point(|position| *position < begin);
        if excluded.get(among).is_none_or(|position| *position > end) {
            records.push(stored.clone());
            continue;
        }
        let record: Record<'_> = serde_json::from_str(&stored.json)
            .map_err(|error| CorruptRecord { first: stored.first, reason: error.to_string() })?;
        let (first, events) = crate::sinks::events_in_range(stored.first, &record.events, batch.first, batch.last);
        let kept = (first..).zip(events).filter(|(position, _)| excluded.binary_search(position).is_err());
        let kept: Vec<(u64, &Event<'_>)> = kept.collect();
        for run in kept.chunk_by(|one, next| one.0 + 1 == next.0) {
            let events = run.iter().map(|(_, event)| (*event).clone()).collect();
            let piece = Record { events, ..record.clone() };
            records.push(StoredRecord { first: run[0].0, json: serde_json::to_string(&piece).unwrap_or_default() });
        }
    }
    batch.records = records;
    Ok(batch)
}
