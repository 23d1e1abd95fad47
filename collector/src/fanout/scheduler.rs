//! Decides what a sink's worker does next. PURE: time, randomness and the state of the spool are arguments.

/// Delivery settings of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliverySettings {
    /// Events in one batch, not counting the rest of its first record. Bounds memory and the time of a delivery.
    pub max_events: u64,
    /// Bytes of JSON in one batch, each event with a copy of what its record shares. Bounds memory. The first record
    /// is not counted for a sink that tracks its position.
    pub max_bytes: u64,
    /// Batching window in milliseconds: a partial batch is sent after this time.
    pub linger_ms: u64,
    /// First delay after a failure, milliseconds. It doubles with every further failure.
    pub retry_initial_backoff_ms: u64,
    /// Longest delay, milliseconds.
    pub retry_max_backoff_ms: u64,
    /// Consecutive failures after which the sink counts as down. From then on its health is checked before a batch is
    /// sent.
    pub breaker_threshold: u32,
    /// Interval at which the spool's cursor follows a busy sink that tracks its position, milliseconds. Each advance
    /// costs a commit of the spool, behind which answers to clients wait.
    pub advance_ms: u64,
    /// Whether the sink drops its oldest events when the spool is full. Otherwise clients are refused.
    pub drops_oldest: bool,
}

impl DeliverySettings {
    /// Returns the settings of the embedded store: large transactions, because each waits for the disk; a short
    /// batching window, because people read the store; short delays, because only the local disk fails, and delivery
    /// must continue within seconds after it has space again.
    #[must_use]
    pub(crate) fn embedded() -> Self {
        Self {
            max_events: 20_000,
            max_bytes: 8 * 1024 * 1024,
            linger_ms: 50,
            retry_initial_backoff_ms: 100,
            retry_max_backoff_ms: 2_000,
            breaker_threshold: 5,
            advance_ms: 250,
            drops_oldest: false,
        }
    }
}

/// Next action of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sleep until the head moves, because no event is pending.
    Idle,
    /// Sleep until this time (milliseconds of the worker's clock) or until the head moves.
    WaitUntil(u64),
    /// Read the next batch, freeze it and deliver it.
    SendNext,
    /// Deliver the frozen batch again, exactly as before.
    Resend,
    /// Check the health of the sink.
    CheckHealth,
}

/// Positions of a sink and the spool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinkPosition {
    /// Position up to which every event is delivered or discarded.
    pub delivered_to: u64,
    /// Whether a batch is frozen.
    pub frozen: bool,
    /// Position of the newest event in the spool.
    pub head: u64,
}

/// Scheduling state of one sink.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    settings: DeliverySettings,
    /// Consecutive failures.
    failures: u32,
    /// Time before which nothing is attempted.
    retry_at: u64,
    /// Whether the sink is down and no health check has succeeded since.
    breaker_open: bool,
    /// Time at which pending events were first seen.
    linger_since: Option<u64>,
}

impl Scheduler {
    /// Creates the state of a sink without failures.
    #[must_use]
    pub(crate) fn new(settings: DeliverySettings) -> Self {
        Self { settings, failures: 0, retry_at: 0, breaker_open: false, linger_since: None }
    }

    /// Returns the settings.
    #[must_use]
    pub(crate) fn settings(&self) -> &DeliverySettings {
        &self.settings
    }

