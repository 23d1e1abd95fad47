//! Which parts are merged, which go, and how far back an index reaches. PURE.

use std::collections::HashMap;
use std::ops::Range;

use super::part::Meta;

/// How far back an app's index reaches at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// How long an ID is remembered, milliseconds.
    pub age_ms: i64,
    /// Bytes of the app's index on disk.
    pub bytes: u64,
}

impl Default for Horizon {
    fn default() -> Self {
        Self { age_ms: 90 * 24 * 60 * 60 * 1000, bytes: 8 * 1024 * 1024 * 1024 }
    }
}

/// The horizons of all apps.
#[derive(Clone, Debug, Default)]
pub struct Horizons {
    /// Of the apps that are not named.
    pub other: Horizon,
    /// By the app's number.
    pub apps: HashMap<i64, Horizon>,
}

impl Horizons {
    /// That of one app.
    #[must_use]
    pub fn of(&self, app: i64) -> Horizon {
        self.apps.get(&app).copied().unwrap_or(self.other)
    }
}

/// A part is at most this share of the horizon, in bytes and in time, because parts go as a whole.
const SHARE: u64 = 8;

impl Horizon {
    /// Bytes of the largest part.
    pub(super) fn part_bytes(&self) -> u64 {
        self.bytes / SHARE
    }

    fn part_age(&self) -> i64 {
        self.age_ms / SHARE as i64
    }
}

/// Which neighbours of `parts` (oldest first) to merge: the newest run, as long as it can be, in which none is larger than the
/// others together. So each part is larger than all newer ones together: there are no more than the logarithm of their size
/// says, which is what a search costs, and an ID is written anew only when what it is in doubles.
pub(super) fn merge(parts: &[Meta], horizon: Horizon) -> Option<Range<usize>> {
    let fits = |run: &[Meta]| {
        let sum: u64 = run.iter().map(Meta::bytes).sum();
        let largest = run.iter().map(Meta::bytes).max().unwrap_or(0);
        let from = run.iter().map(|part| part.from).min().unwrap_or(0);
        let to = run.iter().map(|part| part.to).max().unwrap_or(0);
        let bounded = sum <= horizon.part_bytes() && to.saturating_sub(from) <= horizon.part_age();
        bounded && largest <= sum - largest
    };
    let ends = (2..=parts.len()).rev();
    ends.flat_map(|end| (0..end - 1).map(move |start| start..end)).find(|run| fits(&parts[run.clone()]))
}

/// How many of the oldest `parts` lie beyond the horizon at `now`; by their bytes alone if nobody knows what time it is.
/// `besides`: bytes of the index that are in no part.
pub(super) fn expired(parts: &[Meta], besides: u64, horizon: Horizon, now: Option<i64>) -> usize {
    let mut bytes = besides + parts.iter().map(Meta::bytes).sum::<u64>();
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

    fn parts(ids: &[u64]) -> Vec<Meta> {
        (0..).zip(ids).map(|(no, ids)| Meta { no, app: 1, ids: *ids, from: no as i64, to: no as i64 + 1 }).collect()
    }

    fn horizon(age_ms: i64, bytes: u64) -> Horizon {
        Horizon { age_ms, bytes }
    }

    #[test]
    fn a_part_is_merged_with_newer_ones_once_they_are_as_large_together() {
        let wide = horizon(i64::MAX, u64::MAX);
        assert_eq!(merge(&parts(&[1024]), wide), None);
        assert_eq!(merge(&parts(&[1024; 2]), wide), Some(0..2));
        assert_eq!(merge(&parts(&[4096, 1024]), wide), None);
        assert_eq!(merge(&parts(&[8192, 4096, 2048, 2048]), wide), Some(0..4), "at once, not one after the other");
        assert_eq!(merge(&parts(&[90_000, 4096, 2048, 2048]), wide), Some(1..4));
        assert_eq!(merge(&parts(&[4096, 4096, 1024]), wide), Some(0..3));
    }

    #[test]
    fn the_number_of_parts_and_of_rewrites_grows_with_the_logarithm() {
        let (mut list, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
        for _ in 0..1000 {
            list.push(1024);
            while let Some(run) = merge(&parts(&list), horizon(i64::MAX, u64::MAX)) {
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
        assert_eq!(merge(&parts(&[1024; 2]), horizon(i64::MAX, bytes * 9)), Some(0..2));
        assert_eq!(merge(&parts(&[1024; 2]), horizon(i64::MAX, bytes * 7)), None);
        assert_eq!(merge(&parts(&[1024; 2]), horizon(16, u64::MAX)), Some(0..2));
        assert_eq!(merge(&parts(&[1024; 2]), horizon(15, u64::MAX)), None);
    }

    #[test]
    fn the_oldest_parts_go_by_bytes_and_by_age() {
        let list = parts(&[1000; 4]);
        let one = list[0].bytes();
        let expired = |besides, horizon, now| expired(&list, besides, horizon, Some(now));
        assert_eq!(expired(0, horizon(100, 4 * one), 100), 0);
        assert_eq!(expired(1, horizon(100, 4 * one), 100), 1);
        assert_eq!(expired(0, horizon(100, 2 * one), 100), 2);
        assert_eq!(expired(0, horizon(100, 4 * one), 102), 1);
        assert_eq!(expired(0, horizon(0, 0), 1000), 4);
        assert_eq!(super::expired(&list, 0, horizon(0, 2 * one), None), 2, "without a clock the bytes decide");
    }
}
