//! PURE: how often a client or an app may ask. Token buckets; the time is an argument.
//!
//! A bucket is kept as the moment at which it will be full again (the "generic cell rate algorithm" of ATM's traffic
//! management, ITU-T I.371): one time stamp, no rounding, and a bucket nobody has used for a while is no bucket at all.

mod bucket;
mod clients;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use bucket::{Bucket, Rate};
pub(crate) use clients::{Clients, Origin};

/// An app's traffic comes in waves (a push message, the top of the hour): what it may send in this many seconds may
/// come at once.
const APP_BURST_SECONDS: u64 = 10;

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    /// Requests of one client address.
    Client,
    /// Requests of one app.
    AppRequests,
    /// Events of one app.
    AppEvents,
    /// Bytes of one app.
    AppBytes,
}

impl Limited {
    /// Every limit.
    pub(crate) const ALL: [Limited; 4] = [Limited::Client, Limited::AppRequests, Limited::AppEvents, Limited::AppBytes];

    /// Its name in metrics and logs.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Limited::Client => "client",
            Limited::AppRequests => "app_requests",
            Limited::AppEvents => "app_events",
            Limited::AppBytes => "app_bytes",
        }
    }
}

/// A refusal: what was reached, what is allowed, and how long until the next request has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Which limit.
    pub limited: Limited,
    /// What is allowed in a second.
    pub per_second: u64,
    /// Until a token is there.
    pub wait: Duration,
}

impl Exceeded {
    /// Whole seconds to wait, at least one: the unit of the header `Retry-After`.
    #[must_use]
    pub(crate) fn retry_after(&self) -> u64 {
        (self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }

    /// The refusal as a sentence.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let Self { limited, per_second, .. } = self;
        let (who, what) = match limited {
            Limited::Client => ("your address", "requests"),
            Limited::AppRequests => ("this app", "requests"),
            Limited::AppEvents => ("this app", "events"),
            Limited::AppBytes => ("this app", "bytes of events"),
        };
        format!("{who} may send {per_second} {what} a second; try again in {} s", self.retry_after())
    }
}

#[derive(Debug)]
struct Metered {
    rate: Rate,
    bucket: Mutex<Bucket>,
}

impl Metered {
    fn new(per_second: u64) -> Arc<Self> {
        let rate = Rate::new(per_second, per_second.saturating_mul(APP_BURST_SECONDS));
        Arc::new(Self { rate, bucket: Mutex::default() })
    }

    fn with<T>(&self, limited: Limited, act: impl FnOnce(&mut Bucket) -> Result<T, Duration>) -> Result<T, Exceeded> {
        // A poisoned lock guards a time stamp, which is whole at every moment.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut bucket).map_err(|wait| Exceeded { limited, per_second: self.rate.per_second(), wait })
    }
}

/// What one app may send, and what it has under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quota {
    requests: Option<Arc<Metered>>,
    events: Option<Arc<Metered>>,
    bytes: Option<Arc<Metered>>,
    under_way: Arc<UnderWay>,
}

/// What the requests of one app hold of what all share.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    /// Bytes of memory.
    pub bytes: Arc<AtomicU64>,
    /// Places in the queue before the disk.
    pub places: Arc<AtomicU64>,
}

impl Quota {
    /// A quota of requests, of events and of their bytes a second; `None` is unlimited.
    #[must_use]
    pub(crate) fn new(requests: Option<u64>, events: Option<u64>, bytes: Option<u64>) -> Self {
        let metered = |per_second: Option<u64>| per_second.map(Metered::new);
        Self { requests: metered(requests), events: metered(events), bytes: metered(bytes), ..Self::default() }
    }

    /// What the app's requests hold now.
    #[must_use]
    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// This quota, with what has been used of `before` where the rate is the same: a configuration that is read again
    /// gives nothing away.
    #[must_use]
    pub(crate) fn continuing(self, before: &Quota) -> Self {
        let keep = |new: Option<Arc<Metered>>, old: &Option<Arc<Metered>>| {
            let same = old.clone().filter(|old| new.as_ref().is_some_and(|new| new.rate == old.rate));
            same.or(new)
        };
        Self {
            requests: keep(self.requests, &before.requests),
            events: keep(self.events, &before.events),
            bytes: keep(self.bytes, &before.bytes),
            under_way: Arc::clone(&before.under_way),
        }
    }