    /// Returns whether the sink counts as down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        self.breaker_open
    }

    /// Returns the end of the current backoff, or `None` if it is over.
    #[must_use]
    pub(crate) fn backoff_until(&self, now: u64) -> Option<u64> {
        (now < self.retry_at).then_some(self.retry_at)
    }

    /// Returns the next action at `now`. `flush_requested` ends the batching window early.
    pub(crate) fn next(&mut self, now: u64, position: SinkPosition, flush_requested: bool) -> Action {
        let pending = position.head.saturating_sub(position.delivered_to);
        if pending == 0 {
            self.linger_since = None;
            return Action::Idle;
        }
        let since = *self.linger_since.get_or_insert(now);
        if now < self.retry_at {
            return Action::WaitUntil(self.retry_at);
        }
        if self.breaker_open {
            return Action::CheckHealth;
        }
        if position.frozen {
            return Action::Resend;
        }
        let linger_deadline = since + self.settings.linger_ms;
        if flush_requested || pending >= self.settings.max_events || now >= linger_deadline || self.failures > 0 {
            Action::SendNext
        } else {
            Action::WaitUntil(linger_deadline)
        }
    }

    /// Resets the failures and restarts the batching window for events that arrived during the delivery.
    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.retry_at, self.breaker_open, self.linger_since) = (0, 0, false, None);
    }

    /// Delays the next attempt by `pause_ms` after a failure of the local disk, which does not count towards the sink
    /// being down.
    pub(crate) fn local_failure(&mut self, now: u64, pause_ms: u64) {
        self.retry_at = now.saturating_add(pause_ms);
    }

    /// Closes the breaker after a successful health check, so that the batch can be sent.
    pub(crate) fn probe_succeeded(&mut self) {
        self.breaker_open = false;
    }

    /// Records a failed delivery or probe at `now`. Returns the delay before the next attempt, milliseconds.
    ///
    /// `retry_after_ms` is the least delay that the store asked for. `random` lies in `0.0..1.0`.
    ///
    /// Uses exponential backoff with full jitter, so that sinks that failed together do not retry together.
    pub(crate) fn failed(&mut self, now: u64, retry_after_ms: Option<u64>, random: f64) -> u64 {
        self.failures = self.failures.saturating_add(1);
        self.breaker_open = self.failures >= self.settings.breaker_threshold;
        let doublings = (self.failures - 1).min(32);
        let max_pause = self
            .settings
            .retry_initial_backoff_ms
            .saturating_mul(1 << doublings)
            .min(self.settings.retry_max_backoff_ms);
        let pause = (max_pause as f64 * random.clamp(0.0, 1.0)) as u64;
        let pause = pause.max(retry_after_ms.unwrap_or(0)).max(1);
        self.retry_at = now.saturating_add(pause);
        pause
    }
}

