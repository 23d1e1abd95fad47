//! Fuzz targets: one function for every reader of text or bytes from outside.
//!
//! Each accepts any bytes and returns; a violated property is a panic. The fuzzer's binaries (`fuzz/`, nightly) and the
//! replay of the committed corpus (`tests/corpus.rs`, stable, part of `cargo xtask test`) call the same functions.
//!
//! A reader must not panic, hang or exceed its limit. If two readers exist for one text, they are compared: the SDK's
//! JSON code with serde_json, what the SDK accepts with what the collector accepts, what was written with what is read
//! back.

// A panic is a finding here.
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

/// Every target by its name, which is also that of its binary in `fuzz/` and of its folder in `fuzz/corpus/`.
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
