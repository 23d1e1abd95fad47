//! How much of a batch fits into one insert: each day of event time is a partition, and an insert into many partitions
//! makes as many parts. PURE.

use std::collections::HashSet;

use memchr::memmem;
use serde::Deserialize;

use crate::sinks::{SinkBatch, Unreadable, within};

/// Most days in one insert. The server refuses more than 100 partitions, and each is a part that must be merged.
pub(super) const DAYS: usize = 50;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How the spool spells an event's time.
const TIME: &[u8] = b"\"event_time\":";

/// The little of a record that matters here.
#[derive(Deserialize)]
struct Times {
    events: Vec<Time>,
}

#[derive(Deserialize)]
struct Time {
    event_time: i64,
}

/// The position of the last event that goes into one insert.
///
/// # Errors
/// If a record cannot be read.
pub(super) fn cut(batch: &SinkBatch) -> Result<u64, Unreadable> {
    if few_days(batch) {
        return Ok(batch.last);
    }
    let mut days = HashSet::new();
    for stored in &batch.records {
        let times: Times = serde_json::from_str(&stored.json)
            .map_err(|error| Unreadable { first: stored.first, why: error.to_string() })?;
        let (first, events) = within(stored.first, &times.events, batch.first, batch.last);
        for (position, event) in (first..).zip(events) {
            if days.insert(event.event_time.div_euclid(DAY_MS)) && days.len() > DAYS {
                return Ok(position - 1);
            }
        }
    }
    Ok(batch.last)
}

/// Whether the batch surely has few days, found without reading the records: every time that stands anywhere in them,
/// even in a property of the same name, counts. If fewer are found than there are events they are spelt otherwise.
fn few_days(batch: &SinkBatch) -> bool {
    let finder = memmem::Finder::new(TIME);
    let (mut days, mut last_day, mut found) = (HashSet::new(), None, 0u64);
    for stored in &batch.records {
        let json = stored.json.as_bytes();
        for at in finder.find_iter(json) {
            let digits = json[at + TIME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let time = digits.fold(0i64, |time, digit| time.wrapping_mul(10).wrapping_add(i64::from(digit - b'0')));
            let day = Some(time.div_euclid(DAY_MS));
            found += 1;
            if day != last_day && days.insert(day) && days.len() > DAYS {
                return false;
            }
            last_day = day;
        }
    }
    found > batch.last - batch.first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::StoredRecord;
    use serde_json::json;

    fn record(first: u64, days: impl Iterator<Item = i64>) -> StoredRecord {
        let events: Vec<_> = days
            .map(|day| {
                let time = day * DAY_MS + 5;
                json!({"event_id": "\"event_time\":1", "seq": 1, "theme": "view", "code": "c", "event_time": time, "ts": 0,
                    "props": {"event_time": 7}})
            })
            .collect();
        let json = json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 0, "events": events});
        StoredRecord { first, json: json.to_string() }
    }

    fn batch(first: u64, last: u64, records: Vec<StoredRecord>) -> SinkBatch {
        SinkBatch { first, last, token: "t".into(), records }
    }

    #[test]
    fn a_batch_of_few_days_is_not_cut() {
        let days = || (0..1000).map(|n| 20_000 + n % 49);
        assert_eq!(cut(&batch(1, 1000, vec![record(1, days())])), Ok(1000));
        assert_eq!(cut(&batch(1, 2000, vec![record(1, days()), record(1001, days())])), Ok(2000));
    }

    #[test]
    fn the_day_too_many_is_left_for_the_next_batch() {
        let records = vec![record(1, 0..30), record(31, 20..200)];
        let first = batch(1, 210, records.clone());
        // Days 0 to 49 are those of positions 1 to 60.
        assert_eq!(cut(&first), Ok(60));
        assert_eq!(cut(&batch(61, 210, records)), Ok(110));
    }

    #[test]
    fn days_outside_of_the_batch_do_not_count() {
        let records = vec![record(1, 0..49), record(50, 100..200)];
        assert_eq!(cut(&batch(1, 50, records)), Ok(50));
    }

    #[test]
    fn the_next_batch_always_has_an_event() {
        assert_eq!(cut(&batch(7, 7, vec![record(1, 0..99)])), Ok(7));
    }

    #[test]
    fn a_record_spelt_otherwise_is_read() {
        let mut spaced = record(1, 0..99);
        spaced.json = spaced.json.replace(":", " : ");
        assert_eq!(cut(&batch(1, 99, vec![spaced])), Ok(50));
        let broken = StoredRecord { first: 3, json: "{".into() };
        assert_eq!(cut(&batch(3, 4, vec![broken])).unwrap_err().first, 3);
    }
}
