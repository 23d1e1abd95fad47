//! `[admin] listen`: metrics and administration on a listener of their own.

use super::files::{ConfigFixture, demo};
use super::support::{ADMIN, TestResponse, agent, batch, events};

fn get(url: &str, path: &str) -> TestResponse {
    let request = agent().get(format!("{url}{path}")).header("authorization", format!("Bearer {ADMIN}"));
    TestResponse::new(request.call().unwrap())
}

#[test]
fn what_belongs_to_operators_can_have_a_listener_of_its_own() {
    let more = "[admin]\nlisten = \"127.0.0.1:0\"\n[limits]\nconnections = 8\nconnections_per_ip = 0\n";
    let site = ConfigFixture::new(&demo("", "", more));
    let collector = site.start();
    let log = site.log();
    let operators = log.split_once("url=").unwrap().1.split_whitespace().next().unwrap().trim_matches('"').to_owned();
    assert_eq!(collector.send(&batch(events(2))).status, 200);
    for path in ["/metrics", "/v1/admin/ledger", "/v1/admin/sinks"] {
        assert_eq!(get(&collector.url, path).code(), "not_found", "{path}");
        let answer = get(&operators, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert!(get(&operators, "/metrics").text.contains("\nsubway_spool_head 2\n"));
    for path in ["/v1/apps", "/v1/events", "/"] {
        assert_eq!(get(&operators, path).code(), "not_found", "{path}");
    }
    for url in [&collector.url, &operators] {
        assert_eq!(get(url, "/health/live").status, 200);
        assert_eq!(get(url, "/health/ready").status, 200);
    }
    // Every connection that clients may have is taken; operators still see the collector.
    let _held = [(); 8].map(|()| std::net::TcpStream::connect(collector.address()).unwrap());
    assert!(get(&operators, "/metrics").text.contains("\nsubway_ready 1\n"));
    let mut collector = collector;
    collector.signal("-TERM");
    assert!(collector.wait().success());
}

#[test]
fn without_it_they_are_where_they_always_were() {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    for path in ["/metrics", "/v1/admin/ledger", "/v1/admin/sinks", "/health/live"] {
        assert_eq!(get(&collector.url, path).status, 200, "{path}");
    }
}
