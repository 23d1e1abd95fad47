//! Clocks of the host.

use std::time::{SystemTime, UNIX_EPOCH};

use subway_sdk_core::Now;

/// Source of time; replaced in tests.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The operating system's clocks.
///
/// The monotonic one counts the time that the device sleeps, because a session must not continue while a phone lies in
/// a pocket: `CLOCK_BOOTTIME` on Linux and Android, `CLOCK_MONOTONIC` on Apple's systems.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    #[cfg(not(unix))]
    zero: std::time::Instant,
}

impl SystemClock {
    /// Creates the clocks. The zero of the monotonic one is now or the device's start, depending on the system.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(not(unix))]
            zero: std::time::Instant::now(),
        }
    }

    #[cfg(unix)]
    fn mono(self) -> u64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(CLOCK);
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }

    #[cfg(not(unix))]
    fn mono(self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // Before the epoch the device does not know the time.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        Now { wall, mono: self.mono() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_tell_this_century_and_never_go_back() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(a.wall > 1_700_000_000_000);
        assert!(b.mono >= a.mono);
    }
}
