//! What a sink's worker does next. PURE: time, randomness and the state of the spool are arguments.

/// How a sink is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Most events in one batch, not counting the rest of its first record. Bounds memory and the time of one delivery.
    pub max_events: u64,
    /// Most bytes of JSON in one batch, each event with a copy of what its record shares. Bounds memory, whatever was sent. For
    /// a sink that remembers its position, not counting the first record.
    pub max_bytes: u64,
    /// How long the first waiting event waits for company, milliseconds: one delivery then serves many.
    pub linger_ms: u64,
    /// The first pause after a failure, milliseconds; it doubles with every failure in a row.
    pub backoff_ms: u64,
    /// The longest pause, milliseconds.
    pub backoff_cap_ms: u64,
    /// Failures in a row after which the sink counts as down: from then on its health is asked before a batch is risked.
    pub breaker_failures: u32,
    /// Time between two advances of the spool's cursor while the sink itself remembers its position and is busy,
    /// milliseconds. Each costs the spool a commit that answers to clients have to wait behind.
    pub advance_ms: u64,
    /// Whether the sink gives up its oldest events when the spool is full, rather than let clients wait.
    pub sheds: bool,
}

impl Settings {
    /// For the embedded store: large transactions, because each waits for the disk; a short wait, because people look; short
    /// pauses, because it is our own disk that fails, and is to be used within seconds of having room again.
    #[must_use]
    pub(crate) fn embedded() -> Self {
        Self {
            max_events: 20_000,
            max_bytes: 8 * 1024 * 1024,
            linger_ms: 50,
            backoff_ms: 100,
            backoff_cap_ms: 2_000,
            breaker_failures: 5,
            advance_ms: 250,
            sheds: false,
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing waits: sleep until the head moves.
    Idle,
    /// Sleep until this time (milliseconds of the worker's clock), or until the head moves.
    WaitUntil(u64),
    /// Read the next batch, freeze it and deliver it.
    Next,
    /// Deliver the frozen batch again, exactly as it was.
    Again,
    /// Ask the sink whether it is well.
    Probe,
}

/// How far a sink and the spool are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Every event up to this position is delivered or dead.
    pub delivered_to: u64,
    /// Whether a batch is frozen.
    pub frozen: bool,
    /// Position of the newest event of the spool.
    pub head: u64,
}

/// What is known of one sink between two deliveries.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    settings: Settings,
    /// Failures in a row.
    failures: u32,
    /// No attempt before this time.
    not_before: u64,
    /// The sink is down, and has not been found well since.
    open: bool,
    /// When events were first seen waiting.
    waiting_since: Option<u64>,
}

impl Plan {
    /// A sink that has not failed yet.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, failures: 0, not_before: 0, open: false, waiting_since: None }
    }

    /// The settings.
    #[must_use]
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the sink counts as down.
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        self.open
    }

    /// When the pause after the last failure ends; `None`: it is over.
    #[must_use]
    pub(crate) fn pause_ends(&self, now: u64) -> Option<u64> {
        (now < self.not_before).then_some(self.not_before)
    }

    /// The next step at `now`. `hurry`: somebody waits for the events, so they do not wait for company.
    pub(crate) fn next(&mut self, now: u64, place: Place, hurry: bool) -> Step {
        let pending = place.head.saturating_sub(place.delivered_to);
        if pending == 0 {
            self.waiting_since = None;
            return Step::Idle;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now < self.not_before {
            return Step::WaitUntil(self.not_before);
        }
        if self.open {
            return Step::Probe;
        }
        if place.frozen {
            return Step::Again;
        }
        let ripe = since + self.settings.linger_ms;
        if hurry || pending >= self.settings.max_events || now >= ripe || self.failures > 0 {
            Step::Next
        } else {
            Step::WaitUntil(ripe)
        }
    }

    /// A batch was delivered. What still waits began to wait while it was on its way; it waits for company anew.
    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.not_before, self.open, self.waiting_since) = (0, 0, false, None);
    }

    /// A delivery failed at `now` because of our own disk, which is no fault of the store: it does not count towards being
    /// down, and is tried again after `pause_ms`.
    pub(crate) fn failed_ourselves(&mut self, now: u64, pause_ms: u64) {
        self.not_before = now.saturating_add(pause_ms);
    }

    /// The sink says that it is well after having been down: the batch may be tried.
    pub(crate) fn found_well(&mut self) {
        self.open = false;
    }

    /// A delivery or a probe failed at `now`. `asked_ms`: the store asked to be left alone for so long. `random` lies in
    /// `0.0..1.0`. Returns how long the pause is, milliseconds.
    ///
    /// Exponential backoff with full jitter: sinks that failed together do not come back together.
    pub(crate) fn failed(&mut self, now: u64, asked_ms: Option<u64>, random: f64) -> u64 {
        self.failures = self.failures.saturating_add(1);
        self.open = self.failures >= self.settings.breaker_failures;
        let doublings = (self.failures - 1).min(32);
        let most = self.settings.backoff_ms.saturating_mul(1 << doublings).min(self.settings.backoff_cap_ms);
        let pause = (most as f64 * random.clamp(0.0, 1.0)) as u64;
        let pause = pause.max(asked_ms.unwrap_or(0)).max(1);
        self.not_before = now.saturating_add(pause);
        pause
    }
}

