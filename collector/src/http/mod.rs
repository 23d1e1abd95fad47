//! HTTP.
pub mod console;
pub mod query;
