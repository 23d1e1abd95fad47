//! What the fuzzer runs: one function for every reader of text or bytes that come from outside.
//!
//! Each takes any bytes at all and returns; what must not be, it panics over. The fuzzer's binaries (`fuzz/`, nightly) and
//! the replay of the committed corpus (`tests/corpus.rs`, stable, part of `cargo xtask test`) call the same functions.
//!
//! A reader on its own must not panic, hang or take more than its limit. Where two readers exist for one text, they are
//! compared: the SDK's JSON code with serde_json, what the SDK accepts with what the collector accepts, what was written
//! with what is read back.

// Here a panic is a finding.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod access_log;
pub mod batch;
pub mod client;
pub mod json;
pub mod requests;
pub mod segments;
pub mod sqlite_store;

/// One function of this crate.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its binary in `fuzz/` and of its folder in `fuzz/corpus/`.
pub const ALL: &[(&str, Target)] = &[
    ("access_log", access_log::run),
    ("batch", batch::body),
    ("bulk_answer", batch::bulk_answer),
    ("clickhouse_rows", batch::clickhouse_rows),
    ("client_state", client::state),
    ("config", requests::config),
    ("document", batch::document),
    ("forwarded", requests::forwarded),
    ("gzip_round_trip", json::gzip_round_trip),
    ("inflate", requests::inflate),
    ("properties", json::properties),
    ("query", requests::query),
    ("receipt", json::receipt),
    ("record", batch::record),
    ("retry_after", requests::retry_after),
    ("segments", segments::run),
    ("signature", requests::signature),
    ("sqlite_store", sqlite_store::run),
    ("text", json::text),
    ("time", requests::time),
    ("track", batch::track),
];
