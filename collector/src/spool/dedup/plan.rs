//! Decides which parts are merged and which have expired. PURE.

use std::collections::HashMap;
use std::ops::Range;

use super::part::PartMeta;

/// Limits of one app's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Age up to which an ID is kept, milliseconds.
    pub age_ms: i64,
    /// Bytes of the app's index on disk.
    pub bytes: u64,
}

impl Default for Horizon {
    fn default() -> Self {
        Self { age_ms: 90 * 24 * 60 * 60 * 1000, bytes: 8 * 1024 * 1024 * 1024 }
    }
}

/// Horizons of all apps.
#[derive(Clone, Debug, Default)]
pub struct Horizons {
    /// Horizon of the apps that are not listed.
    pub other: Horizon,
    /// Horizons by app number.
    pub apps: HashMap<i64, Horizon>,
}

impl Horizons {
    /// Returns the horizon of one app.
    #[must_use]
    pub fn of(&self, app: i64) -> Horizon {
        self.apps.get(&app).copied().unwrap_or(self.other)
    }
}

/// Divisor of the horizon, in bytes and in time, that bounds a part, because parts expire as a whole.
const PARTS_PER_HORIZON: u64 = 8;

impl Horizon {
    /// Returns the bytes of the largest part.
    pub(super) fn part_bytes(&self) -> u64 {
        self.bytes / PARTS_PER_HORIZON
    }

    fn part_age(&self) -> i64 {
        self.age_ms / PARTS_PER_HORIZON as i64
    }
}

/// Returns which neighbours of `parts` (the oldest first) to merge: the newest run, as long as possible, in which no
/// part is larger than the others together.
///
/// After a merge each part is larger than all newer ones together. The number of parts, which is the cost of a
/// search, grows with the logarithm of their size, and an ID is rewritten only when the size of its part doubles.
pub(super) fn plan_merge(parts: &[PartMeta], horizon: Horizon) -> Option<Range<usize>> {
    let fits = |run: &[PartMeta]| {
        let sum: u64 = run.iter().map(PartMeta::bytes).sum();
        let largest = run.iter().map(PartMeta::bytes).max().unwrap_or(0);
        let from = run.iter().map(|part| part.from).min().unwrap_or(0);
        let to = run.iter().map(|part| part.to).max().unwrap_or(0);
        let bounded = sum <= horizon.part_bytes() && to.saturating_sub(from) <= horizon.part_age();
        bounded && largest <= sum - largest
    };
    let ends = (2..=parts.len()).rev();
    ends.flat_map(|end| (0..end - 1).map(move |start| start..end)).find(|run| fits(&parts[run.clone()]))
}

/// Returns how many of the oldest `parts` are beyond the horizon at `now`, by bytes alone if the time is unknown.
///
/// `unsealed_bytes` are the bytes of the index that are in no part.
pub(super) fn count_expired(parts: &[PartMeta], unsealed_bytes: u64, horizon: Horizon, now: Option<i64>) -> usize {
    let mut bytes = unsealed_bytes + parts.iter().map(PartMeta::bytes).sum::<u64>();
    let mut count = 0;
    for part in parts {
        if bytes <= horizon.bytes && now.is_none_or(|now| now.saturating_sub(part.to) <= horizon.age_ms) {
            break;
        }
        bytes -= part.bytes();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ids: &[u64]) -> Vec<PartMeta> {
        (0..).zip(ids).map(|(no, ids)| PartMeta { no, app: 1, ids: *ids, from: no as i64, to: no as i64 + 1 }).collect()
    }

    fn horizon(age_ms: i64, bytes: u64) -> Horizon {
        Horizon { age_ms, bytes }
    }

    #[test]
    fn a_part_is_merged_with_newer_ones_once_they_are_as_large_together() {
        let wide = horizon(i64::MAX, u64::MAX);
        assert_eq!(plan_merge(&parts(&[1024]), wide), None);
        assert_eq!(plan_merge(&parts(&[1024; 2]), wide), Some(0..2));
        assert_eq!(plan_merge(&parts(&[4096, 1024]), wide), None);
        assert_eq!(plan_merge(&parts(&[8192, 4096, 2048, 2048]), wide), Some(0..4), "at once, not one after the other");
        assert_eq!(plan_merge(&parts(&[90_000, 4096, 2048, 2048]), wide), Some(1..4));
        assert_eq!(plan_merge(&parts(&[4096, 4096, 1024]), wide), Some(0..3));
    }

    #[test]
    fn the_number_of_parts_and_of_rewrites_grows_with_the_logarithm() {
        let (mut list, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
        for _ in 0..1000 {
            list.push(1024);
            while let Some(run) = plan_merge(&parts(&list), horizon(i64::MAX, u64::MAX)) {
                let sum = list[run.clone()].iter().sum();
                written += sum;
                list.splice(run, [sum]);
            }
            assert!(list.len() <= 10, "{list:?}");
        }
        let seen = list.iter().sum::<u64>();
        assert_eq!(seen, 1024 * 1000);
        assert!(written <= 7 * seen, "{written}");
    }

    #[test]
    fn no_part_becomes_larger_or_longer_than_its_share() {
        let bytes = parts(&[2048])[0].bytes();
        assert_eq!(plan_merge(&parts(&[1024; 2]), horizon(i64::MAX, bytes * 9)), Some(0..2));
        assert_eq!(plan_merge(&parts(&[1024; 2]), horizon(i64::MAX, bytes * 7)), None);
        assert_eq!(plan_merge(&parts(&[1024; 2]), horizon(16, u64::MAX)), Some(0..2));
        assert_eq!(plan_merge(&parts(&[1024; 2]), horizon(15, u64::MAX)), None);
    }

    #[test]
    fn the_oldest_parts_go_by_bytes_and_by_age() {
        let list = parts(&[1000; 4]);
        let one = list[0].bytes();
        let expired_with = |unsealed_bytes, horizon, now| count_expired(&list, unsealed_bytes, horizon, Some(now));
        assert_eq!(expired_with(0, horizon(100, 4 * one), 100), 0);
        assert_eq!(expired_with(1, horizon(100, 4 * one), 100), 1);
        assert_eq!(expired_with(0, horizon(100, 2 * one), 100), 2);
        assert_eq!(expired_with(0, horizon(100, 4 * one), 102), 1);
        assert_eq!(expired_with(0, horizon(0, 0), 1000), 4);
        assert_eq!(super::count_expired(&list, 0, horizon(0, 2 * one), None), 2, "without a clock the bytes decide");
    }
}
