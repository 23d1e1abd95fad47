//! PURE: rate limits of clients and apps, and the rule by which apps share what is scarce.
//!
//! Rate limits are token buckets; the time is an argument. A bucket stores only the moment at which it will be full
//! again (the "generic cell rate algorithm" of ATM's traffic management, ITU-T I.371). That is one time stamp without
//! rounding, and a bucket that is full need not be stored.

mod bucket;
mod clients;
mod share;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use bucket::{TokenBucket, TokenRate};
pub(crate) use clients::{ClientBuckets, ClientKey};
pub(crate) use share::dynamic_threshold;

/// Burst of an app, in seconds of its rate. Its traffic comes in waves: a push message, the top of the hour.
const APP_BURST_SECONDS: u64 = 10;

subway_protocol::named_enum! {
    /// Kind of rate limit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum LimitKind {
        /// Requests of one client address.
        Client = "client",
        /// Requests of one app.
        AppRequests = "app_requests",
        /// Events of one app.
        AppEvents = "app_events",
        /// Bytes of one app.
        AppBytes = "app_bytes",
    }
}

/// A rate limit was exceeded. Its text names the limit and the time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitExceeded {
    /// The limit that was exceeded.
    pub limit: LimitKind,
    /// Its rate, tokens a second.
    pub per_second: u64,
    /// Time until a token is available.
    pub wait: Duration,
}

impl RateLimitExceeded {
    /// Returns the whole seconds to wait, at least one. This is the unit of the header `Retry-After`.
    #[must_use]
    pub(crate) fn retry_after(&self) -> u64 {
        (self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }
}

impl std::fmt::Display for RateLimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { limit, per_second, .. } = self;
        let (who, what) = match limit {
            LimitKind::Client => ("your address", "requests"),
            LimitKind::AppRequests => ("this app", "requests"),
            LimitKind::AppEvents => ("this app", "events"),
            LimitKind::AppBytes => ("this app", "bytes of events"),
        };
        write!(f, "{who} may send {per_second} {what} a second; try again in {} s", self.retry_after())
    }
}

#[derive(Debug)]
struct AppLimiter {
    rate: TokenRate,
    bucket: Mutex<TokenBucket>,
}

impl AppLimiter {
    fn new(per_second: u64) -> Arc<Self> {
        let rate = TokenRate::new(per_second, per_second.saturating_mul(APP_BURST_SECONDS));
        Arc::new(Self { rate, bucket: Mutex::default() })
    }

    fn with<T>(
        &self,
        limit: LimitKind,
        act: impl FnOnce(&mut TokenBucket) -> Result<T, Duration>,
    ) -> Result<T, RateLimitExceeded> {
        // Ignores mutex poisoning: a time stamp is consistent even if a holder panicked.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut bucket).map_err(|wait| RateLimitExceeded { limit, per_second: self.rate.per_second(), wait })
    }
}

/// Rate limits of one app, and what its requests hold now.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppQuota {
    requests: Option<Arc<AppLimiter>>,
    events: Option<Arc<AppLimiter>>,
    bytes: Option<Arc<AppLimiter>>,
    usage: Arc<AppUsage>,
}

/// Amounts of the shared budgets that the requests of one app hold.
#[derive(Debug, Default)]
pub(crate) struct AppUsage {
    /// Bytes of memory.
    pub bytes: Arc<AtomicU64>,
    /// Slots in the queue of the spool's writer.
    pub queue_slots: Arc<AtomicU64>,
}

impl AppQuota {
    /// Creates a quota of requests, events and bytes of events a second; `None` is unlimited.
    #[must_use]
    pub(crate) fn new(requests: Option<u64>, events: Option<u64>, bytes: Option<u64>) -> Self {
        let limiter = |per_second: Option<u64>| per_second.map(AppLimiter::new);
        Self { requests: limiter(requests), events: limiter(events), bytes: limiter(bytes), ..Self::default() }
    }

    /// Returns what the app's requests hold now.
    #[must_use]
    pub(crate) fn usage(&self) -> &AppUsage {
        &self.usage
    }

    /// Takes over the buckets of `before` whose rate is the same, so that a reload of the configuration does not refill
    /// them.
    #[must_use]
    pub(crate) fn carry_over(self, before: &AppQuota) -> Self {
        let keep = |new: Option<Arc<AppLimiter>>, old: &Option<Arc<AppLimiter>>| {
            let same = old.clone().filter(|old| new.as_ref().is_some_and(|new| new.rate == old.rate));
            same.or(new)
        };
        Self {
            requests: keep(self.requests, &before.requests),
            events: keep(self.events, &before.events),
            bytes: keep(self.bytes, &before.bytes),
            usage: Arc::clone(&before.usage),
        }
    }

