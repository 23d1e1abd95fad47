//! One bucket.

use std::time::{Duration, Instant};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// `per_second` tokens a second, `burst` at once; both count as at least one, and the burst as at least a second's
    /// worth.
    #[must_use]
    pub(crate) fn new(per_second: u64, burst: u64) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, burst: burst.max(per_second) }
    }

    /// Tokens a second.
    #[must_use]
    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    /// How long `tokens` take to come.
    fn worth(self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket that is full at first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// When it will be full again; a moment that has passed, or none, means that it is.
    full_at: Option<Instant>,
}

impl Bucket {
    /// How long until it is full.
    pub(super) fn until_full(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }

    /// Whether there is a token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn look(&self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let wait = (self.until_full(now) + rate.worth(1)).saturating_sub(rate.worth(rate.burst));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Takes `tokens` if there is one; the others may be taken in advance.
    ///
    /// # Errors
    /// How long until there is one; nothing is taken then.
    pub(crate) fn take(&mut self, rate: Rate, tokens: u64, now: Instant) -> Result<(), Duration> {
        self.look(rate, now)?;
        let ahead = self.until_full(now).saturating_add(rate.worth(tokens));
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
        let (mut bucket, rate, now) = (Bucket::default(), Rate::new(2, 5), Instant::now());
        (0..5).for_each(|_| bucket.take(rate, 1, now).unwrap());
        assert_eq!(bucket.take(rate, 1, now), Err(Duration::from_millis(500)));
        let later = now + Duration::from_millis(500);
        bucket.take(rate, 1, later).unwrap();
        assert!(bucket.take(rate, 1, later).is_err());
    }

    #[test]
    fn it_never_holds_more_than_the_burst() {
        let (mut bucket, rate, now) = (Bucket::default(), Rate::new(1, 3), Instant::now());
        bucket.take(rate, 1, now).unwrap();
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!((0..10).filter(|_| bucket.take(rate, 1, later).is_ok()).count(), 3);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        bucket.take(Rate::new(1, u64::MAX), u64::MAX, now).unwrap();
        let _ = bucket.take(Rate::new(u64::MAX, u64::MAX), u64::MAX, now);
        let _ = bucket.take(Rate::new(0, 0), 1, now);
    }

    proptest! {
        /// Whatever comes when: no more than burst + rate × time passes, and what is refused passes after the wait.
        #[test]
        fn the_rate_holds(per_second in 1..50u64, burst in 1..100u64, gaps in prop::collection::vec(0..400u64, 1..300)) {
            let (mut bucket, rate, start) = (Bucket::default(), Rate::new(per_second, burst), Instant::now());
            let (mut now, mut passed) = (start, 0);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match bucket.take(rate, 1, now) {
                    Ok(()) => passed += 1,
                    Err(wait) => prop_assert!(bucket.look(rate, now + wait).is_ok()),
                }
                let most = burst.max(per_second) as f64 + now.duration_since(start).as_secs_f64() * per_second as f64;
                prop_assert!(f64::from(passed) <= most + 1e-6, "{passed} > {most}");
            }
        }
    }
}
