//! Real stores for tests and benches, and a [`Proxy`] that injects faults between the collector and a store.
//!
//! The servers are fetched from packages into ignored folders under `target/tools/servers` and started on loopback
//! ports of their own. They stop when the handle is dropped, and end when the process that started them dies in any
//! way.
//!
//! ```no_run
//! use subway_servers::{ClickHouse, available};
//! let Some(store) = available(ClickHouse::shared()) else { return Ok(()) };
//! assert_eq!(store.query("SELECT 1")?, "1\n");
//! # anyhow::Ok(())
//! ```

use std::io::Write;

mod clickhouse;
mod elastic;
mod http;
mod kafka;
mod maven;
mod process;
mod proxy;
mod rundir;
pub mod tools;
mod user;

pub use clickhouse::{ClickHouse, OldClickHouse};
pub use elastic::{Elastic, Elasticsearch, OpenSearch};
pub use http::HttpResponse;
pub use kafka::Kafka;
pub use proxy::Proxy;

/// Returns the server, or `None` if it is not available on this machine; then the test should return.
///
/// Prints loudly that a test was not run, with the reason.
///
/// # Panics
/// If the environment variable `CI` is set: CI has every server, so a missing one is a failure.
#[expect(clippy::panic, reason = "this is for tests, and a panic is how a test fails")]
pub fn available<T>(server: anyhow::Result<T>) -> Option<T> {
    match server {
        Ok(server) => Some(server),
        Err(error) if std::env::var_os("CI").is_some() => panic!("a server is missing, and CI is set: {error:#}"),
        Err(error) => {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Not eprintln, which the test harness captures.
            let _ = writeln!(std::io::stderr(), "\n!!! NOT RUN: {test}: {error:#}\n");
            None
        }
    }
}

/// One server for all tests of a process, or the reason why it is not available.
type Shared<T> = std::sync::OnceLock<Result<T, String>>;

/// Starts the shared server at the first call. A failure is not retried.
fn shared<T>(cell: &'static Shared<T>, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&'static T> {
    let server = cell.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    server.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}
