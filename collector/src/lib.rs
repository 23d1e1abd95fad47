//! Collector of events: receives them, stores them durably, delivers them to stores and answers queries about them.
//!
//! The way of an event: `http` parses the request, `auth` finds the app, and `accept` decodes the batch, runs
//! `pipeline` and hands the result to the one writer of the [`spool`]. The answer is sent after the commit. `fanout`
//! then delivers the spool to every sink of `sinks`, each at its own pace. `query` answers from the store that `[query]
//! source` names, with the metrics of `subway_analytics`. `serve` builds all of it, and `cli` runs it.
//!
//! The product is the binary, which calls [`main`]. Another process can embed a collector with [`run`]. Everything else
//! that is public is for benches, tests and the fuzzer.

mod accept;
mod auth;
mod cli;
mod clock;
pub mod config;
mod db;
mod disk;
mod export;
mod fanout;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limit;
mod pipeline;
mod process;
mod query;
pub mod record;
pub mod row;
mod serve;
mod sinks;
pub mod spool;
mod telemetry;

pub use accept::sign;
pub use cli::main;
pub use serve::{StartError, run};
