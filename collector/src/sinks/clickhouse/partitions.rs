//! Limits the partitions of one insert, because each becomes a part that the server writes, syncs and merges. PURE.
//!
//! A partition is a month of event time for events near their arrival, else a year ([`super::schema::PARTITION`]),
//! which bounds the partitions that a sender can create: 400 days have 15 months, and 20 years have 21 years.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::sinks::days::{self, EventTimes};
use crate::sinks::{CorruptRecord, SinkBatch};

/// Maximum partitions in one insert. The server refuses more than 100.
pub(super) const MAX_PARTITIONS: usize = 50;

/// Partition scheme of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartitionScheme {
    /// By months, and by years for events far from their arrival.
    Months,
    /// By days or unknown: the table is from an older collector or another program.
    Days,
}

impl PartitionScheme {
    /// Returns a number that identifies the partition of an event.
    fn of(self, times: &EventTimes<'_>) -> i64 {
        let day = days::day_of(times.event_time);
        // An event that the table cannot hold is refused later and needs no partition.
        let Ok(time) = Timestamp::from_millisecond(times.event_time) else { return i64::MIN };
        let date = time.to_zoned(TimeZone::UTC).date();
        match self {
            PartitionScheme::Days => day,
            PartitionScheme::Months if days::is_near(times.event_time, times.received_at) => {
                i64::from(date.year()) * 100 + i64::from(date.month())
            }
            PartitionScheme::Months => i64::from(date.year()),
        }
    }
}

/// Returns the position of the last event that fits into one insert.
///
/// # Errors
/// If a record cannot be read.
pub(super) fn batch_end(batch: &SinkBatch, partitions: PartitionScheme) -> Result<u64, CorruptRecord> {
    // A near event is in the partition of its day or month, so there are at most as many partitions as days.
    if days::scan_is_near(batch, MAX_PARTITIONS) {
        return Ok(batch.last);
    }
    let (mut seen, mut last) = (HashSet::new(), batch.last);
    days::for_each_event(batch, |times| {
        let full = seen.insert(partitions.of(&times)) && seen.len() > MAX_PARTITIONS;
        if full {
            last = times.position - 1;
        }
        !full
    })?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::StoredRecord;
    use crate::sinks::days::DAY_MS;
    use serde_json::json;

    /// 2026-07-01, some time of the day.
    const ARRIVED: i64 = 1_782_864_000_000 + 12_345;

    fn record(first: u64, days_ago: impl Iterator<Item = i64>) -> StoredRecord {
        let events: Vec<_> = days_ago.map(|day| json!({"event_time": ARRIVED - day * DAY_MS})).collect();
        let json = json!({"app_key": "a", "received_at": ARRIVED, "events": events});
        StoredRecord { first, json: json.to_string() }
    }

    fn batch(first: u64, last: u64, records: Vec<StoredRecord>) -> SinkBatch {
        SinkBatch { first, last, dedup_token: "t".into(), records }
    }

    #[test]
    fn events_of_twenty_years_are_one_insert() {
        let days = || (-1..7300).step_by(7);
        let batch_of_years = batch(1, days().count() as u64, vec![record(1, days())]);
        assert_eq!(batch_end(&batch_of_years, PartitionScheme::Months), Ok(batch_of_years.last));
        let partition = |days_ago: i64| {
            let (event_time, received_at) = (ARRIVED - days_ago * DAY_MS, ARRIVED);
            PartitionScheme::Months.of(&EventTimes { app_key: "a", position: 1, event_time, received_at })
        };
        assert_eq!([0, -1, 31, 400, 401, 7299].map(partition), [202_607, 202_607, 202_605, 202_505, 2025, 2006]);
        let parts: HashSet<i64> = (-1..7300).map(partition).collect();
        assert!(parts.len() <= 15 + 21, "{}", parts.len());
    }

    #[test]
    fn a_batch_of_as_many_days_as_fit_is_not_parsed() {
        for partitions in [PartitionScheme::Months, PartitionScheme::Days] {
            let mut broken = record(1, (0..50).cycle().take(100));
            broken.json.push('}');
            assert_eq!(batch_end(&batch(1, 100, vec![broken]), partitions), Ok(100), "{partitions:?}");
            let mut broken = record(1, (0..51).cycle().take(100));
            broken.json.push('}');
            assert!(batch_end(&batch(1, 100, vec![broken]), partitions).is_err(), "{partitions:?}");
        }
    }

    #[test]
    fn the_partition_too_many_is_left_for_the_next_batch() {
        let records = vec![record(1, 0..30), record(31, 20..200)];
        // Days 0 to 49 are those of positions 1 to 60.
        assert_eq!(batch_end(&batch(1, 210, records.clone()), PartitionScheme::Days), Ok(60));
        assert_eq!(batch_end(&batch(61, 210, records), PartitionScheme::Days), Ok(110));
        // A table that reaches back for centuries.
        let centuries = (0..200).map(|year| year * 366);
        let records = vec![record(1, centuries)];
        let first = batch_end(&batch(1, 200, records.clone()), PartitionScheme::Months).unwrap();
        assert!((MAX_PARTITIONS as u64..60).contains(&first), "{first}");
        assert_eq!(batch_end(&batch(101, 150, records), PartitionScheme::Months), Ok(150));
    }

    #[test]
    fn days_outside_of_the_batch_do_not_count_and_the_next_batch_always_has_an_event() {
        let records = vec![record(1, 0..49), record(50, 100..200)];
        assert_eq!(batch_end(&batch(1, 50, records), PartitionScheme::Days), Ok(50));
        assert_eq!(batch_end(&batch(7, 7, vec![record(1, 0..99)]), PartitionScheme::Days), Ok(7));
        let absurd = StoredRecord {
            first: 1,
            json: json!({"app_key": "a", "received_at": 0, "events": [{"event_time": i64::MIN}]}).to_string(),
        };
        assert_eq!(batch_end(&batch(1, 1, vec![absurd]), PartitionScheme::Months), Ok(1));
    }
}
