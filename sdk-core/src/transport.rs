//! What the host is asked to send, and what it reports.

use crate::Id;

/// Work for the host.
#[derive(Clone, Debug)]
pub enum Task {
    /// Send this to the collector and report with [`crate::Client::on_result`].
    Upload(UploadRequest),
}

/// One sending of one batch. The host adds address, key and compression.
#[derive(Clone, Debug)]
pub struct UploadRequest {
    /// Which batch; to be named in the report.
    pub batch_id: Id,
    /// The body: JSON, not compressed.
    pub body: String,
    /// How many events it carries.
    pub events: usize,
}

/// What came of a sending.
#[derive(Clone, Copy, Debug)]
pub enum UploadResult<'a> {
    /// A server answered, the collector or somebody in between.
    Answer {
        /// HTTP status.
        status: u16,
        /// The header `Retry-After`, milliseconds from now.
        retry_after_ms: Option<u64>,
        /// The body as text; empty if it is none.
        body: &'a str,
    },
    /// No answer: no connection, a timeout, a cut.
    Failed,
}
