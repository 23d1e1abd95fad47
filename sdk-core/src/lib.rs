//! Sans-IO client core. Decides which events to keep, batch and upload; performs no IO.
//!
//! Read [`Client`] and [`Store`] first. A host (a *binding*: `sdk-wasm`, `sdk-mobile`) drives the client in a loop:
//!
//! 1. gives **inputs**: [`Client::track`], [`Client::identify`], [`Client::background`], ..
//! 2. polls for work: [`Client::poll_task`],
//! 3. reports the result: [`Client::handle_upload_result`],
//! 4. sleeps until [`Client::poll_timeout`].
//!
//! # Example
//! ```
//! use subway_sdk_core::{Client, Config, Input, MemoryStore, Now, Task, Theme, UploadRequest, UploadResult};
//!
//! /// Sends the body with the host's HTTP client and returns status and body of the response.
//! fn post(upload: &UploadRequest) -> (u16, String) {
//!     let (batch, events) = (upload.batch_id, upload.events);
//!     let receipt = format!(
//!         r#"{{"batch_id":"{batch}","server_time":1,"stored":{events},"duplicate":[],"rejected":[]}}"#
//!     );
//!     (200, receipt)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The host's clocks, read before each call.
//! let now = || Now { wall: 1_700_000_000_000, mono: 5_000 };
//! let entropy = b"32 random bytes from the host ..";
//! let mut client = Client::open(MemoryStore::default(), Config::default(), "", entropy, now())?;
//!
//! let input = Input { theme: Theme::View, code: "page_view", props: r#"{"item":7}"#, page: None, true_ts: None };
//! client.track(now(), input)?;
//! client.flush(now());
//!
//! while let Some(Task::Upload(upload)) = client.poll_task(now()) {
//!     let (status, body) = post(&upload);
//!     let result = UploadResult::Response { status, retry_after_ms: None, body: &body };
//!     client.handle_upload_result(now(), upload.batch_id, result);
//! }
//!
//! assert_eq!(client.ledger().acked, 1);
//! assert_eq!(client.poll_timeout(), None, "nothing to do before the next input");
//! # Ok(())
//! # }
//! ```
//!
//! # Architecture invariants
//! No IO except through the [`Store`] of the host, no clock (every call takes [`Now`]), no randomness (the host gives
//! entropy once), no threads, no async, no panics, no serde_json. A core that reads a clock is a defect.

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
pub use store::{Key, MemoryStore, Store, StoreError, StoreErrorKind, StoreWrite};
pub use subway_protocol as protocol;
pub use subway_protocol::codec::encode::{Context, Page};
pub use subway_protocol::{Id, Theme};
pub use transport::{Task, UploadRequest, UploadResult};
