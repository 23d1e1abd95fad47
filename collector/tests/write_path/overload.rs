//! More than the collector can or may take.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use super::support::{BINARY, Collector, CollectorFixture, assert_adds_up, batch, events, eventually, exported};

#[test]
fn connections_beyond_the_limit_are_told_so_and_a_free_place_is_used_again() {
    let site = CollectorFixture::new("[limits]\nconnections = 2\nconnections_per_ip = 0\n");
    let collector = site.start();
    let first = TcpStream::connect(collector.address()).unwrap();
    let second = TcpStream::connect(collector.address()).unwrap();
    let mut answer = String::new();
    let mut third = TcpStream::connect(collector.address()).unwrap();
    // The first two may still be on their way in; whichever comes too late is told.
    third.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    third.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: "), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len()))
            || head.ends_with(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "unavailable");
    drop((first, second, third));
    eventually("a place becomes free", || {
        collector
            .try_post("demo", &[], batch(events(1)).to_string().as_bytes())
            .is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let site = CollectorFixture::new("[limits]\nheader_timeout_ms = 50\n");
    let collector = site.start();
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    std::io::Write::write_all(&mut stream, b"POST /v1/events HTTP/1.1\r\nx-subway-key: de").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    eventually("the connection is gone", || collector.metric("subway_open_connections") <= 1);
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let site = CollectorFixture::new("[limits]\nbody_timeout_ms = 50\n");
    let collector = site.start();
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    let head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\ncontent-length: 100\r\n\r\n{";
    std::io::Write::write_all(&mut stream, head).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[test]
fn an_answer_that_nobody_takes_is_small_and_not_kept_for_ever() {
    let site = CollectorFixture::new("[limits]\nbody_timeout_ms = 1000\n");
    let collector = site.start();
    // The name of a field that is wrong may be all of the body.
    let name = "x".repeat(900_000);
    let wrong = json!({"ledger": {"dropped": {&name: "no"}}});
    let mut body = batch(events(1));
    body["ledger"] = wrong["ledger"].clone();
    let answer = collector.send(&body);
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"));
    assert!(answer.text.len() < 4096, "{} bytes", answer.text.len());
    // A client that asks for many answers on one connection and takes none: some of them do not fit between the two.
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let broken = loop {
        if let Err(error) = std::io::Write::write_all(&mut stream, request.as_bytes()) {
            break error.kind();
        }
    };
    assert!(matches!(broken, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "it is kept: {broken}");
}

#[test]
fn bodies_beyond_an_apps_share_of_the_memory_are_refused_until_others_are_done() {
    let other = "[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\n";
    let limits = "[limits]\nbody_bytes = 1000000\ndecompressed_bytes = 1000000\nin_flight_bytes = 6000000\n";
    let site = CollectorFixture::new(&format!("{other}{limits}"));
    let collector = site.start();
    let hold = || {
        let mut stream = TcpStream::connect(collector.address()).unwrap();
        let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\ncontent-length: 1000000\r\n\r\n";
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        std::io::Write::write_all(&mut stream, &[b' '; 900_000]).unwrap();
        stream
    };
    let held = [hold(), hold(), hold(), hold()];
    eventually("all are taken in", || collector.metric("subway_in_flight_bytes") == 3_600_000);
    let mut body = batch(events(1)).to_string();
    body.push_str(&" ".repeat(450_000));
    let answer = collector.post("demo", &[], body.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert!(answer.text.contains("of this app"), "{}", answer.text);
    let mut another = batch(events(1)).to_string();
    another.push_str(&" ".repeat(450_000));
    assert_eq!(
        collector.post("other", &[], another.as_bytes()).counts(),
        (1, 0, 0),
        "another app has room all the same"
    );
    drop(held);
    eventually("their memory is given back", || collector.metric("subway_in_flight_bytes") == 0);
    assert_eq!(collector.post("demo", &[], body.as_bytes()).counts(), (1, 0, 0));
}

/// Starts a collector whose files may not grow beyond `kib`, until the limit is lifted.
fn on_a_small_disk(site: &CollectorFixture, kib: u64) -> Collector {
    // Without the trap the system would kill the process instead of refusing the write. The unit of ulimit -f is 512 or
    // 1024 bytes depending on the shell, which does not matter here.
    let script = format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$@\"");
    Collector::spawn(Command::new("sh").args(["-c", &script, "sh", BINARY]).args(site.serve()))
}

#[test]
fn a_full_disk_is_a_503_that_stores_nothing_and_ends_when_there_is_room() {
    let site = CollectorFixture::new("");
    site.start().terminate();
    let collector = on_a_small_disk(&site, 400);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let batch = batch(events(100));
        let answer = collector.send(&batch);
        match answer.status {
            200 => acknowledged.extend(
                batch["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()),
            ),
            _ => break (batch, answer),
        }
        assert!(acknowledged.len() < 100_000, "the disk never fills");
    };
    assert_eq!((refused.1.status, refused.1.code().as_str()), (503, "unavailable"));
    let ready = collector.get("/health/ready", None);
    assert_eq!((ready.status, ready.code().as_str()), (503, "unavailable"));
    assert!(collector.metric("subway_spool_commit_failures_total") > 0);
    assert_eq!(collector.ledger()["stored"], acknowledged.len());
    let lifted =
        Command::new("prlimit").args(["--pid", &collector.id().to_string(), "--fsize=unlimited"]).status().unwrap();
    assert!(lifted.success());
    let room = Instant::now();
    eventually("the collector is ready again", || collector.get("/health/ready", None).status == 200);
    assert_eq!(collector.send(&refused.0).counts(), (100, 0, 0), "nothing of the refused batch had been kept");
    acknowledged
        .extend(refused.0["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    assert_adds_up(&collector.ledger());
    eventually("the embedded store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    println!(
        "a full disk: everything is stored and delivered {:.1} s after there was room",
        room.elapsed().as_secs_f64()
    );
    assert!(collector.terminate().success());
    acknowledged.sort();
    assert_eq!(exported(&site), acknowledged);
}
