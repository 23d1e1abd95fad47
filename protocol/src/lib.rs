//! The words that phone and server share.
//!
//! A leaf: no IO, no clock, no randomness, and nothing that only one side needs to know. `docs/protocol.md` specifies the
//! same things in prose; `fixtures/` holds examples that every implementation must read alike.
//!
//! * [`id`], [`theme`]: the vocabulary of an event.
//! * [`limits`]: every limit of the wire, with its unit and its reason.
//! * [`outcome`]: how an event can end: stored, duplicate, or rejected with a reason.
//! * [`json`]: a small writer, a small reader and the checker of properties; all the JSON the SDK needs.
//! * [`codec`]: batch and receipt to bytes and back. The collector's half needs the feature `server`.

pub mod codec;
pub mod id;
mod integer;
pub mod json;
pub mod limits;
pub mod outcome;
pub mod theme;

pub use id::Id;
pub use limits::Limits;
pub use outcome::{Got, RejectReason, Violation};
pub use theme::Theme;

/// The version of the wire format that this crate speaks: the field `v` of a batch.
pub const VERSION: u64 = 1;
