//! The collector: receives events, keeps them durably, feeds the stores and answers questions about them.
//!
//! The way of an event: `http` takes the request, `auth` finds the app, `accept` decodes it, lets `pipeline` judge it, and
//! hands it to the one writer of the [`spool`]; the answer goes out after the commit. `fanout` then delivers the spool to
//! every sink of `sinks`, each at its own pace; `query` answers from the store that the configuration names for reading, in
//! the words of `subway_analytics`. `serve` puts all of it together, `cli` runs it.
//!
//! The product is the binary, which calls [`main`]; [`run`] is a collector inside of another process. The rest of what is
//! public here is what benches, tests and the fuzzer use.

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
