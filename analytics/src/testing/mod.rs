//! What readers are tested with: the oracle that every one of them has to agree with.

mod oracle;

pub use oracle::{Oracle, OracleEvent};
