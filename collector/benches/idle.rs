//! What idle connections cost: the memory of the real binary with 10,000 connections that have each stored an event and
//! now wait. Prints one JSON object; `cargo xtask bench` makes a row of it. Linux only, because it reads `/proc`.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the other benchmarks use the rest")]
#[path = "common/http.rs"]
mod http;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that wait at the end.
const CONNECTIONS: usize = 10_000;
/// Threads that open them.
const THREADS: usize = 20;
/// The collector's own limit: some room above what is opened.
const LIMIT: usize = 12_000;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    // All of them come from one address.
    let limits = format!("connections = {LIMIT}\nconnections_per_ip = 0\nheader_timeout_ms = 3600000\n");
    let text = format!("[[app]]\nkey = \"demo\"\ntimezone = \"UTC\"\n[limits]\n{limits}");
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_subway-collector"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    let running = Running(child);
    let first = connect(&address, 0);
    let before = resident(running.0.id());
    let mut open: Vec<TcpStream> = std::thread::scope(|scope| {
        let part = CONNECTIONS / THREADS;
        let address = &address;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || (1..=part).map(|at| connect(address, thread * part + at)).collect()))
            .collect();
        threads.into_iter().flat_map(|thread| -> Vec<TcpStream> { thread.join().unwrap() }).collect()
    });
    // The first makes one too many; it has shown that everything is warm.
    drop(first);
    let counted = metric(&mut open[0], &address);
    assert!(counted >= CONNECTIONS as u64, "only {counted} connections are open");
    let report = serde_json::json!({
        "connections": open.len(),
        "rss_bytes": resident(running.0.id()),
        "rss_bytes_before": before,
    });
    println!("{report}");
}

/// A connection that has stored one event.
fn connect(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let id = |kind: u8| format!("0198c0de-00{kind:02x}-7000-8000-{number:012x}");
    let body = format!(
        concat!(
            r#"{{"v":1,"batch_id":"{}","install_id":"{}","sent_at":1790000000000,"events":[{{"id":"{}","seq":1,"#,
            r#""theme":"view","code":"page_view","ts":1790000000000,"props":{{"k":"v"}}}}]}}"#
        ),
        id(1),
        id(2),
        id(3)
    );
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nx-subway-key: demo\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let answer = http::read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"stored\":1"), "{answer}");
    stream
}

/// How many connections the collector says are open.
fn metric(stream: &mut TcpStream, address: &str) -> u64 {
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let page = http::read(stream);
    page.lines().find_map(|line| line.strip_prefix("subway_open_connections ")?.parse().ok()).unwrap()
}

/// Bytes of memory that a process holds (proc(5): VmRSS, in kB).
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
