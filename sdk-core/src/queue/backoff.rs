//! Delays after failures: exponential backoff with full jitter
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that clients that failed together
//! do not retry together.

use crate::limits;
use crate::random::Random;

/// Counter of consecutive failures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Resets the counter after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the delay in milliseconds after a transient failure. `Retry-After` is a lower bound; jitter is added to
    /// it.
    pub(crate) fn next_delay(&mut self, retry_after_ms: Option<u64>, random: &mut Random) -> u64 {
        let jitter = self.jitter(limits::RETRY_BASE_MS, limits::RETRY_CAP_MS, random);
        match retry_after_ms {
            Some(asked) => asked.min(limits::RETRY_AFTER_CAP_MS) + jitter,
            None => jitter,
        }
    }

    /// Returns the delay in milliseconds after 401 or 403, which only a change of configuration cures. At least half of
    /// the window.
    pub(crate) fn next_auth_delay(&mut self, random: &mut Random) -> u64 {
        let window = window(limits::AUTH_RETRY_BASE_MS, limits::AUTH_RETRY_CAP_MS, self.failures);
        self.failures = self.failures.saturating_add(1);
        window / 2 + random.gen_inclusive(window / 2)
    }

    fn jitter(&mut self, base: u64, cap: u64, random: &mut Random) -> u64 {
        let window = window(base, cap, self.failures);
        self.failures = self.failures.saturating_add(1);
        random.gen_inclusive(window)
    }
}

fn window(base: u64, cap: u64, failures: u32) -> u64 {
    base.checked_shl(failures.min(32)).unwrap_or(cap).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;

    fn random() -> Random {
        Random::new(b"backoff", Now { wall: 0, mono: 0 }, 0)
    }

    #[test]
    fn windows_double_up_to_the_cap_and_begin_again_after_success() {
        let (mut random, mut most) = (random(), [0u64; 12]);
        for _ in 0..2000 {
            let mut backoff = Backoff::default();
            for slot in &mut most {
                *slot = backoff.next_delay(None, &mut random).max(*slot);
            }
        }
        for (failures, most) in most.into_iter().enumerate() {
            let window = (limits::RETRY_BASE_MS << failures).min(limits::RETRY_CAP_MS);
            assert!(most <= window && most > window * 9 / 10, "{failures}: {most} of {window}");
        }
        let mut backoff = Backoff { failures: 40 };
        backoff.reset();
        assert!(backoff.next_delay(None, &mut random) <= limits::RETRY_BASE_MS);
    }

    #[test]
    fn retry_after_is_a_lower_bound_with_a_cap() {
        let mut random = random();
        let wait = Backoff::default().next_delay(Some(7_000), &mut random);
        assert!((7_000..=8_000).contains(&wait));
        let wait = Backoff::default().next_delay(Some(u64::MAX), &mut random);
        assert!(wait <= limits::RETRY_AFTER_CAP_MS + limits::RETRY_BASE_MS);
    }

    #[test]
    fn a_client_without_authorization_slows_down_at_once() {
        let mut random = random();
        let mut backoff = Backoff::default();
        assert!(backoff.next_auth_delay(&mut random) >= limits::AUTH_RETRY_BASE_MS / 2);
        for _ in 0..50 {
            backoff.next_auth_delay(&mut random);
        }
        assert!(backoff.next_auth_delay(&mut random) <= limits::AUTH_RETRY_CAP_MS);
    }
}
