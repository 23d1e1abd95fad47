//! Uploads: what the host has to send, and what it reports.

use crate::Id;

/// Work for the host.
#[derive(Clone, Debug)]
pub enum Task {
    /// Send this to the collector and report the result with [`crate::Client::handle_upload_result`].
    Upload(UploadRequest),
}

/// One upload of one batch. The host adds address, key and compression.
#[derive(Clone, Debug)]
pub struct UploadRequest {
    /// ID of the batch, for the report.
    pub batch_id: Id,
    /// Body: JSON, not compressed.
    pub body: String,
    /// Number of events.
    pub events: usize,
}

/// Result of an upload.
#[derive(Clone, Copy, Debug)]
pub enum UploadResult<'a> {
    /// A server answered: the collector or an intermediary.
    Response {
        /// HTTP status.
        status: u16,
        /// The header `Retry-After`, milliseconds from now.
        retry_after_ms: Option<u64>,
        /// Body as text; empty if it is not text.
        body: &'a str,
    },
    /// No response: no connection, a timeout, a broken connection.
    Failed,
}
