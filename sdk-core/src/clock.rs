//! Time, as an argument.

use crate::limits;

/// The host's two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since the Unix epoch. May jump in either direction.
    pub wall: i64,
    /// Monotonic clock, milliseconds since any zero that stays the same while this client lives. Never goes back.
    pub mono: u64,
}

/// A monotonic clock that goes on while the device sleeps, made of two that do not.
///
/// Some hosts' monotonic clocks stand still during sleep (`performance.now()` in browsers and Node.js on most systems).
/// The wall clock then tells: where it is ahead of the monotonic one by between [`limits::STANDSTILL_MS`] and
/// [`limits::LONGEST_SLEEP_MS`], that time has passed. A wall clock that went back, or forward by more, was set, and
/// counts for nothing. Within those bounds no clock can tell sleep from a wall clock set forward; it is taken for sleep,
/// which at worst ends a session. Where the monotonic clock counts sleep (`stops` is false) the wall clock is not asked.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    stops: bool,
    /// Where both clocks stood when they were last compared and found in step.
    anchor: Now,
    /// Time that the monotonic clock has missed.
    missed: u64,
    last: u64,
}

impl Clock {
    pub(crate) fn new(stops: bool, now: Now) -> Self {
        Self { stops, anchor: now, missed: 0, last: now.mono }
    }

    /// The same moment with the time in `mono` that the host's clock has missed. Never goes back.
    pub(crate) fn read(&mut self, host: Now) -> Now {
        if self.stops {
            let mono = host.mono as i64 - self.anchor.mono as i64;
            let ahead = host.wall.saturating_sub(self.anchor.wall).saturating_sub(mono);
            let asleep = (limits::STANDSTILL_MS..=limits::LONGEST_SLEEP_MS).contains(&ahead);
            if asleep {
                self.missed += ahead as u64;
            }
            // A smaller difference stays, so that a clock that stands still for good is noticed in the end.
            if asleep || !(0..=limits::LONGEST_SLEEP_MS).contains(&ahead) {
                self.anchor = host;
            }
        }
        self.last = self.last.max(host.mono.saturating_add(self.missed));
        Now { mono: self.last, ..host }
    }

    /// What the host's clock shows at a time of this one.
    pub(crate) fn to_host(&self, mono: u64) -> u64 {
        mono.saturating_sub(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };
    const HOUR: i64 = 3_600_000;

    /// What has passed from `START` to `to`, the clock read there only.
    fn passed(stops: bool, wall: i64, mono: u64) -> u64 {
        let mut clock = Clock::new(stops, START);
        clock.read(Now { wall: START.wall.saturating_add(wall), mono: START.mono + mono }).mono - START.mono
    }

    #[test]
    fn sleep_is_time_that_only_the_wall_clock_has_seen() {
        assert_eq!(passed(true, 8 * HOUR, 10), 8 * HOUR as u64);
        assert_eq!(passed(false, 8 * HOUR, 10), 10, "where the monotonic clock counts sleep, it is right");
        assert_eq!(passed(true, 8 * HOUR, 8 * HOUR as u64), 8 * HOUR as u64);
    }

    #[test]
    fn a_wall_clock_that_was_set_is_not_believed() {
        for wall in [-1, -8 * HOUR, i64::MIN, limits::LONGEST_SLEEP_MS + 11, 365 * 24 * HOUR, i64::MAX] {
            assert_eq!(passed(true, wall, 10), 10, "{wall}");
        }
    }

    #[test]
    fn after_the_wall_clock_was_set_sleep_is_seen_as_before() {
        let mut clock = Clock::new(true, START);
        clock.read(Now { wall: 0, mono: START.mono });
        assert_eq!(clock.read(Now { wall: HOUR, mono: START.mono }).mono, START.mono + HOUR as u64);
    }

    #[test]
    fn a_monotonic_clock_that_stands_still_for_good_does_not_stop_time() {
        let mut clock = Clock::new(true, START);
        let mut now = START;
        for _ in 0..3600 {
            now.wall += 1_000;
            clock.read(now);
        }
        assert_eq!(clock.read(now).mono, START.mono + HOUR as u64);
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::new(false, START);
        assert_eq!(clock.read(Now { mono: 1, ..START }).mono, START.mono);
    }

    #[test]
    fn a_host_is_told_times_of_its_own_clock() {
        let mut clock = Clock::new(true, START);
        let now = clock.read(Now { wall: START.wall + HOUR, mono: START.mono });
        assert_eq!(clock.to_host(now.mono + 7), START.mono + 7);
    }
}
