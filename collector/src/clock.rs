//! Clocks of the machine, read in one place, and the decision whether the wall clock can be trusted.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since the epoch; 0 on a machine whose clock is before it.
#[must_use]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the milliseconds since a moment of this process. The clock never jumps, and stops while the machine sleeps.
#[must_use]
pub(crate) fn monotonic() -> i64 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    i64::try_from(STARTED.elapsed().as_millis()).unwrap_or(i64::MAX)
}

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Largest difference of the wall clock from the expected time that is trusted at once, milliseconds: 14 days, for
/// which a collector may be off.
pub(crate) const MAX_DRIFT_MS: i64 = 14 * 24 * HOUR_MS;

/// Time for which a clock that is further ahead must run steadily until it is trusted, milliseconds. A machine that was
/// off for months waits so long, and a wrong clock is usually corrected sooner.
const CONFIRM_AHEAD_MS: i64 = 6 * HOUR_MS;

/// The same for a clock that is further back. It is longer, because such a clock makes old events young, and waiting
/// loses nothing.
const CONFIRM_BACK_MS: i64 = 7 * 24 * HOUR_MS;

/// Largest drift of a suspect clock that still runs steadily, milliseconds.
const MAX_JITTER_MS: i64 = HOUR_MS;

/// Reading of both clocks, milliseconds: the wall clock, and [`monotonic`].
type ClockReading = (i64, i64);

/// Decides whether the wall clock can be trusted, for deletion by age, which cannot be undone.
#[derive(Clone, Debug)]
pub(crate) struct ClockGuard {
    trusted: ClockReading,
    /// First reading of a clock that is not trusted.
    suspect: Option<ClockReading>,
}

/// Returns by how much the wall clock has moved more than the time that has passed.
fn drift(from: ClockReading, to: ClockReading) -> i64 {
    to.0.saturating_sub(from.0).saturating_sub(to.1.saturating_sub(from.1))
}

impl ClockGuard {
    /// Creates a guard that trusts the wall clock at `wall`.
    #[must_use]
    pub(crate) fn new(wall: i64, monotonic: i64) -> Self {
        Self { trusted: (wall, monotonic), suspect: None }
    }

    /// Returns whether the wall clock, which reads `wall`, can be trusted. It must be called regularly.
    pub(crate) fn believes(&mut self, wall: i64, monotonic: i64) -> bool {
        let at = (wall, monotonic);
        let ahead = drift(self.trusted, at);
        if ahead.abs() > MAX_DRIFT_MS {
            let since = *self.suspect.get_or_insert(at);
            if drift(since, at).abs() > MAX_JITTER_MS {
                self.suspect = Some(at);
                return false;
            }
            let confirm_ms = if ahead > 0 { CONFIRM_AHEAD_MS } else { CONFIRM_BACK_MS };
            if monotonic.saturating_sub(since.1) < confirm_ms {
                return false;
            }
        }
        (self.trusted, self.suspect) = (at, None);
        true
    }

    /// Returns the time by the wall clock as it was when it was last trusted.
    #[must_use]
    pub(crate) fn reckoned(&self, monotonic: i64) -> i64 {
        self.trusted.0.saturating_add(monotonic.saturating_sub(self.trusted.1))
    }

    /// Returns whether the last reading was not trusted.
    #[must_use]
    pub(crate) fn doubts(&self) -> bool {
        self.suspect.is_some()
    }

    /// Moves the guard forward by `millis` of running.
    #[cfg(test)]
    pub(crate) fn pass(&mut self, millis: i64) {
        self.trusted.1 -= millis;
        self.suspect = self.suspect.map(|(wall, monotonic)| (wall, monotonic - millis));
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
