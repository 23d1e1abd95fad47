//! The clocks of the machine, read in one place, and when the wall clock is to be believed.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch; 0 on a machine whose clock is before it.
#[must_use]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since some moment of this process's life. Never jumps; stands still while the machine sleeps.
#[must_use]
pub(crate) fn monotonic() -> i64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    i64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(i64::MAX)
}

const HOUR_MS: i64 = 60 * 60 * 1000;

/// How far the wall clock may be from where it was left plus the time that has passed, and is still believed at once,
/// milliseconds: 14 days, for which a collector may be off.
pub(crate) const ALLOWANCE_MS: i64 = 14 * 24 * HOUR_MS;

/// How long a clock that is further ahead has to go on steadily until it is believed, milliseconds of running: a machine that
/// was off for months has to wait so long, and a clock that is wrong is mostly set right sooner.
const PROOF_AHEAD_MS: i64 = 6 * HOUR_MS;

/// The same for a clock that is further back. Longer, because it makes young what is old: nothing is lost by waiting.
const PROOF_BACK_MS: i64 = 7 * 24 * HOUR_MS;

/// By how much a doubted clock may be off while it goes on steadily, milliseconds.
const STEADY_MS: i64 = HOUR_MS;

/// A moment by both clocks, milliseconds: the wall's, and [`monotonic`].
type Moment = (i64, i64);

/// Whether the wall clock can be believed, for what cannot be undone: deleting by age.
#[derive(Clone, Debug)]
pub(crate) struct ClockGuard {
    believed: Moment,
    /// When the clock that is not believed was first seen.
    doubted: Option<Moment>,
}

/// By how much the wall clock has gone further than the time that has passed.
fn drift(from: Moment, to: Moment) -> i64 {
    to.0.saturating_sub(from.0).saturating_sub(to.1.saturating_sub(from.1))
}

impl ClockGuard {
    /// The wall clock was last known to be right at `wall`, as of now.
    #[must_use]
    pub(crate) fn new(wall: i64, monotonic: i64) -> Self {
        Self { believed: (wall, monotonic), doubted: None }
    }

    /// Whether the wall clock, which says `wall`, is to be believed. To be asked again and again.
    pub(crate) fn believes(&mut self, wall: i64, monotonic: i64) -> bool {
        let at = (wall, monotonic);
        let ahead = drift(self.believed, at);
        if ahead.abs() > ALLOWANCE_MS {
            let since = *self.doubted.get_or_insert(at);
            if drift(since, at).abs() > STEADY_MS {
                self.doubted = Some(at);
                return false;
            }
            let proof = if ahead > 0 { PROOF_AHEAD_MS } else { PROOF_BACK_MS };
            if monotonic.saturating_sub(since.1) < proof {
                return false;
            }
        }
        (self.believed, self.doubted) = (at, None);
        true
    }

    /// What the wall clock would say if it had gone on as it was when it was last believed.
    #[must_use]
    pub(crate) fn reckoned(&self, monotonic: i64) -> i64 {
        self.believed.0.saturating_add(monotonic.saturating_sub(self.believed.1))
    }

    /// Whether the clock was not believed when it was last asked for.
    #[must_use]
    pub(crate) fn doubts(&self) -> bool {
        self.doubted.is_some()
    }

    /// As if so many milliseconds of running had passed.
    #[cfg(test)]
    pub(crate) fn pass(&mut self, millis: i64) {
        self.believed.1 -= millis;
        self.doubted = self.doubted.map(|(wall, monotonic)| (wall, monotonic - millis));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * HOUR_MS;
    const START: i64 = 20_000 * DAY_MS;

    #[test]
    fn a_clock_that_jumps_is_not_believed_until_it_is_back() {
        let mut guard = ClockGuard::new(START, 0);
        assert!(guard.believes(START + 1000, 1000));
        for jump in [100 * DAY_MS, -100 * DAY_MS, i64::MAX - START - 9000, -START] {
            assert!(!guard.believes(START + jump + 3000, 3000) && guard.doubts(), "{jump}");
            assert!(!guard.believes(START + jump + 5000, 5000), "{jump}");
            assert!(guard.believes(START + 7000, 7000) && !guard.doubts(), "{jump}");
        }
        assert!(!guard.believes(START + 100 * DAY_MS + 8000, 8000), "the doubt of before does not count");
    }

    #[test]
    fn a_collector_that_was_off_for_days_believes_at_once_and_one_that_was_off_for_months_after_hours() {
        assert!(ClockGuard::new(START, 0).believes(START + 13 * DAY_MS, 0));
        let mut guard = ClockGuard::new(START, 0);
        for hour in 0..6 {
            assert!(!guard.believes(START + 100 * DAY_MS + hour * HOUR_MS, hour * HOUR_MS), "hour {hour}");
        }
        assert!(guard.believes(START + 100 * DAY_MS + 6 * HOUR_MS, 6 * HOUR_MS));
        assert!(guard.believes(START + 100 * DAY_MS + 7 * HOUR_MS, 7 * HOUR_MS));
    }

    #[test]
    fn a_clock_that_keeps_jumping_proves_nothing() {
        let mut guard = ClockGuard::new(START, 0);
        for hour in 0..100 {
            assert!(!guard.believes(START + (100 + 3 * hour) * DAY_MS, hour * HOUR_MS));
        }
    }

    #[test]
    fn a_clock_that_was_ahead_for_long_is_believed_again_a_week_after_it_is_right() {
        let mut guard = ClockGuard::new(START + 3650 * DAY_MS, 0);
        for day in 0..7 {
            assert!(!guard.believes(START + day * DAY_MS, day * DAY_MS), "day {day}");
        }
        assert!(guard.believes(START + 7 * DAY_MS, 7 * DAY_MS));
    }
}
