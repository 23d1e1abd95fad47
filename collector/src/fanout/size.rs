//! How much a delivery becomes.
//!
//! A record holds once what its events share; most stores get a copy of it with each event. So what bounds a delivery is its
//! bytes after copying, and it may end inside of a record.

use crate::record::shared_bytes;
use crate::sinks::StoredRecord;

/// The last position of `first..=last` up to which the events of `records` have about `most` bytes together, each with what
/// its record shares; at least `first`. Inside of a record its events count as equally large, so one record more of JSON is
/// the most by which that can be wrong.
pub(super) fn cut(records: &[StoredRecord], first: u64, last: u64, most: u64) -> u64 {
    let mut left = most;
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
        let fit = left / each.max(1);
        if fit < end - begin + 1 {
            return (begin + fit).saturating_sub(1).max(first);
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
        assert_eq!(cut(&records, 1, 20, 20 * 150), 20);
        assert_eq!(cut(&records, 1, 20, 20 * 150 - 1), 19);
        assert_eq!(cut(&records, 1, 20, 10 * 150), 10);
        assert_eq!(cut(&records, 5, 20, 16 * 150), 20, "what lies before does not count");
    }

    #[test]
    fn a_record_that_grows_beyond_it_is_cut_inside() {
        // 1,000 events that share 32 KiB become 33 MB.
        let records = [record(1, 1000, 32 * 1024, 100)];
        let end = cut(&records, 1, 1000, 4 << 20);
        assert_eq!(end, (4 << 20) / (32 * 1024 + 100));
        let next = cut(&records, end + 1, 1000, 4 << 20);
        assert_eq!(next - end, end);
    }

    #[test]
    fn one_event_always_goes() {
        assert_eq!(cut(&[record(7, 3, 5000, 5000)], 8, 9, 10), 8);
        let unmarked = StoredRecord { first: 1, json: "{\"app_key\":\"of an older collector\"}".into() };
        assert_eq!(cut(&[unmarked], 1, 5, 10), 1);
    }
}
