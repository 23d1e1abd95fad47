//! The collector's side of the codec: decodes batches, encodes receipts and problems.

mod batch;
mod deserialize;
mod event;
mod response;
mod text;

pub use batch::{WireBatch, decode};
pub use event::{WireEvent, WirePage, WireSession};
pub use response::{Problem, ProblemCode, Receipt, Rejection};
pub use text::WireText;
