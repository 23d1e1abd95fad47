//! Requests: addresses, methods, keys, sizes, origins.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::support::{ADMIN, CollectorFixture, READ, agent, batch, event, events, gzip};

/// Sends bytes as they are and reads until the collector closes or `until` has come.
fn raw(address: &str, bytes: &[u8], until: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&out).contains(until) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => out.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn unknown_addresses_and_methods_are_problems_too() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    for path in ["/v1", "/v1/events/", "/v2/events", "/v1/admin", "/health"] {
        assert_eq!(collector.get(path, None).code(), "not_found", "{path}");
    }
    let answer = collector.get("/v1/events", None);
    assert_eq!((answer.code().as_str(), answer.header("allow")), ("method_not_allowed", "POST"));
    for path in ["/v1/admin/ledger", "/health/live", "/health/ready", "/metrics"] {
        let answer = agent().post(format!("{}{path}", collector.url)).send("").unwrap();
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()["allow"], "GET,HEAD");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}

#[test]
fn the_key_may_stand_in_a_header_or_in_the_address() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let post = |query: &str| {
        let body = batch(events(1)).to_string();
        agent().post(format!("{}/v1/events{query}", collector.url)).send(body.as_bytes()).unwrap().status()
    };
    assert_eq!(post("?key=demo"), 200);
    assert_eq!(post("?a=b&key=demo"), 200);
    assert_eq!(post("?key=nobody"), 401);
    assert_eq!(post("?key="), 401);
    assert_eq!(post(""), 401);
}

#[test]
fn a_wrong_key_is_refused_before_the_body_comes() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: nobody\r\ncontent-length: 1000000\r\n\r\n";
    let answer = raw(collector.address(), head.as_bytes(), "unknown_key");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let expect = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let answer = raw(collector.address(), expect.as_bytes(), "unknown_key");
    assert!(answer.starts_with("HTTP/1.1 401 "), "no invitation to send: {answer}");
}

#[test]
fn an_announced_body_that_is_too_large_is_refused_before_it_comes() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\ncontent-length: 99999999\r\n\r\n";
    let answer = raw(collector.address(), head.as_bytes(), "body_too_large");
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"limit\":1048576,\"got\":99999999"), "{answer}");
}

#[test]
fn sizes_are_allowed_up_to_their_limit_and_not_beyond() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let padded = |total: usize| {
        let mut text = batch(events(1)).to_string();
        text.push_str(&" ".repeat(total - text.len()));
        text
    };
    assert_eq!(collector.post("demo", &[], padded(1 << 20).as_bytes()).counts(), (1, 0, 0));
    assert_eq!(collector.post("demo", &[], padded((1 << 20) + 1).as_bytes()).code(), "body_too_large");
    assert_eq!(collector.post("demo", &[], &gzip(padded(8 << 20).as_bytes())).counts(), (1, 0, 0));
    let problem = collector.post("demo", &[], &gzip(padded((8 << 20) + 1).as_bytes())).problem();
    assert_eq!((&problem["code"], &problem["limit"]), (&json!("decompressed_too_large"), &json!(8 << 20)));
    assert_eq!(collector.send(&batch(events(1000))).counts(), (1000, 0, 0));
    assert_eq!(collector.send(&batch(events(1001))).code(), "too_many_events");
    let mut large = event();
    let bare = large.to_string().len();
    large["props"]["k"] = json!("v".repeat(32 * 1024 - bare + 1));
    assert_eq!(large.to_string().len(), 32 * 1024);
    assert_eq!(collector.send(&batch(vec![large.clone()])).counts(), (1, 0, 0));
    large["seq"] = json!(10);
    assert_eq!(collector.send(&batch(vec![large])).json()["rejected"][0]["reason"], "event_too_large");
}

#[test]
fn a_bomb_is_refused_and_costs_little() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(collector.post("demo", &[], &bomb).code(), "decompressed_too_large");
    assert_eq!(collector.metric("subway_in_flight_bytes"), 0);
}

#[test]
fn a_chunked_body_is_taken_up_to_its_limit() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = |body: &[u8]| {
        let mut out = head.as_bytes().to_vec();
        for chunk in body.chunks(1000) {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    };
    let body = batch(events(30)).to_string();
    let answer = raw(collector.address(), &chunked(body.as_bytes()), "\"rejected\":[]}");
    assert!(answer.contains("\"stored\":30"), "{answer}");
    let answer = raw(collector.address(), &chunked(&vec![b' '; (1 << 20) + 1]), "body_too_large");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn pages_of_any_origin_may_send_and_do_nothing_else() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let preflight = |path: &str| {
        let request = ureq::http::Request::builder()
            .method("OPTIONS")
            .uri(format!("{}{path}", collector.url))
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-subway-key,content-encoding,traceparent,x-b3-traceid")
            .body(())
            .unwrap();
        agent().run(request).unwrap()
    };
    let answer = preflight("/v1/events");
    assert_eq!(answer.status(), 200);
    let page = "https://shop.example";
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        page,
        "not *, which pages that send credentials refuse"
    );
    assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
    assert_eq!(answer.headers()["access-control-allow-methods"], "POST");
    let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    for header in ["content-encoding", "x-subway-key", "traceparent", "x-b3-traceid"] {
        assert!(allowed.contains(header), "{allowed}");
    }
    assert!(answer.headers().contains_key("access-control-max-age"));
    assert_eq!(preflight("/v1/admin/ledger").status(), 405);
    let origin = [("origin", "https://shop.example"), ("content-type", "text/plain;charset=UTF-8")];
    let answer = collector.post("demo", &origin, batch(events(1)).to_string().as_bytes());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, page));
    let answer = collector.post("nobody", &origin, b"");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (401, page),
        "pages can read refusals too"
    );
    assert_eq!(collector.get("/health/live", None).header("access-control-allow-origin"), "");
}

#[test]
fn health_metrics_and_the_ledger_answer_whom_they_should() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    assert_eq!(collector.get("/health/live", None).status, 200);
    assert_eq!(collector.get("/health/ready", None).status, 200);
    assert_eq!(collector.metric("subway_ready"), 1);
    let metrics = collector.get("/metrics", None);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    for token in [None, Some("wrong"), Some(READ)] {
        let answer = collector.get("/v1/admin/ledger", token);
        assert_eq!((answer.code().as_str(), answer.header("www-authenticate")), ("bad_token", "Bearer"));
    }
    let answer = collector.get("/v1/admin/ledger", Some(ADMIN));
    assert_eq!(
        answer.json(),
        json!({"received": 0, "stored": 0, "duplicate": 0, "rejected": {}, "sinks": {"embedded": {"delivered": 0, "dead": 0, "pending": 0}}})
    );
}
