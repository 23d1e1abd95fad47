//! Token bucket, stored as the moment at which it will be full.

use std::time::{Duration, Instant};

/// Rate and burst of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenRate {
    per_second: u64,
    burst: u64,
}

impl TokenRate {
    /// Creates a rate of `per_second` tokens a second with `burst` at once. Both are at least one, and the burst is at
    /// least the tokens of one second.
    #[must_use]
    pub(crate) fn new(per_second: u64, burst: u64) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, burst: burst.max(per_second) }
    }

    /// Returns the tokens a second.
    #[must_use]
    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Returns the time in which `tokens` are refilled.
    fn refill_time(self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Token bucket; the default is a full one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenBucket {
    /// Moment at which it will be full; a moment in the past, or `None`, means that it is full.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Returns the time until it is full.
    pub(super) fn until_full(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }

    /// Checks whether a token is available.
    ///
    /// # Errors
    /// The time until one is.
    pub(crate) fn check(&self, rate: TokenRate, now: Instant) -> Result<(), Duration> {
        let wait = (self.until_full(now) + rate.refill_time(1)).saturating_sub(rate.refill_time(rate.burst));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Takes `tokens` if at least one is available; the others are taken in advance.
    ///
    /// # Errors
    /// The time until one is available; then nothing is taken.
    pub(crate) fn take(&mut self, rate: TokenRate, tokens: u64, now: Instant) -> Result<(), Duration> {
        self.check(rate, now)?;
        let ahead = self.until_full(now).saturating_add(rate.refill_time(tokens));
        self.full_at = now.checked_add(ahead).or(self.full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_one_by_one() {
        let (mut bucket, rate, now) = (TokenBucket::default(), TokenRate::new(2, 5), Instant::now());
        (0..5).for_each(|_| bucket.take(rate, 1, now).unwrap());
        assert_eq!(bucket.take(rate, 1, now), Err(Duration::from_millis(500)));
        let later = now + Duration::from_millis(500);
        bucket.take(rate, 1, later).unwrap();
        assert!(bucket.take(rate, 1, later).is_err());
    }

    #[test]
    fn it_never_holds_more_than_the_burst() {
        let (mut bucket, rate, now) = (TokenBucket::default(), TokenRate::new(1, 3), Instant::now());
        bucket.take(rate, 1, now).unwrap();
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!((0..10).filter(|_| bucket.take(rate, 1, later).is_ok()).count(), 3);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let (mut bucket, now) = (TokenBucket::default(), Instant::now());
        bucket.take(TokenRate::new(1, u64::MAX), u64::MAX, now).unwrap();
        let _ = bucket.take(TokenRate::new(u64::MAX, u64::MAX), u64::MAX, now);
        let _ = bucket.take(TokenRate::new(0, 0), 1, now);
    }

    proptest! {
        /// At most burst + rate × time passes, and a refused token passes after its wait.
        #[test]
        fn the_rate_holds(per_second in 1..50u64, burst in 1..100u64, gaps in prop::collection::vec(0..400u64, 1..300)) {
            let (mut bucket, rate, start) = (TokenBucket::default(), TokenRate::new(per_second, burst), Instant::now());
            let (mut now, mut passed) = (start, 0);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match bucket.take(rate, 1, now) {
                    Ok(()) => passed += 1,
                    Err(wait) => prop_assert!(bucket.check(rate, now + wait).is_ok()),
                }
                let max_clients = burst.max(per_second) as f64 + now.duration_since(start).as_secs_f64() * per_second as f64;
                prop_assert!(f64::from(passed) <= max_clients + 1e-6, "{passed} > {max_clients}");
            }
        }
    }
}
