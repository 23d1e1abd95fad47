//! The collector's half: a batch from bytes, a receipt and a refusal to bytes.

mod answer;
mod batch;
mod event;
mod shape;
mod text;

pub use answer::{Problem, ProblemCode, Receipt, Rejection};
pub use batch::{Batch, decode};
pub use event::{Event, Page, Session};
pub use text::Text;
