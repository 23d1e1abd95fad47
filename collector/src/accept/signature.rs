//! Signed requests: `x-subway-signature: t=<ms>,v1=<hex of HMAC-SHA256 over "t.body as sent">`.

use hex::FromHex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subway_protocol::codec::server::{Problem, ProblemCode};

use crate::config::Secret;

/// A signature that was verified. Only the spool knows whether it was used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Time of signing by the signer's clock, milliseconds since the epoch.
    pub(crate) signed_at: i64,
    /// HMAC of the time and the body.
    pub(crate) mac: [u8; 32],
}

pub(super) fn bad_signature(detail: &str) -> Problem {
    Problem::new(ProblemCode::BadSignature, detail.to_owned()).at("x-subway-signature")
}

fn digest(secret: &str, signed_at: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    hmac.update(signed_at.as_bytes());
    hmac.update(b".");
    hmac.update(body);
    Some(hmac)
}

/// Returns the value of the header `x-subway-signature` for a body, as a sender computes it.
///
/// `signed_at` is in milliseconds since the epoch.
#[must_use]
pub fn sign(secret: &str, signed_at: i64, body: &[u8]) -> String {
    let mut out = format!("t={signed_at},v1=");
    if let Some(hmac) = digest(secret, &signed_at.to_string(), body) {
        out.push_str(&hex::encode(hmac.finalize().into_bytes()));
    }
    out
}

impl Signature {
    /// Verifies the header's value for the body as sent. `now` and `max_age` are in milliseconds.
    pub(crate) fn verify(
        header: Option<&str>,
        secret: &Secret,
        body: &[u8],
        now: i64,
        max_age: i64,
    ) -> Result<Self, Problem> {
        let header = header.ok_or_else(|| bad_signature("this app demands signed requests"))?;
        let form = || bad_signature("must be t=<milliseconds>,v1=<64 hexadecimal digits>");
        let (time, mac) = header.trim().split_once(',').ok_or_else(form)?;
        let time = time.trim().strip_prefix("t=").ok_or_else(form)?;
        let mac = mac.trim().strip_prefix("v1=").ok_or_else(form)?;
        let mac = <[u8; 32]>::from_hex(mac).map_err(|_| form())?;
        let signed_at: i64 = time.parse().map_err(|_| form())?;
        let matches = digest(secret.expose(), time, body).is_some_and(|hmac| hmac.verify_slice(&mac).is_ok());
        if !matches {
            return Err(bad_signature("the signature does not belong to this body, this time and this app's secret"));
        }
        if now.saturating_sub(signed_at).saturating_abs() > max_age {
            return Err(bad_signature("the signature is too old, or from the future"));
        }
        Ok(Self { signed_at, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, body: &[u8], now: i64) -> Result<Signature, Problem> {
        Signature::verify(Some(header), &Secret::new("key".into()), body, now, 300_000)
    }

    #[test]
    fn a_known_signature_comes_out() {
        // printf '1000.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            sign("key", 1000, b"{}"),
            "t=1000,v1=c32de42341dece79a1511c9e7f74a2734112edcfcf48943c976faf07047065db"
        );
    }

    #[test]
    fn a_signature_counts_for_its_body_time_and_secret_only() {
        let header = sign("key", 1_000_000, b"body");
        assert_eq!(check(&header, b"body", 1_000_000).unwrap().signed_at, 1_000_000);
        assert_eq!(
            check(&header.to_uppercase().replacen("T=", "t=", 1).replacen("V1=", "v1=", 1), b"body", 1_000_000)
                .unwrap()
                .signed_at,
            1_000_000
        );
        for (header, body) in [
            (header.clone(), &b"bodY"[..]),
            (header.replace("t=1000000", "t=1000001"), b"body"),
            (sign("other", 1_000_000, b"body"), b"body"),
        ] {
            assert_eq!(check(&header, body, 1_000_000).unwrap_err().code, ProblemCode::BadSignature);
        }
    }

    #[test]
    fn a_signature_lives_five_minutes_to_both_sides() {
        let header = sign("key", 1_000_000, b"");
        for (now, good) in [(700_000, true), (1_300_000, true), (699_999, false), (1_300_001, false), (i64::MIN, false)]
        {
            assert_eq!(check(&header, b"", now).is_ok(), good, "{now}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for header in [
            "",
            "t=1",
            "v1=00",
            "t=1,v1=00",
            "t=x,v1=",
            &format!("t=1,v1={}", "é".repeat(32)),
            &format!("t=+1,v1={}", "+1".repeat(32)),
        ] {
            assert!(check(header, b"", 1).is_err(), "{header}");
        }
        assert!(Signature::verify(None, &Secret::new("key".into()), b"", 1, 1).is_err());
    }
}
