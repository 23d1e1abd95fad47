//! Signatures of requests: `t=<ms>,v1=<hex HMAC-SHA256 of "t.body as sent">`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signs requests with an app's secret.
pub(super) struct Signer {
    secret: Vec<u8>,
    /// Lead of the collector's clock over this device's, milliseconds, derived from a refusal. Without it a device
    /// whose clock is wrong by more than the collector allows could never send anything.
    ahead: AtomicI64,
    /// Last time that was signed. Each time is used once, because the collector refuses a signature that it has seen.
    last: AtomicI64,
}

impl Signer {
    pub(super) fn new(secret: &str) -> Self {
        Self { secret: secret.as_bytes().to_vec(), ahead: AtomicI64::new(0), last: AtomicI64::new(0) }
    }

    /// Returns the header's value for `body` at the device's time `now`.
    pub(super) fn header(&self, body: &[u8], now: SystemTime) -> String {
        let time = millis(now).saturating_add(self.ahead.load(Ordering::Relaxed));
        let last = self.last.fetch_max(time, Ordering::Relaxed);
        let time = if time > last { time } else { self.last.fetch_add(1, Ordering::Relaxed) + 1 };
        signature(&self.secret, time, body)
    }

    /// Adjusts the offset to the collector's time in a refusal (header `Date`).
    pub(super) fn adjust_clock(&self, date: &str, now: SystemTime) {
        if let Ok(theirs) = httpdate::parse_http_date(date) {
            self.ahead.store(millis(theirs).saturating_sub(millis(now)), Ordering::Relaxed);
            // Allows times before the last one again, in case this clock was ahead.
            self.last.store(0, Ordering::Relaxed);
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}

fn signature(secret: &[u8], time: i64, body: &[u8]) -> String {
    let mut header = format!("t={time},v1=");
    // HMAC takes keys of any length, so this cannot fail; an empty signature would be refused like a wrong one.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(time.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        header.push_str(&hex::encode(mac.finalize().into_bytes()));
    }
    header
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_signature_is_what_another_implementation_computes() {
        // printf '1431835512000.{}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1431835512000,v1=3fb62b4de7c1fd580113562693f4dff1776d40552bbc36c1f68beb7fd742190f";
        assert_eq!(signature(b"secret", 1_431_835_512_000, b"{}"), expected);
    }

    #[test]
    fn no_two_requests_are_signed_for_the_same_time() {
        let signer = Signer::new("s");
        let now = UNIX_EPOCH + Duration::from_millis(5);
        let signed: Vec<String> = (0..3).map(|_| signer.header(b"", now)).collect();
        let times: Vec<&str> = signed.iter().filter_map(|header| header.split(',').next()).collect();
        assert_eq!(times, ["t=5", "t=6", "t=7"]);
    }

    #[test]
    fn a_wrong_clock_is_set_right_by_the_collectors_date() {
        let signer = Signer::new("s");
        let wrong = UNIX_EPOCH + Duration::from_secs(900_000_000);
        signer.header(b"", wrong);
        signer.adjust_clock("Sun, 06 Nov 1994 08:49:37 GMT", wrong);
        assert!(signer.header(b"", wrong).starts_with("t=784111777000,"));
        signer.adjust_clock("nonsense", wrong);
        assert!(signer.header(b"", wrong + Duration::from_secs(1)).starts_with("t=784111778000,"));
    }
}
