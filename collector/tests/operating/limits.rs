//! How often a client and an app may ask, and how many connections an address may have.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::files::{ConfigFixture, demo};
use super::support::{ADMIN, Collector, READ, TestResponse, batch, events, eventually};

fn send(collector: &Collector, count: usize, forwarded: Option<&str>) -> TestResponse {
    let headers: Vec<(&str, &str)> = forwarded.map(|client| ("x-forwarded-for", client)).into_iter().collect();
    collector.post("demo", &headers, batch(events(count)).to_string().as_bytes())
}

/// A refusal for asking too often, and the seconds to wait.
fn too_many(answer: &TestResponse) -> u64 {
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_requests"), "{answer:?}");
    answer.header("retry-after").parse().unwrap()
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nrequests_per_second = 1\nrequest_burst = 5\n"));
    let collector = site.start();
    let answers: Vec<TestResponse> = (0..20).map(|_| send(&collector, 1, None)).collect();
    let refused: Vec<&TestResponse> = answers.iter().filter(|answer| answer.status == 429).collect();
    let stored = answers.len() - refused.len();
    assert!(stored >= 5, "the burst passes: {stored}");
    assert!(!refused.is_empty(), "20 requests took long enough for 15 tokens?");
    assert!(refused.iter().all(|answer| too_many(answer) == 1), "{refused:?}");
    assert_eq!(collector.ledger_when_allowed()["stored"], stored, "nothing is stored of a refused request");
    assert!(collector.metric("subway_requests_rate_limited_total{limit=\"client\"}") >= refused.len() as u64);
    eventually("a token comes", || send(&collector, 1, None).status == 200);
}

trait Patient {
    fn ledger_when_allowed(&self) -> serde_json::Value;
}

impl Patient for Collector {
    /// The ledger costs a token too.
    fn ledger_when_allowed(&self) -> serde_json::Value {
        let mut ledger = None;
        eventually("the ledger is given", || {
            let answer = self.get("/v1/admin/ledger", Some(ADMIN));
            ledger = (answer.status == 200).then(|| answer.json());
            ledger.is_some()
        });
        ledger.unwrap()
    }
}

#[test]
fn reading_is_limited_too_and_probes_are_not() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nrequests_per_second = 1\nrequest_burst = 1\n"));
    let collector = site.start();
    let refused = (0..50).map(|_| collector.get("/v1/apps", Some(READ))).find(|answer| answer.status == 429).unwrap();
    assert_eq!(too_many(&refused), 1);
    let guess = || collector.get("/v1/admin/ledger", Some("guess")).status;
    assert!((0..50).any(|_| guess() == 429), "tokens cannot be guessed quickly");
    for _ in 0..50 {
        for path in ["/health/live", "/health/ready", "/metrics", "/"] {
            assert_eq!(collector.get(path, None).status, 200, "{path}");
        }
    }
}

#[test]
fn a_page_can_read_the_refusal() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nrequests_per_second = 1\nrequest_burst = 1\n"));
    let collector = site.start();
    let origin = [("origin", "https://shop.example")];
    let refused = (0..50)
        .map(|_| collector.post("demo", &origin, batch(events(1)).to_string().as_bytes()))
        .find(|answer| answer.status == 429)
        .unwrap();
    assert_eq!(refused.header("access-control-allow-origin"), "https://shop.example");
    assert!(refused.header("access-control-expose-headers").contains("retry-after"));
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_tokens() {
    let limits = "[limits]\nrequests_per_second = 1\nrequest_burst = 3\n";
    let site = ConfigFixture::new(&demo("trusted_proxies = [\"127.0.0.1/32\"]", "", limits));
    let collector = site.start();
    for client in 1..100 {
        let answer = send(&collector, 1, Some(&format!("spoofed, 198.51.100.{client}")));
        assert_eq!(answer.status, 200, "client {client}: {answer:?}");
    }
    assert!((0..50).any(|_| send(&collector, 1, Some("198.51.100.7")).status == 429));
}

#[test]
fn what_an_untrusted_client_says_about_its_address_does_not_count() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nrequests_per_second = 1\nrequest_burst = 3\n"));
    let collector = site.start();
    assert!((1..100).any(|client| send(&collector, 1, Some(&format!("198.51.100.{client}"))).status == 429));
}

