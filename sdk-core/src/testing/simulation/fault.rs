//! Faults that last: for minutes to days of the simulated time, or until the end.

use super::World;
use crate::limits;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// The disk takes nothing that makes it grow.
    DiskFull,
    /// The disk refuses every change.
    DiskRefuses,
    /// No event can be read.
    DiskUnreadable,
    /// Some events cannot be read.
    BadSectors,
    /// No request gets through.
    NetworkAway,
    /// The collector, or what stands before it, answers this.
    Answers(u16),
    /// The monotonic clock stands still.
    ClockStill,
    /// The wall clock is set again and again.
    ClockJumps,
}

/// A fault and when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) kind: Lasting,
    /// Steps until it ends by itself.
    pub(super) steps: u64,
}

impl Lasting {
    pub(super) fn is_of_the_disk(self) -> bool {
        matches!(self, Lasting::DiskFull | Lasting::DiskRefuses | Lasting::DiskUnreadable | Lasting::BadSectors)
    }
}

impl World {
    /// Something breaks, unless something is broken already.
    pub(super) fn break_something(&mut self) {
        if self.fault.is_some() {
            return;
        }
        let kind = match self.random.up_to(9) {
            0 | 1 => Lasting::DiskFull,
            2 => Lasting::DiskRefuses,
            3 => Lasting::DiskUnreadable,
            4 => Lasting::BadSectors,
            5 => Lasting::NetworkAway,
            6 | 7 => Lasting::Answers([503, 500, 429, 401, 404, 415][self.random.up_to(5) as usize]),
            8 if self.config.mono_stops_asleep => Lasting::ClockStill,
            _ => Lasting::ClockJumps,
        };
        self.report.faults += 1;
        let steps = 10 + self.random.up_to(300);
        self.fault = Some(Fault { kind, steps });
        self.set_disk(Some(kind));
    }

    /// One step has passed.
    pub(super) fn age_fault(&mut self) {
        if let Some(fault) = &mut self.fault {
            fault.steps -= 1;
            if fault.steps == 0 {
                self.mend();
            }
        }
    }

    /// Everything works again.
    pub(super) fn mend(&mut self) {
        self.fault = None;
        self.set_disk(None);
    }

    pub(super) fn set_disk(&mut self, kind: Option<Lasting>) {
        let contents = &mut *self.disk.0.borrow_mut();
        let bound = if kind == Some(Lasting::DiskFull) { contents.store.bytes() } else { usize::MAX };
        contents.store.set_bound(bound);
        contents.refuses = kind == Some(Lasting::DiskRefuses);
        contents.unreadable = match kind {
            Some(Lasting::DiskUnreadable) => 1,
            Some(Lasting::BadSectors) => 3,
            _ => 0,
        };
    }

    pub(super) fn lasts(&self, kind: Lasting) -> bool {
        self.fault.is_some_and(|fault| fault.kind == kind)
    }

    pub(super) fn pass_time(&mut self) {
        let most = [50, 5_000, 100_000, 4_000_000, 50_000_000][self.random.up_to(4) as usize];
        let passed = self.random.up_to(most);
        self.pass(passed);
    }

    /// So much time passes, as the clocks see it.
    pub(super) fn pass(&mut self, passed: u64) {
        self.wall += passed as i64;
        if !self.lasts(Lasting::ClockStill) {
            self.mono += passed;
        }
        if self.lasts(Lasting::ClockJumps) {
            self.jump();
        }
    }

    /// Somebody sets the wall clock.
    pub(super) fn jump(&mut self) {
        self.wall += self.random.up_to(2 * 86_400_000) as i64 - 86_400_000;
        self.wall = self.wall.max(0);
    }

    /// The device sleeps for a night: only the wall clock sees it. Then somebody sets the clock, which is no sleep.
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
        let forward = self.random.up_to(1) == 0;
        self.wall += if forward { 2 * limits::LONGEST_SLEEP_MS } else { -86_400_000 };
        if self.track_plain() {
            assert_eq!(self.client.session_index(), before, "a clock that was set ends no session");
        }
    }
}
