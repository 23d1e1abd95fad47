//! Codecs for batches, receipts and problems.
//!
//! The SDK writes batches with [`encode`] and reads receipts with [`receipt`]; the collector does the reverse with
//! [`server`], which is compiled only with the feature `server`.

pub mod encode;
pub mod problem;
pub mod receipt;
#[cfg(feature = "server")]
pub mod server;
