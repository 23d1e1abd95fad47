//! Days of a batch's events and their distance from the arrival, read without decoding whole records. PURE.
//!
//! Stores partition their data by days or months. Any client that has the public key can send any day of twenty years,
//! so what is far from its arrival is kept in coarser partitions. Near days are limited by [`MAX_NEAR_DAYS`], whatever
//! is sent.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memmem;
use serde::Deserialize;

use super::{CorruptRecord, SinkBatch, events_in_range};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Maximum distance in days between an event and its arrival at which it is kept with its day. A year and a month, so
/// that a comparison with last year has days.
pub(crate) const MAX_NEAR_DAYS: i64 = 400;

/// Members of a record's JSON that hold the time of an event and the arrival, as the spool writes them.
const EVENT_TIME_MEMBER: &[u8] = b"\"event_time\":";
const RECEIVED_AT_MEMBER: &[u8] = b"\"received_at\":";

/// Returns the day since the epoch (UTC) of a time in milliseconds.
pub(crate) fn day_of(millis: i64) -> i64 {
    millis.div_euclid(DAY_MS)
}

/// Returns whether an event is kept with its day.
pub(crate) fn is_near(event_time: i64, received_at: i64) -> bool {
    day_of(event_time).abs_diff(day_of(received_at)) <= MAX_NEAR_DAYS.unsigned_abs()
}

/// Times of one event: when it happened and when it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventTimes<'a> {
    pub(crate) app_key: &'a str,
    pub(crate) position: u64,
    pub(crate) event_time: i64,
    pub(crate) received_at: i64,
}

/// Partial view of a record, so that the rest is not decoded.
#[derive(Deserialize)]
struct RecordTimes<'a> {
    #[serde(borrow)]
    app_key: Cow<'a, str>,
    received_at: i64,
    events: Vec<EventTime>,
}

#[derive(Deserialize)]
struct EventTime {
    event_time: i64,
}

/// Calls `visit` for each event of the batch, in order, until it returns `false`.
///
/// # Errors
/// If a record cannot be read.
pub(crate) fn for_each_event(
    batch: &SinkBatch,
    mut visit: impl FnMut(EventTimes<'_>) -> bool,
) -> Result<(), CorruptRecord> {
    for stored in &batch.records {
        let times: RecordTimes<'_> = serde_json::from_str(&stored.json)
            .map_err(|error| CorruptRecord { first: stored.first, reason: error.to_string() })?;
        let (first, events) = events_in_range(stored.first, &times.events, batch.first, batch.last);
        for (position, event) in (first..).zip(events) {
            let (app_key, event_time, received_at) = (&*times.app_key, event.event_time, times.received_at);
            if !visit(EventTimes { app_key, position, event_time, received_at }) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn parse_digits(json: &[u8]) -> i64 {
    let digits = json.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0i64, |number, digit| number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0')))
}

/// Returns whether every event is certainly near and they cover at most `max_days` days, by scanning the JSON for
/// times.
///
/// Every time in the text counts, even in a property of the same name. Fewer times than events mean that the record is
/// spelt differently. `false` proves nothing: [`for_each_event`] decides then. The usual batch passes this check, which
/// costs far less than decoding.
pub(crate) fn scan_is_near(batch: &SinkBatch, max_days: usize) -> bool {
    let (times, arrival) = (memmem::Finder::new(EVENT_TIME_MEMBER), memmem::Finder::new(RECEIVED_AT_MEMBER));
    let (mut days, mut last_day, mut found) = (HashSet::new(), None, 0u64);
    for stored in &batch.records {
        let json = stored.json.as_bytes();
        // The record's own member stands before any text of a sender.
        let Some(at) = arrival.find(json) else { return false };
        let received_at = parse_digits(&json[at + RECEIVED_AT_MEMBER.len()..]);
        for at in times.find_iter(json) {
            let time = parse_digits(&json[at + EVENT_TIME_MEMBER.len()..]);
            let day = Some(day_of(time));
            found += 1;
            if day == last_day {
                continue;
            }
            if !is_near(time, received_at) || days.insert(day) && days.len() > max_days {
                return false;
            }
            last_day = day;
        }
        last_day = None;
    }
    found > batch.last - batch.first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::StoredRecord;
    use serde_json::json;

    const ARRIVED: i64 = 20_000;

    fn record(first: u64, days: impl Iterator<Item = i64>) -> StoredRecord {
        let events: Vec<_> = days
            .map(|day| {
                json!({"event_id": "\"event_time\":1", "seq": 1, "theme": "view", "code": "c", "event_time": day * DAY_MS + 5, "ts": 0,
                    "props": {"received_at": 7}})
            })
            .collect();
        // As the spool writes it: what came with the record first.
        let json = json!({"events": events}).to_string();
        let json = format!("{{\"app_key\":\"a\",\"received_at\":{},{}", ARRIVED * DAY_MS, &json[1..]);
        StoredRecord { first, json }
    }

    fn batch(first: u64, last: u64, records: Vec<StoredRecord>) -> SinkBatch {
        SinkBatch { first, last, dedup_token: "t".into(), records }
    }

    #[test]
    fn near_is_counted_in_days_before_and_after_the_arrival() {
        let at = |day: i64, rest: i64| day * DAY_MS + rest;
        assert!(is_near(at(ARRIVED - 400, 0), at(ARRIVED, DAY_MS - 1)));
        assert!(!is_near(at(ARRIVED - 401, DAY_MS - 1), at(ARRIVED, 0)));
        assert!(is_near(at(ARRIVED + 400, DAY_MS - 1), at(ARRIVED, 0)));
        assert!(!is_near(at(ARRIVED + 401, 0), at(ARRIVED, 0)));
        assert!(!is_near(i64::MIN, i64::MAX));
    }

    #[test]
    fn a_usual_batch_is_known_without_being_read() {
        let days = || (0..1000).map(|n| ARRIVED - n % 49);
        assert!(scan_is_near(&batch(1, 1000, vec![record(1, days())]), 49));
        assert!(scan_is_near(&batch(1, 2000, vec![record(1, days()), record(1001, days())]), 49));
        assert!(!scan_is_near(&batch(1, 1000, vec![record(1, days())]), 48));
        let far = || [ARRIVED, ARRIVED - 401].into_iter();
        assert!(!scan_is_near(&batch(1, 2, vec![record(1, far())]), 48));
        // The same day may be near to the arrival of one record and far from that of another.
        let mut later = record(3, far().take(1));
        later.json = later.json.replace(&(ARRIVED * DAY_MS).to_string(), &((ARRIVED + 500) * DAY_MS).to_string());
        assert!(!scan_is_near(&batch(1, 3, vec![record(1, days().take(2)), later]), 48));
    }

    #[test]
    fn a_record_spelt_otherwise_is_read() {
        let mut spaced = record(1, 0..99);
        spaced.json = spaced.json.replace(":", " : ");
        let spaced = batch(3, 99, vec![spaced]);
        assert!(!scan_is_near(&spaced, 1000));
        let mut seen = Vec::new();
        for_each_event(&spaced, |when| {
            seen.push((when.position, when.app_key.to_owned(), day_of(when.event_time), day_of(when.received_at)));
            when.position < 5
        })
        .unwrap();
        let expected = |position: u64| (position, "a".to_owned(), position as i64 - 1, ARRIVED);
        assert_eq!(seen, [expected(3), expected(4), expected(5)]);
        let broken = StoredRecord { first: 3, json: "{".into() };
        assert_eq!(for_each_event(&batch(3, 4, vec![broken]), |_| true).unwrap_err().first, 3);
    }
}
