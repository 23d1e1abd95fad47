//! Bounds the size of a delivery.
//!
//! A record stores once what its events share, and most stores receive a copy of it with each event. A delivery is
//! therefore bounded by its bytes after copying, and can end inside a record.

use crate::record::shared_bytes;
use crate::sinks::StoredRecord;

/// Returns the last position of `first..=last` up to which the events of `records` have about `max_bytes` bytes
/// together, each with what its record shares, and at least `first`.
///
/// Inside a record its events count as equally large, so the error is at most the JSON of one record.
pub(super) fn delivery_end(records: &[StoredRecord], first: u64, last: u64, max_bytes: u64) -> u64 {
    let mut left = max_bytes;
    for (at, record) in records.iter().enumerate() {
        let end = records.get(at + 1).map_or(last, |next| (next.first - 1).min(last));
        let begin = record.first.max(first);
        if begin > end {
            continue;
        }
        let json = record.json.len() as u64;
        let shared = shared_bytes(&record.json).unwrap_or(json).min(json);
        // The end of the last record is not known; then its own text counts for those events that are wanted.
        let each = shared + (json - shared).div_ceil(end - record.first + 1);
        let fitting = left / each.max(1);
        if fitting < end - begin + 1 {
            return (begin + fitting).saturating_sub(1).max(first);
        }
        left -= (end - begin + 1) * each;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of `events` events whose JSON has `shared` bytes of head and `own` bytes for each event.
    fn record(first: u64, events: u64, shared: u64, own: u64) -> StoredRecord {
        let mut json = format!("{{\"shared_bytes\":{shared},");
        let bytes = shared + events * own;
        json.extend(std::iter::repeat_n('x', usize::try_from(bytes).unwrap() - json.len()));
        StoredRecord { first, json }
    }

    #[test]
    fn what_fits_is_not_cut() {
        let records = [record(1, 10, 100, 50), record(11, 10, 100, 50)];
        assert_eq!(delivery_end(&records, 1, 20, 20 * 150), 20);
        assert_eq!(delivery_end(&records, 1, 20, 20 * 150 - 1), 19);
        assert_eq!(delivery_end(&records, 1, 20, 10 * 150), 10);
        assert_eq!(delivery_end(&records, 5, 20, 16 * 150), 20, "what lies before does not count");
    }

    #[test]
    fn a_record_that_grows_beyond_it_is_cut_inside() {
        // 1,000 events that share 32 KiB become 33 MB.
        let records = [record(1, 1000, 32 * 1024, 100)];
        let end = delivery_end(&records, 1, 1000, 4 << 20);
        assert_eq!(end, (4 << 20) / (32 * 1024 + 100));
        let next = delivery_end(&records, end + 1, 1000, 4 << 20);
        assert_eq!(next - end, end);
    }

    #[test]
    fn one_event_always_goes() {
        assert_eq!(delivery_end(&[record(7, 3, 5000, 5000)], 8, 9, 10), 8);
        let unmarked = StoredRecord { first: 1, json: "{\"app_key\":\"of an older collector\"}".into() };
        assert_eq!(delivery_end(&[unmarked], 1, 5, 10), 1);
    }
}
