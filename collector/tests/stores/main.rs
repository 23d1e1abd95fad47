//! The built binary in front of real ClickHouse, Elasticsearch and Kafka, with faults between and in them: every event
//! is in every store once, or a dead letter with its reason, and the ledger says so exactly.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests fail the test")]

mod faults;
mod independence;
mod lab;
mod poison;
mod reading;
mod schema;
mod spread;
#[allow(dead_code, reason = "other test targets use the rest")]
#[path = "../write_path/support.rs"]
mod support;