    /// Takes the token of one request. Also checks whether one event would pass, so that a body is not read in vain.
    ///
    /// # Errors
    /// The limit that is exceeded; then nothing is taken.
    pub(crate) fn take_request(&self, now: Instant) -> Result<(), RateLimitExceeded> {
        for (limit, limiter) in [(LimitKind::AppEvents, &self.events), (LimitKind::AppBytes, &self.bytes)] {
            if let Some(limiter) = limiter {
                limiter.with(limit, |bucket| bucket.check(limiter.rate, now))?;
            }
        }
        match &self.requests {
            Some(requests) => requests.with(LimitKind::AppRequests, |bucket| bucket.take(requests.rate, 1, now)),
            None => Ok(()),
        }
    }

    /// Takes the tokens of the events of one batch and of their `bytes`.
    ///
    /// A batch passes if one event and one byte would pass. The other tokens are taken in advance, so that the rate
    /// holds in the long run and a batch that is larger than the burst is not refused for ever.
    ///
    /// # Errors
    /// The limit that is exceeded; then no event is taken.
    pub(crate) fn take_events(&self, count: u64, bytes: u64, now: Instant) -> Result<(), RateLimitExceeded> {
        if let Some(limiter) = &self.bytes {
            limiter.with(LimitKind::AppBytes, |bucket| bucket.take(limiter.rate, bytes, now))?;
        }
        match &self.events {
            Some(events) => events.with(LimitKind::AppEvents, |bucket| bucket.take(events.rate, count, now)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_quota_everything_passes() {
        let now = Instant::now();
        let quota = AppQuota::default();
        assert!(
            (0..1000).all(|_| quota.take_request(now).is_ok() && quota.take_events(u64::MAX, u64::MAX, now).is_ok())
        );
    }

    #[test]
    fn a_large_batch_has_its_turn_and_is_paid_for_afterwards() {
        let now = Instant::now();
        let quota = AppQuota::new(None, Some(10), None);
        quota.take_events(1000, 1, now).unwrap();
        // 1000 events are worth 100 s; the burst is worth 10 s.
        let refused = quota.take_request(now).unwrap_err();
        assert_eq!((refused.limit, refused.per_second), (LimitKind::AppEvents, 10));
        assert_eq!(refused.wait, 90 * SECOND + SECOND / 10);
        assert_eq!(refused.retry_after(), 91);
        assert_eq!(quota.take_events(1, 1, now + refused.wait - Duration::from_nanos(1)).unwrap_err().retry_after(), 1);
        quota.take_events(1, 1, now + refused.wait).unwrap();
    }

    #[test]
    fn few_events_of_many_bytes_are_many_bytes() {
        let now = Instant::now();
        let quota = AppQuota::new(None, Some(1000), Some(100));
        quota.take_events(1, 5000, now).unwrap();
        let refused = quota.take_request(now).unwrap_err();
        assert_eq!(
            (refused.limit, refused.per_second, refused.wait),
            (LimitKind::AppBytes, 100, 40 * SECOND + SECOND / 100)
        );
        assert_eq!(refused.to_string(), "this app may send 100 bytes of events a second; try again in 41 s");
        quota.take_events(1, 1, now + refused.wait).unwrap();
    }

    #[test]
    fn what_is_under_way_stays_so_when_the_configuration_is_read_again() {
        let before = AppQuota::new(Some(1), None, None);
        let after = AppQuota::default().carry_over(&before);
        before.usage().bytes.store(7, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(after.usage().bytes.load(std::sync::atomic::Ordering::Relaxed), 7);
    }

    #[test]
    fn a_quota_that_stays_the_same_goes_on_and_another_begins_anew() {
        let now = Instant::now();
        let quota = AppQuota::new(Some(1), Some(5), None);
        (0..10).for_each(|_| quota.take_request(now).unwrap());
        assert!(AppQuota::new(Some(1), None, None).carry_over(&quota).take_request(now).is_err());
        assert!(AppQuota::new(Some(2), None, None).carry_over(&quota).take_request(now).is_ok());
        assert!(AppQuota::default().carry_over(&quota).take_request(now).is_ok());
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let refused = RateLimitExceeded { limit: LimitKind::AppEvents, per_second: 7, wait: SECOND * 3 };
        assert_eq!(refused.to_string(), "this app may send 7 events a second; try again in 3 s");
    }
}
