//! Requests on the wire, and the handling of any response.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::time::Duration;

use serde_json::Value;
use subway_mobile::core::{Id, UploadRequest};
use subway_mobile::transport::{HttpTransport, Reply, Transport};
use subway_mobile::{Config, Subway, Theme, TrackEvent};
use support::collector::free_address;
use support::fakes::receipt;
use support::server::{Request, Server, answer};

fn upload(body: &str) -> UploadRequest {
    UploadRequest { batch_id: Id::v7(0, [0; 10]), body: body.to_owned(), events: 1 }
}

fn send(server: &Server, body: &str) -> Reply {
    HttpTransport::new(&Config::new(&server.address, "the-key")).unwrap().send(&upload(body))
}

fn status(reply: &Reply) -> (u16, Option<u64>) {
    match reply {
        Reply::Answer { status, retry_after_ms, .. } => (*status, *retry_after_ms),
        Reply::Failed(why) => panic!("{why}"),
    }
}

#[test]
fn a_batch_is_posted_with_its_key_and_compressed_if_that_pays() {
    let server = Server::start(|_| answer("200 OK", &[], "receipt"));
    let large = format!("[{}]", "1,".repeat(5000));
    let expected = Reply::Answer { status: 200, retry_after_ms: None, body: "receipt".into() };
    assert_eq!(send(&server, "{}"), expected);
    assert_eq!(send(&server, &large), expected);
    let requests = server.requests();
    for request in &requests {
        assert_eq!(request.line.trim(), "POST /v1/events HTTP/1.1");
        assert_eq!(request.header("x-subway-key"), Some("the-key"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-subway-signature"), None);
    }
    assert_eq!((requests[0].header("content-encoding"), requests[0].text().as_str()), (None, "{}"));
    assert_eq!((requests[1].header("content-encoding"), requests[1].text()), (Some("gzip"), large));
    assert!(requests[1].body.len() < 200);
}

#[test]
fn retry_after_is_read_in_both_forms() {
    let server = Server::start(|request| match request.text().as_str() {
        "seconds" => answer("429 Too Many Requests", &["retry-after: 7"], ""),
        "date" => answer("503 Service Unavailable", &["Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"], ""),
        _ => answer("503 Service Unavailable", &["retry-after: soon"], ""),
    });
    assert_eq!(status(&send(&server, "seconds")), (429, Some(7_000)));
    let (code, wait) = status(&send(&server, "date"));
    assert!(code == 503 && wait.unwrap() > 1_000_000_000);
    assert_eq!(status(&send(&server, "nonsense")), (503, None));
}

#[test]
fn redirects_are_not_followed() {
    let trap = Server::start(|_| answer("200 OK", &[], "trapped"));
    let location = format!("location: {}/v1/events", trap.address);
    for code in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = location.clone();
        let server = Server::start(move |_| answer(code, &[&location], ""));
        assert_eq!(status(&send(&server, "{}")).0.to_string(), code[..3]);
    }
    assert!(trap.requests().is_empty(), "events must not go where nobody configured");
}

#[test]
fn a_response_that_is_too_large_or_not_text_has_no_body() {
    let server = Server::start(|request| match request.text().as_str() {
        "huge" => answer("200 OK", &[], &"x".repeat(2 * 1024 * 1024)),
        _ => [answer("200 OK", &[], "")[..].to_vec().replace_length(2), vec![0xff, 0xfe]].concat(),
    });
    for body in ["huge", "binary"] {
        let expected = Reply::Answer { status: 200, retry_after_ms: None, body: String::new() };
        assert_eq!(send(&server, body), expected, "{body}");
    }
}

/// Announces a body of another length.
trait ReplaceLength {
    fn replace_length(self, length: usize) -> Self;
}

impl ReplaceLength for Vec<u8> {
    fn replace_length(self, length: usize) -> Self {
        let text = String::from_utf8(self).unwrap();
        text.replace("content-length: 0", &format!("content-length: {length}")).into_bytes()
    }
}

#[test]
fn a_cut_connection_and_nobody_at_all_are_failures() {
    let cut = Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"batch".to_vec());
    assert!(matches!(send(&cut, "{}"), Reply::Failed(_)));
    let silent = Server::start(|_| Vec::new());
    assert!(matches!(send(&silent, "{}"), Reply::Failed(_)));
    let nobody = HttpTransport::new(&Config::new(free_address(), "k")).unwrap();
    let Reply::Failed(why) = nobody.send(&upload("{}")) else { panic!("answered") };
    assert!(why.to_lowercase().contains("refused"), "{why}");
}

#[test]
fn a_connection_cut_after_storing_sends_the_same_batch_again() {
    let server = Server::start({
        let first = std::sync::atomic::AtomicBool::new(true);
        move |request: &Request| {
            let batch: Value = serde_json::from_str(&request.text()).unwrap();
            if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                return b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"batch".to_vec();
            }
            answer("200 OK", &[], &receipt(&batch))
        }
    });
    let subway = Subway::open(Config::new(&server.address, "demo")).unwrap();
    for _ in 0..3 {
        subway.track(TrackEvent::new(Theme::Order, "paid")).unwrap();
    }
    assert!(subway.flush_and_wait(Duration::from_secs(60)));
    let batches: Vec<Value> =
        server.requests().iter().map(|request| serde_json::from_str(&request.text()).unwrap()).collect();
    assert_eq!(batches.len(), 2);
    assert_eq!((&batches[0]["batch_id"], &batches[0]["events"]), (&batches[1]["batch_id"], &batches[1]["events"]));
    assert_eq!(batches[0]["events"].as_array().unwrap().len(), 3);
}

#[test]
fn signed_requests_carry_a_signature_of_the_bytes_as_sent() {
    use hmac::{Hmac, KeyInit, Mac};
    let server = Server::start(|_| answer("401 Unauthorized", &["date: Sun, 06 Nov 1994 08:49:37 GMT"], ""));
    let config = Config { secret: Some("s3cret".into()), ..Config::new(&server.address, "demo") };
    let transport = HttpTransport::new(&config).unwrap();
    let body = format!("[{}]", "1,".repeat(5000));
    transport.send(&upload(&body));
    transport.send(&upload(&body));
    let mut times = Vec::new();
    for request in server.requests() {
        let header = request.header("x-subway-signature").unwrap();
        let (time, signature) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(&[time.as_bytes(), b".", &request.body].concat());
        let expected = hex::encode(mac.finalize().into_bytes());
        assert_eq!(signature, expected);
        times.push(time.parse::<i64>().unwrap());
    }
    assert!(times[0] > 1_700_000_000_000, "first by this device's clock");
    assert!((784_111_777_000..784_111_877_000).contains(&times[1]), "then by the collector's: {times:?}");
}
