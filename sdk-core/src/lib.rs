//! The client's brain: decides what is kept, what is sent and when; touches nothing.
//!
//! Four verbs, after the manner of sans-IO protocol libraries. A host (a *binding*: `sdk-wasm`, `sdk-mobile`)
//!
//! 1. gives **inputs**: [`Client::track`], [`Client::identify`], [`Client::background`], ..
//! 2. asks for work: [`Client::poll_task`],
//! 3. reports what came of it: [`Client::on_result`],
//! 4. sleeps until [`Client::next_wake`].
//!
//! # Architecture invariants
//! No IO except through the [`Store`] that the host brings, no clock (every call takes [`Now`]), no randomness (the host
//! brings entropy once), no threads, no async, no panics, no serde_json. A core that reads a clock is a defect.

mod client;
mod clock;
mod config;
mod consent;
mod error;
mod ledger;
pub mod limits;
mod queue;
mod random;
mod session;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;

pub use client::{Client, Input, check_common, check_user};
pub use clock::Now;
pub use config::Config;
pub use consent::Consent;
pub use error::{OpenError, TrackError};
pub use ledger::{DropReason, Ledger};
pub use store::{Key, MemoryStore, Store, StoreError, Write};
pub use subway_protocol as protocol;
pub use subway_protocol::codec::encode::{Context, Page};
pub use subway_protocol::{Id, Theme};
pub use transport::{Task, UploadRequest, UploadResult};
