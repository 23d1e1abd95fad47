//! The collector: receives events, keeps them durably, feeds the stores and answers questions about them.
//!
//! The way of an event: [`http`] takes the request, [`auth`] finds the app, [`accept`] decodes it, lets [`pipeline`]
//! judge it, and hands it to the one writer of the [`spool`]; the answer goes out after the commit. [`fanout`] then
//! delivers the spool to every sink of [`sinks`], each at its own pace; [`query`] answers from the store that the
//! configuration names for reading, in the words of `subway_analytics`. [`serve`] puts all of it together, [`cli`] runs it.

pub mod accept;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod disk;
pub mod export;
pub mod fanout;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod limit;
pub mod pipeline;
pub mod process;
pub mod query;
pub mod record;
pub mod row;
pub mod serve;
pub mod sinks;
pub mod spool;
pub mod telemetry;

pub use serve::run;