/// Returns the last position of the first half of `first..=last`, where a refused batch is bisected.
#[must_use]
pub(crate) fn midpoint(first: u64, last: u64) -> u64 {
    first + (last - first) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler() -> Scheduler {
        Scheduler::new(DeliverySettings {
            max_events: 100,
            linger_ms: 50,
            retry_initial_backoff_ms: 100,
            retry_max_backoff_ms: 1000,
            breaker_threshold: 3,
            ..DeliverySettings::embedded()
        })
    }

    fn at(delivered_to: u64, head: u64) -> SinkPosition {
        SinkPosition { delivered_to, frozen: false, head }
    }

    #[test]
    fn with_nothing_waiting_it_sleeps() {
        assert_eq!(scheduler().next(0, at(7, 7), true), Action::Idle);
    }

    #[test]
    fn the_first_event_waits_for_company_and_no_longer() {
        let mut scheduler = scheduler();
        assert_eq!(scheduler.next(1000, at(0, 1), false), Action::WaitUntil(1050));
        assert_eq!(scheduler.next(1049, at(0, 9), false), Action::WaitUntil(1050));
        assert_eq!(scheduler.next(1050, at(0, 9), false), Action::SendNext);
        scheduler.succeeded();
        assert_eq!(scheduler.next(1060, at(9, 10), false), Action::WaitUntil(1110));
    }

    #[test]
    fn a_full_batch_or_a_hurry_ends_the_wait() {
        assert_eq!(scheduler().next(0, at(0, 100), false), Action::SendNext);
        assert_eq!(scheduler().next(0, at(0, 1), true), Action::SendNext);
    }

    #[test]
    fn a_frozen_batch_goes_first_and_unchanged() {
        assert_eq!(scheduler().next(0, SinkPosition { frozen: true, ..at(2, 900) }, false), Action::Resend);
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_takes_any_part_of_them() {
        let mut scheduler = scheduler();
        assert_eq!(
            [1.0, 1.0, 0.5, 1.0, 1.0, 1.0].map(|random| scheduler.failed(0, None, random)),
            [100, 200, 200, 800, 1000, 1000]
        );
        assert_eq!(scheduler.failed(0, None, 0.0), 1);
        for _ in 0..100 {
            assert!(scheduler.failed(0, None, 0.999) < 1000);
        }
    }

    #[test]
    fn our_own_disk_is_no_fault_of_the_store() {
        let mut scheduler = scheduler();
        for _ in 0..100 {
            scheduler.local_failure(0, 500);
        }
        assert!(!scheduler.is_down());
        assert_eq!(scheduler.next(0, at(0, 5), true), Action::WaitUntil(500));
        assert_eq!(scheduler.next(500, at(0, 5), true), Action::SendNext);
    }

    #[test]
    fn what_the_store_asks_for_is_the_least_pause() {
        assert_eq!(scheduler().failed(0, Some(5000), 0.5), 5000);
    }

    #[test]
    fn nothing_is_tried_before_the_pause_is_over_not_even_in_a_hurry() {
        let mut scheduler = scheduler();
        let pause = scheduler.failed(1000, None, 1.0);
        assert_eq!(scheduler.next(1000 + pause - 1, at(0, 5), true), Action::WaitUntil(1000 + pause));
        assert_eq!(scheduler.next(1000 + pause, at(0, 5), false), Action::SendNext);
    }

    #[test]
    fn a_sink_that_is_down_is_asked_before_it_is_fed() {
        let mut scheduler = scheduler();
        for _ in 0..3 {
            scheduler.failed(0, None, 0.0);
        }
        assert!(scheduler.is_down());
        assert_eq!(scheduler.next(10, at(0, 5), true), Action::CheckHealth);
        scheduler.failed(10, None, 0.0);
        assert_eq!(scheduler.next(20, at(0, 5), true), Action::CheckHealth);
        scheduler.probe_succeeded();
        assert_eq!(scheduler.next(20, at(0, 5), false), Action::SendNext);
        // One more failure, and it is down again at once.
        scheduler.failed(20, None, 0.0);
        assert!(scheduler.is_down());
        scheduler.succeeded();
        assert!(!scheduler.is_down());
    }

    #[test]
    fn halving_finds_one_event_among_a_hundred_thousand_within_seventeen_cuts() {
        for poison in [1, 2, 50_000, 50_001, 99_999, 100_000] {
            let (mut first, mut last, mut cuts) = (1u64, 100_000u64, 0);
            while first < last {
                let middle = midpoint(first, last);
                assert!((first..last).contains(&middle));
                if poison <= middle {
                    last = middle
                } else {
                    first = middle + 1
                }
                cuts += 1;
            }
            assert_eq!(first, poison);
            assert!(cuts <= 17, "{cuts}");
        }
    }

    #[test]
    fn a_sink_that_is_down_for_a_day_is_asked_rarely_and_served_at_once_when_it_is_back() {
        let mut scheduler = Scheduler::new(DeliverySettings {
            retry_initial_backoff_ms: 200,
            retry_max_backoff_ms: 15_000,
            ..DeliverySettings::embedded()
        });
        let (mut now, mut asked, mut state) = (0u64, 0u64, 7u64);
        while now < 24 * 60 * 60 * 1000 {
            match scheduler.next(now, at(0, 5), false) {
                Action::WaitUntil(time) => now = time,
                Action::SendNext | Action::Resend | Action::CheckHealth => {
                    asked += 1;
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    scheduler.failed(now, None, (state >> 11) as f64 / (1u64 << 53) as f64);
                }
                Action::Idle => unreachable!("events wait"),
            }
        }
        assert!((5_760..30_000).contains(&asked), "{asked} attempts in a day");
        assert!(scheduler.is_down());
        now += 15_000;
        assert_eq!(scheduler.next(now, at(0, 5), false), Action::CheckHealth);
        scheduler.probe_succeeded();
        assert_eq!(scheduler.next(now, at(0, 5), false), Action::SendNext);
    }
}
