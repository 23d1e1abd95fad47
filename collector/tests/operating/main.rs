//! What an operator does with the built binary: limits, TLS, logs, another configuration while it runs, and the files
//! in `deploy/`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backup;
mod deploy;
mod docs;
mod files;
mod limits;
mod logs;
mod operators;
mod reading;
mod reload;
mod sinks;
#[path = "../write_path/support.rs"]
#[allow(dead_code, reason = "the tests of the write path use more of it")]
mod support;
mod tls;