#[test]
fn an_app_has_its_own_number_of_requests() {
    let other = "[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\nread_token = \"o\"\n";
    let site = ConfigFixture::new(&demo("", "requests_per_second = 1", other));
    let collector = site.start();
    let answers: Vec<TestResponse> = (0..40).map(|_| send(&collector, 1, None)).collect();
    assert!(answers[..10].iter().all(|answer| answer.status == 200), "ten seconds' worth may come at once");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(too_many(refused), 1);
    assert_eq!(refused.problem()["limit"], 1);
    assert_eq!(collector.post("other", &[], batch(events(1)).to_string().as_bytes()).counts(), (1, 0, 0));
    assert_eq!(collector.get("/v1/apps/demo/range", Some(READ)).status, 200, "reading is not the app's sending");
}

#[test]
fn an_app_that_sent_too_many_events_waits_for_them() {
    let site = ConfigFixture::new(&demo("", "events_per_second = 10", ""));
    let collector = site.start();
    assert_eq!(send(&collector, 1000, None).counts(), (1000, 0, 0), "a batch that is larger than the burst passes");
    let answer = send(&collector, 1, None);
    let wait = too_many(&answer);
    assert!((60..=91).contains(&wait), "1000 events are worth 100 s, of which 10 s were there: {wait}");
    assert_eq!(collector.ledger()["received"], 1000);
    assert_eq!(collector.metric("subway_requests_rate_limited_total{limit=\"app_events\"}"), 1);
}

#[test]
fn an_address_has_its_number_of_connections() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nconnections_per_ip = 3\n"));
    let collector = site.start();
    let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(collector.address()).unwrap()).collect();
    let mut more = TcpStream::connect(collector.address()).unwrap();
    more.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    more.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 Too many requests\r\n") && answer.contains("retry-after: "), "{answer}");
    drop(held);
    eventually("a place becomes free", || {
        collector
            .try_post("demo", &[], batch(events(1)).to_string().as_bytes())
            .is_ok_and(|answer| answer.status == 200)
    });
    assert!(collector.metric("subway_connections_rejected_total") >= 1);
}

#[test]
fn one_address_cannot_take_all_connections_and_others_still_come_in() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nconnections = 8\n"));
    let collector = site.start();
    // Everything that one address can have, and as much again.
    let mut flood: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(collector.address()).unwrap()).collect();
    let mut answers = String::new();
    for stream in &mut flood[4..] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_to_string(&mut answers).unwrap();
    }
    assert_eq!(answers.matches("HTTP/1.1 429 ").count(), 4, "{answers}");
    // The whole of 127.0.0.0/8 is this machine; another address of it is another client.
    let body = batch(events(1)).to_string();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-subway-key: demo\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw_on(connect_from("127.0.0.2", collector.address()), head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(flood);
}

/// A connection to `to` from another address of this machine.
fn connect_from(from: &str, to: &str) -> TcpStream {
    let (from, to) = (format!("{from}:0").parse().unwrap(), to.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn a_trusted_proxy_may_have_any_number_of_connections() {
    let site =
        ConfigFixture::new(&demo("trusted_proxies = [\"127.0.0.0/8\"]", "", "[limits]\nconnections_per_ip = 1\n"));
    let collector = site.start();
    let _held: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(collector.address()).unwrap()).collect();
    assert_eq!(send(&collector, 1, None).counts(), (1, 0, 0));
}

/// What comes back on a connection that sends `bytes`.
fn raw(collector: &Collector, bytes: &[u8]) -> String {
    raw_on(TcpStream::connect(collector.address()).unwrap(), bytes)
}

fn raw_on(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The collector may answer and close before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nmax_header_bytes = 8192\n"));
    let collector = site.start();
    let head = |filler: usize| {
        let filler = "x".repeat(filler);
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-filler: {filler}\r\n\r\n")
    };
    assert!(raw(&collector, head(6000).as_bytes()).starts_with("HTTP/1.1 200 "));
    let answer = raw(&collector, head(100_000).as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(send(&collector, 1, None).counts(), (1, 0, 0), "nobody else notices");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let site = ConfigFixture::new(&demo("", "", "[limits]\nheader_timeout_ms = 500\n"));
    let collector = site.start();
    // Keep-alive: after its answer the connection waits for another request, which never comes.
    let answer = raw(&collector, b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("live\n"), "{answer}");
}
