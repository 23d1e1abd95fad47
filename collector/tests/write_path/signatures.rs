//! Apps that demand signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use subway_collector::sign;

use super::support::{CollectorFixture, SECRET, batch, events, gzip};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn a_signed_request_is_accepted_once_also_across_restarts_and_crashes() {
    let site = CollectorFixture::new("");
    let mut collector = site.start();
    let body = gzip(batch(events(2)).to_string().as_bytes());
    let signature = sign(SECRET, now(), &body);
    let send =
        |collector: &super::support::Collector| collector.post("signed", &[("x-subway-signature", &signature)], &body);
    assert_eq!(send(&collector).counts(), (2, 0, 0));
    assert_eq!(send(&collector).code(), "bad_signature");
    assert!(collector.terminate().success());
    collector = site.start();
    assert_eq!(send(&collector).code(), "bad_signature");
    collector.kill_9();
    collector = site.start();
    assert_eq!(send(&collector).code(), "bad_signature");
    assert_eq!(collector.ledger()["received"], 2);
    let again = sign(SECRET, now() + 1, &body);
    assert_eq!(collector.post("signed", &[("x-subway-signature", &again)], &body).counts(), (0, 2, 0));
}

#[test]
fn anything_but_the_right_signature_is_refused_and_stores_nothing() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let plain = batch(events(1)).to_string();
    let body = gzip(plain.as_bytes());
    let minutes = 60_000;
    for header in [
        String::new(),
        "t=1,v1=00".into(),
        sign("another secret", now(), &body),
        sign(SECRET, now(), plain.as_bytes()),
        sign(SECRET, now() - 6 * minutes, &body),
        sign(SECRET, now() + 6 * minutes, &body),
        sign(SECRET, now(), &body).replace("t=", "t=0"),
    ] {
        assert_eq!(
            collector.post("signed", &[("x-subway-signature", &header)], &body).code(),
            "bad_signature",
            "{header}"
        );
    }
    assert_eq!(collector.ledger()["received"], 0);
    assert_eq!(
        collector.post("demo", &[("x-subway-signature", "nonsense")], &body).counts(),
        (1, 0, 0),
        "an app without a secret does not look"
    );
}

#[test]
fn a_refused_body_does_not_use_up_its_signature() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let body = b"not a batch";
    let signature = sign(SECRET, now(), body);
    for _ in 0..2 {
        assert_eq!(collector.post("signed", &[("x-subway-signature", &signature)], body).code(), "malformed_json");
    }
}
