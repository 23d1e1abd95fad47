//! Tests each fault of the proxy, with ClickHouse behind it.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use subway_servers::{ClickHouse, Proxy, available};

/// Returns a table for one test, and a proxy to the store.
fn table(store: &ClickHouse, name: &str) -> Proxy {
    store.query(&format!("CREATE TABLE {name} (a UInt32) ENGINE = MergeTree ORDER BY a")).unwrap();
    Proxy::to(&store.url()).unwrap()
}

fn client() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
    config.build().into()
}

/// Inserts one row through the proxy. Returns status and body.
fn insert(client: &ureq::Agent, proxy: &Proxy, table: &str) -> Result<(u16, String), ureq::Error> {
    let url = format!("{}/?async_insert=0&query=INSERT%20INTO%20{table}%20FORMAT%20TSV", proxy.url());
    let mut answer = client.post(&url).send("1\n")?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

fn rows(store: &ClickHouse, table: &str) -> String {
    store.query(&format!("SELECT count() FROM {table}")).unwrap().trim().to_owned()
}

#[test]
fn without_a_fault_it_passes_and_keeps_the_connection() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "pass"), client());
    for _ in 0..3 {
        assert_eq!(insert(&client, &proxy, "pass").unwrap().0, 200);
    }
    let mut chunked =
        client.post(format!("{}/", proxy.url())).send(ureq::SendBody::from_reader(&mut &b"SELECT 40 + 2"[..]));
    assert_eq!(chunked.as_mut().unwrap().body_mut().read_to_string().unwrap(), "42\n");
    assert_eq!(rows(store, "pass"), "3");
    assert_eq!((proxy.connections(), proxy.requests(), proxy.injected()), (1, 4, 0));
    assert!(proxy.bytes() > 100);
}

#[test]
fn an_error_of_the_store_comes_through_as_it_is() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let proxy = Proxy::to(&store.url()).unwrap();
    let (status, body) = insert(&client(), &proxy, "no_such_table").unwrap();
    assert_eq!(status, 404);
    assert!(body.contains("UNKNOWN_TABLE"), "{body}");
}

#[test]
fn after_a_cut_response_only_the_store_has_the_row() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "cut"), client());
    proxy.cut_answers(2);
    assert!(insert(&client, &proxy, "cut").is_err());
    assert_eq!((rows(store, "cut").as_str(), proxy.outstanding()), ("1", 1));
    assert!(insert(&client, &proxy, "cut").is_err());
    assert_eq!(insert(&client, &proxy, "cut").unwrap().0, 200);
    assert_eq!(rows(store, "cut"), "3");
    assert_eq!((proxy.requests(), proxy.injected()), (3, 2));
}

#[test]
fn not_one_byte_of_a_cut_answer_arrives() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let proxy = Proxy::to(&store.url()).unwrap();
    proxy.cut_answers(1);
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    assert_eq!(got, b"");
}

#[test]
fn a_duplicated_request_arrives_twice_and_is_answered_once() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "twice"), client());
    proxy.duplicate(1);
    assert_eq!(insert(&client, &proxy, "twice").unwrap().0, 200);
    assert_eq!(rows(store, "twice"), "2");
    assert_eq!(insert(&client, &proxy, "twice").unwrap().0, 200);
    assert_eq!(rows(store, "twice"), "3");
}

#[test]
fn a_cut_request_changes_nothing_in_the_store() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "half"), client());
    proxy.cut_requests(1);
    assert!(insert(&client, &proxy, "half").is_err());
    assert_eq!(insert(&client, &proxy, "half").unwrap().0, 200);
    assert_eq!(rows(store, "half"), "1");
}

#[test]
fn faults_apply_only_to_requests_that_match() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "some"), client());
    proxy.matching("INSERT");
    proxy.refuse();
    assert!(insert(&client, &proxy, "some").is_err());
    assert_eq!(client.get(format!("{}/ping", proxy.url())).call().unwrap().status(), 200);
    proxy.pass();
    assert_eq!(insert(&client, &proxy, "some").unwrap().0, 200);
    assert_eq!(rows(store, "some"), "1");
}

#[test]
fn refusing_closes_new_connections_and_old_ones_when_used() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, old) = (table(store, "refused"), client());
    assert_eq!(insert(&old, &proxy, "refused").unwrap().0, 200);
    proxy.refuse();
    let begin = Instant::now();
    assert!(insert(&old, &proxy, "refused").is_err());
    assert!(insert(&client(), &proxy, "refused").is_err());
    assert!(begin.elapsed() < Duration::from_secs(5));
    proxy.pass();
    assert_eq!(insert(&old, &proxy, "refused").unwrap().0, 200);
    assert_eq!(rows(store, "refused"), "2");
}

#[test]
fn a_black_hole_never_responds_until_it_ends() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let proxy = table(store, "hole");
    proxy.blackhole();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| insert(&client(), &proxy, "hole"));
        while proxy.injected() == 0 {
            std::thread::yield_now();
        }
        assert!(!asking.is_finished());
        assert_eq!(rows(store, "hole"), "0");
        proxy.pass();
        assert!(asking.join().unwrap().is_err());
    });
    assert_eq!(rows(store, "hole"), "0");
}

#[test]
fn a_delayed_answer_comes_late_and_whole() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let proxy = table(store, "late");
    proxy.delay(400);
    let begin = Instant::now();
    assert_eq!(insert(&client(), &proxy, "late").unwrap().0, 200);
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert_eq!(rows(store, "late"), "1");
}

#[test]
fn an_answer_of_the_proxys_own_does_not_reach_the_store() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let (proxy, client) = (table(store, "instead"), client());
    proxy.answer_instead(1, 503);
    assert_eq!(insert(&client, &proxy, "instead").unwrap().0, 503);
    assert_eq!(insert(&client, &proxy, "instead").unwrap().0, 200);
    assert_eq!(rows(store, "instead"), "1");
}

#[test]
fn severed_connections_end_and_new_ones_are_taken() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let proxy = Proxy::to(&store.url()).unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
    proxy.sever();
    // The rest of the first response, then the end; an error would be the timeout.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(client().get(format!("{}/ping", proxy.url())).call().unwrap().status(), 200);
}

#[test]
fn a_dead_server_closes_the_connection_until_retargeted() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let Some(dead) = available(ClickHouse::start()) else { return };
    let (proxy, client) = (Proxy::to(&dead.url()).unwrap(), client());
    dead.kill();
    assert!(client.get(format!("{}/ping", proxy.url())).call().is_err());
    proxy.retarget(&store.url()).unwrap();
    assert_eq!(client.get(format!("{}/ping", proxy.url())).call().unwrap().status(), 200);
}