/// The last position of the first half of `first..=last`: where a batch is cut that a store refused.
#[must_use]
pub(crate) fn half(first: u64, last: u64) -> u64 {
    first + (last - first) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(Settings {
            max_events: 100,
            linger_ms: 50,
            backoff_ms: 100,
            backoff_cap_ms: 1000,
            breaker_failures: 3,
            ..Settings::embedded()
        })
    }

    fn at(delivered_to: u64, head: u64) -> Place {
        Place { delivered_to, frozen: false, head }
    }

    #[test]
    fn with_nothing_waiting_it_sleeps() {
        assert_eq!(plan().next(0, at(7, 7), true), Step::Idle);
    }

    #[test]
    fn the_first_event_waits_for_company_and_no_longer() {
        let mut plan = plan();
        assert_eq!(plan.next(1000, at(0, 1), false), Step::WaitUntil(1050));
        assert_eq!(plan.next(1049, at(0, 9), false), Step::WaitUntil(1050));
        assert_eq!(plan.next(1050, at(0, 9), false), Step::Next);
        plan.succeeded();
        assert_eq!(plan.next(1060, at(9, 10), false), Step::WaitUntil(1110));
    }

    #[test]
    fn a_full_batch_or_a_hurry_ends_the_wait() {
        assert_eq!(plan().next(0, at(0, 100), false), Step::Next);
        assert_eq!(plan().next(0, at(0, 1), true), Step::Next);
    }

    #[test]
    fn a_frozen_batch_goes_first_and_unchanged() {
        assert_eq!(plan().next(0, Place { frozen: true, ..at(2, 900) }, false), Step::Again);
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_takes_any_part_of_them() {
        let mut plan = plan();
        assert_eq!(
            [1.0, 1.0, 0.5, 1.0, 1.0, 1.0].map(|random| plan.failed(0, None, random)),
            [100, 200, 200, 800, 1000, 1000]
        );
        assert_eq!(plan.failed(0, None, 0.0), 1);
        for _ in 0..100 {
            assert!(plan.failed(0, None, 0.999) < 1000);
        }
    }

    #[test]
    fn our_own_disk_is_no_fault_of_the_store() {
        let mut plan = plan();
        for _ in 0..100 {
            plan.failed_ourselves(0, 500);
        }
        assert!(!plan.is_down());
        assert_eq!(plan.next(0, at(0, 5), true), Step::WaitUntil(500));
        assert_eq!(plan.next(500, at(0, 5), true), Step::Next);
    }

    #[test]
    fn what_the_store_asks_for_is_the_least_pause() {
        assert_eq!(plan().failed(0, Some(5000), 0.5), 5000);
    }

    #[test]
    fn nothing_is_tried_before_the_pause_is_over_not_even_in_a_hurry() {
        let mut plan = plan();
        let pause = plan.failed(1000, None, 1.0);
        assert_eq!(plan.next(1000 + pause - 1, at(0, 5), true), Step::WaitUntil(1000 + pause));
        assert_eq!(plan.next(1000 + pause, at(0, 5), false), Step::Next);
    }

    #[test]
    fn a_sink_that_is_down_is_asked_before_it_is_fed() {
        let mut plan = plan();
        for _ in 0..3 {
            plan.failed(0, None, 0.0);
        }
        assert!(plan.is_down());
        assert_eq!(plan.next(10, at(0, 5), true), Step::Probe);
        plan.failed(10, None, 0.0);
        assert_eq!(plan.next(20, at(0, 5), true), Step::Probe);
        plan.found_well();
        assert_eq!(plan.next(20, at(0, 5), false), Step::Next);
        // One more failure, and it is down again at once.
        plan.failed(20, None, 0.0);
        assert!(plan.is_down());
        plan.succeeded();
        assert!(!plan.is_down());
    }

    #[test]
    fn halving_finds_one_event_among_a_hundred_thousand_within_seventeen_cuts() {
        for poison in [1, 2, 50_000, 50_001, 99_999, 100_000] {
            let (mut first, mut last, mut cuts) = (1u64, 100_000u64, 0);
            while first < last {
                let middle = half(first, last);
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
        let mut plan = Plan::new(Settings { backoff_ms: 200, backoff_cap_ms: 15_000, ..Settings::embedded() });
        let (mut now, mut asked, mut state) = (0u64, 0u64, 7u64);
        while now < 24 * 60 * 60 * 1000 {
            match plan.next(now, at(0, 5), false) {
                Step::WaitUntil(time) => now = time,
                Step::Next | Step::Again | Step::Probe => {
                    asked += 1;
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    plan.failed(now, None, (state >> 11) as f64 / (1u64 << 53) as f64);
                }
                Step::Idle => unreachable!("events wait"),
            }
        }
        assert!((5_760..30_000).contains(&asked), "{asked} attempts in a day");
        assert!(plan.is_down());
        now += 15_000;
        assert_eq!(plan.next(now, at(0, 5), false), Step::Probe);
        plan.found_well();
        assert_eq!(plan.next(now, at(0, 5), false), Step::Next);
    }
}