    /// Takes one request. Also looks whether any event would pass, so that a body need not be read in vain.
    ///
    /// # Errors
    /// The limit that is reached; nothing is taken then.
    pub(crate) fn request(&self, now: Instant) -> Result<(), Exceeded> {
        for (limited, metered) in [(Limited::AppEvents, &self.events), (Limited::AppBytes, &self.bytes)] {
            if let Some(metered) = metered {
                metered.with(limited, |bucket| bucket.look(metered.rate, now))?;
            }
        }
        match &self.requests {
            Some(requests) => requests.with(Limited::AppRequests, |bucket| bucket.take(requests.rate, 1, now)),
            None => Ok(()),
        }
    }

    /// Takes the events of one batch, which become `bytes`. A batch passes if there is a token for one event and for one byte;
    /// the others are taken in advance, so that the rate holds in the long run and a batch that is larger than the burst has
    /// its turn too.
    ///
    /// # Errors
    /// The limit that is reached; no event is taken then.
    pub(crate) fn events(&self, count: u64, bytes: u64, now: Instant) -> Result<(), Exceeded> {
        if let Some(metered) = &self.bytes {
            metered.with(Limited::AppBytes, |bucket| bucket.take(metered.rate, bytes, now))?;
        }
        match &self.events {
            Some(events) => events.with(Limited::AppEvents, |bucket| bucket.take(events.rate, count, now)),
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
        let quota = Quota::default();
        assert!((0..1000).all(|_| quota.request(now).is_ok() && quota.events(u64::MAX, u64::MAX, now).is_ok()));
    }

    #[test]
    fn a_large_batch_has_its_turn_and_is_paid_for_afterwards() {
        let now = Instant::now();
        let quota = Quota::new(None, Some(10), None);
        quota.events(1000, 1, now).unwrap();
        // 1000 events are worth 100 s; the burst is worth 10 s.
        let refused = quota.request(now).unwrap_err();
        assert_eq!((refused.limited, refused.per_second), (Limited::AppEvents, 10));
        assert_eq!(refused.wait, 90 * SECOND + SECOND / 10);
        assert_eq!(refused.retry_after(), 91);
        assert_eq!(quota.events(1, 1, now + refused.wait - Duration::from_nanos(1)).unwrap_err().retry_after(), 1);
        quota.events(1, 1, now + refused.wait).unwrap();
    }

    #[test]
    fn few_events_of_many_bytes_are_many_bytes() {
        let now = Instant::now();
        let quota = Quota::new(None, Some(1000), Some(100));
        quota.events(1, 5000, now).unwrap();
        let refused = quota.request(now).unwrap_err();
        assert_eq!(
            (refused.limited, refused.per_second, refused.wait),
            (Limited::AppBytes, 100, 40 * SECOND + SECOND / 100)
        );
        assert_eq!(refused.describe(), "this app may send 100 bytes of events a second; try again in 41 s");
        quota.events(1, 1, now + refused.wait).unwrap();
    }

    #[test]
    fn what_is_under_way_stays_so_when_the_configuration_is_read_again() {
        let before = Quota::new(Some(1), None, None);
        let after = Quota::default().continuing(&before);
        before.under_way().bytes.store(7, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(after.under_way().bytes.load(std::sync::atomic::Ordering::Relaxed), 7);
    }

    #[test]
    fn a_quota_that_stays_the_same_goes_on_and_another_begins_anew() {
        let now = Instant::now();
        let quota = Quota::new(Some(1), Some(5), None);
        (0..10).for_each(|_| quota.request(now).unwrap());
        assert!(Quota::new(Some(1), None, None).continuing(&quota).request(now).is_err());
        assert!(Quota::new(Some(2), None, None).continuing(&quota).request(now).is_ok());
        assert!(Quota::default().continuing(&quota).request(now).is_ok());
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let refused = Exceeded { limited: Limited::AppEvents, per_second: 7, wait: SECOND * 3 };
        assert_eq!(refused.describe(), "this app may send 7 events a second; try again in 3 s");
    }
}
