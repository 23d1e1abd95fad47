//! All the JSON (RFC 8259) that the SDK needs, small enough for a mini-program.
//!
//! The SDK never builds a tree: properties arrive as text, are checked by [`check_object`] and passed through; what it
//! writes itself goes through the `write_*` functions; what it reads (receipts, its own records) through [`Reader`].

mod check;
mod reader;
mod write;

pub use check::{PropertyLimits, check_object};
pub use reader::{JsonError, Reader};
pub use write::{ObjectWriter, write_string};

pub use crate::integer::{write_integer, write_unsigned};
