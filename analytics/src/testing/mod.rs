//! Test support for readers: the oracle whose answers every reader has to match.

mod oracle;

pub use oracle::{Oracle, OracleEvent};
