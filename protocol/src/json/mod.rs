//! JSON (RFC 8259) as far as the SDK needs it, small enough for a mini-program.
//!
//! The SDK never builds a tree. Properties arrive as text, are checked by [`check_object`] and passed through. The SDK
//! encodes with [`ObjectWriter`] and the `write_*` functions, and reads receipts and its own records with [`Reader`].

mod check;
mod reader;
mod write;

pub use check::{PropertyLimits, check_object};
pub use reader::{JsonError, Reader};
pub use write::{ObjectWriter, write_string};

pub use crate::integer::{write_integer, write_unsigned};
