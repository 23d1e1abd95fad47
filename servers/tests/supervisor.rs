//! No server outlives the process that started it, in whatever way that process ends.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use subway_servers::{ClickHouse, available, tools};

/// Set in the child that is to be killed, which prints the process ID of its server.
const CHILD: &str = "SUBWAY_SERVERS_HOLDER";

#[test]
fn the_server_of_a_killed_process_ends() {
    if std::env::var_os(CHILD).is_some() {
        hold_a_server();
    }
    // Fetched here, so that the child has only to start it.
    let Some(store) = available(ClickHouse::start()) else { return };
    drop(store);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["the_server_of_a_killed_process_ends", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let server = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("holds ")?.parse().ok()).unwrap();
    assert!(tools::is_alive(server));
    // SIGKILL: the holder cannot clean up.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while tools::is_alive(server) {
        assert!(Instant::now() < end, "the server {server} outlived its holder");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn hold_a_server() -> ! {
    let server = ClickHouse::start().unwrap();
    println!("\nholds {}", server.pid().unwrap());
    loop {
        std::thread::park();
    }
}
