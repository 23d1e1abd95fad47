//! How a batch gets to the collector, and what is made of the answer.

mod http;
mod retry_after;
mod sign;

use subway_sdk_core::UploadRequest;

pub use http::HttpTransport;
#[doc(hidden)]
pub use retry_after::parse as retry_after;

/// Sends one batch and waits for the answer. Called by the upload thread only, so it may block; it must not block for
/// longer than the core waits for an upload ([`subway_sdk_core::limits::UPLOAD_TIMEOUT_MS`]).
pub trait Transport: Send + Sync {
    /// Sends it once; whether and when it is sent again is the core's decision.
    fn send(&self, upload: &UploadRequest) -> Reply;
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A server answered, the collector or somebody in between.
    Response {
        /// HTTP status.
        status: u16,
        /// The header `Retry-After`, milliseconds from now.
        retry_after_ms: Option<u64>,
        /// The body; empty if it is no text or larger than any receipt.
        body: String,
    },
    /// No answer; the text says why.
    Failed(String),
}
