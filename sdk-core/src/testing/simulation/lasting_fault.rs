//! Lasting faults: for minutes to days of simulated time, or until the end.

use super::Simulator;
use crate::limits;

/// Kind of a lasting fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastingFault {
    /// The disk refuses to grow.
    DiskFull,
    /// The disk refuses every commit.
    DiskRefuses,
    /// No event can be read.
    DiskUnreadable,
    /// Some events cannot be read.
    BadSectors,
    /// No request gets through.
    NetworkAway,
    /// The collector, or an intermediary, answers with this status.
    Answers(u16),
    /// The monotonic clock stands still.
    ClockStill,
    /// The wall clock is set again and again.
    ClockJumps,
}

/// A fault and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveFault {
    pub(super) kind: LastingFault,
    /// Steps until it ends by itself.
    pub(super) steps: u64,
}

impl LastingFault {
    pub(super) fn affects_disk(self) -> bool {
        matches!(
            self,
            LastingFault::DiskFull
                | LastingFault::DiskRefuses
                | LastingFault::DiskUnreadable
                | LastingFault::BadSectors
        )
    }
}

impl Simulator {
    /// Starts a random fault, unless one is active.
    pub(super) fn start_fault(&mut self) {
        if self.fault.is_some() {
            return;
        }
        let kind = match self.random.gen_inclusive(9) {
            0 | 1 => LastingFault::DiskFull,
            2 => LastingFault::DiskRefuses,
            3 => LastingFault::DiskUnreadable,
            4 => LastingFault::BadSectors,
            5 => LastingFault::NetworkAway,
            6 | 7 => LastingFault::Answers([503, 500, 429, 401, 404, 415][self.random.gen_inclusive(5) as usize]),
            8 if self.config.mono_stops_asleep => LastingFault::ClockStill,
            _ => LastingFault::ClockJumps,
        };
        self.report.faults += 1;
        let steps = 10 + self.random.gen_inclusive(300);
        self.fault = Some(ActiveFault { kind, steps });
        self.set_disk(Some(kind));
    }

    /// Counts down the steps of the active fault.
    pub(super) fn age_fault(&mut self) {
        if let Some(fault) = &mut self.fault {
            fault.steps -= 1;
            if fault.steps == 0 {
                self.end_fault();
            }
        }
    }

    /// Ends the active fault.
    pub(super) fn end_fault(&mut self) {
        self.fault = None;
        self.set_disk(None);
    }

    pub(super) fn set_disk(&mut self, kind: Option<LastingFault>) {
        let contents = &mut *self.disk.0.borrow_mut();
        let bound = if kind == Some(LastingFault::DiskFull) { contents.store.bytes() } else { usize::MAX };
        contents.store.set_max_bytes(bound);
        contents.refuses = kind == Some(LastingFault::DiskRefuses);
        contents.unreadable_every = match kind {
            Some(LastingFault::DiskUnreadable) => 1,
            Some(LastingFault::BadSectors) => 3,
            _ => 0,
        };
    }

    pub(super) fn is_active(&self, kind: LastingFault) -> bool {
        self.fault.is_some_and(|fault| fault.kind == kind)
    }

    pub(super) fn pass_time(&mut self) {
        let most = [50, 5_000, 100_000, 4_000_000, 50_000_000][self.random.gen_inclusive(4) as usize];
        let passed = self.random.gen_inclusive(most);
        self.pass(passed);
    }

    /// Advances the clocks, as far as the active fault lets them.
    pub(super) fn pass(&mut self, passed: u64) {
        self.wall += passed as i64;
        if !self.is_active(LastingFault::ClockStill) {
            self.mono += passed;
        }
        if self.is_active(LastingFault::ClockJumps) {
            self.jump();
        }
    }

    /// Sets the wall clock to another time.
    pub(super) fn jump(&mut self) {
        self.wall += self.random.gen_inclusive(2 * 86_400_000) as i64 - 86_400_000;
        self.wall = self.wall.max(0);
    }

    /// Lets the device sleep for a night, which only the wall clock counts. Then sets the clock, which is not sleep.
    pub(super) fn sleep(&mut self) {
        self.pass(1);
        if !self.config.mono_stops_asleep || self.client.consent() != crate::Consent::Granted || !self.track_plain() {
            return;
        }
        let before = self.client.session_index();
        self.wall += 8 * 3_600_000;
        self.mono += 10;
        if self.track_plain() {
            assert!(self.client.session_index() > before, "after a night asleep a new session begins");
        }
        let before = self.client.session_index();
        let forward = self.random.gen_inclusive(1) == 0;
        self.wall += if forward { 2 * limits::MAX_SLEEP_MS } else { -86_400_000 };
        if self.track_plain() {
            assert_eq!(self.client.session_index(), before, "a clock that was set ends no session");
        }
    }
}
