//! Transport of batches to the collector.

mod http;
mod retry_after;
mod sign;

use subway_sdk_core::UploadRequest;

pub use http::HttpTransport;
#[doc(hidden)]
pub use retry_after::parse as retry_after;

/// Sends one batch and waits for the response.
///
/// Called only by the upload thread, so it can block, but not longer than the core waits for an upload
/// ([`subway_sdk_core::limits::UPLOAD_TIMEOUT_MS`]).
pub trait Transport: Send + Sync {
    /// Sends the batch once. The core decides whether and when it is sent again.
    fn send(&self, upload: &UploadRequest) -> Reply;
}

/// Result of sending a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A server answered: the collector or an intermediary.
    Answer {
        /// HTTP status.
        status: u16,
        /// The header `Retry-After`, milliseconds from now.
        retry_after_ms: Option<u64>,
        /// Body; empty if it is not text or larger than any receipt.
        body: String,
    },
    /// No response, with the reason.
    Failed(String),
}
