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

/// Parts that are merged at once. Fewer make fewer parts to search and more to write.
const FAN_IN: usize = 4;

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

/// Which neighbours of `parts` (oldest first) to merge: the newest run of at least [`FAN_IN`] in which none is larger than
/// the others together, so that each ID is written anew only a few times.
pub(super) fn merge(parts: &[Meta], horizon: Horizon) -> Option<Range<usize>> {
    for end in (FAN_IN..=parts.len()).rev() {
        for start in (0..=end - FAN_IN).rev() {
            let run = &parts[start..end];
            let (sum, largest) =
                run.iter().fold((0, 0), |(sum, largest), part| (sum + part.bytes(), part.bytes().max(largest)));
            let from = run.iter().map(|part| part.from).min().unwrap_or(0);
            let to = run.iter().map(|part| part.to).max().unwrap_or(0);
            if sum > horizon.part_bytes() || to.saturating_sub(from) > horizon.part_age() {
                break;
            }
            if largest <= sum - largest {
                return Some(start..end);
            }
        }
    }
    None
}

/// How many of the oldest `parts` lie beyond the horizon at `now`. `besides`: bytes of the index that are in no part.
pub(super) fn expired(parts: &[Meta], besides: u64, horizon: Horizon, now: i64) -> usize {
    let mut bytes = besides + parts.iter().map(Meta::bytes).sum::<u64>();
    let mut count = 0;
    for part in parts {
        if bytes <= horizon.bytes && now.saturating_sub(part.to) <= horizon.age_ms {
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
    fn equal_neighbours_are_merged_and_larger_ones_wait_for_their_like() {
        let wide = horizon(i64::MAX, u64::MAX);
        assert_eq!(merge(&parts(&[1000; 3]), wide), None);
        assert_eq!(merge(&parts(&[1000; 4]), wide), Some(0..4));
        assert_eq!(merge(&parts(&[4000, 1000, 1000, 1000]), wide), None);
        assert_eq!(merge(&parts(&[4000, 1000, 1000, 1000, 1000]), wide), Some(1..5));
        assert_eq!(merge(&parts(&[9000, 4000, 4000, 4000, 1000]), wide), Some(1..5));
    }

    #[test]
    fn the_number_of_parts_grows_with_the_logarithm() {
        let mut list: Vec<u64> = Vec::new();
        for _ in 0..1000 {
            list.push(1000);
            while let Some(run) = merge(&parts(&list), horizon(i64::MAX, u64::MAX)) {
                let sum = list[run.clone()].iter().sum();
                list.splice(run, [sum]);
            }
            assert!(list.len() <= 15, "{list:?}");
        }
        assert_eq!(list.iter().sum::<u64>(), 1_000_000);
    }

    #[test]
    fn no_part_becomes_larger_or_longer_than_its_share() {
        let bytes = parts(&[4000])[0].bytes();
        assert_eq!(merge(&parts(&[1000; 4]), horizon(i64::MAX, bytes * 9)), Some(0..4));
        assert_eq!(merge(&parts(&[1000; 4]), horizon(i64::MAX, bytes * 7)), None);
        assert_eq!(merge(&parts(&[1000; 4]), horizon(32, u64::MAX)), Some(0..4));
        assert_eq!(merge(&parts(&[1000; 4]), horizon(31, u64::MAX)), None);
    }

    #[test]
    fn the_oldest_parts_go_by_bytes_and_by_age() {
        let list = parts(&[1000; 4]);
        let one = list[0].bytes();
        assert_eq!(expired(&list, 0, horizon(100, 4 * one), 100), 0);
        assert_eq!(expired(&list, 1, horizon(100, 4 * one), 100), 1);
        assert_eq!(expired(&list, 0, horizon(100, 2 * one), 100), 2);
        assert_eq!(expired(&list, 0, horizon(100, 4 * one), 102), 1);
        assert_eq!(expired(&list, 0, horizon(0, 0), 1000), 4);
    }
}
