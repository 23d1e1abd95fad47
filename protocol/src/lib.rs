//! Wire protocol shared by SDK and collector: vocabulary, limits, outcomes and the JSON codec.
//!
//! A leaf crate. It performs no IO, has no clock and no randomness, and holds nothing that only one side needs.
//! `docs/protocol.md` specifies the same protocol in prose; `fixtures/` holds examples that every implementation must
//! read alike.
//!
//! * [`id`], [`theme`]: the vocabulary of an event.
//! * [`limits`]: every limit of the wire, with its unit and its reason.
//! * [`outcome`]: outcomes of an event: stored, duplicate, or rejected with a reason.
//! * [`json`]: a small writer, a small reader and the checker of properties; all the JSON the SDK needs.
//! * [`codec`]: encodes and decodes batches and receipts. The collector's side needs the feature `server`.

pub mod codec;
pub mod id;
mod integer;
pub mod json;
pub mod limits;
mod named;
pub mod outcome;
pub mod theme;

pub use id::Id;
pub use limits::Limits;
pub use outcome::{Actual, RejectReason, Violation};
pub use theme::Theme;

/// Version of the wire format that this crate implements: the field `v` of a batch.
pub const VERSION: u64 = 1;
