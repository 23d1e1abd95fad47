//! Time as an argument, and the correction for monotonic clocks that stop during sleep.

use crate::limits;

/// The host's two clocks at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since the Unix epoch. Can jump in either direction.
    pub wall: i64,
    /// Monotonic clock, milliseconds since any zero that stays the same for the lifetime of the client. Never goes
    /// back.
    pub mono: u64,
}

/// Derives a monotonic clock that counts sleep from two clocks that may not.
///
/// The monotonic clock of some hosts stops during sleep (`performance.now()` in browsers and Node.js on most systems).
/// If the wall clock has advanced further, by between [`limits::MIN_SLEEP_MS`] and [`limits::MAX_SLEEP_MS`], the
/// difference is counted as sleep. A wall clock that went back, or forward by more, was set, and is ignored. Within
/// these bounds sleep and a clock set forward look the same. Sleep is assumed; the worst effect is that a session ends.
/// If the monotonic clock counts sleep (`stops` is false), the wall clock is ignored.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    stops: bool,
    /// Both clocks when they were last in step.
    anchor: Now,
    /// Time that the monotonic clock has missed.
    missed: u64,
    last: u64,
}

impl Clock {
    pub(crate) fn new(stops: bool, now: Now) -> Self {
        Self { stops, anchor: now, missed: 0, last: now.mono }
    }

    /// Adds to `mono` the time that the host's clock has missed. Never goes back.
    pub(crate) fn read(&mut self, host: Now) -> Now {
        if self.stops {
            let mono = host.mono as i64 - self.anchor.mono as i64;
            let ahead = host.wall.saturating_sub(self.anchor.wall).saturating_sub(mono);
            let asleep = (limits::MIN_SLEEP_MS..=limits::MAX_SLEEP_MS).contains(&ahead);
            if asleep {
                self.missed += ahead as u64;
            }
            // Smaller differences accumulate, so that a clock that has stopped for good is detected.
            if asleep || !(0..=limits::MAX_SLEEP_MS).contains(&ahead) {
                self.anchor = host;
            }
        }
        self.last = self.last.max(host.mono.saturating_add(self.missed));
        Now { mono: self.last, ..host }
    }

    /// Converts a time of this clock to the host's clock.
    pub(crate) fn to_host(&self, mono: u64) -> u64 {
        mono.saturating_sub(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };
    const HOUR: i64 = 3_600_000;

    /// Returns the time between `START` and a single reading at the given distance.
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
        for wall in [-1, -8 * HOUR, i64::MIN, limits::MAX_SLEEP_MS + 11, 365 * 24 * HOUR, i64::MAX] {
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
    fn a_monotonic_clock_that_stopped_does_not_stop_time() {
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
    fn times_are_converted_to_the_hosts_clock() {
        let mut clock = Clock::new(true, START);
        let now = clock.read(Now { wall: START.wall + HOUR, mono: START.mono });
        assert_eq!(clock.to_host(now.mono + 7), START.mono + 7);
    }
}
